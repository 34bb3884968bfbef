"""Many clients in a Redis: what the sidecar's scripts would have written, in a fraction of their time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.adapters.redis_masters import Command
from sidecar.adapters.redis_records import Keys, client_fields
from sidecar.adapters.redis_slots import packed_invoice
from sidecar.core import paths
from sidecar.core.model import BoundBy, Client, ClientState, Family, OfferTag, Quota, StoredInvoice
from tests.bench import questions
from tests.core.ldk_recordings import FILES, conversation

AT_ONCE = 500
"""Clients that are written in one part."""


@dataclass(frozen=True, slots=True)
class Population:
    """Clients by their number, each with so many slots in use, each of these with the recorded invoice.

    All of a client is there that a wallet brings about: its record, its name, and the node that was learnt.
    """

    node_id: bytes
    """LND's."""
    now: int
    invoice: bytes
    forward_path: bytes
    slots: int = 1

    @classmethod
    def recorded(cls, node_id: bytes, now: int, slots: int = 1) -> Population:
        """With what LDK 0.2.7's wallet left. Skips as a test does where there are no recordings."""
        stored = questions.recorded(conversation(FILES[0]))
        return cls(node_id, now, stored.invoice, paths.encode_path(stored.forward_path), slots)

    @property
    def payload(self) -> int:
        """Bytes that a wallet left for one invoice: the static invoice, and the path to the wallet."""
        return len(self.invoice) + len(self.forward_path)

    @property
    def keys(self) -> Keys:
        """Where all of it stands."""
        return Keys(self.node_id)

    def client_id(self, number: int) -> bytes:
        """A client's id."""
        return hashlib.blake2b(b"client %d" % number, digest_size=10).digest()

    def wallet(self, number: int) -> bytes:
        """The client's node."""
        return b"\x02" + hashlib.blake2b(b"wallet %d" % number, digest_size=32).digest()

    def client(self, number: int) -> Client:
        """A client whose node was learnt, with no limits of its own."""
        return Client(
            client_id=self.client_id(number),
            name=f"client-{number}",
            state=ClientState.ACTIVE,
            generation=0,
            quota=Quota(),
            created_at=self.now - 86_400,
            node_id=self.wallet(number),
            bound_by=BoundBy.LEARNT,
        )

    def stored(self, slot: int) -> StoredInvoice:
        """What is in a slot: the same with every client."""
        return StoredInvoice(
            slot=slot,
            tag=OfferTag((self.now - 3_600) * 1_000 + slot, b"\x01nonce"),
            invoice=self.invoice,
            forward_path=self.forward_path,
            family=Family.LDK,
            created_at=self.now - 60,
            stored_at=self.now - 58,
            expires_at=self.now + 14 * 86_400,
        )

    @property
    def mark_until(self) -> int:
        """Until when a slot remembers which offer it had."""
        return self.now + 90 * 86_400


def commands(people: Population, numbers: range) -> Iterator[Command]:
    """What writes these clients."""
    keys = people.keys
    slots = [people.stored(slot) for slot in range(people.slots)]
    # As save.lua writes it.
    packed = [b"%d:" % (people.now * 1_000) + packed_invoice(stored) for stored in slots]
    entries: list[bytes | str | int] = []
    for stored in slots:
        numbers_of = (stored.size, stored.expires_at, people.mark_until, stored.tag.issued_at_ms)
        entry = ":".join(map(str, (*numbers_of, stored.created_at, ""))).encode() + stored.tag.nonce
        entries += [stored.slot, entry]
    for number in numbers:
        client = people.client(number)
        hex_id = client.client_id.hex()
        yield ("HSET", keys.client(client.client_id), *client_fields(client), *entries)
        yield ("HSET", keys.names, client.name, hex_id)
        yield ("HSET", keys.nodes, people.wallet(number).hex(), hex_id)
        for stored, value in zip(slots, packed, strict=True):
            yield ("SET", keys.slot(client.client_id, stored.slot), value, "EXAT", stored.expires_at)


async def fill(socket: Path, people: Population, numbers: range) -> None:
    """Write these clients, as fast as Redis takes them: it works on one part while the next is made."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    waiting = 0
    try:
        for start in range(0, len(numbers), AT_ONCE):
            part = [_encoded(each) for each in commands(people, numbers[start : start + AT_ONCE])]
            await _answers(reader, waiting)
            writer.write(b"".join(part))
            await writer.drain()
            waiting = len(part)
        await _answers(reader, waiting)
    finally:
        writer.close()


async def _answers(reader: asyncio.StreamReader, count: int) -> None:
    """Read so many, of one line each; none may be an error."""
    while count:
        data = await reader.read(1 << 16)
        assert data, "Redis hung up"
        assert b"-" not in data, data
        count -= data.count(b"\n")


def _encoded(command: Command) -> bytes:
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
