"""Every released LDK as wallet and as payer, on each LND, with the product as users run it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.beside import LNDS, sidecar_beside
from tests.harness.ldk import LdkPeer
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.matrix import Cell, Matrix, Row
from tests.harness.sidecar_process import SidecarProcess
from tests.ldk.build import VERSIONS
from tests.ldk.story import Story

pytestmark = pytest.mark.ldk

# A wallet's minutes pass in milliseconds here, and hundreds of peers come in seconds: more than LND
# takes in that time, where it handles onion messages itself.
LND_UNLIMITED: dict[Kind, list[str]] = {
    "native": [
        f"--protocol.onion-msg-{who}-{what}=0"
        for who in ("peer", "global")
        for what in ("kbps", "burst-bytes")
    ],
    "custom": [],
}
SAMPLES = 100
"""Wallets, and payers, whose time is taken in each cell."""

# What is timed is one wallet's and one payer's way through, again and again: that is more than
# one client may ask for in this time.
UNLIMITED = [
    "--limits.stores_per_minute=100000",
    "--limits.offer_paths_per_minute=100000",
    "--limits.offer_rate=1000",
    "--limits.offer_burst=1000",
    "--limits.client_rate=1000",
    "--limits.client_burst=1000",
]


@asynccontextmanager
async def served(
    kind: Kind, folder: Path, options: Sequence[str] = ()
) -> AsyncIterator[tuple[LndProcess, SidecarProcess]]:
    """A real LND without limits of its own, and the product beside it."""
    async with (
        LndProcess(kind, folder / "lnd", extra=LND_UNLIMITED[kind]) as lnd,
        sidecar_beside(lnd, folder, options) as sidecar,
    ):
        yield lnd, sidecar


@pytest.mark.parametrize("payer", VERSIONS)
@pytest.mark.parametrize("wallet", VERSIONS)
@pytest.mark.parametrize("server", LNDS)
async def test_a_wallet_and_a_payer_of_ldk_are_served(
    server: str, wallet: str, payer: str, matrix: Matrix, tmp_path: Path
) -> None:
    """Offers, requests, 72 and 74, refreshed offers: through each LND, over kill -9 between all steps."""
    cell = Cell(server, wallet, payer)
    async with served(LNDS[server], tmp_path) as (lnd, sidecar):
        alice = LdkPeer(wallet, tmp_path / "wallet", state=tmp_path / "wallet.state")
        async with alice:
            matrix.versions[f"LDK {wallet}"] = alice.release
            matrix.versions[server] = (await sidecar.json("status"))["lnd_version"]
            await Story(cell, lnd, sidecar, tmp_path, alice).run(matrix.row(cell))


@pytest.mark.parametrize("payer", VERSIONS)
@pytest.mark.parametrize("wallet", VERSIONS)
@pytest.mark.parametrize("server", LNDS)
async def test_each_of_many_wallets_and_payers_is_served(
    server: str, wallet: str, payer: str, matrix: Matrix, tmp_path: Path
) -> None:
    """A hundred new wallets get their offer ready and a hundred payers their invoice: none is left out."""
    cell = Cell(server, wallet, payer)
    async with served(LNDS[server], tmp_path, UNLIMITED) as (lnd, sidecar):
        added = await sidecar.json("client", "add", "alice")
        await take_times(cell, matrix.row(cell), added["paths"], (lnd.node_id, lnd.p2p_port), tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
async def test_ldks_own_server_is_the_yardstick(version: str, matrix: Matrix, tmp_path: Path) -> None:
    """Wallets and payers at LDK's own server, which keeps all in memory: figures to hold ours against."""
    cell = Cell(f"LDK {version} itself", version, version)
    async with LdkPeer(version, tmp_path / "server", listen=True) as server:
        paths = await server.recipient(b"alice")
        await take_times(cell, matrix.row(cell), paths, (server.node_id, server.port), tmp_path)


async def take_times(cell: Cell, row: Row, paths: str, node: tuple[bytes, int], folder: Path) -> None:
    """New wallets that have their server's paths, then new payers of the last one's offer, at one node."""
    for number in range(SAMPLES):
        async with LdkPeer(cell.wallet, folder / f"wallet-{number}") as wallet:
            await wallet.set_paths(paths)
            connected = await wallet.connect(*node)
            ready = await wallet.offer()
            row.offer_ms.append((ready["us"] - connected["us"]) / 1_000)
    for number in range(SAMPLES):
        async with LdkPeer(cell.payer, folder / f"payer-{number}") as payer:
            await payer.connect(*node)
            asked = await payer.pay(ready["offer"])
            answered = await payer.got("static_invoice")
            row.invoice_ms.append((answered["us"] - asked["us"]) / 1_000)
