//! The parts that every LDK node has to have and that no test looks at.

use bitcoin::Transaction;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::util::logger::{Level, Logger, Record};

/// LDK's log, on stderr: the driver keeps it for when a test fails.
pub struct Log;

impl Logger for Log {
    fn log(&self, record: Record) {
        // Below debug, only what is about onion messages and offers is worth its space.
        let ours = ["onion_message", "offers", "routing"]
            .iter()
            .any(|part| record.module_path.contains(part));
        if record.level >= Level::Debug || ours {
            let place = format!("{}:{}", record.module_path, record.line);
            eprintln!("{:5} {place} {}", record.level, record.args);
        }
    }
}

/// Fees as LND takes them where no chain tells it: LDK pays over no channel whose fee looks absurd to it.
pub struct Fees;

/// Of a transaction, per 1,000 units of weight: 50 sat/vB.
const LND_FEE: u32 = 12_500;
/// The least that any node relays.
const LOWEST_FEE: u32 = 253;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        match target {
            ConfirmationTarget::MinAllowedAnchorChannelRemoteFee
            | ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => LOWEST_FEE,
            _ => LND_FEE,
        }
    }
}

/// Reports our transactions instead of sending them: the tests make the blocks.
///
/// LDK's trait for it is implemented in the module of each version, its method differs.
pub struct Broadcaster;

/// What a [`Broadcaster`] does.
pub fn report_transactions<'a>(transactions: impl Iterator<Item = &'a Transaction>) {
    for transaction in transactions {
        let raw = bitcoin::consensus::encode::serialize_hex(transaction);
        let txid = transaction.compute_txid().to_string();
        crate::report::out("transaction", serde_json::json!({"txid": txid, "raw": raw}));
    }
}
