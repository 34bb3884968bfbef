"""An admin server over TCP beside its socket, with a certificate and a token of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import grpc
from google.protobuf.message import Message

from sidecar.adapters.admin_server import AdminServer, start_admin
from sidecar.adapters.admin_tcp import TcpAddress
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.certificates import self_signed

TOKEN = "0123456789abcdef" * 4


class StandIn(admin_pb2_grpc.AdminServicer):
    """An admin service that answers each status alike, and removes any client unless `error` is set."""

    error: Exception | None = None

    async def GetStatus(self, request: Message, context: object) -> admin_pb2.GetStatusResponse:  # noqa: N802, ARG002
        """A fixed version."""
        return admin_pb2.GetStatusResponse(version="1.2.3")

    async def RemoveClient(self, request: Message, context: object) -> admin_pb2.RemoveClientResponse:  # noqa: N802, ARG002
        """Nothing, or the error."""
        if self.error is not None:
            raise self.error
        return admin_pb2.RemoveClientResponse()


def stand_in() -> StandIn:
    """One of those; what it does not answer is UNIMPLEMENTED."""
    return StandIn()  # type: ignore[abstract]


class TcpWorld:
    """A running server at `address`, and its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = stand_in()
        self.tcp = TcpAddress(
            "127.0.0.1:0", folder / "admin.cert", folder / "admin.key", folder / "admin.token"
        )
        self.renew()
        self.tcp.tokenfile.write_text(TOKEN + "\n")
        self.well = False
        self._server: AdminServer | None = None

    def renew(self) -> None:
        """A new certificate, with a key of its own, in the same files."""
        key, certificate = self_signed()
        self.tcp.tlskey.write_bytes(key)
        self.tcp.tlscert.write_bytes(certificate)

    async def __aenter__(self) -> Self:
        path = self.folder / "admin.sock"
        self._server = await start_admin(self.service, path, tcp=self.tcp, ready=lambda: self.well)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    @property
    def server(self) -> AdminServer:
        """The running one."""
        assert self._server is not None
        return self._server

    def channel(self, roots: bytes | None = None) -> grpc.aio.Channel:
        """A channel that brings no token of its own."""
        credentials = grpc.ssl_channel_credentials(roots or self.tcp.tlscert.read_bytes())
        return grpc.aio.secure_channel(self.server.address, credentials)


def bearer(token: str = TOKEN) -> Sequence[tuple[str, str]]:
    """The metadata of a call that may be made."""
    return (("authorization", f"Bearer {token}"),)
