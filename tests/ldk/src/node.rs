//! The node: LDK's parts put together, and its state on disk.

use crate::clock;
use crate::handlers::Reporting;
use crate::ldk;
use crate::plumbing::{Broadcaster, Fees, InMemory, Log};
use crate::presence::Presence;
use crate::raw::AnyType;
use crate::report::out;
use crate::routers::{Graph, MessagePaths, PaymentPaths};
use crate::server::Invoices;
use bitcoin::secp256k1::PublicKey;
use bitcoin::Network;
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::chain::Filter;
use lightning::ln::channelmanager::{ChannelManager, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler, PeerManager};
use lightning::onion_message::messenger::OnionMessenger;
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::utxo::UtxoLookup;
use lightning::sign::{
    EntropySource, InMemorySigner, KeysManager, NodeSigner, PeerStorageKey, Recipient,
};
use lightning::util::config::UserConfig;
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning_net_tokio::SocketDescriptor;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

type Keys = Arc<KeysManager>;
/// Looks after the channels on the chain.
pub type Monitor = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Log>,
    Arc<InMemory>,
    Keys,
>;
/// What a [`Monitor`] is made of, in LDK's order.
pub type ChainMonitorParts = (
    Arc<Broadcaster>,
    Arc<Log>,
    Arc<Fees>,
    Arc<InMemory>,
    Keys,
    PeerStorageKey,
);
/// Offers, payments and channels.
pub type Manager = ChannelManager<
    Arc<Monitor>,
    Arc<Broadcaster>,
    Keys,
    Keys,
    Keys,
    Arc<Fees>,
    Arc<PaymentPaths>,
    Arc<MessagePaths>,
    Arc<Log>,
>;
/// Onion messages.
pub type Messenger = OnionMessenger<
    Keys,
    Keys,
    Arc<Log>,
    Arc<Manager>,
    Arc<MessagePaths>,
    Arc<Reporting>,
    Arc<Reporting>,
    IgnoringMessageHandler,
    Arc<AnyType>,
>;
type Gossip = P2PGossipSync<Graph, Arc<dyn UtxoLookup + Send + Sync>, Arc<Log>>;
/// Connections.
pub type Peers = PeerManager<
    SocketDescriptor,
    Arc<Manager>,
    Arc<Gossip>,
    Arc<Messenger>,
    Arc<Log>,
    Arc<Presence>,
    Keys,
    Arc<Monitor>,
>;

/// How the node is to be.
pub struct Settings {
    /// All keys come from it.
    pub seed: [u8; 32],
    /// Regtest or Bitcoin.
    pub network: Network,
    /// The message router: `default`, `nodeid` or `direct`.
    pub router: String,
    /// Where the state is read from at the start and written to.
    pub state: Option<PathBuf>,
}

/// All the parts of a running node.
pub struct Node {
    /// Its keys and random numbers.
    pub keys: Keys,
    /// Its node id.
    pub id: PublicKey,
    /// Offers, payments and channels.
    pub manager: Arc<Manager>,
    /// The channels' monitors.
    pub monitor: Arc<Monitor>,
    /// Onion messages.
    pub onions: Arc<Messenger>,
    /// Connections.
    pub peers: Arc<Peers>,
    /// What gossip told.
    pub graph: Graph,
    /// Who is connected.
    pub presence: Arc<Presence>,
    /// The yardstick server's invoices.
    pub invoices: Invoices,
    /// Wakes the main loop.
    pub wake: Arc<Notify>,
    state: Option<PathBuf>,
}

