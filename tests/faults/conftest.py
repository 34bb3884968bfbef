"""For the tests that break what the sidecar stands on: how often, and the rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.ledger import LEDGER, Row

NewRow = Callable[[str, str], Row]


@pytest.fixture
def promise() -> Iterator[NewRow]:
    """`promise("1 nothing acknowledged is lost", "Redis killed")`: a row, closed when the test ends."""
    taken: list[Row] = []

    def new(promise: str, fault: str) -> Row:
        taken.append(row := LEDGER.row(promise, fault))
        return row

    yield new
    for row in taken:
        row.close()


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a fault comes back: `--rounds`."""
    found: int = request.config.getoption("rounds")
    return found
