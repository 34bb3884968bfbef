"""Who leads, as one process knows it: over a store in memory whose answers the test decides."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from sidecar import lease as leases
from sidecar.core.errors import NotLeading, StoreUnavailable
from sidecar.lease import Lease
from sidecar.ports import Claim, Grant

OTHER = Grant(ours=False, name="other", fence=8, done={"onions": b"elsewhere"})
NOBODY = Grant(ours=False, name="", fence=8, done={})
OURS = Grant(ours=True, name="own", fence=9, done={"onions": b"before"}, released=False)


@dataclass
class Answers:
    """A LeaseStore that says what it is told to say; None: it is away."""

    answer: Grant | None = NOBODY
    held: bool = False
    claims: list[Claim] = field(default_factory=list)
    released: list[tuple[Claim, bool]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, claim: Claim, _: int) -> Grant:
        """The answer of now."""
        self.claims.append(claim)
        self.asked.set()
        if self.answer is None:
            raise StoreUnavailable("away")
        return self.answer

    async def release(self, claim: Claim, *, drained: bool) -> bool:
        """Noted."""
        self.released.append((claim, drained))
        return self.held

    async def again(self, times: int = 2) -> None:
        """Wait until it was asked so many times more."""
        for _ in range(times):
            self.asked.clear()
            await self.asked.wait()


class World:
    """A lease with its surroundings."""

    def __init__(self, seconds: int = 60) -> None:
        self.store = Answers()
        self.hears = True
        self.told: list[Mapping[str, bytes]] = []
        self.done: Mapping[str, bytes] = {"onions": b"own"}
        self.lease = Lease(
            self.store,
            holder="aa" * 16,
            name="own",
            seconds=seconds,
            hears=lambda: self.hears,
            done=lambda: self.done,
            told=self.told.append,
        )

    @asynccontextmanager
    async def running(self, former: str = "") -> AsyncIterator[None]:
        """It asks."""
        task = asyncio.create_task(self.lease.run(former))
        async with asyncio.timeout(10):
            yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks every 10 ms."""
    monkeypatch.setattr(leases, "SHORTEST", 0.01)
    monkeypatch.setattr(leases, "LONGEST", 0.01)


async def test_it_stands_by_until_the_store_says_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    """It says who leads, passes on what that one has dealt with, and at last takes over."""
    caplog.set_level(logging.INFO, "sidecar.lease")
    world = World()
    world.store.answer = OTHER
    async with world.running():
        await world.store.again()
        assert (world.lease.leads, world.lease.leader, world.told[-1]) == (False, "other", OTHER.done)
        with pytest.raises(NotLeading):
            await world.lease.confirmed()
        assert world.store.claims[-1].done == {}
        world.store.answer = OURS
        await world.lease.until_leading()
        assert (world.lease.leader, world.lease.after, world.lease.clean) == ("own", "other", False)
        assert world.told[-1] == OURS.done
        assert await world.lease.confirmed() == OURS.fence
        await world.store.again()
        assert world.store.claims[-1].done == {"onions": b"own"}
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert "standing by: other leads" in said[0]
    assert "leading: took over from other" in said[1]


async def test_with_the_store_away_it_leads_on_and_is_not_valid_for_long() -> None:
    """What needs no store goes on; what does is refused as soon as another one may lead."""
    world = World(seconds=1)
    world.store.answer = OURS
    async with world.running():
        await world.lease.until_leading()
        world.store.answer = None
        assert await world.lease.confirmed() == OURS.fence
        while world.lease.valid:
            await world.store.again(1)
        assert world.lease.leads
        with pytest.raises(StoreUnavailable):
            await world.lease.confirmed()
        world.store.answer = OURS
        assert await world.lease.confirmed() == OURS.fence
        world.store.answer = OTHER
        await world.lease.until_lost()
        assert (world.lease.leads, world.lease.leader) == (False, "other")


@pytest.mark.parametrize("lost", [False, True], ids=["led", "store-lost-all"])
async def test_while_it_was_held_up_another_one_led_and_is_gone(*, lost: bool) -> None:
    """What it reads late may be answered already: for a while it does nothing that must be done once."""
    world = World(seconds=1)
    world.store.answer = OURS
    async with world.running():
        await world.lease.until_leading()
        world.store.answer = replace(OURS, fence=11, released=lost, done={} if lost else OURS.done)
        await world.store.again()
        assert world.lease.leads
        assert world.lease.valid is lost
        await world.lease.not_replaced()
        if not lost:
            with pytest.raises(NotLeading):
                await world.lease.confirmed()
        while not world.lease.valid:
            await world.store.again(1)
        assert await world.lease.confirmed() == 11


