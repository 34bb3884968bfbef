"""Onion messages in and out of LND: one transport for each kind of LND."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar, Generic

from tenacity import AsyncRetrying, retry_if_exception

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.lnd import Lnd, Mode, backoff
from sidecar.adapters.lnd_calls import A, Call
from sidecar.core.errors import LndDenied, LndUnavailable, ModeChanged, PeerNotConnected
from sidecar.ports import Received
from sidecar.rpc import lightning_pb2 as ln

log = logging.getLogger(__name__)

QUEUE_SIZE = 1_000
"""Onion messages that may wait for the reader: at most 33 MB."""

ONION_MESSAGE = 513
"""The type of a peer message that carries an onion message (BOLT 4)."""

_POINT = 33
# A stream that lived this long (seconds) was a good one: the next is opened without waiting.
_SETTLED = 5.0


class _End:
    """The last thing in the queue: why there is nothing more."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Onions(ABC, Generic[A]):
    """What both transports share: a stream read at once into a bounded queue, opened again when it dies.

    `up` is set while the stream stands.
    """

    _mode: ClassVar[Mode]

    def __init__(self, lnd: Lnd, count: Callable[[str], None], *, queue_size: int = QUEUE_SIZE) -> None:
        """`count` gets a slug for each message that is dropped: queue-full, bad-onion-message."""
        self._lnd = lnd
        self._count = count
        self._queue_size = queue_size
        self._node_id: bytes | None = None
        self._was_up = self._settled = self._complained = False
        self.up = asyncio.Event()

    @property
    def stream_up(self) -> bool:
        """Whether LND is streaming to us now."""
        return self.up.is_set()

    @property
    @abstractmethod
    def _subscription(self) -> tuple[Call[Any, A], Any]:
        """The streaming call and its request."""

    @abstractmethod
    def _read(self, update: A) -> Received | None:
        """The onion message in an update; None when there is none."""

    async def receive(self) -> AsyncGenerator[Received, None]:
        """Every onion message that reaches LND, through LND's restarts.

        Raises ModeChanged when LND comes back as another kind or another node, LndSetupError
        when it comes back without feature bit 39, and LndDenied when the first stream is refused.
        """
        queue: asyncio.Queue[Received | _End] = asyncio.Queue(self._queue_size)
        pump = asyncio.create_task(self._pump(queue), name=f"{self._mode} onion messages")
        try:
            while True:
                item = await queue.get()
                if isinstance(item, _End):
                    raise item.error
                yield item
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self, queue: asyncio.Queue[Received | _End]) -> None:
        try:
            while True:
                async for attempt in AsyncRetrying(retry=retry_if_exception(self._passes), wait=backoff()):
                    with attempt:
                        await self._follow(queue)
        except Exception as error:  # noqa: BLE001 - the reader raises it
            await queue.put(_End(error))

    async def _follow(self, queue: asyncio.Queue[Received | _End]) -> None:
        """Open a stream and read it to its end. Returns when it had settled, else raises why it died."""
        await self._lnd.wait_ready()
        await self._refuse_another_lnd()
        call, request = self._subscription
        async with self._lnd.subscribe(call, request) as updates:
            opened = asyncio.get_running_loop().time()
            self._mark_up()
            try:
                async for update in updates:
                    self._take(update, queue)
                    self._settle()
            except LndUnavailable as error:
                log.warning("LND's stream of onion messages ended (%s); opening it again", error)
                if asyncio.get_running_loop().time() - opened < _SETTLED:
                    raise
                self._settle()
            finally:
                self.up.clear()

    async def _refuse_another_lnd(self) -> None:
        # An LND that is upgraded under us still has the old stream, and nothing comes over it.
        info = await self._lnd.describe()
        if info.mode != self._mode:
            raise ModeChanged(f"LND is {info.version} now, and handles onion messages in {info.mode} mode")
        if self._node_id not in (None, info.node_id):
            raise ModeChanged(f"there is another node behind {self._lnd.host} now: {info.node_id.hex()}")
        self._node_id = info.node_id

    def _mark_up(self) -> None:
        if self._was_up:
            log.info("LND streams onion messages again")
        self._was_up = True
        self.up.set()

    def _settle(self) -> None:
        """The stream works: LND allows it, and a refusal from now on is news."""
        self._settled, self._complained = True, False

    def _passes(self, error: BaseException) -> bool:
        # Once it worked, an operator is at work on LND's credentials; at start it is a wrong macaroon.
        if isinstance(error, LndDenied) and self._settled:
            if not self._complained:
                self._complained = True
                log.error("%s", error)
            return True
        return isinstance(error, LndUnavailable)

    def _take(self, update: A, queue: asyncio.Queue[Received | _End]) -> None:
        received = self._read(update)
        if received is None:
            return
        try:
            queue.put_nowait(received)
        except asyncio.QueueFull:
            # LND would keep it for us without a bound, and grow.
            self._count("queue-full")


class NativeOnions(_Onions[ln.OnionMessageUpdate]):
    """LND ≥ 0.21, which opens, forwards and streams onion messages itself. Fulfils ports.OnionTransport."""

    _mode = "native"
    forwards_for_others = False

    @property
    def _subscription(self) -> tuple[Call[Any, ln.OnionMessageUpdate], Any]:
        return calls.ONION_MESSAGES, ln.SubscribeOnionMessagesRequest()

    def _read(self, update: ln.OnionMessageUpdate) -> Received | None:
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

    @property
    def _subscription(self) -> tuple[Call[Any, ln.CustomMessage], Any]:
        return calls.CUSTOM_MESSAGES, ln.SubscribeCustomMessagesRequest()

    def _read(self, update: ln.CustomMessage) -> Received | None:
        if update.type != ONION_MESSAGE:
            return None
        data = update.data
        onion = data[_POINT + 2 :]
        # "1. type: 513 (`onion_message`) 2. data: [`point`:`path_key`] [`u16`:`len`]
        # [`len*byte`:`onion_message_packet`]" (BOLT 4); whatever follows is an extension (BOLT 1).
        size = int.from_bytes(data[_POINT : _POINT + 2], "big")
        if len(data) < _POINT + 2 or len(onion) < size:
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
