"""One client is flooded: what the payers of the others notice of it.

What a round is, and what is made of many. Rounds with a flood and rounds without take turns, all of the same
length: of so few answers a p99 is near the slowest one, and what is compared must err alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.common import quantile
from tests.bench.isolation_floods import BOUNDED, Flood


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured; times in seconds.

    What is asked within `onset` of a round's begin is told apart: it is where a flood spends the bursts
    that its client has saved up.
    """

    cycles: int = 6
    onset: float = 0.4
    measured: float = 1.6
    floods: Sequence[Flood] = BOUNDED
    beside: Sequence[Flood] = (Flood.CROWD,)
    """What is shown in one round, and not held to any bound."""

    @property
    def round(self) -> float:
        """One round's length."""
        return self.onset + self.measured


QUICK = Effort(cycles=2, onset=0.2, measured=0.8, beside=())


@dataclass(slots=True)
class Round:
    """Seconds from the update that LND streams to the SendOnionMessage of the answer."""

    times: list[float] = field(default_factory=list)
    at_onset: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """By how much the updates were streamed later than they should have been: the load's own fault."""
    lost: int = 0
    cpu: float = 0.0
    """Of a core, by the sidecar, without its Redis."""

    def milliseconds(self, percent: int) -> float:
        """A percentile."""
        return 1_000 * quantile(self.times, percent)


def together(rounds: Sequence[Round]) -> Round:
    """All of them as one."""
    return Round(
        times=[each for one in rounds for each in one.times],
        at_onset=[each for one in rounds for each in one.at_onset],
        late=[each for one in rounds for each in one.late],
        lost=sum(one.lost for one in rounds),
        cpu=statistics.mean(one.cpu for one in rounds),
    )


@dataclass(slots=True)
class Cycle:
    """Each flood once, and rounds without between them."""

    quiet: list[Round] = field(default_factory=list)
    flooded: dict[Flood, Round] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """All of it."""

    rates: dict[Flood, float] = field(default_factory=dict)
    """Messages a second of each flood."""
    cycles: list[Cycle] = field(default_factory=list)
    beside: dict[Flood, Round] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def quiet(self) -> Round:
        """All rounds without a flood."""
        return together([each for cycle in self.cycles for each in cycle.quiet])

    def flooded(self, flood: Flood) -> Round:
        """All rounds with it."""
        if flood in self.beside:
            return self.beside[flood]
        return together([cycle.flooded[flood] for cycle in self.cycles])

    def by_cycle(self, flood: Flood) -> list[float]:
        """The p99 of the others with a flood / that of the median round without, in each cycle."""
        return [
            cycle.flooded[flood].milliseconds(99) / statistics.median(_p99s(cycle.quiet))
            for cycle in self.cycles
            if flood in cycle.flooded
        ]

    def ratio(self, flood: Flood) -> float:
        """The median of that."""
        return statistics.median(self.by_cycle(flood))

    def pooled(self, flood: Flood) -> float:
        """The p99 of all rounds with it / that of all rounds without."""
        return self.flooded(flood).milliseconds(99) / self.quiet.milliseconds(99)

    @property
    def control(self) -> float:
        """The same as `ratio` for no flood at all: the first round without of each cycle / the next one."""
        return statistics.median(
            one / other for one, other, *_ in (_p99s(each.quiet) for each in self.cycles)
        )


def _p99s(rounds: Sequence[Round]) -> list[float]:
    return [each.milliseconds(99) for each in rounds]
