"""One LND to play on, real or simulated, and the peers that connect to it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sidecar.core import paths
from sidecar.core.model import Family
from tests.harness import bolt8
from tests.harness.link import Link
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.payer import Payer
from tests.harness.sidecar_process import LndFiles, SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.wallet import Wallet


class Lnd(LndFiles, Protocol):
    """What a stage needs of an LND."""

    @property
    def node_id(self) -> bytes:
        """33 bytes."""


@dataclass(slots=True)
class Stage:
    """An LND, with wallets and payers that come and go."""

    lnd: Lnd

    async def connect(self, secret: bytes) -> Link:
        """Connect a peer to LND."""
        if isinstance(self.lnd, SimulatedLnd):
            return await self.lnd.connect_peer(secret)
        assert isinstance(self.lnd, LndProcess)
        return await bolt8.connect("127.0.0.1", self.lnd.p2p_port, self.lnd.node_id, secret)

    async def wallet(
        self, sidecar: SidecarProcess, name: str, family: Family = Family.LDK, *options: str
    ) -> Wallet:
        """Add a client and connect a wallet that has its request paths."""
        added = await sidecar.json("client", "add", name, *options)
        request_path = paths.decode_path_list(bytes.fromhex(added["paths"]))[0]
        secret = os.urandom(32)
        return Wallet(secret, await self.connect(secret), self.lnd.node_id, request_path, family)

    async def payer(self) -> Payer:
        """Connect a payer."""
        secret = os.urandom(32)
        return Payer(secret, await self.connect(secret), self.lnd.node_id)


@asynccontextmanager
async def simulated(directory: Path, kind: Kind) -> AsyncIterator[Stage]:
    """A simulated LND."""
    async with SimulatedLnd(directory, kind) as lnd:
        yield Stage(lnd)


@asynccontextmanager
async def real(directory: Path, kind: Kind) -> AsyncIterator[Stage]:
    """A real LND, built when it is not there yet."""
    async with LndProcess(kind, directory) as lnd:
        yield Stage(lnd)
