//! LDK's handler of custom messages: who is connected, as in the peer's module of this name, and
//! LSPS, whose JSON is reported as it goes out and as it comes in.

use crate::liquidity::Liquidity;
use crate::report::{hex, out};
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::LengthLimitedRead;
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::Notify;

/// "LSPs MAY set the `features` bit numbered 729 (`option_supports_lsps`)" (bLIP 50). Its even
/// neighbour means the same, as of all features.
const LSPS_FEATURES: [usize; 2] = [728, 729];

/// The peers whose handshake is done, in the order they came, and how often each one came.
#[derive(Default)]
pub struct Presence {
    held: Mutex<(Vec<PublicKey>, HashMap<PublicKey, u64>)>,
    lsps: OnceLock<(Arc<Liquidity>, Arc<Notify>)>,
}

impl Presence {
    /// The one that has been there the longest.
    pub fn first(&self) -> Option<PublicKey> {
        self.held.lock().unwrap().0.first().copied()
    }

    /// How many handshakes with this one there have been.
    pub fn times(&self, node: &PublicKey) -> u64 {
        let held = self.held.lock().unwrap();
        held.1.get(node).copied().unwrap_or(0)
    }

    /// Puts LSPS behind it, which needs the node first, which needs this; `wake` is told of answers.
    pub fn attach(&self, liquidity: Arc<Liquidity>, wake: Arc<Notify>) -> Result<(), String> {
        self.lsps
            .set((liquidity, wake))
            .map_err(|_| "attached twice".into())
    }

    fn lsps(&self) -> Option<&Arc<Liquidity>> {
        self.lsps.get().map(|(liquidity, _)| liquidity)
    }
}

impl CustomMessageReader for Presence {
    type CustomMessage = RawLSPSMessage;

    fn read<R: LengthLimitedRead>(
        &self,
        kind: u16,
        buffer: &mut R,
    ) -> Result<Option<RawLSPSMessage>, DecodeError> {
        self.lsps()
            .map_or(Ok(None), |liquidity| liquidity.read(kind, buffer))
    }
}

impl CustomMessageHandler for Presence {
    /// `dropped` is LDK's own word for why nothing comes of a message.
    fn handle_custom_message(
        &self,
        message: RawLSPSMessage,
        node: PublicKey,
    ) -> Result<(), LightningError> {
        let Some((liquidity, wake)) = self.lsps.get() else {
            return Ok(());
        };
        let payload = message.payload.clone();
        let done = liquidity.handle_custom_message(message, node);
        let dropped = done.as_ref().err().map(|error| error.err.clone());
        out(
            "got",
            json!({
                "msg": "lsps",
                "node": hex(&node.serialize()),
                "payload": payload,
                "dropped": dropped,
            }),
        );
        wake.notify_one();
        done
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, RawLSPSMessage)> {
        let messages = self
            .lsps()
            .map_or_else(Vec::new, |liquidity| liquidity.get_and_clear_pending_msg());
        for (node, message) in &messages {
            let node = hex(&node.serialize());
            out(
                "sends",
                json!({"msg": "lsps", "node": node, "payload": message.payload}),
            );
        }
        messages
    }

    fn peer_connected(&self, node: PublicKey, init: &Init, inbound: bool) -> Result<(), ()> {
        if let Some(liquidity) = self.lsps() {
            liquidity.peer_connected(node, init, inbound)?;
        }
        let mut held = self.held.lock().unwrap();
        held.0.push(node);
        *held.1.entry(node).or_default() += 1;
        drop(held);
        let flags = init.features.le_flags();
        let lsps = LSPS_FEATURES.iter().any(|bit| {
            flags
                .get(bit / 8)
                .is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
        });
        let node = hex(&node.serialize());
        out(
            "connected",
            json!({"node": node, "inbound": inbound, "lsps": lsps}),
        );
        Ok(())
    }

    fn peer_disconnected(&self, node: PublicKey) {
        if let Some(liquidity) = self.lsps() {
            liquidity.peer_disconnected(node);
        }
        let mut held = self.held.lock().unwrap();
        held.0.retain(|other| *other != node);
        drop(held);
        out("disconnected", json!({"node": hex(&node.serialize())}));
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.lsps().map_or_else(NodeFeatures::empty, |liquidity| {
            liquidity.provided_node_features()
        })
    }

    fn provided_init_features(&self, node: PublicKey) -> InitFeatures {
        self.lsps().map_or_else(InitFeatures::empty, |liquidity| {
            liquidity.provided_init_features(node)
        })
    }
}
