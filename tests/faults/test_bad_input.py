"""Promise 6, case by case: all bad input that the tests know of, counted, and none of it undeclared."""

from __future__ import annotations

import pytest

from tests.faults.bad_input import Kind, cases_of, hostile, kinds
from tests.faults.conftest import NewRow
from tests.faults.promises import SOUND

SHOWN = 3
"""Slugs of a kind that the table names."""


@pytest.mark.faults
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
async def test_bad_input_comes_to_what_is_declared_for_it(kind: Kind, promise: NewRow) -> None:
    """One row for each kind: its cases, and the slugs under which they are refused."""
    row = promise(SOUND, f"bad input: {kind.name}")
    for violation in await kind.violations():
        row.violated(violation)
    row.tried(len(kind.cases))
    row.note = told(kind.came_to)


@pytest.mark.faults
async def test_no_hostile_address_is_dialled(promise: NewRow) -> None:
    """Every URL that leads to what is not the Internet is refused before a socket is opened."""
    row = promise(SOUND, "bad input: hostile addresses of webhooks")
    tried, refused = await hostile()
    row.tried(tried)
    if tried != refused:
        row.violated(f"{tried - refused} of {tried} were not refused")


def told(slugs: set[str]) -> str:
    """The slugs, or the first of them and how many there are."""
    names = sorted(slugs)
    return ", ".join(names[:SHOWN]) + (f" … {len(names)}" if len(names) > SHOWN else "")


def test_there_are_cases_of_every_kind() -> None:
    """A table that was moved must not leave a kind without cases; and slugs are those that exist."""
    found = kinds()
    assert all(kind.cases for kind in found)
    assert sum(len(kind.cases) for kind in found) > 500
    assert len({kind.name for kind in found}) == len(found)


async def test_what_is_let_through_or_undeclared_is_a_violation() -> None:
    """Nothing raised, another slug, and an exception of no kind."""

    async def through() -> str:
        return ""

    async def other() -> str:
        return "bad-path"

    async def fault() -> str:
        raise ZeroDivisionError

    async def good() -> str:
        return "bad-offer"

    tries = [("a", through), ("b", other), ("c", fault), ("d", good)]
    kind = Kind("offers", frozenset({"bad-offer"}), tries)
    violations = await kind.violations()
    assert [each.partition(":")[0] for each in violations] == ["offers, 'a'", "offers, 'b'", "offers, 'c'"]
    assert "ZeroDivisionError" in violations[2]
    assert told({"a", "b", "c", "d"}) == "a, b, c … 4"


def test_a_table_that_is_not_there_is_missed() -> None:
    """Its test was renamed or rewritten: the count must not shrink unseen."""
    with pytest.raises(AssertionError, match="has no cases"):
        cases_of(test_a_table_that_is_not_there_is_missed, "payload")
