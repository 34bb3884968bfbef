//! LDK's handlers of onion messages, each wrapped in one that reports what passes through it.

use crate::describe;
use crate::ldk;
use crate::node::Manager;
use crate::report::out;
use lightning::blinded_path::message::{AsyncPaymentsContext, OffersContext};
use lightning::onion_message::async_payments::{
    AsyncPaymentsMessage, AsyncPaymentsMessageHandler, HeldHtlcAvailable, OfferPaths,
    OfferPathsRequest, ReleaseHeldHtlc, ServeStaticInvoice, StaticInvoicePersisted,
};
use lightning::onion_message::messenger::{
    MessageSendInstructions, Responder, ResponseInstruction,
};
use lightning::onion_message::offers::{OffersMessage, OffersMessageHandler};
use serde_json::{json, Map, Value};
use std::sync::Arc;
use tokio::sync::Notify;

/// The channel manager as a handler, with a reporter before it.
pub struct Reporting {
    /// LDK's own handler.
    pub manager: Arc<Manager>,
    /// Told after each message: there may be an offer, an event or an answer now.
    pub wake: Arc<Notify>,
}

impl Reporting {
    fn got(
        &self,
        mut message: Map<String, Value>,
        context: Map<String, Value>,
        responder: Option<&Responder>,
    ) {
        message.extend(context);
        message.insert("reply_path".into(), describe::reply_path(responder));
        out("got", Value::Object(message));
        self.wake.notify_one();
    }

    fn got_async(
        &self,
        message: AsyncPaymentsMessage,
        context: &AsyncPaymentsContext,
        responder: Option<&Responder>,
    ) {
        let payment = match context {
            AsyncPaymentsContext::OutboundPayment { payment_id } => Some(payment_id.0),
            _ => None,
        };
        self.got(
            describe::async_message(&message),
            describe::context(context, payment),
            responder,
        );
    }
}

/// Reports a message of ours: `as` is `answer` (to a message that just came) or `new`.
fn sends(mut message: Map<String, Value>, how: &str, reply_path: Value) {
    message.insert("as".into(), json!(how));
    message.insert("reply_path".into(), reply_path);
    out("sends", Value::Object(message));
}

impl OffersMessageHandler for Reporting {
    fn handle_message(
        &self,
        message: OffersMessage,
        context: Option<OffersContext>,
        responder: Option<Responder>,
    ) -> Option<(OffersMessage, ResponseInstruction)> {
        let words = describe::context(&context, context.as_ref().and_then(ldk::payment_of));
        self.got(
            describe::offers_message(&message),
            words,
            responder.as_ref(),
        );
        // A wallet that is online answers too, with an invoice of its own. Without a channel there is no
        // route to pay that, and LDK would give the payment up, though the static invoice is under way.
        let payable = || !self.manager.list_usable_channels().is_empty();
        if matches!(message, OffersMessage::Invoice(_)) && !payable() {
            return None;
        }
        let answer = self.manager.handle_message(message, context, responder);
        if let Some((message, _)) = &answer {
            sends(describe::offers_message(message), "answer", Value::Null);
        }
        answer
    }

    fn release_pending_messages(&self) -> Vec<(OffersMessage, MessageSendInstructions)> {
        let messages = OffersMessageHandler::release_pending_messages(&*self.manager);
        for (message, instructions) in &messages {
            let reply_path = describe::sent_reply_path(instructions);
            sends(describe::offers_message(message), "new", reply_path);
        }
        messages
    }
}

impl AsyncPaymentsMessageHandler for Reporting {
    fn handle_offer_paths_request(
        &self,
        message: OfferPathsRequest,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) -> Option<(OfferPaths, ResponseInstruction)> {
        let told = AsyncPaymentsMessage::OfferPathsRequest(message.clone());
        self.got_async(told, &context, responder.as_ref());
        let answer = self
            .manager
            .handle_offer_paths_request(message, context, responder);
        if let Some((message, _)) = &answer {
            let message = AsyncPaymentsMessage::OfferPaths(message.clone());
            sends(describe::async_message(&message), "answer", Value::Null);
        }
        answer
    }

    fn handle_offer_paths(
        &self,
        message: OfferPaths,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) -> Option<(ServeStaticInvoice, ResponseInstruction)> {
        let told = AsyncPaymentsMessage::OfferPaths(message.clone());
        self.got_async(told, &context, responder.as_ref());
        let answer = self.manager.handle_offer_paths(message, context, responder);
        if let Some((message, _)) = &answer {
            let message = AsyncPaymentsMessage::ServeStaticInvoice(message.clone());
            sends(describe::async_message(&message), "answer", Value::Null);
        }
        answer
    }

    fn handle_serve_static_invoice(
        &self,
        message: ServeStaticInvoice,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) {
        let told = AsyncPaymentsMessage::ServeStaticInvoice(message.clone());
        self.got_async(told, &context, responder.as_ref());
        self.manager
            .handle_serve_static_invoice(message, context, responder);
    }

    fn handle_static_invoice_persisted(
        &self,
        message: StaticInvoicePersisted,
        context: AsyncPaymentsContext,
    ) {
        let told = AsyncPaymentsMessage::StaticInvoicePersisted(message.clone());
        self.got_async(told, &context, None);
        self.manager
            .handle_static_invoice_persisted(message, context);
    }

    fn handle_held_htlc_available(
        &self,
        message: HeldHtlcAvailable,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) -> Option<(ReleaseHeldHtlc, ResponseInstruction)> {
        let told = AsyncPaymentsMessage::HeldHtlcAvailable(message.clone());
        self.got_async(told, &context, responder.as_ref());
        let answer = self
            .manager
            .handle_held_htlc_available(message, context, responder);
        if let Some((message, _)) = &answer {
            let message = AsyncPaymentsMessage::ReleaseHeldHtlc(message.clone());
            sends(describe::async_message(&message), "answer", Value::Null);
        }
        answer
    }

    fn handle_release_held_htlc(&self, message: ReleaseHeldHtlc, context: AsyncPaymentsContext) {
        let told = AsyncPaymentsMessage::ReleaseHeldHtlc(message.clone());
        self.got_async(told, &context, None);
        self.manager.handle_release_held_htlc(message, context);
    }

    fn release_pending_messages(&self) -> Vec<(AsyncPaymentsMessage, MessageSendInstructions)> {
        let messages = AsyncPaymentsMessageHandler::release_pending_messages(&*self.manager);
        for (message, instructions) in &messages {
            let reply_path = describe::sent_reply_path(instructions);
            sends(describe::async_message(message), "new", reply_path);
        }
        messages
    }
}
