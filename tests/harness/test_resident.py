"""The rule by which memory is called flat, on made-up curves."""

from __future__ import annotations

import os
import random

import pytest

from sidecar.core.bounded import Bounded
from tests.harness.narrowed import narrow
from tests.harness.resident import growth, resident

MINUTE = 60


def curve(minutes: float, *, leak: float = 0, noise: float = 0, start: float = 110) -> list[float]:
    """A sample each second: MiB, with a leak of so many MiB a minute."""
    chance = random.Random(66)
    return [start + leak * at / MINUTE + chance.uniform(0, noise) for at in range(round(minutes * MINUTE))]


def test_a_leak_of_one_mebibyte_a_minute_is_seen_within_twenty_minutes() -> None:
    """Under noise that is five times as large as what leaks in a minute."""
    assert not growth(curve(20, leak=1, noise=5)).flat


def test_a_leak_of_five_mebibytes_a_minute_is_seen_within_four_minutes() -> None:
    """What the shortest run is good for."""
    assert not growth(curve(4, leak=5)).flat


@pytest.mark.parametrize("seed", range(20))
def test_what_goes_up_and_down_is_no_leak(seed: int) -> None:
    """As a sidecar's memory does under load: by 2 MiB, each second much like the one before."""
    chance, now, samples = random.Random(seed), 0.0, []
    for _ in range(4 * MINUTE):
        now = 0.6 * now + 0.8 * chance.gauss(0, 2)
        samples.append(112 + now)
    assert growth(samples).flat


def test_noise_is_no_leak() -> None:
    """Large answers come and go."""
    assert growth(curve(10, noise=20)).flat


def test_peaks_are_no_leak() -> None:
    """A fifth of the samples, and all of them late."""
    samples = curve(5)
    for at in range(len(samples) * 4 // 5, len(samples)):
        samples[at] += 40 * (at % 3 == 0)
    assert growth(samples).flat


def test_what_fills_at_the_start_is_no_leak() -> None:
    """The first quarter is not looked at."""
    samples = curve(4)
    samples[:MINUTE] = [50 + at for at in range(MINUTE)]
    assert growth(samples).flat


def test_a_step_between_the_quarters_is_seen() -> None:
    """It need not be a slope."""
    samples = curve(2)
    assert not growth([*samples[:MINUTE], *(sample + 9 for sample in samples[MINUTE:])]).flat


def test_memory_that_shrinks_is_flat() -> None:
    """Nothing is wrong with that."""
    assert growth(curve(10, leak=-2)).flat


def test_too_few_samples_say_nothing() -> None:
    """A run that was cut short must not pass."""
    with pytest.raises(AssertionError, match="7 samples"):
        growth([1.0] * 7)


def test_growth_is_told_in_words() -> None:
    """For the table."""
    assert str(growth([100.0] * 8 + [103.0] * 8)) == "+3.0 %"


@pytest.mark.parametrize(("blocks", "flat"), [(104_900, True), (105_100, False), (90_000, True)])
def test_what_is_in_use_may_not_grow_by_more_than_a_twentieth(blocks: int, flat: bool) -> None:
    """Nothing of it is kept back."""
    assert growth([100_000.0] * 8 + [float(blocks)] * 8).flat_in_use is flat


def test_this_process_has_memory() -> None:
    """In MiB, and not in bytes or pages."""
    assert 20 < resident(os.getpid()) < 4_000


def test_narrowed_dicts_hold_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of what they would, and one at least."""
    monkeypatch.setattr(Bounded, "__init__", Bounded.__init__)
    narrow()
    for most, kept in ((1_000, 10), (20, 1)):
        bounded: Bounded[int, None] = Bounded(most)
        bounded.update(dict.fromkeys(range(50)))
        assert list(bounded) == list(range(50 - kept, 50))
