//! The peer in `../../src`, with LDK's LSPS0 and LSPS5 client beside it, and LDK's
//! validator of notifications.
//!
//! A line on stdin that starts with `{` is a command for these two (see `lsps.rs`); any other line
//! is one for the peer. With the same `--seed` it is the same node as the peer, and can do all
//! that the peer can: channels, offers, payments.
//!
//! The peer's modules are compiled as they are, but for one: `presence.rs`, LDK's handler of
//! custom messages, is our own here. It has the same interface, and LSPS behind it.
//!
//! One source for two versions of LDK, as the peer; what differs between them in LSPS is in
//! `liquidity_0_2.rs` and `liquidity_0_3.rs`.

#[cfg(not(any(feature = "ldk-0_2", feature = "ldk-0_3")))]
compile_error!("choose one: --features ldk-0_2 or --features ldk-0_3");
#[cfg(all(feature = "ldk-0_2", feature = "ldk-0_3"))]
compile_error!("ldk-0_2 and ldk-0_3 do not go together");

#[cfg(feature = "ldk-0_2")]
extern crate lightning02 as lightning;
#[cfg(feature = "ldk-0_3")]
extern crate lightning03 as lightning;
#[cfg(feature = "ldk-0_2")]
extern crate lightning_liquidity02 as lightning_liquidity;
#[cfg(feature = "ldk-0_3")]
extern crate lightning_liquidity03 as lightning_liquidity;
#[cfg(feature = "ldk-0_2")]
extern crate lightning_net_tokio02 as lightning_net_tokio;
#[cfg(feature = "ldk-0_3")]
extern crate lightning_net_tokio03 as lightning_net_tokio;
#[cfg(feature = "ldk-0_2")]
extern crate lightning_persister02 as lightning_persister;
#[cfg(feature = "ldk-0_3")]
extern crate lightning_persister03 as lightning_persister;

#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/commands.rs"]
mod commands;
#[path = "../../src/describe.rs"]
mod describe;
#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/handlers.rs"]
mod handlers;
#[cfg(feature = "ldk-0_2")]
#[path = "../../src/ldk_0_2.rs"]
mod ldk;
#[cfg(feature = "ldk-0_3")]
#[path = "../../src/ldk_0_3.rs"]
mod ldk;
#[cfg(feature = "ldk-0_2")]
#[path = "liquidity_0_2.rs"]
mod liquidity;
#[cfg(feature = "ldk-0_3")]
#[path = "liquidity_0_3.rs"]
mod liquidity;
mod lsps;
#[path = "../../src/net.rs"]
mod net;
#[path = "../../src/node.rs"]
mod node;
#[path = "../../src/plumbing.rs"]
mod plumbing;
mod presence;
#[path = "../../src/raw.rs"]
mod raw;
#[path = "../../src/report.rs"]
mod report;
#[path = "../../src/routers.rs"]
mod routers;
#[path = "../../src/server.rs"]
mod server;
#[path = "../../src/settings.rs"]
mod settings;
#[path = "../../src/store.rs"]
mod store;
mod validator;

use crate::commands::Wanted;
use crate::lsps::Lsps;
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
    let lsps = Lsps::new(&node)?;
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
    serve(&node, &lsps).await;
    node.save(true);
    node.peers.disconnect_all_peers();
    Ok(())
}

/// The main loop: after whatever woke it, everything that waits is done.
async fn serve(node: &Arc<Node>, lsps: &Lsps) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut wanted = Wanted::default();
    loop {
        // As in the peer's own loop: not for everything that is wanted does LDK wake us.
        let pause = Duration::from_millis(if wanted.anything() { 1 } else { 10 });
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let done = if line.starts_with('{') {
                    lsps.run(&line).map(|()| true)
                } else {
                    commands::run(node, &mut wanted, &line)
                };
                match done {
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
        node.peers.process_events();
        events::handle_pending(node);
        lsps.report_pending();
        wanted.check(node);
        node.save(false);
        node.peers.process_events();
    }
}
