"""The errors of the admin services on the wire: google.rpc.Status with a google.rpc.ErrorInfo.

docs/errors.md lists the reasons, docs/admin-api.md shows how a caller reads them.
"""

from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

from sidecar.core.errors import (
    BadExport,
    BadName,
    BadNodeId,
    BadToken,
    BadWebhook,
    ClientPaused,
    ClientRevoked,
    ConfigError,
    NameTaken,
    NodeTaken,
    NodeUnknown,
    NoSuchClient,
    NoSuchInvoice,
    NoSuchWebhook,
    SidecarError,
    StandsBy,
    StoreNotEmpty,
    TooManyWebhooks,
    Unavailable,
)

DOMAIN = "static-invoice-sidecar"
"""Says in an ErrorInfo whose slug its `reason` is."""

INTERNAL = "internal"
"""The slug of a fault of the server's own; all others are those of core/errors.py."""

MAX_TEXT = 1_000
"""Bytes of an error's text: trailing metadata has room for 8 kB, where it stands in three letters a byte,
and once more in base64."""

_CODES: tuple[tuple[type[SidecarError], grpc.StatusCode], ...] = (
    (NameTaken, grpc.StatusCode.ALREADY_EXISTS),
    (NodeTaken, grpc.StatusCode.ALREADY_EXISTS),
    (NoSuchClient, grpc.StatusCode.NOT_FOUND),
    (NoSuchWebhook, grpc.StatusCode.NOT_FOUND),
    (NoSuchInvoice, grpc.StatusCode.NOT_FOUND),
    (BadName, grpc.StatusCode.INVALID_ARGUMENT),
    (BadNodeId, grpc.StatusCode.INVALID_ARGUMENT),
    (BadWebhook, grpc.StatusCode.INVALID_ARGUMENT),
    (BadExport, grpc.StatusCode.INVALID_ARGUMENT),
    (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (TooManyWebhooks, grpc.StatusCode.FAILED_PRECONDITION),
    (NodeUnknown, grpc.StatusCode.FAILED_PRECONDITION),
    (ClientRevoked, grpc.StatusCode.FAILED_PRECONDITION),
    (ClientPaused, grpc.StatusCode.FAILED_PRECONDITION),
    (StoreNotEmpty, grpc.StatusCode.FAILED_PRECONDITION),
    (StandsBy, grpc.StatusCode.FAILED_PRECONDITION),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (BadToken, grpc.StatusCode.UNAUTHENTICATED),
)


def code_of(error: type[SidecarError]) -> grpc.StatusCode:
    """The code under which a call raises an error of that class."""
    return next((code for kind, code in _CODES if issubclass(error, kind)), grpc.StatusCode.INTERNAL)


def status(code: grpc.StatusCode, reason: str, text: str) -> grpc.Status:
    """What a call ends with; `reason` is a slug. A text beyond MAX_TEXT is cut."""
    detail = Packed()
    detail.Pack(ErrorInfo(reason=reason, domain=DOMAIN))
    # What a file says may be no Unicode: half of a surrogate pair can't be sent.
    if len(encoded := text.encode(errors="replace")) > MAX_TEXT:
        encoded = encoded[: MAX_TEXT - 3] + "…".encode()
    text = encoded.decode(errors="ignore")
    return rpc_status.to_status(Status(code=code.value[0], message=text, details=[detail]))


def reason_in(error: Any) -> str | None:
    """The slug in a grpc.RpcError or grpc.aio.AioRpcError; None when the error is not of our making."""
    try:
        found = rpc_status.from_call(error)
    except (DecodeError, ValueError):
        return None
    for detail in found.details if found else ():
        info = ErrorInfo()
        if detail.Is(ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return None
