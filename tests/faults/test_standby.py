"""One leads, another stands by, beside a real LND: whatever becomes of the first, every payer is answered."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import LED
from tests.harness.asking import Asking
from tests.harness.lnd_process import LndProcess
from tests.harness.pair import LEASE, Pair, leads, stand_by
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

RATE = 9
"""Requests a second, of the ten that one offer may have."""

BEFORE, AFTER = 6, 6
"""Requests before the fault, and after the takeover."""

PATIENCE = 5.0
"""Seconds for the last answers."""

Act = Callable[[SidecarProcess], Awaitable[None]]
"""Something that is done to a sidecar."""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A real LND 0.21."""
    async with LndProcess("native", tmp_path / "lnd") as lnd:
        yield Stage(lnd)


@pytest.fixture
async def pair(stage: Stage, tmp_path: Path) -> AsyncIterator[Pair]:
    """The left one leads."""
    async with Pair.running(tmp_path, stage.lnd) as pair:
        yield pair


async def an_offer(stage: Stage, pair: Pair) -> str:
    """Of a wallet that has left its invoice and is away."""
    wallet = await stage.wallet(pair.left, "alice")
    offer, _, _ = await wallet.set_up()
    await wallet.link.close()
    return offer


async def took_over(row: Row, since: float, within: float, other: SidecarProcess) -> None:
    """The other one leads now; `since` is when the one that led was ended."""
    await leads(other)
    row.was_out(since)
    row.check(row.outages[-1] <= within, f"took over after {row.outages[-1]:.2f} s")


async def judge(row: Row, asking: Asking, within: float) -> None:
    """Every request was answered in time, and each of its answers says the same."""
    await asking.until_answered(PATIENCE)
    for asked in asking.asked.values():
        row.check(asked.answers, f"the request of {asked.sent_at:.2f} was never answered")
        if asked.answers:
            first = asked.answers[0][0]
            row.check(first <= within, f"the request of {asked.sent_at:.2f} was answered after {first:.2f} s")
            different = len({content for _, content in asked.answers})
            row.check(different == 1, f"the request of {asked.sent_at:.2f} got {different} different answers")
    twice = sum(len(asked.answers) > 1 for asked in asking.asked.values())
    row.note = f"{len(asking.asked)} requests, {twice} answered twice, slowest {asking.slowest():.2f} s"


@dataclass(frozen=True, slots=True)
class InTurn:
    """Under load the one that leads leaves, the other takes over, and the first comes back: and again."""

    stage: Stage
    pair: Pair
    rounds: int

    async def run(self, row: Row, within: float, leave: Act, come_back: Act = stand_by) -> None:
        """Every request is answered `within` seconds."""
        offer = await an_offer(self.stage, self.pair)
        one, other = self.pair.left, self.pair.right
        async with Asking(await self.stage.payer(), offer, RATE) as asking:
            for _ in range(self.rounds):
                await asking.until_asked(BEFORE)
                since = time.monotonic()
                other.lines.clear()
                leaving = asyncio.ensure_future(leave(one))
                await took_over(row, since, within, other)
                await leaving
                await asking.until_asked(AFTER)
                await come_back(one)
                one, other = other, one
            await judge(row, asking, within)


@pytest.fixture
def in_turn(stage: Stage, pair: Pair, rounds: int) -> InTurn:
    """As often as it is asked for."""
    return InTurn(stage, pair, rounds)


async def test_kill_9_of_the_one_that_leads(in_turn: InTurn, promise: NewRow) -> None:
    """Under load, again and again: all are answered within the lease and two seconds."""
    row = promise(LED, "kill -9 of the leader under load")
    await in_turn.run(row, LEASE + 2, SidecarProcess.kill)


async def test_a_rolling_update(in_turn: InTurn, promise: NewRow) -> None:
    """SIGTERM under load, again and again: nobody waits for a lease to run out."""
    row = promise(LED, "SIGTERM of the leader under load")

    async def stop(one: SidecarProcess) -> None:
        row.check(await one.stop() == 0, "did not stop in order")

    await in_turn.run(row, 2, stop)


async def test_a_leader_that_is_held_up(in_turn: InTurn, promise: NewRow) -> None:
    """SIGSTOP for longer than the lease, under load: it steps down, and answers nothing otherwise."""
    row = promise(LED, "SIGSTOP of the leader under load")

    async def freeze(one: SidecarProcess) -> None:
        os.kill(one.pid, signal.SIGSTOP)

    async def thaw(one: SidecarProcess) -> None:
        one.lines.clear()
        os.kill(one.pid, signal.SIGCONT)
        await one.line(lambda line: " standing by: " in line)

    await in_turn.run(row, LEASE + 2, freeze, thaw)
