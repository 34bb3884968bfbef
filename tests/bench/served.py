"""A real LND's requests, answered by the sidecar, and by the cheapest answerer there can be.

Each has an LND of its own, of the same settings, with the same peers; they take turns. What LND needs to
forward one message between two peers is measured beside them.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sidecar.adapters.admin_client import AdminClient
from sidecar.core.model import Quota
from tests.bench.children import Child, children, pin, processor_seconds
from tests.harness.lnd_process import LndProcess
from tests.harness.sidecar_process import SidecarProcess

WALLETS = 4

_LND = (
    "--protocol.onion-msg-relay-all",
    # No limits: it is not LND's rate limiter that is measured.
    "--protocol.onion-msg-peer-kbps=0",
    "--protocol.onion-msg-peer-burst-bytes=0",
    "--protocol.onion-msg-global-kbps=0",
    "--protocol.onion-msg-global-burst-bytes=0",
    # As README has it.
    "--debuglevel=info,OMSG=critical",
)
_SIDECAR = (
    "--limits.offer_rate=1000000",
    "--limits.offer_burst=10000",
    "--limits.client_rate=1000000",
    "--limits.client_burst=10000",
)

DERIVATIONS = {"announced": 1, "private": 2}
"""Reply paths, that begin at the payer and at LND; and the signer calls that no answerer is spared."""

_SATURATED = 0.8
"""A part of the offered load: who answers less of it has no more to give."""

_MOST_A_SECOND = 400
"""Requests that are made ahead for a second without a rate."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: seconds of each run, and how often."""

    rates: Sequence[int]
    rise_seconds: float
    window: int
    """Requests that are under way at all times, where an answerer is to be as busy as can be."""
    rounds: int
    full_seconds: float
    half_rounds: int
    half_seconds: float


