"""A whole sidecar and a model of it beside each other: what happens to both, and how they are compared."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from hypothesis.stateful import RuleBasedStateMachine

from sidecar.adapters.redis_store import RedisStore
from sidecar.core import keys, messages, paths
from sidecar.core.messages import FinalPayload, OfferPaths, StaticInvoicePersisted
from sidecar.core.model import Client, Family, Quota, Usage
from sidecar.core.paths import BlindedPath
from tests.harness.fakes import DAY
from tests.harness.memory_store import MemoryStore
from tests.harness.model import Inbox, Known, Model
from tests.harness.node import Node
from tests.harness.wallet import Wallet
from tests.harness.world import NO_LIMITS, World

NAMES = ("alice", "bob")
HOUR, MINUTE = 3_600, 60
LETTERS = 3
TTL = 100 * DAY + 6 * HOUR
"""Of what is kept; like every other span here it ends hours away from where any clock can stand."""

LIMITS = replace(
    NO_LIMITS, client=replace(NO_LIMITS.client, slots=2, bytes=2_500, ttl=TTL, mailbox_letters=LETTERS)
)


class Scene(RuleBasedStateMachine):
    """Both of them. A subclass says in which store the sidecar keeps its records."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    # --- the store ----------------------------------------------------------------------------------

    async def open_store(self) -> RedisStore | MemoryStore:
        """An empty one."""
        raise NotImplementedError

    async def pass_store_time(self, seconds: int) -> None:
        """Let the store's clock go on."""
        raise NotImplementedError

    def store_now(self) -> float:
        """The store's clock, in seconds."""
        raise NotImplementedError

    def compared(self) -> None:
        """All was compared once more."""

    async def close_store(self) -> None:
        """The end of it."""

    # --- beginning and end --------------------------------------------------------------------------

    async def _begin(self, *, native: bool) -> None:
        self.world = World(native=native, limits=LIMITS, kept_in=await self.open_store())
        await self.world.__aenter__()
        # A day behind the store's, so that the store lets go of what the sidecar would still serve.
        self.world.clock.ms = (int(self.store_now()) - DAY) * 1000
        self.earliest = self.world.clock.ms - 20 * DAY * 1000
        self.model = Model(
            slots=LIMITS.client.slots,
            size=LIMITS.client.bytes,
            letters=LETTERS,
            mail_ttl=LIMITS.mail_ttl - 12 * HOUR,
            now_ms=self.world.clock.ms,
            store_now=self.store_now,
        )
        limits = replace(LIMITS, mail_ttl=self.model.mail_ttl)
        self.world.allowances.set_defaults(limits)
        self.payer = self.world.payer()
        self.wallets = {name: self._wallet() for name in NAMES}
        for wallet in self.wallets.values():
            self.model.connects(wallet.node_id)

    def _wallet(self) -> Wallet:
        secret = os.urandom(32)
        link = self.world.network.connect(keys.public_key(secret))
        nowhere = paths.build(os.urandom(32), [(self.world.lnd_node_id, b"")])
        return Wallet(secret, link, self.world.lnd_node_id, nowhere, Family.LDK)

    def teardown(self) -> None:
        """Everything is closed."""
        if hasattr(self, "world"):
            self.runner.run(self.world.__aexit__(None, None, None))
        self.runner.run(self.close_store())
        self.runner.close()

    def _set_clock(self, seconds: int) -> None:
        self.world.clock.pass_seconds(seconds)
        self.model.now_ms = self.world.clock.ms

    # --- what is seen of it -------------------------------------------------------------------------

    def _say(self, node: Node, path: BlindedPath, content: tuple[int, bytes]) -> Inbox:
        reply_path = node.path_to_self(b"answer")
        self.runner.run(node.send_along(path, *content, reply_path))
        return self._settled()

    def _settled(self) -> Inbox:
        """All that anybody was told; of paths, `answer` is the message that brought them."""
        self.runner.run(self.world.settled())
        told: Inbox = []
        for node in (self.payer, *self.wallets.values()):
            link = self.world.network._links.get(node.node_id)
            while link is not None and not link.inbox.empty():
                message = link.inbox.get_nowait()
                assert message is not None
                kind, content = self._read(node.open(*message).payload)
                told.append((node.node_id, kind, content))
        # An error comes in both families, and a payer reads one of them.
        errors = [each for each in told if each[1] == "invoice_error"]
        return [*(each for each in told if each not in errors), *errors[::2]]

    def _read(self, payload: FinalPayload) -> tuple[str, bytes]:
        type_, content = payload.content_type, payload.content
        assert type_ is not None
        if type_ in _KINDS:
            return _KINDS[type_], b"" if type_ == messages.INVOICE_ERROR else content
        self.answer, self.reply_path = (type_, content), payload.reply_path
        message, _ = messages.decode(type_, content)
        return _WORDS[type(message)], b""

    async def _compare(self) -> None:
        kept, model = self.world.kept, self.model
        model.tidy()
        seen = {client.client_id: (_seen(client), usage) for client, usage in await kept.list_clients()}
        assert seen == {
            known.client_id: (_expected(known), _usage(known)) for known in model.clients.values()
        }
        bound = {
            known.node: known.client_id
            for known in model.clients.values()
            if model.holder(known.node) is known
        }
        assert await kept.bindings() == bound
        assert dict(self.world.bindings.items()) == bound
        for client_id, known in model.clients.items():
            invoices = {each.slot: each for each in await kept.invoices(client_id)}
            assert {slot: each.invoice for slot, each in invoices.items()} == {
                slot: left.invoice for slot, left in known.invoices.items()
            }
            # Where the clocks are apart it is counted from the store's now, which is past by now.
            assert all(
                abs(invoices[slot].expires_at - left.kept_until) <= STORES_NOW
                for slot, left in known.invoices.items()
            )
            letters = [letter.to for _, letter in await self.world.mail.mail(client_id)]
            assert letters == [letter.to for letter in known.letters]
        assert not [name for name in self.world.counters if "internal" in name or "timeout" in name]


STORES_NOW = 2
"""Seconds that may pass between a change in the store and the same one in the model."""

_KINDS = {
    messages.INVOICE_REQUEST: "invoice_request",
    messages.STATIC_INVOICE: "static_invoice",
    messages.INVOICE_ERROR: "invoice_error",
}
_WORDS = {OfferPaths: "offer_paths", StaticInvoicePersisted: "static_invoice_persisted"}


def _seen(client: Client) -> tuple[object, ...]:
    return (client.name, client.state, client.generation, client.node_id, client.quota)


def _expected(known: Known) -> tuple[object, ...]:
    quota = Quota(slots=known.slots, bytes=known.size)
    return (known.name, known.state, known.generation, known.node, quota)


def _usage(known: Known) -> Usage:
    return Usage(len(known.invoices), sum(left.size for left in known.invoices.values()))
