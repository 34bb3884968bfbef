"""How much memory a process has over time, and whether that grows."""

from __future__ import annotations

import math
import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
ALLOWED_SHARE, ALLOWED_MIB = 0.02, 1.5
"""Growth between the two quarters that are compared: a share of the earlier, or MiB where that is more."""

NOISE = 20.0
"""MiB, over the root of the number of samples, that are allowed beside: so far apart medians of few samples
are found where nothing grows. Of a sidecar under the load of tests/faults, sampled each second for an hour,
no 240 samples were apart by more than 2.1 MiB, and of 55 samples one in fifty by more than 3.4."""

FEWEST = 8
"""Samples that there must be: two in each quarter."""


def resident(pid: int) -> float:
    """What a process has in memory, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / MIB


@dataclass(frozen=True, slots=True)
class Growth:
    """The medians of the second quarter and of the last, in MiB, of so many samples."""

    before: float
    after: float
    samples: int

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than is allowed."""
        allowed = max(ALLOWED_SHARE * self.before, ALLOWED_MIB) + NOISE / math.sqrt(self.samples)
        return self.after - self.before <= allowed

    def __str__(self) -> str:
        """`104 MiB, +0.3 %`."""
        return f"{self.after:.0f} MiB, {(self.after / self.before - 1) * 100:+.1f} %"


def growth(samples: Sequence[float]) -> Growth:
    """What samples at even distances say, in MiB; the first quarter is for what is still filling."""
    assert len(samples) >= FEWEST, f"{len(samples)} samples say nothing"
    quarter = len(samples) // 4
    # Medians: a peak while something large is answered is no growth.
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    return Growth(statistics.median(before), statistics.median(after), len(samples))
