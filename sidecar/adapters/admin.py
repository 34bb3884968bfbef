"""The admin service: what the `sidecar` command asks of a running server.

It listens on a Unix socket that only the server's own user may open, so there is no password: who
can connect may do everything.
"""

# ruff: noqa: N802, ARG002 - gRPC names the methods, and says what they are given

import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc

from sidecar.adapters.admin_client import REASON_KEY, private_directory, socket_target
from sidecar.adapters.locks import locked
from sidecar.core.errors import (
    AdminDenied,
    BadName,
    ClientRevoked,
    ConfigError,
    NameTaken,
    NoSuchClient,
    OperatorError,
    SidecarError,
    Unavailable,
)
from sidecar.core.model import (
    CLIENT_ID_HEX,
    CLIENT_ID_SIZE,
    MAX_BYTES,
    MAX_SLOTS,
    MAX_TTL,
    MIN_TTL,
    Client,
    ClientState,
    Quota,
    StoredInvoice,
    Usage,
)
from sidecar.ports import Store
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class PathIssuer(Protocol):
    """Makes the paths over which a client asks for offer paths."""

    async def request_paths(self, client: Client) -> bytes:
        """u16 count ‖ blinded paths, for the client's present generation. Raises LndUnavailable."""


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """What `sidecar status` shows; `counters` count since the start, by reason."""

    version: str
    node_id: str
    lnd_version: str
    mode: str
    network: str
    redis: str
    durability: str
    stream_up: bool
    counters: Mapping[str, int] = field(default_factory=dict)


# --- rules --------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Refuse a client name that is not 1 to 64 of a-z A-Z 0-9 . _ -, or could be an id. Raises BadName."""
    if not _NAME.fullmatch(name):
        raise BadName(f"{name!r} is no name: give 1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`")
    if CLIENT_ID_HEX.fullmatch(name):
        # Else `client remove` could mean either of two clients.
        raise BadName(f"{name!r} is no name: {2 * CLIENT_ID_SIZE} hex digits are a client id")


def check_quota(quota: Quota) -> None:
    """Refuse a quota that no client should have; its ttl is in seconds. Raises ConfigError."""
    for field_name, value, low, high in (
        ("slots", quota.slots, 1, MAX_SLOTS),
        ("bytes", quota.bytes, 1, MAX_BYTES),
        ("ttl", quota.ttl, MIN_TTL, MAX_TTL),
    ):
        if not low <= value <= high:
            unit = " seconds" if field_name == "ttl" else ""
            raise ConfigError(f"{field_name}: {value} is not allowed: give {low} to {high}{unit}")


# --- records to messages ------------------------------------------------------------------------

_STATES = {
    ClientState.ACTIVE: admin_pb2.CLIENT_STATE_ACTIVE,
    ClientState.REVOKED: admin_pb2.CLIENT_STATE_REVOKED,
}


def _client(client: Client, usage: Usage) -> admin_pb2.Client:
    quota = client.quota
    return admin_pb2.Client(
        client_id=client.client_id.hex(),
        name=client.name,
        state=_STATES[client.state],
        generation=client.generation,
        created_at=client.created_at,
        quota=admin_pb2.Quota(slots=quota.slots, bytes=quota.bytes, ttl_seconds=quota.ttl),
        slots_used=usage.slots,
        bytes_used=usage.bytes,
    )


def _slot(invoice: StoredInvoice) -> admin_pb2.Slot:
    return admin_pb2.Slot(
        slot=invoice.slot,
        expires_at=invoice.expires_at,
        invoice_created_at=invoice.created_at,
        stored_at=invoice.stored_at,
        bytes=invoice.size,
        family=invoice.family.value,
    )


def _usage(invoices: Sequence[StoredInvoice]) -> Usage:
    return Usage(slots=len(invoices), bytes=sum(invoice.size for invoice in invoices))


# --- errors to statuses -------------------------------------------------------------------------

