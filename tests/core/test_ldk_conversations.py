"""Whole conversations recorded from LDK 0.2.7: read by our code, and answered so that LDK's keys open it.

In the recordings LDK's own server is the introduction node of every path: it stands for our LND here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from sidecar.core import bolt12, keys, messages, offers, paths, static_invoices
from sidecar.core.context import Kind, OfferContext, RequestContext
from sidecar.core.effects import Effect, Save, Send
from sidecar.core.keys import SidecarKeys
from sidecar.core.messages import OfferPaths, OfferPathsRequest, ServeStaticInvoice, StaticInvoicePersisted
from sidecar.core.model import (
    Client,
    ClientState,
    Family,
    Loaded,
    OfferTag,
    Quota,
    SlotMark,
    StoredInvoice,
)
from sidecar.core.server import Arrival, ServerSettings, StaticInvoiceServer
from sidecar.core.wire import decode_tlvs
from sidecar.courier import Courier
from sidecar.peeler import Landed, Passing, Peeler
from sidecar.ports import Received
from tests.core.ldk_recordings import DUMMY_HOP, FILES, LDK_CONTEXT, Conversation, conversation
from tests.core.making import REGTEST, LocalKey, open_layer
from tests.harness.allowed import LIMITS

OWN = SidecarKeys.derive(b"the root of the sidecar's secrets".ljust(32)[:32])
CLIENT = Client(b"client-one", "alice", ClientState.ACTIVE, 1, Quota(10, 51_200, 31_536_000), 1_700_000_000)
YEAR = 365 * 24 * 3600


@pytest.fixture(params=FILES)
def talk(request: pytest.FixtureRequest) -> Conversation:
    """Each recorded conversation: the payer beside the server, and the payer behind it."""
    return conversation(request.param)


# --- reading LDK ----------------------------------------------------------------------------------


def test_every_layer_that_ldk_made_opens_as_ldk_opened_it(talk: Conversation) -> None:
    """BOLT 4: shared secrets, path_keys, payloads and data of each layer are the recorded ones."""
    layers = 0
    for said in talk.said:
        path_key, packet = said.path_key, said.packet
        for recorded in said.layers:
            layer, shared = open_layer(said.to.secret, path_key, packet)
            assert path_key.hex() == recorded["path_key"]
            assert shared.hex() == recorded["path_ss"]
            assert layer.payload.hex() == recorded["payload"]
            if recorded["kind"] == "forward":
                data = messages.read_forward_payload(layer.payload)
                assert paths.decrypt_recipient_data(shared, data).names_next_hop
            else:
                data = said.to.open_data(shared, decode_tlvs(layer.payload)[4])
                assert data.hex() == recorded["encrypted_data_plain"]
            path_key, packet = keys.next_point(path_key, shared), getattr(layer, "next_packet", b"")
            layers += 1
    assert layers > 30


def test_every_blip_66_message_of_ldk_is_read_and_written_to_the_same_bytes(talk: Conversation) -> None:
    """All four types come in LDK's family, 7554x with a length; ours are the same bytes."""
    for content_type, kind in (
        (75_540, OfferPathsRequest),
        (75_542, OfferPaths),
        (75_544, ServeStaticInvoice),
        (75_546, StaticInvoicePersisted),
    ):
        for _, payload, _ in talk.of_type(content_type):
            message, family = messages.decode(content_type, payload.content)
            assert isinstance(message, kind)
            assert family is Family.LDK
            assert messages.encode(message, family) == (content_type, payload.content)


