"""Cooldowns: what is told at once, what waits, what ends a cooldown, and how much memory they take."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.cooldowns import Cooldowns

NOW = 1_800_000_000_000
LENGTH = 120_000
ALICE, BOB = b"\x02" * 33, b"\x03" * 33


def test_the_first_is_told_at_once_and_the_next_waits_for_the_end() -> None:
    """Two messages within two minutes: one wake-up now, and one when the two minutes are over."""
    cooldowns = Cooldowns(LENGTH)
    assert cooldowns.ask(ALICE, "wake", NOW)
    assert not cooldowns.ask(ALICE, "wake", NOW + 1)
    assert cooldowns.due(NOW + LENGTH - 1) == []
    assert cooldowns.due(NOW + LENGTH) == [(ALICE, "wake")]


def test_what_waits_is_due_once_however_often_it_was_asked() -> None:
    """A hundred messages within a cooldown are one wake-up at its end, and that opens the next cooldown."""
    cooldowns = Cooldowns(LENGTH)
    assert [cooldowns.ask(ALICE, "wake", NOW + at) for at in range(100)] == [True] + [False] * 99
    assert cooldowns.due(NOW + LENGTH) == [(ALICE, "wake")]
    assert cooldowns.due(NOW + 2 * LENGTH) == []
    assert not cooldowns.ask(ALICE, "wake", NOW + 2 * LENGTH - 1)


def test_after_the_cooldown_the_next_is_told_at_once() -> None:
    """Nobody asked meanwhile, so nothing waits, and whoever asks then need not wait."""
    cooldowns = Cooldowns(LENGTH)
    assert cooldowns.ask(ALICE, "wake", NOW)
    assert cooldowns.due(NOW + LENGTH) == []
    assert cooldowns.ask(ALICE, "wake", NOW + LENGTH)


def test_one_that_comes_after_the_end_takes_the_place_of_what_waits() -> None:
    """Told at once and then again as due would be twice for one."""
    cooldowns = Cooldowns(LENGTH)
    assert cooldowns.ask(ALICE, "wake", NOW)
    assert not cooldowns.ask(ALICE, "wake", NOW + 1)
    assert cooldowns.ask(ALICE, "wake", NOW + LENGTH)
    assert cooldowns.due(NOW + LENGTH) == []


def test_nodes_and_methods_have_cooldowns_of_their_own() -> None:
    """Bob's wake-up does not hold back Alice's, nor one method another."""
    cooldowns = Cooldowns(LENGTH)
    keys = [(ALICE, "wake"), (ALICE, "expiry"), (BOB, "wake")]
    assert [cooldowns.ask(*key, NOW) for key in keys] == [True] * 3
    assert [cooldowns.ask(*key, NOW) for key in keys] == [False] * 3
    assert sorted(cooldowns.due(NOW + LENGTH)) == sorted(keys)


def test_a_node_that_connects_has_no_cooldown_and_nothing_waits_for_it() -> None:
    """bLIP 55: "The timeout should be reset once the client comes online and then goes offline"."""
    cooldowns = Cooldowns(LENGTH)
    for node_id in (ALICE, BOB):
        cooldowns.ask(node_id, "wake", NOW)
        cooldowns.ask(node_id, "wake", NOW)
    cooldowns.end(ALICE)
    assert cooldowns.due(NOW + LENGTH) == [(BOB, "wake")]
    cooldowns.end(BOB)
    assert cooldowns.ask(ALICE, "wake", NOW + LENGTH + 1)
    assert cooldowns.ask(BOB, "wake", NOW + LENGTH + 1)
    cooldowns.end(b"a node that was never told anything")


def test_a_lifted_cooldown_lets_the_next_one_through_and_opens_anew() -> None:
    """No webhook was reached: the next message tries again at once, and it alone."""
    cooldowns = Cooldowns(LENGTH)
    assert cooldowns.ask(ALICE, "wake", NOW)
    cooldowns.lift(ALICE, "wake")
    assert cooldowns.ask(ALICE, "wake", NOW + 1)
    assert not cooldowns.ask(ALICE, "wake", NOW + 2)
    cooldowns.lift(BOB, "wake")


def test_what_waits_outlives_the_lifting_of_its_cooldown() -> None:
    """It is not tried right behind a failure, and not lost: it comes at its time."""
    cooldowns = Cooldowns(LENGTH)
    cooldowns.ask(ALICE, "wake", NOW)
    cooldowns.ask(ALICE, "wake", NOW + 1)
    cooldowns.lift(ALICE, "wake")
    assert cooldowns.due(NOW + 2) == []
    assert cooldowns.due(NOW + LENGTH) == [(ALICE, "wake")]


def test_all_cooldowns_of_a_node_can_be_lifted() -> None:
    """A webhook that was just registered may be what the last wake-ups lacked; Bob's is another matter."""
    cooldowns = Cooldowns(LENGTH)
    for key in ((ALICE, "wake"), (ALICE, "expiry"), (BOB, "wake")):
        cooldowns.ask(*key, NOW)
    cooldowns.lift_all(ALICE)
    assert cooldowns.ask(ALICE, "wake", NOW)
    assert cooldowns.ask(ALICE, "expiry", NOW)
    assert not cooldowns.ask(BOB, "wake", NOW)


