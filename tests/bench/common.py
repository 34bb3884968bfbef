"""What all benchmarks have in common: a report, what was to be reached, and where it was measured."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.backends.openssl import backend


@dataclass(frozen=True, slots=True)
class Reach:
    """One figure, and the bound that it should keep."""

    what: str
    figure: float
    bound: float
    at_least: bool = False
    """Whether more is better; where it is a cost, it is not."""

    @property
    def reached(self) -> bool:
        """Whether it does."""
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark found out."""

    name: str
    figures: dict[str, Any]
    """All of it, as it goes into the JSON."""
    text: str
    """A table to read, and what its figures include."""
    reach: list[Reach] = field(default_factory=list)


def quantile(values: Sequence[float], percent: int) -> float:
    """A percentile (1 to 99) of at least two values."""
    return statistics.quantiles(values, n=100)[percent - 1]


def machine() -> dict[str, Any]:
    """Where this ran, and on what."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("static-invoice-sidecar", "coincurve", "cryptography")},
        "openssl": backend.openssl_version_text(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def reach_table(reports: Sequence[Report]) -> str:
    """Every bound, and how far it was kept."""
    lines = [f"{'':62}{'measured':>10}{'wanted':>12}"]
    for report in reports:
        for each in report.reach:
            bound = f"{'at least' if each.at_least else 'at most'} {each.bound:g}"
            verdict = "" if each.reached else "  falls short"
            lines.append(f"{each.what:62}{each.figure:10.2f}{bound:>14}{verdict}")
    return "\n".join(lines)
