"""The table of promises says what was seen, by whichever process."""

import pytest

from tests.faults.ledger import Ledger


def test_a_violation_is_counted_and_ends_the_test() -> None:
    """With what was seen; and a promise that was never put to the test is none that was kept."""
    row = Ledger().row("1 kept", "killed")
    with pytest.raises(AssertionError, match="nothing was tried"):
        row.close()
    row.check(kept=True, what="fine")
    row.close()
    row.check(kept=False, what="slot 3 is gone")
    with pytest.raises(AssertionError, match="1 of 2 not kept:\nslot 3 is gone"):
        row.close()


def test_what_several_processes_saw_is_one_row() -> None:
    """Tries, violations and outages of one promise under one fault belong together."""
    ledger, other = Ledger(), Ledger()
    for each, outage in ((ledger, 1.0), (other, 2.5)):
        row = each.row("1 kept", "killed")
        row.tried(2)
        row.outages.append(outage)
    other.row("1 kept", "killed").violated("gone")
    other.row("0 led", "frozen").tried(1_000)
    ledger.take(other.dump())
    assert ledger.table() == [
        "promise  fault     tries  violations  longest outage",
        "0 led    frozen    1,000           0               -",
        "1 kept   killed        4           1          2.50 s",
        "all      2 faults  1,004           1                ",
    ]
