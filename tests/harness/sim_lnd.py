"""A simulated LND: the gRPC services that the sidecar calls, in this process, with nothing behind them.

It behaves as a real LND 0.21.2 ("native") or 0.20.3 ("custom") was seen to: statuses, texts, what it
streams and what it drops. Peers connect in process: `link = await sim.connect_peer(secret)`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from sidecar.core import keys
from sidecar.rpc import lightning_pb2_grpc as ln_grpc
from sidecar.rpc import signer_pb2_grpc as signer_grpc
from sidecar.rpc import state_pb2 as state
from sidecar.rpc import state_pb2_grpc as state_grpc
from tests.harness.certificates import self_signed
from tests.harness.running import Running
from tests.harness.sim_node import Broadcast, Mode, SimChannel, SimGraphNode, SimLink, SimNode
from tests.harness.sim_services import Gate, LightningService, SignerService, StateService

__all__ = ["SimLink", "SimulatedLnd"]

_PUBLIC_METHODS = ("/lnrpc.State/GetState", "/lnrpc.State/SubscribeState")
_REFUSALS = {
    state.WAITING_TO_START: "waiting to start, RPC services not available",
    state.NON_EXISTING: "wallet not created, create one to enable full RPC access",
    state.LOCKED: "wallet locked, unlock it to enable full RPC access",
    state.UNLOCKED: "the RPC server is in the process of starting up, but not yet ready to accept calls",
}


class SimulatedLnd(Running):
    """`async with SimulatedLnd(folder, "native") as sim: ...`; tls.cert and macaroon lie in the folder."""

    def __init__(
        self,
        folder: Path,
        mode: Mode = "native",
        *,
        secret: bytes = b"\x4c" * 32,
        node_id: bytes | None = None,
        ecdh: Callable[[bytes], bytes] | None = None,
        features: Collection[int] = (39,),
        network: str = "regtest",
        port: int = 0,
    ) -> None:
        """`node_id` and `ecdh` together stand in for `secret`: answers of a recorded node."""
        self.folder, self.features, self.network, self.port = folder, set(features), network, port
        self.secret = secret
        own = keys.public_key(secret) if node_id is None else node_id
        self.node = SimNode(mode, own, ecdh or (lambda point: keys.ecdh(secret, point)))
        self.tls_path = folder / "tls.cert"
        self.macaroon_path = folder / "sidecar.macaroon"
        self.called: Counter[str] = Counter()
        """How often each method was called, by its name."""
        self._called_again = asyncio.Event()
        self.denied: set[str] = set()
        """URIs that the macaroon does not allow."""
        self.dialled: list[tuple[bytes, str]] = []
        """What ConnectPeer was asked for: (node id, address)."""
        self.custom_types = mode == "custom"
        """Whether it runs with protocol.custom-message=513."""
        self.state: state.WalletState.ValueType = state.SERVER_ACTIVE
        self.states: Broadcast[state.WalletState.ValueType] = Broadcast()
        self._server: grpc.aio.Server | None = None
        self._key = b""
        self._macaroon = b""
        folder.mkdir(parents=True, exist_ok=True)
        self.new_certificate()
        self.new_macaroon()

    # --- running it ------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """Where its gRPC listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def node_id(self) -> bytes:
        """Its public key."""
        return self.node.node_id

    @property
    def mode(self) -> Mode:
        """Which kind of LND it plays."""
        return self.node.mode

    async def start(self, *, locked: bool = False) -> None:
        """Listen; on the same port each time. `locked`: with the wallet locked."""
        self.state = state.LOCKED if locked else state.SERVER_ACTIVE
        server = grpc.aio.server(interceptors=[Gate(self)])
        # Cast: the generated base classes want contexts that are sync and async at once.
        ln_grpc.add_LightningServicer_to_server(cast("Any", LightningService(self)), server)
        signer_grpc.add_SignerServicer_to_server(cast("Any", SignerService(self)), server)
        state_grpc.add_StateServicer_to_server(cast("Any", StateService(self)), server)
        credentials = grpc.ssl_server_credentials([(self._key, self.tls_path.read_bytes())])
        self.port = server.add_secure_port(self.host, credentials)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Hang up all peers and streams, and listen no more."""
        for link in list(self.node.peers.values()):
            await link.close()
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    async def restart(self, mode: Mode | None = None, *, locked: bool = False) -> None:
        """Stop and start on the same port; another mode is an upgrade."""
        await self.stop()
        if mode is not None:
            self.node.mode, self.custom_types = mode, mode == "custom"
        await self.start(locked=locked)

    def unlock(self) -> None:
        """The operator gives the password."""
        for step in (state.UNLOCKED, state.RPC_ACTIVE, state.SERVER_ACTIVE):
            self.state = step
            self.states.send(step)

    def cut_streams(self) -> None:
        """End every stream of messages and events, as a shutdown would, and go on serving."""
        for stream in (self.node.onions, self.node.customs, self.node.events):
            stream.cut()

    def new_certificate(self) -> None:
        """Write another tls.cert; LND shows it from its next start on."""
        self._key, certificate = self_signed()
        self.tls_path.write_bytes(certificate)

    def new_macaroon(self) -> None:
        """Write another macaroon; the old one is worth nothing from now on."""
        # As LND's: the version of their form comes first.
        self._macaroon = b"\x02\x01" + keys.sha256(self._macaroon + b"macaroon")
        self.macaroon_path.write_bytes(self._macaroon)

    # --- its world -------------------------------------------------------------------------

    async def connect_peer(self, secret: bytes, features: Collection[int] = (39,)) -> SimLink:
        """A peer with this node key connects."""
        return self.node.connect(keys.public_key(secret), features)

    def add_channel(
        self,
        scid: int,
        peer: bytes,
        *,
        aliases: Collection[int] = (),
        confirmed: int = 0,
        peers_alias: int = 0,
        public: bool = True,
    ) -> None:
        """A channel of LND's own; a public one is in the graph too."""
        channel = SimChannel(scid, peer, tuple(aliases), confirmed, peers_alias, public)
        self.node.channels.append(channel)
        if public:
            self.node.graph.setdefault(peer, SimGraphNode(peer))

    def add_edge(self, scid: int, one: bytes, other: bytes) -> None:
        """A channel between others, from gossip."""
        first, second = sorted((one, other))
        self.node.edges[scid] = first, second
        for end in (one, other):
            self.node.graph.setdefault(end, SimGraphNode(end))

    def add_node(self, node_id: bytes, *addresses: str, listens: bool = True) -> None:
        """A node that announced these addresses, and is there when ConnectPeer comes, or is not."""
        self.node.graph[node_id] = SimGraphNode(node_id, addresses, listens)

    async def until_called(self, name: str, times: int) -> None:
        """Wait until a method was called as often as this, in all."""
        while self.called[name] < times:
            self._called_again.clear()
            await self._called_again.wait()

    # --- what the services ask -------------------------------------------------------------

    def count_call(self, name: str) -> None:
        """A call arrived, to be refused or not."""
        self.called[name] += 1
        self._called_again.set()

    def refusal(self, method: str, macaroons: list[str]) -> str | None:
        """Why LND would not even look at a call; None when it would."""
        if method in _PUBLIC_METHODS:
            return None
        if self.state in _REFUSALS:
            return _REFUSALS[self.state]
        if len(macaroons) != 1:
            return f"expected 1 macaroon, got {len(macaroons)}"
        if macaroons[0] != self._macaroon.hex():
            return "verification failed: signature mismatch after caveat verification"
        return "permission denied" if method in self.denied else None
