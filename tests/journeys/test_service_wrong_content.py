"""Well-sealed messages with the wrong content: each counted under its reason, none answered (issue)."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.core import bolt12, messages, offers, paths
from sidecar.core.messages import OfferPaths, OfferPathsRequest, ServeStaticInvoice, StaticInvoicePersisted
from sidecar.core.model import Family
from sidecar.core.paths import BlindedHop, BlindedPath, SciddirIntroduction
from sidecar.core.wire import encode_tlvs
from tests.harness.fakes import DAY, behind
from tests.harness.node import Node
from tests.harness.payer import make_invoice_request
from tests.harness.world import World


class Cast:
    """Two wallets with offers that are served, and a payer."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def set_up(self) -> "Cast":
        """Set it up."""
        world = self.world
        self.alice, self.bob = await world.wallet("alice"), await world.wallet("bob")
        self.payer = world.payer()
        self.offer, self.issued, self.invoice = await world.offer(self.alice)
        _, self.other_slot, _ = await world.offer(self.alice, 1)
        _, self.bobs, _ = await world.offer(self.bob)
        return self

    async def assert_dropped(
        self, reason: str, path: BlindedPath, content: tuple[int, bytes], *, reply: bool = True
    ) -> None:
        """A message over a path is counted under its reason, and nobody hears of it; nothing is stored."""
        before, saves = self.world.counters.copy(), self.world.store.calls["save"]
        sender = self.alice
        await sender.send_along(path, *content, sender.path_to_self(b"answer") if reply else None)
        await self.world.settled()
        assert self.world.counters - before == {"received": 1, f"dropped.{reason}": 1}
        assert self.world.unread() == 0
        assert self.world.store.calls["save"] == saves
        # The loop goes on.
        await self.payer.send_request(self.offer)
        await self.payer.receive_answer(self.offer)
        await self.alice.receive_invoice_request()

    def served(self, invoice: bytes | None = None) -> tuple[int, bytes]:
        """serve_static_invoice."""
        message = ServeStaticInvoice(self.invoice if invoice is None else invoice, self.alice.forward_path)
        return messages.encode(message, Family.LDK)


# --- content over a path that is not for it -------------------------------------------------------

PATHS: dict[str, Callable[[Cast], BlindedPath]] = {
    "request path": lambda cast: cast.alice.request_path,
    "update path": lambda cast: cast.issued.update_path,
    "offer path": lambda cast: cast.offer.paths[0],
}

CONTENTS: dict[str, Callable[[Cast], tuple[int, bytes]]] = {
    "offer_paths_request": lambda _: messages.encode(OfferPathsRequest(0), Family.LDK),
    "offer_paths_request of the bLIP": lambda _: messages.encode(OfferPathsRequest(0), Family.BLIP66),
    "serve_static_invoice": lambda cast: cast.served(),
    "invoice_request": lambda cast: (64, make_invoice_request(cast.offer)),
    "offer_paths": lambda cast: messages.encode(OfferPaths((cast.offer.paths[0],), None), Family.LDK),
    "static_invoice_persisted": lambda _: messages.encode(StaticInvoicePersisted(), Family.BLIP66),
    "invoice": lambda _: (66, b""),
    "invoice_error": lambda _: (68, b""),
    "static_invoice": lambda cast: (70, cast.invoice),
    "held_htlc_available": lambda _: (72, b""),
    "an odd type": lambda _: (65, b"?"),
    "the highest type": lambda _: (2**64 - 1, b"?"),
}

RIGHT = {
    ("request path", "offer_paths_request"),
    ("request path", "offer_paths_request of the bLIP"),
    ("update path", "serve_static_invoice"),
    ("offer path", "invoice_request"),
}
SERVED = {"offer_paths_request", "offer_paths_request of the bLIP", "serve_static_invoice", "invoice_request"}
NOT_FOR_SERVERS = {"offer_paths", "static_invoice_persisted"}


@pytest.mark.parametrize(
    ("path", "content"),
    [(path, content) for path in PATHS for content in CONTENTS if (path, content) not in RIGHT],
)
async def test_content_over_a_path_that_is_not_for_it_is_dropped(path: str, content: str) -> None:
    """A path's context says which message it is for; wrong kind: silence (design, section 3)."""
    async with World() as world:
        cast = await Cast(world).set_up()
        reason = "wrong-context" if content in SERVED | NOT_FOR_SERVERS else "content-not-served"
        await cast.assert_dropped(reason, PATHS[path](cast), CONTENTS[content](cast))