impl Node {
    /// Puts a node together, from its state file when there is one.
    pub fn new(settings: Settings) -> Result<Arc<Self>, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|e| e.to_string())?;
        let nanos = now.subsec_nanos();
        let keys = Arc::new(KeysManager::new(&settings.seed, now.as_secs(), nanos, true));
        let id = keys
            .get_node_id(Recipient::Node)
            .map_err(|()| "no node id")?;
        let log = Arc::new(Log);
        let graph: Graph = Arc::new(NetworkGraph::new(settings.network, log.clone()));
        let presence = Arc::new(Presence::default());
        let routes = MessagePaths::named(&settings.router, graph.clone(), keys.clone())?;
        let routes = Arc::new(routes);
        let (manager, monitor) = chain_side(&settings, &keys, &log, &presence, &routes)?;
        let wake = Arc::new(Notify::new());
        let reporting = Arc::new(Reporting {
            manager: manager.clone(),
            wake: wake.clone(),
        });
        let onions: Arc<Messenger> = Arc::new(OnionMessenger::new(
            keys.clone(),
            keys.clone(),
            log.clone(),
            manager.clone(),
            routes,
            reporting.clone(),
            reporting,
            IgnoringMessageHandler {},
            Arc::new(AnyType),
        ));
        let handlers = MessageHandler {
            chan_handler: manager.clone(),
            route_handler: Arc::new(Gossip::new(graph.clone(), None, log.clone())),
            onion_message_handler: onions.clone(),
            custom_message_handler: presence.clone(),
            send_only_message_handler: monitor.clone(),
        };
        let random = keys.get_secure_random_bytes();
        let seconds = now.as_secs() as u32;
        let peers = Arc::new(PeerManager::new(
            handlers,
            seconds,
            &random,
            log,
            keys.clone(),
        ));
        let (state, invoices) = (settings.state, Invoices::default());
        Ok(Arc::new(Self {
            keys,
            id,
            manager,
            monitor,
            onions,
            peers,
            graph,
            presence,
            invoices,
            wake,
            state,
        }))
    }

    /// Writes the state when LDK says that it changed, or in any case.
    pub fn save(&self, in_any_case: bool) {
        if !self.manager.get_and_clear_needs_persistence() && !in_any_case {
            return;
        }
        let Some(path) = &self.state else { return };
        // Renamed into its place: a kill in the middle leaves the older state, never half of one.
        let beside = path.with_extension("new");
        let written = std::fs::write(&beside, self.manager.encode())
            .and_then(|()| std::fs::rename(&beside, path));
        if let Err(error) = written {
            out("state_failed", json!({"error": error.to_string()}));
        }
    }
}

/// The channel manager, new or from its state, and the monitor under it.
fn chain_side(
    settings: &Settings,
    keys: &Keys,
    log: &Arc<Log>,
    presence: &Arc<Presence>,
    routes: &Arc<MessagePaths>,
) -> Result<(Arc<Manager>, Arc<Monitor>), String> {
    let (fees, broadcaster) = (Arc::new(Fees), Arc::new(Broadcaster));
    let monitor: Arc<Monitor> = Arc::new(ldk::chain_monitor((
        broadcaster.clone(),
        log.clone(),
        fees.clone(),
        Arc::new(InMemory),
        keys.clone(),
        keys.get_peer_storage_key(),
    )));
    let mut config = UserConfig::default();
    ldk::ask_for_channels(&mut config);
    config
        .channel_handshake_limits
        .force_announced_channel_preference = false;
    config.channel_handshake_config.minimum_depth = 1;
    let payments = Arc::new(PaymentPaths {
        presence: presence.clone(),
        keys: keys.clone(),
    });
    let (node, entropy, signer) = (keys.clone(), keys.clone(), keys.clone());
    let (watch, messages, log) = (monitor.clone(), routes.clone(), log.clone());
    let manager = if let Some(bytes) = stored(settings.state.as_deref())? {
        let args = ChannelManagerReadArgs::new(
            entropy,
            node,
            signer,
            fees,
            watch,
            broadcaster,
            payments,
            messages,
            log,
            config,
            vec![],
        );
        let (_, manager) = <(ldk::Tip, Manager)>::read(&mut &bytes[..], args)
            .map_err(|error| format!("the state cannot be read: {error:?}"))?;
        out("state_read", json!({"bytes": bytes.len()}));
        manager
    } else {
        let chain = ldk::genesis(settings.network);
        let now = clock::now() as u32;
        ChannelManager::new(
            fees,
            watch,
            broadcaster,
            payments,
            messages,
            log,
            entropy,
            node,
            signer,
            config,
            chain,
            now,
        )
    };
    Ok((Arc::new(manager), monitor))
}

fn stored(path: Option<&Path>) -> Result<Option<Vec<u8>>, String> {
    match path {
        Some(path) if path.exists() => std::fs::read(path)
            .map(Some)
            .map_err(|error| error.to_string()),
        _ => Ok(None),
    }
}
