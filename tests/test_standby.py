"""What one that stands by holds: never less than what nobody has dealt with."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import standby
from sidecar.standby import MARK, OVERHEAD, Held, Marks, Standby, mark

Item = tuple[bytes, int, bool]
"""A message, for how long it was held (0 or more), and whether it may have been answered."""


class World:
    """A stream of messages that a test sends, and whoever reads it."""

    def __init__(self, seconds: float = 60) -> None:
        self.sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.leads = False
        self.dropped: Counter[str] = Counter()
        self.taken = asyncio.Event()
        self.stream: Standby[Item] = Standby(
            "onions",
            self._source,
            seconds=seconds,
            leads=lambda: self.leads,
            mark_of=lambda item: mark(item[0]),
            size_of=lambda item: len(item[0]),
            as_held=lambda item, heard_ms, again: (item[0], heard_ms, again),
            dropped=lambda reason: self.dropped.update([reason]),
        )
        self.read: list[Item] = []

    async def _source(self) -> AsyncGenerator[Item, None]:
        while (message := await self.sent.get()) is not None:
            yield (message, -1, False)
            if self.sent.empty():
                self.taken.set()

    async def send(self, *messages: bytes) -> None:
        """Send, and wait until all are held."""
        self.taken.clear()
        for message in messages:
            self.sent.put_nowait(message)
        await self.taken.wait()

    def lead(self, *, clean: bool = False) -> None:
        """Take over."""
        self.leads = True
        self.stream.open(clean=clean)


async def held_then(world: World, *messages: bytes) -> tuple[asyncio.Task[list[Item]], list[Item]]:
    """A reader in a task, with these messages held."""

    async def read() -> list[Item]:
        async for item in world.stream.receive():
            world.read.append(item)
        return world.read

    task = asyncio.create_task(read())
    await world.send(*messages)
    return task, world.read


async def test_nothing_is_handed_on_before_it_leads_and_then_all_in_order() -> None:
    """What was held first, with the time when it came; then what comes."""
    world = World()
    before_ms = int(time.monotonic() * 1_000)
    task, read = await held_then(world, b"a", b"b")
    heard_by_ms = int(time.monotonic() * 1_000)
    assert read == []
    world.lead()
    await world.send(b"c")
    world.sent.put_nowait(b"d")
    world.sent.put_nowait(None)
    assert [item[0] for item in await task] == [b"a", b"b", b"c", b"d"]
    assert all(before_ms <= heard_ms <= heard_by_ms for _, heard_ms, _ in read[:2])
    assert read[-1] == (b"d", -1, False)


@pytest.mark.parametrize("clean", [True, False])
async def test_what_may_have_been_answered_is_marked(*, clean: bool) -> None:
    """All that came while another one led, unless that one has told of everything; not what came since."""
    world = World()
    task, read = await held_then(world, b"a")
    world.leads = True
    await world.send(b"b")
    world.lead(clean=clean)
    world.sent.put_nowait(None)
    await task
    assert [(name, again) for name, _, again in read] == [(b"a", not clean), (b"b", False)]


async def test_what_was_held_for_longer_than_marks_are_told_may_have_been_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store was away for us, or LND for the one that led in silence: late, but never lost."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    world = World(seconds=5)
    task, read = await held_then(world, b"a", b"b")
    now = standby.HELD_SECONDS - 1
    await world.send(b"c")
    world.lead(clean=True)
    world.sent.put_nowait(None)
    await task
    assert [(name, again) for name, _, again in read] == [(b"a", True), (b"b", True), (b"c", False)]


async def test_what_is_dealt_with_is_held_no_longer_whenever_that_is_told() -> None:
    """Before it comes to us, or after; and in whatever order it was dealt with."""
    world = World()
    world.stream.trim(mark(b"b"))
    task, read = await held_then(world, b"a", b"b", b"c", b"d")
    world.stream.trim(mark(b"d") + mark(b"elsewhere") + mark(b"a"))
    world.lead()
    world.sent.put_nowait(None)
    await task
    assert [item[0] for item in read] == [b"c"]


async def test_one_that_stands_by_ends_with_its_stream() -> None:
    """SIGTERM: what it holds is not its own to answer."""
    world = World()
    task, _ = await held_then(world, b"a")
    world.sent.put_nowait(None)
    assert await task == []


async def test_what_is_held_is_handed_on_also_when_the_stream_ends() -> None:
    """SIGTERM right behind a takeover: nobody else has it."""
    world = World()
    task, _ = await held_then(world, b"a", b"b", b"c")
    world.sent.put_nowait(None)
    world.lead()
    assert [item[0] for item in await task] == [b"a", b"b", b"c"]


async def test_with_nothing_held_it_ends_with_its_stream_also_when_it_leads() -> None:
    """SIGTERM while LND is away: nobody opens a stream that LND has not begun."""
    world = World()
    world.leads = True
    world.sent.put_nowait(None)
    assert [item async for item in world.stream.receive()] == []


async def test_a_reader_that_is_cancelled_closes_the_stream() -> None:
    """While it stands by, too."""
    world = World()
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[Item, None]:
        try:
            yield (b"a", -1, False)
            await asyncio.Event().wait()
        finally:
            closed.set()

    world.stream._source = source
    received = world.stream.receive()
    task = asyncio.ensure_future(anext(received))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5):
        await closed.wait()


def test_the_oldest_go_when_there_is_no_room_and_are_counted() -> None:
    """And none goes in silence."""
    dropped: list[str] = []
    held: Held[int] = Held(60, dropped.append, most_bytes=3 * (OVERHEAD + 10))
    for number in range(5):
        held.put(number, mark(bytes([number])), 10, others=True)
    assert dropped == ["standby-full"] * 2
    assert [held.first().item for _ in range(len(held))] == [2, 3, 4]


def test_what_is_older_than_a_lease_goes_unless_it_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that leads was not missed in that time. What came since we lead waits for us alone."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    held: Held[int] = Held(5, pytest.fail)
    held.put(1, mark(b"1"), 10, others=True)
    now = 4.9
    held.put(2, mark(b"2"), 10, others=True)
    assert len(held) == 2
    now = 5.1
    held.trim(b"")
    assert len(held) == 1
    now = 60
    held.put(3, mark(b"3"), 10, others=False)
    assert [held.first().item for _ in range(2)] == [2, 3]


def test_marks_are_told_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for whoever stands by to see them."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    marks = Marks(5)
    marks.note(b"12345678")
    now = 4
    marks.note(b"87654321")
    assert marks.told() == b"1234567887654321"
    now = 6
    assert marks.told() == b"87654321"
    for number in range(standby.MOST_MARKS + 10):
        marks.note(number.to_bytes(MARK, "big"))
    assert len(marks.told()) == standby.MOST_MARKS * MARK


Step = tuple[str, int]


@given(
    st.lists(st.tuples(st.sampled_from(["sent", "heard", "dealt", "told"]), st.integers(0, 5)), max_size=60),
    st.booleans(),
)
def test_nothing_that_nobody_has_dealt_with_is_let_go(steps: list[Step], late: bool) -> None:
    """Whatever comes when, on two streams that begin at different places, and however often the same one.

    The same message is one message: who has answered one copy of it has answered it.
    """
    own: Held[int] = Held(60, pytest.fail)
    marks = Marks(60)
    on_its_way: list[int] = []
    heard: Counter[int] = Counter()
    dealt: set[int] = set()
    for step, number in steps:
        name = mark(bytes([number]))
        match step:
            case "sent" if late or number > 1:
                on_its_way.append(number)
            case "heard" if on_its_way:
                first = on_its_way.pop(0)
                heard[first] += 1
                own.put(first, mark(bytes([first])), 1, others=True)
            case "dealt":
                dealt.add(number)
                marks.note(name)
            case "told":
                own.trim(marks.told())
    own.trim(marks.told())
    left = Counter(own.first().item for _ in range(len(own)))
    assert left == Counter({number: count for number, count in heard.items() if number not in dealt})
