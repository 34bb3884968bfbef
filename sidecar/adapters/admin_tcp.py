"""The admin services over TCP: always with TLS, and a token in every call."""

from __future__ import annotations

import hmac
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from sidecar.adapters.admin_status import code_of, status
from sidecar.adapters.admin_token import read_token
from sidecar.adapters.audit import OURS, Context, Continuation, Handler, who
from sidecar.core.errors import BadToken, ConfigError
from sidecar.core.limits import Rate, TokenBuckets

log = structlog.get_logger(__name__)

OPEN = "/grpc.health.v1.Health/Check"
"""The one call that needs no token: probes have none. It says nothing but whether the server is well."""


REFUSALS_LOGGED = Rate(per_second=1, burst=20)
"""Lines about calls without the token: a stranger must not fill the disk with them."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """Where to listen (host:port), and the files that make it safe. They are read again when they change."""

    listen: str
    tlscert: Path
    tlskey: Path
    tokenfile: Path


# --- who may call -------------------------------------------------------------------------------


class TokenGuard(grpc.aio.ServerInterceptor):
    """Lets a call through that brings `authorization: Bearer <token>`; all others are UNAUTHENTICATED."""

    def __init__(self, tokenfile: Path) -> None:
        self._tokenfile = tokenfile
        self._complaint = ""
        self._lines = TokenBuckets(REFUSALS_LOGGED)
        self._unlogged = 0

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """The handler itself, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if self._may(handler_call_details.invocation_metadata or ()):
            return handler
        if method == OPEN and handler is not None:
            return _unread(handler)
        # What does not exist is no different to a stranger, and its name may be anything.
        call = method.removeprefix(OURS).replace("/", ".") if handler else "unknown"

        async def refuse(_requests: Any, context: Context) -> None:
            self._log(call, context)
            text = "this call needs the server's token: give the file that holds it as admin.tokenfile"
            ended = status(code_of(BadToken), BadToken.reason, text)
            await context.abort(ended.code, ended.details, ended.trailing_metadata)

        # As a stream, whatever was called: nothing that a stranger sends is waited for, or parsed.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _log(self, call: str, context: Context) -> None:
        if not self._lines.take("", time.monotonic_ns() // 1_000_000):
            self._unlogged += 1
            return
        more = {"unlogged": self._unlogged} if self._unlogged else {}
        log.warning("audit", call=call, outcome=BadToken.reason, **who("tcp", context), **more)
        self._unlogged = 0

    def _may(self, metadata: Sequence[tuple[str, str | bytes]]) -> bool:
        try:
            # Read for each call: a token that was taken back must not work any more.
            wanted = f"Bearer {read_token(self._tokenfile)}".encode()
        except ConfigError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("no admin call over TCP is let in", error=str(error))
            return False
        self._complaint = ""
        given = next((value for key, value in metadata if key == "authorization"), "")
        return hmac.compare_digest(given.encode() if isinstance(given, str) else given, wanted)


def _unread(handler: Any) -> Handler:
    """The same call with one message and one answer; what is no message at all is INVALID_ARGUMENT."""

    async def call(data: bytes, context: Context) -> Any:
        try:
            request = handler.request_deserializer(data)
        except DecodeError:
            # gRPC's own library would log a traceback for each, and anybody may call this.
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no message of that call")
        return await handler.unary_unary(request, context)

    return grpc.unary_unary_rpc_method_handler(call, response_serializer=handler.response_serializer)


# --- the certificate ----------------------------------------------------------------------------


class Certificate:
    """A certificate and its key, as their files are now. Making it raises ConfigError."""

    def __init__(self, tlscert: Path, tlskey: Path) -> None:
        self._files = (tlscert, tlskey)
        self._last = self._read()
        self._complaint = ""

    def credentials(self) -> grpc.ServerCredentials:
        """For a server: the files are read again for each handshake."""
        return grpc.dynamic_ssl_server_credentials(self._last, self._fetch)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """Raises ConfigError: gRPC itself would say nothing, and fail in each handshake."""
        tlscert, tlskey = self._files
        try:
            pair = (tlskey.read_bytes(), tlscert.read_bytes())
        except OSError as error:
            option = "admin.tlskey" if error.filename == str(tlskey) else "admin.tlscert"
            raise ConfigError(f"{option}: {error.filename} can't be read: {error.strerror}") from None
        try:
            # The empty password keeps OpenSSL from asking the terminal for one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tlscert, tlskey, password="")
        except (ssl.SSLError, OSError):
            raise ConfigError(
                f"admin.tlscert, admin.tlskey: {tlscert} and {tlskey} are no certificate and its "
                "unencrypted key, both in PEM"
            ) from None
        return grpc.ssl_server_certificate_configuration([pair])

    def _fetch(self) -> grpc.ServerCertificateConfiguration:
        """Called by gRPC, in a thread of its own. Half-written files change nothing."""
        try:
            self._last = self._read()
        except ConfigError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("the admin server goes on with the certificate it had", error=str(error))
        else:
            self._complaint = ""
        return self._last