def test_what_the_messages_say_is_what_ldk_says_they_do(talk: Conversation) -> None:
    """Slots, paths, expiry and forward path as LDK's own handlers printed them."""
    handled = [event for event in talk.events if event["event"] == "handled"]
    bodies = {
        name: [e["body"] for e in handled if e["message"] == name] for name in {e["message"] for e in handled}
    }
    for content_type, name in ((75_540, "offer_paths_request"), (75_542, "offer_paths")):
        read = [messages.decode(content_type, p.content)[0] for _, p, _ in talk.of_type(content_type)]
        assert len(read) == len(bodies[name])
        for message, body in zip(read, bodies[name], strict=True):
            if isinstance(message, OfferPathsRequest):
                assert message.slot == body["slot"]
            else:
                assert isinstance(message, OfferPaths)
                assert [paths.encode_path(path).hex() for path in message.paths] == body["paths"]
                assert message.paths_absolute_expiry == body["paths_absolute_expiry"]
    for (_, payload, _), body in zip(talk.of_type(75_544), bodies["serve_static_invoice"], strict=True):
        served, _ = messages.decode(75_544, payload.content)
        assert isinstance(served, ServeStaticInvoice)
        assert (
            paths.encode_path(served.forward_invoice_request_path).hex()
            == body["forward_invoice_request_path"]
        )


def test_the_path_list_for_ldk_node_is_read_and_written_to_the_same_bytes(talk: Conversation) -> None:
    """u16 count ‖ paths: what the operator hands to a wallet."""
    event = talk.event("paths_to_static_invoice_server")
    handed_over = paths.decode_path_list(bytes.fromhex(event["vec_hex"]))
    assert [paths.encode_path(path).hex() for path in handed_over] == event["each"]
    assert paths.encode_path_list(handed_over).hex() == event["vec_hex"]


def test_ldks_invoices_offers_and_requests_verify(talk: Conversation) -> None:
    """Signatures of both kinds are right, and the request's and the invoice's offer are the one printed."""
    offer_event = talk.event("offer")
    offer = offers.decode_offer(offer_event["offer"])
    assert bolt12.decode_string(offer_event["offer"])[1].hex() == offer_event["offer_tlv"]
    assert offer.absolute_expiry == offer_event["absolute_expiry"]
    first_invoice = next(talk.of_type(75_544))[1]
    served, _ = messages.decode(75_544, first_invoice.content)
    assert isinstance(served, ServeStaticInvoice)
    invoice = static_invoices.read_static_invoice(served.invoice, REGTEST)
    assert invoice.offer.records == offer.records
    for _, payload, _ in talk.of_type(64):
        request = offers.read_invoice_request(payload.content)
        static_invoices.check_offer(request, invoice.offer.records, invoice.created_at)
    for _, payload, _ in talk.of_type(70):
        assert payload.content == served.invoice


async def test_what_ldk_sends_through_lnd_peels_to_the_packet_that_lnd_sent_on(talk: Conversation) -> None:
    """LDK as LND's key: each message for another node is peeled to the very packet that it then got."""
    server, passed = talk.nodes["server"], 0
    onward = {(said.path_key, said.packet): said.to for said in talk.said if said.sender == "server"}
    for said in talk.said:
        if not said.forwarded:
            continue
        opener = Peeler(server.node_id, LocalKey(server.secret), OWN)
        received = Received(bytes(33), said.path_key, said.packet, None)
        passing = await opener.peel(received)
        assert isinstance(passing, Passing)
        assert passing.hop.node_id in [node.node_id for node in talk.nodes.values()]
        # What was for a sleeping wallet was not sent on.
        to = onward.get((passing.hop.path_key, await opener.next_packet(received)))
        if to is not None:
            assert to.node_id == passing.hop.node_id
            passed += 1
    assert passed == {"ldk027_payer_direct": 1, "ldk027_payer_via_server": 3}[talk.name]


async def test_paths_of_another_server_are_not_taken_for_ours(talk: Conversation) -> None:
    """An invoice whose offer paths were made by LDK's server leads to no context of ours."""
    server = talk.nodes["server"]
    opener = Peeler(server.node_id, LocalKey(server.secret), OWN)
    for path in offers.decode_offer(talk.event("offer")["offer"]).paths:
        assert await opener.walk(path) is None


