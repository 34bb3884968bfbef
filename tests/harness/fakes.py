"""In-process stand-ins for LND, its peers, its graph and the clock: nothing here opens a socket."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from sidecar.core import keys, messages, onion, paths
from sidecar.core.errors import Malformed, NoRoute, PeerNotConnected, UnknownScid
from sidecar.core.paths import BlindedPath, NextHop
from sidecar.ports import PeerChange, PeersNow, Received
from tests.harness.link import LinkClosed

DAY = 86_400
LND_SECRET = keys.sha256(b"the key of the tests' LND")


def peel_hop(secret: bytes, path_key: bytes, packet: bytes) -> tuple[NextHop, bytes, bytes]:
    """One intermediate hop with its node's secret: where to, the next packet, and its encrypted data."""
    shared = keys.ecdh(secret, path_key)
    blinded = paths.blind(onion.check_packet(packet), shared)
    layer = onion.peel(packet, keys.ecdh(secret, blinded))
    data = messages.read_forward_payload(layer.payload)
    hop = paths.follow(path_key, shared, paths.decrypt_recipient_data(shared, data))
    assert isinstance(layer, onion.Forward)
    return hop, layer.next_packet, data


def behind(node_id: bytes, path: BlindedPath) -> BlindedPath:
    """A path with one node more before it, as anyone can make it (BOLT 4, `next_path_key_override`)."""
    assert isinstance(path.introduction_node, bytes)
    secret = os.urandom(32)
    data = paths.next_hop_data(path.introduction_node, override=path.path_key)
    hop = paths.encrypt_hop(node_id, keys.ecdh(secret, node_id), data)
    return BlindedPath(node_id, keys.public_key(secret), (hop, *path.hops))


class FakeClock:
    """ports.Clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = int(time.time()) * 1000
        self._set_by_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self.ms

    def steady_ms(self) -> int:
        """Milliseconds that a test let pass."""
        return self.ms - self._set_by_ms

    def pass_seconds(self, seconds: float) -> None:
        """Move on, or back."""
        self.ms += int(seconds * 1000)

    def step_seconds(self, seconds: float) -> None:
        """The clock is set, forward or back, and no time passes."""
        self.pass_seconds(seconds)
        self._set_by_ms += int(seconds * 1000)


class CountingKey:
    """ports.NodeKey of a secret in process; `calls` are the points it was asked about."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.calls: list[bytes] = []

    async def ecdh(self, point: bytes) -> bytes:
        """BOLT 4's ECDH."""
        self.calls.append(point)
        return keys.ecdh(self._secret, point)


class LoopbackLink:
    """A peer's connection to LND, without a wire (tests.harness.link.Link)."""

    def __init__(self, node_id: bytes, network: "LoopbackNetwork") -> None:
        self.node_id = node_id
        self._network = network
        self.inbox: asyncio.Queue[tuple[bytes, bytes] | None] = asyncio.Queue()

    async def send_onion(self, path_key: bytes, onion: bytes) -> None:
        """Give LND an onion message."""
        self._network.arrive(self.node_id, path_key, onion)

    async def receive_onion(self) -> tuple[bytes, bytes]:
        """The next onion message from LND. Raises LinkClosed."""
        # Here nothing takes long: what did not come in seconds never will.
        async with asyncio.timeout(5):
            message = await self.inbox.get()
        if message is None:
            raise LinkClosed
        return message

    async def send_custom(self, type_: int, data: bytes) -> None:
        """No test here sends custom messages."""
        raise NotImplementedError

    async def receive_custom(self) -> tuple[int, bytes]:
        """No test here receives custom messages."""
        raise NotImplementedError

    async def close(self) -> None:
        """Hang up."""
        self._network.disconnect(self.node_id)
        self.inbox.put_nowait(None)


class FakePeers:
    """ports.Peers of an LND in process; `received` is how many bytes came from each connected peer."""

    def __init__(self) -> None:
        self.received: dict[bytes, int] = {}
        self.error: Exception | None = None
        self._changes: asyncio.Queue[PeerChange | PeersNow] = asyncio.Queue()
        self._changes.put_nowait(PeersNow(frozenset()))
        self._taken = asyncio.Event()

    def change(self, node_id: bytes, *, online: bool) -> None:
        """A peer comes or goes."""
        if online:
            self.received[node_id] = 0
        else:
            self.received.pop(node_id, None)
        self._changes.put_nowait(PeerChange(node_id, online))

    def start_anew(self) -> None:
        """LND's stream was cut, and stands again."""
        self._changes.put_nowait(PeersNow(frozenset(self.received)))

    def restart(self) -> None:
        """A new reader: what the earlier one did not read is void."""
        self._changes = asyncio.Queue()
        self.start_anew()

    @property
    def idle(self) -> bool:
        """Whether the reader knows all."""
        return self._changes.empty()

    async def receive(self) -> AsyncIterator[PeersNow | PeerChange]:
        """Who is there, then every change."""
        while True:
            yield await self._changes.get()

    async def bytes_received(self) -> dict[bytes, int]:
        """Bytes from each connected peer, or `error`."""
        if self.error is not None:
            raise self.error
        return dict(self.received)