@pytest.mark.parametrize(("path", "content"), sorted(RIGHT))
async def test_message_without_reply_path_is_dropped(path: str, content: str) -> None:
    """Each of the three "MUST set `reply_path`" (bLIP 66, "Senders of …"; BOLT 12 for requests)."""
    async with World() as world:
        cast = await Cast(world).set_up()
        await cast.assert_dropped("no-reply-path", PATHS[path](cast), CONTENTS[content](cast), reply=False)


# --- malformed bLIP 66 messages -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "content"),
    [
        pytest.param(65540, b"", id="no slot"),
        pytest.param(65540, b"\x00\x01\x00", id="slot of one byte"),
        pytest.param(65540, b"\x00\x03\x00\x00\x00", id="slot of three bytes"),
        pytest.param(65540, b"\x00\x02\x00", id="truncated"),
        pytest.param(65540, b"\x00\x02\x00\x00\x00", id="trailing"),
        pytest.param(65540, b"\x00\x02\x00\x00\x00\x02\x00\x00", id="duplicate"),
        pytest.param(65540, b"\x00\x02\x00\x00\x04\x00", id="unknown even type"),
        pytest.param(65540, b"\x01\x00\x00\x02\x00\x00", id="out of order"),
        pytest.param(65540, b"\x04\x00\x02\x00\x00", id="LDK's framing under the bLIP's number"),
        pytest.param(75540, b"", id="LDK: no length"),
        pytest.param(75540, b"\x00\x02\x00\x00", id="the bLIP's framing under LDK's number"),
        pytest.param(75540, b"\x03\x00\x02\x00\x00", id="LDK: length too small"),
        pytest.param(75540, b"\x05\x00\x02\x00\x00", id="LDK: length too large"),
        pytest.param(75540, b"\xfd\x00\x04\x00\x02\x00\x00", id="LDK: length not minimal"),
        pytest.param(75540, b"\x00", id="LDK: no slot"),
    ],
)
async def test_offer_paths_request_that_breaks_its_form_is_dropped(number: int, content: bytes) -> None:
    """bLIP 66 `offer_paths_request_tlvs`, BOLT 1's TLV streams, LDK's inner length (design, section 4)."""
    async with World() as world:
        cast = await Cast(world).set_up()
        await cast.assert_dropped("bad-message", cast.alice.request_path, (number, content))


@pytest.mark.parametrize("odd", [b"\x01\x00", b"\x03\x01\xff"])
async def test_offer_paths_request_with_an_unknown_odd_type_is_answered(odd: bytes) -> None:
    """An unknown odd type may be ignored (BOLT 1, "it's OK to be odd"): a later version may say more."""
    async with World() as world:
        wallet = await world.wallet(family=Family.BLIP66)
        reply_path = wallet.path_to_self(b"slot\0")
        await wallet.send_along(wallet.request_path, 65540, b"\x00\x02\x00\x00" + odd, reply_path)
        assert (await wallet.receive_offer_paths()).slot == 0


def wrongly_signed(message: bytes) -> bytes:
    """The same with another signature, which is what it ends with."""
    return message[:-1] + bytes([message[-1] ^ 1])


def serve_records(cast: Cast) -> dict[int, bytes]:
    """A good serve_static_invoice's records."""
    return {0: cast.invoice, 2: paths.encode_path(cast.alice.forward_path)}


