"""Who answers: the sidecar's own code in memory, and the elliptic-curve operations alone.

What the figures include is in `INCLUDES`.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from coincurve import PublicKey, PublicKeyXOnly

from sidecar.core import bolt12, keys, messages, offers, onion, paths
from sidecar.core.context import OfferContext, RequestContext
from sidecar.core.effects import Send
from sidecar.core.keys import SidecarKeys
from sidecar.core.messages import OfferPaths, OfferPathsRequest
from sidecar.core.model import Client, ClientState, Family, Loaded, Quota, SlotMark, StoredInvoice
from sidecar.core.paths import BlindedPath, SciddirIntroduction
from sidecar.core.server import Arrival, ServerSettings, StaticInvoiceServer
from sidecar.core.wire import decode_tlvs
from sidecar.courier import Courier, Parcel
from sidecar.peeler import Landed, Peeler
from sidecar.ports import Received
from tests.bench.questions import Question, Stored, now, payer
from tests.harness.allowed import LIMITS

INCLUDES = {
    "sidecar": "Peeler, read_invoice_request, StaticInvoiceServer and Courier, from the onion packet as LND"
    " streams it to both packets as LND is handed them; what LND's signer answers is given, the stored"
    " invoice is in memory as the store loads it, its offer was asked for before, over the same path. No LND,"
    " Redis, socket, task, limit or log.",
    "sidecar+signer": "The same, and the ECDHs that LND's signer does: what LDK's server does itself.",
    "ldk": "OnionMessenger and ChannelManager of one thread, from the bytes of the onion message to the bytes"
    " of both that go out: its own ECDHs, parsing, signature, StaticInvoiceRequested, respond_to_static_"
    "invoice_request. The invoice is parsed and in memory. No socket, no connection's cipher, no log.",
    "floor": "By coincurve alone, the fewest elliptic-curve operations for it: the point that LND's signer is"
    " asked for, our own layer's ECDH, one signature; each path_key behind LND; and for each onion hop an"
    " ephemeral key and an ECDH. Points are parsed once. What LND's signer answers is given, and the"
    " forward path was advanced when it was stored.",
}

YEAR = 365 * 24 * 3600
_CLIENT = Client(b"benchmark!", "bench", ClientState.ACTIVE, 1, Quota(10, 51_200, YEAR), 1_700_000_000)
_OWN = SidecarKeys.derive(keys.sha256(b"the sidecar of the benchmark"))


class GivenKey:
    """LND's signer: what it will be asked is answered beforehand, or in process and measured."""

    def __init__(self, secret: bytes, *, in_process: bool) -> None:
        self._secret = secret
        self._in_process = in_process
        self._given: dict[bytes, bytes] = {}

    def give(self, point: bytes) -> None:
        """Answer this before it is asked."""
        self._given[point] = keys.ecdh(self._secret, point)

    async def ecdh(self, point: bytes) -> bytes:
        """The answer; KeyError where it was not given and should be."""
        return keys.ecdh(self._secret, point) if self._in_process else self._given[point]


