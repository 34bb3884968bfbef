"""Limits in process: what a bucket lets through, what a window remembers, and how much memory they take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.limits import Rate, Recent, TokenBuckets

NOW = 1_800_000_000_000


def taken(buckets: TokenBuckets, key: str, now_ms: int, tries: int) -> int:
    """How many of so many tries at one moment are let through."""
    return sum(buckets.take(key, now_ms) for _ in range(tries))


def test_a_bucket_allows_its_burst_and_then_its_rate() -> None:
    """A burst of 5 at once, and from then on 10 a second: one each 100 ms, no sooner."""
    buckets = TokenBuckets(Rate(per_second=10, burst=5))
    assert taken(buckets, "offer", NOW, 20) == 5
    assert taken(buckets, "offer", NOW + 99, 1) == 0
    assert taken(buckets, "offer", NOW + 200, 5) == 2
    assert taken(buckets, "offer", NOW + 1_200, 20) == 5


def test_a_refusal_costs_nothing() -> None:
    """What is refused takes no tokens: a flood doesn't lock its offer for longer than the flood lasts."""
    buckets = TokenBuckets(Rate(per_second=1, burst=1))
    assert taken(buckets, "offer", NOW, 1_000) == 1
    assert taken(buckets, "offer", NOW + 1_000, 2) == 1


def test_each_key_has_a_bucket_of_its_own() -> None:
    """A flooded offer slows down no other."""
    buckets = TokenBuckets(Rate(per_second=1, burst=3))
    assert taken(buckets, "flooded", NOW, 100) == 3
    assert taken(buckets, "other", NOW, 100) == 3


def test_an_amount_is_taken_whole_or_not_at_all() -> None:
    """Bytes are limited as well as messages: what does not fit is refused, what is smaller goes."""
    buckets = TokenBuckets(Rate(per_second=1_000, burst=1_000))
    assert buckets.take("peer", NOW, 600)
    assert not buckets.take("peer", NOW, 401)
    assert buckets.take("peer", NOW, 400)
    assert not buckets.take("peer", NOW + 1, 1.5)
    assert buckets.take("peer", NOW + 1, 1)


def test_a_clock_stepped_back_neither_gives_nor_takes() -> None:
    """A step back gives no tokens, and the rate goes on from the new time without a wait."""
    buckets = TokenBuckets(Rate(per_second=10, burst=5))
    assert taken(buckets, "offer", NOW, 3) == 3
    stepped = NOW - 3_600_000
    assert taken(buckets, "offer", stepped, 10) == 2
    assert taken(buckets, "offer", stepped + 100, 10) == 1


@given(st.lists(st.integers(0, 2_000), max_size=60))
def test_no_bucket_lets_through_more_than_burst_and_rate(steps: list[int]) -> None:
    """Over any stretch of time: at most the burst and what came back meanwhile."""
    buckets = TokenBuckets(Rate(per_second=3, burst=4))
    now, allowed = NOW, 0
    for step in steps:
        now += step
        allowed += buckets.take("offer", now)
    assert allowed <= 4 + (now - NOW) * 3 / 1_000


def test_a_key_may_have_a_rate_of_its_own() -> None:
    """It is given with each take; other keys keep the usual one."""
    buckets, own = TokenBuckets(Rate(per_second=1, burst=1)), Rate(per_second=10, burst=3)
    assert [buckets.take("alice", NOW, rate=own) for _ in range(4)] == [True, True, True, False]
    assert [buckets.take("alice", NOW + 200, rate=own) for _ in range(3)] == [True, True, False]
    assert taken(buckets, "bob", NOW, 4) == 1


def test_a_bucket_stays_sane_when_its_rate_changes() -> None:
    """A lower burst takes away what is above it; a higher one fills from where the bucket stood."""
    buckets = TokenBuckets(Rate(per_second=1, burst=1))
    slow, fast = Rate(per_second=1, burst=2), Rate(per_second=10, burst=100)
    assert buckets.take("alice", NOW, rate=fast)
    assert [buckets.take("alice", NOW, rate=slow) for _ in range(3)] == [True, True, False]
    assert not buckets.take("alice", NOW, rate=fast)
    assert [buckets.take("alice", NOW + 200, rate=fast) for _ in range(3)] == [True, True, False]


def test_buckets_forget_the_key_that_was_used_longest_ago() -> None:
    """Memory is bounded by a number of keys, whoever makes them up; the busy ones stay."""
    buckets = TokenBuckets(Rate(per_second=1, burst=1), most=2)
    assert buckets.take("a", NOW)
    assert buckets.take("b", NOW)
    assert not buckets.take("a", NOW)
    assert buckets.take("c", NOW)  # and b, used longest ago, is forgotten
    assert not buckets.take("a", NOW)
    assert buckets.take("b", NOW)
    for number in range(1_000):
        buckets.take(number, NOW)
    assert len(buckets._buckets) == 2


def test_a_window_counts_what_came_before_within_it() -> None:
    """The first time is 0, and the count starts anew when the window that the key opened is over."""
    recent = Recent(window_ms=60_000)
    assert [recent.count("request", NOW + at) for at in (0, 1, 59_999)] == [0, 1, 2]
    assert [recent.count("request", NOW + at) for at in (60_000, 119_999, 120_000)] == [0, 1, 0]


def test_a_window_can_be_looked_at_without_noting() -> None:
    """Asking how often a key came up is no coming up, and an old window counts as none."""
    recent = Recent(window_ms=60_000)
    assert [recent.times("request", NOW) for _ in range(2)] == [0, 0]
    recent.count("request", NOW)
    recent.count("request", NOW)
    assert [recent.times("request", NOW + at) for at in (0, 59_999, 60_000)] == [2, 2, 0]
    assert recent.count("request", NOW + 59_999) == 2


def test_a_window_belongs_to_one_key() -> None:
    """One request's repeats don't count against another."""
    recent = Recent(window_ms=60_000)
    assert [recent.count(key, NOW) for key in ("a", "b", "a", "b")] == [0, 0, 1, 1]


def test_a_clock_stepped_back_does_not_keep_a_window_open() -> None:
    """Within the window's length a step back counts on; beyond it the window is opened anew."""
    recent = Recent(window_ms=60_000)
    assert [recent.count("request", NOW - back) for back in (0, 59_999, 3_600_000)] == [0, 1, 0]
    assert recent.count("request", NOW - 3_600_000 + 60_000) == 0


def test_windows_forget_the_key_that_was_used_longest_ago() -> None:
    """Memory is bounded by a number of keys, whoever makes them up."""
    recent = Recent(window_ms=60_000, most=2)
    assert [recent.count(key, NOW) for key in ("a", "b", "a", "c", "a", "b")] == [0, 0, 1, 0, 2, 0]
    for number in range(1_000):
        recent.count(number, NOW)
    assert len(recent._seen) == 2