SERVES: dict[str, tuple[Callable[[Cast], dict[int, bytes]], str]] = {
    "nothing": (lambda _: {}, "bad-message"),
    "no invoice": (lambda cast: {2: serve_records(cast)[2]}, "bad-message"),
    "no forward path": (lambda cast: {0: cast.invoice}, "no-forward-path"),
    "unknown even type": (lambda cast: serve_records(cast) | {4: b""}, "bad-message"),
    "forward path of nothing": (lambda cast: serve_records(cast) | {2: b""}, "bad-path"),
    "forward path of 0 hops": (
        lambda cast: {0: cast.invoice, 2: serve_records(cast)[2][:66] + b"\0"},
        "bad-path",
    ),
    "forward path truncated": (lambda cast: {0: cast.invoice, 2: serve_records(cast)[2][:-1]}, "bad-path"),
    "forward path trailing": (lambda cast: {0: cast.invoice, 2: serve_records(cast)[2] + b"\0"}, "bad-path"),
    "forward path of 255 hops": (
        lambda cast: {0: cast.invoice, 2: paths.encode_path(cast.alice.path_to_self(b"", dummy_hops=253))},
        "bad-path",
    ),
    "two forward paths": (lambda cast: {0: cast.invoice, 2: serve_records(cast)[2] * 2}, "bad-path"),
    "forward path from no point": (
        lambda cast: {0: cast.invoice, 2: b"\x02" + b"\xff" * 32 + serve_records(cast)[2][33:]},
        "bad-point",
    ),
    "forward path with LND's data altered": (
        lambda cast: {0: cast.invoice, 2: serve_records(cast)[2][:110] + b"?" + serve_records(cast)[2][111:]},
        "bad-recipient-data",
    ),
    "invoice of nothing": (lambda cast: serve_records(cast) | {0: b""}, "bad-static-invoice"),
    "invoice truncated": (lambda cast: serve_records(cast) | {0: cast.invoice[:-1]}, "bad-static-invoice"),
    "invoice with a wrong signature": (
        lambda cast: serve_records(cast) | {0: wrongly_signed(cast.invoice)},
        "bad-signature",
    ),
    "invoice too large": (lambda cast: serve_records(cast) | {0: bytes(5_121)}, "invoice-too-large"),
}


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("case", SERVES)
async def test_serve_static_invoice_that_breaks_a_rule_is_dropped_and_nothing_stored(
    case: str, family: Family
) -> None:
    """bLIP 66 "Senders of `serve_static_invoice`" and BOLT 12: silence, counted, nothing stored (issue)."""
    async with World() as world:
        cast = await Cast(world).set_up()
        make, reason = SERVES[case]
        stream = encode_tlvs(make(cast))
        number = 65544 if family is Family.BLIP66 else 75544
        length = b"" if family is Family.BLIP66 else _bigsize(len(stream))
        await cast.assert_dropped(reason, cast.issued.update_path, (number, length + stream))


def _bigsize(length: int) -> bytes:
    return bytes([length]) if length < 0xFD else b"\xfd" + length.to_bytes(2, "big")


