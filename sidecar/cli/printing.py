"""What commands print: tables, fields, times, JSON."""

import codecs
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sidecar import options

Row = Sequence[object]

_PLAIN = {"…": "~", "–": "-", "µ": "u"}
"""Letters of our own that a terminal may lack, each with one as wide."""


def table(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Plain text in aligned columns: numbers to the right, all else to the left."""
    body = [list(row) for row in rows]
    cells = [list(head), *([str(cell) for cell in row] for row in body)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [bool(body) and all(isinstance(row[i], int) for row in body) for i in range(len(head))]
    lines = (
        "  ".join(
            cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """One `name  value` a line, the values below each other."""
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in pairs)


def utc(seconds: int) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: int) -> str:
    """A time from now in the unit that a person would use: `in 12 days`, `3 hours ago`."""
    for unit, size in (
        ("day", options.DAY),
        ("hour", options.HOUR),
        ("minute", options.MINUTE),
        ("second", 1),
    ):
        count = abs(seconds) // size
        if count >= (1 if unit == "second" else 2):
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"in {words}" if seconds > 0 else f"{words} ago"
    return "now"


def plain_letters() -> str:
    """Register an error handler for terminals that lack letters; returns its name.

    Our own letters become plain ones, all others are escaped.
    """

    def replaced(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        escaped = (_PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in lacking)
        return "".join(escaped), error.end

    codecs.register_error("sidecar.plain", replaced)
    return "sidecar.plain"


def as_json(value: object) -> str:
    """For scripts: indented JSON."""
    return json.dumps(value, indent=2)
