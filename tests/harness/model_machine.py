"""Clients, wallets, payers and an operator at random, on a whole sidecar and on a model of it at once.

A machine for hypothesis. A subclass says in which store the sidecar keeps its records.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from sidecar.core import messages, offers, paths
from sidecar.core.context import Kind, OfferContext
from sidecar.core.errors import NameTaken, NodeTaken, OperatorError
from sidecar.core.messages import (
    OfferPaths,
    OfferPathsRequest,
    ServeStaticInvoice,
)
from sidecar.core.model import CLIENT_ID_SIZE, BoundBy, Client, ClientState, Family, OfferTag, Quota
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from tests.core.server_cases import open_own_path
from tests.harness.fakes import DAY
from tests.harness.model import Issue, Known, Left
from tests.harness.model_scene import HOUR, MINUTE, NAMES, TTL, Scene
from tests.harness.payer import make_invoice_request
from tests.harness.wallet import Issued, Wallet

SOON = 2
"""Seconds in which an invoice ends by the store's clock: enough to leave it on a busy machine."""

names = st.sampled_from(NAMES)


class Paths:
    """A request path, and whose it is."""

    def __init__(self, client: Client, path: BlindedPath) -> None:
        self.client_id, self.generation, self.path = client.client_id, client.generation, path


class Deal:
    """What was issued to a wallet, and the offer that it made of it."""

    def __init__(self, issue: Issue, wallet: Wallet, issued: Issued) -> None:
        self.issue, self.wallet, self.issued = issue, wallet, issued
        self.offer: Offer = offers.read_offer_fields(wallet.make_offer(issued))


