//! LDK's own static invoice server, in process on one thread, with the wallet and the payers that it needs:
//! no socket, no chain. Commands come on stdin, one a line; each is answered by a line of JSON on stdout.
//!
//! One source for two versions of LDK, chosen by a cargo feature.

#[cfg(not(any(feature = "ldk-0_2", feature = "ldk-0_3")))]
compile_error!("choose one: --features ldk-0_2 or --features ldk-0_3");
#[cfg(all(feature = "ldk-0_2", feature = "ldk-0_3"))]
compile_error!("ldk-0_2 and ldk-0_3 do not go together");

#[cfg(feature = "ldk-0_2")]
extern crate lightning02 as lightning;
#[cfg(feature = "ldk-0_3")]
extern crate lightning03 as lightning;

mod node;
mod parts;
mod served;

use crate::served::World;
use serde_json::{json, Value};
use std::io::BufRead;

/// What `hello` says of the version; as pinned in Cargo.toml.
const VERSION: &str = if cfg!(feature = "ldk-0_2") {
    "0.2.7"
} else {
    "0.3.0-rc3"
};

fn main() -> Result<(), String> {
    let mut world = World::new()?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{}", answer(&mut world, &line)?);
    }
    Ok(())
}

/// `hello` | `make <shape> <count>` | `serve`.
fn answer(world: &mut World, line: &str) -> Result<Value, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["hello"] => {
            let mut told = world.describe();
            told["version"] = json!(VERSION);
            Ok(told)
        }
        ["make", shape, count] => {
            let count = count.parse().map_err(|error| format!("{count}: {error}"))?;
            world.make(shape, count)
        }
        ["serve"] => world.serve(),
        _ => Err(format!("no such command: {line}")),
    }
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
