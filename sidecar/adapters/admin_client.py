"""The admin socket, and the caller's side of the admin service."""

import hashlib
import os
import re
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import grpc

from sidecar.adapters.admin_records import quota_message
from sidecar.adapters.admin_status import reason_in
from sidecar.core.errors import (
    AdminDenied,
    BadExport,
    BadName,
    BadNodeId,
    BadToken,
    BadWebhook,
    ConfigError,
    NameTaken,
    NodeTaken,
    NodeUnknown,
    NoSuchClient,
    NoSuchInvoice,
    NoSuchWebhook,
    OperatorError,
    ServerNotRunning,
    ServerTooOld,
    StandsBy,
    StoreNotEmpty,
)
from sidecar.core.model import Quota
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc

TIMEOUT = 30.0
"""Seconds that a call may take."""

STREAM_TIMEOUT = 6 * 3_600.0
"""Seconds that all of an export or import may take."""

_MAX_SOCKET_PATH = 100  # sockaddr_un has room for 104 to 108 bytes, by system

Q = TypeVar("Q")
R = TypeVar("R")


# --- where the socket is ------------------------------------------------------------------------


def _fits(path: Path) -> bool:
    # gRPC splits an address at commas, however they are written.
    return len(os.fsencode(path)) <= _MAX_SOCKET_PATH and "," not in str(path)


def admin_socket_path(datadir: Path) -> Path:
    """Where the server of `datadir` listens: `admin.sock` in it, or a short stand-in.

    A path that is too long for a socket address is replaced by one under the system's temporary
    directory, named by the data directory's hash. Raises ConfigError when that is too long as well.
    """
    path = datadir.absolute() / "admin.sock"
    if _fits(path):
        return path
    name = hashlib.sha256(os.fsencode(datadir.resolve())).hexdigest()[:16]
    with suppress(FileNotFoundError):  # there is no place for temporary files
        path = Path(tempfile.gettempdir()).absolute() / f"sidecar-admin-{name}" / "admin.sock"
    if not _fits(path):
        raise ConfigError(f"datadir: {datadir} is too long a path for the admin socket: use a shorter one")
    return path


def socket_target(path: Path) -> str:
    """`path` as gRPC addresses it."""
    return "unix:" + quote(os.fsencode(path))


