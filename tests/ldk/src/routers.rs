//! Where paths come from: LDK's own routers, and made-up payment paths for those who have no channel.

use crate::plumbing::Log;
use crate::presence::Presence;
use crate::report::{out, variant};
use crate::{describe, ldk};
use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{
    ForwardTlvs, PaymentConstraints, PaymentForwardNode, PaymentRelay,
};
use lightning::onion_message::messenger::{
    DefaultMessageRouter, Destination, MessageRouter, NodeIdMessageRouter, OnionMessagePath,
};
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::{KeysManager, ReceiveAuthKey};
use lightning::types::features::BlindedHopFeatures;
use serde_json::json;
use std::sync::{Arc, Mutex};

/// The graph as the routers and the gossip share it.
pub type Graph = Arc<NetworkGraph<Arc<Log>>>;

type Compact = DefaultMessageRouter<Graph, Arc<Log>, Arc<KeysManager>>;

/// LDK's message routers and one more, by the name they have on the command line.
pub enum MessagePaths {
    /// `default`: scids instead of keys where it can, as most wallets have it.
    Compact(Compact),
    /// `direct`: one path that starts and ends at this node, as LDK makes them for announced nodes.
    ///
    /// A server without channels is in nobody's graph, and can't be reached by two peers otherwise.
    Direct(Compact, Arc<KeysManager>),
    /// `nodeid`: always keys.
    NodeId(NodeIdMessageRouter<Graph, Arc<Log>, Arc<KeysManager>>),
}

impl MessagePaths {
    /// The router of that name.
    pub fn named(name: &str, graph: Graph, keys: Arc<KeysManager>) -> Result<Self, String> {
        match name {
            "default" => Ok(Self::Compact(DefaultMessageRouter::new(graph, keys))),
            "nodeid" => Ok(Self::NodeId(NodeIdMessageRouter::new(graph, keys))),
            "direct" => Ok(Self::Direct(Compact::new(graph, keys.clone()), keys)),
            other => Err(format!("no router {other}: default, nodeid or direct")),
        }
    }
}

impl MessageRouter for MessagePaths {
    fn find_path(
        &self,
        sender: PublicKey,
        peers: Vec<PublicKey>,
        destination: Destination,
    ) -> Result<OnionMessagePath, ()> {
        match self {
            Self::Compact(router) | Self::Direct(router, _) => {
                router.find_path(sender, peers, destination)
            }
            Self::NodeId(router) => router.find_path(sender, peers, destination),
        }
    }

    /// Reports each path: LDK makes the reply paths of its answers here, and shows them nowhere else.
    fn create_blinded_paths<T: Signing + Verification>(
        &self,
        recipient: PublicKey,
        receive_key: ReceiveAuthKey,
        context: MessageContext,
        peers: Vec<MessageForwardNode>,
        secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        let debug = format!("{context:?}");
        let inner = debug.split_once('(').map_or("", |(_, inner)| inner);
        let made = match self {
            Self::Compact(router) => {
                router.create_blinded_paths(recipient, receive_key, context, peers, secp)
            }
            Self::Direct(_, keys) => Ok(vec![ldk::path_to_self(
                recipient,
                receive_key,
                context,
                keys,
                secp,
            )]),
            Self::NodeId(router) => {
                router.create_blinded_paths(recipient, receive_key, context, peers, secp)
            }
        };
        let paths: Vec<_> = made.iter().flatten().map(describe::path).collect();
        out(
            "paths_made",
            json!({"context": variant(inner), "ok": made.is_ok(), "paths": paths}),
        );
        made
    }
}

/// LDK's router of payments. Nothing is learnt from what fails: no test pays over two routes.
type Payments = DefaultRouter<
    Graph,
    Arc<Log>,
    Arc<KeysManager>,
    Arc<Mutex<FixedPenaltyScorer>>,
    (),
    FixedPenaltyScorer,
>;

/// LDK's own payment paths; without channels, made-up ones: enough for invoices that nobody really pays.
///
/// LDK's trait for it is implemented in the module of each version, its methods differ.
pub struct PaymentPaths {
    /// For those who have channels.
    pub real: Payments,
    /// Who is there: the first one is made the introduction node.
    pub presence: Arc<Presence>,
    /// Random numbers for the blinding.
    pub keys: Arc<KeysManager>,
}

impl PaymentPaths {
    /// Over the channels that gossip tells of, and our own.
    pub fn new(graph: Graph, presence: Arc<Presence>, keys: Arc<KeysManager>) -> Self {
        let scorer = Arc::new(Mutex::new(FixedPenaltyScorer::with_penalty(0)));
        let real = Payments::new(graph, Arc::new(Log), keys.clone(), scorer, ());
        Self {
            real,
            presence,
            keys,
        }
    }

    /// A hop at the first connected peer, over a channel that does not exist.
    pub fn made_up_hop(&self) -> Result<PaymentForwardNode, ()> {
        Ok(PaymentForwardNode {
            tlvs: ForwardTlvs {
                short_channel_id: 42 << 40 | 1 << 16,
                payment_relay: PaymentRelay {
                    cltv_expiry_delta: 80,
                    fee_proportional_millionths: 1,
                    fee_base_msat: 1000,
                },
                payment_constraints: PaymentConstraints {
                    max_cltv_expiry: 1_000_000,
                    htlc_minimum_msat: 1,
                },
                features: BlindedHopFeatures::empty(),
                next_blinding_override: None,
            },
            node_id: self.presence.first().ok_or(())?,
            htlc_maximum_msat: 1_000_000_000,
        })
    }
}