_CODES: tuple[tuple[type[SidecarError], grpc.StatusCode], ...] = (
    (NameTaken, grpc.StatusCode.ALREADY_EXISTS),
    (NoSuchClient, grpc.StatusCode.NOT_FOUND),
    (BadName, grpc.StatusCode.INVALID_ARGUMENT),
    (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (ClientRevoked, grpc.StatusCode.FAILED_PRECONDITION),
)

_Context = grpc.aio.ServicerContext[Any, Any]
S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")


def _answered(
    method: Callable[[S, Q, _Context], Awaitable[R]],
) -> Callable[[S, Q, _Context], Coroutine[Any, Any, R]]:
    """Turn the errors of a call into the statuses that admin.proto promises."""

    async def call(self: S, request: Q, context: _Context) -> R:
        try:
            return await method(self, request, context)
        except SidecarError as error:
            code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
            reason, text = error.reason, str(error) or error.reason
            if code is grpc.StatusCode.INTERNAL:
                log.warning("admin call failed: %s: %s", reason, text)
        except Exception:
            log.exception("admin call failed")
            code, reason = grpc.StatusCode.INTERNAL, "internal"
            text = "the server failed inside; its log says why"
        await context.abort(code, text, trailing_metadata=((REASON_KEY, reason),))
        raise AssertionError("abort always raises")

    return call


class AdminService(admin_pb2_grpc.AdminServicer):
    """Clients and status over a store, the issuer of request paths, and a view of the server.

    `defaults` fills the quota fields that a request leaves at 0; `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        issuer: PathIssuer,
        status: Callable[[], StatusSnapshot],
        defaults: Quota,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._status = status
        self._defaults = defaults
        self._now = now

    @_answered
    async def AddClient(
        self, request: admin_pb2.AddClientRequest, context: _Context
    ) -> admin_pb2.AddClientResponse:
        """Let a client in: ALREADY_EXISTS for a taken name, INVALID_ARGUMENT for a bad name or quota."""
        check_name(request.name)
        quota = Quota(
            slots=request.quota.slots or self._defaults.slots,
            bytes=request.quota.bytes or self._defaults.bytes,
            ttl=request.quota.ttl_seconds or self._defaults.ttl,
        )
        check_quota(quota)
        client = Client(
            client_id=secrets.token_bytes(CLIENT_ID_SIZE),
            name=request.name,
            state=ClientState.ACTIVE,
            generation=1,
            quota=quota,
            created_at=int(self._now()),
        )
        # Paths first: a client whose paths nobody could be shown would only block its name.
        paths = await self._issuer.request_paths(client)
        try:
            await self._store.add_client(client)
        except NameTaken:
            raise NameTaken(
                f"there is a client {client.name} already: choose another name, or see it with "
                f"`sidecar client show {client.name}`"
            ) from None
        log.info("client %s added: %s", client.name, client.client_id.hex())
        return admin_pb2.AddClientResponse(client=_client(client, Usage(slots=0, bytes=0)), paths=paths)

    @_answered
    async def ListClients(
        self, request: admin_pb2.ListClientsRequest, context: _Context
    ) -> admin_pb2.ListClientsResponse:
        """All clients by name."""
        clients = await self._store.list_clients()
        return admin_pb2.ListClientsResponse(clients=[_client(*each) for each in clients])

    @_answered
    async def ShowClient(
        self, request: admin_pb2.ShowClientRequest, context: _Context
    ) -> admin_pb2.ShowClientResponse:
        """One client with its slots and request paths; NOT_FOUND when there is none."""
        client = await self._find(request.name)
        invoices = await self._store.invoices(client.client_id)
        active = client.state is ClientState.ACTIVE
        return admin_pb2.ShowClientResponse(
            client=_client(client, _usage(invoices)),
            slots=[_slot(invoice) for invoice in invoices],
            # A revoked client's paths are met with silence: showing them would only mislead.
            paths=await self._issuer.request_paths(client) if active else b"",
        )

    @_answered
    async def RotateClient(
        self, request: admin_pb2.RotateClientRequest, context: _Context
    ) -> admin_pb2.RotateClientResponse:
        """New request paths for a client; FAILED_PRECONDITION when it is revoked."""
        found = await self._find(request.name)
        if found.state is ClientState.REVOKED:
            raise ClientRevoked(
                f"client {found.name} is revoked: remove it with `sidecar client remove {found.name}` "
                "and add it again"
            )
        client = await self._store.rotate_client(found.client_id)
        usage = _usage(await self._store.invoices(client.client_id))
        log.info("client %s rotated: generation %d", client.name, client.generation)
        return admin_pb2.RotateClientResponse(
            client=_client(client, usage), paths=await self._issuer.request_paths(client)
        )

    @_answered
    async def RevokeClient(
        self, request: admin_pb2.RevokeClientRequest, context: _Context
    ) -> admin_pb2.RevokeClientResponse:
        """Serve a client no more; its record and name stay."""
        client = await self._store.revoke_client((await self._find(request.name)).client_id)
        log.info("client %s revoked", client.name)
        return admin_pb2.RevokeClientResponse(client=_client(client, Usage(slots=0, bytes=0)))

    @_answered
    async def RemoveClient(
        self, request: admin_pb2.RemoveClientRequest, context: _Context
    ) -> admin_pb2.RemoveClientResponse:
        """Forget a client."""
        client = await self._find(request.name)
        await self._store.remove_client(client.client_id)
        log.info("client %s removed", client.name)
        return admin_pb2.RemoveClientResponse()

    @_answered
    async def GetStatus(
        self, request: admin_pb2.GetStatusRequest, context: _Context
    ) -> admin_pb2.GetStatusResponse:
        """What the server runs on, and what it did."""
        snapshot = self._status()
        return admin_pb2.GetStatusResponse(
            version=snapshot.version,
            node_id=snapshot.node_id,
            lnd_version=snapshot.lnd_version,
            mode=snapshot.mode,
            network=snapshot.network,
            redis=snapshot.redis,
            durability=snapshot.durability,
            stream_up=snapshot.stream_up,
            counters=snapshot.counters,
        )

    async def _find(self, name: str) -> Client:
        """The client of that name or id. Raises NoSuchClient, StoreUnavailable."""
        try:
            return await self._store.find_client(name)
        except NoSuchClient:
            raise NoSuchClient(f"there is no client {name!r}: `sidecar client list` shows all") from None


# --- the socket ---------------------------------------------------------------------------------


class AdminServer:
    """A running admin service. It holds a lock on its socket until it is stopped, or killed."""

    def __init__(self, server: grpc.aio.Server, lock: int) -> None:
        self._server = server
        self._lock = lock

    async def stop(self, grace: float | None = None) -> None:
        """Take no new calls, and end the running ones within `grace` seconds."""
        await self._server.stop(grace)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    async def wait_for_termination(self) -> None:
        """Return once the server has stopped."""
        await self._server.wait_for_termination()


async def start_admin(servicer: admin_pb2_grpc.AdminServicer, socket_path: Path) -> AdminServer:
    """Listen on `socket_path` (see admin_socket_path), for this user alone.

    A socket that a killed server left behind is replaced. Raises OperatorError when another
    server is alive on it, AdminDenied when the socket can't be made there.
    """
    try:
        private_directory(socket_path.parent)
        lock = _lock(socket_path.with_suffix(".lock"))
    except OSError as error:
        raise AdminDenied(f"no socket can be made at {socket_path}: {error.strerror}") from None
    try:
        _clear(socket_path)
        server = grpc.aio.server()
        admin_pb2_grpc.add_AdminServicer_to_server(servicer, server)
        # The socket is made by this very call; with the mask there is no moment at which it is open
        # to others. A data directory that exists keeps its own mode, for it may be shared on purpose.
        mask = os.umask(0o177)
        try:
            server.add_insecure_port(socket_target(socket_path))
        except RuntimeError:
            raise AdminDenied(f"no socket can be made at {socket_path}: is the directory ours?") from None
        finally:
            os.umask(mask)
        await server.start()
    except BaseException:
        os.close(lock)
        raise
    return AdminServer(server, lock)


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
