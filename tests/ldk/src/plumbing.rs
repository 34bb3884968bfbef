//! The parts that every LDK node has to have and that no test looks at.

use bitcoin::Transaction;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::sign::InMemorySigner;
use lightning::util::logger::{Level, Logger, Record};
use lightning::util::persist::MonitorName;

/// LDK's log, on stderr: the driver keeps it for when a test fails.
pub struct Log;

impl Logger for Log {
    fn log(&self, record: Record) {
        // Below debug, only what is about onion messages and offers is worth its space.
        let ours = ["onion_message", "offers"]
            .iter()
            .any(|part| record.module_path.contains(part));
        if record.level >= Level::Debug || ours {
            let place = format!("{}:{}", record.module_path, record.line);
            eprintln!("{:5} {place} {}", record.level, record.args);
        }
    }
}

/// The lowest fee there is, always.
pub struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

/// Reports our transactions instead of sending them: the tests make the blocks.
///
/// LDK's trait for it is implemented in the module of each version, its method differs.
pub struct Broadcaster;

/// Keeps channel monitors nowhere but in memory: a node with channels does not outlive its process.
pub struct InMemory;

impl Persist<InMemorySigner> for InMemory {
    fn persist_new_channel(
        &self,
        _: MonitorName,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

/// What a [`Broadcaster`] does.
pub fn report_transactions<'a>(transactions: impl Iterator<Item = &'a Transaction>) {
    for transaction in transactions {
        let raw = bitcoin::consensus::encode::serialize_hex(transaction);
        let txid = transaction.compute_txid().to_string();
        crate::report::out("transaction", serde_json::json!({"txid": txid, "raw": raw}));
    }
}
