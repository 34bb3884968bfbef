"""What the records look like in Redis: keys, and hashes to and from the core's model.

Per client, under one hash tag so that each script stays in one Cluster slot:

    sis:<node>:{<client>}                 hash: the client
    sis:<node>:{<client>}:slots           hash: slot number -> bytes:expires_at:mark_until
    sis:<node>:{<client>}:slot:<n>        hash: the invoice, gone at its expires_at
    sis:<node>:{<client>}:slot:<n>:mark   hash: what outlives it, gone at its mark_until

and for all clients of a node, in a Cluster slot of its own:

    sis:<node>:names                      hash: name -> client id (hex)

Ids are in hex, so that `redis-cli` shows keys that can be typed. The node's id in front
lets several LNDs share a Redis.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from sidecar.core.errors import StoreUnavailable
from sidecar.core.model import (
    Client,
    ClientState,
    Family,
    OfferTag,
    Quota,
    SlotMark,
    StoredInvoice,
    Usage,
)

Record = Mapping[bytes, bytes]
"""A hash as HGETALL gives it; empty when there is none."""

P = ParamSpec("P")
T = TypeVar("T")


def _readable(parse: Callable[P, T]) -> Callable[P, T]:
    """Let `parse` say of a record that we did not write that the store can't be used as it is."""

    @functools.wraps(parse)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return parse(*args, **kwargs)
        except (KeyError, ValueError) as error:
            raise StoreUnavailable(f"Redis holds a record that can't be read: {error}") from error

    return checked


class Keys:
    """The keys of one node's records."""

    def __init__(self, node_id: bytes) -> None:
        """`node_id`: the LND node's public key, 33 bytes."""
        self._prefix = f"sis:{node_id.hex()}:"
        self.names = self._prefix + "names"
        self.probe = self._prefix + "probe"

    def client(self, client_id: bytes) -> str:
        """The client's own record."""
        return f"{self._prefix}{{{client_id.hex()}}}"

    def index(self, client_id: bytes) -> str:
        """Which slots the client has used, and how much of each."""
        return self.client(client_id) + ":slots"

    def slot(self, client_id: bytes, slot: int) -> str:
        """A slot's invoice."""
        return f"{self.client(client_id)}:slot:{slot}"

    def mark(self, client_id: bytes, slot: int) -> str:
        """What a slot remembers after its invoice is gone."""
        return self.slot(client_id, slot) + ":mark"


def client_fields(client: Client) -> list[bytes | str | int]:
    """A client as a list of field, value, field, value, as HSET takes it."""
    return [
        *("name", client.name, "state", client.state.value, "generation", client.generation),
        *("slots", client.quota.slots, "bytes", client.quota.bytes, "ttl", client.quota.ttl),
        *("created_at", client.created_at),
    ]


@_readable
def to_client_id(text: bytes) -> bytes:
    """The client id that a name points to. Raises StoreUnavailable if we did not write it."""
    return bytes.fromhex(text.decode())


@_readable
def to_client(client_id: bytes, record: Record) -> Client:
    """The client of a record. Raises StoreUnavailable if we did not write it."""
    return Client(
        client_id=client_id,
        name=record[b"name"].decode(),
        state=ClientState(record[b"state"].decode()),
        generation=int(record[b"generation"]),
        quota=Quota(slots=int(record[b"slots"]), bytes=int(record[b"bytes"]), ttl=int(record[b"ttl"])),
        created_at=int(record[b"created_at"]),
    )


@_readable
def to_mark(record: Record) -> SlotMark:
    """The mark of a record. Raises StoreUnavailable if we did not write it."""
    return SlotMark(tag=_to_tag(record), created_at=int(record[b"created_at"]))


@_readable
def to_invoice(slot: int, record: Record) -> StoredInvoice:
    """The invoice of a record. Raises StoreUnavailable if we did not write it."""
    return StoredInvoice(
        slot=slot,
        tag=_to_tag(record),
        invoice=record[b"invoice"],
        forward_path=record[b"forward_path"],
        family=Family(record[b"family"].decode()),
        created_at=int(record[b"created_at"]),
        stored_at=int(record[b"stored_at"]),
        expires_at=int(record[b"expires_at"]),
    )


def _to_tag(record: Record) -> OfferTag:
    return OfferTag(issued_at_ms=int(record[b"issued_at_ms"]), nonce=record[b"nonce"])


@dataclass(frozen=True, slots=True)
class SlotIndex:
    """Which slots a client has used: slot -> (bytes, expires_at in seconds)."""

    slots: Mapping[int, tuple[int, int]]

    def live(self, now: int) -> list[int]:
        """The slots whose invoice is there at `now` (seconds, Redis's clock), in order."""
        return sorted(slot for slot, (_, expires_at) in self.slots.items() if expires_at > now)

    def usage(self, now: int) -> Usage:
        """What the client uses at `now` (seconds, Redis's clock)."""
        live = self.live(now)
        return Usage(slots=len(live), bytes=sum(self.slots[slot][0] for slot in live))


@_readable
def to_index(record: Record) -> SlotIndex:
    """The slot index of a record. Raises StoreUnavailable if we did not write it."""
    slots = {}
    for number, entry in record.items():
        size, expires_at, _mark_until = entry.split(b":")
        slots[int(number)] = (int(size), int(expires_at))
    return SlotIndex(slots)
