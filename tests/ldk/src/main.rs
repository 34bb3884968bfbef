//! A Lightning peer for the tests, made of rust-lightning: a wallet, a payer, or LDK's own static
//! invoice server, whatever the commands make of it. Commands come on stdin, events go to stdout
//! (see `commands.rs` and `report.rs`), LDK's log goes to stderr.
//!
//! One source for two versions of LDK, chosen by a cargo feature; all that differs between them is
//! in `ldk_0_2.rs` and `ldk_0_3.rs`.

#[cfg(not(any(feature = "ldk-0_2", feature = "ldk-0_3")))]
compile_error!("choose one: --features ldk-0_2 or --features ldk-0_3");
#[cfg(all(feature = "ldk-0_2", feature = "ldk-0_3"))]
compile_error!("ldk-0_2 and ldk-0_3 do not go together");

#[cfg(feature = "ldk-0_2")]
extern crate lightning02 as lightning;
#[cfg(feature = "ldk-0_3")]
extern crate lightning03 as lightning;
#[cfg(feature = "ldk-0_2")]
extern crate lightning_net_tokio02 as lightning_net_tokio;
#[cfg(feature = "ldk-0_3")]
extern crate lightning_net_tokio03 as lightning_net_tokio;
#[cfg(feature = "ldk-0_2")]
extern crate lightning_persister02 as lightning_persister;
#[cfg(feature = "ldk-0_3")]
extern crate lightning_persister03 as lightning_persister;

#[cfg(feature = "ldk-0_2")]
#[path = "ldk_0_2.rs"]
mod ldk;
#[cfg(feature = "ldk-0_3")]
#[path = "ldk_0_3.rs"]
mod ldk;

mod clock;
mod commands;
mod describe;
mod events;
mod handlers;
mod net;
mod node;
mod plumbing;
mod presence;
mod raw;
mod report;
mod routers;
mod server;
mod settings;
mod store;

use crate::commands::Wanted;
use crate::node::Node;
use crate::report::{hex, out};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), String> {
    report::start();
    let (settings, listen) = settings::read(std::env::args().skip(1))?;
    let node = Node::new(settings)?;
    let port = match listen {
        Some(port) => Some(net::listen(node.clone(), port).await?),
        None => None,
    };
    let ready = json!({
        "node": hex(&node.id.serialize()),
        "version": ldk::VERSION,
        "port": port,
        "height": node.manager.current_best_block().height,
        "now": clock::now(),
    });
    out("ready", ready);
    serve(&node).await;
    node.save(true);
    node.peers.disconnect_all_peers();
    Ok(())
}

/// The main loop: after whatever woke it, everything that waits is done.
async fn serve(node: &Arc<Node>) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut wanted = Wanted::default();
    loop {
        // Gossip wakes nobody, so that and the offers are looked for as long as they are wanted.
        // The longer pause is for what LDK does not wake us for.
        let pause = Duration::from_millis(if wanted.anything() { 1 } else { 10 });
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                match commands::run(node, &mut wanted, &line) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => out("bad_command", json!({"error": error})),
                }
            }
            () = node.manager.get_event_or_persistence_needed_future() => {}
            () = node.monitor.get_update_future() => {}
            () = node.onions.get_update_future() => {}
            () = node.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        // Messages first: they are what is measured.
        node.peers.process_events();
        events::handle_pending(node);
        wanted.check(node);
        node.save(false);
        node.peers.process_events();
    }
}
