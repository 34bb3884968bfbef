"""A real LND for a test: started in a folder of its own, without a chain, and stopped by its pid."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, cast

import grpc
import grpc.aio

from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from sidecar.rpc import state_pb2 as state
from sidecar.rpc import state_pb2_grpc as state_rpc
from tests.lnd import build

Kind = Literal["native", "custom"]

# Native: LND >= 0.21 handles onion messages, and has to take them from peers without a channel.
# Custom: LND <= 0.20 hands them to us raw, and announces bit 39 for us.
_FLAGS: dict[Kind, tuple[str, ...]] = {
    "native": ("--protocol.onion-msg-relay-all",),
    "custom": (
        "--protocol.custom-message=513",
        "--protocol.custom-init=39",
        "--protocol.custom-nodeann=39",
    ),
}
_VERSIONS: dict[Kind, str] = {"native": "0.21", "custom": "0.20"}
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
# A node on loopback is up within a second: gRPC's default back-off would double that.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class LndError(Exception):
    """LND did not start or did not do what a test needs; the text has the tail of its log."""


class LndProcess:
    """A running LND: `async with LndProcess("native", folder) as lnd: ...`.

    The folder, the ports and all files in the folder stay the same over `stop`, `start` and `restart`.
    """

    def __init__(
        self,
        kind: Kind,
        lnddir: Path,
        *,
        binary: Path | None = None,
        rpc_port: int | None = None,
        p2p_port: int | None = None,
        extra: Sequence[str] = (),
        protocol: Sequence[str] | None = None,
        wallet: bool = True,
    ) -> None:
        """`protocol` replaces the flags of the kind; without `wallet` LND waits for one to be made."""
        self.kind: Kind = kind
        self.lnddir = lnddir
        self.rpc_port = rpc_port or free_port()
        self.p2p_port = p2p_port or free_port()
        self.extra = list(extra)
        self.protocol = None if protocol is None else list(protocol)
        self.wallet = wallet
        self.node_id = b""
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None
        self._log: IO[bytes] | None = None

    @property
    def host(self) -> str:
        """Where its gRPC listens."""
        return f"127.0.0.1:{self.rpc_port}"

    @property
    def tls_path(self) -> Path:
        """Its certificate."""
        return self.lnddir / "tls.cert"

    @property
    def macaroon_path(self) -> Path:
        """Its admin macaroon."""
        return self.lnddir / "data" / "chain" / "bitcoin" / "regtest" / "admin.macaroon"

    @property
    def log_path(self) -> Path:
        """What it printed, over all its starts."""
        return self.lnddir / "stdout.log"

    @property
    def pid(self) -> int:
        """The process, for tests that suspend it."""
        if self._process is None:
            raise LndError("LND is not running")
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and wait until it serves: SERVER_ACTIVE, or with no wallet until it says so."""
        if self._binary is None:
            self._binary = await asyncio.to_thread(build.ensure, _VERSIONS[self.kind])
        self.lnddir.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        self._process = await asyncio.create_subprocess_exec(
            self._binary, *self._arguments(), stdout=self._log, stderr=asyncio.subprocess.STDOUT
        )
        try:
            await self._until_ready(self._process)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Let it end by itself (SIGINT), as an operator would."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._process = None
        if self._log is not None:
            self._log.close()

    async def restart(self, kind: Kind | None = None) -> None:
        """Stop and start it on the same folder and ports; another kind is an upgrade."""
        await self.stop()
        if kind is not None and kind != self.kind:
            self.kind, self._binary, self.protocol = kind, None, None
        await self.start()

    def channel(self, macaroon: Path | None = None) -> grpc.aio.Channel:
        """A gRPC channel to it, with this macaroon or the admin's; the caller closes it."""
        path = macaroon or self.macaroon_path
        return self._channel(path.read_bytes().hex())

    async def bake(self, uris: Sequence[str]) -> Path:
        """A macaroon that allows these URIs and nothing else ("/lnrpc.Lightning/GetInfo")."""
        # BakeMacaroonRequest.permissions is field 1 and holds {entity = 1, action = 2}. Written by
        # hand because the sidecar itself never bakes: its copy of the protocol has no such message.
        request = b"".join(_field(1, _field(1, b"uri") + _field(2, uri.encode())) for uri in uris)
        async with self.channel() as channel:
            answer = await _raw_call(channel, "/lnrpc.Lightning/BakeMacaroon", request)
        macaroon = bytes.fromhex(_only_field(answer).decode())
        path = self.lnddir / f"baked-{len(list(self.lnddir.glob('baked-*')))}.macaroon"
        path.write_bytes(macaroon)
        return path

    def log_tail(self, lines: int = 30) -> str:
        """The end of what it printed."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _arguments(self) -> list[str]:
        protocol = _FLAGS[self.kind] if self.protocol is None else self.protocol
        return [
            f"--lnddir={self.lnddir}",
            *(["--noseedbackup"] if self.wallet else []),
            "--bitcoin.regtest",
            "--bitcoin.node=nochainbackend",
            "--norest",
            "--nobootstrap",
            f"--rpclisten={self.host}",
            f"--listen=127.0.0.1:{self.p2p_port}",
            *protocol,
            *self.extra,
        ]

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        """Wait for readiness, the end of the process or the time limit, whichever is first."""
        ended = asyncio.ensure_future(process.wait())
        ready = asyncio.ensure_future(self._ready())
        try:
            await asyncio.wait({ready, ended}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and ready.exception() is None:
                return
            # An LND that refuses its settings may serve gRPC for a moment first: let it end.
            await asyncio.wait({ended}, timeout=1.0)
            why = f"ended with {process.returncode}" if ended.done() else "is not ready in time"
            cause = ready.exception() if ready.done() else None
            raise LndError(f"LND {why}:\n{self.log_tail()}") from cause
        finally:
            for task in (ready, ended):
                task.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def _ready(self) -> None:
        # No event tells that a process has written a file: this one short poll is for the certificate.
        while not (self.tls_path.exists() and b"END CERTIFICATE" in self.tls_path.read_bytes()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        wanted = state.SERVER_ACTIVE if self.wallet else None
        async with self._channel(None) as channel:
            async for now in _states(channel):
                if now == wanted or (wanted is None and now in (state.NON_EXISTING, state.LOCKED)):
                    break
        if self.wallet:
            async with self.channel() as channel:
                info = await ln_rpc.LightningStub(channel).GetInfo(ln.GetInfoRequest())
            self.node_id = bytes.fromhex(info.identity_pubkey)

    def _channel(self, macaroon: str | None) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.tls_path.read_bytes())
        if macaroon is not None:
            calls = grpc.metadata_call_credentials(_Macaroon(macaroon))
            credentials = grpc.composite_channel_credentials(credentials, calls)
        return grpc.aio.secure_channel(self.host, credentials, options=_CHANNEL_OPTIONS)


class _Macaroon(grpc.AuthMetadataPlugin):
    """LND takes a macaroon as hex in the metadata of each call."""

    def __init__(self, macaroon: str) -> None:
        self._metadata = (("macaroon", macaroon),)

    def __call__(self, _: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        callback(self._metadata, None)


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _states(channel: grpc.aio.Channel) -> AsyncIterator[int]:
    stream = state_rpc.StateStub(channel).SubscribeState(state.SubscribeStateRequest(), wait_for_ready=True)
    async for update in stream:
        yield update.state


async def _raw_call(channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
    call = cast("Callable[[bytes], Awaitable[bytes]]", channel.unary_unary(method))
    return await call(request)


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _only_field(message: bytes) -> bytes:
    """The value of field 1 of a message that has that one bytes field only."""
    if message[:1] != b"\x0a":
        raise LndError("LND answered with something other than a macaroon")
    length = shift = 0
    for at, byte in enumerate(message[1:], start=2):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return message[at : at + length]
    raise LndError("LND answered with half a macaroon")
