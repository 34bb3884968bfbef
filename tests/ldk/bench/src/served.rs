//! The server with one offer stored, and payers who ask for it: what is measured.

use crate::hex;
use crate::node::Node;
use crate::parts::Shape;
use bitcoin::secp256k1::PublicKey;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::events::{Event, EventsProvider, ReplayEvent};
use lightning::ln::channelmanager::{OptionalOfferPaymentParams, PaymentId};
use lightning::ln::msgs::{OnionMessage, OnionMessageHandler};
use lightning::offers::offer::Offer;
use lightning::offers::static_invoice::StaticInvoice;
use lightning::util::ser::{LengthReadable, Writeable};
use serde_json::{json, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What each payer pays: the request is as long as for most payments.
const AMOUNT_MSAT: u64 = 100_000;

/// What the server keeps for an offer, as LDK leaves it to its user.
type Kept = (StaticInvoice, BlindedMessagePath);

/// A server, its wallet with an offer, and a payer for each shape of reply path.
pub struct World {
    server: Node,
    wallet: Node,
    payers: BTreeMap<&'static str, Node>,
    offer: Offer,
    kept: BTreeMap<(Vec<u8>, u16), Kept>,
    place: (Vec<u8>, u16),
    payments: u64,
    waiting: Vec<(PublicKey, Vec<u8>)>,
}

impl World {
    /// Nodes that know each other, and an offer whose invoice the server has.
    pub fn new() -> Result<Self, String> {
        let direct = |dummies| Shape {
            through: None,
            dummies,
        };
        let server = Node::new(1, direct(0))?;
        let behind = |dummies| Shape {
            through: Some(server.id),
            dummies,
        };
        let wallet = Node::new(2, behind(0))?;
        let payers = BTreeMap::from([
            ("private-2", Node::new(3, behind(0))?),
            ("private-4", Node::new(4, behind(2))?),
            ("announced-4", Node::new(5, direct(3))?),
        ]);
        for node in payers.values().chain([&wallet]) {
            node.connect(&server)?;
            server.connect(node)?;
        }
        let recipient = vec![0xaa; 16];
        let paths = server
            .manager
            .blinded_paths_for_async_recipient(recipient, None)
            .map_err(|()| "no paths for a recipient")?;
        wallet
            .manager
            .set_paths_to_static_invoice_server(paths)
            .map_err(|()| "the wallet takes no paths")?;
        let kept = RefCell::new(BTreeMap::new());
        let offer = (0..100)
            .find_map(|_| {
                converse(&server, &wallet, &kept);
                wallet.manager.timer_tick_occurred();
                wallet.manager.get_async_receive_offer().ok()
            })
            .ok_or("no offer got ready")?;
        Ok(Self {
            server,
            wallet,
            payers,
            offer,
            kept: kept.into_inner(),
            place: (vec![], 0),
            payments: 0,
            waiting: vec![],
        })
    }

    /// Everybody's keys.
    pub fn describe(&self) -> Value {
        let payers: BTreeMap<_, _> = self
            .payers
            .iter()
            .map(|(shape, node)| (*shape, node.describe()))
            .collect();
        json!({
            "server": self.server.describe(),
            "wallet": self.wallet.describe(),
            "payers": payers,
        })
    }

    /// New requests, each of another payment, as they reach the server: path_key and packet.
    pub fn make(&mut self, shape: &str, count: usize) -> Result<Value, String> {
        let payer = self.payers.get(shape).ok_or("no such shape")?;
        self.waiting.clear();
        for _ in 0..count {
            self.payments += 1;
            let mut id = [0; 32];
            id[..8].copy_from_slice(&self.payments.to_be_bytes());
            let options = OptionalOfferPaymentParams::default();
            payer
                .manager
                .pay_for_offer(&self.offer, Some(AMOUNT_MSAT), PaymentId(id), options)
                .map_err(|error| format!("{error:?}"))?;
            let message = payer
                .onions
                .next_onion_message_for_peer(self.server.id)
                .ok_or("the payer asks nobody")?;
            self.waiting.push((payer.id, message.encode()));
        }
        let messages: Vec<_> = self.waiting.iter().map(|(_, bytes)| hex(bytes)).collect();
        Ok(json!({"messages": messages}))
    }

    /// Serves what was made: the nanoseconds of each, and what went out for the last one.
    ///
    /// A request's time is from the bytes of its onion message to the bytes of both that go out. The cipher
    /// of connections is the peer handler's, and not in it.
    pub fn serve(&mut self) -> Result<Value, String> {
        let mut nanoseconds = vec![];
        let mut last = None;
        for (payer, bytes) in std::mem::take(&mut self.waiting) {
            let start = thread_time();
            let sent = self.serve_one(payer, &bytes)?;
            nanoseconds.push(thread_time() - start);
            last = Some(sent);
        }
        let (request, answer) = last.ok_or("nothing was made")?;
        let (invoice, path) = &self.kept[&self.place];
        Ok(json!({
            "nanoseconds": nanoseconds,
            "forwarded": hex(&request),
            "answer": hex(&answer),
            "invoice": hex(&invoice.encode()),
            "forward_path": hex(&path.encode()),
        }))
    }

    fn serve_one(&mut self, payer: PublicKey, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let message = OnionMessage::read_from_fixed_length_buffer(&mut &bytes[..])
            .map_err(|error| format!("{error:?}"))?;
        self.server.onions.handle_onion_message(payer, &message);
        let place = RefCell::new(None);
        self.server
            .manager
            .process_pending_events(&|event: Event| -> Result<(), ReplayEvent> {
                if let Event::StaticInvoiceRequested {
                    recipient_id,
                    invoice_slot,
                    reply_path,
                    invoice_request,
                } = event
                {
                    let key = (recipient_id, invoice_slot);
                    if let Some((invoice, path)) = self.kept.get(&key).cloned() {
                        let manager = &self.server.manager;
                        let sent = manager.respond_to_static_invoice_request(
                            invoice,
                            reply_path,
                            invoice_request,
                            path,
                        );
                        *place.borrow_mut() = sent.is_ok().then_some(key);
                    }
                }
                Ok(())
            });
        self.place = place.into_inner().ok_or("a request was not answered")?;
        let taken = |peer| {
            let message = self.server.onions.next_onion_message_for_peer(peer);
            message.map(|message| message.encode())
        };
        let forwarded = taken(self.wallet.id).ok_or("a request was not forwarded")?;
        let answer = taken(payer).ok_or("no static invoice went out")?;
        Ok((forwarded, answer))
    }
}

/// Nanoseconds that this thread has run.
fn thread_time() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `time`, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Hands over what the two have to say until they are silent; the server keeps invoices.
fn converse(server: &Node, wallet: &Node, kept: &RefCell<BTreeMap<(Vec<u8>, u16), Kept>>) {
    let mut spoken = true;
    while spoken {
        spoken = false;
        for (from, to) in [(wallet, server), (server, wallet)] {
            while let Some(message) = from.onions.next_onion_message_for_peer(to.id) {
                spoken = true;
                to.onions.handle_onion_message(from.id, &message);
            }
        }
        server
            .manager
            .process_pending_events(&|event: Event| -> Result<(), ReplayEvent> {
                if let Event::PersistStaticInvoice {
                    invoice,
                    invoice_request_path,
                    invoice_slot,
                    recipient_id,
                    invoice_persisted_path,
                } = event
                {
                    kept.borrow_mut().insert(
                        (recipient_id, invoice_slot),
                        (invoice, invoice_request_path),
                    );
                    server
                        .manager
                        .static_invoice_persisted(invoice_persisted_path);
                }
                Ok(())
            });
    }
}
