"""One leads, another stands by, beside a real LND: whatever becomes of the first, every payer is answered."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.core import offers
from sidecar.core.offers import Offer
from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import LED
from tests.harness.asking import Asking
from tests.harness.lnd_process import LndProcess
from tests.harness.pair import LEASE, Pair, leads, stand_by
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage
from tests.harness.wallet import Issued, Wallet

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

RATE = 9
"""Requests a second, of the ten that one offer may have."""

BEFORE, AFTER = 6, 6
"""Requests before the fault, and after the takeover."""

REPLACED = 3
"""Invoices a second that a wallet leaves in place of one another."""

PATIENCE = 5.0
"""Seconds for the last answers."""

Act = Callable[[SidecarProcess], Awaitable[None]]
"""Something that is done to a sidecar."""


@pytest.fixture
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    """A real LND 0.21, or of the kind that a test asks for."""
    async with LndProcess(getattr(request, "param", "native"), tmp_path / "lnd") as lnd:
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


async def judge(row: Row, asking: Asking, within: float, silent: int = 0) -> None:
    """Every request but so many was answered in time, and each of its answers says the same."""
    await asking.until_answered(PATIENCE)
    unanswered = asking.unanswered()
    row.check(len(unanswered) <= silent, f"the requests of {unanswered} were never answered")
    for asked in asking.asked.values():
        if asked.answers:
            first = asked.answers[0][0]
            row.check(first <= within, f"the request of {asked.sent_at:.2f} was answered after {first:.2f} s")
            different = len({content for _, content in asked.answers})
            when = ", ".join(f"{after:.3f} s" for after, _ in asked.answers)
            row.check(
                different == 1, f"the request of {asked.sent_at:.2f} got different answers, after {when}"
            )
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
        async with Asking(await self.stage.payer(), offer, RATE) as asking:
            await self.take_turns(asking, row, within, leave, come_back)
            await judge(row, asking, within)

    async def take_turns(
        self, asking: Asking, row: Row, within: float, leave: Act, come_back: Act = stand_by
    ) -> None:
        """The same, for one who asks already."""
        one, other = self.pair.left, self.pair.right
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


@pytest.fixture
def in_turn(stage: Stage, pair: Pair, rounds: int) -> InTurn:
    """As often as it is asked for."""
    return InTurn(stage, pair, rounds)


@pytest.mark.parametrize(
    ("stage", "what"),
    [("native", ""), ("custom", ", LND 0.20")],
    indirect=["stage"],
    ids=["native", "custom"],
)
async def test_kill_9_of_the_one_that_leads(in_turn: InTurn, promise: NewRow, what: str) -> None:
    """Under load, again and again: all are answered within the lease and two seconds."""
    row = promise(LED, f"kill -9 of the leader under load{what}")
    await in_turn.run(row, LEASE + 2, SidecarProcess.kill)


@asynccontextmanager
async def replacing(wallet: Wallet, issued: Issued, offer: Offer) -> AsyncIterator[None]:
    """A wallet leaves one invoice after another, whatever becomes of them."""

    async def again_and_again() -> None:
        while True:
            await wallet.leave_invoice(issued, wallet.make_invoice(dict(offer.records)))
            await asyncio.sleep(1 / REPLACED)

    async def hear() -> None:
        while True:
            await wallet.receive()

    tasks = [asyncio.create_task(again_and_again()), asyncio.create_task(hear())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_kill_9_while_an_invoice_is_replaced(
    stage: Stage, tmp_path: Path, promise: NewRow, rounds: int
) -> None:
    """Nobody gets two invoices for one request: rather none, where the first one was replaced since."""
    row = promise(LED, "kill -9 of the leader while a wallet replaces its invoice")
    silent = 0
    options = (f"--limits.stores_per_minute={REPLACED * 120}",)
    async with Pair.running(tmp_path / "pair", stage.lnd, options) as pair:

        async def come_back(one: SidecarProcess) -> None:
            nonlocal silent
            other = pair.left if one is pair.right else pair.right
            silent += (await other.counters()).get("dropped.replayed", 0)
            await stand_by(one)

        wallet = await stage.wallet(pair.left, "alice")
        text, issued, _ = await wallet.set_up()
        offer = offers.decode_offer(text)
        async with Asking(await stage.payer(), text, RATE) as asking, replacing(wallet, issued, offer):
            in_turn = InTurn(stage, pair, rounds)
            await in_turn.take_turns(asking, row, LEASE + 2, SidecarProcess.kill, come_back)
            await judge(row, asking, LEASE + 2, silent)
    row.note += f", {silent} not answered for safety"


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
