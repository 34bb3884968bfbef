"""What the LDK suite found, cell by cell: printed as a table when the tests have run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

STEPS = (
    "offer ready",
    "second slot",
    "answered",
    "accepted",
    "forwarded",
    "held/release",
    "wallet away",
    "wallet back",
    "rotated",
    "refreshed",
    "replaced",
)
"""What each cell must pass, in this order, the server killed and started between each two."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """Who meets whom: LDK versions of wallet and payer, and what serves them."""

    server: str
    wallet: str
    payer: str

    def __str__(self) -> str:
        return f"{self.server}, wallet {self.wallet}, payer {self.payer}"


@dataclass(slots=True)
class Row:
    """What one cell passed, and how long things took (milliseconds)."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    offer_ms: list[float] = field(default_factory=list)
    invoice_ms: list[float] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note whether the step passed."""
        try:
            yield
        except BaseException:
            self.failed.append(name)
            raise
        self.passed.append(name)


@dataclass(slots=True)
class Matrix:
    """All that was run."""

    rows: dict[Cell, Row] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """By the short names in the table."""
    notes: list[str] = field(default_factory=list)

    def row(self, cell: Cell) -> Row:
        """The row of a cell, empty at first."""
        return self.rows.setdefault(cell, Row())

    def lines(self) -> Iterator[str]:
        """The tables, for a terminal."""
        served = {cell: row for cell, row in sorted(self.rows.items()) if row.passed or row.failed}
        if served:
            yield from _table(_who, ("LND", "wallet", "payer"), STEPS, served, _marks)
            yield ", ".join(f"{name}: {version}" for name, version in sorted(self.versions.items()))
            yield ""
        timed = {cell: row for cell, row in sorted(self.rows.items()) if row.offer_ms}
        if timed:
            head = ("p50", "p99", "p50", "p99", "samples")
            yield "milliseconds: from connecting to the offer ready; from the request to the invoice"
            yield from _table(_who, ("server", "wallet", "payer"), head, timed, _figures)
        yield from self.notes


def _who(cell: Cell) -> tuple[str, str, str]:
    return cell.server, cell.wallet, cell.payer


def _marks(row: Row) -> list[str]:
    return ["passed" if step in row.passed else "FAILED" if step in row.failed else "-" for step in STEPS]


def _figures(row: Row) -> list[str]:
    cells = [
        f"{percentile(values, part):.1f}" for values in (row.offer_ms, row.invoice_ms) for part in (50, 99)
    ]
    return [*cells, f"{len(row.offer_ms)}/{len(row.invoice_ms)}"]


def percentile(values: Sequence[float], part: int) -> float:
    """The smallest value that `part` in a hundred do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * part // 100) - 1)]


def _table(
    who: Callable[[Cell], tuple[str, ...]],
    names: Sequence[str],
    head: Sequence[str],
    rows: dict[Cell, Row],
    cells: Callable[[Row], list[str]],
) -> Iterator[str]:
    table = [[*names, *head], *([*who(cell), *cells(row)] for cell, row in rows.items())]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
