"""What a simulated LND does with messages: its peers, its channels, and what it makes of an onion.

As LND 0.21.2 (onionmessage/{actor,hop,resolver}.go, lnwire/onion_msg_payload.go) and 0.20.3 do it,
drops and oddities included; `tests/adapters/test_sim_lnd.py` holds it to recordings of both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from sidecar.core import keys, onion, paths
from sidecar.core.errors import SidecarError
from sidecar.core.wire import decode_tlvs
from sidecar.rpc import lightning_pb2 as ln
from tests.harness.link import LinkClosed

Mode = Literal["native", "custom"]
T = TypeVar("T")

ONION_MESSAGE = 513
CUSTOM_START = 32_768
REPLY_PATH, ENCRYPTED_DATA = 2, 4
FINAL_HOP_START = 64
KNOWN_FINAL = (64, 66, 68)


class Dropped(Exception):
    """LND drops the message and tells no subscriber; the text says why."""


class NotConnected(Exception):
    """LND has no such peer."""


class Broadcast(Generic[T]):
    """Each subscriber gets everything from its subscription on, over a queue without a bound."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[T | None]] = set()
        self.idle = asyncio.Event()
        """Nobody is subscribed."""
        self.idle.set()

    def subscribe(self) -> asyncio.Queue[T | None]:
        """A queue of what is sent from now on; None is the end."""
        queue: asyncio.Queue[T | None] = asyncio.Queue()
        self._queues.add(queue)
        self.idle.clear()
        return queue

    def unsubscribe(self, queue: asyncio.Queue[T | None]) -> None:
        """Send nothing more to it."""
        self._queues.discard(queue)
        if not self._queues:
            self.idle.set()

    def send(self, item: T) -> None:
        """To all who are subscribed now."""
        for queue in self._queues:
            queue.put_nowait(item)

    def cut(self) -> None:
        """End all streams."""
        for queue in self._queues:
            queue.put_nowait(None)

    def __len__(self) -> int:
        return len(self._queues)


@dataclass
class SimChannel:
    """A channel of LND's own."""

    scid: int
    peer: bytes
    aliases: tuple[int, ...] = ()
    confirmed: int = 0
    peers_alias: int = 0
    public: bool = True


@dataclass
class SimGraphNode:
    """A node that gossip told LND of."""

    node_id: bytes
    addresses: tuple[str, ...] = ()
    listens: bool = False
    """Whether ConnectPeer reaches it at its first address."""


class SimLink:
    """A peer's connection, in process. Fulfils tests.harness.link.Link."""

    def __init__(self, node: SimNode, node_id: bytes, features: Collection[int], *, inbound: bool) -> None:
        self.node_id = node_id
        self.inbound = inbound
        """Whether the peer dialled LND, and not LND the peer."""
        self.features = frozenset(features)
        self.bytes_recv = 0
        self.suspended = False
        """What LND sends to it now is lost, and LND does not notice."""
        self.closed = False
        self._node = node
        self._onions: asyncio.Queue[tuple[bytes, bytes] | None] = asyncio.Queue()
        self._customs: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()

    async def send_onion(self, path_key: bytes, onion: bytes) -> None:
        """Send an onion message (type 513)."""
        await self.send_custom(ONION_MESSAGE, path_key + len(onion).to_bytes(2, "big") + onion)

    async def receive_onion(self) -> tuple[bytes, bytes]:
        """The next onion message's (path_key, onion); waits. Raises LinkClosed."""
        return await _next(self._onions)

    async def send_custom(self, type_: int, data: bytes) -> None:
        """Send a message of any type, well formed or not."""
        if self.closed:
            raise LinkClosed("the simulated LND hung up")
        self.bytes_recv += 2 + len(data)
        self._node.take(self.node_id, type_, data)

    async def receive_custom(self) -> tuple[int, bytes]:
        """The next custom message's (type, data); waits. Raises LinkClosed."""
        return await _next(self._customs)

    async def close(self) -> None:
        """Hang up; may be called again."""
        self._node.disconnect(self.node_id, self)

    def deliver(self, type_: int, data: bytes) -> None:
        """What LND writes to this peer's socket."""
        if self.suspended:
            return
        if type_ == ONION_MESSAGE:
            self._onions.put_nowait((data[:33], data[35:]))
        else:
            self._customs.put_nowait((type_, data))

    def hang_up(self) -> None:
        """LND's end of the connection is gone."""
        self.closed = True
        self._onions.put_nowait(None)
        self._customs.put_nowait(None)


async def _next(queue: asyncio.Queue[T | None]) -> T:
    item = await queue.get()
    if item is None:
        queue.put_nowait(None)
        raise LinkClosed("the simulated LND hung up")
    return item


