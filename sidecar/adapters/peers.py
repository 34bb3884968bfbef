"""Who is connected to LND, and the LSPS messages that peers send."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.lnd import Lnd
from sidecar.adapters.lnd_calls import Call
from sidecar.adapters.streams import Stream
from sidecar.core.errors import LndUnavailable, PeerNotConnected
from sidecar.core.lsps0 import LSPS_MESSAGE
from sidecar.ports import PeerChange, PeersNow
from sidecar.rpc import lightning_pb2 as ln

_EVENTS = 10_000
"""Changes that may wait for the reader: all peers of a large node at once."""


class LndPeers(Stream[ln.PeerEvent, PeersNow | PeerChange]):
    """LND's connections. Fulfils ports.Peers."""

    what = "peer events"

    def __init__(self, lnd: Lnd, count: Callable[[str], None]) -> None:
        super().__init__(lnd, count, queue_size=_EVENTS)

    @property
    def _subscription(self) -> tuple[Call[Any, ln.PeerEvent], Any]:
        return calls.PEER_EVENTS, ln.PeerEventSubscription()

    async def _first(self) -> PeersNow:
        # Asked for when the stream stands: who comes or goes meanwhile is told twice, and none is missed.
        return PeersNow(frozenset(await self.bytes_received()))

    def _read(self, update: ln.PeerEvent) -> PeerChange:
        return PeerChange(bytes.fromhex(update.pub_key), update.type == ln.PeerEvent.PEER_ONLINE)

    def _missed(self) -> None:
        raise LndUnavailable("peers come and go faster than they can be followed")

    async def bytes_received(self) -> Mapping[bytes, int]:
        """Bytes from each connected peer on its present connection. Raises LndUnavailable."""
        answer = await self._lnd.call(calls.LIST_PEERS, ln.ListPeersRequest())
        return {bytes.fromhex(peer.pub_key): peer.bytes_recv for peer in answer.peers}


Lsps = tuple[bytes, bytes]
"""A peer, and the payload of its LSPS message."""


async def send_lsps(lnd: Lnd, peer: bytes, payload: bytes) -> None:
    """Hand a payload of up to 65,533 bytes to a connected peer. Raises PeerNotConnected, LndUnavailable."""
    request = ln.SendCustomMessageRequest(peer=peer, type=LSPS_MESSAGE, data=payload)
    await lnd.call(calls.SEND_CUSTOM, request, failed=PeerNotConnected)


_MESSAGES = 100
"""LSPS messages that may wait for the reader: at most 7 MB."""


class NativeLsps(Stream[ln.CustomMessage, Lsps]):
    """LSPS messages where LND handles onion messages itself. Fulfils ports.LspsTransport."""

    what = "custom messages"

    def __init__(self, lnd: Lnd, count: Callable[[str], None], *, queue_size: int = _MESSAGES) -> None:
        super().__init__(lnd, count, queue_size=queue_size)

    @property
    def _subscription(self) -> tuple[Call[Any, ln.CustomMessage], Any]:
        return calls.CUSTOM_MESSAGES, ln.SubscribeCustomMessagesRequest()

    def _read(self, update: ln.CustomMessage) -> Lsps | None:
        return (update.peer, update.data) if update.type == LSPS_MESSAGE else None

    async def send(self, peer: bytes, payload: bytes) -> None:
        """As `send_lsps`."""
        await send_lsps(self._lnd, peer, payload)


class CustomLsps:
    """LSPS messages of an LND ≤ 0.20. Fulfils ports.LspsTransport.

    They come over the stream that onion messages come over: LND would send all of those a second time
    to a second subscriber. Whoever reads that stream gives them to `take`.
    """

    def __init__(self, lnd: Lnd, count: Callable[[str], None], *, queue_size: int = _MESSAGES) -> None:
        self._lnd = lnd
        self._count = count
        self._queue: asyncio.Queue[Lsps] = asyncio.Queue(queue_size)

    def take(self, update: ln.CustomMessage) -> None:
        """A custom message that is no onion message."""
        if update.type != LSPS_MESSAGE:
            return
        try:
            self._queue.put_nowait((update.peer, update.data))
        except asyncio.QueueFull:
            self._count("queue-full")

    async def receive(self) -> AsyncGenerator[Lsps, None]:
        """(peer, payload) of each message."""
        while True:
            yield await self._queue.get()

    async def send(self, peer: bytes, payload: bytes) -> None:
        """As `send_lsps`."""
        await send_lsps(self._lnd, peer, payload)