async def test_it_is_counted_from_before_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that took longer than the lease is worth nothing."""
    world = World(seconds=1)
    world.store.answer = OURS
    take = world.store.take

    async def slow(claim: Claim, ms: int) -> Grant:
        await asyncio.sleep(1.05)
        return await take(claim, ms)

    monkeypatch.setattr(world.store, "take", slow)
    async with world.running():
        await world.lease.until_leading()
        assert not world.lease.valid


async def test_the_deaf_do_not_begin_and_are_not_valid() -> None:
    """While LND streams nothing to it, another one may take over at any moment."""
    world = World()
    world.hears = False
    world.store.answer = OURS
    async with world.running():
        await world.store.again()
        assert (world.lease.leads, world.store.claims[-1].hears) == (False, False)
        world.hears = True
        await world.lease.until_leading()
        world.hears = False
        await world.store.again()
        assert world.lease.leads
        with pytest.raises(NotLeading):
            await world.lease.confirmed()
        world.hears = True
        assert await world.lease.confirmed() == OURS.fence
        # Nobody leads: LND is away for all, and nobody takes over.
        world.store.answer = NOBODY
        await world.store.again()
        assert world.lease.leads


async def test_a_last_life_of_its_own_leads_no_more_and_others_go_first() -> None:
    """Who stood by heard what came since: it is asked before this one."""
    world = World()
    world.store.answer, world.store.held = OURS, True
    async with world.running("bb" * 16):
        await world.lease.until_leading()
        ended, drained = world.store.released[0]
        assert (ended.holder, drained) == ("bb" * 16, False)
        # What it had in hand came before the streams of now: all that is held is nobody else's.
        assert world.lease.clean
        waited = [claim for claim in world.store.claims if not claim.hears]
        assert waited
        assert world.store.claims[: len(waited)] == waited


async def test_a_last_life_that_had_no_lease_makes_nobody_wait() -> None:
    """It asks as any other."""
    world = World()
    world.store.answer = OURS
    async with world.running("bb" * 16):
        await world.lease.until_leading()
        assert world.store.claims[0].hears
        assert not world.lease.clean


async def test_it_lets_go_once_and_asks_no_more() -> None:
    """With all that is dealt with; from then on it changes nothing, and goes on with what is in hand."""
    world = World()
    world.store.answer = OURS
    async with world.running():
        await world.lease.until_leading()
        await world.lease.release(drained=True)
        claim, drained = world.store.released[0]
        assert (claim.done, drained) == ({"onions": b"own"}, True)
        asked = len(world.store.claims)
        assert world.lease.leads
        # What is in hand, or a proof that a letter arrived, must not take it back from its successor.
        with pytest.raises(NotLeading):
            await world.lease.confirmed()
        await world.lease.not_replaced()
    await asyncio.sleep(0.05)
    assert len(world.store.claims) == asked


async def test_what_becomes_ours_while_we_stop_is_let_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands by is stopped just when it takes over: the next one need not wait for it."""
    world = World()
    world.store.answer = OTHER
    take = world.store.take
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(claim: Claim, ms: int) -> Grant:
        asked.set()
        await answered.wait()
        return await take(claim, ms)

    monkeypatch.setattr(world.store, "take", slow)
    async with world.running():
        await asked.wait()
        world.store.answer = OURS
        releasing = asyncio.create_task(world.lease.release(drained=True))
        await asyncio.sleep(0)
        answered.set()
        await releasing
    # What it holds, it has not dealt with.
    assert [drained for _, drained in world.store.released] == [False]


async def test_one_that_was_replaced_answers_nothing_and_one_that_was_not_goes_on() -> None:
    """It was held up for longer than the lease: the store knows, and is asked only then."""
    world = World()
    world.store.answer = OURS
    async with world.running():
        await world.lease.until_leading()
    asked = len(world.store.claims)
    await world.lease.not_replaced()
    assert len(world.store.claims) == asked
    world.lease._until = float("-inf")
    world.hears = False
    # LND streams nothing to it for a moment: no other one has taken over.
    await world.lease.not_replaced()
    world.store.answer = OTHER
    with pytest.raises(NotLeading):
        await world.lease.not_replaced()


async def test_one_that_stands_by_lets_nothing_go() -> None:
    """There is nothing to let go."""
    world = World()
    world.store.answer = OTHER
    async with world.running():
        await world.store.again()
        await world.lease.release(drained=True)
        assert world.store.released == []


async def test_many_who_want_to_know_ask_once() -> None:
    """A store that is slow is not asked by each message in hand."""
    world = World(seconds=1)
    world.store.answer = OURS
    async with world.running():
        await world.lease.until_leading()
    world.lease._until = float("-inf")
    before = len(world.store.claims)
    assert await asyncio.gather(*(world.lease.confirmed() for _ in range(20))) == [OURS.fence] * 20
    assert len(world.store.claims) == before + 1


async def test_one_that_has_nothing_new_to_tell_asks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each renewal is an fsync, also on a box where nobody else would ever lead."""
    monkeypatch.setattr(leases, "IDLE", 100_000)
    world = World()
    world.store.answer = OURS
    async with world.running():
        # The first one brings it the lease, the second one tells what it has done by then.
        await world.store.again(2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await world.store.again(1)
        world.done = {"onions": b"more"}
        world.lease.hurry()
        await world.store.again(1)
        assert world.store.claims[-1].done == {"onions": b"more"}
