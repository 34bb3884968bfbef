//! What only LDK 0.2 has this way. The module of the other version offers the same names.

use crate::node::{ChainMonitorParts, Monitor};
use crate::plumbing::{report_transactions, Broadcaster};
use crate::routers::PaymentPaths;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::{BlockHash, Network, Transaction};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, OffersContext};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::chain::BestBlock;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{ChainParameters, MIN_FINAL_CLTV_EXPIRY_DELTA};
use lightning::offers::static_invoice::StaticInvoice;
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{KeysManager, ReceiveAuthKey};
use lightning::util::config::UserConfig;
use std::sync::Arc;

/// The exact version, as pinned in Cargo.toml.
pub const VERSION: &str = "0.2.7";

/// What a channel manager's state says of the chain.
pub type Tip = bitcoin::BlockHash;

pub use lightning_persister::fs_store::FilesystemStore;

/// A chain up to that block; without one, up to genesis.
pub fn chain(network: Network, tip: Option<(u32, BlockHash)>) -> ChainParameters {
    let best_block = match tip {
        Some((height, hash)) => BestBlock::new(hash, height),
        None => BestBlock::from_network(network),
    };
    ChainParameters {
        network,
        best_block,
    }
}

/// Makes LDK ask before it takes a channel, as later versions always do.
pub fn ask_for_channels(config: &mut UserConfig) {
    config.manually_accept_inbound_channels = true;
}

/// The monitor of channels; no filter, whole blocks are fed to it.
pub fn chain_monitor(parts: ChainMonitorParts) -> Monitor {
    ChainMonitor::new(None, parts.0, parts.1, parts.2, parts.3, parts.4, parts.5)
}

/// Where the payer tells the recipient of a held payment.
pub fn held_paths(invoice: &StaticInvoice) -> &[BlindedMessagePath] {
    invoice.message_paths()
}

/// A message path of one hop: ourselves.
pub fn path_to_self<T: Signing + Verification>(
    recipient: PublicKey,
    receive_key: ReceiveAuthKey,
    context: MessageContext,
    keys: &Arc<KeysManager>,
    secp: &Secp256k1<T>,
) -> BlindedMessagePath {
    BlindedMessagePath::new(&[], recipient, receive_key, context, &**keys, secp)
}

/// The payment that an answer belongs to.
pub fn payment_of(context: &OffersContext) -> Option<[u8; 32]> {
    match context {
        OffersContext::OutboundPayment { payment_id, .. } => Some(payment_id.0),
        _ => None,
    }
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        report_transactions(transactions.iter().copied());
    }
}

impl Router for PaymentPaths {
    fn find_route(
        &self,
        payer: &PublicKey,
        wanted: &RouteParameters,
        channels: Option<&[&ChannelDetails]>,
        in_flight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        self.real.find_route(payer, wanted, channels, in_flight)
    }

    fn create_blinded_payment_paths<T: Signing + Verification>(
        &self,
        recipient: PublicKey,
        channels: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        msat: Option<u64>,
        secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        if !channels.is_empty() {
            return self
                .real
                .create_blinded_payment_paths(recipient, channels, tlvs, msat, secp);
        }
        let hops = [self.made_up_hop()?];
        let (most, delta) = (hops[0].htlc_maximum_msat, MIN_FINAL_CLTV_EXPIRY_DELTA);
        BlindedPaymentPath::new(&hops, recipient, tlvs, most, delta, &*self.keys, secp)
            .map(|path| vec![path])
    }
}
