"""What the tests of settlement found: a line a case and LND, a column a pair of LDKs, printed at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.harness.ldk import Version

PAIRS: tuple[tuple[Version, Version], ...] = (("0.2", "0.2"), ("0.2", "0.3"), ("0.3", "0.2"), ("0.3", "0.3"))
"""Releases of LDK: the wallet's and the payer's."""


def column(wallet: str, payer: str) -> str:
    """The head of a column."""
    return f"{payer} to {wallet}"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one pair's payment went: `settled` after some seconds, or what was to be expected instead."""

    outcome: str
    seconds: float | None = None

    def __str__(self) -> str:
        return self.outcome if self.seconds is None else f"{self.outcome} {self.seconds:.2f}"


@dataclass(slots=True)
class Ledger:
    """All findings of a run, by case, LND and pair, in the order in which the cases came."""

    findings: dict[tuple[str, str], dict[str, Finding]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def note(self, case: str, lnd: str, pair: str, finding: Finding) -> None:
        """Enter one."""
        self.findings.setdefault((case, lnd), {})[pair] = finding

    def lines(self) -> Iterator[str]:
        """The table, for a terminal."""
        columns = [column(*pair) for pair in PAIRS]
        rows = [
            [case, lnd, *(str(found[name]) if name in found else "-" for name in columns)]
            for (case, lnd), found in self.findings.items()
        ]
        if rows:
            yield "payments from LDK to LDK: settled, and seconds until PaymentSent"
            yield from aligned([["case", "LND", *columns], *rows])
            yield ", ".join(f"{name}: {version}" for name, version in sorted(self.versions.items()))
        yield from self.notes


def aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as what is in them."""
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    for row in table:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
