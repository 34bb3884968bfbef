"""What LND streams: read at once into a bounded queue, and opened again when the stream dies."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar, Generic, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception

from sidecar.adapters.lnd import Lnd, backoff
from sidecar.adapters.lnd_calls import A, Call
from sidecar.core.errors import LndDenied, LndUnavailable

log = structlog.get_logger(__name__)

QUEUE_SIZE = 1_000
"""Updates that may wait for the reader; of onion messages that is at most 66 MB."""

# A stream that lived this long (seconds) was a good one: the next is opened without waiting.
_SETTLED = 5.0

T = TypeVar("T")


class _End:
    """The last thing in the queue: why there is nothing more; None when nothing more was wanted."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


class Stream(ABC, Generic[A, T]):
    """One stream of LND's, through LND's restarts. `up` is set while it stands."""

    what: ClassVar[str]
    """What it carries, in words for the log."""

    log_level: ClassVar[int] = logging.DEBUG
    """Of what is said when it dies and comes back: one stream says it for all."""

    def __init__(
        self,
        lnd: Lnd,
        count: Callable[[str], None],
        *,
        queue_size: int = QUEUE_SIZE,
        died: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`count` gets the slug of each drop (such as queue-full), `died` why a stream ended."""
        self._lnd = lnd
        self._count = count
        self._queue_size = queue_size
        self._was_up = self._settled = self._complained = False
        self._died = died
        self._queue: asyncio.Queue[T | _End] | None = None
        self._pumping: asyncio.Task[None] | None = None
        self._finishing = False
        self.up = asyncio.Event()

    @property
    @abstractmethod
    def _subscription(self) -> tuple[Call[Any, A], Any]:
        """The streaming call and its request."""

    @abstractmethod
    def _read(self, update: A) -> T | None:
        """What is in an update; None when there is nothing for us."""

    async def _before(self) -> None:
        """What must hold before the stream is opened; raises when it does not."""

    async def _first(self) -> T | None:
        """What the reader gets before all updates, asked for once the stream stands."""
        return None

    @property
    def stream_up(self) -> bool:
        """Whether LND is streaming to us now."""
        return self.up.is_set()

    @property
    def queued(self) -> int:
        """Updates that wait for the reader."""
        return 0 if self._queue is None else self._queue.qsize()

    async def receive(self) -> AsyncGenerator[T, None]:
        """All that LND streams, through LND's restarts.

        After `finish` it ends with what was streamed before. Raises LndDenied when the first stream is
        refused, ModeChanged when LND has no such stream (any more), and what `_before` raises.
        """
        queue: asyncio.Queue[T | _End] = asyncio.Queue(self._queue_size)
        self._queue = queue
        pump = self._pumping = asyncio.create_task(self._pump(queue), name=self.what)
        try:
            while not (self._finishing and queue.empty()):
                item = await queue.get()
                if not isinstance(item, _End):
                    yield item
                elif item.error is not None:
                    raise item.error
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def finish(self) -> None:
        """Let LND stream nothing more; `receive` ends when what came before has been read."""
        self._finishing = True
        if self._pumping is not None:
            self._pumping.cancel()
        if self._queue is not None and self._queue.empty():
            self._queue.put_nowait(_End(None))

    async def _pump(self, queue: asyncio.Queue[T | _End]) -> None:
        try:
            while True:
                async for attempt in AsyncRetrying(retry=retry_if_exception(self._passes), wait=backoff()):
                    with attempt:
                        await self._follow(queue)
        except Exception as error:  # noqa: BLE001 - the reader raises it
            await queue.put(_End(error))

    async def _follow(self, queue: asyncio.Queue[T | _End]) -> None:
        """Open a stream and read it to its end. Returns when it had settled, else raises why it died."""
        await self._lnd.wait_ready()
        await self._before()
        call, request = self._subscription
        async with self._lnd.subscribe(call, request) as updates:
            opened = asyncio.get_running_loop().time()
            if (first := await self._first()) is not None:
                await queue.put(first)
            self._mark_up()
            try:
                async for update in updates:
                    self._take(update, queue)
                    self._settle()
            except LndUnavailable as error:
                log.log(
                    self.log_level,
                    "LND's stream ended; opening it again",
                    stream=self.what,
                    error=str(error),
                )
                self._died(str(error))
                if asyncio.get_running_loop().time() - opened < _SETTLED:
                    raise
                self._settle()
            finally:
                self.up.clear()

    def _mark_up(self) -> None:
        if self._was_up:
            log.log(min(self.log_level, logging.INFO), "LND streams again", stream=self.what)
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
                log.error("LND refuses a stream that it allowed before", stream=self.what, error=str(error))
            return True
        return isinstance(error, LndUnavailable)

    def _take(self, update: A, queue: asyncio.Queue[T | _End]) -> None:
        item = self._read(update)
        if item is None:
            return
        try:
            queue.put_nowait(item)
        except asyncio.QueueFull:
            # LND would keep it for us without a bound, and grow.
            self._count("queue-full")
            self._missed()

    def _missed(self) -> None:
        """An update was dropped; one that can't be done without raises LndUnavailable."""
