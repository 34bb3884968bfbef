//! The node: LDK's parts put together, and its state on disk.

use crate::clock;
use crate::handlers::Reporting;
use crate::ldk;
use crate::plumbing::{Broadcaster, Fees, Log};
use crate::presence::Presence;
use crate::raw::AnyType;
use crate::report::out;
use crate::routers::{Graph, MessagePaths, PaymentPaths};
use crate::server::Invoices;
use crate::store::{self, Store};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Network};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
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
use lightning::util::persist::{
    read_channel_monitors, CHANNEL_MANAGER_PERSISTENCE_KEY,
    CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE, NETWORK_GRAPH_PERSISTENCE_KEY,
    NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
};
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning_net_tokio::SocketDescriptor;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    Store,
    Keys,
>;
/// What a [`Monitor`] is made of, in LDK's order.
pub type ChainMonitorParts = (
    Arc<Broadcaster>,
    Arc<Log>,
    Arc<Fees>,
    Store,
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
    /// The folder that the state is read from at the start and written to.
    pub state: Option<PathBuf>,
    /// Whether it connects to whom LDK wants to send something: a phone that sleeps does not.
    pub dial: bool,
    /// The newest block, for a node without a state: nothing before concerns it.
    pub tip: Option<(u32, BlockHash)>,
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
    /// Whether it connects to whom LDK wants to send something.
    pub dial: bool,
    /// Channels in the graph that was written last.
    saved_channels: AtomicUsize,
    store: Store,
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
        let store = store::open(settings.state.as_deref());
        let graph = known_graph(settings.network, &store, &log)?;
        let presence = Arc::new(Presence::default());
        let routes = MessagePaths::named(&settings.router, graph.clone(), keys.clone())?;
        let routes = Arc::new(routes);
        let payments = PaymentPaths::new(graph.clone(), presence.clone(), keys.clone());
        let (manager, monitor) = chain_side(&settings, &keys, &store, Arc::new(payments), &routes)?;
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
        Ok(Arc::new(Self {
            keys,
            id,
            manager,
            monitor,
            onions,
            peers,
            graph,
            presence,
            invoices: Invoices::default(),
            wake,
            dial: settings.dial,
            saved_channels: AtomicUsize::new(0),
            store,
        }))
    }

    /// Writes the state when LDK says that it changed, or in any case.
    pub fn save(&self, in_any_case: bool) {
        self.save_graph();
        if !self.manager.get_and_clear_needs_persistence() && !in_any_case {
            return;
        }
        let written = self.store.write(
            CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
            "",
            CHANNEL_MANAGER_PERSISTENCE_KEY,
            self.manager.encode(),
        );
        if let Err(error) = written {
            out("state_failed", json!({"error": error.to_string()}));
        }
    }

    /// Writes the graph when it has other channels. As every wallet does: LDK answers nobody whose path
    /// begins at a channel that it does not know, and a wallet that is woken has to answer at once.
    fn save_graph(&self) {
        let channels = self.graph.read_only().channels().len();
        if channels == self.saved_channels.swap(channels, Ordering::Relaxed) {
            return;
        }
        let written = self.store.write(
            NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
            "",
            NETWORK_GRAPH_PERSISTENCE_KEY,
            self.graph.encode(),
        );
        if let Err(error) = written {
            out("state_failed", json!({"error": error.to_string()}));
        }
    }

    /// Writes all monitors: LDK itself does so after some of the blocks only, and a node that starts again
    /// has to be told the blocks from one and the same height on.
    pub fn save_monitors(&self) {
        for id in self.monitor.list_monitors() {
            if let Ok(monitor) = self.monitor.get_monitor(id) {
                self.store
                    .update_persisted_channel(monitor.persistence_key(), None, &monitor);
            }
        }
    }
}

/// The graph as it was written, or an empty one.
fn known_graph(network: Network, store: &Store, log: &Arc<Log>) -> Result<Graph, String> {
    let primary = NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE;
    let Some(bytes) = store::stored(store, primary, NETWORK_GRAPH_PERSISTENCE_KEY)? else {
        return Ok(Arc::new(NetworkGraph::new(network, log.clone())));
    };
    NetworkGraph::read(&mut &bytes[..], log.clone())
        .map(Arc::new)
        .map_err(|error| format!("the graph cannot be read: {error:?}"))
}

/// The channel manager, new or from its state, and the monitor under it.
fn chain_side(
    settings: &Settings,
    keys: &Keys,
    store: &Store,
    payments: Arc<PaymentPaths>,
    routes: &Arc<MessagePaths>,
) -> Result<(Arc<Manager>, Arc<Monitor>), String> {
    let (fees, broadcaster, log) = (Arc::new(Fees), Arc::new(Broadcaster), Arc::new(Log));
    let monitor: Arc<Monitor> = Arc::new(ldk::chain_monitor((
        broadcaster.clone(),
        log.clone(),
        fees.clone(),
        store.clone(),
        keys.clone(),
        keys.get_peer_storage_key(),
    )));
    let (node, entropy, signer) = (keys.clone(), keys.clone(), keys.clone());
    let (watch, messages) = (monitor.clone(), routes.clone());
    let primary = CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE;
    let kept = store::stored(store, primary, CHANNEL_MANAGER_PERSISTENCE_KEY)?;
    let manager = if let Some(bytes) = kept {
        let monitors = read_channel_monitors(store.clone(), keys.clone(), keys.clone())
            .map_err(|error| format!("the monitors cannot be read: {error}"))?;
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
            config(),
            monitors.iter().map(|(_, monitor)| monitor).collect(),
        );
        let (_, manager) = <(ldk::Tip, Manager)>::read(&mut &bytes[..], args)
            .map_err(|error| format!("the state cannot be read: {error:?}"))?;
        let height = manager.current_best_block().height;
        out(
            "state_read",
            json!({"bytes": bytes.len(), "channels": monitors.len()}),
        );
        for (_, each) in monitors {
            if each.current_best_block().height != height {
                return Err("a channel's monitor and the manager are not at the same block".into());
            }
            monitor
                .load_existing_monitor(each.channel_id(), each)
                .map_err(|()| "a channel is there twice")?;
        }
        manager
    } else {
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
            config(),
            ldk::chain(settings.network, settings.tip),
            clock::now() as u32,
        )
    };
    Ok((Arc::new(manager), monitor))
}

/// Channels as an LSP opens them: private, and good for payments after one block.
fn config() -> UserConfig {
    let mut config = UserConfig::default();
    ldk::ask_for_channels(&mut config);
    config
        .channel_handshake_limits
        .force_announced_channel_preference = false;
    config.channel_handshake_config.minimum_depth = 1;
    config
}
