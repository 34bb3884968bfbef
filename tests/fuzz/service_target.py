"""The whole receive path: from what LND hands over to what is answered, or dropped and counted."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from sidecar.core import bolt12, keys, messages, offers, onion, paths
from sidecar.core.errors import Malformed, SidecarError
from sidecar.core.messages import OfferPathsRequest, ServeStaticInvoice, hop_payload
from sidecar.core.model import Family
from sidecar.core.paths import BlindedPath
from sidecar.core.wire import decode_tlvs, encode_tlvs, write_bigsize
from sidecar.ports import Received
from tests.fuzz.core_targets import BLIP66, TOKENS
from tests.fuzz.target import Pieces, Target, edited, spliced
from tests.harness.payer import make_invoice_request
from tests.harness.world import World

ASK = 32
"""Inputs after which the payer asks again."""

AGAIN = 1_000
"""Inputs after which the world is a new one, so that what is found needs few others before it."""


@cache
def declared() -> frozenset[str]:
    """The slugs of all errors that there are."""
    found: list[type[SidecarError]] = [SidecarError]
    for error in found:
        found += error.__subclasses__()
    return frozenset(error.reason for error in found)


class Scene:
    """Mallory, who is a client and does as the fuzzer says; Alice, who is one too; and who pays Alice."""

    def __init__(self, *, native: bool) -> None:
        self.world = World(native=native)
        self.used = 0

    async def set_up(self) -> None:
        """Both have an offer that is served."""
        await self.world.__aenter__()
        self.alice, self.mallory = await self.world.wallet("alice"), await self.world.wallet("mallory")
        self.payer = self.world.payer()
        self.offer, _, _ = await self.world.offer(self.alice)
        self.own, self.issued, self.invoice = await self.world.offer(self.mallory)
        self.paths: Sequence[BlindedPath] = (
            self.mallory.request_path,
            self.issued.update_path,
            self.own.paths[0],
            self.offer.paths[0],
        )
        nodes = [self.world.lnd_node_id, self.world.keys.node_id, self.mallory.node_id, self.alice.node_id]
        self.tokens = [*nodes, self.payer.node_id, *TOKENS]

    async def take(self, data: bytes) -> None:
        """One message made of the fuzzer's bytes: dropped under a name, or acted on; Alice is served."""
        pieces = Pieces(data)
        self.used += 1
        self.world.clock.pass_seconds(5)
        path, packet = pieces.choice(MAKERS)(self, pieces)
        native = not self.world.network.forwards_for_others
        encrypted = path.hops[0].encrypted_recipient_data if native else None
        before = self.world.counters.copy()
        self.world.network.inject(Received(self.mallory.node_id, path.path_key, packet, encrypted))
        await self.world.settled()
        self._judge(self.world.counters - before)
        if self.used % ASK == 0:
            await self.ask()

    @staticmethod
    def _judge(counted: Counter[str]) -> None:
        assert counted["received"] == 1, counted
        for name in counted:
            where, _, slug = name.rpartition(".")
            assert slug not in ("internal-error", "timeout"), counted
            assert where.partition(".")[0] not in ("dropped", "unsent") or slug in declared(), counted

    async def ask(self) -> None:
        """Whatever came before, who asks for Alice's invoice gets it."""
        for node in (self.payer, self.alice, self.mallory):
            while self.world.network.waiting(node.node_id):
                await node.link.receive_onion()
        await self.payer.send_request(self.offer)
        await self.payer.receive_answer(self.offer)

    async def end(self) -> None:
        """Throw it away, when it has proved that it still works."""
        await self.ask()
        await self.world.__aexit__(None, None, None)


# --- messages -------------------------------------------------------------------------------------

Made = tuple[BlindedPath, bytes]
_KEY = bytes(range(1, 33))


