"""The whole sidecar, wired to stand-ins in one process.

A message is handed from one object to the next, so that a test can say when all of it was dealt with
(`World.settled`), and that nothing was answered.
"""

import asyncio
import os
from collections import Counter
from dataclasses import replace
from types import TracebackType
from typing import Self

from sidecar.adapters.redis_store import RedisStore
from sidecar.allowances import Allowances, Defaults
from sidecar.bindings import Bindings
from sidecar.clients import RunningClients
from sidecar.core import keys, offers
from sidecar.core.keys import SidecarKeys
from sidecar.core.limits import Rate
from sidecar.core.mailbox import MailLimits
from sidecar.core.model import (
    CLIENT_ID_SIZE,
    MOST_USAGE,
    BoundBy,
    Client,
    ClientState,
    Family,
    Limits,
    Loaded,
    Quota,
    StoredInvoice,
    Usage,
)
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.core.server import ServerSettings, StaticInvoiceServer
from sidecar.courier import Courier
from sidecar.mailroom import Mailroom
from sidecar.peeler import Peeler
from sidecar.ports import MailStore, Received, Store
from sidecar.service import SidecarService
from sidecar.timings import Timings
from tests.harness.fakes import (
    DAY,
    LND_SECRET,
    CountingKey,
    FakeClock,
    FakeGraph,
    LoopbackNetwork,
    NotedNotifier,
)
from tests.harness.memory_store import MemoryStore
from tests.harness.node import Node
from tests.harness.payer import Payer
from tests.harness.wallet import CHAIN, Issued, Wallet

PLENTY = Rate(per_second=1_000, burst=1_000)
MAIL = MailLimits(letters=20, bytes=2_000_000, ttl=7 * DAY)
NO_LIMITS = Defaults(
    client=Limits(
        slots=10,
        bytes=50_000,
        ttl=365 * DAY,
        requests_per_second=1_000,
        requests_burst=1_000,
        stores_per_minute=60_000,
        offer_paths_per_minute=60_000,
        mailbox_letters=MAIL.letters,
        mailbox_bytes=MAIL.bytes,
    ),
    offer=PLENTY,
    mail_ttl=MAIL.ttl,
    mail_total_bytes=100 * MAIL.bytes,
)


