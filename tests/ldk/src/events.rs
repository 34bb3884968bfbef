//! LDK's events: done where something has to be done, and all of them reported.

use crate::node::Node;
use crate::report::{hex, out, shortened, variant};
use crate::{ldk, net};
use bitcoin::secp256k1::PublicKey;
use lightning::events::{Event, EventsProvider, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::msgs::SocketAddress;
use lightning::ln::types::ChannelId;
use serde_json::{json, Value};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Handles all events that wait, of all of LDK's parts.
pub fn handle_pending(node: &Arc<Node>) {
    let handler = |event: Event| -> Result<(), ReplayEvent> {
        if let Some(event) = node.invoices.handle(&node.manager, event) {
            handle(node, event);
        }
        Ok(())
    };
    node.manager.process_pending_events(&handler);
    node.onions.process_pending_events(&handler);
    node.monitor.process_pending_events(&handler);
    if node.manager.needs_pending_htlc_processing() {
        node.manager.process_pending_htlc_forwards();
    }
}

fn handle(node: &Arc<Node>, event: Event) {
    let debug = format!("{event:?}");
    let mut fields = json!({"event": variant(&debug), "detail": shortened(&debug)});
    match event {
        Event::PaymentFailed {
            payment_id, reason, ..
        } => {
            fields["payment"] = json!(hex(&payment_id.0));
            fields["reason"] = json!(reason.map(|reason| format!("{reason:?}")));
        }
        Event::PaymentSent {
            payment_id: Some(id),
            ..
        } => fields["payment"] = json!(hex(&id.0)),
        Event::PaymentClaimable {
            purpose,
            amount_msat,
            ..
        } => {
            fields["msat"] = json!(amount_msat);
            if let Some(preimage) = purpose.preimage() {
                node.manager.claim_funds(preimage);
            }
        }
        Event::PaymentClaimed { amount_msat, .. } => fields["msat"] = json!(amount_msat),
        Event::ConnectionNeeded { node_id, addresses } => {
            connect_for_ldk(node, node_id, &addresses);
        }
        Event::OpenChannelRequest {
            temporary_channel_id,
            counterparty_node_id,
            ..
        } => {
            let accepted = node.manager.accept_inbound_channel(
                &temporary_channel_id,
                &counterparty_node_id,
                0,
                None,
            );
            fields["accepted"] = json!(format!("{accepted:?}"));
        }
        Event::ChannelReady { channel_id, .. } => report_ready(node, &channel_id),
        _ => {}
    }
    out("event", fields);
}

fn report_ready(node: &Node, id: &ChannelId) {
    if let Some(ready) = node
        .manager
        .list_channels()
        .iter()
        .find(|one| one.channel_id == *id)
    {
        out("channel_ready", channel(ready));
    }
}

/// A channel as the tests want it.
pub fn channel(details: &ChannelDetails) -> Value {
    json!({
        "counterparty": hex(&details.counterparty.node_id.serialize()),
        "scid": details.short_channel_id,
        "inbound_alias": details.inbound_scid_alias,
        "outbound_alias": details.outbound_scid_alias,
        "ready": details.is_channel_ready,
        "usable": details.is_usable,
        "announced": details.is_announced,
        "outbound_msat": details.outbound_capacity_msat,
        "inbound_msat": details.inbound_capacity_msat,
        "inbound_htlcs": details.pending_inbound_htlcs.len(),
    })
}

/// LDK wants to send to somebody who is not connected. Nothing but loopback is dialled, if anything is.
fn connect_for_ldk(node: &Arc<Node>, id: PublicKey, addresses: &[SocketAddress]) {
    let address = addresses.iter().find_map(|address| match address {
        SocketAddress::TcpIpV4 { addr, port } if IpAddr::from(*addr).is_loopback() => {
            Some(SocketAddr::from((*addr, *port)))
        }
        _ => None,
    });
    let told = json!({
        "node": hex(&id.serialize()),
        "addresses": addresses.iter().map(|one| one.to_string()).collect::<Vec<_>>(),
        "ldk": ldk::VERSION,
    });
    out("connection_needed", told);
    if let (true, Some(address)) = (node.dial, address) {
        tokio::spawn(net::connect(node.clone(), id, address));
    }
}
