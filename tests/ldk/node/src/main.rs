//! A wallet made of ldk-node, driven by lines on stdin; what happens is a JSON line each on stdout.
//!
//! `ldk-node-wallet STORAGE_DIR CHAIN_RPC USER PASSWORD LSP`, where CHAIN_RPC is the port of a
//! bitcoind RPC on loopback, and LSP the node id of the one who opens channels to us.
//!
//! Commands and events are those of the peer in `../src`: `connect NODE HOST:PORT`, `paths HEX`,
//! `offer`, `pay OFFER MSAT`. When it is started again from the same STORAGE_DIR, ldk-node itself
//! connects to whom it was connected to.

use std::error::Error;
use std::io::{stdin, stdout, BufRead, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::bitcoin::Network;
use ldk_node::config::{AnchorChannelsConfig, AsyncPaymentsRole, Config};
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::logger::LogLevel;
use ldk_node::{Builder, Event, Node};
use serde_json::{json, Value};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// ldk-node has no events for what is polled this often: a channel that invoices can name, an offer.
const POLL: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [storage, chain_rpc, user, password, lsp] = arguments.as_slice() else {
        return Err("STORAGE_DIR CHAIN_RPC USER PASSWORD LSP".into());
    };

    let builder = Builder::from_config(config(storage, lsp.parse()?));
    builder.set_chain_source_bitcoind_rpc(
        "127.0.0.1".into(),
        chain_rpc.parse()?,
        user.clone(),
        password.clone(),
    );
    let log = Path::new(storage).join("ldk-node.log").to_string_lossy().into_owned();
    builder.set_filesystem_logger(Some(log), Some(LogLevel::Trace));
    builder.set_async_payments_role(Some(AsyncPaymentsRole::Client))?;
    let node = builder.build()?;
    node.start()?;
    say(&json!({"ev": "ready", "node": node.node_id().to_string()}));

    let watched = Arc::clone(&node);
    thread::spawn(move || watch(&watched));

    for line in stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = match words.as_slice() {
            ["connect", peer, address] => connect(&node, peer, address),
            ["paths", paths] => set_paths(&node, paths),
            ["offer"] => offer(&node),
            ["pay", offer, msat] => pay(&node, offer, msat),
            _ => Err("no such command".into()),
        };
        if let Err(error) = done {
            say(&json!({"ev": "bad_command", "error": error.to_string()}));
        }
    }
    node.stop()?;
    Ok(())
}

fn config(storage: &str, lsp: PublicKey) -> Config {
    Config {
        storage_dir_path: storage.into(),
        network: Network::Regtest,
        // A wallet takes a channel of its LSP's without coins of its own to bump its fees with.
        anchor_channels_config: Some(AnchorChannelsConfig {
            trusted_peers_no_reserve: vec![lsp],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn say(event: &Value) {
    let mut out = stdout().lock();
    // Whoever started us may be gone; then stdin ends too, and so do we.
    let _ = writeln!(out, "{event}").and_then(|()| out.flush());
}

fn connect(node: &Node, peer: &str, address: &str) -> Result<()> {
    let address = SocketAddress::from_str(address).map_err(|_| "no HOST:PORT")?;
    let connected = node.connect(peer.parse()?, address, true);
    let ev = if connected.is_ok() { "connected" } else { "connect_failed" };
    say(&json!({"ev": ev, "node": peer}));
    Ok(())
}

/// Hands over the bytes as they are: what `sidecar client add` prints is what ldk-node reads.
fn set_paths(node: &Node, paths: &str) -> Result<()> {
    node.bolt12_payment().set_paths_to_static_invoice_server(unhex(paths)?)?;
    say(&json!({"ev": "paths_set", "ok": true}));
    Ok(())
}

/// Waits for an offer that the server has acknowledged the invoice of.
fn offer(node: &Node) -> Result<()> {
    loop {
        if let Ok(offer) = node.bolt12_payment().receive_async() {
            say(&json!({"ev": "offer", "offer": offer.to_string()}));
            return Ok(());
        }
        thread::sleep(POLL);
    }
}

fn pay(node: &Node, offer: &str, msat: &str) -> Result<()> {
    let offer = Arc::new(offer.parse()?);
    let msat = msat.parse()?;
    let payment = node.bolt12_payment().send_using_amount(&offer, msat, None, None, None)?;
    say(&json!({"ev": "paying", "payment": payment.to_string()}));
    Ok(())
}

/// Says what ldk-node tells its wallet.
fn watch(node: &Node) {
    loop {
        match node.wait_next_event() {
            Event::ChannelReady { .. } => {
                until_payable(node);
                say(&json!({"ev": "channel_ready"}));
            }
            Event::PaymentReceived { amount_msat, .. } => {
                say(&json!({"ev": "payment_received", "amount_msat": amount_msat}));
            }
            Event::PaymentSuccessful { .. } => say(&json!({"ev": "payment_successful"})),
            Event::PaymentFailed { reason, .. } => {
                say(&json!({"ev": "payment_failed", "reason": format!("{reason:?}")}));
            }
            _ => {}
        }
        if node.event_handled().is_err() {
            return;
        }
    }
}

/// LDK makes no payment path over a channel before its peer has told its fees for it.
fn until_payable(node: &Node) {
    while !node.list_channels().iter().any(|channel| {
        channel.is_usable && channel.counterparty_forwarding_info_fee_base_msat.is_some()
    }) {
        thread::sleep(POLL);
    }
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err("no hex".into());
    }
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?)).collect()
}
