"""Proof of life: which letters a node surely got, and when it is asleep behind a connection that stands."""

from collections.abc import Hashable

import pytest

from sidecar.core.watch import MOST_SENT, PROOF_AFTER_MS, SILENT_AFTER_MS, Watch

SECOND = 1_000


def watch_of(*letters: int) -> Watch:
    """A watch over letters sent at these times (ms); their numbers count from 1."""
    watch = Watch()
    for number, at in enumerate(letters, 1):
        watch.sent(number, at)
    return watch


def looks(watch: Watch, *seen: tuple[int, int]) -> list[list[Hashable]]:
    """What each look at (seconds, bytes) proved."""
    return [watch.looked(count, at * SECOND) for at, count in seen]


def test_bytes_that_come_thirty_seconds_after_a_letter_prove_it() -> None:
    """`bytes_recv` moved ≥ 30 s after the send: the letter arrived."""
    watch = watch_of(0)
    assert looks(watch, (30, 100), (40, 101)) == [[], [1]]
    assert len(watch) == 0


def test_bytes_that_may_have_been_under_way_prove_nothing() -> None:
    """What moved between two looks may have come right after the first: that one must be 30 s later."""
    assert looks(watch_of(0), (0, 100), (29, 100), (40, 101), (50, 101)) == [[], [], [], []]


def test_the_first_look_proves_nothing_however_late() -> None:
    """Without an earlier count nobody knows when the bytes came."""
    assert looks(watch_of(0), (3_600, 10_000)) == [[]]


def test_only_letters_old_enough_are_proven() -> None:
    """Each letter needs a sign of its own, 30 s after it."""
    watch = watch_of(0, 15 * SECOND)
    assert looks(watch, (30, 1), (40, 2), (50, 3), (60, 4)) == [[], [1], [], [2]]


@pytest.mark.parametrize(("after", "proven"), [(PROOF_AFTER_MS, [1]), (PROOF_AFTER_MS - 1, [])])
def test_a_message_from_the_node_is_a_sign_at_its_very_time(after: int, proven: list[int]) -> None:
    """No look is needed where the node itself speaks."""
    assert watch_of(0).heard(after) == proven


def test_a_count_that_stands_still_or_falls_proves_nothing() -> None:
    """No byte, no life; a smaller count is another connection's."""
    assert looks(watch_of(0), (30, 100), (60, 100), (90, 99)) == [[], [], []]


@pytest.mark.parametrize(("at", "silent"), [(SILENT_AFTER_MS, True), (SILENT_AFTER_MS - 1, False)])
def test_a_node_that_gives_no_sign_is_silent(at: int, silent: bool) -> None:
    """LDK pings every 10 s: after 20 s without a byte it sleeps, whatever its connection looks like."""
    assert watch_of(0).silent(at) == silent


def test_a_node_that_pings_is_never_silent() -> None:
    """A sign puts it off for another 20 s."""
    watch = watch_of(0)
    for at in range(0, 25, 10):
        looks(watch, (at, at + 1))
        assert not watch.silent(at * SECOND)
    assert watch.silent(40 * SECOND)


def test_a_node_that_was_sent_nothing_is_not_silent() -> None:
    """Nothing waits for it."""
    assert not Watch().silent(3_600 * SECOND)


def test_silence_is_news_once_until_the_next_sign() -> None:
    """One wake-up for each sleep, and not one for each look."""
    watch = watch_of(0)
    at = SILENT_AFTER_MS
    assert [watch.newly_silent(at), watch.newly_silent(at + SECOND)] == [True, False]
    watch.heard(at + 2 * SECOND)
    assert not watch.newly_silent(at + 3 * SECOND)
    watch.sent(2, at + 4 * SECOND)
    assert [watch.newly_silent(2 * at + 5 * SECOND), watch.newly_silent(3 * at)] == [True, False]


def test_what_was_sent_after_the_last_sign_is_unheard() -> None:
    """Those letters may be lost with the connection; earlier ones may not."""
    watch = watch_of(5 * SECOND)
    assert watch.unheard()
    watch.heard(6 * SECOND)
    assert not watch.unheard()
    watch.sent(2, 7 * SECOND)
    assert watch.unheard()


def test_a_letter_from_memory_is_watched_on_under_its_number() -> None:
    """Sent by its key, kept later: what proves it is counted from when it was sent."""
    watch = Watch()
    watch.sent(b"key", 0)
    watch.kept(b"key", 7)
    assert (7 in watch, b"key" in watch) == (True, False)
    assert watch.heard(PROOF_AFTER_MS) == [7]
    watch.kept(b"never sent", 8)
    assert 8 not in watch


def test_a_flood_at_a_node_that_gives_no_sign_is_bounded() -> None:
    """LND may need minutes to notice: what was sent first is forgotten, and may go out once more."""
    watch = watch_of(*range(MOST_SENT + 10))
    assert len(watch) == MOST_SENT
    assert (10 in watch, 11 in watch) == (False, True)
