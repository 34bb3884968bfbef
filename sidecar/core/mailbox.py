"""The mailbox: onion messages for a client's node, kept until it surely got them.

A payer sends held_htlc_available once, and without it there is no payment. Times with `_ms` are
milliseconds since the epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from sidecar.core.bounded import Bounded

SENDER_OVERHEAD = 33 + 33 + 33
"""Bytes that a letter counts besides its onion: the node ids of both ends, and the path_key."""


class Queue(Enum):
    """A client's two queues: neither takes room from the other."""

    REQUESTS = "requests"
    """The invoice_requests that we forward ourselves, one entry a request."""
    MESSAGES = "messages"
    """What others send to the client's node, held_htlc_available above all."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One onion message, ready to be handed to node `to`.

    `sender` is the peer that brought it (33 bytes): the queue is shared fairly between senders.
    `key` names the message within its queue: a letter replaces one of the same key, and goes last.
    """

    queue: Queue
    to: bytes
    path_key: bytes
    onion: bytes
    sender: bytes
    key: bytes
    kept_at_ms: int

    @property
    def size(self) -> int:
        """Bytes that count against the limits."""
        return len(self.onion) + SENDER_OVERHEAD


@dataclass(frozen=True, slots=True)
class MailLimits:
    """What each of a client's two queues may hold: letters, and bytes of them; and for how long (seconds).

    A client's own numbers of letters and bytes go before these.
    """

    letters: int
    bytes: int
    ttl: int


@dataclass(frozen=True, slots=True)
class MailUse:
    """What a client's mailbox holds, both queues together; `newest_ms` is 0 when it is empty.

    `change` counts the mailbox's changes: of two uses the one with the higher is the later.
    """

    letters: int
    bytes: int
    newest_ms: int
    change: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A letter on disk: its number, what the mailbox holds now, how many letters made room for it."""

    number: int
    use: MailUse
    dropped: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a letter is on disk. Its number is one of that client's: another one's letters have the same."""

    client_id: bytes
    number: int


@dataclass(frozen=True, slots=True)
class LetterNote:
    """A letter without what it says; `size` is what counts against the limits."""

    number: int
    queue: Queue
    sender: bytes
    size: int
    kept_at_ms: int


_GONE = 1_000
"""Mailboxes that are gone and still remembered: longer than an answer about one can be under way."""


class MailUses:
    """What all mailboxes hold, as far as it was seen. `bytes`: of all together."""

    def __init__(self) -> None:
        self._uses: dict[bytes, MailUse] = {}
        self._gone: Bounded[bytes, None] = Bounded(_GONE)
        self.bytes = 0

    def note(self, client_id: bytes, use: MailUse) -> None:
        """A mailbox was looked at, or changed; passed over when a later change of it is known.

        Of two changes at once the earlier one's answer may come last.
        """
        before = self._uses.get(client_id)
        if client_id in self._gone or (before is not None and use.change < before.change):
            return
        self.bytes += use.bytes - (before.bytes if before else 0)
        self._uses[client_id] = use

    def forget(self, client_id: bytes) -> None:
        """A mailbox is gone for good."""
        if (before := self._uses.pop(client_id, None)) is not None:
            self.bytes -= before.bytes
        self._gone[client_id] = None

    def of(self, client_id: bytes) -> MailUse | None:
        """What waits for a client; None for nothing."""
        use = self._uses.get(client_id)
        return use if use is not None and use.letters else None

    def filled(self) -> Iterator[tuple[bytes, MailUse]]:
        """Every mailbox that holds something."""
        return ((client_id, use) for client_id, use in self._uses.items() if use.letters)

    def letters(self) -> int:
        """Of all mailboxes together."""
        return sum(use.letters for use in self._uses.values())
