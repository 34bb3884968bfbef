"""Promise 6 under a fuzzer: whatever bytes come, a decoder raises what it declares, in time and in bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import NewRow
from tests.faults.promises import SOUND
from tests.fuzz.run import run_all
from tests.fuzz.targets import TARGETS

# Of pytest's own there can be none: it depends on --rounds, and each run has one.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

SECONDS_A_ROUND = 1
SEED = 4_661


def test_no_input_breaks_a_decoder(promise: NewRow, rounds: int, tmp_path: Path) -> None:
    """Each target under libFuzzer, which follows what the inputs reach; a try is one input."""
    rows = {target.name: promise(SOUND, f"fuzzed: {target.what}") for target in TARGETS}
    seconds = max(2, rounds * SECONDS_A_ROUND)
    for outcome in run_all(TARGETS, seconds, tmp_path / "found", seed=SEED):
        row = rows[outcome.name]
        row.tried(outcome.executions)
        row.note = f"coverage {outcome.began} to {outcome.reached}"
        if outcome.finding:
            row.violated(f"seed {SEED}: {outcome.finding}")