class WatchedStore(MemoryStore):
    """A memory store that counts what is asked of it, and fails as it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(lambda: clock.ms / 1000)
        self.calls: Counter[str] = Counter()
        self.load_error: Exception | None = None
        self.save_error: Exception | None = None
        self.bind_error: Exception | None = None

    async def load(self, client_id: bytes, slot: int) -> Loaded:
        """As MemoryStore, or `load_error`."""
        self.calls["load"] += 1
        if self.load_error is not None:
            raise self.load_error
        return await super().load(client_id, slot)

    async def save(
        self, client_id: bytes, invoice: StoredInvoice, mark_until: int, most: Usage = MOST_USAGE
    ) -> Usage:
        """As MemoryStore, or `save_error`."""
        self.calls["save"] += 1
        if self.save_error is not None:
            raise self.save_error
        return await super().save(client_id, invoice, mark_until, most)

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """As MemoryStore, or `bind_error`."""
        if self.bind_error is not None:
            raise self.bind_error
        return await super().bind(client_id, node_id, by)


class World:
    """The sidecar at work on an LND in process. Use it as `async with World(...) as world`."""

    def __init__(
        self,
        *,
        native: bool = True,
        limits: Defaults = NO_LIMITS,
        answers: Rate = Rate(per_second=1e9, burst=1e9),  # noqa: B008 - frozen
        kept_in: RedisStore | MemoryStore | None = None,
    ) -> None:
        """`kept_in`: another store than `self.store`, with a clock of its own."""
        self.answers = answers
        self.lnd_node_id = keys.public_key(LND_SECRET)
        self.keys = SidecarKeys.derive(keys.ecdh(LND_SECRET, keys.NUMS_POINT))
        self.network = LoopbackNetwork(LND_SECRET, native=native)
        self.graph = FakeGraph(self.network)
        self.clock = FakeClock()
        self.store = WatchedStore(self.clock)
        self.kept: Store = kept_in or self.store
        self.mail: MailStore = kept_in.mail if isinstance(kept_in, RedisStore) else kept_in or self.store
        self.lnd_key = CountingKey(LND_SECRET)
        self.counters: Counter[str] = Counter()
        self.dealt_with: list[Received] = []
        self.notifier = NotedNotifier()
        self.bindings = Bindings(self.kept, self.counters)
        self.allowances = Allowances(self.kept, limits, self.counters)
        self.clients = RunningClients(self.bindings, self.allowances, lambda: self.mailroom)
        self.mailroom = self._new_mailroom()
        self._mail: asyncio.Task[None]
        self.server = StaticInvoiceServer(ServerSettings(self.lnd_node_id, self.keys, CHAIN, 365 * DAY))
        self.service = SidecarService(
            server=self.server,
            peeler=Peeler(self.lnd_node_id, self.lnd_key, self.keys),
            courier=Courier(
                lnd_node_id=self.lnd_node_id,
                own_node_id=self.keys.node_id,
                lnd_key=self.lnd_key,
                graph=self.graph,
                transport=self.network,
                entropy=os.urandom,
            ),
            transport=self.network,
            graph=self.graph,
            store=self.kept,
            bindings=self.bindings,
            mailroom=self.mailroom,
            allowances=self.allowances,
            clock=self.clock,
            entropy=os.urandom,
            counters=self.counters,
            timings=Timings(),
            problem=lambda _reason, _text: None,
        )

    def _new_mailroom(self) -> Mailroom:
        return Mailroom(
            allowances=self.allowances,
            answers=self.answers,
            bindings=self.bindings,
            store=self.mail,
            transport=self.network,
            peers=self.network.peers,
            notifier=self.notifier,
            clock=self.clock,
            counters=self.counters,
        )

    def set_mail_total(self, size: int) -> None:
        """Let all mailboxes together hold so many bytes from now on."""
        self.allowances.set_defaults(replace(self.allowances.defaults, mail_total_bytes=size))

    async def pause(self, name: str = "alice", *, paused: bool = True) -> Client:
        """Pause a client, or resume it, as the operator does."""
        client = await self.kept.find_client(name)
        client = await self.kept.pause_client(client.client_id, paused=paused)
        self.clients.changed(client)
        return client

    def restart_mailroom(self) -> None:
        """All that it knew by itself is gone; LND tells it who is connected now."""
        self._mail.cancel()
        self.network.peers.restart()
        self.mailroom = self.service._mailroom = self._new_mailroom()
        self._mail = asyncio.create_task(self.mailroom.run())

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.service.run(dealt_with=self.dealt_with.append))
        self._mail = asyncio.create_task(self.mailroom.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        self._mail.cancel()
        await asyncio.gather(self._running, self._mail, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until all that has arrived is dealt with; raises when the service's loop has ended."""
        while True:
            assert not self._running.done()
            self.network.pause()
            await self._running
            self._running = asyncio.create_task(self.service.run(dealt_with=self.dealt_with.append))
            await self._mail_settled()
            if self.network.idle and self.network.peers.idle:
                return

    async def _mail_settled(self) -> None:
        while not self.network.peers.idle or self.mailroom._tasks:
            assert not self._mail.done()
            await asyncio.sleep(0)

    async def assert_silence(self, *nodes: Node) -> None:
        """All is dealt with, and none of the nodes has heard a word."""
        await self.settled()
        assert [self.network.waiting(node.node_id) for node in nodes] == [0] * len(nodes)

    async def client(self, name: str = "alice", *, slots: int = 10, size: int = 50_000) -> Client:
        """A client that the operator added."""
        client = Client(
            client_id=os.urandom(CLIENT_ID_SIZE),
            name=name,
            state=ClientState.ACTIVE,
            generation=1,
            quota=Quota(slots=slots, bytes=size, ttl=365 * DAY),
            created_at=self.clock.ms // 1000,
        )
        await self.kept.add_client(client)
        return client

    async def wallet(self, name: str = "alice", family: Family = Family.LDK, *, slots: int = 10) -> Wallet:
        """A connected wallet of a new client, with its request path."""
        request_path = self.server.request_path(await self.client(name, slots=slots), os.urandom)
        wallet = self.wallet_of(request_path)
        wallet.family = family
        return wallet

    def wallet_of(self, request_path: BlindedPath) -> Wallet:
        """Another connected wallet, with the same client's request path."""
        secret = os.urandom(32)
        link = self.network.connect(keys.public_key(secret))
        return Wallet(secret, link, self.lnd_node_id, request_path, Family.LDK)

    def payer(self) -> Payer:
        """A connected payer."""
        secret = os.urandom(32)
        return Payer(secret, self.network.connect(keys.public_key(secret)), self.lnd_node_id)

    async def offer(self, wallet: Wallet, slot: int = 0) -> tuple[Offer, Issued, bytes]:
        """A wallet's offer, ready to be paid; what was issued for it, and its invoice."""
        text, issued, invoice = await wallet.set_up(slot)
        return offers.decode_offer(text), issued, invoice

    def unread(self) -> int:
        """Messages that anyone connected has not read."""
        return sum(link.inbox.qsize() for link in self.network._links.values())