def _sealed(path: BlindedPath, final: bytes) -> Made:
    """An onion along a path of ours, with any payload for its last hop."""
    lnd, us = path.hops
    hops = [(lnd.blinded_node_id, hop_payload(lnd.encrypted_recipient_data)), (us.blinded_node_id, final)]
    return path, onion.build(_KEY, hops)


def _records(scene: Scene, path: BlindedPath, content_type: int, content: bytes) -> dict[int, bytes]:
    return {
        messages.REPLY_PATH: paths.encode_path(scene.mallory.path_to_self(b"answer")),
        messages.ENCRYPTED_RECIPIENT_DATA: path.hops[-1].encrypted_recipient_data,
        content_type: content,
    }


def _sent(scene: Scene, path: BlindedPath, content_type: int, content: bytes) -> Made:
    return _sealed(path, encode_tlvs(_records(scene, path, content_type, content)))


def _packet(scene: Scene, pieces: Pieces) -> Made:
    """Any bytes, of a size that packets have or not, with a good path_key or not."""
    path = pieces.choice(scene.paths)
    path = replace(path, path_key=spliced(path.path_key, pieces)) if pieces.number() & 1 else path
    head = b"\0" + pieces.choice(scene.tokens) if pieces.number() & 1 else b""
    packet = head + pieces.rest()
    return path, packet.ljust(onion.SMALL_PACKET, b"\0")[: onion.SMALL_PACKET] if head else packet


def _payload(scene: Scene, pieces: Pieces) -> Made:
    """Any payload in a packet that is right."""
    return _sealed(pieces.choice(scene.paths), pieces.rest()[:30_000])


def _changed(scene: Scene, pieces: Pieces) -> Made:
    """A good payload with changes."""
    path = pieces.choice(scene.paths)
    content = messages.encode(OfferPathsRequest(pieces.number()), pieces.choice(list(Family)))
    return _sealed(path, encode_tlvs(edited(_records(scene, path, *content), pieces, scene.tokens))[:30_000])


def _content(scene: Scene, pieces: Pieces) -> Made:
    """Any content of a type that we know, over any of our paths."""
    path = pieces.choice(scene.paths)
    return _sent(scene, path, pieces.choice((*BLIP66, messages.INVOICE_REQUEST)), pieces.rest()[:30_000])


def _request(scene: Scene, pieces: Pieces) -> Made:
    """A good invoice_request with changes, signed."""
    path = pieces.choice(scene.paths[2:])
    records = decode_tlvs(make_invoice_request(scene.own if path is scene.paths[2] else scene.offer))
    del records[bolt12.SIGNATURE]
    secret = b"\x05" * 32
    records[offers.INVREQ_PAYER_ID] = keys.public_key(secret)
    signed = bolt12.sign(edited(records, pieces, scene.tokens), "invoice_request", secret)
    return _sent(scene, path, messages.INVOICE_REQUEST, encode_tlvs(signed)[:30_000])


def _served(scene: Scene, pieces: Pieces) -> Made:
    """A serve_static_invoice, good but for changes to the invoice, which is signed, or to its path."""
    records = decode_tlvs(scene.invoice)
    del records[bolt12.SIGNATURE]
    forward = paths.encode_path(scene.mallory.forward_path)
    if pieces.number() & 1:
        forward = spliced(forward, pieces)
    signed = bolt12.sign(edited(records, pieces, scene.tokens), "static_invoice", scene.mallory.issuer_secret)
    try:
        served = ServeStaticInvoice(encode_tlvs(signed)[:20_000], paths.decode_path(forward))
    except Malformed:
        served = ServeStaticInvoice(scene.invoice, scene.mallory.forward_path)
    return _sent(scene, scene.issued.update_path, *messages.encode(served, pieces.choice(list(Family))))


