"""The admin server: on a Unix socket always, over TCP when it is asked for.

Only the server's own user may open the socket, so there is no password: who can connect may do
everything. Over TCP every call needs a token (admin_tcp.py).
"""

import asyncio
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidecar.adapters.admin_client import private_directory, socket_target
from sidecar.adapters.admin_standby import StandbyGuard, StandingBy
from sidecar.adapters.admin_tcp import Certificate, TcpAddress, TokenGuard
from sidecar.adapters.admin_token import read_token
from sidecar.adapters.audit import Audit
from sidecar.adapters.locks import locked
from sidecar.core.errors import AdminDenied, ConfigError, OperatorError
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc

READY = "ready"
"""The health service's name for: LND's stream is up, and Redis takes changes."""

READY_EVERY = 1.0
"""Seconds between looks whether that is so."""

MAX_CALLS = 100
"""Calls at once over one connection; more wait at the caller."""

MAX_CONNECTIONS = 100
"""Connections at once to each door; one more is closed at once."""

IDLE = 60
"""Seconds without a call after which a connection is closed: a stranger may hold one without a token."""

_OPTIONS = (
    # Else a second server could take the same port, and get half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", MAX_CALLS),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.max_connection_idle_ms", IDLE * 1_000),
    # A caller that is gone without a word would keep its import, and so all others, for two hours.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)


# --- what is offered ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Services:
    """What both doors offer; a service that is None is not offered."""

    admin: admin_pb2_grpc.AdminServicer
    webhooks: admin_pb2_grpc.WebhooksServicer | None
    backup: admin_pb2_grpc.BackupServicer | None
    health: health.aio.HealthServicer
    standing_by: StandingBy

    @property
    def names(self) -> Sequence[str]:
        """Full names of our own services."""
        offered = {"Admin": self.admin, "Webhooks": self.webhooks, "Backup": self.backup}
        known = admin_pb2.DESCRIPTOR.services_by_name
        return [known[name].full_name for name, service in offered.items() if service is not None]

    def server(self, door: str, *guards: grpc.aio.ServerInterceptor) -> grpc.aio.Server:
        """A server of them all, with health and reflection; the guards see a call first."""
        # What is refused because this server stands by is audited as well.
        ours = (Audit(door), StandbyGuard(self.standing_by))
        server = grpc.aio.server(interceptors=[*guards, *ours], options=_OPTIONS)
        admin_pb2_grpc.add_AdminServicer_to_server(self.admin, server)
        if self.webhooks is not None:
            admin_pb2_grpc.add_WebhooksServicer_to_server(self.webhooks, server)
        if self.backup is not None:
            admin_pb2_grpc.add_BackupServicer_to_server(self.backup, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        shown = (*self.names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(shown, server)
        return server


async def _watch(service: health.aio.HealthServicer, ready: Callable[[], bool]) -> None:
    """Let the health service say `ready` while it is so."""
    states = health_pb2.HealthCheckResponse
    while True:
        await service.set(READY, states.SERVING if ready() else states.NOT_SERVING)
        await asyncio.sleep(READY_EVERY)


# --- the server ---------------------------------------------------------------------------------


class AdminServer:
    """A running admin server. It holds a lock on its socket until it is stopped, or killed.

    `address` is where it listens over TCP (host:port); empty when it does not.
    """

    def __init__(self, service: health.aio.HealthServicer, lock: int) -> None:
        self._health = service
        self._lock = lock
        self._servers: list[grpc.aio.Server] = []
        self._watching: asyncio.Task[None] | None = None
        self.address = ""

    async def start(self, server: grpc.aio.Server) -> None:
        """Let one of its doors take calls."""
        self._servers.append(server)
        await server.start()

    def watch(self, ready: Callable[[], bool]) -> None:
        """Look again and again whether the sidecar is ready."""
        self._watching = asyncio.create_task(_watch(self._health, ready), name="admin-health")

    async def stop(self, grace: float | None = None) -> None:
        """Take no new calls, and end the running ones within `grace` seconds."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    async def wait_for_termination(self) -> None:
        """Return once the server has stopped."""
        await asyncio.gather(*(server.wait_for_termination() for server in self._servers))


async def start_admin(
    admin: admin_pb2_grpc.AdminServicer,
    socket_path: Path,
    webhooks: admin_pb2_grpc.WebhooksServicer | None = None,
    *,
    backup: admin_pb2_grpc.BackupServicer | None = None,
    tcp: TcpAddress | None = None,
    ready: Callable[[], bool] | None = None,
    standing_by: StandingBy = lambda: None,
) -> AdminServer:
    """Listen on `socket_path` (see admin_socket_path) for this user alone, and over TCP where `tcp` says.

    `ready` is asked every READY_EVERY seconds whether LND's stream is up and Redis takes changes; without
    it the server never says that it is ready. While `standing_by` names who leads, calls that change
    something are refused with StandsBy. A socket that a killed server left behind is replaced.
    Raises OperatorError when another server is alive on it, AdminDenied when the socket can't be made
    there, ConfigError for what `tcp` says.
    """
    service = health.aio.HealthServicer()
    services = _Services(admin, webhooks, backup, service, standing_by)
    for name in services.names:
        await service.set(name, health_pb2.HealthCheckResponse.SERVING)
    await service.set(READY, health_pb2.HealthCheckResponse.NOT_SERVING)
    try:
        private_directory(socket_path.parent)
        lock = _lock(socket_path.with_suffix(".lock"))
    except OSError as error:
        raise AdminDenied(f"no socket can be made at {socket_path}: {error.strerror}") from None
    running = AdminServer(service, lock)
    try:
        remote = None
        if tcp is not None:
            read_token(tcp.tokenfile)  # so that a wrong one is said now
            remote = services.server("tcp", TokenGuard(tcp.tokenfile))
            running.address = _bind(remote, tcp)
        local = services.server("socket")
        _clear(socket_path)
        _bind_socket(local, socket_path)
        for server in (local, remote):
            if server is not None:
                await running.start(server)
    except BaseException:
        await running.stop()
        raise
    if ready is not None:
        running.watch(ready)
    return running


def _bind(server: grpc.aio.Server, tcp: TcpAddress) -> str:
    """Take the port; where the server listens. Raises ConfigError."""
    credentials = Certificate(tcp.tlscert, tcp.tlskey).credentials()
    try:
        port = server.add_secure_port(tcp.listen, credentials)
    except RuntimeError:
        raise ConfigError(
            f"admin.listen: {tcp.listen} can't be listened on: is it host:port, is the host this machine's, "
            "and is the port free?"
        ) from None
    return f"{tcp.listen.rpartition(':')[0]}:{port}"


def _bind_socket(server: grpc.aio.Server, path: Path) -> None:
    """Make the socket. Raises AdminDenied."""
    # The socket is made by this very call; with the mask there is no moment at which it is open
    # to others. A data directory that exists keeps its own mode, for it may be shared on purpose.
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(socket_target(path))
    except RuntimeError:
        raise AdminDenied(f"no socket can be made at {path}: is the directory ours?") from None
    finally:
        os.umask(mask)


def _lock(path: Path) -> int:
    """The lock of a data directory's one server. Raises OperatorError when another holds it."""
    try:
        return locked(path)
    except BlockingIOError:
        raise OperatorError(
            f"another sidecar runs on {path.parent}: stop it, or give this one its own --datadir"
        ) from None


def _clear(path: Path) -> None:
    """Remove what a killed server left; the lock says that none is alive. Raises OperatorError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OperatorError(f"{path} is in the way and is no socket: remove it")
        path.unlink()
    except FileNotFoundError:
        return
