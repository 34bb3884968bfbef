//! What the program says: one JSON object a line on stdout, for the Python driver to read.

use serde_json::{json, Map, Value};
use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Sets the moment that all `us` count from. Call it first.
pub fn start() {
    START.get_or_init(Instant::now);
}

/// Prints one event, with the microseconds since the start on the monotonic clock.
///
/// A closed pipe is no reason to fail here: it means that the driver is gone, and the end of
/// stdin ends the program.
pub fn out(event: &str, fields: Value) {
    let us = START
        .get()
        .map_or(0, |start| start.elapsed().as_micros() as u64);
    let mut object = Map::new();
    object.insert("us".into(), json!(us));
    object.insert("ev".into(), json!(event));
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    let line = format!("{}\n", Value::Object(object));
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(line.as_bytes());
    let _ = stdout.flush();
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hex as bytes, or what is wrong with it.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err("hex has an even number of ASCII digits".into());
    }
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|e| e.to_string()))
        .collect()
}

/// The name of an enum's variant, from its `Debug` form: LDK has far too many to list them here.
pub fn variant(debug: &str) -> &str {
    debug.split([' ', '{', '(']).next().unwrap_or("")
}

/// The first characters of a `Debug` form: some of LDK's run to many kilobytes.
pub fn shortened(debug: &str) -> String {
    debug.chars().take(600).collect()
}
