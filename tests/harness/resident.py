"""How much memory a process has over time, and whether that grows."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
ALLOWED_SHARE, FRAGMENTS = 0.02, 6.0
"""Growth between the two quarters that are compared: a share of the earlier, and MiB that say nothing. What
malloc keeps of what was given back goes up and down by so much within an hour of tests/faults' load, while
what is in use stays the same."""

ALLOWED_IN_USE = 0.05
"""The same for what is in use, where nothing is kept back: a share of the earlier."""

FEWEST = 8
"""Samples that there must be: two in each quarter."""


def resident(pid: int) -> float:
    """What a process has in memory, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / MIB


@dataclass(frozen=True, slots=True)
class Growth:
    """The medians of the second quarter and of the last: in MiB, or in blocks."""

    before: float
    after: float

    @property
    def flat(self) -> bool:
        """Whether what is resident, in MiB, grew by no more than is allowed."""
        return self.after - self.before <= ALLOWED_SHARE * self.before + FRAGMENTS

    @property
    def flat_in_use(self) -> bool:
        """Whether what is in use grew by no more than is allowed."""
        return self.after - self.before <= ALLOWED_IN_USE * self.before

    def __str__(self) -> str:
        """`+0.3 %`."""
        return f"{(self.after / self.before - 1) * 100:+.1f} %"


def growth(samples: Sequence[float]) -> Growth:
    """What samples at even distances say; the first quarter is for what is still filling."""
    assert len(samples) >= FEWEST, f"{len(samples)} samples say nothing"
    quarter = len(samples) // 4
    # Medians: a peak while something large is answered is no growth.
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    return Growth(statistics.median(before), statistics.median(after))
