"""What a sidecar that stands by holds of LND's streams, and how it goes on with them when it leads.

It hears what the one that leads hears, and holds it for as long as that one may take to be missed. The one
that leads tells what it has dealt with (by marks: digests of messages), and that is held no longer. All else
is answered by the one that takes over: some of it twice, and nothing never.
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

HELD_BYTES = 32 * 1024 * 1024
"""Bytes of one stream that are held."""

OVERHEAD = 512
"""What each message takes beside its own bytes."""

HELD_SECONDS = 40.0
"""For how long a message is held that the one that leads has not told of. A connection to LND that is dead
and not closed is missed after 30 s (adapters/lnd_channel.py), and a failover of Redis may take as long."""

LATE_SECONDS = 2.0
"""For how long at least beyond the lease's time."""

MARK = 8
"""Bytes of a mark."""

MOST_MARKS = 4_096
"""Marks of one stream that are told at once; the oldest go."""

T = TypeVar("T")


def mark(*parts: bytes) -> bytes:
    """What names a message. A message that is the same to the byte has the same mark."""
    return hashlib.sha256(b"".join(parts)).digest()[:MARK]


class Marks:
    """What was dealt with lately."""

    def __init__(self, seconds: float) -> None:
        """Told for so long, for whoever stands by to see it."""
        self._seconds = seconds
        self._noted: deque[tuple[float, bytes]] = deque(maxlen=MOST_MARKS)

    def note(self, marked: bytes) -> None:
        """A message was dealt with."""
        self._noted.append((time.monotonic(), marked))

    def told(self) -> bytes:
        """All marks, one behind the other."""
        oldest = time.monotonic() - self._seconds
        while self._noted and self._noted[0][0] < oldest:
            self._noted.popleft()
        return b"".join(marked for _, marked in self._noted)


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    """`others`: it came while another one led, or may have."""

    since: float
    marked: bytes
    size: int
    others: bool
    item: T


class Held(Generic[T]):
    """Messages in the order in which they came, the last ones; bounded by age and by bytes."""

    def __init__(self, seconds: float, dropped: Callable[[str], None], most_bytes: int = HELD_BYTES) -> None:
        """`dropped` is told `standby-full` for each message that had no room."""
        self._seconds = seconds
        self._dropped = dropped
        self._most_bytes = most_bytes
        self._held: deque[_Held[T]] = deque()
        self._bytes = 0
        self._done: frozenset[bytes] = frozenset()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, item: T, marked: bytes, size: int, *, others: bool) -> None:
        """Hold a message, unless the one that leads has told of it already."""
        if others and marked in self._done:
            return
        self._held.append(_Held(time.monotonic(), marked, size + OVERHEAD, others, item))
        self._bytes += size + OVERHEAD
        # What waits for us alone, once we lead, grows no older.
        if others:
            self._forget_old()
        while self._bytes > self._most_bytes:
            self.first()
            self._dropped("standby-full")

    def trim(self, done: bytes) -> None:
        """Let go of what was dealt with, by its marks, and of what is too old to matter.

        By mark and not by place: two streams of one LND may begin, and have gaps, at different places.
        """
        told = frozenset(done[at : at + MARK] for at in range(0, len(done), MARK))
        if told - self._done:
            self._held = deque(each for each in self._held if each.marked not in told)
            self._bytes = sum(each.size for each in self._held)
        self._done = told
        self._forget_old()

    def first(self) -> _Held[T]:
        """The oldest; it is held no longer. Only when there is one."""
        each = self._held.popleft()
        self._bytes -= each.size
        return each

    def _forget_old(self) -> None:
        oldest = time.monotonic() - self._seconds
        while self._held and self._held[0].since < oldest:
            self.first()


class Standby(Generic[T]):
    """One stream, whoever leads: held until it is opened, then what was held and all that comes."""

    def __init__(
        self,
        name: str,
        source: Callable[[], AsyncIterator[T]],
        *,
        seconds: float,
        leads: Callable[[], bool],
        mark_of: Callable[[T], bytes],
        size_of: Callable[[T], int],
        as_held: Callable[[T, int, bool], T],
        dropped: Callable[[str], None],
    ) -> None:
        """`seconds`: of the lease. `as_held` makes of what was held what is handed on.

        It is given when it came, in milliseconds by the steady clock, and whether the one that led before
        may have answered it.
        """
        self.name = name
        self._source = source
        self._leads = leads
        self._mark_of = mark_of
        self._size_of = size_of
        self._as_held = as_held
        self._seconds = seconds
        self._held: Held[T] = Held(max(seconds + LATE_SECONDS, HELD_SECONDS), dropped)
        self._marks = Marks(seconds)
        self._opened = asyncio.Event()
        self._clean = False

    def trim(self, done: bytes) -> None:
        """What the one that leads has dealt with, by marks."""
        self._held.trim(done)

    def open(self, *, clean: bool) -> None:
        """Lead. `clean`: nothing has been answered but what `trim` was told of."""
        self._clean = clean
        self._opened.set()

    def dealt_with(self, item: T) -> None:
        """A message of this stream is answered, or refused."""
        self._marks.note(self._mark_of(item))

    def marks(self) -> bytes:
        """What was dealt with lately."""
        return self._marks.told()

    async def receive(self) -> AsyncGenerator[T, None]:
        """Once it is opened: what was held, oldest first, then what comes. It ends with its source."""
        source = self._source()
        opened = asyncio.ensure_future(self._opened.wait())
        arriving: asyncio.Future[T | None] = asyncio.ensure_future(anext(source, None))
        try:
            while not self._opened.is_set():
                await asyncio.wait((arriving, opened), return_when=asyncio.FIRST_COMPLETED)
                if arriving.done() and arriving.result() is None:
                    if not self._leads() or not self._held:
                        return
                    await opened  # what is held is our own to answer
                arriving = self._hold(arriving, source)
            while self._held:
                yield self._taken()
                # The source's own queue is short, and what was held takes its time.
                arriving = self._hold(arriving, source)
            if (item := await arriving) is not None:
                yield item
                async for item in source:
                    yield item
        finally:
            for task in (arriving, opened):
                task.cancel()
            await asyncio.gather(arriving, opened, return_exceptions=True)
            if isinstance(source, AsyncGenerator):
                await source.aclose()

    def _hold(self, arriving: asyncio.Future[T | None], source: AsyncIterator[T]) -> asyncio.Future[T | None]:
        """Hold what has arrived, if anything has; what will arrive next."""
        if not arriving.done() or (item := arriving.result()) is None:
            return arriving
        others = not self._leads()
        self._held.put(item, self._mark_of(item), self._size_of(item), others=others)
        return asyncio.ensure_future(anext(source, None))

    def _taken(self) -> T:
        held = self._held.first()
        age = time.monotonic() - held.since
        # A mark is told for as long as a lease lasts: one that is older may have been missed.
        again = held.others and (age > self._seconds or not self._clean)
        return self._as_held(held.item, int(held.since * 1_000), again)
