"""The order in which a mailbox is handed over."""

import random
from collections.abc import Hashable

from sidecar.core.mailbox import Letter, Queue
from sidecar.core.turns import Turns

NODE, OTHER = b"\x02" * 33, b"\x03" * 33


def letters(kinds: str) -> list[tuple[Hashable, Letter]]:
    """One for each character, numbered from 0: `r` for a request, `m` for a message."""
    return [
        (number, Letter(Queue.REQUESTS if kind == "r" else Queue.MESSAGES, NODE, b"", b"", b"", b"", 0))
        for number, kind in enumerate(kinds)
    ]


def order(turns: Turns, kinds: str, node: bytes = NODE) -> list[Hashable]:
    """The names of the letters, as they go out."""
    return [name for name, _ in turns.ordered(node, letters(kinds))]


def test_messages_go_first_and_of_each_kind_the_newest() -> None:
    """What a payment waits for is among the messages, and the payer that is still there is the last one."""
    assert order(Turns(), "rmrm") == [3, 1, 2, 0]


def test_what_was_handed_over_less_often_goes_first() -> None:
    """Even a request that is new goes before a message that went out."""
    turns = Turns()
    for name in (1, 1, 3):
        turns.handed_over(NODE, name)
    assert order(turns, "rmrm") == [2, 0, 3, 1]


def test_nodes_do_not_share_their_turns() -> None:
    """Numbers are a client's own."""
    turns = Turns()
    turns.handed_over(OTHER, 1)
    assert order(turns, "rm") == [1, 0]


def test_what_has_left_the_mailbox_is_forgotten() -> None:
    """Nothing is remembered for letters that are gone: a node's memory is no larger than its mailbox."""
    turns = Turns()
    for name in (0, 5):
        turns.handed_over(NODE, name)
    assert order(turns, "mm") == [1, 0]
    assert order(turns, "mmmmmm") == [5, 4, 3, 2, 1, 0]


def test_a_letter_goes_by_its_key_while_it_has_no_number() -> None:
    """It waits in memory, and was handed over from there."""
    turns = Turns()
    turns.handed_over(NODE, b"key")
    (_, letter), *_ = letters("m")
    assert [name for name, _ in turns.ordered(NODE, [(b"key", letter), (7, letter)])] == [7, b"key"]


def test_a_letter_that_gets_a_number_is_the_same_letter() -> None:
    """Handed over from memory and stored afterwards: it went out before, and leaves with its number."""
    turns = Turns()
    turns.handed_over(NODE, b"key")
    for node, key in ((NODE, b"key"), (NODE, b"other"), (OTHER, b"key")):
        turns.kept(node, key, 7)
    assert turns.again(NODE, 7)
    assert not turns.again(NODE, b"key")
    assert not turns.again(OTHER, 7)
    turns.forget(NODE, [7])
    assert not turns.again(NODE, 7)


def test_what_the_node_surely_got_is_forgotten() -> None:
    """A wallet that stays connected for months is handed letter after letter: none is remembered for good."""
    turns = Turns()
    for name in (1, 2):
        turns.handed_over(NODE, name)
    turns.forget(NODE, [1, b"key"])
    turns.forget(OTHER, [2])
    assert [turns.again(NODE, name) for name in (1, 2)] == [False, True]


def test_what_is_remembered_is_bounded_over_all_nodes() -> None:
    """Letters that were pushed out before their node came back are never proved: the oldest node's go."""
    turns = Turns(most=10)
    for node in range(100):
        for name in range(3):
            turns.handed_over(bytes([node]), name)
    assert (turns._letters, list(turns._times)) == (9, [bytes([node]) for node in (97, 98, 99)])


def test_no_way_in_which_a_letter_is_forgotten_is_counted_wrong() -> None:
    """Else the bound would drift, and let go of everything or of nothing in the end."""
    chance, turns = random.Random(66), Turns(most=30)
    for _ in range(5_000):
        node, name = bytes([chance.randrange(6)]), chance.randrange(20)
        match chance.randrange(4):
            case 0:
                turns.forget(node, [name, b"key"])
            case 1:
                turns.kept(node, b"key", name)
            case 2:
                turns.ordered(node, letters("m" * name))
            case _:
                turns.handed_over(node, chance.choice((name, b"key")))
        assert turns._letters == sum(map(len, turns._times.values())) <= 30
        assert all(turns._times.values())