FULL = Effort(
    rates=(25, 50, 100, 150, 200, 250),
    rise_seconds=2,
    window=32,
    rounds=3,
    full_seconds=3,
    half_rounds=3,
    half_seconds=4,
)
QUICK = Effort(
    rates=(10, 20), rise_seconds=1, window=4, rounds=1, full_seconds=1, half_rounds=1, half_seconds=1
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `latencies` in seconds, from when a request was due; `processor` seconds by who used them."""

    sent: int
    answered: int
    forwarded: int
    offered_a_second: float
    a_second: float
    latencies: list[float]
    processor: dict[str, float]
    counted: dict[str, int] = field(default_factory=dict)
    """The sidecar's own count of what it did: `lnd.DeriveSharedKey`, `store.read` and others."""
    bytes: dict[str, int] = field(default_factory=dict)

    def used(self, who: str) -> float:
        """Milliseconds of the processor for each answered request."""
        return self.processor[who] * 1000 / self.answered if self.answered else math.nan


@dataclass(slots=True)
class Lane:
    """What one contestant did in one case: as busy as can be, and at half of the sidecar's most."""

    full: list[Sample] = field(default_factory=list)
    half: list[Sample] = field(default_factory=list)
    alone: list[Sample] = field(default_factory=list)
    """One request at a time."""

    @property
    def a_second(self) -> float:
        """The median of the rounds."""
        return statistics.median(each.a_second for each in self.full)

    def latencies(self) -> list[float]:
        """At half load, all rounds."""
        return [each for sample in self.half for each in sample.latencies]

    @property
    def lost(self) -> int:
        """What got no answer at half load; a percentile does not show it."""
        return sum(sample.sent - sample.answered for sample in self.half)

    def used(self, who: str, *, half: bool = True) -> float:
        """Milliseconds of the processor for each answered request: the median of the rounds."""
        return statistics.median(each.used(who) for each in (self.half if half else self.full))

    def counted(self, what: str) -> float:
        """How often the sidecar did something, for each answered request."""
        samples = [*self.full, *self.half]
        return sum(each.counted.get(what, 0) for each in samples) / sum(each.answered for each in samples)


@dataclass(slots=True)
class Placed:
    """All lanes of one placement, by contestant and reply path."""

    lanes: dict[tuple[str, str], Lane] = field(default_factory=dict)
    half_rate: float = 0

    def lane(self, contestant: str, shape: str) -> Lane:
        """Made at its first use."""
        return self.lanes.setdefault((contestant, shape), Lane())

    def answered_ratio(self, shape: str) -> float:
        """The sidecar's answers over the cheapest's: the median of the rounds."""
        pairs = zip(self.lane("sidecar", shape).full, self.lane("cheapest", shape).full, strict=True)
        return statistics.median(ours.a_second / theirs.a_second for ours, theirs in pairs)


@dataclass(slots=True)
class Found:
    """All that was measured."""

    ramp: list[tuple[str, Sample]] = field(default_factory=list)
    """Contestant, and what came of a rising load; reply paths that begin at the payer."""
    placed: dict[str, Placed] = field(default_factory=dict)


class Scene:
    """Two LNDs with their peers, the sidecar at one and the cheapest answerer at the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()
        self._lnds = {name: LndProcess("native", folder / name, protocol=_LND) for name in ("ours", "theirs")}
        self._loads = {name: Child("tests.bench.load") for name in self._lnds}
        self._cheapest = Child("tests.bench.cheapest")
        self._sidecar = SidecarProcess(folder / "sidecar", self._lnds["ours"], options=_SIDECAR)
        self._idle: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        for each in (*self._lnds.values(), *self._loads.values(), self._cheapest, self._sidecar):
            await self._stack.enter_async_context(each)
        await self._connect("ours", self._sidecar)
        other = SidecarProcess(self._folder / "other", self._lnds["theirs"])
        async with other:
            # It gives the offers their paths, and is gone when they are asked for.
            wallets = await self._connect("theirs", other)
        before, after = await self._count(), await self._count()
        self._idle = {name: after[name] - before.get(name, 0) for name in after}
        first = await self.sample("sidecar", "announced", count=WALLETS * 4, window=1, seconds=10)
        lnd = self._lnds["theirs"]
        await self._cheapest.ask(
            "connect",
            host=lnd.host,
            tls=str(lnd.tls_path),
            macaroon=str(lnd.macaroon_path),
            wallets=wallets,
            forward=first.bytes["forward"],
            answer=first.bytes["answer"],
        )

    async def _connect(self, name: str, sidecar: SidecarProcess) -> Any:
        def add() -> list[str]:
            with AdminClient(sidecar.datadir) as admin:
                return [admin.add(f"wallet-{number}", Quota()).paths.hex() for number in range(WALLETS)]

        lnd, paths = self._lnds[name], await asyncio.to_thread(add)
        told = await self._loads[name].ask("connect", node=lnd.node_id.hex(), port=lnd.p2p_port, paths=paths)
        return told["wallets"]

    async def _count(self) -> dict[str, int]:
        def ask() -> dict[str, int]:
            with AdminClient(self._sidecar.datadir) as admin:
                return {each.name: each.count for each in admin.status().seconds}

        return await asyncio.to_thread(ask)

    def place(self, lnd: set[int], others: set[int]) -> None:
        """Give both LNDs these cores, and all else those."""
        for each in self._lnds.values():
            pin(each.pid, lnd)
        rest = [os.getpid(), self._sidecar.pid, self._cheapest.pid, *children(self._sidecar.pid)]
        for pid in (*rest, *(each.pid for each in self._loads.values())):
            pin(pid, others)

    async def prepare(self, shape: str, count: int) -> None:
        """Make the next requests at both LNDs, for `sample` without a count."""
        await asyncio.gather(
            *(each.ask("prepare", shape=shape, count=count) for each in self._loads.values())
        )

    async def sample(self, contestant: str, shape: str, count: int = 0, **how: float) -> Sample:
        """One run of sidecar, cheapest or lnd; `how`: tests.bench.load.Load.run's arguments."""
        ours = contestant == "sidecar"
        load = self._loads["ours" if ours else "theirs"]
        if count:
            await load.ask("prepare", shape=shape, count=count)
        if contestant == "cheapest":
            await self._cheapest.ask("follow", derivations=DERIVATIONS[shape])
        pids = self._pids(contestant)
        counted = await self._count() if ours else {}
        before = {who: processor_seconds(pid) for who, pid in pids.items()}
        told = await load.ask("run", check=ours, mail=contestant != "lnd", **how)
        used = {who: processor_seconds(pid) - before[who] for who, pid in pids.items()}
        after = await self._count() if ours else {}
        if contestant == "cheapest":
            await self._cheapest.ask("follow", derivations=0)
        return Sample(
            sent=told["sent"],
            answered=told["answered"],
            forwarded=told["forwarded"],
            offered_a_second=told["offered_a_second"],
            a_second=told["a_second"],
            latencies=told["latencies"],
            processor=used,
            # Asking for the counts is counted, too.
            counted={name: after[name] - counted.get(name, 0) - self._idle.get(name, 0) for name in after},
            bytes=told["bytes"],
        )

    def _pids(self, contestant: str) -> dict[str, int]:
        if contestant == "sidecar":
            redis = dict(zip(("redis",), children(self._sidecar.pid), strict=True))
            pids = {"lnd": self._lnds["ours"].pid, "own": self._sidecar.pid, **redis}
            return pids | {"load": self._loads["ours"].pid}
        pids = {"lnd": self._lnds["theirs"].pid, "load": self._loads["theirs"].pid}
        return pids | ({"own": self._cheapest.pid} if contestant == "cheapest" else {})


async def measure(scene: Scene, effort: Effort) -> Found:
    """Rising load, then all cases in all placements."""
    found = Found()
    for contestant in ("sidecar", "cheapest"):
        for rate in effort.rates:
            count = int(rate * effort.rise_seconds)
            sample = await scene.sample(contestant, "announced", count, rate=rate)
            found.ramp.append((contestant, sample))
            if sample.a_second < _SATURATED * sample.offered_a_second:
                break
    for name, (lnd, others) in placements().items():
        scene.place(lnd, others)
        # What a signer call more costs is seen in one placement.
        shapes = list(DERIVATIONS) if name == "shared" else ["announced"]
        found.placed[name] = await _placed(scene, effort, shapes)
    return found


def placements() -> dict[str, tuple[set[int], set[int]]]:
    """Cores of LND and of all else: all for all, and one for LND alone where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    found = {"shared": (set(cores), set(cores))}
    return found | ({"apart": ({cores[0]}, set(cores[1:]))} if len(cores) > 1 else {})


async def _placed(scene: Scene, effort: Effort, shapes: Sequence[str]) -> Placed:
    placed = Placed()
    both = ["sidecar", "cheapest"]
    for number in range(effort.rounds):
        for shape in shapes:
            await scene.prepare(shape, int(effort.full_seconds * _MOST_A_SECOND))
            # Whose turn is first changes: nobody is always the one to whom the machine is warm.
            for contestant in reversed(both) if number % 2 else both:
                sample = await scene.sample(
                    contestant, shape, window=effort.window, seconds=effort.full_seconds
                )
                placed.lane(contestant, shape).full.append(sample)
    placed.half_rate = rate = placed.lane("sidecar", "announced").a_second / 2
    count = max(10, int(rate * effort.half_seconds))
    at_half = [("sidecar", shape) for shape in shapes] + [("cheapest", "announced"), ("lnd", "forward")]
    for number in range(effort.half_rounds):
        for contestant, shape in reversed(at_half) if number % 2 else at_half:
            sample = await scene.sample(contestant, shape, count, rate=rate)
            placed.lane(contestant, shape).half.append(sample)
    for contestant, shape in (("lnd", "forward"), ("cheapest", "announced"), ("sidecar", "announced")):
        placed.lane(contestant, shape).alone.append(
            await scene.sample(contestant, shape, 50, window=1, seconds=effort.full_seconds)
        )
    return placed


async def _run(effort: Effort) -> Found:
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        try:
            async with Scene(Path(folder)) as scene:
                return await measure(scene, effort)
        finally:
            pin(os.getpid(), cores)


def run(effort: Effort) -> Found:
    """Start all, measure, stop all. Raises BuildError, LndError, ChildError."""
    return asyncio.run(_run(effort))
