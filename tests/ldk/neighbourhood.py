"""LNDs around the served ones, with announced channels between them; started once for many tests.

native ──┬── open ──────────── (relays for everybody)
custom ──┤
         └── closed ── remote ── far
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.beside import sidecar_beside
from tests.harness.btcd import Btcd
from tests.harness.chain import Gossiping, Regtest
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage

ON_DEFAULT_FLAGS: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The LNDs, by what they are to the served ones."""

    regtest: Regtest
    served: dict[Kind, LndProcess]
    open: LndProcess
    """A channel peer of the served ones that takes onion messages from peers without a channel."""
    closed: LndProcess
    """A channel peer on default flags: it drops what comes from peers without a channel."""
    remote: LndProcess
    """On default flags too, with a channel to `closed` alone."""
    far: LndProcess
    """Takes messages from everybody, and has a channel with none of the served ones' peers."""


@dataclass(frozen=True, slots=True)
class Served:
    """One of the served LNDs, with `sidecar serve` beside it."""

    around: Neighbourhood
    lnd: LndProcess
    sidecar: SidecarProcess

    @property
    def stage(self) -> Stage:
        """For peers of the served LND itself."""
        return Stage(self.lnd)


def neighbour(folder: Path, name: str, regtest: Regtest, flags: tuple[str, ...] | None = None) -> LndProcess:
    """An LND 0.21 that announces where it listens; `flags` replace those of a served LND."""
    return announced(LndProcess("native", folder / name, chain=regtest.chain, protocol=flags))


def announced(lnd: LndProcess) -> LndProcess:
    """Let an LND announce where it listens."""
    lnd.extra.append(f"--externalip=127.0.0.1:{lnd.p2p_port}")
    return lnd


@asynccontextmanager
async def running(*lnds: LndProcess) -> AsyncIterator[None]:
    """Start them side by side."""
    async with AsyncExitStack() as stack:
        for lnd in lnds:
            stack.push_async_callback(lnd.stop)
        await asyncio.gather(*(lnd.start() for lnd in lnds))
        yield


@asynccontextmanager
async def neighbourhood(folder: Path) -> AsyncIterator[Neighbourhood]:
    """All of it, up, its channels announced and known to the served ones."""
    async with Btcd(folder / "btcd") as chain:
        regtest = await Regtest.begin(chain)
        around = Neighbourhood(
            regtest,
            served={
                "native": announced(LndProcess("native", folder / "native", chain=chain)),
                "custom": announced(LndProcess("custom", folder / "custom", chain=chain)),
            },
            open=neighbour(folder, "open", regtest),
            closed=neighbour(folder, "closed", regtest, ON_DEFAULT_FLAGS),
            remote=neighbour(folder, "remote", regtest, ON_DEFAULT_FLAGS),
            far=neighbour(folder, "far", regtest),
        )
        served = list(around.served.values())
        async with running(*served, around.open, around.closed, around.remote, around.far):
            await regtest.connect_with_channels(
                [
                    (around.closed, around.remote),
                    (around.remote, around.far),
                    *((around.open, each) for each in served),
                    *((around.closed, each) for each in served),
                ]
            )
            for each in served:
                await Gossiping(each).knows_channels_of(around.remote.node_id, 2)
                await Gossiping(each).knows_address_of(around.far.node_id)
                await Gossiping(around.closed).knows_address_of(each.node_id)
            yield around


@asynccontextmanager
async def serving(around: Neighbourhood, kind: Kind, folder: Path) -> AsyncIterator[Served]:
    """A sidecar beside one of the served LNDs."""
    lnd = around.served[kind]
    async with sidecar_beside(lnd, folder) as sidecar:
        yield Served(around, lnd, sidecar)
