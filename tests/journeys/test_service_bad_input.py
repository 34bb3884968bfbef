"""Bad input: each counted under its reason, none answered, none ends the loop (issue, "Bad input")."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from sidecar.core import context, keys, messages, onion, paths
from sidecar.core.context import RequestContext
from sidecar.core.messages import hop_payload
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedHop, BlindedPath
from sidecar.core.wire import encode_tlv, encode_tlvs, write_bigsize
from sidecar.courier import MAX_HOPS
from sidecar.ports import Received
from tests.harness.payer import Payer, make_invoice_request
from tests.harness.wallet import Issued, Wallet
from tests.harness.world import World

NO_POINT = b"\x02" + b"\xff" * 32
MODES = pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])


@dataclass
class Stage:
    """A wallet with an offer that is served, and a payer: what bad input is made of."""

    world: World
    wallet: Wallet
    payer: Payer
    offer: Offer
    issued: Issued
    invoice: bytes

    @property
    def offer_path(self) -> BlindedPath:
        """The path that payers use."""
        return self.offer.paths[0]

    @property
    def reply(self) -> bytes:
        """A good reply path, encoded."""
        return paths.encode_path(self.payer.path_to_self(b"payer"))

    def payload(self, content_type: int = 64, content: bytes | None = None) -> dict[int, bytes]:
        """A good final payload over the offer path."""
        return {
            messages.REPLY_PATH: self.reply,
            messages.ENCRYPTED_RECIPIENT_DATA: self.offer_path.hops[-1].encrypted_recipient_data,
            content_type: make_invoice_request(self.offer) if content is None else content,
        }

    def own_path(self, last: bytes, first: bytes | None = None) -> BlindedPath:
        """A path to the sidecar as a stranger could build it who knew its key; given plain hop data."""
        us = self.world.keys.node_id
        return paths.build(
            os.urandom(32), [(self.world.lnd_node_id, first or paths.next_hop_data(us)), (us, last)]
        )

    async def deliver(self, path: BlindedPath, packet: bytes, path_key: bytes | None = None) -> Counter[str]:
        """Hand a packet to the sidecar; what was counted for it."""
        native = not self.world.network.forwards_for_others
        data = path.hops[0].encrypted_recipient_data if native else None
        before = self.world.counters.copy()
        received = Received(self.payer.node_id, path.path_key if path_key is None else path_key, packet, data)
        self.world.network.inject(received)
        await self.world.settled()
        return self.world.counters - before


async def stage(world: World) -> Stage:
    """Set it up."""
    wallet = await world.wallet()
    return Stage(world, wallet, world.payer(), *await world.offer(wallet))


def sealed(path: BlindedPath, final: bytes, first: bytes | None = None) -> bytes:
    """An onion along a path of two hops, its payloads given raw."""
    lnd, us = path.hops
    between = hop_payload(lnd.encrypted_recipient_data) if first is None else first
    return onion.build(os.urandom(32), [(lnd.blinded_node_id, between), (us.blinded_node_id, final)])


def framed(at: Stage, frame: bytes) -> bytes:
    """An onion whose innermost frame (length and payload) is given raw."""
    lnd, us = at.offer_path.hops
    data = hop_payload(lnd.encrypted_recipient_data)
    nodes = [lnd.blinded_node_id, us.blinded_node_id]
    return onion._wrap(os.urandom(32), nodes, [write_bigsize(len(data)) + data, frame], 1_300)


def good(at: Stage) -> bytes:
    """A packet with nothing wrong."""
    return sealed(at.offer_path, encode_tlvs(at.payload()))


def altered(packet: bytes, position: int, value: bytes) -> bytes:
    """The packet with bytes replaced."""
    position %= len(packet)
    return packet[:position] + value + packet[position + len(value) :]


def flipped(data: bytes, position: int) -> bytes:
    """The bytes with one bit flipped."""
    return altered(data, position, bytes([data[position] ^ 1]))


async def assert_dropped(at: Stage, counted: Counter[str], reason: str) -> None:
    """It was counted under its reason, nobody heard of it, and the loop goes on."""
    assert counted == {"received": 1, f"dropped.{reason}": 1}
    assert at.world.unread() == 0
    await at.payer.send_request(at.offer)
    await at.payer.receive_answer(at.offer)
    await at.wallet.receive_invoice_request()


# --- packets --------------------------------------------------------------------------------------

PACKETS: dict[str, tuple[Callable[[Stage], bytes], str]] = {
    "empty": (lambda _: b"", "bad-onion-size"),
    "one byte": (lambda _: b"\0", "bad-onion-size"),
    "truncated": (lambda at: good(at)[:-1], "bad-onion-size"),
    "trailing": (lambda at: good(at) + b"\0", "bad-onion-size"),
    "between the sizes": (lambda at: good(at) + bytes(10_000), "bad-onion-size"),
    "larger than the large one": (lambda _: bytes(32_835), "bad-onion-size"),
    "version 1": (lambda at: altered(good(at), 0, b"\x01"), "bad-onion-version"),
    "version 255": (lambda at: altered(good(at), 0, b"\xff"), "bad-onion-version"),
    "ephemeral key that is no point": (lambda at: altered(good(at), 1, NO_POINT), "bad-point"),
    "ephemeral key of another form": (lambda at: altered(good(at), 1, b"\x04"), "bad-point"),
    "another ephemeral key": (
        lambda at: altered(good(at), 1, keys.public_key(b"\x07" * 32)),
        "bad-onion-hmac",
    ),
    "HMAC": (lambda at: flipped(good(at), -1), "bad-onion-hmac"),
    "hop data": (lambda at: flipped(good(at), 700), "bad-onion-hmac"),
    "zeroes of the small size": (lambda _: bytes(1_366), "bad-point"),
    "frame length not minimal": (lambda at: framed(at, b"\xfd\0\x01" + bytes(99)), "bad-onion"),
    "frame that runs out of the packet": (lambda at: framed(at, b"\xfd\xff\xff" + bytes(99)), "bad-onion"),
    "intermediate payload with a field more": (
        lambda at: sealed(
            at.offer_path,
            encode_tlvs(at.payload()),
            hop_payload(at.offer_path.hops[0].encrypted_recipient_data) + encode_tlv(7, b""),
        ),
        "bad-message",
    ),
    "intermediate payload of nothing": (
        lambda at: sealed(at.offer_path, encode_tlvs(at.payload()), b""),
        "bad-message",
    ),
}


@MODES
@pytest.mark.parametrize("case", PACKETS)
async def test_onion_packet_that_breaks_its_form_is_dropped(case: str, native: bool) -> None:
    """BOLT 4 "Packet Structure": version 0, two sizes, a point, HMACs, minimal lengths."""
    async with World(native=native) as world:
        at = await stage(world)
        make, reason = PACKETS[case]
        await assert_dropped(at, await at.deliver(at.offer_path, make(at)), reason)


@MODES
@pytest.mark.parametrize("path_key", [b"", NO_POINT, b"\x02" * 32, b"\x04" + bytes(64)])
async def test_path_key_that_is_no_point_is_dropped(path_key: bytes, native: bool) -> None:
    """A path_key is a compressed point (BOLT 1 "Fundamental Types")."""
    async with World(native=native) as world:
        at = await stage(world)
        await assert_dropped(at, await at.deliver(at.offer_path, good(at), path_key), "bad-point")


@MODES
async def test_onion_with_another_paths_path_key_is_dropped(native: bool) -> None:
    """Onion and path_key belong together (BOLT 4 "Route Blinding")."""
    async with World(native=native) as world:
        at = await stage(world)
        counted = await at.deliver(at.offer_path, good(at), at.wallet.request_path.path_key)
        await assert_dropped(at, counted, "bad-recipient-data" if native else "bad-onion-hmac")


@MODES
async def test_onion_whose_inner_layer_is_for_another_key_is_dropped(native: bool) -> None:
    """Each layer has an HMAC of its own, ours too (BOLT 4 "Packet Structure")."""
    async with World(native=native) as world:
        at = await stage(world)
        lnd, us = at.offer_path.hops
        elsewhere = BlindedHop(keys.public_key(b"\x07" * 32), us.encrypted_recipient_data)
        packet = sealed(replace(at.offer_path, hops=(lnd, elsewhere)), encode_tlvs(at.payload()))
        await assert_dropped(at, await at.deliver(at.offer_path, packet), "bad-onion-hmac")


@MODES
async def test_onion_that_goes_on_behind_our_key_is_dropped(native: bool) -> None:
    """All our paths end at our key: what goes on behind it is none of them (design, section 3)."""
    async with World(native=native) as world:
        at = await stage(world)
        hops = [
            (hop.blinded_node_id, hop_payload(hop.encrypted_recipient_data)) for hop in at.offer_path.hops
        ]
        packet = onion.build(os.urandom(32), [*hops, (keys.public_key(b"\x07" * 32), b"more")])
        await assert_dropped(at, await at.deliver(at.offer_path, packet), "bad-onion")


@MODES
async def test_onion_that_ends_at_lnd_is_dropped(native: bool) -> None:
    """None of our paths ends at LND: its messages are not ours (design, section 3)."""
    async with World(native=native) as world:
        at = await stage(world)
        path = paths.build(os.urandom(32), [(world.lnd_node_id, paths.path_id_data(b"LND's own"))])
        (hop,) = path.hops
        final = encode_tlvs({messages.ENCRYPTED_RECIPIENT_DATA: hop.encrypted_recipient_data, 64: b""})
        packet = onion.build(os.urandom(32), [(hop.blinded_node_id, final)])
        await assert_dropped(at, await at.deliver(path, packet), "not-for-us")


# --- payloads -------------------------------------------------------------------------------------


def with_reply(at: Stage, reply: bytes) -> bytes:
    """The payload with its reply path replaced."""
    return encode_tlvs(at.payload() | {messages.REPLY_PATH: reply})


def with_data(at: Stage, data: bytes) -> bytes:
    """The payload with its encrypted_recipient_data replaced."""
    return encode_tlvs(at.payload() | {messages.ENCRYPTED_RECIPIENT_DATA: data})


def in_order(at: Stage, *types: int) -> bytes:
    """The payload's records in a given order."""
    payload = at.payload()
    return b"".join(encode_tlv(type_, payload[type_]) for type_ in types)


