# ruff: noqa: N802 - methods are named as the gRPC services name them
"""An LND for `sidecar doctor` to look at, that tells all that a healthy one does; and bad certificates."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio

from sidecar.rpc import lightning_pb2 as ln
from tests.harness import sim_lnd
from tests.harness.certificates import self_signed
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import Mode
from tests.harness.sim_services import LightningService

HEALTHY = {39: "onion-messages", 729: "lsps"}
PEER = b"\x11" * 32


class TellingLnd(SimulatedLnd):
    """A simulated LND that tells what `GetInfo` tells beyond its name."""

    def __init__(self, folder: Path, mode: Mode = "native", features: Collection[int] = (*HEALTHY,)) -> None:
        super().__init__(folder, mode, features=features)
        self.uris = ["02ab@203.0.113.7:9735", "02ab@93.184.216.34:9735"]
        self.synced_to_chain = self.synced_to_graph = True
        self.best_block = int(time.time()) - 300
        self.macaroon_pays = False
        """Whether the macaroon is as good as admin.macaroon."""

    async def start(self, *, locked: bool = False) -> None:
        """Listen; on the same port each time."""
        with patch.object(sim_lnd, "LightningService", _TellingService):
            await super().start(locked=locked)

    def use_certificate(self, *, days: int, address: str = "127.0.0.1") -> None:
        """Show a certificate that ends in so many days and is for this address, from the next start on."""
        self._key, certificate = self_signed(days, address, names=())
        self.tls_path.write_bytes(certificate)


class _TellingService(LightningService):
    _sim: TellingLnd

    async def GetInfo(self, request: ln.GetInfoRequest, context: Any) -> ln.GetInfoResponse:
        """Who it is, and how it is."""
        answer = await super().GetInfo(request, context)
        answer.uris.extend(self._sim.uris)
        answer.synced_to_chain = self._sim.synced_to_chain
        answer.synced_to_graph = self._sim.synced_to_graph
        answer.best_header_timestamp = self._sim.best_block
        return answer

    async def CheckMacaroonPermissions(
        self, request: ln.CheckMacPermRequest, context: Any
    ) -> ln.CheckMacPermResponse:
        """Only a macaroon that allows more than the sidecar's may ask."""
        assert [(each.entity, each.action) for each in request.permissions] == [("offchain", "write")]
        assert request.macaroon == self._sim.macaroon_path.read_bytes()
        if not self._sim.macaroon_pays:
            await context.abort(grpc.StatusCode.UNKNOWN, "permission denied")
        return ln.CheckMacPermResponse(valid=True)
