"""Problems: a short memory for `sidecar status`."""

from sidecar.problems import MOST, Problem, Problems
from tests.harness.fakes import FakeClock


def test_the_last_problems_come_newest_first() -> None:
    """Twenty are remembered, the oldest of all is not."""
    clock = FakeClock()
    problems = Problems(clock)
    for number in range(MOST + 1):
        problems.note(f"reason-{number}", "text")
    told = problems.newest_first()
    assert [problem.reason for problem in told] == [f"reason-{number}" for number in range(MOST, 0, -1)]


def test_a_reason_that_comes_again_is_one_problem() -> None:
    """With its last time and text: two that take turns must not push out all others."""
    clock = FakeClock()
    problems = Problems(clock)
    start = clock.now_ms()
    problems.note("store-unavailable", "one")
    clock.ms += 1_000
    problems.note("store-unavailable", "two")
    assert problems.newest_first() == [Problem(start + 1_000, "store-unavailable", "two")]
    problems.note("lnd-unavailable", "three")
    problems.note("store-unavailable", "four")
    assert [problem.text for problem in problems.newest_first()] == ["four", "three"]
