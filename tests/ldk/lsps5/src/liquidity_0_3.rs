//! How LDK 0.3 makes its handler of LSPS. The module of the other version offers the same names.

use crate::node::{Manager, Node};
use crate::plumbing::Broadcaster;
use crate::store::{self, Store};
use lightning::io::Error;
use lightning::sign::KeysManager;
use lightning_liquidity::utils::time::DefaultTimeProvider;
use lightning_liquidity::{LiquidityClientConfig, LiquidityManagerSync};
use std::sync::Arc;

/// LDK's handler of all LSPS protocols.
pub type Liquidity = LiquidityManagerSync<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Manager>,
    Store,
    DefaultTimeProvider,
    Arc<Broadcaster>,
>;

/// The handler for that node, as a client, which has nothing to keep.
pub fn liquidity(node: &Node, client: LiquidityClientConfig) -> Result<Liquidity, Error> {
    Liquidity::new(
        node.keys.clone(),
        node.keys.clone(),
        node.manager.clone(),
        store::open(None),
        Arc::new(Broadcaster),
        None,
        Some(client),
    )
}
