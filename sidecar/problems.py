"""The last things that went wrong, for the operator who asks `sidecar status`."""

from collections import deque
from dataclasses import dataclass

from sidecar.ports import Clock

MOST = 20
"""Problems that are remembered."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong: when (ms since the epoch), its slug, and what the log says of it."""

    at_ms: int
    reason: str
    text: str


class Problems:
    """A short memory of what the log told in full."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: deque[Problem] = deque(maxlen=MOST)

    def note(self, reason: str, text: str) -> None:
        """Remember a problem. The same reason again takes the place of the last one: a flood is one."""
        for earlier in [problem for problem in self._last if problem.reason == reason]:
            self._last.remove(earlier)
        self._last.append(Problem(self._clock.now_ms(), reason, text))

    def newest_first(self) -> list[Problem]:
        """Up to 20 of them."""
        return list(reversed(self._last))
