"""What more clients cost: a request, Redis's memory and files, and a start, at each size ten times the last.

A request's part that could grow is asked of a Redis with few clients and of one with many in turn, round
by round, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_store import RedisStore
from sidecar.allowances import Allowances, Defaults
from sidecar.bindings import Bindings
from sidecar.core.limits import Rate
from sidecar.core.model import Limits
from tests.bench.children import processor_seconds
from tests.bench.growth_fill import Population, fill
from tests.harness.redis_process import RedisProcess
from tests.harness.resident import resident
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd

LIMITS = Limits(20, 1 << 20, 14 * 86_400, 10, 100, 100, 100, 100, 1 << 20)
START_SECONDS = 120.0


@dataclass(slots=True)
class Size:
    """What was found at one size; times in µs unless the name says seconds."""

    clients: int
    slots: int
    redis: str
    bytes_per_invoice: float = 0.0
    over_payload: float = 0.0
    cpu: list[float] = field(default_factory=list)
    """Of each round: the sidecar's processor time for one request."""
    wall: list[float] = field(default_factory=list)
    redis_cpu: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Of each round: `cpu` ÷ what the same round cost with few clients."""
    refresh_cpu_seconds: float = 0.0
    refresh_seconds: float = 0.0
    file_per_invoice: float = 0.0
    restart_seconds: float = 0.0
    start: Start | None = None

    @property
    def ratio(self) -> float:
        """The median over rounds."""
        return statistics.median(self.ratios)


@dataclass(frozen=True, slots=True)
class Start:
    """A start of `sidecar serve` until its ready line."""

    seconds: float
    cpu_seconds: float
    mib: float


class Stage:
    """A Redis with a population, and what a sidecar knows of it."""

    def __init__(self, redis: RedisProcess, people: Population) -> None:
        self.redis, self.people, self.clients = redis, people, 0
        self.store = RedisStore(connect_socket(redis.socket), people.node_id, waitaof=False)
        self.bindings = Bindings(self.store, Counter())
        defaults = Defaults(LIMITS, Rate(10, 100), 86_400, 1 << 30)
        self.allowances = Allowances(self.store, defaults, Counter())
        self._empty = 0

    async def info(self, section: str) -> dict[str, Any]:
        """INFO."""
        async with Redis(unix_socket_path=str(self.redis.socket)) as client:
            found: dict[str, Any] = await client.info(section)
            return found

    async def command(self, *words: str) -> None:
        """What an operator would type."""
        async with Redis(unix_socket_path=str(self.redis.socket)) as client:
            await client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def grow(self, clients: int) -> None:
        """Have so many, and know them."""
        if not self._empty:
            await self.store.load(bytes(10), 0)
            self._empty = int((await self.info("memory"))["used_memory"])
        await fill(self.redis.socket, self.people, range(self.clients, clients))
        self.clients = clients

    async def refresh(self) -> None:
        """What the sidecar does at its start, and again and again."""
        await self.bindings.refresh()
        await self.allowances.refresh()

    async def memory(self, size: Size) -> None:
        """How much of it is the clients'."""
        used = int((await self.info("memory"))["used_memory"]) - self._empty
        size.bytes_per_invoice = used / (size.clients * size.slots)
        size.over_payload = size.bytes_per_invoice / self.people.payload

    async def redis_seconds(self) -> float:
        """Processor time of Redis."""
        found = await self.info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    async def requests(self, numbers: Sequence[tuple[int, int]]) -> None:
        """As much of each request as could grow with the number of clients."""
        for number, slot in numbers:
            client_id = self.bindings.client_of(self.people.wallet(number))
            assert client_id is not None
            assert not self.allowances.is_paused(client_id)
            assert self.allowances.limits_of(client_id) is LIMITS
            loaded = await self.store.load(client_id, slot)
            assert loaded.invoice is not None
            assert loaded.invoice.invoice == self.people.invoice


async def round_of(few: Stage, many: Stage, size: Size, each: int) -> None:
    """Ask both, random clients of each; who is first changes."""
    found: dict[Stage, float] = {}
    for stage in random.sample([few, many], 2):
        numbers = [
            (random.randrange(stage.clients), random.randrange(stage.people.slots)) for _ in range(each)
        ]
        redis, wall, cpu = await stage.redis_seconds(), time.perf_counter(), time.process_time()
        await stage.requests(numbers)
        found[stage] = (time.process_time() - cpu) / each * 1e6
        if stage is many:
            size.cpu.append(found[stage])
            size.wall.append((time.perf_counter() - wall) / each * 1e6)
            size.redis_cpu.append((await stage.redis_seconds() - redis) / each * 1e6)
    size.ratios.append(found[many] / found[few])


