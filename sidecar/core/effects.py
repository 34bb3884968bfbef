"""What the core decides should happen; the service performs it, in order."""

from dataclasses import dataclass

from sidecar.core.model import StoredInvoice
from sidecar.core.paths import BlindedPath


@dataclass(frozen=True, slots=True)
class Save:
    """Keep an invoice in its slot. When it fails the list stops: nothing is acknowledged that was not kept.

    `mark_until`: seconds since the epoch until which the slot remembers its tag at least.
    """

    client_id: bytes
    invoice: StoredInvoice
    mark_until: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send an onion message along a path. When it fails it is counted, and the list goes on.

    `what` names it in counters and logs. `may_dial`: a verified payer is worth a connection; the
    path that a client chose for its own requests is not. `mail_key` is set when it is for the client
    itself: if the client's node is known it is kept until it arrives, one for each key.
    """

    what: str
    path: BlindedPath
    content_type: int
    content: bytes
    reply_path: BlindedPath | None = None
    may_dial: bool = False
    mail_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    """A client has shown which node it is. When it fails it is counted, and the list goes on."""

    client_id: bytes
    node_id: bytes


Effect = Save | Send | Bind