# --- answering LDK --------------------------------------------------------------------------------


class Wire:
    """A transport that keeps what is sent, and a graph that knows nothing: no look-up is needed here."""

    forwards_for_others = False

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes, bytes]] = []

    def receive(self) -> None:
        """Nothing comes in."""
        raise AssertionError

    async def send(self, peer: bytes, path_key: bytes, onion: bytes) -> None:
        """Keep it."""
        self.sent.append((peer, path_key, onion))


class Answering:
    """Our server and courier in the place of LDK's server, whose key is LND's here."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self.lnd = talk.nodes["server"]
        self.wire = Wire()
        self.server = StaticInvoiceServer(ServerSettings(self.lnd.node_id, OWN, REGTEST, YEAR))
        self.courier = Courier(
            lnd_node_id=self.lnd.node_id,
            own_node_id=OWN.node_id,
            lnd_key=LocalKey(self.lnd.secret),
            graph=None,  # type: ignore[arg-type]
            transport=self.wire,  # type: ignore[arg-type]
            entropy=os.urandom,
        )

    async def send(self, effects: Sequence[Effect]) -> list[tuple[str, messages.FinalPayload, bytes]]:
        """Send what is to be sent; where each arrived, and what the node there reads with its keys."""
        arrived = []
        for effect in effects:
            if not isinstance(effect, Send):
                continue
            await self.courier.send(await self.courier.pack(effect))
            peer, path_key, packet = self.wire.sent[-1]
            (node,) = (node for node in self.talk.nodes.values() if node.node_id == peer)
            payload, data = node.open(path_key, packet)
            # The path was LDK's own: its context is there, sealed with a key that only that node has.
            assert LDK_CONTEXT in decode_tlvs(data)
            assert DUMMY_HOP not in decode_tlvs(data)
            arrived.append((node.name, payload, data))
        return arrived


async def test_our_offer_paths_open_at_the_recipient(talk: Conversation) -> None:
    """Asked as LDK asks, we answer over its reply path; its keys open 75542 with paths that are ours."""
    ours = Answering(talk)
    said, payload, _ = next(talk.of_type(75_540))
    request, family = messages.decode(75_540, payload.content)
    assert isinstance(request, OfferPathsRequest)
    now = 1_795_361_759
    came = Arrival(
        RequestContext(CLIENT.client_id, 1), payload.reply_path, Loaded(CLIENT, None, None), now * 1_000
    )
    effects = ours.server.on_offer_paths_request(came, request, family, os.urandom, LIMITS)
    ((name, answer, data),) = await ours.send(effects)
    assert (said.sender, name) == ("recipient", "recipient")
    # The path's own context, as LDK's recipient read it when LDK's server answered.
    assert data == next(talk.of_type(75_542))[2]
    message, family = messages.decode(75_542, answer.content)
    assert isinstance(message, OfferPaths)
    assert answer.content_type == 75_542
    assert message.paths_absolute_expiry == now + YEAR
    opener = Peeler(ours.lnd.node_id, LocalKey(ours.lnd.secret), OWN)
    assert answer.reply_path is not None
    kinds = [await opener.walk(path) for path in (*message.paths, answer.reply_path)]
    assert [getattr(kind, "kind", None) for kind in kinds] == [
        Kind.INVOICE_REQUEST,
        Kind.SERVE_STATIC_INVOICE,
    ]


def stored_by(ours: Answering) -> tuple[list[Effect], StoredInvoice, OfferContext, paths.BlindedPath]:
    """What our server decides on the first serve_static_invoice; the offer's context, the forward path."""
    _, payload, _ = next(ours.talk.of_type(75_544))
    message, family = messages.decode(75_544, payload.content)
    assert isinstance(message, ServeStaticInvoice)
    now = static_invoices.read_static_invoice(message.invoice, REGTEST).created_at
    tag = OfferTag(now * 1000 - 50, b"nonce!")
    serve = OfferContext(Kind.SERVE_STATIC_INVOICE, CLIENT.client_id, 0, tag, now + YEAR)
    pay = OfferContext(Kind.INVOICE_REQUEST, CLIENT.client_id, 0, tag, now + YEAR)
    came = Arrival(serve, payload.reply_path, Loaded(CLIENT, None, None), now * 1_000)
    admitted = ours.server.admit_static_invoice(came, message, family, LIMITS)
    forward = message.forward_invoice_request_path
    # Its offer paths are LDK's server's, so they are said to be ours: walking them is tested above.
    effects = ours.server.on_serve_static_invoice(came, admitted, [pay], forward)
    save = effects[0]
    assert isinstance(save, Save)
    assert save.invoice.invoice == message.invoice
    return effects, save.invoice, pay, forward


