"""ports.Store and ports.MailStore in memory, for tests that need no Redis.

They keep the same contracts as Redis does (store_contract.py, mail_contract.py).
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.core.errors import (
    BoundOtherwise,
    ClientPaused,
    ClientRevoked,
    MailboxFull,
    NameTaken,
    NodeTaken,
    NoSuchClient,
    QuotaExceeded,
    SlotOutOfRange,
    StaleInvoice,
    StaleOffer,
    StoreUnavailable,
    UnknownClient,
)
from sidecar.core.mailbox import Kept, Letter, LetterNote, MailLimits, MailUse
from sidecar.core.model import (
    MOST_USAGE,
    BoundBy,
    Client,
    ClientState,
    Loaded,
    Quota,
    SlotMark,
    StoredInvoice,
    Terms,
    TimestampForm,
    Usage,
)


@dataclass
class _Record:
    client: Client
    invoices: dict[int, StoredInvoice] = field(default_factory=dict)
    marks: dict[int, tuple[SlotMark, int]] = field(default_factory=dict)
    letters: dict[int, tuple[Letter, int]] = field(default_factory=dict)
    """Number -> letter and its end (milliseconds), oldest first."""
    last_number: int = 0
    changed: dict[int, float] = field(default_factory=dict)
    """Slot -> when its invoice was saved, or went at its end (seconds)."""
    revoked: float | None = None


class MemoryStore:
    """Clients, invoices and mail for as long as the process lives; `now` gives seconds since the epoch.

    While `away` is true every method raises StoreUnavailable, as a Redis that is down does.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.away = False
        self._now = now
        self._records: dict[bytes, _Record] = {}

    async def load(self, client_id: bytes, slot: int) -> Loaded:
        """The client and one slot of it."""
        self._expire()
        record = self._records.get(client_id)
        if record is None:
            return Loaded(client=None, mark=None, invoice=None)
        mark, _ = record.marks.get(slot, (None, 0))
        changed = record.changed.get(slot, 0) if record.revoked is None else record.revoked
        stood_ms = max(0, round((self._now() - changed) * 1_000))
        return Loaded(record.client, mark, record.invoices.get(slot), stood_ms)

    async def save(
        self, client_id: bytes, invoice: StoredInvoice, mark_until: int, most: Usage = MOST_USAGE
    ) -> Usage:
        """Put an invoice into its slot, or refuse it with nothing changed."""
        self._expire()
        record = self._records.get(client_id)
        if record is None:
            raise UnknownClient(client_id.hex())
        self._check(record, invoice, most)
        _, kept_until = record.marks.get(invoice.slot, (None, 0))
        # Bounded by our own clock: a wallet whose clock was ahead must not lock itself out.
        mark = SlotMark(tag=invoice.tag, created_at=min(invoice.created_at, invoice.stored_at))
        record.marks[invoice.slot] = (mark, max(mark_until, kept_until))
        now = int(self._now())
        if invoice.stored_at < invoice.expires_at <= now:
            # Good by the caller's clock: it is kept as long, counted from now.
            invoice = replace(invoice, expires_at=now + invoice.expires_at - invoice.stored_at)
        record.invoices[invoice.slot] = invoice
        record.changed[invoice.slot] = self._now()
        self._expire()
        return _usage(record)

    def _check(self, record: _Record, invoice: StoredInvoice, most: Usage) -> None:
        _check_served(record.client)
        quota = record.client.quota
        most = Usage(quota.slots or most.slots, quota.bytes or most.bytes)
        if invoice.slot >= most.slots:
            raise SlotOutOfRange(f"{invoice.slot} of {most.slots}")
        if invoice.slot in record.marks:
            mark, _ = record.marks[invoice.slot]
            if invoice.tag != mark.tag and invoice.tag.issued_at_ms <= mark.tag.issued_at_ms:
                raise StaleOffer(f"slot {invoice.slot}")
            if invoice.tag == mark.tag and invoice.created_at < mark.created_at:
                raise StaleInvoice(f"slot {invoice.slot}")
        others = sum(each.size for slot, each in record.invoices.items() if slot != invoice.slot)
        if others + invoice.size > most.bytes:
            raise QuotaExceeded(f"{others + invoice.size} of {most.bytes} bytes")

    async def add_client(self, client: Client) -> None:
        """Keep a new client."""
        self._expire()
        if any(record.client.name == client.name for record in self._records.values()):
            raise NameTaken(client.name)
        self._check_node(client.client_id, client.node_id)
        self._records[client.client_id] = _Record(client)

    async def list_clients(self) -> Sequence[tuple[Client, Usage]]:
        """All clients with their use, by name."""
        self._expire()
        records = sorted(self._records.values(), key=lambda record: record.client.name)
        return [(record.client, _usage(record)) for record in records]

    async def find_client(self, name_or_id: str) -> Client:
        """One client by name, or by the hex of its id."""
        self._expire()
        for record in self._records.values():
            if name_or_id == record.client.name:
                return record.client
        for client_id, record in self._records.items():
            if name_or_id.lower() == client_id.hex():
                return record.client
        raise NoSuchClient(name_or_id)

    async def invoices(self, client_id: bytes) -> Sequence[StoredInvoice]:
        """A client's stored invoices by slot."""
        self._expire()
        record = self._records.get(client_id)
        return [] if record is None else [record.invoices[slot] for slot in sorted(record.invoices)]

    async def terms(self) -> Mapping[bytes, Terms]:
        """The terms of every client that has limits of its own or is paused."""
        self._expire()
        clients = [record.client for record in self._records.values()]
        terms = {each.client_id: Terms(each.quota, each.state is ClientState.PAUSED) for each in clients}
        return {each: found for each, found in terms.items() if found != Terms(Quota(), paused=False)}

    async def update_quota(self, client_id: bytes, changes: Quota, reset: Collection[str] = ()) -> Client:
        """Change a client's own limits."""
        record = self._unrevoked(client_id)
        own = {**record.client.quota.own(), **changes.own()}
        quota = Quota(**{name: value for name, value in own.items() if name not in reset})  # type: ignore[arg-type]
        record.client = replace(record.client, quota=quota)
        return record.client

    async def pause_client(self, client_id: bytes, *, paused: bool) -> Client:
        """Serve a client no more for now, or again."""
        record = self._unrevoked(client_id)
        record.client = replace(record.client, state=ClientState.PAUSED if paused else ClientState.ACTIVE)
        return record.client

    def _unrevoked(self, client_id: bytes) -> _Record:
        record = self._record(client_id)
        if record.client.state is ClientState.REVOKED:
            raise ClientRevoked(record.client.name)
        return record

    async def rotate_client(self, client_id: bytes) -> Client:
        """Raise the generation of the client's request paths."""
        record = self._record(client_id)
        record.client = replace(record.client, generation=record.client.generation + 1)
        return record.client

    async def revoke_client(self, client_id: bytes) -> Client:
        """Mark the client revoked, drop its invoices and mail, free its node."""
        record = self._record(client_id)
        record.client = replace(record.client, state=ClientState.REVOKED)
        if record.revoked is None:
            record.revoked = self._now()
        record.invoices.clear()
        record.letters.clear()
        return record.client

    async def remove_client(self, client_id: bytes) -> None:
        """Forget the client and all that is its own."""
        self._record(client_id)
        del self._records[client_id]

    # --- nodes ----------------------------------------------------------------------------------

    async def bindings(self) -> Mapping[bytes, bytes]:
        """The client_id of each node that is bound to a client that is served."""
        self._expire()
        return self._bindings()

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Say which node a client is; None: not known (any more)."""
        record = self._record(client_id)
        client = record.client
        if client.state is ClientState.REVOKED:
            raise NoSuchClient(client.name)
        if by is BoundBy.LEARNT and client.node_id is not None:
            if client.node_id != node_id:
                raise BoundOtherwise(client.name)
            return client
        self._check_node(client_id, node_id)
        record.client = replace(client, node_id=node_id, bound_by=None if node_id is None else by)
        return record.client

    async def set_timestamps(self, client_id: bytes, form: TimestampForm | None) -> Client:
        """Choose how the client's notifications are dated."""
        record = self._record(client_id)
        record.client = replace(record.client, timestamps=form)
        return record.client

    def _bindings(self) -> dict[bytes, bytes]:
        clients = [record.client for record in self._records.values()]
        bound = [client for client in clients if client.state is not ClientState.REVOKED]
        return {each.node_id: each.client_id for each in bound if each.node_id is not None}

    def _check_node(self, client_id: bytes, node_id: bytes | None) -> None:
        holder = None if node_id is None else self._bindings().get(node_id)
        if holder is not None and holder != client_id:
            raise NodeTaken(f"the node is bound to client {self._records[holder].client.name}")

    # --- mail -----------------------------------------------------------------------------------

    async def keep(self, client_id: bytes, letter: Letter, limits: MailLimits, room: int) -> Kept:
        """Put a letter last in its queue, or refuse it with nothing changed."""
        self._expire()
        record = self._records.get(client_id)
        if record is None:
            raise UnknownClient(client_id.hex())
        _check_served(record.client)
        quota = record.client.quota
        limits = replace(
            limits,
            letters=quota.mailbox_letters or limits.letters,
            bytes=quota.mailbox_bytes or limits.bytes,
        )
        before = _mail_use(record).bytes
        left = {
            number: kept
            for number, (kept, _) in record.letters.items()
            if (kept.queue, kept.key) != (letter.queue, letter.key)
        }
        most_bytes = before + max(0, room)
        dropped = _dropped(left, letter, limits, most_bytes)
        record.letters = {number: record.letters[number] for number in left if number not in dropped}
        record.last_number += 1
        record.letters[record.last_number] = (letter, letter.kept_at_ms + limits.ttl * 1000)
        self._expire()
        return Kept(record.last_number, _mail_use(record), len(dropped))

    async def mail(self, client_id: bytes) -> Sequence[tuple[int, Letter]]:
        """All letters of a client with their numbers, in the order in which they were kept."""
        self._expire()
        record = self._records.get(client_id)
        return [] if record is None else [(number, letter) for number, (letter, _) in record.letters.items()]

    async def mail_list(self, client_id: bytes) -> Sequence[LetterNote]:
        """What waits for a client, in that order."""
        return [
            LetterNote(number, letter.queue, letter.sender, letter.size, letter.kept_at_ms)
            for number, letter in await self.mail(client_id)
        ]

    async def drop_mail(self, client_id: bytes, numbers: Sequence[int]) -> MailUse:
        """Forget letters that arrived."""
        self._expire()
        record = self._records.get(client_id)
        if record is None:
            return MailUse(0, 0, 0)
        for number in numbers:
            record.letters.pop(number, None)
        return _mail_use(record)

    async def mail_uses(self) -> Mapping[bytes, MailUse]:
        """What each client's mailbox holds."""
        self._expire()
        return {each: _mail_use(record) for each, record in self._records.items() if record.letters}

    # --------------------------------------------------------------------------------------------

    def _record(self, client_id: bytes) -> _Record:
        self._expire()
        if client_id not in self._records:
            raise NoSuchClient(client_id.hex())
        return self._records[client_id]

    def _expire(self) -> None:
        """Drop what has ended, as Redis does by itself."""
        if self.away:
            raise StoreUnavailable("the store is away")
        now = self._now()
        for record in self._records.values():
            ended = {s: each.expires_at for s, each in record.invoices.items() if each.expires_at <= now}
            record.changed |= ended
            record.invoices = {s: each for s, each in record.invoices.items() if s not in ended}
            record.marks = {s: (mark, until) for s, (mark, until) in record.marks.items() if until > now}
            record.letters = {n: (each, end) for n, (each, end) in record.letters.items() if end > now * 1000}


