"""The gRPC connection to LND, and the two files that open it."""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import grpc
import grpc.aio

from sidecar.adapters import lnd_files
from sidecar.adapters.lnd_calls import A, Call, Fault, Q
from sidecar.core.errors import LndSetupError

# LND's own bound on what it sends and takes (lnrpc/metadata.go).
_MAX_MESSAGE = 200 * 1024 * 1024

_OPTIONS = (
    # LND drops clients that ping more often than every 5 s (config.go, client-ping-min-wait); a ping
    # each 20 s notices a peer that vanished without a word. `ping_timeout_ms` is what ends the
    # connection: keepalive_timeout_ms alone leaves it standing for a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    # Our own backoff decides when to try again: gRPC's would grow to two minutes behind it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # How long one attempt may take, whatever its name says: what was sent into a network that was gone
    # is never answered, and 20 s of waiting for it would be 20 s more of that.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    # The macaroon must not take the way of http_proxy.
    ("grpc.enable_http_proxy", 0),
)
_CLOSE_GRACE = 5.0


@dataclass(frozen=True)
class Line:
    """A channel with the macaroon to use on it; calls compare it to tell whether it was replaced."""

    channel: grpc.aio.Channel
    macaroon: str = field(repr=False)
    # Keyed by URI: to make one anew for each call would cost more than the call's own bookkeeping.
    _unary: dict[str, object] = field(default_factory=dict)

    def unary(self, call: Call[Q, A], request: Q, deadline: float) -> grpc.aio.UnaryUnaryCall[Q, A]:
        """Start a call that may take `deadline` seconds."""
        method = cast("grpc.aio.UnaryUnaryMultiCallable[Q, A] | None", self._unary.get(call.uri))
        if method is None:
            method = self.channel.unary_unary(
                call.uri,
                request_serializer=call.request.SerializeToString,
                response_deserializer=call.answer.FromString,
            )
            self._unary[call.uri] = method
        return method(request, timeout=deadline, metadata=self._metadata)

    def stream(self, call: Call[Q, A], request: Q) -> grpc.aio.UnaryStreamCall[Q, A]:
        """Start a streaming call, without a deadline."""
        method: grpc.aio.UnaryStreamMultiCallable[Q, A] = self.channel.unary_stream(
            call.uri,
            request_serializer=call.request.SerializeToString,
            response_deserializer=call.answer.FromString,
        )
        return method(request, metadata=self._metadata)

    @cached_property
    def _metadata(self) -> grpc.aio.Metadata:
        # gRPC copies it, so that all calls can share one.
        return grpc.aio.Metadata(("macaroon", self.macaroon))


class Connector:
    """Keeps one `Line` to LND, and builds another when a file that it was made from is replaced."""

    def __init__(self, host: str, tls_path: Path, macaroon_path: Path) -> None:
        """`host` is `name:port`. Raises LndSetupError for a file that is missing or unreadable."""
        self.host, self.tls_path, self.macaroon_path = host, tls_path, macaroon_path
        self._certificate = _read(lnd_files.certificate, tls_path, "--lnd.tlspath")
        self._macaroon = _read(lnd_files.macaroon, macaroon_path, "--lnd.macaroonpath")
        self._line: Line | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def line(self) -> Line:
        """The connection to use now. Call it from the event loop that uses it."""
        if self._line is None:
            credentials = grpc.ssl_channel_credentials(self._certificate)
            channel = grpc.aio.secure_channel(self.host, credentials, options=_OPTIONS)
            self._line = Line(channel, self._macaroon.hex())
        return self._line

    def renew(self, fault: Fault, used: Line) -> bool:
        """Whether a call that failed on `used` has a chance now, because the file behind it changed."""
        if fault is Fault.CERTIFICATE:
            return self._renew_certificate(used)
        if fault in (Fault.MACAROON, Fault.PERMISSION):
            return self._renew_macaroon(used)
        return False

    def _renew_certificate(self, used: Line) -> bool:
        # Another call may have found the new file first.
        if self._line is None or self._line.channel is not used.channel:
            return True
        fresh = _reread(lnd_files.certificate, self.tls_path)
        if fresh in (None, self._certificate):
            return False
        self._certificate, self._line = fresh, None
        # A secret that is mounted brings both at once, and a call is tried again just once.
        self._macaroon = _reread(lnd_files.macaroon, self.macaroon_path) or self._macaroon
        self._retire(used.channel)
        return True

    def _renew_macaroon(self, used: Line) -> bool:
        if self._line is None or self._line.macaroon != used.macaroon:
            return True
        fresh = _reread(lnd_files.macaroon, self.macaroon_path)
        if fresh in (None, self._macaroon):
            return False
        self._macaroon = fresh
        self._line = Line(self._line.channel, fresh.hex())
        return True

    def _retire(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.create_task(_close_for_good(channel))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close the connection; the next call opens another."""
        line, self._line = self._line, None
        if line is not None:
            await line.channel.close()
        await asyncio.gather(*self._closing, return_exceptions=True)


async def _close_for_good(channel: grpc.aio.Channel) -> None:
    await channel.close(_CLOSE_GRACE)
    # A cancelled grpc.aio call is part of a reference cycle, and as long as one is left, gRPC's core
    # goes on knocking at LND with the old certificate once a second.
    gc.collect()


def lacking(tls_path: Path, macaroon_path: Path) -> list[str]:
    """Those of the two files that can't be used now, in words: none when `Connector` would take both."""
    found = []
    for what, path in (("certificate", tls_path), ("macaroon", macaroon_path)):
        try:
            why = "" if path.read_bytes() else "empty"
        except OSError as error:
            why = _why(error)
        if why:
            found.append(f"{what} at {path} ({why})")
    return found


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _read(read: Callable[[Path], bytes], path: Path, option: str) -> bytes:
    try:
        data = read(path)
    except OSError as error:
        raise LndSetupError(f"can't read {path} ({_why(error)}): set {option} to LND's file") from None
    if not data:
        raise LndSetupError(f"{path} is empty: set {option} to LND's file")
    return data


def _reread(read: Callable[[Path], bytes], path: Path) -> bytes | None:
    """The file's bytes, or None while it is absent: whoever replaces it may not be done."""
    try:
        return read(path) or None
    except OSError:
        return None
