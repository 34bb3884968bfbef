"""Clients of every standing, every path that we may have issued to them, and every message over it."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from sidecar.core import context as contexts
from sidecar.core import messages, offers, paths
from sidecar.core.context import Context, Kind, OfferContext, RequestContext
from sidecar.core.limits import Rate, Recent, TokenBuckets
from sidecar.core.messages import (
    FinalPayload,
    OfferPaths,
    OfferPathsRequest,
    ServeStaticInvoice,
    StaticInvoicePersisted,
)
from sidecar.core.model import TAG_NONCE_SIZE, Client, Family, OfferTag
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from tests.harness.fakes import DAY
from tests.harness.payer import make_invoice_request
from tests.harness.wallet import Issued, Wallet
from tests.harness.world import NO_LIMITS, World

SLOTS = 2
"""Of each client; there is an invoice in both."""

SLOT = 1
"""The one that all paths of offers are for: not the first, which may be taken for any."""

OTHER = "other"
"""The client whose things are never those of the others."""

UNLIMITED = Rate(per_second=1e12, burst=1e12)
WITHOUT_LIMITS = replace(
    NO_LIMITS,
    client=replace(NO_LIMITS.client, requests_per_second=1e12, requests_burst=10**12),
    offer=UNLIMITED,
)
"""Of a World in which every cell is tried: what a limit refuses would pass for silence."""


class Standing(Enum):
    """What became of a client once its invoices were there."""

    SERVED = "served"
    PAUSED = "paused"
    REVOKED = "revoked"
    REMOVED = "removed"


class Age(Enum):
    """Of an offer's tag, beside the one of which there is an invoice."""

    OLDER = 1
    SAME = 2
    NEWER = 3


@dataclass(frozen=True, slots=True)
class Deal:
    """One issue of offer paths to a client, and all that its wallet and a payer could make of it."""

    context: OfferContext
    """Of its offer path."""
    age: Age
    expired: bool
    update_path: BlindedPath
    offer: Offer
    invoice: bytes
    request: bytes

    @property
    def issued(self) -> OfferPaths:
        """As it was answered."""
        return OfferPaths(self.offer.paths, self.context.expires_at)


@dataclass(frozen=True, slots=True)
class Route:
    """One path to us. `believed` is false where another server's key sealed it.

    `generations`: how many the client's request paths were rotated since, or before.
    """

    standing: Standing
    context: Context
    path: BlindedPath
    deal: Deal | None = None
    generations: int = 0
    believed: bool = True

    def __str__(self) -> str:
        """Enough to find it among the others."""
        kind = self.context.kind.name if isinstance(self.context, OfferContext) else "OFFER_PATHS_REQUEST"
        age = "" if self.deal is None else f" {self.deal.age.name}{' expired' if self.deal.expired else ''}"
        forged = "" if self.believed else " forged"
        return f"{kind} of {self.standing.value}{age} {self.generations:+d}{forged}"


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent; and what it asks for, where it is a message that we serve and whole."""

    name: str
    type_: int
    content: bytes
    deal: Deal | None = None
    slot: int | None = None
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a message led to: (sender, answer) of all that anybody got, and what is new in the store."""

    told: list[tuple[bytes, FinalPayload]]
    stored: list[bytes]


