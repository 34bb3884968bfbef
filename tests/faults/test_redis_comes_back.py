"""Promise 4, with Redis: killed, suspended, READONLY, LOADING, out of memory, slow."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sidecar.adapters.redis_connect import TIMEOUT
from sidecar.adapters.redis_embedded import server_executable
from tests.adapters.conftest import newer_executable
from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import BACK
from tests.faults.scene import Scene, scene
from tests.faults.slow import Late
from tests.harness.asserting import until
from tests.harness.redis_process import RedisProcess
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

AWAY_SECONDS = 3
AWAY = ("Redis is away", "Redis is back")
RECORDS = 20_000
"""Of others in the same Redis: with a delay for each it loads for some seconds."""

SLOW = 2.0


def a_redis(folder: Path, version: str) -> RedisProcess:
    """An operator's own: one that is on disk before it answers, or that is asked by WAITAOF whether it is."""
    if version == "6.2":
        return RedisProcess(folder / "redis", server_executable())
    return RedisProcess(folder / "redis", newer_executable(), options={"appendfsync": "everysec"})


@asynccontextmanager
async def beside(folder: Path, url: str) -> AsyncIterator[Scene]:
    """The scene with the Redis there, on a simulated LND."""
    async with SimulatedLnd(folder / "lnd") as lnd:

        def process(options: Sequence[str]) -> SidecarProcess:
            return SidecarProcess(folder / "sidecar", lnd, options=[*options, f"--redis.url={url}"])

        async with scene(folder, lnd, process) as made:
            yield made


def client(redis: RedisProcess) -> Redis:
    """A client of an operator's."""
    return Redis(unix_socket_path=str(redis.socket), protocol=2)


async def killed(made: Scene, redis: RedisProcess, row: Row) -> None:
    """SIGKILL, and a start three seconds later: nobody is told anything meanwhile."""
    await made.at_work()
    await redis.kill()
    away = time.monotonic()
    await made.tell_sleeper()
    await asyncio.sleep(AWAY_SECONDS)
    made.check_silence(row, away)
    lifted = time.monotonic()
    await redis.start()
    await made.served_again(row, lifted)
    await made.check(row, said=AWAY)


async def suspended(made: Scene, redis: RedisProcess, row: Row) -> None:
    """SIGSTOP: connections stand, and nothing comes."""
    await made.at_work()
    os.kill(redis.pid, signal.SIGSTOP)
    away = time.monotonic()
    await made.tell_sleeper()
    # Longer than a call to Redis may take.
    await asyncio.sleep(TIMEOUT + 1)
    made.check_silence(row, away)
    lifted = time.monotonic()
    os.kill(redis.pid, signal.SIGCONT)
    await made.served_again(row, lifted)
    await made.check(row, said=AWAY)


async def unchangeable(made: Scene, redis: RedisProcess, row: Row, begun: str, ended: str) -> None:
    """It can be read: payers are served on, and nothing is acknowledged."""
    async with client(redis) as own:
        command: Any = own.execute_command
        await made.at_work()
        await command(*begun.split())
        away = time.monotonic()
        await made.tell_sleeper()
        await asyncio.sleep(AWAY_SECONDS)
        made.check_silence(row, away, answers=True)
        row.check(made.asking.heard[-1].sent_at > away + AWAY_SECONDS / 2, "payers were not served")
        lifted = time.monotonic()
        await command(*ended.split())
        await made.renewed_again(row, lifted)
        await made.check(row, said=AWAY)


async def test_redis_on_disk_before_it_answers(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """`appendfsync always`: killed, suspended, a replica for a while, full."""
    async with a_redis(tmp_path, "6.2") as redis, beside(tmp_path, redis.url) as made:
        for _ in range(max(1, rounds // 5)):
            await killed(made, redis, promise(BACK, "Redis killed for 3 s"))
            await suspended(made, redis, promise(BACK, "Redis suspended for 6 s"))
            row = promise(BACK, "Redis READONLY for 3 s (renewals)")
            await unchangeable(made, redis, row, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")
            row = promise(BACK, "Redis out of memory for 3 s (renewals)")
            await unchangeable(made, redis, row, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0")


async def test_redis_asked_whether_it_is_on_disk(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """`WAITAOF` behind each change: killed, and a replica for a while."""
    async with a_redis(tmp_path, "8.2") as redis, beside(tmp_path, redis.url) as made:
        for _ in range(max(1, rounds // 5)):
            await killed(made, redis, promise(BACK, "Redis 8.2 killed for 3 s"))
            row = promise(BACK, "Redis 8.2 READONLY for 3 s (renewals)")
            await unchangeable(made, redis, row, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")


async def test_redis_is_loading(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """It listens and answers LOADING: as good as away."""
    row = promise(BACK, "Redis LOADING for 3 s")
    async with RedisProcess(tmp_path / "redis", newer_executable()) as redis:
        async with client(redis) as own, own.pipeline(transaction=False) as pipeline:
            for number in range(RECORDS):
                pipeline.set(f"others:{number}", "x")
            await pipeline.execute()
        redis.options["key-load-delay"] = "150"
        async with beside(tmp_path, redis.url) as made, client(redis) as own:
            for _ in range(max(1, rounds // 5)):
                await made.at_work()
                await redis.kill()
                away = time.monotonic()
                starting = asyncio.create_task(redis.start())

                async def loading() -> bool:
                    try:
                        return bool((await own.info("persistence"))["loading"])
                    except (RedisError, OSError):
                        return False

                await until(loading)
                await made.tell_sleeper()
                row.check(not starting.done(), "it did not load for as long as a letter takes")
                made.check_silence(row, away)
                await starting
                await made.served_again(row, time.monotonic())
                await made.check(row, said=AWAY)


async def test_redis_is_slow(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """Each answer comes two seconds late: all works, late, and nobody is refused or told a lie."""
    row = promise(BACK, "Redis slow by 2 s")
    async with (
        a_redis(tmp_path, "6.2") as redis,
        Late(tmp_path / "late.sock", redis.socket) as late,
        beside(tmp_path, late.url) as made,
    ):
        for _ in range(max(1, rounds // 5)):
            await made.at_work()
            late.seconds = SLOW
            slow = time.monotonic()
            await made.asking.answered(slow + 0.5)
            row.was_out(slow + 0.5)
            await made.renewing.answered(slow)
            await made.tell_sleeper()
            late.seconds = 0.0
            await made.asking.answered(time.monotonic())
            await made.check(row)
