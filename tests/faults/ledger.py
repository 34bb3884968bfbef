"""What was promised, how often that was tried, and how often it was not kept: one table of all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 5
"""Violations of one row that are told in full."""


@dataclass(slots=True)
class Row:
    """One promise under one fault.

    `outages`: seconds for which what was promised did not go on, one for each time that the fault came.
    """

    promise: str
    fault: str
    tries: int = 0
    violations: list[str] = field(default_factory=list)
    outages: list[float] = field(default_factory=list)
    note: str = ""

    def tried(self, times: int = 1) -> None:
        """The promise was put to the test."""
        self.tries += times

    def violated(self, what: str) -> None:
        """It was not kept; `what` is enough to look into it."""
        self.violations.append(what)

    def check(self, kept: object, what: str) -> None:
        """One try, and a violation unless it was kept."""
        self.tried()
        if not kept:
            self.violated(what)

    def was_out(self, since: float) -> None:
        """It goes on again; `since` is when it stopped, by time.monotonic."""
        self.outages.append(time.monotonic() - since)

    def close(self) -> None:
        """Raise AssertionError where nothing was tried, or a violation was seen."""
        assert self.tries, f"nothing was tried: {self.promise}, {self.fault}"
        told = "\n".join(self.violations[:SHOWN])
        assert not self.violations, f"{len(self.violations)} of {self.tries} not kept:\n{told}"


class Ledger:
    """All rows of a run, by promise and fault."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    def row(self, promise: str, fault: str) -> Row:
        """The row of a promise under a fault, made when it is not there yet."""
        return self._rows.setdefault((promise, fault), Row(promise, fault))

    def dump(self) -> list[dict[str, Any]]:
        """All rows in a form that another process takes."""
        return [asdict(row) for row in self._rows.values()]

    def take(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add what another process has seen."""
        for each in rows:
            seen = Row(**each)
            row = self.row(seen.promise, seen.fault)
            row.tries += seen.tries
            row.violations += seen.violations
            row.outages += seen.outages
            row.note = seen.note or row.note

    def table(self) -> list[str]:
        """Lines for people, in the order of the promises; none where nothing was tried."""
        rows = sorted(self._rows.values(), key=lambda row: (row.promise, row.fault))
        if not rows:
            return []
        cells = [("promise", "fault", "tries", "violations", "longest outage")]
        cells += [_cells(row) for row in rows]
        total = sum(row.tries for row in rows), sum(len(row.violations) for row in rows)
        cells.append(("all", f"{len(rows)} faults", f"{total[0]:,}", f"{total[1]:,}", ""))
        return list(_aligned(cells))


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    outage = f"{max(row.outages):.2f} s" if row.outages else "-"
    fault = f"{row.fault} ({row.note})" if row.note else row.fault
    return row.promise, fault, f"{row.tries:,}", f"{len(row.violations):,}", outage


def _aligned(cells: Iterable[tuple[str, ...]]) -> Iterable[str]:
    lines = list(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        words, figures = line[:2], line[2:]
        left = [word.ljust(width) for word, width in zip(words, widths[:2], strict=True)]
        right = [figure.rjust(width) for figure, width in zip(figures, widths[2:], strict=True)]
        yield "  ".join([*left, *right])


LEDGER = Ledger()
"""Of this run; shown when it ends (conftest.py)."""
