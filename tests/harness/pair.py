"""Two sidecars beside one LND and one Redis: one leads, one stands by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.redis_process import RedisProcess
from tests.harness.relay import HOST, Relay
from tests.harness.sidecar_process import LndFiles, SidecarProcess

LEASE = 2
"""Seconds of the lease."""


@dataclass(frozen=True, slots=True)
class _Behind:
    """An LND that is reached through a relay."""

    host: str
    tls_path: Path
    macaroon_path: Path


class Pair:
    """`left` and `right`; either may be stopped, killed and started again.

    The left one reaches LND through `relay`.
    """

    def __init__(
        self, folder: Path, lnd: LndFiles, redis: RedisProcess, relay: Relay, options: Sequence[str] = ()
    ) -> None:
        self.redis, self.relay = redis, relay
        behind = _Behind(f"{HOST}:{relay.port}", lnd.tls_path, lnd.macaroon_path)
        self.left, self.right = (
            SidecarProcess(
                folder / name,
                way,
                options=[
                    f"--redis.url={redis.url}",
                    f"--lease.time={LEASE}s",
                    f"--lease.name={name}",
                    *options,
                ],
            )
            for name, way in (("left", behind), ("right", lnd))
        )

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, lnd: LndFiles, options: Sequence[str] = ()) -> AsyncIterator[Pair]:
        """The left one leads, the right one stands by."""
        relay = Relay(int(lnd.host.rpartition(":")[2]))
        async with RedisProcess(folder / "redis") as redis, relay:
            pair = cls(folder, lnd, redis, relay, options)
            try:
                await pair.left.start()
                await stand_by(pair.right)
                yield pair
            finally:
                await asyncio.gather(pair.left.stop(), pair.right.stop())


async def stand_by(sidecar: SidecarProcess) -> None:
    """Start one beside another that leads, and wait until it stands by."""
    await sidecar.start(wait=False)
    await sidecar.line(lambda line: " standing by: " in line)


async def leads(sidecar: SidecarProcess) -> None:
    """Wait until it leads."""
    await sidecar.line(lambda line: " ready: " in line)