# introduction node and path_key, before the number of hops
HEAD = 66

PAYLOADS: dict[str, tuple[Callable[[Stage], bytes], str]] = {
    "empty": (lambda _: b"", "bad-message"),
    "truncated": (lambda at: encode_tlvs(at.payload())[:-1], "bad-message"),
    "trailing": (lambda at: encode_tlvs(at.payload()) + b"\xfd", "bad-message"),
    "out of order": (lambda at: in_order(at, 4, 2, 64), "bad-message"),
    "content first": (lambda at: in_order(at, 64, 2, 4), "bad-message"),
    "duplicate": (lambda at: in_order(at, 2, 4, 64, 64), "bad-message"),
    "unknown even type": (lambda at: encode_tlvs(at.payload() | {6: b""}), "bad-message"),
    "two contents": (lambda at: encode_tlvs(at.payload() | {66: b""}), "bad-message"),
    "no encrypted_recipient_data": (lambda at: in_order(at, 2, 64), "bad-message"),
    "encrypted_recipient_data altered": (
        lambda at: with_data(at, flipped(at.offer_path.hops[-1].encrypted_recipient_data, 3)),
        "bad-recipient-data",
    ),
    "encrypted_recipient_data of LND's hop": (
        lambda at: with_data(at, at.offer_path.hops[0].encrypted_recipient_data),
        "bad-recipient-data",
    ),
    "encrypted_recipient_data of another of our paths": (
        lambda at: with_data(at, at.issued.update_path.hops[-1].encrypted_recipient_data),
        "bad-recipient-data",
    ),
    "encrypted_recipient_data of nothing": (lambda at: with_data(at, b""), "bad-recipient-data"),
    "reply path of nothing": (lambda at: with_reply(at, b""), "bad-path"),
    "reply path of 0 hops": (lambda at: with_reply(at, at.reply[:HEAD] + b"\0"), "bad-path"),
    "reply path of 0 hops, and more": (lambda at: with_reply(at, altered(at.reply, HEAD, b"\0")), "bad-path"),
    "reply path of 255 hops cut short": (
        lambda at: with_reply(at, altered(at.reply, HEAD, b"\xff")),
        "bad-path",
    ),
    "reply path truncated": (lambda at: with_reply(at, at.reply[:-1]), "bad-path"),
    "reply path trailing": (lambda at: with_reply(at, at.reply + b"\0"), "bad-path"),
    "reply path from no point": (lambda at: with_reply(at, altered(at.reply, 0, NO_POINT)), "bad-point"),
    "reply path with a path_key that is no point": (
        lambda at: with_reply(at, altered(at.reply, 33, NO_POINT)),
        "bad-point",
    ),
    "reply path to no point": (lambda at: with_reply(at, altered(at.reply, HEAD + 1, NO_POINT)), "bad-point"),
    "no reply path": (lambda at: in_order(at, 4, 64), "no-reply-path"),
    "no content": (lambda at: in_order(at, 2, 4), "content-not-served"),
}


