"""How the server fares: looked at in the background, so that whoever asks waits for nobody."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.core.errors import StoreUnavailable
from sidecar.core.model import Client, Usage

LOOK_EVERY = 5.0
"""Seconds between changes that prove that Redis keeps them."""

COUNT_EVERY = 15.0
"""Seconds between two counts of all clients, and 20 times as long as one takes when that is longer."""

_SHARE = 20

FRESH = 1.0
"""Seconds for which a count is good enough for whoever asks for it."""

QUICK = 0.1
"""Seconds that a count may take at most if somebody is to wait for it."""

PATIENCE = 5.0
"""Seconds after which a Redis that has not answered counts as away."""


class Watched(Protocol):
    """What is looked at of a store."""

    async def probe(self) -> None:
        """Prove that a change is kept. Raises StoreUnavailable."""

    def each_client(self) -> AsyncIterator[tuple[Client, Usage]]:
        """All clients with their use, a few of them in memory at a time. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Census:
    """All clients together: how many of each state; slots and bytes that they use, and that they may use."""

    clients: Mapping[str, int] = field(default_factory=dict)
    slots: int = 0
    bytes: int = 0
    slots_allowed: int = 0
    bytes_allowed: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that must hold for the server to serve, in words."""

    holds: bool
    text: str


class Vitals:
    """What the server stands on, as it was a few seconds ago. `run` beside the server."""

    def __init__(
        self,
        store: Watched,
        *,
        stream_up: Callable[[], bool],
        allowed: Callable[[Client], tuple[int, int]],
    ) -> None:
        """`allowed`: the slots and bytes that a client may use."""
        self._store = store
        self._stream_up = stream_up
        self._allowed = allowed
        self.redis_up = False
        self.census = Census()
        self._counted_at, self._took = float("-inf"), 0.0

    @property
    def stream_up(self) -> bool:
        """Whether LND streams onion messages to us now."""
        return self._stream_up()

    @property
    def ready(self) -> bool:
        """Whether messages can be served."""
        return all(condition.holds for condition in self.conditions())

    def conditions(self) -> tuple[Condition, ...]:
        """All that must hold."""
        up = self.stream_up
        lnd = "LND streams onion messages" if up else "LND does not stream onion messages"
        redis = "Redis keeps changes" if self.redis_up else "Redis does not keep changes"
        return Condition(up, lnd), Condition(self.redis_up, redis)

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_looking())
            tasks.create_task(self._keep_counting())

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY)

    async def _keep_counting(self) -> None:
        while True:
            await self.count()
            await asyncio.sleep(max(COUNT_EVERY, _SHARE * self._took))

    async def look(self) -> None:
        """See whether Redis keeps a change."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._store.probe()
        except (StoreUnavailable, TimeoutError):
            self.redis_up = False
        else:
            self.redis_up = True

    async def recount(self) -> None:
        """Count for somebody who waits, unless that was done just now or takes long."""
        if self._took <= QUICK and asyncio.get_running_loop().time() - self._counted_at >= FRESH:
            await self.count()

    async def count(self) -> None:
        """Count all clients; while Redis is away the last count stands."""
        now = asyncio.get_running_loop().time
        start = now()
        states: Counter[str] = Counter()
        totals = [0, 0, 0, 0]
        try:
            async for client, usage in self._store.each_client():
                states[client.state.value] += 1
                of_one = (usage.slots, usage.bytes, *self._allowed(client))
                totals = [total + one for total, one in zip(totals, of_one, strict=True)]
        except StoreUnavailable:
            return
        finally:
            self._counted_at, self._took = now(), now() - start
        self.census = Census(states, *totals)