def test_a_stepped_clock_does_not_keep_a_cooldown_for_long() -> None:
    """A step back by an hour ends a cooldown of two minutes; a step within it is let be."""
    cooldowns = Cooldowns(LENGTH)
    cooldowns.ask(ALICE, "wake", NOW)
    assert not cooldowns.ask(ALICE, "wake", NOW - LENGTH + 1)
    assert cooldowns.due(NOW - 3_600_000) == [(ALICE, "wake")]


def test_the_node_that_was_told_longest_ago_is_forgotten_with_what_waits() -> None:
    """Memory is bounded by a number of nodes, in both of its tables."""
    cooldowns = Cooldowns(LENGTH, most=2)
    for number in range(1_000):
        node_id = number.to_bytes(33, "big")
        assert cooldowns.ask(node_id, "wake", NOW)
        assert not cooldowns.ask(node_id, "wake", NOW)
    assert (len(cooldowns._nodes), len(cooldowns._waiting)) == (2, 2)
    assert cooldowns.due(NOW + LENGTH) == [((998).to_bytes(33, "big"), "wake"), (node_id, "wake")]


@given(st.lists(st.tuples(st.integers(0, 200_000), st.booleans()), max_size=40))
def test_no_node_is_told_twice_within_a_cooldown_and_none_is_left_waiting(
    steps: list[tuple[int, bool]],
) -> None:
    """Whatever the times of asking: two minutes between two tellings, and the last asking is told too."""
    cooldowns, now, told, asked = Cooldowns(LENGTH), NOW, list[int](), 0
    for step, ask in steps:
        now += step
        told += [now for _ in cooldowns.due(now)]
        if ask:
            asked = now
            told += [now] * cooldowns.ask(ALICE, "wake", now)
    told += [now + LENGTH for _ in cooldowns.due(now + LENGTH)]
    assert all(later - earlier >= LENGTH for earlier, later in itertools.pairwise(told))
    assert not asked or told[-1] >= asked


def test_what_waited_and_was_forgotten_is_told_once() -> None:
    """For a counter; a node that connects is not forgotten, it needs no wake-up."""
    cooldowns = Cooldowns(LENGTH, most=2)
    for number in range(5):
        node_id = number.to_bytes(33, "big")
        cooldowns.ask(node_id, "wake", NOW)
        if number != 1:
            cooldowns.ask(node_id, "wake", NOW)
    cooldowns.end(node_id)
    assert [cooldowns.take_lost(), cooldowns.take_lost()] == [2, 0]