@MODES
@pytest.mark.parametrize("case", PAYLOADS)
async def test_payload_that_breaks_its_form_is_dropped(case: str, native: bool) -> None:
    """BOLT 4 `onionmsg_tlv` and `blinded_path`, BOLT 1 "Type-Length-Value Format"."""
    async with World(native=native) as world:
        at = await stage(world)
        make, reason = PAYLOADS[case]
        await assert_dropped(at, await at.deliver(at.offer_path, sealed(at.offer_path, make(at))), reason)


# --- paths that we did not make -------------------------------------------------------------------


def path_id(key: bytes) -> bytes:
    """A path_id that is right in all but, perhaps, its key."""
    return context.seal(key, RequestContext(b"0123456789", 1))


OWN_PATHS: dict[str, tuple[Callable[[Stage], BlindedPath], str]] = {
    "no path_id": (lambda at: at.own_path(encode_tlvs({1: bytes(8)})), "bad-context"),
    "empty path_id": (lambda at: at.own_path(paths.path_id_data(b"")), "bad-context"),
    "short path_id": (lambda at: at.own_path(paths.path_id_data(bytes(15))), "bad-context"),
    "random path_id": (lambda at: at.own_path(paths.path_id_data(os.urandom(48))), "bad-context"),
    "path_id with another key's MAC": (
        lambda at: at.own_path(paths.path_id_data(path_id(bytes(32)))),
        "bad-context",
    ),
    "path_id with one bit flipped": (
        lambda at: at.own_path(paths.path_id_data(flipped(path_id(at.world.keys.context_key), 5))),
        "bad-context",
    ),
    "data of a payment": (
        lambda at: at.own_path(encode_tlvs({6: b"id", 12: bytes(5)})),
        "bad-recipient-data",
    ),
    "data that is no TLV stream": (lambda at: at.own_path(b"\x06\x30"), "bad-recipient-data"),
    "LND's data with a path_id": (
        lambda at: at.own_path(paths.path_id_data(b"id"), encode_tlvs({4: at.world.keys.node_id, 6: b"id"})),
        "bad-recipient-data",
    ),
    "LND's data with a next node that is no point": (
        lambda at: at.own_path(paths.path_id_data(b"id"), encode_tlvs({4: NO_POINT})),
        "bad-recipient-data",
    ),
}


