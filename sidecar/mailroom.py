"""The mailroom: keeps what is for a client's node until the node surely got it, and has it woken.

A letter is on disk before it is handed over. It is handed over again on every new connection of
its node (deliveries.py) until the node has shown life long enough after it (core/watch.py): twice is
allowed, lost is not. While the store is away, letters wait in bounded memory.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

from sidecar.bindings import Bindings
from sidecar.core.bounded import Bounded
from sidecar.core.errors import PeerNotConnected, SidecarError, StoreUnavailable
from sidecar.core.limits import Rate
from sidecar.core.mailbox import Letter, MailLimits, MailUse
from sidecar.core.turns import Turns
from sidecar.core.webhooks import ONION_MESSAGE_INCOMING
from sidecar.deliveries import ANSWERS, RETRY_AFTER, Connection, Deliveries
from sidecar.ports import Clock, MailStore, Notifier, OnionTransport, PeerChange, Peers, PeersNow

log = logging.getLogger(__name__)

LOOK_EVERY = 10.0
"""Seconds between looks at what nodes have sent, while any letter lacks proof."""

FRESH_MS = 3_000
"""A connection as young as this may have come after LND tried to forward: we hand over as well."""

NEWS_MS = 600_000
"""At start, nodes that are away are woken for letters that came within this time."""

WAKES_WITHOUT_NEWS = 3
"""Times that a node is woken anew for letters that it may not have got, before there are new ones."""

MEMORY_BYTES = 16 * 1024 * 1024
"""Bytes of letters that wait in memory while the store is away; 16 MB is some 10,000 small ones."""

TIDY_EVERY = 3_600.0


Outcome = Literal["sent", "kept", "lost"]
"""What became of a letter: it went out, it waits, or there was no room for it."""


@dataclass(frozen=True, slots=True)
class MailroomSettings:
    """What each queue of a client may hold, and the bytes of all mailboxes together (approximate).

    `answers` is what a node may be made to send by what it is handed, in bytes.
    """

    limits: MailLimits
    total_bytes: int
    answers: Rate = ANSWERS


class Mailroom:
    """All mailboxes at work. `take` letters; `run` beside it."""

    def __init__(
        self,
        *,
        settings: MailroomSettings,
        bindings: Bindings,
        store: MailStore,
        transport: OnionTransport,
        peers: Peers,
        notifier: Notifier,
        clock: Clock,
        counters: Counter[str],
    ) -> None:
        self._settings = settings
        self._bindings = bindings
        self._store = store
        self._transport = transport
        self._peers = peers
        self._notifier = notifier
        self._clock = clock
        self._counters = counters
        self._online: dict[bytes, Connection] = {}
        self._watching = asyncio.Event()
        self._uses: dict[bytes, MailUse] = {}
        self._bytes = 0
        self._pending: deque[Letter] = deque()
        self._pending_for: Counter[bytes] = Counter()
        self._pending_bytes = 0
        self._has_pending = asyncio.Event()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._turns = Turns()
        self._deliveries = Deliveries(
            store=store,
            send=self._send,
            in_memory=lambda node: [letter for letter in self._pending if letter.to == node],
            turns=self._turns,
            clock=clock,
            counters=counters,
            answers=settings.answers,
        )
        self._wakes: Bounded[bytes, int] = Bounded(10_000)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- a letter comes in --------------------------------------------------------------------------

    async def take(self, letter: Letter, *, passed_on: bool) -> Outcome:
        """Keep a letter and hand it over if its node is there, else wake the node.

        `passed_on`: LND forwards it by itself. Raises LndUnavailable, with the letter kept.
        """
        kept, number = await self._keep(letter)
        handed_over = await self._hand_to(letter, number, passed_on=passed_on, kept=kept)
        if kept:
            self._wakes.pop(letter.to, None)
        connection = self._online.get(letter.to)
        silent = connection is not None and connection.watch.silent(self._clock.now_ms())
        # Also for a letter that found no room: whoever empties a full mailbox makes room for the next.
        if not handed_over or silent:
            if connection is not None:
                connection.woken_at_ms = self._clock.now_ms()
            self._wake(letter.to)
        return "sent" if handed_over else "kept" if kept else "lost"

    async def _keep(self, letter: Letter) -> tuple[bool, int | None]:
        """Put a letter on disk, or else in memory: whether there was room, and its number on disk."""
        client_id = self._bindings.client_of(letter.to)
        # What waits in memory goes first: a later letter must not overtake it.
        if client_id is None or self._pending_for[letter.to]:
            return self._put_aside(letter), None
        try:
            return True, await self._store_letter(client_id, letter)
        except StoreUnavailable:
            return self._put_aside(letter), None
        except SidecarError as error:
            self._counters[f"mail.dropped.{error.reason}"] += 1
            return False, None

    async def _store_letter(self, client_id: bytes, letter: Letter) -> int:
        room = self._settings.total_bytes - self._bytes
        kept = await self._store.keep(client_id, letter, self._settings.limits, room)
        self._note_use(client_id, kept.use)
        self._counters["mail.kept"] += 1
        if kept.dropped:
            self._counters["mail.dropped.pushed-out"] += kept.dropped
        return kept.number

    def _note_use(self, client_id: bytes, use: MailUse) -> None:
        before = self._uses.pop(client_id, None)
        self._bytes += use.bytes - (before.bytes if before else 0)
        if use.letters:
            self._uses[client_id] = use

    def _put_aside(self, letter: Letter) -> bool:
        if self._pending_bytes + letter.size > MEMORY_BYTES:
            self._counters["mail.dropped.memory-full"] += 1
            return False
        self._pending.append(letter)
        self._pending_for[letter.to] += 1
        self._pending_bytes += letter.size
        self._counters["mail.in-memory"] += 1
        self._has_pending.set()
        return True

    async def _hand_to(
        self, letter: Letter, number: int | None, *, passed_on: bool = False, kept: bool = True
    ) -> bool:
        connection = self._online.get(letter.to)
        if connection is None:
            return False
        # While it is in memory only it goes by its key.
        name = letter.key if number is None else number
        if passed_on and connection.since_ms < letter.kept_at_ms - FRESH_MS:
            self._sent(letter, name, connection)
            return True
        if number is not None:
            connection.watch.kept(letter.key, number)
            if number in connection.watch:
                return True  # it went out already: from memory, or with all others of a delivery
        if connection.delivering and kept:
            connection.more = True
            return True
        # Two letters at once would go out in any order.
        async with self._locks.setdefault(letter.to, asyncio.Lock()):
            return await self._send(letter, name, connection)

    async def _send(self, letter: Letter, name: int | bytes, connection: Connection) -> bool:
        try:
            await self._transport.send(letter.to, letter.path_key, letter.onion)
        except PeerNotConnected:
            return False
        self._sent(letter, name, connection)
        return True

    def _sent(self, letter: Letter, name: int | bytes, connection: Connection) -> None:
        self._counters["mail.sent"] += 1
        self._turns.handed_over(letter.to, name)
        connection.watch.sent(name, self._clock.now_ms())
        self._watching.set()

    def _wake(self, node: bytes) -> None:
        self._notifier.notify(node, ONION_MESSAGE_INCOMING)

    def _wake_again(self, node: bytes) -> None:
        """Wake a node for what it was sent already: a few times, or a flaky one would never sleep."""
        if self._wakes.get(node, 0) < WAKES_WITHOUT_NEWS:
            self._wakes[node] = self._wakes.get(node, 0) + 1
            self._wake(node)

    def use(self, client_id: bytes) -> MailUse | None:
        """What waits for a client; None for nothing."""
        return self._uses.get(client_id)

    def forget(self, client_id: bytes) -> None:
        """A client was revoked or removed, and its mailbox with it."""
        self._note_use(client_id, MailUse(letters=0, bytes=0, newest_ms=0))

    # --- nodes come, go, and show life --------------------------------------------------------------

    async def run(self) -> None:
        """Follow LND's connections until cancelled. Raises LndDenied."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._keep_looking())
                tasks.create_task(self._empty_memory())
                tasks.create_task(self._tidy())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._pending:
                log.warning("%d letters for clients are lost: the store was away", len(self._pending))

    async def _follow(self) -> None:
        await self._read_uses()
        first = True
        async for change in self._peers.receive():
            match change:
                case PeerChange(node, True):
                    self._came([node])
                case PeerChange(node, False):
                    self._left([node])
                case PeersNow(nodes):
                    self._left(set(self._online) - nodes)
                    self._came(nodes)
                    if first:
                        self._wake_waiting()
                    first = False

    async def _read_uses(self) -> None:
        while True:
            try:
                uses = await self._store.mail_uses()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_AFTER)
                continue
            for client_id, use in uses.items():
                self._note_use(client_id, use)
            return

    def _came(self, nodes: Iterable[bytes]) -> None:
        for node in nodes:
            if (earlier := self._online.get(node)) is not None:
                earlier.ended = True
            self._online[node] = connection = Connection(self._clock.now_ms())
            self._notifier.connected(node)
            if (client_id := self._bindings.client_of(node)) is not None:
                connection.delivering = True
                task = asyncio.create_task(self._deliveries.deliver(node, client_id, connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _left(self, nodes: Iterable[bytes]) -> None:
        for node in nodes:
            if (connection := self._online.pop(node, None)) is not None:
                connection.ended = True
                if connection.watch.unheard():
                    self._wake_again(node)

    def _wake_waiting(self) -> None:
        """After a start: whoever has fresh mail may not have been told of it."""
        since = self._clock.now_ms() - NEWS_MS
        fresh = {client_id for client_id, use in self._uses.items() if use.letters and use.newest_ms >= since}
        for node, client_id in self._bindings.items():
            if client_id in fresh and node not in self._online:
                self._wake(node)

    async def heard(self, node: bytes) -> None:
        """An onion message came from a node: it lives."""
        connection = self._online.get(node)
        if connection is not None and connection.watch:
            letters = connection.watch.heard(self._clock.now_ms())
            self._note_life(node, connection)
            await self._proved(node, letters)

    async def _keep_looking(self) -> None:
        while True:
            await self._watching.wait()
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except SidecarError as error:
                # LND away, or its macaroon being replaced: the messages' own stream tells the operator.
                log.debug("can't see who lives: %s", error)
                continue
            if not any(connection.watch for connection in self._online.values()):
                self._watching.clear()

    async def look(self) -> None:
        """See which nodes have sent something since the last look. Raises LndUnavailable, LndDenied."""
        received = await self._peers.bytes_received()
        now = self._clock.now_ms()
        for node, connection in list(self._online.items()):
            if not connection.watch:
                continue
            if node in received:
                letters = connection.watch.looked(received[node], now)
                self._note_life(node, connection)
                await self._proved(node, letters)
            if connection.watch.newly_silent(now):
                connection.woken_at_ms = now
                self._wake_again(node)

    def _note_life(self, node: bytes, connection: Connection) -> None:
        """A phone that was woken, and thawed on the connection that it had, counts as connected anew."""
        if connection.woken_at_ms is not None and connection.watch.alive_at_ms >= connection.woken_at_ms:
            connection.woken_at_ms = None
            self._notifier.connected(node)

    async def _proved(self, node: bytes, letters: Sequence[int | bytes]) -> None:
        client_id = self._bindings.client_of(node)
        numbers = [letter for letter in letters if isinstance(letter, int)]
        if not numbers or client_id is None:
            return
        try:
            self._note_use(client_id, await self._store.drop_mail(client_id, numbers))
        except StoreUnavailable:
            return  # they go out once more on the next connection
        self._counters["mail.arrived"] += len(numbers)

    # --- while the store is away, and in the long run -----------------------------------------------

    async def _empty_memory(self) -> None:
        while True:
            await self._has_pending.wait()
            letter = self._pending[0]
            number: int | None = None
            try:
                if (client_id := self._bindings.client_of(letter.to)) is not None:
                    number = await self._store_letter(client_id, letter)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_AFTER)
                continue
            except SidecarError as error:
                self._counters[f"mail.dropped.{error.reason}"] += 1
            self._pending.popleft()
            self._pending_for[letter.to] -= 1
            self._pending_bytes -= letter.size
            if not self._pending:
                self._has_pending.clear()
                self._pending_for.clear()
            if number is not None:
                with contextlib.suppress(SidecarError):
                    await self._hand_to(letter, number)

    async def _tidy(self) -> None:
        """Let go of what has expired: a mailbox that nobody touches still counts until it is looked at."""
        while True:
            await asyncio.sleep(TIDY_EVERY)
            old = self._clock.now_ms() - self._settings.limits.ttl * 1_000
            for client_id in [client_id for client_id, use in self._uses.items() if use.newest_ms < old]:
                with contextlib.suppress(StoreUnavailable):
                    self._note_use(client_id, await self._store.drop_mail(client_id, []))