class Crossing:
    """A client of each standing, and one beside them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: dict[str, Client] = {}
        self.wallets: dict[str, Wallet] = {}
        self.deals: dict[tuple[str, int, Age, bool], Deal] = {}
        self.sender = world.payer()

    async def set_up(self) -> Crossing:
        """Each client leaves its invoices, and only then becomes what it is to be."""
        for name in [*(standing.value for standing in Standing), OTHER]:
            await self._client(name)
        store = self.world.store
        await self.world.pause(Standing.PAUSED.value)
        await store.revoke_client(self.clients[Standing.REVOKED.value].client_id)
        await store.remove_client(self.clients[Standing.REMOVED.value].client_id)
        for record in store._records.values():
            for slot, kept in record.invoices.items():
                # So that the very same invoice, left again, differs from what was there.
                record.invoices[slot] = replace(kept, stored_at=kept.stored_at - 1)
        self._kept = copy.deepcopy(store._records)
        # What is asked again and again, and by one peer, is another promise's.
        self.world.service._answered = Recent(0)
        self.world.service._peers = TokenBuckets(UNLIMITED)
        return self

    async def _client(self, name: str) -> None:
        wallet = self.wallets[name] = await self.world.wallet(name, slots=SLOTS)
        # Not through LND, so that nobody is bound to its node: what is forwarded goes out at once.
        wallet.forward_path = wallet.path_to_self(b"forwarded invoice_request", through_lnd=False)
        client = await self.world.store.find_client(name)
        self.clients[name] = client = await self.world.store.rotate_client(client.client_id)
        for slot, age, expired in itertools.product(range(SLOTS), Age, (False, True)):
            self.deals[name, slot, age, expired] = self._deal(wallet, client, slot, age, expired=expired)
        for slot in range(SLOTS):
            deal = self.deals[name, slot, Age.SAME, False]
            await wallet.leave_invoice(Issued(slot, deal.issued, deal.update_path), deal.invoice)
            await wallet.receive_persisted()

    def _deal(self, wallet: Wallet, client: Client, slot: int, age: Age, *, expired: bool) -> Deal:
        now = self.world.clock.ms // 1000
        # An expired path and a good one differ in nothing but their end.
        tag = OfferTag(self.world.clock.ms - 60_000 + age.value, bytes([age.value]) * TAG_NONCE_SIZE)
        expires_at = now - 1 if expired else now + 300 * DAY
        context = OfferContext(Kind.INVOICE_REQUEST, client.client_id, slot, tag, expires_at)
        path, update_path = self._path(context), self._path(replace(context, kind=Kind.SERVE_STATIC_INVOICE))
        # The offer has no end of its own, so that the path's is what is looked at.
        records = wallet.make_offer(Issued(slot, OfferPaths((path,), None), update_path))
        offer, invoice = offers.read_offer_fields(records), wallet.make_invoice(records, created_at=now)
        return Deal(context, age, expired, update_path, offer, invoice, make_invoice_request(offer))

    def _path(self, context: Context) -> BlindedPath:
        return self.world.server._own_path(context, os.urandom)

    def _forged(self, context: Context) -> BlindedPath:
        """The same context, sealed by another server."""
        us, lnd = self.world.keys.node_id, self.world.lnd_node_id
        data = paths.path_id_data(contexts.seal(os.urandom(32), context))
        return paths.build(os.urandom(32), [(lnd, paths.next_hop_data(us)), (us, data)])

    # --- the cells --------------------------------------------------------------------------------

    def routes(self) -> Iterator[Route]:
        """Every path that a client of each standing may have for its SLOT, and forged ones."""
        for standing in Standing:
            client = self.clients[standing.value]
            for by in (-1, 0, 1):
                asked = RequestContext(client.client_id, client.generation + by)
                yield Route(standing, asked, self._path(asked), generations=by)
            asked = RequestContext(client.client_id, client.generation)
            yield Route(standing, asked, self._forged(asked), believed=False)
            for age, expired in itertools.product(Age, (False, True)):
                deal = self.deals[standing.value, SLOT, age, expired]
                update = replace(deal.context, kind=Kind.SERVE_STATIC_INVOICE)
                yield Route(standing, deal.context, deal.offer.paths[0], deal)
                yield Route(standing, update, deal.update_path, deal)
            deal = self.deals[standing.value, SLOT, Age.SAME, False]
            for context in (deal.context, replace(deal.context, kind=Kind.SERVE_STATIC_INVOICE)):
                yield Route(standing, context, self._forged(context), deal, believed=False)

    def contents(self, standing: Standing) -> Iterator[Content]:
        """Every message: about the client's own offers and another's, of either slot, tag and end."""
        for family, slot in itertools.product(Family, (0, 1, SLOTS, 65_535)):
            asked = messages.encode(OfferPathsRequest(slot), family)
            yield Content(f"offer_paths_request {family.value} {slot}", *asked, slot=slot, family=family)
        for name in (standing.value, OTHER):
            for slot, age, expired in itertools.product(range(SLOTS), Age, (False, True)):
                deal = self.deals[name, slot, age, expired]
                about = f"of {name} {slot} {age.name}{' expired' if expired else ''}"
                yield Content(f"invoice_request {about}", messages.INVOICE_REQUEST, deal.request, deal)
                for family in Family:
                    served = messages.encode(self._served(name, deal), family)
                    yield Content(
                        f"serve_static_invoice {family.value} {about}", *served, deal, family=family
                    )
        yield from self._never_served(standing.value)

    def _served(self, name: str, deal: Deal) -> ServeStaticInvoice:
        return ServeStaticInvoice(deal.invoice, self.wallets[name].forward_path)

    def _never_served(self, name: str) -> Iterator[Content]:
        deal = self.deals[name, SLOT, Age.SAME, False]
        for type_ in (65, 66, 68, 71, 72, 74, 65538, 65541, 65548, 75538, 75548, 2**64 - 2, 2**64 - 1):
            yield Content(f"type {type_}", type_, deal.request)
        yield Content("static_invoice", messages.STATIC_INVOICE, deal.invoice)
        yield Content("invoice_request, cut short", messages.INVOICE_REQUEST, deal.request[:-1])
        for family in Family:
            for message in (deal.issued, StaticInvoicePersisted()):
                yield Content(f"{type(message).__name__} {family.value}", *messages.encode(message, family))
            other = Family.LDK if family is Family.BLIP66 else Family.BLIP66
            for whole in (OfferPathsRequest(0), self._served(name, deal)):
                kind, (type_, content) = type(whole).__name__, messages.encode(whole, family)
                yield Content(f"{kind} {family.value}, cut short", type_, content[:-1])
                yield Content(
                    f"{kind} {family.value} as {other.value}", messages.encode(whole, other)[0], content
                )

    # --- what comes of one ------------------------------------------------------------------------

    async def send(self, route: Route, content: Content, *, reply: bool) -> Outcome:
        """One message, and all that it led to; what is kept is then as it was before."""
        saves = self.world.store.calls["save"]
        reply_path = self.sender.path_to_self(b"answer") if reply else None
        await self.sender.send_along(route.path, content.type_, content.content, reply_path)
        await self.world.settled()
        told = [
            (node.node_id, node.open(*message).payload)
            for node in (self.sender, *self.wallets.values())
            for message in _unread(self.world, node.node_id)
        ]
        return Outcome(told, [] if self.world.store.calls["save"] == saves else self._new_invoices())

    def _new_invoices(self) -> list[bytes]:
        """What the store has now and had not before; it is put back."""
        store = self.world.store
        found = [
            kept.invoice
            for client_id, record in store._records.items()
            for slot, kept in record.invoices.items()
            if kept != self._kept[client_id].invoices.get(slot)
        ]
        store._records = copy.deepcopy(self._kept)
        return found


def _unread(world: World, node_id: bytes) -> Iterator[tuple[bytes, bytes]]:
    inbox = world.network._links[node_id].inbox
    while not inbox.empty():
        message = inbox.get_nowait()
        assert message is not None
        yield message
