"""Promise 4, with the machine itself: DNS down, disk full, clock stepped."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.adapters.conftest import newer_executable
from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import BACK
from tests.faults.scene import COOLDOWN, Scene, scene
from tests.harness.ports import free_port
from tests.harness.redis_process import RedisProcess
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

AWAY = ("Redis is away", "Redis is back")
AWAY_SECONDS = 4
STEPS = (600, -600, 86_400, -86_400)
"""Seconds."""

NAMES = "redis.test 127.0.0.1\na.push.test 127.0.0.1\n"
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@asynccontextmanager
async def beside(folder: Path, *options: str, **of_process: Path) -> AsyncIterator[Scene]:
    """The scene on a simulated LND; with its embedded Redis where the options name no other."""
    async with SimulatedLnd(folder / "lnd") as lnd:

        def process(more: Sequence[str]) -> SidecarProcess:
            return SidecarProcess(folder / "sidecar", lnd, options=[*more, *options], **of_process)

        host = "a.push.test" if "names" in of_process else "127.0.0.1"
        async with scene(folder, lnd, process, host) as made:
            yield made


async def test_dns_is_down(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """Redis and the push services go by names, and Redis closes its connections meanwhile."""
    row = promise(BACK, f"DNS down for {AWAY_SECONDS} s, Redis reconnecting")
    names, port = tmp_path / "names", free_port()
    names.write_text(NAMES)
    async with (
        RedisProcess(tmp_path / "redis", options={"port": str(port), "bind": "127.0.0.1"}) as redis,
        beside(tmp_path, f"--redis.url=redis://redis.test:{port}", names=names) as made,
        Redis(unix_socket_path=str(redis.socket), protocol=2) as own,
    ):
        for _ in range(max(1, rounds // 5)):
            await made.at_work()
            names.unlink()
            await own.client_kill_filter(_type="normal", skipme=True)
            away = time.monotonic()
            await made.tell_sleeper()
            await asyncio.sleep(AWAY_SECONDS)
            # What was under way when its connection went was tried once more on another one.
            made.check_silence(row, away + 0.5)
            lifted = time.monotonic()
            names.write_text(NAMES)
            await made.served_again(row, lifted)
            await made.check(row, said=AWAY)


def fill_disk(*pids: int, of: Path) -> None:
    """No file of these processes may get longer than the longest below `of` is now."""
    longest = max(path.stat().st_size for path in of.rglob("*") if path.is_file())
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (longest, resource.RLIM_INFINITY))


def free_disk(*pids: int) -> None:
    """There is room again."""
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, NO_LIMIT)


async def test_the_disk_of_redis_is_full(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """Redis refuses changes, and can be read: payers are served on, and nothing is acknowledged."""
    row = promise(BACK, f"disk of Redis full for {AWAY_SECONDS} s (renewals)")
    newer = newer_executable()
    assert newer is not None
    # A full disk is an error that Redis sees; a limit would also be a signal that ends it.
    program = tmp_path / "redis-server"
    program.write_text(f'#!/bin/sh\ntrap "" XFSZ\nexec {newer} "$@"\n')
    program.chmod(0o755)
    options = {"appendfsync": "everysec"}
    async with (
        RedisProcess(tmp_path / "redis", program, options=options) as redis,
        beside(tmp_path, f"--redis.url={redis.url}") as made,
    ):
        for _ in range(max(1, rounds // 5)):
            await made.at_work()
            fill_disk(redis.pid, of=redis.directory)
            full = time.monotonic()
            await made.tell_sleeper()
            await asyncio.sleep(AWAY_SECONDS)
            made.check_silence(row, full, answers=True)
            lifted = time.monotonic()
            free_disk(redis.pid)
            await made.renewed_again(row, lifted)
            await made.check(row, said=AWAY)


async def test_the_disk_of_the_embedded_redis_is_full(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """It ends at the first change, and is started again until there is room."""
    row = promise(BACK, f"disk of the embedded Redis full for {AWAY_SECONDS} s")
    async with beside(tmp_path) as made:
        directory = made.sidecar.datadir / "redis"

        def pid() -> int:
            return int((directory / "redis.pid").read_text())

        for _ in range(max(1, rounds // 5)):
            await made.at_work()
            first = pid()
            fill_disk(made.sidecar.pid, first, of=directory)
            full = time.monotonic()
            await made.tell_sleeper()
            await asyncio.sleep(AWAY_SECONDS)
            made.check_silence(row, full, answers=True)
            free_disk(made.sidecar.pid)
            # One that was started into the full disk has its limit still.
            with contextlib.suppress(OSError, ValueError):
                free_disk(pid())
            lifted = time.monotonic()
            await made.renewed_again(row, lifted)
            await made.served_again(row, lifted)
            await made.check(row)


async def test_the_clock_is_stepped(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """And set right again: what was promised before holds, and nothing waits until a clock has caught up."""
    async with beside(tmp_path, clock=tmp_path / "clock") as made:
        for step in STEPS * max(1, rounds // 5):
            row = promise(BACK, f"clock stepped by {step // 60:+,} min, and back")
            await told_across(made, row, step)
            await told_across(made, row, 0)
            await made.check(row)


async def told_across(made: Scene, row: Row, seconds: int) -> None:
    """The clock is set so far ahead; payers are answered, and a client that was told before is told again."""
    payer = await made.stage.payer()
    await made.sleeper.nothing_unread()
    await made.sleeper.send_held(payer)
    await made.sleeper.woken(made.stage.lnd.node_id)
    await made.at_work()
    stepped = time.monotonic()
    made.sidecar.set_clock(seconds)
    await made.served_again(row, stepped)
    await made.renewing.answered(stepped)
    # It was told just now, by a clock that is another one since: its cooldown is over by any.
    await asyncio.sleep(COOLDOWN)
    await made.sleeper.send_held(payer)
    await made.sleeper.woken(made.stage.lnd.node_id)
    await payer.link.close()