@dataclass
class SimNode:
    """The node: `ecdh` is what its key does, so that a recording can stand in for a secret."""

    mode: Mode
    node_id: bytes
    ecdh: Callable[[bytes], bytes]
    peers: dict[bytes, SimLink] = field(default_factory=dict)
    channels: list[SimChannel] = field(default_factory=list)
    edges: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    graph: dict[bytes, SimGraphNode] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    """Why messages were dropped before any subscriber saw them."""
    onions: Broadcast[ln.OnionMessageUpdate] = field(default_factory=Broadcast)
    customs: Broadcast[ln.CustomMessage] = field(default_factory=Broadcast)
    events: Broadcast[ln.PeerEvent] = field(default_factory=Broadcast)

    def connect(self, node_id: bytes, features: Collection[int], *, inbound: bool = True) -> SimLink:
        """A peer is there; one that was there before is hung up, as LND does it."""
        self.disconnect(node_id)
        link = self.peers[node_id] = SimLink(self, node_id, features, inbound=inbound)
        self.events.send(ln.PeerEvent(pub_key=node_id.hex(), type=ln.PeerEvent.PEER_ONLINE))
        return link

    def disconnect(self, node_id: bytes, link: SimLink | None = None) -> None:
        """Hang up a peer, or only this link of it."""
        present = self.peers.get(node_id)
        if present is None or (link is not None and present is not link):
            return
        del self.peers[node_id]
        present.hang_up()
        self.events.send(ln.PeerEvent(pub_key=node_id.hex(), type=ln.PeerEvent.PEER_OFFLINE))

    def send(self, peer: bytes, type_: int, data: bytes) -> None:
        """Write a message to a peer. Raises NotConnected."""
        if peer not in self.peers:
            raise NotConnected
        self.peers[peer].deliver(type_, data)

    def take(self, peer: bytes, type_: int, data: bytes) -> None:
        """A message came from a peer."""
        if type_ == ONION_MESSAGE and self.mode == "native":
            path_key, packet = data[:33], data[35:]
            try:
                self.onions.send(self._open(peer, path_key, packet))
            except Dropped as reason:
                self.dropped.append(str(reason))
        elif type_ == ONION_MESSAGE or type_ >= CUSTOM_START:
            self.customs.send(ln.CustomMessage(peer=peer, type=type_, data=data))

    def scid_in_graph(self, scid: int) -> tuple[bytes, bytes] | None:
        """The ends of a channel as LND's graph has it: own channels are in it, aliases are not."""
        for channel in self.channels:
            if scid == (channel.confirmed or channel.scid):
                first, second = sorted((self.node_id, channel.peer))
                return first, second
        return self.edges.get(scid)

    def _open(self, peer: bytes, path_key: bytes, packet: bytes) -> ln.OnionMessageUpdate:
        """Peel a message, forward it if it is another's, and make the update of it. Raises Dropped."""
        try:
            secret = self.ecdh(path_key)
            tweaked = paths.blind(onion.check_packet(packet), secret)
            layer = onion.peel(packet, self.ecdh(tweaked))
            payload = _read_payload(layer.payload)
            data = paths.decrypt_recipient_data(secret, payload.encrypted_data)
            if isinstance(layer, onion.Forward):
                next_node = self._next_node(data)
                if next_node == peer:
                    raise Dropped("onion message cycle: next hop is the sending peer")
                next_key = data.next_path_key_override or keys.next_point(path_key, secret)
                self._forward(next_node, next_key, layer.next_packet)
        except SidecarError as error:
            raise Dropped(f"{error.reason}: {error}") from error
        return ln.OnionMessageUpdate(
            peer=peer,
            path_key=path_key,
            onion=packet,
            reply_path=payload.reply_path,
            encrypted_recipient_data=payload.encrypted_data,
            custom_records=payload.final,
        )

    def _next_node(self, data: paths.RecipientData) -> bytes:
        if data.next_node_id is not None:
            return data.next_node_id
        if data.short_channel_id is None:
            raise Dropped("short channel ID empty")
        edge = self.scid_in_graph(data.short_channel_id)
        if edge is None or self.node_id not in edge:
            raise Dropped("edge not found")
        return edge[1] if edge[0] == self.node_id else edge[0]

    def _forward(self, next_node: bytes, next_key: bytes, packet: bytes) -> None:
        link = self.peers.get(next_node)
        # Not connected: LND writes a line into its log, and makes the update all the same.
        if link is not None:
            link.deliver(ONION_MESSAGE, next_key + len(packet).to_bytes(2, "big") + packet)


@dataclass(frozen=True)
class _Payload:
    encrypted_data: bytes
    reply_path: ln.BlindedPath
    final: dict[int, bytes]


def _read_payload(payload: bytes) -> _Payload:
    """An onion payload by LND 0.21.2's rules, the same at every hop. Raises Dropped."""
    records = decode_tlvs(payload)
    for type_ in records:
        if type_ % 2 == 0 and type_ not in (REPLY_PATH, ENCRYPTED_DATA, *KNOWN_FINAL):
            raise Dropped(f"onion message payload contains unknown even tlv type: {type_}")
    final = {type_: value for type_, value in records.items() if type_ >= FINAL_HOP_START}
    if len(final) > 1:
        raise Dropped("onion message payload contains more than one final hop payload field")
    reply_path = ln.BlindedPath()
    if REPLY_PATH in records:
        path = paths.decode_path(records[REPLY_PATH])
        if isinstance(path.introduction_node, paths.SciddirIntroduction):
            raise Dropped("malformed public key: unsupported format: 0")
        reply_path.introduction_node = path.introduction_node
        reply_path.blinding_point = path.path_key
        for hop in path.hops:
            reply_path.blinded_hops.add(
                blinded_node=hop.blinded_node_id, encrypted_data=hop.encrypted_recipient_data
            )
    return _Payload(records.get(ENCRYPTED_DATA, b""), reply_path, final)