def _dropped(left: Mapping[int, Letter], letter: Letter, limits: MailLimits, most_bytes: int) -> set[int]:
    """The numbers of the letters that make room for `letter`. Raises MailboxFull."""
    queue = {number: each for number, each in left.items() if each.queue is letter.queue}
    others = sum(each.size for each in left.values()) - sum(each.size for each in queue.values())
    allowed = min(limits.bytes, most_bytes - others)
    dropped: set[int] = set()
    while True:
        there = [*(each for number, each in queue.items() if number not in dropped), letter]
        # Weighed by what there is too much of: many small letters must not push out a large one,
        # nor a few large ones many small.
        weights: Counter[bytes] = Counter()
        if sum(each.size for each in there) > allowed:
            for each in there:
                weights[each.sender] += each.size
        elif len(there) > limits.letters:
            weights.update(each.sender for each in there)
        else:
            return dropped
        # Of several that are equally heavy the new letter's own sender, else the one of the oldest letter.
        most = max(weights.values())
        heaviest = [each.sender for each in there if weights[each.sender] == most]
        victim = letter.sender if letter.sender in heaviest else heaviest[0]
        numbers = [n for n, each in queue.items() if each.sender == victim and n not in dropped]
        if not numbers:
            raise MailboxFull("nothing may be dropped for this letter")
        dropped.add(numbers[0])


def _check_served(client: Client) -> None:
    if client.state is ClientState.REVOKED:
        raise ClientRevoked(client.name)
    if client.state is ClientState.PAUSED:
        raise ClientPaused(client.name)


def _mail_use(record: _Record) -> MailUse:
    letters = [letter for letter, _ in record.letters.values()]
    return MailUse(
        letters=len(letters),
        bytes=sum(each.size for each in letters),
        newest_ms=max((each.kept_at_ms for each in letters), default=0),
    )


def _usage(record: _Record) -> Usage:
    return Usage(slots=len(record.invoices), bytes=sum(each.size for each in record.invoices.values()))
