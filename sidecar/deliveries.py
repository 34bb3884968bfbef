"""All that waits for a node, handed over on a new connection: in turn, and no faster than it may answer."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field

from sidecar.core.errors import BadRecord, SidecarError, StoreUnavailable
from sidecar.core.limits import Rate, TokenBuckets
from sidecar.core.mailbox import Letter, Place, Queue
from sidecar.core.turns import Turns
from sidecar.core.watch import Watch
from sidecar.ports import Clock, MailStore

AT_ONCE = 32
"""Nodes that are handed their letters at once; each mailbox is in memory while it is."""

RATE = Rate(per_second=0.1, burst=5)
"""How often one node is handed again what it was handed before: a connection that flaps costs no more."""

ANSWERS = Rate(per_second=64_000, burst=131_072)
"""Bytes of answers that letters may call forth from a node. LND takes no more from a peer, and twice that
in a burst; what is over it is lost, and with it a release_held_htlc or the wallet's own next invoice."""

SMALL_ANSWER, LARGE_ANSWER = 1_366, 32_834
"""Bytes of an onion message on the wire, with 1,300 or 32,768 bytes of hop data."""

RETRY_AFTER = 1.0
PACE = 0.2


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of a node; another one is another object.

    `watch` holds what was sent over it. While `delivering`, a letter that comes sets `more` and goes
    out next. `repeats`: it may be handed what earlier connections were. `woken_at_ms`: the node gave no
    sign, and was woken. `queueing`: the task that waits for its place among the deliveries. Times are
    the steady clock's.
    """

    since_ms: int
    watch: Watch = field(default_factory=Watch)
    ended: bool = False
    delivering: bool = False
    more: bool = False
    repeats: bool = False
    woken_at_ms: int | None = None
    queueing: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Hand over nothing more on it."""
        self.ended = True
        # A node may come and go a thousand times before there is a place: each would wait for one.
        if self.queueing is not None:
            self.queueing.cancel()


class Deliveries:
    """Hands mailboxes over."""

    def __init__(
        self,
        *,
        store: MailStore,
        send: Callable[[Letter, Hashable, Connection], Awaitable[bool]],
        in_memory: Callable[[bytes], Sequence[Letter]],
        turns: Turns,
        clock: Clock,
        counters: Counter[str],
        answers: Rate = ANSWERS,
    ) -> None:
        """`send` hands one letter over and notes it in the connection's watch; False: nobody is there.

        `in_memory` gives a node's letters that are not in the store yet; `turns` the order.
        """
        self._store = store
        self._send = send
        self._in_memory = in_memory
        self._turns = turns
        self._clock = clock
        self._counters = counters
        self._rate = TokenBuckets(RATE)
        self._answers = TokenBuckets(answers)
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def deliver(self, node: bytes, client_id: bytes, connection: Connection) -> None:
        """Hand over all letters of a node on its new connection, and those that come meanwhile.

        The caller has set `delivering`: a letter that comes before the first look waits for its turn too.
        """
        connection.more = True
        try:
            while connection.more and not connection.ended:
                # What comes from now on is in what is read, or noted as more.
                connection.more = False
                await self._queue(connection)
                try:
                    held_back = await self._hand_over_all(node, client_id, connection)
                finally:
                    self._at_once.release()
                while held_back and not connection.more and not connection.ended:
                    if self._rate.take(node, self._clock.now_ms()):
                        connection.repeats = connection.more = True
                    else:
                        await asyncio.sleep(PACE)  # a bucket tells nobody when it is full again
        except SidecarError as error:
            # What was not handed over is on disk: LND's next stream of peers begins with who is there.
            self._counters[f"mail.undelivered.{error.reason}"] += 1
        finally:
            connection.delivering = False

    async def _queue(self, connection: Connection) -> None:
        """Wait for a place; cancelled when the connection ends before there is one."""
        connection.queueing = asyncio.current_task()
        try:
            await self._at_once.acquire()
        finally:
            connection.queueing = None

    async def _hand_over_all(self, node: bytes, client_id: bytes, connection: Connection) -> bool:
        """Hand over what may go now. Whether letters are left that have to wait. Raises LndUnavailable."""
        letters: list[tuple[Hashable, Letter]] = []
        away = False
        try:
            kept = await self._store.mail(client_id)
            letters += ((Place(client_id, number), letter) for number, letter in kept)
        except BadRecord as error:
            self._counters[f"mail.undelivered.{error.reason}"] += 1
        except StoreUnavailable:
            away = True
        letters += ((letter.key, letter) for letter in self._in_memory(node))
        for name, letter in self._turns.ordered(node, letters):
            # A client that was bound anew has letters for its earlier node: those are not for this one.
            if name in connection.watch or letter.to != node:
                continue
            if self._turns.again(node, name) and not connection.repeats:
                return True  # and so are all that follow
            if not await self._may_answer(node, letter, connection):
                return False
            if not await self._send(letter, name, connection):
                connection.ended = True
                return False
            self._counters["mail.delivered"] += 1
        if away:
            connection.more = True
            await asyncio.sleep(RETRY_AFTER)
        return False

    async def _may_answer(self, node: bytes, letter: Letter, connection: Connection) -> bool:
        """Wait until the node may answer one more; False for a letter that has to wait for another turn.

        What has just come does not wait behind what the node had before.
        """
        while not connection.ended and not connection.more:
            if self._answers.take(node, self._clock.now_ms(), _answer(letter)):
                return True
            await asyncio.sleep(PACE)
        return False


def _answer(letter: Letter) -> int:
    """Bytes that a wallet may send back: an invoice for a request; a reply path may be long."""
    large = letter.queue is Queue.REQUESTS or len(letter.onion) > SMALL_ANSWER
    return LARGE_ANSWER if large else SMALL_ANSWER
