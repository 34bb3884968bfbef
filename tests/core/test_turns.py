"""The order in which a mailbox is handed over."""

from sidecar.core.mailbox import Letter, Queue
from sidecar.core.turns import Turns

NODE, OTHER = b"\x02" * 33, b"\x03" * 33


def letters(kinds: str) -> list[tuple[int | bytes, Letter]]:
    """One for each character, numbered from 0: `r` for a request, `m` for a message."""
    return [
        (number, Letter(Queue.REQUESTS if kind == "r" else Queue.MESSAGES, NODE, b"", b"", b"", b"", 0))
        for number, kind in enumerate(kinds)
    ]


def order(turns: Turns, kinds: str, node: bytes = NODE) -> list[int | bytes]:
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