@contextlib.asynccontextmanager
async def staged(people: Population, executable: Path | None = None) -> AsyncIterator[Stage]:
    """A Redis of its own, that writes no file before it is told to."""
    # Not under pytest's long names: a socket's path may have a hundred bytes.
    folder = Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        redis = RedisProcess(folder, executable, appendonly=False, start_seconds=START_SECONDS)
        async with redis:
            stage = Stage(redis, people)
            yield stage
            await stage.store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done."""

    sizes: Sequence[int]
    few: int
    rounds: int
    each: int
    starts: bool = True
    said: Callable[[str], None] = lambda _: None


async def measure(plan: Plan, newer: Path | None) -> tuple[Population, list[Size]]:
    """All sizes with a slot for each client; then ten slots for each, and the other Redis, at one size."""
    folder = Path(tempfile.mkdtemp(prefix="growth-lnd-"))
    try:
        async with SimulatedLnd(folder) as lnd:
            people = Population.recorded(lnd.node_id, int(time.time()))
            ten_each = Population.recorded(lnd.node_id, people.now, slots=10)
            async with staged(people) as few:
                await few.grow(plan.few)
                await few.refresh()
                async with staged(people) as many:
                    found = await _grown(plan, few, many, plan.sizes, lnd)
                middle = plan.sizes[len(plan.sizes) // 2]
                async with staged(ten_each) as many:
                    found += await _grown(plan, few, many, [middle // 10])
                if newer is not None:
                    async with staged(people, newer) as many:
                        found += await _grown(plan, few, many, [middle])
            return people, found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _grown(
    plan: Plan, few: Stage, many: Stage, sizes: Sequence[int], lnd: SimulatedLnd | None = None
) -> list[Size]:
    """Let `many` grow, and ask both; with an LND, start Redis and the sidecar anew at each size."""
    found: list[Size] = []
    version = str((await many.info("server"))["redis_version"])
    for clients in sizes:
        plan.said(f"Redis {version}: {clients} clients, {many.people.slots} invoices each")
        size = Size(clients, many.people.slots, version)
        await many.grow(clients)
        await many.memory(size)
        wall, cpu = time.perf_counter(), time.process_time()
        await many.refresh()
        size.refresh_seconds = time.perf_counter() - wall
        size.refresh_cpu_seconds = time.process_time() - cpu
        for stage in (few, many):
            await stage.requests([(number, 0) for number in range(min(100, stage.clients))])
        for _ in range(plan.rounds):
            await round_of(few, many, size, plan.each)
        if lnd is not None and plan.starts:
            await _starts(many, size, lnd)
        found.append(size)
    return found


async def _starts(stage: Stage, size: Size, lnd: SimulatedLnd) -> None:
    """Redis's file, its start on it, and the sidecar's start on that Redis."""
    await stage.command("CONFIG", "SET", "appendonly", "yes")
    async with asyncio.timeout(START_SECONDS):
        while not await _written(stage):  # noqa: ASYNC110 - Redis tells nobody when it is done
            await asyncio.sleep(0.02)
    files = [each for each in stage.redis.directory.rglob("*appendonly*") if each.is_file()]
    size.file_per_invoice = sum(each.stat().st_size for each in files) / (size.clients * size.slots)
    stage.redis.appendonly = True
    await stage.redis.stop()
    began = time.perf_counter()
    await stage.redis.start()
    size.restart_seconds = time.perf_counter() - began
    size.start = await _started(stage, lnd)
    # What is written next is not what is measured next.
    await stage.command("CONFIG", "SET", "appendonly", "no")


async def _written(stage: Stage) -> bool:
    found = await stage.info("persistence")
    busy = found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"]
    return bool(found["aof_enabled"]) and not busy


async def _started(stage: Stage, lnd: SimulatedLnd) -> Start:
    folder = Path(tempfile.mkdtemp(prefix="growth-sidecar-"))
    sidecar = SidecarProcess(folder, lnd, options=[f"--redis.url={stage.redis.url}"])
    began = time.perf_counter()
    try:
        await sidecar.start(wait=False)
        await sidecar.line(lambda line: " ready: " in line, timeout=START_SECONDS)
        seconds = time.perf_counter() - began
        return Start(seconds, processor_seconds(sidecar.pid), resident(sidecar.pid))
    finally:
        await sidecar.stop()
        shutil.rmtree(folder, ignore_errors=True)
