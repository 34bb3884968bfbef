"""The rounds themselves: `sidecar serve` in a process of its own, with its embedded Redis on a disk.

The simulated LND is in this one, over real gRPC. What it streams was made before the round, and how late
it streams is noted: else a slow load would pass for a slow sidecar, or hide one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sidecar.core import keys, offers
from sidecar.rpc import lightning_pb2 as ln
from tests.bench import isolation_floods
from tests.bench.children import processor_seconds
from tests.bench.isolation import Cycle, Effort, Found, Round
from tests.bench.isolation_floods import PEERS, Flood, Opener, Question, Target
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import SimLink
from tests.harness.stage import Stage

OTHERS = 12
"""Clients that nobody floods, each with an offer and a payer; their wallets are offline, as most are."""

PACE = 5.0
"""Requests a second for each one's offer: half of what it is allowed."""

PATIENCE = 5.0
"""Seconds for an answer; what takes longer is lost."""

_SETTLE = 0.3
"""Seconds for what a flood has left in hand, before the next round."""


class Unkept(Exception):
    """Letters for the others' wallets are missing; the text says how many."""


class WatchedPeer(SimLink):
    """A payer that only notes when LND is told to send it something."""

    def __init__(self, lnd: SimulatedLnd, node_id: bytes) -> None:
        super().__init__(lnd.node, node_id, (39,), inbound=True)
        self.told: dict[bytes, float] = {}

    def deliver(self, type_: int, data: bytes) -> None:  # noqa: ARG002 - a payer gets nothing but onions
        """Note it by its path_key."""
        self.told[data[:33]] = time.perf_counter()


