"""The product beside a real LND, as users run it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sidecar.adapters import permissions
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.sidecar_process import SidecarProcess

LNDS: dict[str, Kind] = {"LND 0.21": "native", "LND 0.20": "custom"}

URIS = {"native": permissions.NATIVE, "custom": permissions.CUSTOM}
"""All that `macaroon-permissions` prints, and nothing else."""


@asynccontextmanager
async def sidecar_beside(
    lnd: LndProcess, folder: Path, options: Sequence[str] = ()
) -> AsyncIterator[SidecarProcess]:
    """`sidecar serve` in `folder`/sidecar, with a macaroon of just the permissions that it needs."""
    macaroon = await lnd.bake(URIS[lnd.kind])
    async with SidecarProcess(folder / "sidecar", lnd, macaroon=macaroon, options=options) as sidecar:
        yield sidecar
