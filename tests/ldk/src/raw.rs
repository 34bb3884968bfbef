//! Onion messages with any content: garbage, floods, and whatever LDK itself would not write.

use crate::node::Node;
use crate::report::{hex, out};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext};
use lightning::io;
use lightning::ln::msgs::DecodeError;
use lightning::onion_message::messenger::{
    CustomOnionMessageHandler, Destination, MessageSendInstructions, Responder,
    ResponseInstruction, SendError,
};
use lightning::onion_message::packet::OnionMessageContents;
use lightning::util::ser::{Writeable, Writer};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One record of a final hop's payload, of any type.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The type of the record.
    pub kind: u64,
    /// What is in it, as it is.
    pub body: Vec<u8>,
}

impl Writeable for Raw {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), io::Error> {
        writer.write_all(&self.body)
    }
}

impl OnionMessageContents for Raw {
    fn tlv_type(&self) -> u64 {
        self.kind
    }

    fn msg_type(&self) -> &'static str {
        "raw"
    }
}

/// Takes in every type that LDK does not know, and reports it.
pub struct AnyType;

impl CustomOnionMessageHandler for AnyType {
    type CustomMessage = Raw;

    fn handle_custom_message(
        &self,
        message: Raw,
        _: Option<Vec<u8>>,
        responder: Option<Responder>,
    ) -> Option<(Raw, ResponseInstruction)> {
        let reply_path = crate::describe::reply_path(responder.as_ref());
        out(
            "got",
            json!({
                "msg": "raw",
                "type": message.kind,
                "bytes": message.body.len(),
                "body": hex(&message.body),
                "reply_path": reply_path,
            }),
        );
        None
    }

    fn read_custom_message<R: io::Read>(
        &self,
        kind: u64,
        buffer: &mut R,
    ) -> Result<Option<Raw>, DecodeError> {
        let body = io_bytes(buffer)?;
        Ok(Some(Raw { kind, body }))
    }

    fn release_pending_custom_messages(&self) -> Vec<(Raw, MessageSendInstructions)> {
        vec![]
    }
}

fn io_bytes<R: io::Read>(buffer: &mut R) -> Result<Vec<u8>, DecodeError> {
    let mut body = vec![];
    let mut chunk = [0; 1024];
    loop {
        match buffer.read(&mut chunk)? {
            0 => return Ok(body),
            read => body.extend_from_slice(&chunk[..read]),
        }
    }
}

/// Sends the same content `count` times, as fast as LDK's queue for the peer gets empty.
pub async fn send(node: Arc<Node>, path: BlindedMessagePath, raw: Raw, count: u64, reply: bool) {
    let mut accepted = 0;
    let mut refused: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..count {
        match send_one(&node, &path, &raw, reply).await {
            Ok(()) => accepted += 1,
            Err(error) => *refused.entry(format!("{error:?}")).or_default() += 1,
        }
    }
    node.peers.process_events();
    out(
        "raw_sent",
        json!({"type": raw.kind, "accepted": accepted, "refused": refused}),
    );
}

async fn send_one(
    node: &Node,
    path: &BlindedMessagePath,
    raw: &Raw,
    reply: bool,
) -> Result<(), SendError> {
    // The queue is 256 KiB a peer. A second without any room means that the peer reads no more.
    for _ in 0..1000 {
        let destination = Destination::BlindedPath(path.clone());
        let instructions = if reply {
            let context = MessageContext::Custom(vec![]);
            MessageSendInstructions::WithReplyPath {
                destination,
                context,
            }
        } else {
            MessageSendInstructions::WithoutReplyPath { destination }
        };
        match node.onions.send_onion_message(raw.clone(), instructions) {
            Ok(_) => return Ok(()),
            Err(SendError::BufferFull) => {
                node.peers.process_events();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(SendError::BufferFull)
}