REQUESTS: dict[str, tuple[Callable[[Cast], bytes], str]] = {
    "nothing": (lambda _: b"", "bad-invoice-request"),
    "truncated": (lambda cast: make_invoice_request(cast.offer)[:-1], "bad-invoice-request"),
    "trailing": (lambda cast: make_invoice_request(cast.offer) + b"\0", "bad-invoice-request"),
    "unknown even type": (
        lambda cast: make_invoice_request(cast.offer, extra={92: b""}),
        "bad-invoice-request",
    ),
    "wrong signature": (lambda cast: wrongly_signed(make_invoice_request(cast.offer)), "bad-signature"),
    "another offer of the same paths": (
        lambda cast: make_invoice_request(
            offers.read_offer_fields({**cast.offer.records, offers.OFFER_ISSUER: b"mallory"})
        ),
        "wrong-offer",
    ),
    "another client's offer": (
        lambda cast: make_invoice_request(offers.read_offer_fields(cast.bob.make_offer(cast.bobs))),
        "wrong-offer",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
async def test_invoice_request_that_breaks_a_rule_is_dropped(case: str) -> None:
    """BOLT 12 "Invoice Requests", requirements for readers; its offer is the stored invoice's."""
    async with World() as world:
        cast = await Cast(world).set_up()
        make, reason = REQUESTS[case]
        await cast.assert_dropped(reason, cast.offer.paths[0], (64, make(cast)))


# --- offer paths that were not issued for this ----------------------------------------------------


def elsewhere(node: Node) -> BlindedPath:
    """A path that leads to a node, not to us."""
    return node.path_to_self(b"not the sidecar")


def to_us(cast: Cast, last: bytes, first: bytes | None = None) -> BlindedPath:
    """A path to us as a stranger could build it who knew our key; given the hops' plain data."""
    us = cast.world.keys.node_id
    hops = [(cast.world.lnd_node_id, paths.next_hop_data(us) if first is None else first), (us, last)]
    return paths.build(os.urandom(32), hops)


def changed_hop(path: BlindedPath, index: int, **changes: bytes) -> BlindedPath:
    """The path with one of its hops changed."""
    hops = list(path.hops)
    hops[index] = replace(hops[index], **changes)
    return replace(path, hops=tuple(hops))


OTHER: dict[str, Callable[[Cast], list[BlindedPath]]] = {
    "another client's": lambda cast: [cast.bobs.message.paths[0]],
    "another slot's": lambda cast: [cast.other_slot.message.paths[0]],
    "the update path": lambda cast: [cast.issued.update_path],
    "the request path": lambda cast: [cast.alice.request_path],
    "one that leads elsewhere": lambda cast: [elsewhere(cast.payer)],
    "one that does not start at LND": lambda cast: [behind(cast.payer.node_id, cast.offer.paths[0])],
    "one from another node": lambda cast: [
        replace(cast.offer.paths[0], introduction_node=cast.payer.node_id)
    ],
    "one from a channel": lambda cast: [
        replace(cast.offer.paths[0], introduction_node=SciddirIntroduction(0, 7))
    ],
    "one of their own making": lambda cast: [to_us(cast, paths.path_id_data(os.urandom(48)))],
    "one of their own making without path_id": lambda cast: [to_us(cast, b"")],
    "one of their own making whose first hop is the last": lambda cast: [
        to_us(cast, b"", first=paths.path_id_data(b"LND's own"))
    ],
    "one that ends at LND": lambda cast: [replace(cast.offer.paths[0], hops=cast.offer.paths[0].hops[:1])],
    "the issued one and another client's": lambda cast: [*cast.offer.paths, cast.bobs.message.paths[0]],
    "the issued one and one elsewhere": lambda cast: [*cast.offer.paths, elsewhere(cast.payer)],
    "LND's data altered": lambda cast: [
        changed_hop(cast.offer.paths[0], 0, encrypted_recipient_data=bytes(50))
    ],
    "our data altered": lambda cast: [
        changed_hop(cast.offer.paths[0], 1, encrypted_recipient_data=bytes(66))
    ],
    "LND's blinded key replaced": lambda cast: [
        changed_hop(cast.offer.paths[0], 0, blinded_node_id=cast.payer.node_id)
    ],
    "our blinded key replaced": lambda cast: [
        changed_hop(cast.offer.paths[0], 1, blinded_node_id=cast.payer.node_id)
    ],
    "another path_key": lambda cast: [replace(cast.offer.paths[0], path_key=cast.payer.node_id)],
    "one hop more": lambda cast: [
        replace(
            cast.offer.paths[0],
            hops=(*cast.offer.paths[0].hops, BlindedHop(cast.payer.node_id, os.urandom(40))),
        )
    ],
}


@pytest.mark.parametrize("case", OTHER)
async def test_invoice_whose_offer_has_other_paths_than_those_issued_is_dropped(case: str) -> None:
    """Senders "MUST use blinded paths from the preceding `offer_paths` message" (bLIP 66): all are walked."""
    async with World() as world:
        cast = await Cast(world).set_up()
        encoded = b"".join(paths.encode_path(path) for path in OTHER[case](cast))
        records = cast.alice.make_offer(cast.issued) | {offers.OFFER_PATHS: encoded}
        invoice = cast.alice.make_invoice(records)
        await cast.assert_dropped("wrong-offer-paths", cast.issued.update_path, cast.served(invoice))


async def test_invoice_whose_offer_has_the_paths_of_an_older_issue_is_dropped() -> None:
    """Within a slot each offer_paths has a tag of its own, and its own paths (design, offer tag)."""
    async with World() as world:
        cast = await Cast(world).set_up()
        world.clock.pass_seconds(1)
        await cast.alice.ask_offer_paths(0)
        newer = await cast.alice.receive_offer_paths()
        await cast.assert_dropped("wrong-offer-paths", newer.update_path, cast.served())


async def test_invoice_over_a_path_that_has_expired_is_dropped() -> None:
    """A path_id of another time: past its expiry our own context is not believed (issue, "Bad input")."""
    async with World() as world:
        wallet = await world.wallet()
        offer, issued, _ = await world.offer(wallet)
        world.clock.pass_seconds(365 * DAY)
        late = wallet.make_invoice(dict(offer.records), created_at=world.clock.ms // 1000)
        await wallet.leave_invoice(issued, late)
        await world.assert_silence(wallet)
        assert world.counters["dropped.context-expired"] == 1


async def test_invoice_for_another_chain_is_dropped() -> None:
    """A static invoice is for this node's chain alone (issue)."""
    async with World() as world:
        cast = await Cast(world).set_up()
        records = cast.alice.make_offer(cast.issued) | {offers.OFFER_CHAINS: bolt12.CHAINS["signet"]}
        invoice = cast.alice.make_invoice(records)
        await cast.assert_dropped("wrong-chain", cast.issued.update_path, cast.served(invoice))
