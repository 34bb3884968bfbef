//! Who is connected: LDK tells handlers of custom messages the moment a peer comes or goes.

use crate::report::{hex, out};
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::LengthLimitedRead;
use serde_json::json;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Mutex;

/// The peers whose handshake is done, in the order they came, and how often each one came.
#[derive(Default)]
pub struct Presence(Mutex<(Vec<PublicKey>, HashMap<PublicKey, u64>)>);

impl Presence {
    /// The one that has been there the longest.
    pub fn first(&self) -> Option<PublicKey> {
        self.0.lock().unwrap().0.first().copied()
    }

    /// How many handshakes with this one there have been.
    pub fn times(&self, node: &PublicKey) -> u64 {
        self.0.lock().unwrap().1.get(node).copied().unwrap_or(0)
    }
}

impl CustomMessageReader for Presence {
    type CustomMessage = Infallible;

    fn read<R: LengthLimitedRead>(
        &self,
        _: u16,
        _: &mut R,
    ) -> Result<Option<Infallible>, DecodeError> {
        Ok(None)
    }
}

impl CustomMessageHandler for Presence {
    fn handle_custom_message(
        &self,
        message: Infallible,
        _: PublicKey,
    ) -> Result<(), LightningError> {
        match message {}
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Infallible)> {
        vec![]
    }

    fn peer_connected(&self, node: PublicKey, _: &Init, inbound: bool) -> Result<(), ()> {
        let mut held = self.0.lock().unwrap();
        held.0.push(node);
        *held.1.entry(node).or_default() += 1;
        drop(held);
        out(
            "connected",
            json!({"node": hex(&node.serialize()), "inbound": inbound}),
        );
        Ok(())
    }

    fn peer_disconnected(&self, node: PublicKey) {
        self.0.lock().unwrap().0.retain(|other| *other != node);
        out("disconnected", json!({"node": hex(&node.serialize())}));
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}
