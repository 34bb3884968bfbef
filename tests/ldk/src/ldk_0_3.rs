//! What only LDK 0.3 has this way. The module of the other version offers the same names.

use crate::node::{ChainMonitorParts, Monitor};
use crate::plumbing::{report_transactions, Broadcaster};
use crate::routers::PaymentPaths;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::{BlockHash, Network, Transaction};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, OffersContext};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{BroadcasterInterface, TransactionType};
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::chain::BlockLocator;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{ChainParameters, MIN_FINAL_CLTV_EXPIRY_DELTA};
use lightning::offers::static_invoice::StaticInvoice;
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{KeysManager, ReceiveAuthKey};
use lightning::util::config::UserConfig;
use std::sync::Arc;

/// The exact version, as pinned in Cargo.toml.
pub const VERSION: &str = "0.3.0-rc3";

/// What a channel manager's state says of the chain.
pub type Tip = BlockLocator;

pub use lightning_persister::fs_store::v1::FilesystemStore;

/// A chain up to that block; without one, up to genesis.
pub fn chain(network: Network, tip: Option<(u32, BlockHash)>) -> ChainParameters {
    let best_block = match tip {
        Some((height, hash)) => BlockLocator::new(hash, height),
        None => BlockLocator::from_network(network),
    };
    ChainParameters {
        network,
        best_block,
    }
}

/// Makes LDK ask before it takes a channel: this version always does.
pub fn ask_for_channels(_: &mut UserConfig) {}

/// The monitor of channels; no filter, whole blocks are fed to it.
pub fn chain_monitor(parts: ChainMonitorParts) -> Monitor {
    ChainMonitor::new(
        None, parts.0, parts.1, parts.2, parts.3, parts.4, parts.5, false,
    )
}

/// Where the payer tells the recipient of a held payment.
pub fn held_paths(invoice: &StaticInvoice) -> &[BlindedMessagePath] {
    invoice.held_htlc_available_paths()
}

/// A message path of one hop: ourselves.
pub fn path_to_self<T: Signing + Verification>(
    recipient: PublicKey,
    receive_key: ReceiveAuthKey,
    context: MessageContext,
    keys: &Arc<KeysManager>,
    secp: &Secp256k1<T>,
) -> BlindedMessagePath {
    BlindedMessagePath::new(&[], recipient, receive_key, context, true, &**keys, secp)
}

/// The payment that an answer belongs to.
pub fn payment_of(context: &OffersContext) -> Option<[u8; 32]> {
    match context {
        OffersContext::OutboundPaymentForOffer { payment_id } => Some(payment_id.0),
        _ => None,
    }
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[(&Transaction, TransactionType)]) {
        report_transactions(transactions.iter().map(|(transaction, _)| *transaction));
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
        receive_key: ReceiveAuthKey,
        channels: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        msat: Option<u64>,
        secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        if !channels.is_empty() {
            return self.real.create_blinded_payment_paths(
                recipient,
                receive_key,
                channels,
                tlvs,
                msat,
                secp,
            );
        }
        let hops = [self.made_up_hop()?];
        let (most, delta) = (hops[0].htlc_maximum_msat, MIN_FINAL_CLTV_EXPIRY_DELTA);
        BlindedPaymentPath::new(
            &hops,
            recipient,
            receive_key,
            tlvs,
            most,
            delta,
            &*self.keys,
            secp,
        )
        .map(|path| vec![path])
    }
}