class NotedNotifier:
    """ports.Notifier that notes what it is asked for."""

    def __init__(self) -> None:
        self.notified: list[tuple[bytes, str]] = []
        self.announced: list[tuple[bytes, str]] = []
        self.came: list[bytes] = []

    def notify(self, node_id: bytes, method: str) -> None:
        """Wake a node."""
        self.notified.append((node_id, method))

    def announce(self, node_id: bytes, app_name: str) -> None:
        """webhook_registered."""
        self.announced.append((node_id, app_name))

    def connected(self, node_id: bytes) -> None:
        """The node is here."""
        self.came.append(node_id)


class LoopbackNetwork:
    """ports.OnionTransport over an LND in process, with its peers.

    Native, LND opens its own layer, forwards for others, and hands over what it opened; else (custom
    mode) it hands over every message as it came.
    """

    def __init__(self, lnd_secret: bytes, *, native: bool) -> None:
        self.forwards_for_others = not native
        self.dropped_by_lnd = 0
        self.send_error: Exception | None = None
        self._lnd_secret = lnd_secret
        self._links: dict[bytes, LoopbackLink] = {}
        self._arrived: asyncio.Queue[Received | None] = asyncio.Queue()
        self.peers = FakePeers()

    def connect(self, node_id: bytes) -> LoopbackLink:
        """A new connection of a peer."""
        self._links[node_id] = LoopbackLink(node_id, self)
        self.peers.change(node_id, online=True)
        return self._links[node_id]

    def disconnect(self, node_id: bytes) -> None:
        """The end of a peer's connection."""
        if self._links.pop(node_id, None) is not None:
            self.peers.change(node_id, online=False)

    def waiting(self, node_id: bytes) -> int:
        """Messages that a connected peer has not read yet."""
        return self._links[node_id].inbox.qsize()

    def arrive(self, peer: bytes, path_key: bytes, packet: bytes) -> None:
        """A peer's onion message, as it comes in from the wire."""
        if self.forwards_for_others:
            self.inject(Received(peer, path_key, packet, None))
            return
        try:
            hop, next_packet, data = peel_hop(self._lnd_secret, path_key, packet)
        except Malformed:
            self.dropped_by_lnd += 1
            return
        # LND streams what it forwards, whether it can be forwarded or not.
        self.inject(Received(peer, path_key, packet, data))
        if hop.node_id in self._links:
            self._links[hop.node_id].inbox.put_nowait((hop.path_key, next_packet))

    def inject(self, received: Received) -> None:
        """Hand something to the sidecar, whatever LND thinks of it."""
        self._arrived.put_nowait(received)

    def pause(self) -> None:
        """End the running `receive` behind what has arrived; what comes later waits for the next one."""
        self._arrived.put_nowait(None)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the sidecar."""
        return self._arrived.empty()

    async def receive(self) -> AsyncIterator[Received]:
        """What has reached LND."""
        while (received := await self._arrived.get()) is not None:
            yield received

    async def send(self, peer: bytes, path_key: bytes, onion: bytes) -> None:
        """Hand an onion message to a connected peer. Raises PeerNotConnected, or `send_error`."""
        if self.send_error is not None:
            raise self.send_error
        if peer not in self._links:
            raise PeerNotConnected(peer.hex())
        self._links[peer].inbox.put_nowait((path_key, onion))


@dataclass
class FakeGraph:
    """ports.Graph as a test sets it: `dialled` is who was dialled, `reachable` who then answers."""

    network: LoopbackNetwork
    scids: dict[int, bytes] = field(default_factory=dict)
    sciddirs: dict[tuple[int, int], bytes] = field(default_factory=dict)
    relays: dict[bytes, Sequence[bytes]] = field(default_factory=dict)
    reachable: set[bytes] = field(default_factory=set)
    announced: set[bytes] = field(default_factory=set)
    dialled: list[bytes] = field(default_factory=list)
    line_is_free: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, dialling takes forever."""

    def __post_init__(self) -> None:
        self.line_is_free.set()

    async def next_node(self, scid: int) -> bytes:
        """The node behind one of our channels, by scid or alias. Raises UnknownScid."""
        if scid not in self.scids:
            raise UnknownScid(str(scid))
        return self.scids[scid]

    async def node_of(self, scid: int, direction: int) -> bytes:
        """One end of a channel. Raises UnknownScid."""
        if (scid, direction) not in self.sciddirs:
            raise UnknownScid(f"{scid}/{direction}")
        return self.sciddirs[scid, direction]

    async def relays_to(self, node_id: bytes) -> Sequence[bytes]:
        """Neighbours of a node."""
        return self.relays.get(node_id, ())

    async def has_channel(self, node_id: bytes) -> bool:
        """Whether one of the scids is a channel with the node."""
        return node_id in self.scids.values()

    async def is_announced(self, node_id: bytes) -> bool:
        """Whether the test says so."""
        return node_id in self.announced

    async def dial(self, node_id: bytes) -> None:
        """Connect to a node. Raises NoRoute."""
        self.dialled.append(node_id)
        await self.line_is_free.wait()
        if node_id not in self.reachable:
            raise NoRoute(node_id.hex())
        self.network.connect(node_id)
