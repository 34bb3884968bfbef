//! What LDK asks of its user: a log that is silent, a chain that is not there, and paths of a given shape.

use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::Transaction;
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{
    BlindedPaymentPath, ForwardTlvs, PaymentConstraints, PaymentForwardNode, PaymentRelay,
    ReceiveTlvs,
};
#[cfg(feature = "ldk-0_3")]
use lightning::chain::chaininterface::TransactionType;
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate, MonitorEvent};
use lightning::chain::transaction::OutPoint;
use lightning::chain::{ChannelMonitorUpdateStatus, Watch};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::MIN_FINAL_CLTV_EXPIRY_DELTA;
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::{
    DefaultMessageRouter, Destination, MessageRouter, OnionMessagePath,
};
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{InMemorySigner, KeysManager, ReceiveAuthKey};
use lightning::types::features::BlindedHopFeatures;
use lightning::util::logger::{Logger, Record};
use std::sync::Arc;

/// Nothing is written: a log would be measured too.
pub struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

/// No chain: nobody here has a channel.
pub struct NoChain;

impl FeeEstimator for NoChain {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

impl BroadcasterInterface for NoChain {
    #[cfg(feature = "ldk-0_2")]
    fn broadcast_transactions(&self, _: &[&Transaction]) {}
    #[cfg(feature = "ldk-0_3")]
    fn broadcast_transactions(&self, _: &[(&Transaction, TransactionType)]) {}
}

impl Watch<InMemorySigner> for NoChain {
    fn watch_channel(
        &self,
        _: ChannelId,
        _: ChannelMonitor<InMemorySigner>,
    ) -> Result<ChannelMonitorUpdateStatus, ()> {
        Err(())
    }

    fn update_channel(&self, _: ChannelId, _: &ChannelMonitorUpdate) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn release_pending_monitor_events(
        &self,
    ) -> Vec<(OutPoint, ChannelId, Vec<MonitorEvent>, PublicKey)> {
        vec![]
    }
}

/// The shape of a node's own message paths: through whom, and how many dummy hops behind.
#[derive(Clone, Copy)]
pub struct Shape {
    /// The introduction node; without one the path starts at the node itself.
    pub through: Option<PublicKey>,
    /// Hops that are the node itself once more.
    pub dummies: usize,
}

/// LDK's stock router for what is sent; paths of a given shape for what is to come back.
pub struct Shaped {
    shape: Shape,
    keys: Arc<KeysManager>,
    stock: DefaultMessageRouter<Arc<NetworkGraph<Arc<Silent>>>, Arc<Silent>, Arc<KeysManager>>,
}

impl Shaped {
    /// Paths of that shape.
    pub fn new(shape: Shape, keys: Arc<KeysManager>) -> Self {
        let graph = Arc::new(NetworkGraph::new(
            bitcoin::Network::Regtest,
            Arc::new(Silent),
        ));
        let stock = DefaultMessageRouter::new(graph, keys.clone());
        Self { shape, keys, stock }
    }
}

impl MessageRouter for Shaped {
    fn find_path(
        &self,
        sender: PublicKey,
        peers: Vec<PublicKey>,
        destination: Destination,
    ) -> Result<OnionMessagePath, ()> {
        MessageRouter::find_path(&self.stock, sender, peers, destination)
    }

    fn create_blinded_paths<T: Signing + Verification>(
        &self,
        recipient: PublicKey,
        receive_key: ReceiveAuthKey,
        context: MessageContext,
        _: Vec<MessageForwardNode>,
        secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        let through = self.shape.through.map(|node_id| MessageForwardNode {
            node_id,
            short_channel_id: None,
        });
        Ok(vec![BlindedMessagePath::new_with_dummy_hops(
            through.as_slice(),
            recipient,
            self.shape.dummies,
            receive_key,
            context,
            #[cfg(feature = "ldk-0_3")]
            false,
            &*self.keys,
            secp,
        )])
    }
}

/// Made-up payment paths through `0`, over a channel that does not exist: no invoice here is paid.
pub struct MadeUp(pub PublicKey, pub Arc<KeysManager>);

impl Router for MadeUp {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("no route")
    }

    fn create_blinded_payment_paths<T: Signing + Verification>(
        &self,
        recipient: PublicKey,
        #[cfg(feature = "ldk-0_3")] receive_key: ReceiveAuthKey,
        _: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        _: Option<u64>,
        secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        let most = 1_000_000_000;
        let hop = PaymentForwardNode {
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
            node_id: self.0,
            htlc_maximum_msat: most,
        };
        let path = BlindedPaymentPath::new(
            &[hop],
            recipient,
            #[cfg(feature = "ldk-0_3")]
            receive_key,
            tlvs,
            most,
            MIN_FINAL_CLTV_EXPIRY_DELTA,
            &*self.1,
            secp,
        )?;
        Ok(vec![path])
    }
}
