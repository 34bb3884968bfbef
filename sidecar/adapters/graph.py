"""What LND knows of channels and nodes: who is behind a scid, who is next to whom, and dialling."""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.dialler import Dialler
from sidecar.adapters.lnd import Lnd
from sidecar.core.bounded import Bounded
from sidecar.core.errors import NoRoute, UnknownScid
from sidecar.core.limits import Rate, TokenBuckets
from sidecar.rpc import lightning_pb2 as ln

Clock = Callable[[], float]
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# Our channels are listed again when the list is older than this (seconds), and for a scid that is not
# among them: a wallet names its channel as soon as it has one. Strangers can name any number, so that is
# limited, and what was not found is not looked for again so soon.
_REFRESH = 3.0
_LOOKS = Rate(per_second=1 / _REFRESH, burst=8)
_MISSES = 1_024
# The ends of a channel never change; that it is unknown may, with the next gossip.
_EDGE_TTL, _UNKNOWN_EDGE_TTL, _EDGES = 3_600.0, 10.0, 4_096
_NEIGHBOURS_TTL, _NEIGHBOURS = 60.0, 256
# LND's answers to these are the longest: megabytes for a node with thousands of channels.
_LONG_ANSWERS = 4

Edge = tuple[bytes, bytes]


class LndGraph:
    """Fulfils ports.Graph."""

    def __init__(self, lnd: Lnd, node_id: bytes, dialler: Dialler, *, clock: Clock = time.monotonic) -> None:
        """`node_id` is LND's own; `clock` gives seconds."""
        self._lnd = lnd
        self._node_id = node_id
        self._dialler = dialler
        self._clock = clock
        self._channels = _Channels(lnd, clock)
        self._edges: _Cache[int, Edge | None] = _Cache(_EDGES, clock)
        self._neighbours: _Cache[bytes, frozenset[bytes]] = _Cache(_NEIGHBOURS, clock)
        self._long_answers = asyncio.Semaphore(_LONG_ANSWERS)

    async def next_node(self, scid: int) -> bytes:
        """The node at the other end of our channel `scid`, which may be an alias.

        Raises UnknownScid, LndUnavailable.
        """
        peer = await self._channels.peer(scid)
        if peer is not None:
            return peer
        edge = await self._edge(scid)
        if edge is not None and self._node_id in edge:
            return edge[1] if edge[0] == self._node_id else edge[0]
        peer = self._channels.peer_by_its_alias(scid) if edge is None else None
        if peer is None:
            raise UnknownScid(f"{_readable(scid)} is none of LND's channels")
        return peer

    async def node_of(self, scid: int, direction: int) -> bytes:
        """The node that a sciddir names: 0 is node_id_1, 1 is node_id_2.

        Raises UnknownScid, LndUnavailable.
        """
        peer = await self._channels.peer(scid)
        edge = self._ends(peer) if peer is not None else await self._edge(scid)
        if edge is None:
            peer = self._channels.peer_by_its_alias(scid)
            if peer is None:
                raise UnknownScid(f"LND knows no channel {_readable(scid)}")
            edge = self._ends(peer)
        return edge[direction]

    async def relays_to(self, node_id: bytes) -> Sequence[bytes]:
        """Connected channel peers that speak onion messages and have a channel with `node_id`.

        Those whose announced channel with it is known, in the order in which LND lists its
        peers. Raises LndUnavailable.
        """
        async with self._long_answers:
            return await self._relays_to(node_id)

    async def _relays_to(self, node_id: bytes) -> Sequence[bytes]:
        neighbours = await self._neighbours_of(node_id)
        if not neighbours:
            return ()
        ours = await self._channels.peers()
        answer = await self._lnd.call(calls.LIST_PEERS, ln.ListPeersRequest())
        relays = []
        for peer in answer.peers:
            peer_id = bytes.fromhex(peer.pub_key)
            speaks = calls.speaks_onion_messages(peer.features)
            # Without a channel, a neighbour on default settings would drop what we send it.
            if speaks and peer_id in neighbours and peer_id in ours and peer_id != node_id:
                relays.append(peer_id)
        return relays

    async def has_channel(self, node_id: bytes) -> bool:
        """Whether LND has a channel with the node, pending ones aside. Raises LndUnavailable."""
        return await self._channels.has_peer(node_id)

    async def is_announced(self, node_id: bytes) -> bool:
        """Whether the node has announced itself to the network. Raises LndUnavailable."""
        request = ln.NodeInfoRequest(pub_key=node_id.hex())
        try:
            answer = await self._lnd.call(calls.GET_NODE_INFO, request, failed=NoRoute)
        except NoRoute:
            return False
        # LND's graph has a node without its announcement too, when it knows a channel of it.
        return answer.node.last_update > 0

    async def dial(self, node_id: bytes) -> None:
        """Connect to a node at its announced address, within a budget. Raises NoRoute, LndUnavailable."""
        await self._dialler.dial(node_id)

    def _ends(self, peer: bytes) -> Edge:
        # "node_id_1 … is the lexicographically-lesser of the two compressed keys" (BOLT 7).
        return (self._node_id, peer) if self._node_id < peer else (peer, self._node_id)

    async def _edge(self, scid: int) -> Edge | None:
        found, edge = self._edges.get(scid)
        if found:
            return edge
        try:
            answer = await self._lnd.call(
                calls.GET_CHAN_INFO, ln.ChanInfoRequest(chan_id=scid), failed=UnknownScid
            )
        except UnknownScid:
            self._edges.put(scid, None, _UNKNOWN_EDGE_TTL)
            return None
        edge = bytes.fromhex(answer.node1_pub), bytes.fromhex(answer.node2_pub)
        self._edges.put(scid, edge, _EDGE_TTL)
        return edge

    async def _neighbours_of(self, node_id: bytes) -> frozenset[bytes]:
        """Which of our own channel peers have an announced channel with the node."""
        found, neighbours = self._neighbours.get(node_id)
        if found and neighbours is not None:
            return neighbours
        request = ln.NodeInfoRequest(pub_key=node_id.hex(), include_channels=True)
        try:
            answer = await self._lnd.call(calls.GET_NODE_INFO, request, failed=NoRoute)
        except NoRoute:
            neighbours = frozenset()
        else:
            ends = {end for channel in answer.channels for end in (channel.node1_pub, channel.node2_pub)}
            # A big node has thousands: only those who could help are kept.
            neighbours = (await self._channels.peers()).intersection(bytes.fromhex(end) for end in ends)
        neighbours -= {node_id, self._node_id}
        self._neighbours.put(node_id, neighbours, _NEIGHBOURS_TTL)
        return neighbours


