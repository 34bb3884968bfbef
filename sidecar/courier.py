"""Sends onion messages along blinded paths: past our own LND, through neighbours, or by dialling."""

from dataclasses import dataclass

from sidecar.core import keys, messages, paths
from sidecar.core.effects import Send
from sidecar.core.errors import BadPath, NotForUs, PathToSelf, PeerNotConnected
from sidecar.core.paths import BlindedPath, NextHop, SciddirIntroduction
from sidecar.core.server import Entropy
from sidecar.ports import Graph, NodeKey, OnionTransport

MAX_HOPS_AT_LND = 4
"""Hops of one path that may be our own LND, one behind the other; each costs a signer call."""

MAX_HOPS = 32
"""Hops of a path that we send along. A stranger chooses it, and at 255 one onion costs 80 ms."""

MAX_RELAYS = 3
"""Neighbours that are tried for one message."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message wrapped for its first hop: what `peer` is to be handed."""

    message: Send
    path: BlindedPath
    peer: bytes
    onion: bytes

    @property
    def path_key(self) -> bytes:
        """33 bytes."""
        return self.path.path_key


class Courier:
    """Hands onion messages to their first hop."""

    def __init__(
        self,
        *,
        lnd_node_id: bytes,
        own_node_id: bytes,
        lnd_key: NodeKey,
        graph: Graph,
        transport: OnionTransport,
        entropy: Entropy,
    ) -> None:
        self._lnd_node_id = lnd_node_id
        self._own_node_id = own_node_id
        self._lnd_key = lnd_key
        self._graph = graph
        self._transport = transport
        self._entropy = entropy

    async def past_lnd(self, path: BlindedPath) -> BlindedPath:
        """The path as it goes on behind our own LND, its first node given by id.

        Raises PathToSelf, BadPath, BadRecipientData, BadPoint, UnknownScid, LndUnavailable.
        """
        return (await self._past_lnd(path))[0]

    async def _past_lnd(self, path: BlindedPath) -> tuple[BlindedPath, bytes]:
        """The same, and its first node."""
        if len(path.hops) > MAX_HOPS:
            raise BadPath(f"a path of {len(path.hops)} hops; we send along {MAX_HOPS} at most")
        for _ in range(MAX_HOPS_AT_LND + 1):
            node_id = await self._introduction(path)
            if node_id == self._own_node_id:
                raise PathToSelf("a path that leads back to the sidecar")
            if node_id != self._lnd_node_id:
                return BlindedPath(node_id, path.path_key, path.hops), node_id
            if len(path.hops) < 2:
                raise PathToSelf("a path that ends at our own LND")
            hop = paths.first_hop(path, await self._lnd_key.ecdh(path.path_key))
            path = paths.advance(path, hop, await self.next_node(hop))
        raise BadPath(f"a path with more than {MAX_HOPS_AT_LND} hops at our own LND")

    async def _introduction(self, path: BlindedPath) -> bytes:
        node = path.introduction_node
        if isinstance(node, SciddirIntroduction):
            return await self._graph.node_of(node.scid, node.direction)
        return node

    async def next_node(self, hop: NextHop) -> bytes:
        """The node behind a hop. Raises UnknownScid, LndUnavailable."""
        if hop.node_id is not None:
            return hop.node_id
        assert hop.scid is not None  # noqa: S101 - a NextHop has one of the two
        return await self._graph.next_node(hop.scid)

    async def pack(self, message: Send) -> Parcel:
        """Wrap a message for the first hop behind our own LND.

        Raises what `past_lnd` does, and PayloadTooLarge.
        """
        return self._wrap(message, *await self._past_lnd(message.path))

    def _wrap(self, message: Send, path: BlindedPath, peer: bytes) -> Parcel:
        packet = messages.onion_along(
            path, self._entropy(32), message.content_type, message.content, message.reply_path
        )
        return Parcel(message, path, peer, packet)

    async def send(self, parcel: Parcel) -> None:
        """Hand a parcel to its first hop, or to a neighbour of that.

        Raises PeerNotConnected, NoRoute, PayloadTooLarge, LndUnavailable.
        """
        try:
            await self._hand_over(parcel)
        except PeerNotConnected:
            await self._send_around(parcel)

    async def _hand_over(self, parcel: Parcel) -> None:
        await self._transport.send(parcel.peer, parcel.path_key, parcel.onion)

    async def _send_around(self, parcel: Parcel) -> None:
        message, path, peer = parcel.message, parcel.path, parcel.peer
        for relay in (await self._graph.relays_to(peer))[:MAX_RELAYS]:
            try:
                await self._hand_over(self._wrap(message, self._through(relay, path, peer), relay))
            except PeerNotConnected:
                continue
            return
        if not message.may_dial:
            raise PeerNotConnected("the first hop is not connected, nor has it a connected neighbour")
        await self._graph.dial(peer)
        await self._hand_over(self._wrap(message, path, peer))

    def _through(self, relay: bytes, path: BlindedPath, peer: bytes) -> BlindedPath:
        """The path with one hop before it, blinded by ourselves."""
        # "MUST set `next_path_key_override` in the prior onion payload to `first_path_key`."
        secret = self._entropy(32)
        shared = keys.ecdh(secret, relay)
        hop = paths.encrypt_hop(relay, shared, paths.next_hop_data(peer, override=path.path_key))
        return BlindedPath(relay, keys.public_key(secret), (hop, *path.hops))

    async def forward(self, node_id: bytes, hop: NextHop, packet: bytes) -> None:
        """Hand somebody else's message to the node behind a hop, as whoever advertises them must.

        Raises NotForUs, PeerNotConnected, LndUnavailable.
        """
        if node_id in (self._lnd_node_id, self._own_node_id):
            raise NotForUs("an onion message that goes from LND to itself")
        await self._transport.send(node_id, hop.path_key, packet)
