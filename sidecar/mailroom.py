"""The mailroom: keeps what is for a client's node until the node surely got it, and has it woken.

A letter is on disk before it is handed over. It is handed over again on every new connection of
its node (deliveries.py) until the node has shown life long enough after it (core/watch.py): twice is
allowed, lost is not. While the store is away, letters wait in bounded memory.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Literal
from weakref import WeakValueDictionary

import structlog

from sidecar.allowances import Allowances, Limit
from sidecar.bindings import Bindings
from sidecar.core.bounded import Bounded
from sidecar.core.errors import BadRecord, PeerNotConnected, SidecarError, StoreUnavailable
from sidecar.core.limits import Rate
from sidecar.core.mailbox import Letter, MailUse, MailUses, Place
from sidecar.core.turns import Turns
from sidecar.core.webhooks import ONION_MESSAGE_INCOMING
from sidecar.deliveries import ANSWERS, RETRY_AFTER, Connection, Deliveries
from sidecar.pending import Pending
from sidecar.ports import Clock, MailStore, Notifier, OnionTransport, PeerChange, Peers, PeersNow

log = structlog.get_logger(__name__)

LOOK_EVERY = 10.0
"""Seconds between looks at what nodes have sent, while any letter lacks proof."""

FRESH_MS = 3_000
"""A connection as young as this may have come after LND tried to forward: we hand over as well."""

NEWS_MS = 600_000
"""At start, nodes that are away are woken for letters that came within this time."""

WAKES_WITHOUT_NEWS = 3
"""Times that a node is woken anew for letters that it may not have got, before there are new ones."""

TIDY_EVERY = 3_600.0


Outcome = Literal["sent", "kept", "lost"]
"""What became of a letter: it went out, it waits, or there was no room for it."""


class Mailroom:
    """All mailboxes at work. `take` letters; `run` beside it."""

    def __init__(
        self,
        *,
        allowances: Allowances,
        bindings: Bindings,
        store: MailStore,
        transport: OnionTransport,
        peers: Peers,
        notifier: Notifier,
        clock: Clock,
        counters: Counter[str],
        answers: Rate = ANSWERS,
    ) -> None:
        """`answers`: what a node may be made to send by what it is handed, in bytes."""
        self._allowances = allowances
        self._bindings = bindings
        self._store = store
        self._transport = transport
        self._peers = peers
        self._notifier = notifier
        self._clock = clock
        self._counters = counters
        self._online: dict[bytes, Connection] = {}
        self._watching = asyncio.Event()
        self._uses = MailUses()
        self._pending = Pending()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._turns = Turns()
        self._deliveries = Deliveries(
            store=store,
            send=self._send,
            in_memory=self._pending.of,
            turns=self._turns,
            clock=clock,
            counters=counters,
            answers=answers,
        )
        self._wakes: Bounded[bytes, int] = Bounded(10_000)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- a letter comes in --------------------------------------------------------------------------

    async def take(self, letter: Letter, *, passed_on_ms: int | None = None) -> Outcome:
        """Keep a letter and hand it over if its node is there, else wake the node.

        `passed_on_ms`: when LND forwarded it by itself, on the steady clock; None where it does not.
        Raises LndUnavailable, with the letter kept.
        """
        kept, place = await self._keep(letter)
        handed_over = await self._hand_to(letter, place, passed_on_ms=passed_on_ms, kept=kept)
        if kept:
            self._wakes.pop(letter.to, None)
        connection = self._online.get(letter.to)
        silent = connection is not None and connection.watch.silent(self._clock.steady_ms())
        # Also for a letter that found no room: whoever empties a full mailbox makes room for the next.
        if not handed_over or silent:
            if connection is not None:
                connection.woken_at_ms = self._clock.steady_ms()
            self._wake(letter.to)
        return "sent" if handed_over else "kept" if kept else "lost"

    async def _keep(self, letter: Letter) -> tuple[bool, Place | None]:
        """Put a letter on disk, or else in memory: whether there was room, and its place on disk."""
        client_id = self._bindings.client_of(letter.to)
        # What waits in memory goes first: a later letter must not overtake it.
        if client_id is None or self._pending.waits_for(letter.to):
            return self._put_aside(letter), None
        try:
            return True, await self._store_letter(client_id, letter)
        except BadRecord as error:
            # In memory it would wait for ever.
            self._refused(client_id, error)
            return False, None
        except StoreUnavailable:
            return self._put_aside(letter), None
        except SidecarError as error:
            self._refused(client_id, error)
            return False, None

    async def _store_letter(self, client_id: bytes, letter: Letter) -> Place:
        room = self._allowances.defaults.mail_total_bytes - self._uses.bytes
        kept = await self._store.keep(client_id, letter, self._allowances.mail(), room)
        self._uses.note(client_id, kept.use)
        self._counters["mail.kept"] += 1
        if kept.dropped:
            self._counters["mail.dropped.pushed-out"] += kept.dropped
            self._allowances.refuse(client_id, Limit.MAILBOX, kept.dropped)
        return Place(client_id, kept.number)

    def _refused(self, client_id: bytes, error: SidecarError) -> None:
        self._counters[f"mail.dropped.{error.reason}"] += 1
        self._allowances.refused(client_id, error)

    def _put_aside(self, letter: Letter) -> bool:
        there_is_room = self._pending.put(letter)
        self._counters["mail.in-memory" if there_is_room else "mail.dropped.memory-full"] += 1
        return there_is_room

    async def _hand_to(
        self, letter: Letter, place: Place | None, *, passed_on_ms: int | None = None, kept: bool = True
    ) -> bool:
        """Whether it went out, or will; `passed_on_ms` as `take` has it."""
        connection = self._online.get(letter.to)
        if connection is None:
            return False
        # While it is in memory only it goes by its key.
        name = letter.key if place is None else place
        if passed_on_ms is not None and connection.since_ms < passed_on_ms - FRESH_MS:
            self._sent(letter, name, connection)
            return True
        if place is not None:
            connection.watch.kept(letter.key, place)
            self._turns.kept(letter.to, letter.key, place)
            if place in connection.watch:
                return True  # it went out already: from memory, or with all others of a delivery
        if connection.delivering and kept:
            connection.more = True
            return True
        # Two letters at once would go out in any order.
        async with self._locks.setdefault(letter.to, asyncio.Lock()):
            return await self._send(letter, name, connection)

    async def _send(self, letter: Letter, name: Hashable, connection: Connection) -> bool:
        try:
            await self._transport.send(letter.to, letter.path_key, letter.onion)
        except PeerNotConnected:
            return False
        self._sent(letter, name, connection)
        return True

    def _sent(self, letter: Letter, name: Hashable, connection: Connection) -> None:
        self._counters["mail.sent"] += 1
        self._turns.handed_over(letter.to, name)
        connection.watch.sent(name, self._clock.steady_ms())
        self._watching.set()

    def _wake(self, node: bytes) -> None:
        if not self._is_paused(node):
            self._notifier.notify(node, ONION_MESSAGE_INCOMING)

    def _wake_again(self, node: bytes) -> None:
        """Wake a node for what it was sent already: a few times, or a flaky one would never sleep."""
        if self._wakes.get(node, 0) < WAKES_WITHOUT_NEWS:
            self._wakes[node] = self._wakes.get(node, 0) + 1
            self._wake(node)

    def in_memory(self, node: bytes) -> bool:
        """Whether letters for a node are not on disk yet: they are lost with this process."""
        return self._pending.waits_for(node)

    def use(self, client_id: bytes) -> MailUse | None:
        """What waits for a client; None for nothing."""
        return self._uses.of(client_id)

    def total(self) -> tuple[int, int]:
        """Letters and bytes of all mailboxes together; approximate, as `use`."""
        return self._uses.letters(), self._uses.bytes

    def forget(self, client_id: bytes) -> None:
        """A client was revoked or removed, and its mailbox with it. Its node is still known."""
        self._uses.forget(client_id)
        if (node := self._bindings.node_of(client_id)) is not None:
            self.pause(node)

    def pause(self, node: bytes) -> None:
        """The client of a node was paused: hand over no more. The allowances know it already."""
        if (connection := self._online.get(node)) is not None:
            connection.end()

    def resume(self, node: bytes) -> None:
        """The client of a node is served again: hand over what waited, or wake the node for it."""
        client_id = self._bindings.client_of(node)
        if node in self._online:
            self._came([node])
        elif client_id is not None and self._uses.of(client_id) is not None:
            self._wake(node)

    def _is_paused(self, node: bytes) -> bool:
        client_id = self._bindings.client_of(node)
        return client_id is not None and self._allowances.is_paused(client_id)

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
                log.warning("letters for clients are lost: the store was away", letters=len(self._pending))

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
                    woken = self._left(set(self._online) - nodes)
                    self._came(nodes)
                    self._wake_waiting(self._wake if first else self._wake_again, woken)
                    first = False

    async def _read_uses(self) -> None:
        while True:
            try:
                uses = await self._store.mail_uses()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_AFTER)
                continue
            for client_id, use in uses.items():
                self._uses.note(client_id, use)
            return

    async def imported(self) -> None:
        """An import has brought mailboxes, and who is whose: as after a start."""
        # It may bring back a client that was removed, which else is forgotten for good.
        self._uses = MailUses()
        await self._read_uses()
        self._came(list(self._online))
        self._wake_waiting(self._wake)

    def _came(self, nodes: Iterable[bytes]) -> None:
        for node in nodes:
            if (earlier := self._online.get(node)) is not None:
                earlier.end()
            self._online[node] = connection = Connection(self._clock.steady_ms())
            self._notifier.connected(node)
            client_id = self._bindings.client_of(node)
            if client_id is not None and not self._allowances.is_paused(client_id):
                connection.delivering = True
                task = asyncio.create_task(self._deliveries.deliver(node, client_id, connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _left(self, nodes: Iterable[bytes]) -> set[bytes]:
        """Nodes are gone; those of them that are woken again."""
        woken = set()
        for node in nodes:
            if (connection := self._online.pop(node, None)) is not None:
                connection.end()
                if connection.watch.unheard():
                    self._wake_again(node)
                    woken.add(node)
        return woken

    def _wake_waiting(self, wake: Callable[[bytes], None], woken: Collection[bytes] = ()) -> None:
        """After a start, ours or LND's, which signs: whoever has fresh mail may not have been told of it.

        Those that are `woken` already are not told twice: it would count as two of their few times.
        """
        since = self._clock.now_ms() - NEWS_MS
        fresh = {client_id for client_id, use in self._uses.filled() if use.newest_ms >= since}
        for node, client_id in self._bindings.items():
            if client_id in fresh and node not in self._online and node not in woken:
                wake(node)

    async def heard(self, node: bytes) -> None:
        """An onion message came from a node: it lives."""
        connection = self._online.get(node)
        if connection is not None and connection.watch:
            letters = connection.watch.heard(self._clock.steady_ms())
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
                log.debug("can't see who lives", error=str(error))
                continue
            if not any(connection.watch for connection in self._online.values()):
                self._watching.clear()

    async def look(self) -> None:
        """See which nodes have sent something since the last look. Raises LndUnavailable, LndDenied."""
        received = await self._peers.bytes_received()
        now = self._clock.steady_ms()
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

    async def _proved(self, node: bytes, letters: Sequence[Hashable]) -> None:
        self._turns.forget(node, letters)
        # The node may be another client's by now than when it was handed them.
        arrived: dict[bytes, list[int]] = {}
        for letter in letters:
            if isinstance(letter, Place):
                arrived.setdefault(letter.client_id, []).append(letter.number)
        for client_id, numbers in arrived.items():
            try:
                self._uses.note(client_id, await self._store.drop_mail(client_id, numbers))
            except StoreUnavailable:
                return  # they go out once more on the next connection
            self._counters["mail.arrived"] += len(numbers)

    # --- while the store is away, and in the long run -----------------------------------------------

    async def until_stored(self) -> None:
        """Wait until no letter is in memory alone."""
        await self._pending.empty.wait()

    async def _empty_memory(self) -> None:
        while True:
            await self._pending.filled.wait()
            letter = self._pending.first()
            place: Place | None = None
            if (client_id := self._bindings.client_of(letter.to)) is not None:
                try:
                    place = await self._store_letter(client_id, letter)
                except BadRecord as error:
                    # All that came behind it must not wait for what can't be kept.
                    self._refused(client_id, error)
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_AFTER)
                    continue
                except SidecarError as error:
                    self._refused(client_id, error)
            self._pending.drop_first()
            if place is not None:
                with contextlib.suppress(SidecarError):
                    # While the store was away nobody could be told where to wake it.
                    if not await self._hand_to(letter, place):
                        self._wake_again(letter.to)

    async def _tidy(self) -> None:
        """Let go of what has expired: a mailbox that nobody touches still counts until it is looked at."""
        while True:
            await asyncio.sleep(TIDY_EVERY)
            old = self._clock.now_ms() - self._allowances.defaults.mail_ttl * 1_000
            for client_id in [client_id for client_id, use in self._uses.filled() if use.newest_ms < old]:
                with contextlib.suppress(StoreUnavailable):
                    self._uses.note(client_id, await self._store.drop_mail(client_id, []))
