//! A node: keys, offers and onion messages.

use crate::hex;
use crate::parts::{MadeUp, NoChain, Shape, Shaped, Silent};
use bitcoin::secp256k1::PublicKey;
use bitcoin::Network;
#[cfg(feature = "ldk-0_2")]
use lightning::chain::BestBlock;
#[cfg(feature = "ldk-0_3")]
use lightning::chain::BlockLocator as BestBlock;
use lightning::ln::channelmanager::{provided_init_features, ChainParameters, ChannelManager};
use lightning::ln::msgs::{BaseMessageHandler, Init};
use lightning::ln::peer_handler::IgnoringMessageHandler;
use lightning::onion_message::messenger::OnionMessenger;
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::util::config::UserConfig;
use serde_json::{json, Value};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

type Keys = Arc<KeysManager>;
/// LDK's offers and payments.
pub type Manager = ChannelManager<
    Arc<NoChain>,
    Arc<NoChain>,
    Keys,
    Keys,
    Keys,
    Arc<NoChain>,
    Arc<MadeUp>,
    Arc<Shaped>,
    Arc<Silent>,
>;
type Messenger = OnionMessenger<
    Keys,
    Keys,
    Arc<Silent>,
    Arc<Manager>,
    Arc<Shaped>,
    Arc<Manager>,
    Arc<Manager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;

/// One of the nodes.
pub struct Node {
    /// Its node id.
    pub id: PublicKey,
    /// Its offers.
    pub manager: Arc<Manager>,
    /// Its onion messages.
    pub onions: Messenger,
    keys: Keys,
}

impl Node {
    /// A node whose keys come of `seed`, with message paths of that shape; payment paths go through
    /// the same node, or itself.
    pub fn new(seed: u8, shape: Shape) -> Result<Self, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|error| error.to_string())?;
        let keys = Arc::new(KeysManager::new(
            &[seed; 32],
            now.as_secs(),
            now.subsec_nanos(),
            true,
        ));
        let id = keys
            .get_node_id(Recipient::Node)
            .map_err(|()| "no node id")?;
        let router = Arc::new(Shaped::new(shape, keys.clone()));
        let chain = Arc::new(NoChain);
        let log = Arc::new(Silent);
        let manager = Arc::new(ChannelManager::new(
            chain.clone(),
            chain.clone(),
            chain,
            Arc::new(MadeUp(shape.through.unwrap_or(id), keys.clone())),
            router.clone(),
            log.clone(),
            keys.clone(),
            keys.clone(),
            keys.clone(),
            UserConfig::default(),
            ChainParameters {
                network: Network::Regtest,
                best_block: BestBlock::from_network(Network::Regtest),
            },
            now.as_secs() as u32,
        ));
        let onions = OnionMessenger::new(
            keys.clone(),
            keys.clone(),
            log,
            manager.clone(),
            router,
            manager.clone(),
            manager.clone(),
            IgnoringMessageHandler {},
            IgnoringMessageHandler {},
        );
        Ok(Self {
            id,
            manager,
            onions,
            keys,
        })
    }

    /// Takes the other for connected; it is the other's to do the same.
    pub fn connect(&self, other: &Self) -> Result<(), String> {
        let init = Init {
            features: provided_init_features(&UserConfig::default())
                | self.onions.provided_init_features(other.id),
            networks: None,
            remote_network_address: None,
        };
        let managed = BaseMessageHandler::peer_connected(&*self.manager, other.id, &init, false);
        let heard = self.onions.peer_connected(other.id, &init, false);
        managed.and(heard).map_err(|()| "no connection".into())
    }

    /// Its keys: whoever checks the answers opens them with these.
    pub fn describe(&self) -> Value {
        json!({
            "node_id": hex(&self.id.serialize()),
            "node_secret": hex(&self.keys.get_node_secret_key().secret_bytes()),
            "receive_auth_key": hex(&self.keys.get_receive_auth_key().0),
        })
    }
}
