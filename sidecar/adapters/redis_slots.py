"""What a client has in its slots, in Redis (redis_records.py says where), and out of it."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.adapters.redis_records import QUOTA_FIELDS, Record, readable, to_client, unpacked, whole
from sidecar.core.model import Family, Loaded, OfferTag, SlotMark, StoredInvoice, Usage
from sidecar.core.wire import MAX_U64

_LOADED = tuple(
    name.encode()
    for name in (
        *("name", "state", "generation", "created_at", "node_id", "bound_by", "timestamps"),
        *(*QUOTA_FIELDS, "revoked_ms"),
    )
)
"""What load.lua reads of a client, in its order."""

MOST_BYTES = 1 << 20
"""Bytes of an invoice with its path that are unpacked: far more than one message can bring."""

_ENTRY = re.compile(rb"(\d{1,15}):(\d{1,15}):(\d{1,15}):(\d{1,15}):(\d{1,15}):(.*)", re.DOTALL)
"""What the scripts take for an entry, in numbers that Lua has, too."""


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """What a client's record says of one slot; times in seconds, by Redis's clock.

    `size` and `expires_at` are the invoice's, 0 where it was dropped. Its mark stays until `mark_until`.
    """

    size: int
    expires_at: int
    mark_until: int
    mark: SlotMark


@dataclass(frozen=True, slots=True)
class SlotIndex:
    """The slots that a client has used."""

    slots: Mapping[int, SlotEntry]

    def live(self, now: int) -> list[int]:
        """The slots whose invoice is there at `now` (seconds, Redis's clock), in order."""
        return sorted(slot for slot, entry in self.slots.items() if entry.expires_at > now)

    def usage(self, now: int) -> Usage:
        """What the client uses at `now` (seconds, Redis's clock)."""
        live = self.live(now)
        return Usage(slots=len(live), bytes=sum(self.slots[slot].size for slot in live))


@readable
def to_index(record: Record) -> SlotIndex:
    """The slots in a client's record. Raises BadRecord if we did not write it."""
    slots = {}
    for name, entry in record.items():
        if name.isdigit():
            # The scripts would take `07` for another slot than `7`.
            if name[:1] == b"0" and name != b"0":
                raise ValueError(f"a slot {name.decode()}")
            slots[whole(name, 0xFFFF)] = _to_entry(entry)
    return SlotIndex(slots)


@readable
def to_slot_entry(entry: bytes) -> SlotEntry:
    """One of them. Raises BadRecord if we did not write it."""
    return _to_entry(entry)


def _to_entry(entry: bytes) -> SlotEntry:
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise ValueError("a slot's entry is not ours")
    *numbers, nonce = found.groups()
    size, expires_at, mark_until, issued_at_ms, created_at = map(int, numbers)
    tag = OfferTag(issued_at_ms=issued_at_ms, nonce=nonce)
    return SlotEntry(size, expires_at, mark_until, SlotMark(tag=tag, created_at=created_at))


def packed_invoice(invoice: StoredInvoice) -> bytes:
    """What of an invoice is not in its entry; save.lua puts in front when it was saved.

    Deflated: LND's node id stands several times in what a wallet leaves.
    """
    head = (invoice.created_at, invoice.stored_at, invoice.family.value, len(invoice.forward_path))
    body = zlib.compress(invoice.forward_path + invoice.invoice)
    return ":".join(map(str, head)).encode() + b":" + body


@readable
def to_invoice(slot: int, entry: SlotEntry, packed: bytes) -> StoredInvoice:
    """The invoice from both its parts. Raises BadRecord if they are not of one."""
    saved_ms, created_at, stored_at, family, path_size, deflated = packed.split(b":", 5)
    whole(saved_ms)
    if entry.size > MOST_BYTES:
        raise ValueError(f"the entry of slot {slot} counts {entry.size} bytes")
    inflate = zlib.decompressobj()
    # One byte more than there may be, and no more: what is in an import may claim to be anything.
    body, path_end = inflate.decompress(deflated, entry.size + 1), whole(path_size)
    if len(body) != entry.size or not inflate.eof or not 0 <= path_end <= entry.size:
        raise ValueError(f"slot {slot} has {len(body)} bytes or more, and its entry counts {entry.size}")
    return StoredInvoice(
        slot=slot,
        tag=entry.mark.tag,
        invoice=body[path_end:],
        forward_path=body[:path_end],
        family=Family(family.decode()),
        # As its wallet wrote it.
        created_at=whole(created_at, MAX_U64),
        stored_at=whole(stored_at),
        expires_at=entry.expires_at,
    )


@readable
def to_loaded(client_id: bytes, slot: int, reply: bytes) -> Loaded:
    """What load.lua answers. Raises BadRecord if we did not write what it has found."""
    now_ms, entry, packed, *values = unpacked(reply)
    record = {name: value for name, value in zip(_LOADED, values, strict=True) if value is not None}
    if not record:
        return Loaded(client=None, mark=None, invoice=None)
    found, at_ms = None if entry is None else to_slot_entry(entry), whole(now_ms or b"")
    return Loaded(
        client=to_client(client_id, record),
        mark=found.mark if found is not None and found.mark_until * 1_000 > at_ms else None,
        invoice=None if found is None or packed is None else to_invoice(slot, found, packed),
        stood_ms=max(0, at_ms - _changed_ms(record, found, packed)),
    )


def _changed_ms(record: Record, entry: SlotEntry | None, packed: bytes | None) -> int:
    """When a slot became what it is: its client was revoked, its invoice was saved, or went at its end."""
    if (revoked_ms := record.get(b"revoked_ms")) is not None:
        return whole(revoked_ms)
    if packed is not None:
        return whole(packed.partition(b":")[0])
    return 0 if entry is None else entry.expires_at * 1_000