class Machine(Scene):
    """Whatever is done to one is done to the other, and both must agree on all that can be seen."""

    request_paths: Bundle[Paths] = Bundle("request_paths")
    deals: Bundle[Deal] = Bundle("deals")

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Deal] = []

    @initialize(target=deals, native=st.booleans())
    def begin(self, native: bool) -> MultipleResults[Deal]:
        """An LND of either kind; and each wallet has an offer, so that what follows meets something."""
        self.runner.run(self._begin(native=native))
        for name in NAMES:
            self.add(name, None, None, None)
            self.offer(name, 0, through_lnd=True)
        return multiple(*self.made)

    # --- what is said -------------------------------------------------------------------------------

    @rule(target=deals, via=request_paths, slot=st.integers(0, 2), name=names, family=st.sampled_from(Family))
    def ask_paths(self, via: Paths, slot: int, name: str, family: Family) -> Deal | MultipleResults[Deal]:
        """A wallet asks for paths over any request path there ever was, and makes an offer of them."""
        return self._deal(via, slot, self._awake(name), family) or multiple()

    @rule(target=deals, name=names, slot=st.integers(0, 1), through_lnd=st.booleans())
    def offer(self, name: str, slot: int, through_lnd: bool) -> Deal | MultipleResults[Deal]:
        """All that a wallet does for an offer, over its client's present path; and a payer asks at once."""
        known, wallet = self._served(name), self._awake(name)
        client = self.runner.run(self.world.kept.find_client(known.name))
        if (deal := self._deal(self._paths(client), slot, wallet, wallet.family)) is None:
            return multiple()
        self._leave(deal, self.model.now, 20 * DAY + 12 * HOUR, through_lnd=through_lnd)
        self.ask(deal)
        return deal

    def _deal(self, via: Paths, slot: int, wallet: Wallet, family: Family) -> Deal | None:
        """What a wallet makes of what it gets; None for silence."""
        wallet.family, node = family, wallet.node_id
        issued_at = self.model.asks_paths(via.client_id, via.generation, slot, via.path.path_key, node)
        told = self._say(wallet, via.path, messages.encode(OfferPathsRequest(slot), family))
        assert told == ([] if issued_at is None else [(node, "offer_paths", b"")])
        if issued_at is None:
            return None
        message, spoken = messages.decode(*self.answer)
        assert isinstance(message, OfferPaths)
        assert spoken is family
        assert self.reply_path is not None
        offer, update = (open_own_path(path) for path in (*message.paths, self.reply_path))
        assert isinstance(offer, OfferContext)
        expires_at = self.model.now + 365 * DAY
        assert offer == OfferContext(
            Kind.INVOICE_REQUEST, via.client_id, slot, OfferTag(issued_at, offer.tag.nonce), expires_at
        )
        assert update == replace(offer, kind=Kind.SERVE_STATIC_INVOICE)
        path_keys = (message.paths[0].path_key, self.reply_path.path_key)
        issue = Issue(via.client_id, slot, offer.tag, expires_at, path_keys)
        self.made.append(deal := Deal(issue, wallet, Issued(slot, message, self.reply_path)))
        return deal

    @rule(
        deal=deals,
        age=st.sampled_from((-HOUR, 0, 0, 0, HOUR)),
        days=st.sampled_from((1, 20, 150)),
        through_lnd=st.booleans(),
    )
    def leave(self, deal: Deal, age: int, days: int, through_lnd: bool) -> None:
        """A wallet leaves an invoice for any offer of its own; its clock may be off by an hour."""
        self._leave(deal, self.model.now - age, days * DAY + 12 * HOUR, through_lnd=through_lnd)

    def _leave(self, deal: Deal, created_at: int, lasts: int, *, through_lnd: bool) -> None:
        wallet = deal.wallet
        if wallet.node_id not in self.model.online:
            self._connect(wallet)
        forward = wallet.path_to_self(b"forwarded", through_lnd=through_lnd)
        invoice = wallet.make_invoice(dict(deal.offer.records), created_at, lasts)
        ends = min(created_at + lasts, deal.issue.expires_at)
        hop = forward.hops[0] if through_lnd else None
        beyond = len(paths.encode_path(forward)) - (35 + len(hop.encrypted_recipient_data) if hop else 0)
        left = Left(
            deal.issue,
            invoice,
            len(invoice) + beyond,
            created_at,
            created_at + lasts,
            wallet.node_id,
            kept_until=min(ends, self.model.now + TTL),
        )
        expected = self.model.leaves(left, through_lnd=through_lnd)
        content = messages.encode(ServeStaticInvoice(invoice, forward), wallet.family)
        told = self._say(wallet, deal.issued.update_path, content)
        assert told == ([(wallet.node_id, "static_invoice_persisted", b"")] if expected else [])

    @rule(deal=deals)
    def ask(self, deal: Deal) -> None:
        """A payer asks for any offer there ever was."""
        request = make_invoice_request(deal.offer)
        expected = self.model.asks(deal.issue, request, self.payer.node_id)
        content = (messages.INVOICE_REQUEST, request)
        assert Counter(self._say(self.payer, deal.offer.paths[0], content)) == Counter(expected)

    @rule(seconds=st.sampled_from((0, DAY, 40 * DAY, 200 * DAY)))
    def ask_for_all(self, seconds: int) -> None:
        """A payer asks for every offer that there ever was, now or later."""
        self._set_clock(seconds)
        for deal in self.made:
            self.ask(deal)

    # --- what the wallets' connections do, and the clocks -------------------------------------------

    def _awake(self, name: str) -> Wallet:
        wallet = self.wallets[name]
        if wallet.node_id not in self.model.online:
            self._connect(wallet)
        return wallet

    def _connect(self, wallet: Wallet) -> None:
        # What a node was handed before it is handed again ten seconds later at the earliest.
        self._set_clock(MINUTE)
        expected = self.model.connects(wallet.node_id)
        wallet.link = self.world.network.connect(wallet.node_id)
        assert Counter(self._settled()) == Counter(expected)

    @rule(name=names)
    def reconnect(self, name: str) -> None:
        """A wallet connects; anew, where it is connected."""
        self._connect(self.wallets[name])

    @rule(name=names)
    def disconnect(self, name: str) -> None:
        """A wallet goes to sleep."""
        node = self.wallets[name].node_id
        self.model.online.pop(node, None)
        self.world.network.disconnect(node)
        assert self._settled() == []

    @rule(seconds=st.sampled_from((MINUTE, DAY, 40 * DAY, 200 * DAY, -5 * DAY)))
    def set_clock(self, seconds: int) -> None:
        """Time passes for the sidecar; or its clock is set back."""
        if self.model.now_ms + seconds * 1000 >= self.earliest:
            self._set_clock(seconds)

    @precondition(lambda self: self.model.now < self.store_now())
    @rule(deal=deals)
    def outlive(self, deal: Deal) -> None:
        """An invoice ends by the store's clock, and is gone whatever the sidecar's clock says."""
        if self.may_wait():
            ends = int(self.store_now()) + SOON
            self._leave(deal, self.model.now, ends - self.model.now, through_lnd=True)
            self.runner.run(self.pass_store_time(SOON + 1))

    def may_wait(self) -> bool:
        """Whether there is time for that."""
        return True

    # --- what the operator does ---------------------------------------------------------------------

    @rule(
        target=request_paths,
        name=names,
        slots=st.sampled_from((None, 1, 3)),
        size=st.sampled_from((None, 1_200, 9_000)),
        node=st.sampled_from((None, None, *NAMES)),
    )
    def add(
        self, name: str, slots: int | None, size: int | None, node: str | None
    ) -> Paths | MultipleResults[Paths]:
        """A client is let in, under a name and with a node that nobody else has."""
        node_id = None if node is None else self.wallets[node].node_id
        client = Client(
            client_id=os.urandom(CLIENT_ID_SIZE),
            name=name,
            state=ClientState.ACTIVE,
            generation=1,
            quota=Quota(slots=slots, bytes=size),
            created_at=self.model.now,
            node_id=node_id,
            bound_by=None if node_id is None else BoundBy.OPERATOR,
        )
        expected: type[OperatorError] | None = None
        if self.model.named(name) is not None:
            expected = NameTaken
        elif self.model.holder(node_id) is not None:
            expected = NodeTaken
        if not self._does(self._add(client), expected):
            return multiple()
        self.model.clients[client.client_id] = Known(client.client_id, name, slots, size, node=node_id)
        return self._paths(client)

    async def _add(self, client: Client) -> None:
        await self.world.kept.add_client(client)
        self.world.clients.add(client)

    def _paths(self, client: Client) -> Paths:
        return Paths(client, self.world.server.request_path(client, os.urandom))

    def _client(self, name: str) -> Known:
        found = self.model.named(name)
        assume(found is not None)
        assert found is not None
        return found

    def _served(self, name: str) -> Known:
        found = self._client(name)
        assume(found.state is not ClientState.REVOKED)
        return found

    @rule(target=request_paths, name=names)
    def rotate(self, name: str) -> Paths:
        """The client's older request paths are silent from now on."""
        known = self._served(name)
        known.generation += 1
        return self._paths(self.runner.run(self.world.kept.rotate_client(known.client_id)))

    @rule(name=names, paused=st.booleans())
    def pause(self, name: str, paused: bool) -> None:
        """A client is served no more for now, or again."""
        known = self._served(name)
        self._set_clock(MINUTE)
        expected = self.model.pauses(known, paused=paused)
        self.runner.run(self.world.pause(name, paused=paused))
        assert Counter(self._settled()) == Counter(expected)

    @rule(name=names)
    def revoke(self, name: str) -> None:
        """A client is served no more."""
        known = self._client(name)
        self.model.revokes(known)
        self.runner.run(self.world.kept.revoke_client(known.client_id))
        self.world.clients.forget(known.client_id)

    @rule(name=names)
    def remove(self, name: str) -> None:
        """A client is forgotten, and its name is free."""
        known = self._client(name)
        del self.model.clients[known.client_id]
        self.runner.run(self.world.kept.remove_client(known.client_id))
        self.world.clients.forget(known.client_id)

    @rule(target=deals, name=names, slot=st.integers(0, 1))
    def add_again(self, name: str, slot: int) -> Deal | MultipleResults[Deal]:
        """A client is made anew, as operators do to start afresh; its wallet goes on."""
        self.remove(name)
        self.add(name, None, None, None)
        return self.offer(name, slot, through_lnd=True)

    @rule(name=names, slots=st.sampled_from((None, 1, 3)), size=st.sampled_from((None, 1_200, 9_000)))
    def change_limits(self, name: str, slots: int | None, size: int | None) -> None:
        """A client has other limits; what it has beyond them stays."""
        known = self._served(name)
        known.slots, known.size = slots, size
        reset = [limit for limit, value in (("slots", slots), ("bytes", size)) if value is None]
        quota = Quota(slots=slots, bytes=size)
        self.world.clients.changed(
            self.runner.run(self.world.kept.update_quota(known.client_id, quota, reset))
        )

    @rule(name=names, node=st.sampled_from((None, *NAMES)))
    def bind(self, name: str, node: str | None) -> None:
        """The operator says which node a client is."""
        known = self._served(name)
        node_id = None if node is None else self.wallets[node].node_id
        taken = self.model.holder(node_id) not in (None, known)
        change = self.world.clients.bind(known.client_id, node_id, BoundBy.OPERATOR)
        if self._does(change, NodeTaken if taken else None):
            known.node = node_id

    def _does(self, change: Coroutine[None, None, object], expected: type[OperatorError] | None) -> bool:
        """Whether the operator's change was made; it is, or is refused, as expected."""
        if expected is None:
            self.runner.run(change)
            return True
        with pytest.raises(expected):
            self.runner.run(change)
        return False

    @invariant()
    def what_is_kept_is_what_should_be(self) -> None:
        """Clients, limits, use, invoices, letters, and whose each node is: to the last of them."""
        if hasattr(self, "model"):
            self.runner.run(self._compare())
            self.compared()