def private_directory(path: Path) -> None:
    """Make the directory of the socket if need be, open to its owner alone.

    Raises AdminDenied for a stand-in that is not ours alone, OSError when it can't be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_stand_in(path):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise AdminDenied(f"{path} is not a directory of this user alone: remove it")


def _is_stand_in(path: Path) -> bool:
    # Anyone can make such a directory where temporary files are; nobody else can in a data directory.
    # By its name first: a container may have no place for temporary files, which is an error to ask for.
    if re.fullmatch(r"sidecar-admin-[0-9a-f]{16}", path.name) is None:
        return False
    return path.parent == Path(tempfile.gettempdir()).absolute()


def _probe(datadir: Path) -> Path:
    """The socket of a live server. Raises ServerNotRunning, AdminDenied, ConfigError.

    gRPC itself says no more than "unavailable", whatever the cause.
    """
    path = admin_socket_path(datadir)
    absent = ServerNotRunning(
        f"no server is running on {datadir}: start it with `sidecar serve`, or name its data directory "
        "with --datadir"
    )
    denied = AdminDenied(
        f"{path} may not be used by this user: run this as the user that runs `sidecar serve`"
    )
    try:
        if _is_stand_in(path.parent) and path.parent.lstat().st_uid not in (
            0,
            os.geteuid(),
            datadir.stat().st_uid,
        ):
            raise denied
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(os.fsencode(path))
    except PermissionError:
        raise denied from None
    except TimeoutError:
        raise ServerNotRunning(f"the server on {datadir} does not answer: look at its log") from None
    except OSError:
        raise absent from None
    return path


# --- calls --------------------------------------------------------------------------------------

_KINDS: dict[str, type[OperatorError]] = {
    kind.reason: kind
    for kind in (
        *(NameTaken, NoSuchClient, BadName, ConfigError),
        *(NodeTaken, NodeUnknown, BadNodeId, BadWebhook, NoSuchWebhook),
        *(NoSuchInvoice, BadExport, StoreNotEmpty, StandsBy, BadToken),
    )
}


@contextmanager
def _operator_errors() -> Iterator[None]:
    """Raise what went wrong in a call as an OperatorError whose text an operator can act on."""
    try:
        yield
    except grpc.RpcError as error:
        code, text = error.code(), error.details() or ""
        if (reason := reason_in(error)) is not None:
            raise _KINDS.get(reason, OperatorError)(text) from None
        if code is grpc.StatusCode.UNAVAILABLE:
            raise ServerNotRunning("the server went away during the call: look at its log") from None
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise OperatorError(f"the server did not answer in {TIMEOUT:.0f} s: look at its log") from None
        if code is grpc.StatusCode.UNIMPLEMENTED:
            raise ServerTooOld("the running server is of another version: restart it") from None
        raise OperatorError(f"the server refused the call: {code.name}: {text}") from None


class AdminClient:
    """Calls to the server of a data directory; a context manager.

    Opening raises ServerNotRunning, AdminDenied, ConfigError; every call raises OperatorError or a
    kind of it (NameTaken, NoSuchClient, BadName, ConfigError). RemoteAdminClient does the same over TCP.
    """

    def __init__(self, datadir: Path) -> None:
        self._use(grpc.insecure_channel(socket_target(_probe(datadir))))

    def _use(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = admin_pb2_grpc.AdminStub(channel)
        self._webhooks = admin_pb2_grpc.WebhooksStub(channel)
        self._backup = admin_pb2_grpc.BackupStub(channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def add(
        self, name: str, quota: Quota, node_id: str = "", timestamps: str = ""
    ) -> admin_pb2.AddClientResponse:
        """Let a client in; where `quota` is None the server's default holds, and so for what is empty."""
        wanted = quota_message(quota)
        return self._call(
            self._stub.AddClient,
            lambda: admin_pb2.AddClientRequest(
                name=_text(name), quota=wanted, node_id=_text(node_id), timestamps=_text(timestamps)
            ),
        )

    def clients(self) -> admin_pb2.ListClientsResponse:
        """All clients by name."""
        return self._call(self._stub.ListClients, admin_pb2.ListClientsRequest)

    def show(self, name: str) -> admin_pb2.ShowClientResponse:
        """One client, by name or id, with its slots and request paths."""
        return self._call(self._stub.ShowClient, lambda: admin_pb2.ShowClientRequest(name=_text(name)))

    def rotate(self, name: str) -> admin_pb2.RotateClientResponse:
        """New request paths for a client."""
        return self._call(self._stub.RotateClient, lambda: admin_pb2.RotateClientRequest(name=_text(name)))

    def update(self, name: str, changes: Quota, reset: Sequence[str] = ()) -> admin_pb2.UpdateClientResponse:
        """Change a client's own limits; those that `reset` names follow the server's settings again."""
        wanted = quota_message(changes)
        return self._call(
            self._stub.UpdateClient,
            lambda: admin_pb2.UpdateClientRequest(name=_text(name), quota=wanted, reset=reset),
        )

    def pause(self, name: str) -> admin_pb2.PauseClientResponse:
        """Serve a client no more for now."""
        return self._call(self._stub.PauseClient, lambda: admin_pb2.PauseClientRequest(name=_text(name)))

    def resume(self, name: str) -> admin_pb2.ResumeClientResponse:
        """Serve a paused client again."""
        return self._call(self._stub.ResumeClient, lambda: admin_pb2.ResumeClientRequest(name=_text(name)))

    def mail(self, name: str) -> admin_pb2.ListMailResponse:
        """What waits for a client."""
        return self._call(self._stub.ListMail, lambda: admin_pb2.ListMailRequest(name=_text(name)))

    def revoke(self, name: str) -> admin_pb2.RevokeClientResponse:
        """Serve a client no more."""
        return self._call(self._stub.RevokeClient, lambda: admin_pb2.RevokeClientRequest(name=_text(name)))

    def remove(self, name: str) -> None:
        """Forget a client."""
        self._call(self._stub.RemoveClient, lambda: admin_pb2.RemoveClientRequest(name=_text(name)))

    def rebind(self, name: str, node_id: str) -> admin_pb2.RebindClientResponse:
        """Say which node a client is; empty: it is learnt anew."""
        return self._call(
            self._stub.RebindClient,
            lambda: admin_pb2.RebindClientRequest(name=_text(name), node_id=_text(node_id)),
        )

    def set_timestamps(self, name: str, form: str) -> admin_pb2.SetTimestampsResponse:
        """Choose how a client's notifications are dated."""
        return self._call(
            self._stub.SetTimestamps,
            lambda: admin_pb2.SetTimestampsRequest(name=_text(name), timestamps=_text(form)),
        )

    def add_webhook(self, client: str, app_name: str, url: str) -> admin_pb2.AddWebhookResponse:
        """Register a webhook; `client` is a name, a client id or a node id, here and below."""
        return self._call(
            self._webhooks.AddWebhook,
            lambda: admin_pb2.AddWebhookRequest(
                client=_text(client), app_name=_text(app_name), url=_url(url)
            ),
        )

    def webhooks(self, client: str) -> admin_pb2.ListWebhooksResponse:
        """A client's webhooks, and its last notifications."""
        return self._call(
            self._webhooks.ListWebhooks, lambda: admin_pb2.ListWebhooksRequest(client=_text(client))
        )

    def test_webhooks(self, client: str, app_name: str) -> admin_pb2.TestWebhooksResponse:
        """Notify one webhook now, or all when `app_name` is empty."""
        return self._call(
            self._webhooks.TestWebhooks,
            lambda: admin_pb2.TestWebhooksRequest(client=_text(client), app_name=_text(app_name)),
        )

    def pause_webhook(self, client: str, app_name: str, *, paused: bool) -> None:
        """Stop using a webhook, or use it again."""
        self._call(
            self._webhooks.PauseWebhook,
            lambda: admin_pb2.PauseWebhookRequest(
                client=_text(client), app_name=_text(app_name), paused=paused
            ),
        )

    def remove_webhook(self, client: str, app_name: str) -> None:
        """Forget a webhook."""
        self._call(
            self._webhooks.RemoveWebhook,
            lambda: admin_pb2.RemoveWebhookRequest(client=_text(client), app_name=_text(app_name)),
        )

    def dry_run(self, name: str, slot: int) -> admin_pb2.DryRunResponse:
        """What a payer of the offer in that slot would get now."""
        return self._call(self._stub.DryRun, lambda: admin_pb2.DryRunRequest(name=_text(name), slot=slot))

    def export(self) -> Iterator[bytes]:
        """All that is kept, in parts; whole when it ends without an error and with its last line."""
        with _operator_errors():
            for answer in self._backup.Export(admin_pb2.ExportRequest(), timeout=STREAM_TIMEOUT):
                yield answer.part

    def import_(self, parts: Iterable[bytes]) -> admin_pb2.ImportResponse:
        """Bring an export into an empty store, in parts of up to 64 kB."""
        with _operator_errors():
            requests = (admin_pb2.ImportRequest(part=part) for part in parts)
            return self._backup.Import(requests, timeout=STREAM_TIMEOUT)

    def status(self) -> admin_pb2.GetStatusResponse:
        """What the server runs on, and what it did."""
        return self._call(self._stub.GetStatus, admin_pb2.GetStatusRequest)

    def diagnose(self, egress: str = "") -> admin_pb2.DiagnoseResponse:
        """What the server finds when it looks at itself; `egress` is HOST[:PORT] to connect to, or empty."""
        return self._call(self._stub.Diagnose, lambda: admin_pb2.DiagnoseRequest(egress=_text(egress)))

    def _call(self, call: "grpc.UnaryUnaryMultiCallable[Q, R]", request: Callable[[], Q]) -> R:
        with _operator_errors():
            return call(request(), timeout=TIMEOUT)


def _text(name: str) -> str:
    """`name`, once it is sure to be Unicode: a command line may hold any bytes. Raises BadName."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadName(f"{name!r} is no text in UTF-8") from None
    return name


def _url(url: str) -> str:
    """`url`, once it is sure to be Unicode. Raises BadWebhook, which does not show it: it holds secrets."""
    try:
        return _text(url)
    except BadName:
        raise BadWebhook("the webhook is no text in UTF-8") from None