@MODES
@pytest.mark.parametrize("case", OWN_PATHS)
async def test_path_to_us_that_we_did_not_make_is_dropped(case: str, native: bool) -> None:
    """Anyone can build a path to us: a path_id is believed only when its MAC is right (design)."""
    async with World(native=native) as world:
        at = await stage(world)
        make, reason = OWN_PATHS[case]
        path = make(at)
        final = at.payload() | {messages.ENCRYPTED_RECIPIENT_DATA: path.hops[-1].encrypted_recipient_data}
        await assert_dropped(at, await at.deliver(path, sealed(path, encode_tlvs(final))), reason)


async def test_path_id_of_ours_can_not_be_moved_into_another_path() -> None:
    """A client can neither read nor move a path_id: it is sealed for one path alone (design, section 3)."""
    async with World() as world:
        at = await stage(world)
        last = at.offer_path.hops[-1].encrypted_recipient_data
        path = at.own_path(paths.path_id_data(b"anything"))
        moved = replace(path, hops=(path.hops[0], replace(path.hops[1], encrypted_recipient_data=last)))
        final = encode_tlvs(at.payload() | {messages.ENCRYPTED_RECIPIENT_DATA: last})
        await assert_dropped(at, await at.deliver(moved, sealed(moved, final)), "bad-recipient-data")


# --- faults of our own ----------------------------------------------------------------------------


@MODES
async def test_fault_of_our_own_is_counted_and_the_loop_goes_on(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody thought of costs one message, is counted and logged, and no more (issue)."""
    async with World(native=native) as world:
        at = await stage(world)
        world.store.load_error = ZeroDivisionError("a fault")
        counted = await at.deliver(at.offer_path, good(at))
        world.store.load_error = None
        await assert_dropped(at, counted, "internal-error")
        assert "a fault" in caplog.text


async def test_path_of_255_hops_is_not_sent_along() -> None:
    """A stranger chooses its reply path; an onion for 255 hops costs us 80 ms (issue, "Bad input")."""
    async with World() as world:
        at = await stage(world)
        for hops, what in ((MAX_HOPS, "sent.static_invoice"), (255, "unsent.static_invoice.bad-path")):
            reply = at.payer.path_to_self(b"payer", through_lnd=False, dummy_hops=hops - 1)
            final = encode_tlvs(at.payload() | {messages.REPLY_PATH: paths.encode_path(reply)})
            counted = await at.deliver(at.offer_path, sealed(at.offer_path, final))
            assert counted[what] == 1
        assert world.network.waiting(at.payer.node_id) == 1
