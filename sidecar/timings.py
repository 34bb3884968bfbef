"""How long things take: one histogram for each of them, for /metrics and for `sidecar status`."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from prometheus_client import Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600)
"""Upper bounds of buckets, in seconds: of what we do ourselves, and of what a phone does."""

OUTCOME = "outcome"


class Timed(StrEnum):
    """What is timed."""

    MESSAGE = "message"
    """One onion message, from LND's stream to the last thing that it caused; label: its type.

    Outcomes: done, dropped (refused, or somebody was away), failed (out of time, or a fault of ours).
    """
    STORE = "store"
    """One round trip to Redis, with the wait for a connection and for the disk; label: read or change."""
    LND = "lnd"
    """One call of LND; label: its method."""
    WEBHOOK = "webhook"
    """One POST to a webhook."""
    CONNECT = "connect"
    """From a notification that was sent until its node connects, or shows life on its connection."""


@dataclass(frozen=True, slots=True)
class _Kind:
    metric: str
    what: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = _SHORT


_KINDS = {
    Timed.MESSAGE: _Kind(
        "sidecar_message_seconds", "Handling one onion message, by type and outcome.", ("type", OUTCOME)
    ),
    Timed.STORE: _Kind(
        "sidecar_store_seconds", "One round trip to Redis, durable where it must be.", ("kind", OUTCOME)
    ),
    Timed.LND: _Kind("sidecar_lnd_call_seconds", "One call of LND.", ("call", OUTCOME)),
    Timed.WEBHOOK: _Kind("sidecar_webhook_post_seconds", "One POST to a webhook.", (OUTCOME,)),
    Timed.CONNECT: _Kind(
        "sidecar_wake_to_connect_seconds",
        "From a notification that was sent until its node connects.",
        (),
        _LONG,
    ),
}


@dataclass(slots=True)
class Measured:
    """What is timed inside `with`; label and outcome may be changed until it ends.

    The outcome is `failed` when it raises. What is cancelled is not noted.
    """

    # A class, and no generator with @contextmanager: it is entered for each call of LND and of Redis.
    label: str
    outcome: str = field(default="done", init=False)
    _timings: "Timings"
    _timed: Timed
    _since: float = field(default=0.0, init=False)

    def __enter__(self) -> Self:
        self._since = self._timings.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was cancelled says nothing about how long it takes.
        if kind is None or issubclass(kind, Exception):
            outcome = self.outcome if kind is None else "failed"
            self._timings.observe(self._timed, self._timings.clock() - self._since, self.label, outcome)


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long something took since the start, whatever its outcome; `name` is `lnd.GetInfo`, or `webhook`.

    `buckets` counts what fell into each bucket: one more than `bounds`, for the last has no upper bound.
    """

    name: str
    count: int
    total: float
    bounds: tuple[float, ...]
    buckets: tuple[int, ...]


class Timings(Collector):
    """All histograms, in bounded memory: their labels are few, and ours."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds that never go back."""
        self.clock = clock
        self._histograms = {
            timed: Histogram(kind.metric, kind.what, kind.labels, buckets=kind.bounds, registry=None)
            for timed, kind in _KINDS.items()
        }
        self._children: dict[tuple[Timed, str, str], Histogram] = {}
        for timed in (Timed.MESSAGE, Timed.STORE, Timed.WEBHOOK):
            self._start_at_zero(timed)

    def _start_at_zero(self, timed: Timed) -> None:
        # rate() sees nothing of a series that begins with its first event.
        first = {Timed.MESSAGE: ("invoice_request",), Timed.STORE: ("read", "change")}.get(timed, ("",))
        for label in first:
            self._child(timed, label, "done")

    def _child(self, timed: Timed, label: str, outcome: str) -> Histogram:
        # The library finds it under a lock, after it has made strings of all labels.
        child = self._children.get((timed, label, outcome))
        if child is None:
            values = {OUTCOME: outcome}
            histogram, names = self._histograms[timed], _KINDS[timed].labels
            child = histogram.labels(*(values.get(name, label) for name in names)) if names else histogram
            self._children[timed, label, outcome] = child
        return child

    def observe(self, timed: Timed, seconds: float, label: str = "", outcome: str = "done") -> None:
        """Note that something took so long; less than nothing (a clock was set) counts as nothing."""
        self._child(timed, label, outcome).observe(max(0.0, seconds))

    def measure(self, timed: Timed, label: str = "") -> Measured:
        """Time what is done inside: `with timings.measure(…) as measured`."""
        return Measured(label, self, timed)

    def collect(self) -> Iterator[Metric]:
        """The histograms as metrics, for a registry of prometheus_client."""
        for histogram in self._histograms.values():
            yield from histogram.collect()

    def snapshot(self) -> list[Seconds]:
        """All that was timed so far, by name."""
        found = [part for timed in Timed for part in self._parts(timed)]
        return sorted((part for part in found if part.count), key=lambda part: part.name)

    def _parts(self, timed: Timed) -> Iterator[Seconds]:
        bounds = _KINDS[timed].bounds
        places = {bound: number for number, bound in enumerate((*bounds, math.inf))}
        below: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(places))
        total: defaultdict[str, float] = defaultdict(float)
        for metric in self._histograms[timed].collect():
            for sample in metric.samples:
                labels = [value for name, value in sample.labels.items() if name not in (OUTCOME, "le")]
                name = ".".join((timed, *labels))
                if sample.name.endswith("_bucket"):
                    below[name][places[float(sample.labels["le"])]] += int(sample.value)
                elif sample.name.endswith("_sum"):
                    total[name] += sample.value
        for name, counts in below.items():
            # The library counts all up to a bound.
            each = tuple(count - before for before, count in zip((0, *counts), counts, strict=False))
            yield Seconds(name, counts[-1], total[name], bounds, each)
