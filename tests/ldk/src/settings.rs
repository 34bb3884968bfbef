//! The command line.

use crate::clock;
use crate::node::Settings;
use crate::report::unhex;
use bitcoin::{BlockHash, Network};

/// Reads `--seed HEX32 --network regtest|bitcoin --router default|nodeid|direct` and what may be left
/// out: `--listen PORT`, `--state FOLDER`, `--clock SECONDS`, `--dial never`, and for a new node `--tip HEIGHT:HASH`, the
/// block that it begins at. The clock is set here, before anything looks at it. Gives the settings
/// and the port to listen on.
pub fn read(mut words: impl Iterator<Item = String>) -> Result<(Settings, Option<u16>), String> {
    let (mut seed, mut listen) = (None, None);
    let mut settings = Settings {
        seed: [0; 32],
        network: Network::Regtest,
        router: "default".into(),
        state: None,
        tip: None,
        dial: true,
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        match word.as_str() {
            "--seed" => seed = unhex(&value)?.try_into().ok(),
            "--network" => settings.network = value.parse().map_err(|_| "no such network")?,
            "--router" => settings.router = value,
            "--listen" => listen = Some(value.parse().map_err(|_| "--listen takes a port")?),
            "--state" => settings.state = Some(value.into()),
            "--dial" => settings.dial = value != "never",
            "--tip" => settings.tip = Some(tip(&value).ok_or("--tip takes HEIGHT:HASH")?),
            "--clock" => clock::set(value.parse().map_err(|_| "--clock takes seconds")?),
            _ => return Err(format!("no such argument: {word}")),
        }
    }
    settings.seed = seed.ok_or("--seed takes 32 bytes as hex")?;
    Ok((settings, listen))
}

fn tip(text: &str) -> Option<(u32, BlockHash)> {
    let (height, hash) = text.split_once(':')?;
    Some((height.parse().ok()?, hash.parse().ok()?))
}
