"""Timings: what is noted, under which outcome, and what is told of it."""

import asyncio

import pytest

from sidecar.timings import Timed, Timings


class Clock:
    """Seconds that go on by as much as a test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The seconds now."""
        return self.now


def test_what_was_timed_is_told_by_name_with_all_its_outcomes() -> None:
    """Each lands in the bucket that holds it, its bound included; outcomes are put together."""
    timings = Timings()
    for seconds, outcome in ((0.001, "done"), (0.0011, "dropped"), (31, "failed")):
        timings.observe(Timed.MESSAGE, seconds, "invoice_request", outcome)
    timings.observe(Timed.CONNECT, 4_000)
    connect, message = timings.snapshot()
    assert (connect.name, connect.count, connect.buckets[-1]) == ("connect", 1, 1)
    assert (message.name, message.count) == ("message.invoice_request", 3)
    assert message.total == pytest.approx(31.0021)
    assert message.bounds[:2] == (0.001, 0.0025)
    assert message.buckets == (1, 1, *[0] * 12, 1)
    assert len(message.buckets) == len(message.bounds) + 1


def test_what_was_never_timed_is_not_told() -> None:
    """Series that stand at 0 for Prometheus' sake are no news to an operator."""
    assert Timings().snapshot() == []


def test_a_measure_ends_with_the_label_and_outcome_that_it_was_given() -> None:
    """Both may be known only while it runs; an error makes it `failed` and goes on its way."""
    clock = Clock()
    timings = Timings(clock)
    with timings.measure(Timed.MESSAGE, "other") as measured:
        clock.now += 2
        measured.label, measured.outcome = "passing", "dropped"

    def fail() -> None:
        with timings.measure(Timed.LND, "GetInfo"):
            clock.now += 0.25
            raise OSError("away")

    with pytest.raises(OSError, match="away"):
        fail()
    noted = {
        (sample.labels["outcome"], sample.value)
        for metric in timings.collect()
        for sample in metric.samples
        if sample.name.endswith("_sum") and sample.value
    }
    assert noted == {("dropped", 2.0), ("failed", 0.25)}
    assert [part.name for part in timings.snapshot()] == ["lnd.GetInfo", "message.passing"]


def test_what_is_cancelled_is_not_noted() -> None:
    """It says nothing of how long the thing takes."""
    timings = Timings()
    with pytest.raises(asyncio.CancelledError), timings.measure(Timed.WEBHOOK):
        raise asyncio.CancelledError
    assert timings.snapshot() == []


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    """A sum that shrinks would look like a restart to Prometheus."""
    timings = Timings()
    timings.observe(Timed.CONNECT, -5)
    assert [(part.total, part.buckets[0]) for part in timings.snapshot()] == [(0, 1)]