def _own_path(scene: Scene, pieces: Pieces) -> Made:
    """A path that a stranger made who knows our key, with any data for both hops."""
    us, lnd = scene.world.keys.node_id, scene.world.lnd_node_id
    first = encode_tlvs(edited({paths.NEXT_NODE_ID: us}, pieces, scene.tokens, most=2))
    last = encode_tlvs(edited({paths.PATH_ID: bytes(48)}, pieces, scene.tokens, most=2))
    path = paths.build(os.urandom(32), [(lnd, first[:1_000]), (us, last[:1_000])])
    return _sent(scene, path, messages.INVOICE_REQUEST, pieces.rest()[:2_000])


def _reply(scene: Scene, pieces: Pieces) -> Made:
    """A good request whose reply path leads anywhere."""
    path = scene.offer.paths[0]
    hops = [(pieces.choice(scene.tokens[:5]), b"") for _ in range(pieces.number() % 6 + 1)]
    plain = [
        encode_tlvs(edited({paths.NEXT_NODE_ID: node}, pieces, scene.tokens, most=1)) for node, _ in hops
    ]
    reply = paths.build(_KEY, [(node, data[:200]) for (node, _), data in zip(hops, plain, strict=True)])
    records = _records(scene, path, messages.INVOICE_REQUEST, make_invoice_request(scene.offer))
    encoded = spliced(paths.encode_path(reply), pieces) if pieces else paths.encode_path(reply)
    return _sealed(path, encode_tlvs({**records, messages.REPLY_PATH: encoded}))


def _frame(scene: Scene, pieces: Pieces) -> Made:
    """A packet whose inner frame (length and payload) is any bytes."""
    lnd, us = scene.offer.paths[0].hops
    data = hop_payload(lnd.encrypted_recipient_data)
    frames = [write_bigsize(len(data)) + data, pieces.rest()[:1_000]]
    nodes = [lnd.blinded_node_id, us.blinded_node_id]
    return scene.offer.paths[0], onion._wrap(_KEY, nodes, frames, onion.SMALL_HOP_DATA)


MAKERS: tuple[Callable[[Scene, Pieces], Made], ...] = (
    _packet,
    _payload,
    _changed,
    _content,
    _request,
    _served,
    _own_path,
    _reply,
    _frame,
)


# --- the target -----------------------------------------------------------------------------------


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


_scenes: dict[bool, Scene] = {}


async def _take(native: bool, data: bytes) -> None:
    scene = _scenes.get(native)
    if scene is None or scene.used >= AGAIN:
        if scene is not None:
            await scene.end()
        scene = _scenes[native] = Scene(native=native)
        await scene.set_up()
    try:
        await scene.take(data)
    except BaseException:
        # What it has left behind may not be found again and again.
        del _scenes[native]
        raise


def receive(data: bytes) -> None:
    """A message from Mallory's node, beside an LND of either kind."""
    _loop().run_until_complete(_take(bool(data[:1] and data[0] & 1), data[1:]))


async def _close() -> None:
    for scene in _scenes.values():
        await scene.end()
    _scenes.clear()


def close() -> None:
    """The service still works after all of it; for tests."""
    _loop().run_until_complete(_close())


def seeds() -> Iterator[bytes]:
    """Each maker, over each path, with and without changes."""
    for native in (0, 1):
        for number in range(len(MAKERS)):
            yield bytes([native, number])
            yield bytes([native, number, 3, 0, 0, 0, 1, 5, 3])
            yield bytes([native, number, 2, 2, 0, 40, 3]) + b"abc"
    for number, content_type in enumerate(BLIP66):
        content = messages.encode(
            OfferPathsRequest(1), Family.LDK if content_type > 70_000 else Family.BLIP66
        )
        yield bytes([1, 3, 0, number]) + content[1]
    yield bytes([1, 1, 0]) + encode_tlvs({4: b"", 64: b""})
    yield bytes([0, 6, 3, 0, 2, 3, 0, 0])
    yield bytes([1, 8]) + b"\xfd\xff\xff"


def _targets() -> Iterable[Target]:
    yield Target("service", "the receive path", receive, (), seeds, longest=40_000)


TARGETS = tuple(_targets())
