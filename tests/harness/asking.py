"""A payer who asks again and again, and keeps count of every answer to each request."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from sidecar.core import offers
from tests.harness.link import LinkClosed
from tests.harness.payer import Payer


@dataclass(slots=True)
class Asked:
    """One request: when it was sent, and each answer with the seconds after which it came."""

    sent_at: float
    answers: list[tuple[float, bytes]] = field(default_factory=list)


class Asking:
    """`async with Asking(payer, offer, per_second): ...` asks all the while; then wait `until_answered`."""

    def __init__(self, payer: Payer, offer: str, per_second: float) -> None:
        self._payer = payer
        self._offer = offers.decode_offer(offer)
        self._pause = 1 / per_second
        self.asked: dict[bytes, Asked] = {}
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask()), asyncio.create_task(self._hear())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until_asked(self, more: int) -> None:
        """Wait until so many more requests went out."""
        wanted = len(self.asked) + more
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.asked) >= wanted)

    async def until_answered(self, within: float) -> None:
        """Ask no more, and wait until every request is answered, or so many seconds have passed."""
        asking = self._tasks[0]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(lambda: not self.unanswered())
        except TimeoutError:
            return

    def unanswered(self) -> list[float]:
        """When those were sent that have no answer, by time.monotonic."""
        return [each.sent_at for each in self.asked.values() if not each.answers]

    def slowest(self) -> float:
        """Seconds that the first answer to a request took at most."""
        return max(each.answers[0][0] for each in self.asked.values() if each.answers)

    def contents(self) -> int:
        """The most different answers that one request got."""
        return max(len({content for _, content in each.answers}) for each in self.asked.values())

    def most(self) -> int:
        """The most answers that one request got."""
        return max(len(each.answers) for each in self.asked.values())

    async def _ask(self) -> None:
        while True:
            name = os.urandom(8)
            self.asked[name] = Asked(time.monotonic())
            await self._payer.send_request(self._offer, reply_path=self._payer.path_to_self(name))
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(self._pause)

    async def _hear(self) -> None:
        while True:
            try:
                arrived = await self._payer.receive()
            except LinkClosed:
                return
            assert arrived.path_id is not None
            asked = self.asked[arrived.path_id]
            asked.answers.append((time.monotonic() - asked.sent_at, arrived.payload.content))
            async with self._changed:
                self._changed.notify_all()
