"""The mailbox: onion messages for a client's node, kept until it surely got them.

A payer sends held_htlc_available once, and without it there is no payment. Times with `_ms` are
milliseconds since the epoch.
"""

from dataclasses import dataclass
from enum import Enum

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
    """What each of a client's two queues may hold: letters, and bytes of them; and for how long (seconds)."""

    letters: int
    bytes: int
    ttl: int


@dataclass(frozen=True, slots=True)
class MailUse:
    """What a client's mailbox holds, both queues together; `newest_ms` is 0 when it is empty."""

    letters: int
    bytes: int
    newest_ms: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A letter on disk: its number, what the mailbox holds now, how many letters made room for it."""

    number: int
    use: MailUse
    dropped: int