class _Channels:
    """LND's own channels by each scid that names them."""

    def __init__(self, lnd: Lnd, clock: Clock) -> None:
        self._lnd = lnd
        self._clock = clock
        self._lock = asyncio.Lock()
        self._listed_at: float | None = None
        self._looks = TokenBuckets(_LOOKS)
        self._missed: _Cache[int, None] = _Cache(_MISSES, clock)
        self._peers: frozenset[bytes] = frozenset()
        self._by_scid: dict[int, bytes] = {}
        self._by_peers_alias: dict[int, bytes] = {}

    async def peer(self, scid: int) -> bytes | None:
        """The peer of our channel `scid`: its own id, or an alias that LND gave it."""
        if scid not in self._by_scid:
            async with self._lock:
                if self._may_look_for(scid):
                    await self._list()
                    self._missed.put(scid, None, _REFRESH)
        return self._by_scid.get(scid)

    def _may_look_for(self, scid: int) -> bool:
        if scid in self._by_scid or self._missed.get(scid)[0]:
            return False
        return self._looks.take("scid", int(self._clock() * 1_000))

    def peer_by_its_alias(self, scid: int) -> bytes | None:
        """The peer that itself calls our channel `scid`.

        To be asked last: the number is the peer's to choose, and it may choose another channel's.
        """
        return self._by_peers_alias.get(scid)

    async def has_peer(self, node_id: bytes) -> bool:
        """Whether LND has a channel with the node; a new one is found at once, if few ask."""
        if node_id in await self.peers():
            return True
        async with self._lock:
            if node_id not in self._peers and self._looks.take("peer", int(self._clock() * 1_000)):
                await self._list()
        return node_id in self._peers

    async def peers(self) -> frozenset[bytes]:
        """All nodes that LND has a channel with."""
        async with self._lock:
            if self._listed_at is None or self._clock() - self._listed_at >= _REFRESH:
                await self._list()
        return self._peers

    async def _list(self) -> None:
        asked_at = self._clock()
        answer = await self._lnd.call(calls.LIST_CHANNELS, ln.ListChannelsRequest())
        self._listed_at = asked_at
        self._by_scid, self._by_peers_alias = {}, {}
        for channel in answer.channels:
            peer = bytes.fromhex(channel.remote_pubkey)
            for scid in (channel.chan_id, channel.zero_conf_confirmed_scid, *channel.alias_scids):
                if scid:
                    self._by_scid[scid] = peer
            if channel.peer_scid_alias:
                self._by_peers_alias[channel.peer_scid_alias] = peer
        self._peers = frozenset(bytes.fromhex(channel.remote_pubkey) for channel in answer.channels)


class _Cache(Generic[Key, Value]):
    """The most recently used entries, each for a time of its own (seconds)."""

    def __init__(self, size: int, clock: Clock) -> None:
        self._clock = clock
        self._entries: Bounded[Key, tuple[Value, float]] = Bounded(size)

    def get(self, key: Key) -> tuple[bool, Value | None]:
        """Whether the key is there, and its value."""
        entry = self._entries.get(key)
        if entry is None or entry[1] <= self._clock():
            return False, None
        self._entries.move_to_end(key)
        return True, entry[0]

    def put(self, key: Key, value: Value, ttl: float) -> None:
        self._entries[key] = value, self._clock() + ttl


def _readable(scid: int) -> str:
    return f"{scid >> 40}x{scid >> 16 & 0xFFFFFF}x{scid & 0xFFFF}"
