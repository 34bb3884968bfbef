"""Limits in process, with time as an argument and memory bounded by a number of keys."""

from collections.abc import Hashable
from dataclasses import dataclass

from sidecar.core.bounded import Bounded


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` units come back each second, up to `burst`."""

    per_second: float
    burst: float


class TokenBuckets:
    """A token bucket for each key, all of one rate but where `take` is given another.

    Beyond `most` keys the least recently used is forgotten: it starts full when it comes back.
    """

    def __init__(self, rate: Rate, most: int = 10_000) -> None:
        self._rate = rate
        self._buckets: Bounded[Hashable, tuple[float, int]] = Bounded(most)

    def take(self, key: Hashable, now_ms: int, amount: float = 1, rate: Rate | None = None) -> bool:
        """Whether `amount` units were there for `key`; they are taken when they were.

        `rate` is the key's own. It may be another one each time: a bucket never holds more than the
        present burst, and one whose burst was raised fills up from where it stood.
        """
        rate = rate or self._rate
        level, then = self._buckets.get(key, (rate.burst, now_ms))
        # max: a clock that was stepped back must not take tokens away.
        level = min(rate.burst, level + max(0, now_ms - then) * rate.per_second / 1000)
        allowed = level >= amount
        self._buckets[key] = (level - amount if allowed else level, now_ms)
        return allowed


class Recent:
    """How often each key came up within the last `window_ms`."""

    def __init__(self, window_ms: int, most: int = 10_000) -> None:
        self._window_ms = window_ms
        self._seen: Bounded[Hashable, tuple[int, int]] = Bounded(most)

    def times(self, key: Hashable, now_ms: int) -> int:
        """How often `key` was noted within the window that it opened."""
        return self._window(key, now_ms)[1]

    def count(self, key: Hashable, now_ms: int) -> int:
        """Note `key` once more; how often it was noted before within the window that it opened."""
        first, times = self._window(key, now_ms)
        self._seen[key] = (first, times + 1)
        return times

    def _window(self, key: Hashable, now_ms: int) -> tuple[int, int]:
        first, times = self._seen.get(key, (now_ms, 0))
        # abs: a clock that was stepped must not keep a window open for long.
        return (first, times) if abs(now_ms - first) < self._window_ms else (now_ms, 0)
