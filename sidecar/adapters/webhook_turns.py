"""Turns at push services: who waits for whom, so that a dead one costs the living next to nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """A semaphore for each key, there only while somebody uses it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lanes: dict[object, asyncio.Semaphore] = {}
        self._users: Counter[object] = Counter()

    @asynccontextmanager
    async def turn(self, key: object) -> AsyncIterator[None]:
        """Wait for one's turn: first come, first served."""
        lane = self._lanes.setdefault(key, asyncio.Semaphore(self._width))
        self._users[key] += 1
        try:
            async with lane:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._lanes[key]


class Places:
    """`width` places for all, and `slow` more for whoever still has its place after `patience` seconds.

    Most are done at once. Who is not waits for a stranger, costs nothing but its socket, and gives its
    place away: else dead push services, each at a host of its own, would soon have all of them.
    """

    def __init__(self, width: int, slow: int, patience: float) -> None:
        self._free = asyncio.Semaphore(width)
        self._free_slow = asyncio.Semaphore(slow)
        self._patience = patience

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place: first come, first served."""
        await self._free.acquire()
        moving = asyncio.create_task(self._move())
        try:
            yield
        finally:
            if moving.done():
                self._free_slow.release()
            else:
                moving.cancel()
                self._free.release()

    async def _move(self) -> None:
        await asyncio.sleep(self._patience)
        await self._free_slow.acquire()
        self._free.release()
