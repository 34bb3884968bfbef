//! Connections, out and in.

use crate::node::Node;
use crate::report::{hex, out};
use bitcoin::secp256k1::PublicKey;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// Connects, and stays until the connection is lost. `Presence` tells of the success.
pub async fn connect(node: Arc<Node>, id: PublicKey, address: SocketAddr) {
    let before = node.presence.times(&id);
    if let Some(stream) = TcpStream::connect(address).await.ok().and_then(prompt) {
        lightning_net_tokio::setup_outbound(node.peers.clone(), id, stream).await;
    }
    // A connection that ended without a handshake never was one.
    if node.presence.times(&id) > before {
        return;
    }
    out("connect_failed", json!({"node": hex(&id.serialize())}));
}

/// Takes connections on loopback; gives the port, which is free choice for 0.
pub async fn listen(node: Arc<Node>, port: u16) -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|e| e.to_string())?;
    let bound = listener.local_addr().map_err(|e| e.to_string())?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Some(stream) = prompt(stream) {
                let peers = node.peers.clone();
                tokio::spawn(lightning_net_tokio::setup_inbound(peers, stream));
            }
        }
    });
    Ok(bound)
}

/// A stream that sends at once. LDK leaves it to the kernel, which keeps a second small write back
/// until the first is acknowledged: 40 ms that would hide the server's share of what is measured.
fn prompt(stream: TcpStream) -> Option<std::net::TcpStream> {
    stream.set_nodelay(true).ok()?;
    stream.into_std().ok()
}