async def test_our_static_invoice_persisted_opens_at_the_recipient(talk: Conversation) -> None:
    """LDK's serve_static_invoice is admitted, kept to the byte, and acknowledged by one byte under 75546."""
    effects, *_ = stored_by(ours := Answering(talk))
    ((name, answer, data),) = await ours.send(effects)
    assert (name, answer.content_type, answer.content) == ("recipient", 75_546, b"\x00")
    assert data == next(talk.of_type(75_546))[2]


async def test_our_static_invoice_opens_at_the_payer_and_the_request_at_the_recipient(
    talk: Conversation,
) -> None:
    """The payer's keys open the recorded invoice; the recipient's the request, with its reply path."""
    ours = Answering(talk)
    _, stored, pay, forward = stored_by(ours)
    requests = [opened for opened in talk.of_type(64) if opened[0].sender == "payer"]
    for said, payload, _ in requests:
        request = offers.read_invoice_request(payload.content)
        loaded = Loaded(CLIENT, SlotMark(pay.tag, stored.created_at), stored)
        came = Arrival(pay, payload.reply_path, loaded, stored.stored_at * 1_000)
        effects = ours.server.on_invoice_request(came, request, forward=True)
        (first, forwarded, _), (second, invoice, _) = await ours.send(effects)
        assert (first, forwarded.content_type, forwarded.content) == ("recipient", 64, payload.content)
        assert forwarded.reply_path == payload.reply_path
        assert (second, invoice.content_type, invoice.content) == (said.sender, 70, stored.invoice)
        assert invoice.reply_path is None
    assert len(requests) == 2
    assert forward.introduction_node == ours.lnd.node_id


async def test_what_ldk_sends_over_our_paths_lands_with_its_context(talk: Conversation) -> None:
    """An LDK request put over a path of ours, small or large, is peeled to what LDK wrote."""
    ours = Answering(talk)
    path = ours.server.request_path(CLIENT, os.urandom)
    wallet = Courier(
        lnd_node_id=bytes(33),
        own_node_id=bytes(33),
        lnd_key=LocalKey(bytes(31) + b"\x01"),
        graph=None,  # type: ignore[arg-type]
        transport=ours.wire,  # type: ignore[arg-type]
        entropy=os.urandom,
    )
    for content_type in (75_540, 75_544, 64):
        _, payload, _ = next(talk.of_type(content_type))
        await wallet.send(
            await wallet.pack(Send("any", path, content_type, payload.content, payload.reply_path))
        )
        peer, path_key, packet = ours.wire.sent[-1]
        assert peer == ours.lnd.node_id
        received = Received(bytes(33), path_key, packet, path.hops[0].encrypted_recipient_data)
        landed = await Peeler(ours.lnd.node_id, LocalKey(ours.lnd.secret), OWN).peel(received)
        assert isinstance(landed, Landed)
        assert landed.context == RequestContext(CLIENT.client_id, 1)
        assert (landed.payload.content, landed.payload.reply_path) == (payload.content, payload.reply_path)
