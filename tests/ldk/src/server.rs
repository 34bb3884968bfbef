//! LDK's own static invoice server, in memory: the yardstick that the sidecar is held against.

use crate::node::Manager;
use crate::report::{hex, out};
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::events::Event;
use lightning::offers::static_invoice::StaticInvoice;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Mutex;

/// A recipient and the slot of one of its offers.
type Place = (Vec<u8>, u16);

/// The invoices, by recipient and slot, each with the path to the wallet behind it.
#[derive(Default)]
pub struct Invoices(Mutex<HashMap<Place, (StaticInvoice, BlindedMessagePath)>>);

impl Invoices {
    /// Does what LDK leaves to its user: keep an invoice, and hand it out again.
    ///
    /// Gives back an event that is none of the two.
    pub fn handle(&self, manager: &Manager, event: Event) -> Option<Event> {
        match event {
            Event::PersistStaticInvoice {
                invoice,
                invoice_request_path,
                invoice_slot,
                recipient_id,
                invoice_persisted_path,
            } => {
                let recipient = hex(&recipient_id);
                out(
                    "persisted",
                    json!({"recipient": recipient, "slot": invoice_slot}),
                );
                let key = (recipient_id, invoice_slot);
                self.0
                    .lock()
                    .unwrap()
                    .insert(key, (invoice, invoice_request_path));
                manager.static_invoice_persisted(invoice_persisted_path);
                None
            }
            Event::StaticInvoiceRequested {
                recipient_id,
                invoice_slot,
                reply_path,
                invoice_request,
            } => {
                let recipient = hex(&recipient_id);
                let kept = self
                    .0
                    .lock()
                    .unwrap()
                    .get(&(recipient_id, invoice_slot))
                    .cloned();
                let served = kept.map(|(invoice, path)| {
                    let sent = manager.respond_to_static_invoice_request(
                        invoice,
                        reply_path,
                        invoice_request,
                        path,
                    );
                    format!("{sent:?}")
                });
                out(
                    "requested",
                    json!({"recipient": recipient, "slot": invoice_slot, "served": served}),
                );
                None
            }
            other => Some(other),
        }
    }
}
