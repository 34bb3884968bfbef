"""Onion messages in and out of LND: one transport for each kind of LND."""

import logging
from abc import ABC
from collections.abc import Callable
from typing import Any, ClassVar

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.lnd import Lnd, Mode
from sidecar.adapters.lnd_calls import A, Call
from sidecar.adapters.streams import QUEUE_SIZE, Stream
from sidecar.core.errors import ModeChanged, PeerNotConnected
from sidecar.core.onion import LARGE_PACKET
from sidecar.ports import Received
from sidecar.rpc import lightning_pb2 as ln

ONION_MESSAGE = 513
"""The type of a peer message that carries an onion message (BOLT 4)."""

_POINT = 33


class _Onions(Stream[A, Received], ABC):
    """What both transports share: they stop when LND comes back as another kind, or as another node.

    `receive` raises ModeChanged then, LndSetupError when LND comes back without feature bit 39, and
    LndDenied when the first stream is refused. Dropped are queue-full and bad-onion-message.
    """

    what = "onion messages"
    log_level = logging.WARNING
    _mode: ClassVar[Mode]
    _node_id: bytes | None = None

    async def _before(self) -> None:
        # An LND that is upgraded under us still has the old stream, and nothing comes over it.
        info = await self._lnd.describe()
        if info.mode != self._mode:
            raise ModeChanged(f"LND is {info.version} now, and handles onion messages in {info.mode} mode")
        if self._node_id not in (None, info.node_id):
            raise ModeChanged(f"there is another node behind {self._lnd.host} now: {info.node_id.hex()}")
        self._node_id = info.node_id


class NativeOnions(_Onions[ln.OnionMessageUpdate]):
    """LND ≥ 0.21, which opens, forwards and streams onion messages itself. Fulfils ports.OnionTransport."""

    _mode = "native"
    forwards_for_others = False

    @property
    def _subscription(self) -> tuple[Call[Any, ln.OnionMessageUpdate], Any]:
        return calls.ONION_MESSAGES, ln.SubscribeOnionMessagesRequest()

    def _read(self, update: ln.OnionMessageUpdate) -> Received | None:
        if len(update.onion) > LARGE_PACKET:
            self._count("bad-onion-message")
            return None
        return Received(update.peer, update.path_key, update.onion, update.encrypted_recipient_data)

    async def send(self, peer: bytes, path_key: bytes, onion: bytes) -> None:
        """Hand an onion message to a connected peer.

        Raises PeerNotConnected, LndUnavailable, LndDenied, ModeChanged. That it returns means that
        LND wrote it to a socket, not that it arrived.
        """
        request = ln.SendOnionMessageRequest(peer=peer, path_key=path_key, onion=onion)
        await self._lnd.call(calls.SEND_ONION, request, failed=PeerNotConnected)


class CustomOnions(_Onions[ln.CustomMessage]):
    """LND ≤ 0.20, which hands raw onion messages through and forwards none. Fulfils ports.OnionTransport."""

    _mode = "custom"
    forwards_for_others = True

    def __init__(
        self,
        lnd: Lnd,
        count: Callable[[str], None],
        *,
        queue_size: int = QUEUE_SIZE,
        died: Callable[[str], None] = lambda _: None,
        others: Callable[[ln.CustomMessage], None] = lambda _: None,
    ) -> None:
        """`others` is given every custom message that is no onion message."""
        super().__init__(lnd, count, queue_size=queue_size, died=died)
        self._others = others

    @property
    def _subscription(self) -> tuple[Call[Any, ln.CustomMessage], Any]:
        return calls.CUSTOM_MESSAGES, ln.SubscribeCustomMessagesRequest()

    def _read(self, update: ln.CustomMessage) -> Received | None:
        if update.type != ONION_MESSAGE:
            self._others(update)
            return None
        data = update.data
        onion = data[_POINT + 2 :]
        # "1. type: 513 (`onion_message`) 2. data: [`point`:`path_key`] [`u16`:`len`]
        # [`len*byte`:`onion_message_packet`]" (BOLT 4); whatever follows is an extension (BOLT 1).
        size = int.from_bytes(data[_POINT : _POINT + 2], "big")
        if len(data) < _POINT + 2 or len(onion) < size or size > LARGE_PACKET:
            self._count("bad-onion-message")
            return None
        return Received(update.peer, data[:_POINT], onion[:size], None)

    async def send(self, peer: bytes, path_key: bytes, onion: bytes) -> None:
        """Hand an onion message to a connected peer.

        Raises PeerNotConnected, LndUnavailable, LndDenied, and LndSetupError when LND runs
        without `protocol.custom-message=513`.
        """
        data = path_key + len(onion).to_bytes(2, "big") + onion
        request = ln.SendCustomMessageRequest(peer=peer, type=ONION_MESSAGE, data=data)
        await self._lnd.call(calls.SEND_CUSTOM, request, failed=PeerNotConnected)