class InMemory:
    """A transport and a graph that answer at once."""

    forwards_for_others = False

    def __init__(self, lnd_node_id: bytes) -> None:
        self._lnd_node_id = lnd_node_id
        self._payer_node_id = payer().node_id
        self.sent: list[tuple[bytes, bytes, bytes]] = []

    def receive(self) -> AsyncIterator[Received]:
        """Nothing comes this way."""
        raise NotImplementedError

    async def send(self, peer: bytes, path_key: bytes, onion: bytes) -> None:
        """Keep it."""
        self.sent.append((peer, path_key, onion))

    async def next_node(self, scid: int) -> bytes:
        """The one wallet that is behind a scid here."""
        del scid
        return self._payer_node_id

    async def node_of(self, scid: int, direction: int) -> bytes:
        """The one end of a channel that is named here."""
        del scid, direction
        return self._lnd_node_id

    async def relays_to(self, node_id: bytes) -> Sequence[bytes]:
        """Not asked."""
        raise NotImplementedError

    async def has_channel(self, node_id: bytes) -> bool:
        """Not asked."""
        raise NotImplementedError

    async def is_announced(self, node_id: bytes) -> bool:
        """Not asked."""
        raise NotImplementedError

    async def dial(self, node_id: bytes) -> None:
        """Not asked."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Answered:
    """What went out for one question: (peer, path_key, packet) of each."""

    forwarded: tuple[bytes, bytes, bytes]
    answer: tuple[bytes, bytes, bytes]


class Sidecar:
    """The product's code path for one offer."""

    def __init__(self, stored: Stored, *, signer_in_process: bool = False) -> None:
        self._stored = stored
        self._key = GivenKey(stored.lnd.secret, in_process=signer_in_process)
        self._wire = InMemory(stored.lnd.node_id)
        settings = ServerSettings(stored.lnd.node_id, _OWN, stored.offer.chains[0], YEAR)
        self._server = StaticInvoiceServer(settings)
        self._peeler = Peeler(stored.lnd.node_id, self._key, _OWN)
        self._courier = Courier(
            lnd_node_id=stored.lnd.node_id,
            own_node_id=_OWN.node_id,
            lnd_key=self._key,
            graph=self._wire,
            transport=self._wire,
            entropy=os.urandom,
        )
        self._path = self._issue()
        self._loaded = Loaded(_CLIENT, None, None)
        self._now_ms = now() * 1000

    def _issue(self) -> BlindedPath:
        """An offer path as the server gives it, and LND's answer for it."""
        came = Arrival(
            RequestContext(_CLIENT.client_id, _CLIENT.generation),
            paths.build(os.urandom(32), [(payer().node_id, paths.path_id_data(b"offer paths"))]),
            Loaded(_CLIENT, None, None),
            now() * 1000,
        )
        effects = self._server.on_offer_paths_request(
            came, OfferPathsRequest(0), Family.LDK, os.urandom, LIMITS
        )
        sent = effects[0]
        assert isinstance(sent, Send)
        message, _ = messages.decode(sent.content_type, sent.content)
        assert isinstance(message, OfferPaths)
        (path,) = message.paths
        self._key.give(path.path_key)
        return path

    async def start(self) -> None:
        """Keep the invoice as `serve_static_invoice` does: its forward path is advanced behind LND."""
        context = await self._peeler.walk(self._path)
        assert isinstance(context, OfferContext)
        self._key.give(self._stored.forward_path.path_key)
        forward_path = await self._courier.past_lnd(self._stored.forward_path)
        at = now()
        kept = StoredInvoice(
            slot=0,
            tag=context.tag,
            invoice=self._stored.invoice,
            forward_path=paths.encode_path(forward_path),
            family=Family.LDK,
            created_at=at - 1,
            stored_at=at - 1,
            expires_at=at + YEAR,
        )
        self._loaded = Loaded(_CLIENT, SlotMark(context.tag, at - 1), kept)

    def receive(self, question: Question) -> Received:
        """A question as LND streams it, put over our offer path; LND's answers for it are ready."""
        packet = messages.onion_along(
            self._path, os.urandom(32), messages.INVOICE_REQUEST, question.content, question.reply_path
        )
        lnd_secret = keys.ecdh(self._stored.lnd.secret, self._path.path_key)
        self._key.give(paths.blind(onion.check_packet(packet), lnd_secret))
        self._key.give(question.reply_path.path_key)
        data = self._path.hops[0].encrypted_recipient_data
        return Received(question.payer.node_id, self._path.path_key, packet, data)

    async def answer(self, received: Received) -> None:
        """What SidecarService does with an invoice_request, without what stands around it."""
        landed = await self._peeler.peel(received)
        assert isinstance(landed, Landed)
        assert isinstance(landed.context, OfferContext)
        request = offers.read_invoice_request(landed.payload.content)
        arrival = Arrival(landed.context, landed.payload.reply_path, self._loaded, self._now_ms)
        for effect in self._server.on_invoice_request(arrival, request, forward=True):
            assert isinstance(effect, Send)
            parcel: Parcel = await self._courier.pack(effect)
            await self._courier.send(parcel)

    async def serve(self, questions: Sequence[Received]) -> tuple[list[int], Answered]:
        """The nanoseconds of this thread for each but the first, and what went out for the last.

        The first brings back what stands: the points of the offer and of the forward path.
        """
        forget()
        times = []
        for received in questions:
            self._wire.sent.clear()
            start = time.thread_time_ns()
            await self.answer(received)
            times.append(time.thread_time_ns() - start)
        forwarded, answer = self._wire.sent
        return times[1:], Answered(forwarded, answer)


def forget() -> None:
    """Empty the core's caches: who made, checked or answered the questions has left their points there."""
    keys._point.cache_clear()
    offers._read_offer.cache_clear()


# --- the floor ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operations:
    """How many elliptic-curve operations a request needs."""

    products: int
    """Of a point that came as 33 bytes and a scalar."""
    public_keys: int
    """Of a scalar and the generator."""
    verifications: int = 1


def needed(reply_path: BlindedPath, forward_path: BlindedPath, lnd_node_id: bytes) -> Operations:
    """The fewest operations by which a request can be served, LND's ECDHs given.

    Products: the point for LND's signer and our own layer's ECDH; the path_key behind LND, where the
    reply path starts there; an ECDH for each hop of both onions. Keys: each hop's ephemeral one.
    """
    node = reply_path.introduction_node
    at_lnd = isinstance(node, SciddirIntroduction) or node == lnd_node_id
    hops = len(reply_path.hops) - at_lnd
    hops += len(forward_path.hops) - (forward_path.introduction_node == lnd_node_id)
    return Operations(products=2 + at_lnd + hops, public_keys=hops)


class Floor:
    """Just those operations, on a question's own points and signature."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def serve(self, questions: Sequence[Question]) -> list[int]:
        """The nanoseconds of this thread for each."""
        times = []
        for question in questions:
            records = decode_tlvs(question.content)
            root = bolt12.merkle_root(records)
            message = keys.tagged_hash(b"lightninginvoice_requestsignature", root)
            signer, signature = records[offers.INVREQ_PAYER_ID][1:], records[bolt12.SIGNATURE]
            needs = needed(question.reply_path, self._stored.forward_path, self._stored.lnd.node_id)
            points = [hop.blinded_node_id for hop in question.reply_path.hops] * 4
            secret = os.urandom(32)
            start = time.thread_time_ns()
            for point in points[: needs.products]:
                PublicKey(point).multiply(secret).format()
            for _ in range(needs.public_keys):
                PublicKey.from_valid_secret(secret).format()
            right = PublicKeyXOnly(signer).verify(signature, message)
            times.append(time.thread_time_ns() - start)
            assert right
        return times
