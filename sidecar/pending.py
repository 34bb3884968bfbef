"""Letters that wait in memory while the store is away: bounded, in the order in which they came."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

from sidecar.core.mailbox import Letter

MEMORY_BYTES = 16 * 1024 * 1024
"""Bytes of them; 16 MB is some 10,000 small ones."""


class Pending:
    """A queue that is read from the front. `filled` and `empty` are events."""

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._for: Counter[bytes] = Counter()
        self._bytes = 0
        self.filled, self.empty = asyncio.Event(), asyncio.Event()
        self.empty.set()

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Letter) -> bool:
        """Put a letter last; False when there is no room."""
        if self._bytes + letter.size > MEMORY_BYTES:
            return False
        self._letters.append(letter)
        self._for[letter.to] += 1
        self._bytes += letter.size
        self.filled.set()
        self.empty.clear()
        return True

    def waits_for(self, node: bytes) -> bool:
        """Whether a letter for this node is here."""
        return self._for[node] > 0

    def of(self, node: bytes) -> Sequence[Letter]:
        """All letters for a node."""
        return [letter for letter in self._letters if letter.to == node]

    def first(self) -> Letter:
        """The letter that waits longest; only when there is one."""
        return self._letters[0]

    def drop_first(self) -> None:
        """It is dealt with."""
        letter = self._letters.popleft()
        self._for[letter.to] -= 1
        if not self._for[letter.to]:
            del self._for[letter.to]
        self._bytes -= letter.size
        if not self._letters:
            self._for.clear()
            self.filled.clear()
            self.empty.set()
