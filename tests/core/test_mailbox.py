"""What is known of all mailboxes (core/mailbox.py)."""

from sidecar.core.mailbox import MailUse, MailUses

ALICE, BOB = b"a" * 10, b"b" * 10


def use(letters: int, change: int) -> MailUse:
    """So many letters of 100 bytes, after so many changes."""
    return MailUse(letters=letters, bytes=100 * letters, newest_ms=1, change=change)


def test_the_answer_of_an_earlier_change_that_comes_last_is_passed_over() -> None:
    """Two letters are kept at once, and Redis' answers overtake each other: the later change counts."""
    uses = MailUses()
    uses.note(ALICE, use(2, change=2))
    uses.note(ALICE, use(1, change=1))
    assert uses.of(ALICE) == use(2, change=2)
    assert uses.bytes == 200


def test_an_emptied_mailbox_is_not_filled_by_an_older_answer() -> None:
    """Nothing waits any more: that too has its place in the order."""
    uses = MailUses()
    uses.note(ALICE, use(0, change=3))
    uses.note(ALICE, use(1, change=2))
    assert uses.of(ALICE) is None
    assert (uses.letters(), uses.bytes) == (0, 0)


def test_a_mailbox_that_is_gone_stays_gone() -> None:
    """A client was removed while a letter for it was being kept."""
    uses = MailUses()
    uses.note(ALICE, use(2, change=2))
    uses.forget(ALICE)
    uses.note(ALICE, use(3, change=3))
    assert uses.of(ALICE) is None
    assert uses.bytes == 0


def test_all_mailboxes_are_summed() -> None:
    """Only those that hold something are listed."""
    uses = MailUses()
    uses.note(ALICE, use(2, change=2))
    uses.note(BOB, use(1, change=1))
    uses.note(BOB, use(0, change=2))
    assert list(uses.filled()) == [(ALICE, use(2, change=2))]
    assert (uses.letters(), uses.bytes) == (2, 200)


def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    """An operator's program may add and remove a client for each of its users, for years."""
    uses = MailUses()
    for number in range(5_000):
        client_id = number.to_bytes(10, "big")
        uses.note(client_id, MailUse(letters=1, bytes=10, newest_ms=1, change=1))
        uses.forget(client_id)
    assert (uses.bytes, len(uses._uses), len(uses._gone)) == (0, 0, 1_000)
