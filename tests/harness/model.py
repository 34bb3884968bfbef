"""What the server should do, as plain dictionaries say it: a model to hold the whole sidecar against.

It knows nothing of onions, Redis or LND. Two clocks: that of the sidecar (`now_ms`) may be set, that of
the store (`store_now`) goes on by itself and decides what is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sidecar.core.model import ClientState, OfferTag

PROOF_MS = 30_000
"""What a node says proves that it got what it was handed so long before."""

Inbox = list[tuple[bytes, str, bytes]]
"""Who is told something, what it is, and the bytes that matter of it."""


@dataclass(frozen=True, slots=True)
class Issue:
    """What was given to a client for a slot; `path_keys` of its offer path and its update path."""

    client_id: bytes
    slot: int
    tag: OfferTag
    expires_at: int
    path_keys: tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Left:
    """An invoice that a wallet leaves; `size` with its forward path, which leads to `node`."""

    issue: Issue
    invoice: bytes
    size: int
    created_at: int
    ends: int
    node: bytes
    kept_until: int = 0


@dataclass(slots=True, eq=False)
class Letter:
    """A request that waits for a wallet."""

    to: bytes
    request: bytes
    ends: int


@dataclass(slots=True)
class Known:
    """A client. `slots` and `size` (bytes in them) are its own limits, or None."""

    client_id: bytes
    name: str
    slots: int | None
    size: int | None
    generation: int = 1
    state: ClientState = ClientState.ACTIVE
    node: bytes | None = None
    learnt: bool = False
    marks: dict[int, tuple[OfferTag, int]] = field(default_factory=dict)
    invoices: dict[int, Left] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)


@dataclass(slots=True)
class Model:
    """All that there is. Limits: slots, bytes in them, letters, and seconds of a letter."""

    slots: int
    size: int
    letters: int
    mail_ttl: int
    now_ms: int
    store_now: Callable[[], float]
    clients: dict[bytes, Known] = field(default_factory=dict)
    online: dict[bytes, dict[Letter, int]] = field(default_factory=dict)
    """The nodes that are connected; what each was handed on this connection, and when."""
    used: set[bytes] = field(default_factory=set)
    """path_keys over which something came to us: a paused client's are not even listened to."""

    @property
    def now(self) -> int:
        """Seconds, by the sidecar's clock."""
        return self.now_ms // 1000

    def named(self, name: str) -> Known | None:
        """The client of a name."""
        return next((client for client in self.clients.values() if client.name == name), None)

    def holder(self, node: bytes | None) -> Known | None:
        """The client that a node is bound to."""
        bound = (client for client in self.clients.values() if client.state is not ClientState.REVOKED)
        return next((client for client in bound if node is not None and client.node == node), None)

    def tidy(self) -> None:
        """What has ended by the store's clock is not there any more."""
        now = self.store_now()
        for client in self.clients.values():
            client.invoices = {n: each for n, each in client.invoices.items() if each.kept_until > now}
            client.letters = [letter for letter in client.letters if letter.ends > now]

    # --- messages -----------------------------------------------------------------------------------

    def _heeded(self, client_id: bytes, path_key: bytes, sender: bytes) -> Known | None:
        """The client of a path, if it is served; the sender is heard, but over a path that is paused."""
        client = self.clients.get(client_id)
        paused = client is not None and client.state is ClientState.PAUSED
        if not paused or path_key not in self.used:
            self.heard(sender)
        self.used.add(path_key)
        return client if client is not None and client.state is ClientState.ACTIVE else None

    def heard(self, node: bytes) -> None:
        """A node has shown life: what it was handed long enough before is delivered."""
        watched = self.online.get(node, {})
        proved = [letter for letter, at in watched.items() if at <= self.now_ms - PROOF_MS]
        for letter in proved:
            del watched[letter]
        for client in self.clients.values():
            client.letters = [letter for letter in client.letters if letter not in proved]

    def asks_paths(
        self, client_id: bytes, generation: int, slot: int, path_key: bytes, sender: bytes
    ) -> int | None:
        """When (milliseconds) the tag of the paths is issued; None for silence."""
        client = self._heeded(client_id, path_key, sender)
        if client is None or generation != client.generation or slot >= self._slots(client):
            return None
        last, _ = client.marks.get(slot, (OfferTag(0, b""), 0))
        return max(self.now_ms, last.issued_at_ms + 1)

    def leaves(self, left: Left, *, through_lnd: bool) -> bool:
        """Whether it is acknowledged; it comes from the node that its forward path leads to."""
        issue = left.issue
        client = self._heeded(issue.client_id, issue.path_keys[1], left.node)
        if client is None or issue.slot >= self._slots(client):
            return False
        if min(issue.expires_at, left.ends) <= self.now:
            return False
        mark = client.marks.get(issue.slot)
        if mark is not None and issue.tag != mark[0] and issue.tag.issued_at_ms <= mark[0].issued_at_ms:
            return False
        if mark is not None and issue.tag == mark[0] and left.created_at < mark[1]:
            return False
        self.tidy()
        others = sum(each.size for slot, each in client.invoices.items() if slot != issue.slot)
        if others + left.size > (self.size if client.size is None else client.size):
            return False
        client.marks[issue.slot] = (issue.tag, min(left.created_at, self.now))
        if self.now < left.kept_until <= (store_now := int(self.store_now())):
            left = replace(left, kept_until=left.kept_until + store_now - self.now)
        client.invoices[issue.slot] = left
        self.tidy()
        # Its forward path leads through LND, back to the very peer that brought it: that is who it is.
        if through_lnd and client.node is None and self.holder(left.node) is None:
            client.node, client.learnt = left.node, True
        return True

    def asks(self, issue: Issue, request: bytes, payer: bytes) -> Inbox:
        """What a payer's request, never asked before, makes whom hear."""
        self.used.add(issue.path_keys[0])
        client = self.clients.get(issue.client_id)
        self.tidy()
        if client is not None and client.state is ClientState.PAUSED:
            return []
        error: Inbox = [(payer, "invoice_error", b"")]
        if client is None or client.state is ClientState.REVOKED or issue.expires_at <= self.now:
            return error
        left, mark = client.invoices.get(issue.slot), client.marks.get(issue.slot)
        if left is not None and left.issue == issue and left.kept_until > self.now:
            return [(payer, "static_invoice", left.invoice), *self._forwards(left.node, request)]
        return [] if mark is None or issue.tag > mark[0] else error

    def _forwards(self, node: bytes, request: bytes) -> Inbox:
        client = self.holder(node)
        told: Inbox = [(node, "invoice_request", request)] if node in self.online else []
        if client is None or client.state is ClientState.PAUSED:
            return told
        letter = Letter(node, request, self.now + self.mail_ttl)
        client.letters = [*client.letters, letter][-self.letters :]
        self.tidy()
        if told:
            self.online[node][letter] = self.now_ms
        return told

    def _slots(self, client: Known) -> int:
        return self.slots if client.slots is None else client.slots

    # --- connections --------------------------------------------------------------------------------

    def connects(self, node: bytes) -> Inbox:
        """A new connection, or one that counts as new: all that waits is handed over."""
        self.tidy()
        client = self.holder(node)
        waiting = [] if client is None or client.state is ClientState.PAUSED else client.letters
        self.online[node] = {letter: self.now_ms for letter in waiting if letter.to == node}
        return [(node, "invoice_request", letter.request) for letter in self.online[node]]

    # --- the operator -------------------------------------------------------------------------------

    def revokes(self, client: Known) -> None:
        """Not served any more; the slots' marks stay."""
        client.state = ClientState.REVOKED
        client.invoices, client.letters = {}, []

    def pauses(self, client: Known, *, paused: bool) -> Inbox:
        """Not served for now, or again: then what waits is handed over again."""
        was = client.state
        client.state = ClientState.PAUSED if paused else ClientState.ACTIVE
        back = was is ClientState.PAUSED and not paused
        return (
            self.connects(client.node)
            if back and client.node is not None and client.node in self.online
            else []
        )
