"""ports.Store in memory, for tests that need no Redis: it keeps the same contract (store_contract.py)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sidecar.core.errors import (
    ClientRevoked,
    NameTaken,
    NoSuchClient,
    QuotaExceeded,
    SlotOutOfRange,
    StaleInvoice,
    StaleOffer,
    StoreUnavailable,
    UnknownClient,
)
from sidecar.core.model import Client, ClientState, Loaded, SlotMark, StoredInvoice, Usage


@dataclass
class _Record:
    client: Client
    invoices: dict[int, StoredInvoice] = field(default_factory=dict)
    marks: dict[int, tuple[SlotMark, int]] = field(default_factory=dict)


class MemoryStore:
    """Clients and invoices for as long as the process lives; `now` gives seconds since the epoch.

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
        return Loaded(client=record.client, mark=mark, invoice=record.invoices.get(slot))

    async def save(self, client_id: bytes, invoice: StoredInvoice, mark_until: int) -> Usage:
        """Put an invoice into its slot, or refuse it with nothing changed."""
        self._expire()
        record = self._records.get(client_id)
        if record is None:
            raise UnknownClient(client_id.hex())
        self._check(record, invoice)
        _, kept_until = record.marks.get(invoice.slot, (None, 0))
        # Bounded by our own clock: a wallet whose clock was ahead must not lock itself out.
        mark = SlotMark(tag=invoice.tag, created_at=min(invoice.created_at, invoice.stored_at))
        record.marks[invoice.slot] = (mark, max(mark_until, kept_until))
        record.invoices[invoice.slot] = invoice
        self._expire()
        return _usage(record)

    def _check(self, record: _Record, invoice: StoredInvoice) -> None:
        client = record.client
        if client.state is ClientState.REVOKED:
            raise ClientRevoked(client.name)
        if invoice.slot >= client.quota.slots:
            raise SlotOutOfRange(f"{invoice.slot} of {client.quota.slots}")
        if invoice.slot in record.marks:
            mark, _ = record.marks[invoice.slot]
            if invoice.tag != mark.tag and invoice.tag.issued_at_ms <= mark.tag.issued_at_ms:
                raise StaleOffer(f"slot {invoice.slot}")
            if invoice.tag == mark.tag and invoice.created_at < mark.created_at:
                raise StaleInvoice(f"slot {invoice.slot}")
        others = sum(each.size for slot, each in record.invoices.items() if slot != invoice.slot)
        if others + invoice.size > client.quota.bytes:
            raise QuotaExceeded(f"{others + invoice.size} of {client.quota.bytes} bytes")

    async def add_client(self, client: Client) -> None:
        """Keep a new client."""
        self._expire()
        if any(record.client.name == client.name for record in self._records.values()):
            raise NameTaken(client.name)
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

    async def rotate_client(self, client_id: bytes) -> Client:
        """Raise the generation of the client's request paths."""
        record = self._record(client_id)
        record.client = replace(record.client, generation=record.client.generation + 1)
        return record.client

    async def revoke_client(self, client_id: bytes) -> Client:
        """Mark the client revoked and drop its invoices."""
        record = self._record(client_id)
        record.client = replace(record.client, state=ClientState.REVOKED)
        record.invoices.clear()
        return record.client

    async def remove_client(self, client_id: bytes) -> None:
        """Forget the client and all that is its own."""
        self._record(client_id)
        del self._records[client_id]

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
            record.invoices = {s: each for s, each in record.invoices.items() if each.expires_at > now}
            record.marks = {s: (mark, until) for s, (mark, until) in record.marks.items() if until > now}


def _usage(record: _Record) -> Usage:
    return Usage(slots=len(record.invoices), bytes=sum(each.size for each in record.invoices.values()))
