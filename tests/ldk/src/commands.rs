//! The commands: one a line on stdin, words with spaces between.

use crate::node::Node;
use crate::raw::{self, Raw};
use crate::report::{hex, out, unhex};
use crate::{clock, describe, events, net};
use bitcoin::secp256k1::PublicKey;
use bitcoin::Block;
use lightning::chain::Listen;
use lightning::ln::channelmanager::{OptionalOfferPaymentParams, PaymentId};
use lightning::offers::offer::Offer;
use lightning::routing::gossip::NodeId;
use lightning::sign::EntropySource;
use serde_json::json;
use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

/// What the commands have asked for and not yet got.
#[derive(Default)]
pub struct Wanted {
    offers: usize,
    payable: bool,
    shown: HashSet<String>,
    known: Vec<PublicKey>,
    payments: u64,
}

impl Wanted {
    /// Whether something is wanted that LDK does not wake us for.
    pub fn anything(&self) -> bool {
        self.offers > 0 || self.payable || !self.known.is_empty()
    }

    /// Shows what has become ready. An offer is shown after the state that knows it is saved: LDK
    /// marks it used when it is asked for, and has to know that after a kill too.
    pub fn check(&mut self, node: &Node) {
        while self.offers > 0 {
            let Ok(offer) = node.manager.get_async_receive_offer() else {
                break;
            };
            if !self.shown.insert(offer.to_string()) {
                break;
            }
            self.offers -= 1;
            node.save(true);
            out("offer", describe::offer(&offer));
        }
        if self.payable && payable(node) {
            self.payable = false;
            out("payable", json!({}));
        }
        let graph = node.graph.read_only();
        self.known.retain(|id| {
            let found = graph.node(&NodeId::from_pubkey(id));
            let channels = found.map_or(0, |info| info.channels.len());
            if channels > 0 {
                out(
                    "knows",
                    json!({"node": hex(&id.serialize()), "channels": channels}),
                );
            }
            channels == 0
        });
    }
}

/// Does one line. `Ok(false)` ends the program.
pub fn run(node: &Arc<Node>, wanted: &mut Wanted, line: &str) -> Result<bool, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [] => {}
        ["quit"] => return Ok(false),
        ["connect", id, address] => {
            let (id, address) = (public_key(id)?, parsed(address)?);
            tokio::spawn(net::connect(node.clone(), id, address));
        }
        ["disconnect", id] => node.peers.disconnect_by_node_id(public_key(id)?),
        ["paths", paths] => set_paths(node, paths)?,
        ["offer"] => wanted.offers += 1,
        ["shown", offer] => drop(wanted.shown.insert(offer.into())),
        ["pay", offer, msat] => pay(node, wanted, offer, parsed(msat)?)?,
        // Many minutes at once are none for the connections: they would be given up, for want of pongs.
        ["minute"] => {
            node.manager.timer_tick_occurred();
            out("ticked", json!({}));
        }
        ["tick"] => {
            node.manager.timer_tick_occurred();
            node.peers.timer_tick_occurred();
            out("ticked", json!({}));
        }
        ["clock", seconds] => set_clock(clock::offset() + parsed::<i64>(seconds)?),
        ["clock", "=", seconds] => set_clock(parsed(seconds)?),
        ["send", kind, body, paths, count, reply] => {
            let raw = Raw {
                kind: parsed(kind)?,
                body: unhex(if body == "-" { "" } else { body })?,
            };
            let path = describe::read_paths(&unhex(paths)?)?
                .into_iter()
                .next()
                .ok_or("no path")?;
            tokio::spawn(raw::send(
                node.clone(),
                path,
                raw,
                parsed(count)?,
                reply == "1",
            ));
        }
        ["block", height, block] => connect_block(node, parsed(height)?, block)?,
        ["knows", id] => wanted.known.push(public_key(id)?),
        ["payable"] => wanted.payable = true,
        ["channels"] => {
            let channels = node.manager.list_channels();
            out(
                "channels",
                json!({"channels": channels.iter().map(events::channel).collect::<Vec<_>>()}),
            );
        }
        ["recipient", id] => {
            let paths = node
                .manager
                .blinded_paths_for_async_recipient(unhex(id)?, None);
            let paths = paths.map_err(|()| "LDK finds no path for a recipient")?;
            out(
                "recipient_paths",
                json!({
                    "hex": hex(&describe::write_paths(&paths)),
                    "paths": paths.iter().map(describe::path).collect::<Vec<_>>(),
                }),
            );
        }
        _ => return Err("no such command".into()),
    }
    Ok(true)
}

/// Whether an invoice can name a channel: LDK does so when its peer has told the fees for it.
fn payable(node: &Node) -> bool {
    let channels = node.manager.list_usable_channels();
    channels
        .iter()
        .any(|channel| channel.counterparty.forwarding_info.is_some())
}

fn set_clock(offset: i64) {
    clock::set(offset);
    out(
        "clock",
        json!({"now": clock::now(), "offset": clock::offset()}),
    );
}

fn set_paths(node: &Node, paths: &str) -> Result<(), String> {
    let paths = describe::read_paths(&unhex(paths)?)?;
    let count = paths.len();
    let set = node.manager.set_paths_to_static_invoice_server(paths);
    out("paths_set", json!({"ok": set.is_ok(), "count": count}));
    Ok(())
}

fn pay(node: &Node, wanted: &mut Wanted, offer: &str, msat: u64) -> Result<(), String> {
    let offer = Offer::from_str(offer).map_err(|error| format!("{error:?}"))?;
    // Random but for its number: a payer that comes back from its state must not use one again.
    wanted.payments += 1;
    let mut id = node.keys.get_secure_random_bytes();
    id[..8].copy_from_slice(&wanted.payments.to_be_bytes());
    // Before LDK gets to work: what comes after is measured from here.
    out(
        "pay",
        json!({"payment": hex(&id), "number": wanted.payments}),
    );
    let optional = OptionalOfferPaymentParams::default();
    let result = node
        .manager
        .pay_for_offer(&offer, Some(msat), PaymentId(id), optional);
    let error = result.err().map(|error| format!("{error:?}"));
    out(
        "pay_result",
        json!({"payment": hex(&id), "ok": error.is_none(), "error": error}),
    );
    Ok(())
}

/// LDK panics on a block that does not follow its last one, so that is looked at first.
fn connect_block(node: &Node, height: u32, block: &str) -> Result<(), String> {
    let block: Block =
        bitcoin::consensus::deserialize(&unhex(block)?).map_err(|error| error.to_string())?;
    let best = node.manager.current_best_block();
    let follows = height == best.height + 1 && block.header.prev_blockhash == best.block_hash;
    if follows {
        node.manager.block_connected(&block, height);
        node.monitor.block_connected(&block, height);
        node.save_monitors();
        node.save(true);
    }
    let known = node.manager.current_best_block().height;
    out(
        "block",
        json!({"height": height, "connected": follows, "best": known}),
    );
    Ok(())
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_str(text).map_err(|error| error.to_string())
}

fn parsed<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| format!("{text}: {error}"))
}
