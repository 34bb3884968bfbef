"""A real LND for a test: started in a folder of its own, with or without a chain, stopped by its pid."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import grpc
import grpc.aio

from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from sidecar.rpc import state_pb2 as state
from sidecar.rpc import state_pb2_grpc as state_rpc
from tests.harness.daemon import Daemon
from tests.harness.ports import free_port
from tests.lnd import build

Kind = Literal["native", "custom"]
Network = Literal["regtest", "mainnet"]

# Native: LND >= 0.21 handles onion messages, and has to take them from peers without a channel.
# Custom: LND <= 0.20 hands them to us raw, and announces bit 39 for us.
_FLAGS: dict[Kind, tuple[str, ...]] = {
    "native": ("--protocol.onion-msg-relay-all", "--protocol.onion-msg-peer-burst-bytes=524288"),
    "custom": (
        "--protocol.custom-message=513",
        "--protocol.custom-init=39",
        "--protocol.custom-nodeann=39",
    ),
}
VERSIONS: dict[Kind, str] = {"native": "0.21", "custom": "0.20"}
_START_SECONDS = 60.0
# A node on loopback is up within a second: gRPC's default back-off would double that.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    # How long one attempt may take: with six LNDs on two cores a handshake does.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class LndError(Exception):
    """LND did not start or did not do what a test needs; the text has the tail of its log."""


class Chain(Protocol):
    """A btcd that LND follows: `tests.harness.btcd.Btcd`."""

    user: str
    password: str

    @property
    def host(self) -> str:
        """host:port of its RPC."""

    @property
    def cert_path(self) -> Path:
        """Its certificate."""


class LndProcess(Daemon):
    """A running LND: `async with LndProcess("native", folder) as lnd: ...`.

    The folder, the ports and all files in the folder stay the same over `stop`, `start` and `restart`.
    """

    _stop_signal = signal.SIGINT

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
        chain: Chain | None = None,
        network: Network = "regtest",
    ) -> None:
        """`protocol` replaces the flags of the kind; without `wallet` LND waits for one to be made.

        Without a `chain` LND has none and needs none, whatever its network; but no channels either.
        """
        super().__init__(lnddir)
        self.kind: Kind = kind
        self.rpc_port = rpc_port or free_port()
        self.p2p_port = p2p_port or free_port()
        self.extra = list(extra)
        self.protocol = None if protocol is None else list(protocol)
        self.wallet = wallet
        self.chain = chain
        self.network: Network = network
        self.node_id = b""
        self._binary = binary

    @property
    def host(self) -> str:
        """Where its gRPC listens."""
        return f"127.0.0.1:{self.rpc_port}"

    @property
    def tls_path(self) -> Path:
        """Its certificate."""
        return self.directory / "tls.cert"

    @property
    def macaroon_path(self) -> Path:
        """Its admin macaroon."""
        return self.directory / "data" / "chain" / "bitcoin" / self.network / "admin.macaroon"

    async def start(self) -> None:
        """Start it and wait until it serves: SERVER_ACTIVE, or with no wallet until it says so."""
        if self._binary is None:
            self._binary = await asyncio.to_thread(build.ensure, VERSIONS[self.kind])
        await self._launch(self._binary, self._arguments())

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
        path = self.directory / f"baked-{len(list(self.directory.glob('baked-*')))}.macaroon"
        path.write_bytes(macaroon)
        return path

    async def lncli(self, *arguments: str) -> Any:
        """Run `lncli …` with the admin macaroon; what it printed, parsed. Raises LndError."""
        binary = await asyncio.to_thread(build.ensure, build.TOOLS_VERSION, "lncli")
        process = await asyncio.create_subprocess_exec(
            binary,
            f"--lnddir={self.directory}",
            f"--rpcserver={self.host}",
            f"--macaroonpath={self.macaroon_path}",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        if process.returncode:
            raise LndError(f"lncli {' '.join(arguments)}: {stderr.decode().strip()}")
        return json.loads(stdout)

    def _arguments(self) -> list[str]:
        protocol = _FLAGS[self.kind] if self.protocol is None else self.protocol
        return [
            f"--lnddir={self.directory}",
            *(["--noseedbackup"] if self.wallet else []),
            f"--bitcoin.{self.network}",
            *self._chain_arguments(),
            "--norest",
            "--nobootstrap",
            f"--rpclisten={self.host}",
            f"--listen=127.0.0.1:{self.p2p_port}",
            *protocol,
            *self.extra,
        ]

    def _chain_arguments(self) -> list[str]:
        if self.chain is None:
            return ["--bitcoin.node=nochainbackend"]
        return [
            "--bitcoin.node=btcd",
            f"--btcd.rpchost={self.chain.host}",
            f"--btcd.rpcuser={self.chain.user}",
            f"--btcd.rpcpass={self.chain.password}",
            f"--btcd.rpccert={self.chain.cert_path}",
            # Gossip is passed on every 90 s by default, in milliseconds.
            "--trickledelay=50",
        ]

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
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
