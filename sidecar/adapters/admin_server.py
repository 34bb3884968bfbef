"""The admin socket's server, and what the services on it share.

It listens on a Unix socket that only the server's own user may open, so there is no password: who
can connect may do everything.
"""

import logging
import os
import stat
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import grpc

from sidecar.adapters.admin_client import REASON_KEY, private_directory, socket_target
from sidecar.adapters.locks import locked
from sidecar.core.errors import (
    AdminDenied,
    BadName,
    BadNodeId,
    BadWebhook,
    ClientRevoked,
    ConfigError,
    NameTaken,
    NodeTaken,
    NodeUnknown,
    NoSuchClient,
    NoSuchWebhook,
    OperatorError,
    SidecarError,
    TooManyWebhooks,
    Unavailable,
)
from sidecar.rpc.sidecar.v1 import admin_pb2_grpc

log = logging.getLogger(__name__)

# --- errors to statuses -------------------------------------------------------------------------

_CODES: tuple[tuple[type[SidecarError], grpc.StatusCode], ...] = (
    (NameTaken, grpc.StatusCode.ALREADY_EXISTS),
    (NodeTaken, grpc.StatusCode.ALREADY_EXISTS),
    (NoSuchClient, grpc.StatusCode.NOT_FOUND),
    (NoSuchWebhook, grpc.StatusCode.NOT_FOUND),
    (BadName, grpc.StatusCode.INVALID_ARGUMENT),
    (BadNodeId, grpc.StatusCode.INVALID_ARGUMENT),
    (BadWebhook, grpc.StatusCode.INVALID_ARGUMENT),
    (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (TooManyWebhooks, grpc.StatusCode.FAILED_PRECONDITION),
    (NodeUnknown, grpc.StatusCode.FAILED_PRECONDITION),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (ClientRevoked, grpc.StatusCode.FAILED_PRECONDITION),
)

Context = grpc.aio.ServicerContext[Any, Any]
S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")


def answered(
    method: Callable[[S, Q, Context], Awaitable[R]],
) -> Callable[[S, Q, Context], Coroutine[Any, Any, R]]:
    """Turn the errors of a call into the statuses that admin.proto promises."""

    async def call(self: S, request: Q, context: Context) -> R:
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


async def start_admin(
    admin: admin_pb2_grpc.AdminServicer,
    socket_path: Path,
    webhooks: admin_pb2_grpc.WebhooksServicer | None = None,
) -> AdminServer:
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
        admin_pb2_grpc.add_AdminServicer_to_server(admin, server)
        if webhooks is not None:
            admin_pb2_grpc.add_WebhooksServicer_to_server(webhooks, server)
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
