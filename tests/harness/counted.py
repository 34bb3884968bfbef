"""What is counted by its slug, and can be waited for."""

import asyncio
from collections import Counter


class Counted:
    """Give `count` to what counts; `counted` is what it said so far."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._one_more = asyncio.Event()

    def count(self, slug: str) -> None:
        """One more."""
        self.counted[slug] += 1
        self._one_more.set()

    async def until_counted(self, slug: str, number: int) -> None:
        """Wait until as many were counted."""
        async with asyncio.timeout(10):
            while self.counted[slug] < number:
                self._one_more.clear()
                await self._one_more.wait()
