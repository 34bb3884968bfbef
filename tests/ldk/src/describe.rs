//! Messages, paths and contexts put into words.

use crate::ldk;
use crate::report::{hex, variant};
use bitcoin::io::Read;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::blinded_path::IntroductionNode;
use lightning::offers::offer::Offer;
use lightning::onion_message::async_payments::AsyncPaymentsMessage;
use lightning::onion_message::messenger::{MessageSendInstructions, Responder};
use lightning::onion_message::offers::OffersMessage;
use lightning::util::ser::{BigSize, Readable, Writeable};
use serde_json::{json, Map, Value};

/// How a path is written: its introduction (`node` or `sciddir`), hops, and the sizes of the
/// hops' encrypted data. A hop that names the next by its scid is shorter than one with a key.
pub fn path(path: &BlindedMessagePath) -> Value {
    let (form, introduction) = match path.introduction_node() {
        IntroductionNode::NodeId(id) => ("node", hex(&id.serialize())),
        IntroductionNode::DirectedShortChannelId(_, scid) => ("sciddir", scid.to_string()),
    };
    let sizes: Vec<usize> = path
        .blinded_hops()
        .iter()
        .map(|hop| hop.encrypted_payload.len())
        .collect();
    json!({
        "intro": form,
        "intro_at": introduction,
        "hops": sizes.len(),
        "hop_bytes": sizes,
        "bytes": path.encode().len(),
    })
}

/// The reply path that came with a message.
///
/// LDK keeps it to itself, but writes a `Responder` as a TLV stream whose only record is the path.
pub fn reply_path(responder: Option<&Responder>) -> Value {
    let Some(responder) = responder else {
        return Value::Null;
    };
    let encoded = responder.encode();
    let mut rest = &encoded[..];
    for _ in ["length of the stream", "type 0", "length of the path"] {
        if <BigSize as Readable>::read(&mut rest).is_err() {
            return Value::Null;
        }
    }
    <BlindedMessagePath as Readable>::read(&mut rest).map_or(Value::Null, |found| path(&found))
}

/// The reply path that a message of our own is sent with, where LDK says so.
pub fn sent_reply_path(instructions: &MessageSendInstructions) -> Value {
    match instructions {
        MessageSendInstructions::WithSpecifiedReplyPath { reply_path, .. } => path(reply_path),
        _ => Value::Null,
    }
}

/// A message of the offers kind: name, size, and what tells most about it.
pub fn offers_message(message: &OffersMessage) -> Map<String, Value> {
    let mut fields = match message {
        OffersMessage::InvoiceRequest(_) => json!({"msg": "invoice_request"}),
        OffersMessage::Invoice(_) => json!({"msg": "invoice"}),
        OffersMessage::StaticInvoice(invoice) => json!({
            "msg": "static_invoice",
            "held_paths": ldk::held_paths(invoice).len(),
            "payment_paths": invoice.payment_paths().len(),
            "expiry": (invoice.created_at() + invoice.relative_expiry()).as_secs(),
            "created_at": invoice.created_at().as_secs(),
        }),
        OffersMessage::InvoiceError(error) => {
            json!({"msg": "invoice_error", "text": error.to_string()})
        }
    };
    fields["bytes"] = json!(message.encode().len());
    into_map(fields)
}

/// A message of the async payments kind.
pub fn async_message(message: &AsyncPaymentsMessage) -> Map<String, Value> {
    let mut fields = match message {
        AsyncPaymentsMessage::OfferPathsRequest(request) => {
            json!({"msg": "offer_paths_request", "slot": request.invoice_slot})
        }
        AsyncPaymentsMessage::OfferPaths(offered) => json!({
            "msg": "offer_paths",
            "paths": offered.paths.iter().map(path).collect::<Vec<_>>(),
            "expiry": offered.paths_absolute_expiry,
        }),
        AsyncPaymentsMessage::ServeStaticInvoice(serve) => json!({
            "msg": "serve_static_invoice",
            "invoice_bytes": serve.invoice.encode().len(),
            "offer": offer_of(&serve.invoice.encode()),
            "created_at": serve.invoice.created_at().as_secs(),
            "expiry": (serve.invoice.created_at() + serve.invoice.relative_expiry()).as_secs(),
            "forward_path": path(&serve.forward_invoice_request_path),
        }),
        AsyncPaymentsMessage::StaticInvoicePersisted(_) => {
            json!({"msg": "static_invoice_persisted"})
        }
        AsyncPaymentsMessage::HeldHtlcAvailable(_) => json!({"msg": "held_htlc_available"}),
        AsyncPaymentsMessage::ReleaseHeldHtlc(_) => json!({"msg": "release_held_htlc"}),
    };
    fields["bytes"] = json!(message.encode().len());
    into_map(fields)
}

/// The offer that a static invoice is for: the invoice holds all of its fields, which have these types.
fn offer_of(invoice: &[u8]) -> Option<String> {
    let (mut rest, mut fields) = (invoice, vec![]);
    while !rest.is_empty() {
        let record = rest;
        let kind = <BigSize as Readable>::read(&mut rest).ok()?.0;
        let length = <BigSize as Readable>::read(&mut rest).ok()?.0 as usize;
        rest = rest.get(length..)?;
        if (1..80).contains(&kind) || (1_000_000_000..2_000_000_000).contains(&kind) {
            fields.extend_from_slice(&record[..record.len() - rest.len()]);
        }
    }
    Offer::try_from(fields).ok().map(|offer| offer.to_string())
}

/// An offer as the tests want it.
pub fn offer(offer: &Offer) -> Value {
    let text = offer.to_string();
    json!({
        "bytes": offer.encode().len(),
        "chars": text.len(),
        "paths": offer.paths().iter().map(path).collect::<Vec<_>>(),
        "expiry": offer.absolute_expiry().map(|at| at.as_secs()),
        "offer": text,
    })
}

/// The name of the context that a message came with, and the payment it names, if any.
pub fn context<C: std::fmt::Debug>(context: &C, payment: Option<[u8; 32]>) -> Map<String, Value> {
    let debug = format!("{context:?}");
    let inner = debug.strip_prefix("Some(").unwrap_or(&debug);
    into_map(json!({"context": variant(inner), "payment": payment.map(|id| hex(&id))}))
}

/// `u16 count ‖ blinded paths`, as the sidecar hands them to a wallet.
pub fn read_paths(bytes: &[u8]) -> Result<Vec<BlindedMessagePath>, String> {
    let mut rest = bytes;
    let mut count = [0; 2];
    rest.read_exact(&mut count)
        .map_err(|error| error.to_string())?;
    let paths = (0..u16::from_be_bytes(count))
        .map(|_| <BlindedMessagePath as Readable>::read(&mut rest).map_err(|e| format!("{e:?}")))
        .collect::<Result<Vec<_>, _>>()?;
    if rest.is_empty() {
        Ok(paths)
    } else {
        Err(format!("{} bytes after the last path", rest.len()))
    }
}

/// The same bytes the other way.
pub fn write_paths(paths: &[BlindedMessagePath]) -> Vec<u8> {
    let mut bytes = (paths.len() as u16).to_be_bytes().to_vec();
    paths.iter().for_each(|path| bytes.extend(path.encode()));
    bytes
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