class Scene:
    """LND, the sidecar, and all clients."""

    def __init__(self, lnd: SimulatedLnd, sidecar: SidecarProcess) -> None:
        self._lnd, self._sidecar = lnd, sidecar
        self._opener = Opener(lnd)
        self._others: list[tuple[WatchedPeer, Target]] = []
        self._targets: dict[Flood, Target] = {}
        self._pools: dict[Flood, list[ln.OnionMessageUpdate]] = {}
        self._flooders: list[bytes] = []
        self._random = random.Random(66)

    async def set_up(self, others_count: int) -> None:
        """Every client leaves an invoice; all wallets but one go offline."""
        stage = Stage(self._lnd)
        targets = []
        for number in range(others_count + 2):
            wallet = await stage.wallet(self._sidecar, f"client-{number}")
            offer, _, _ = await wallet.set_up()
            targets.append(Target(wallet, offers.decode_offer(offer)))
        *others, offline, online = targets
        for target in (*others, offline):
            await target.wallet.link.close()
        self._targets = {flood: online if flood is Flood.ONLINE else offline for flood in Flood}
        # It takes what it is sent, and reads none of it: that is the wallet's work, not ours.
        self._awake = self._lnd.node.peers[online.wallet.node_id]
        self._awake.suspended = True
        for _ in range(PEERS):
            flooder = await self._lnd.connect_peer(os.urandom(32))
            flooder.suspended = True
            self._flooders.append(flooder.node_id)
        for target in others:
            secret = os.urandom(32)
            await self._lnd.connect_peer(secret)
            payer = WatchedPeer(self._lnd, keys.public_key(secret))
            self._lnd.node.peers[payer.node_id] = payer
            self._others.append((payer, target))

    def prepare(self, flood: Flood, effort: Effort) -> float:
        """Make what a flood sends; how many of it a second."""

        def made(count: int) -> list[ln.OnionMessageUpdate]:
            return isolation_floods.make(flood, self._opener, self._targets[flood], self._flooders, count)

        rate = isolation_floods.rate_of(flood, made(1)[0])
        self._pools[flood] = made(round(rate * effort.round))
        return rate

    async def round(self, effort: Effort, flood: Flood | None) -> Round:
        """One round."""
        questions = [
            (at, payer, self._opener.question(payer.node_id, target.offer))
            for at, (payer, target) in zip(self._steady(effort), self._in_turn(), strict=False)
        ]
        pool = [] if flood is None else self._random.sample(self._pools[flood], len(self._pools[flood]))
        for payer, _ in self._others:
            payer.told.clear()
        with no_garbage_collection():
            before = processor_seconds(self._sidecar.pid)
            sent = await self._stream(questions, [*self._scattered(effort, pool)])
            used = processor_seconds(self._sidecar.pid) - before
            await self._answered(questions)
        await asyncio.sleep(_SETTLE)
        return _judged(effort, questions, sent, used / effort.round)

    def _in_turn(self) -> Iterator[tuple[WatchedPeer, Target]]:
        while True:
            yield from self._others

    def _steady(self, effort: Effort) -> list[float]:
        """When the others are asked: at their pace, each time somewhere in its own fraction of a second."""
        pace = PACE * len(self._others)
        return [(at + self._random.random()) / pace for at in range(round(pace * effort.round))]

    def _scattered(
        self, effort: Effort, pool: Sequence[ln.OnionMessageUpdate]
    ) -> Iterator[tuple[float, ln.OnionMessageUpdate]]:
        for update in pool:
            yield self._random.uniform(0, effort.round), update

    async def _stream(
        self,
        questions: Sequence[tuple[float, WatchedPeer, Question]],
        flood: Sequence[tuple[float, ln.OnionMessageUpdate]],
    ) -> dict[bytes, tuple[float, float]]:
        """Stream all in due time, whatever is answered. When each was due and streamed, by its answer."""
        asked = [(at, question.update, question.answer) for at, _, question in questions]
        due = sorted([*asked, *((at, update, b"") for at, update in flood)], key=lambda each: each[0])
        sent = {}
        start = time.perf_counter()
        for at, update, answer in due:
            if (wait := start + at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._lnd.node.onions.send(update)
            self._awake.bytes_recv += 1  # it shows life, as a wallet does that answers
            if answer:
                sent[answer] = (start + at, time.perf_counter())
        return sent

    async def _answered(self, questions: Sequence[tuple[float, WatchedPeer, Question]]) -> None:
        end = time.perf_counter() + PATIENCE
        while time.perf_counter() < end:
            if all(question.answer in payer.told for _, payer, question in questions):
                return
            await asyncio.sleep(0.02)

    async def counters(self) -> dict[str, int]:
        """What the sidecar counted."""
        return await self._sidecar.counters()


def _judged(
    effort: Effort,
    questions: Sequence[tuple[float, WatchedPeer, Question]],
    sent: dict[bytes, tuple[float, float]],
    cpu: float,
) -> Round:
    found = Round(cpu=cpu)
    for at, payer, question in questions:
        due, streamed = sent[question.answer]
        found.late.append(streamed - due)
        told = payer.told.get(question.answer)
        if told is None:
            found.lost += 1
        (found.at_onset if at < effort.onset else found.times).append(
            PATIENCE if told is None else told - streamed
        )
    return found


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """The load's own pauses are nobody's latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@asynccontextmanager
async def scene(directory: Path, others: int = OTHERS) -> AsyncIterator[Scene]:
    """All of it, set up."""
    async with (
        SimulatedLnd(directory / "lnd") as lnd,
        SidecarProcess(directory / "sidecar", lnd) as sidecar,
    ):
        made = Scene(lnd, sidecar)
        await made.set_up(others)
        yield made


async def measure(effort: Effort) -> Found:
    """Every flood in every cycle, and a round without before each two."""
    found = Found()
    with TemporaryDirectory(prefix="isolation-") as directory:
        async with scene(Path(directory)) as on:
            found.rates = {flood: on.prepare(flood, effort) for flood in (*effort.floods, *effort.beside)}
            await on.round(effort, None)  # what is met for the first time is not measured
            for _ in range(effort.cycles):
                cycle = Cycle()
                for number, flood in enumerate(effort.floods):
                    if number % 2 == 0:
                        cycle.quiet.append(await on.round(effort, None))
                    cycle.flooded[flood] = await on.round(effort, flood)
                found.cycles.append(cycle)
            found.beside = {flood: await on.round(effort, flood) for flood in effort.beside}
            found.counters = await on.counters()
    _check(found)
    return found


def _check(found: Found) -> None:
    """Raise Unkept unless every request of the others was a letter: else less was measured than is said."""
    rounds = [each for cycle in found.cycles for each in (*cycle.quiet, *cycle.flooded.values())]
    rounds += found.beside.values()
    asked = sum(len(each.late) for each in rounds)
    if (kept := found.counters.get("kept.invoice_request", 0)) < asked:
        raise Unkept(f"of {asked} requests of the others {kept} were kept")
