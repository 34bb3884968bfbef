"""What the records look like in Redis: keys, and hashes to and from the core's model.

Per client, under one hash tag so that each script stays in one Cluster slot:

    sis:<node>:{<client>}                 hash: the client, and of each slot that it has used
                                            number -> bytes:expires_at:mark_until:issued_at_ms:created:nonce
    sis:<node>:{<client>}:<n>             string: the slot's invoice, gone at its expires_at:
                                            saved_ms:created_at:stored_at:family:path bytes:deflated path
                                            and invoice; saved_ms by Redis's clock, the others by others'
    sis:<node>:{<client>}:mail            hash: number -> letter, gone when its last letter ends
    sis:<node>:{<client>}:mail:index      hash: number -> queue:sender:size:kept_at_ms:ends_ms:key

per wallet that registered webhooks, under a hash tag too:

    sis:<node>:{<wallet>}:webhooks        hash: app_name -> webhook
    sis:<node>:{<wallet>}:deliveries      list: the last deliveries, newest first

and for all clients of a node, each in a Cluster slot of its own:

    sis:<node>:names                      hash: name -> client id (hex)
    sis:<node>:nodes                      hash: wallet's node id (hex) -> client id (hex)
    sis:<node>:mail                       hash: client id (hex) -> letters:bytes:newest_ms:change
    sis:<node>:webhooks                   hash: wallet's node id (hex) -> unneeded since, or ''
    sis:<node>:lease                      hash: which sidecar leads (lua/lease.lua)

Ids are in hex, so that `redis-cli` shows keys that can be typed. <node> in front, the first 16 digits
of LND's node id, lets several LNDs share a Redis.

Most of what Redis needs beside the invoices themselves goes by keys and by hashes that it can't keep
packed: hence two keys, and no value of more than 64 bytes in the client's record (its node's
id is not in hex there).
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ParamSpec, TypeVar

from sidecar.core.errors import BadRecord
from sidecar.core.mailbox import Letter, LetterNote, MailUse, Queue
from sidecar.core.model import (
    MAX_RATE,
    BoundBy,
    Client,
    ClientState,
    Quota,
    Terms,
    TimestampForm,
)
from sidecar.core.webhooks import Delivery, Webhook, WebhookState

Record = Mapping[bytes, bytes]
"""A hash as HGETALL gives it; empty when there is none."""

NODE_DIGITS = 16
"""How much of LND's node id its keys begin with."""

NODE_ID_SIZE = 33
"""Bytes of a node id, and of a path_key."""

_MOST_DIGITS = 20
_U32 = 0xFFFF_FFFF

P = ParamSpec("P")
T = TypeVar("T")


def readable(parse: Callable[P, T]) -> Callable[P, T]:
    """Let `parse` raise BadRecord, and nothing else, for a record that we did not write."""

    @functools.wraps(parse)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return parse(*args, **kwargs)
        except (KeyError, ValueError, zlib.error) as error:
            raise BadRecord(f"Redis holds a record that can't be read: {error}") from error

    return checked


class Keys:
    """The keys of one node's records."""

    def __init__(self, node_id: bytes) -> None:
        """`node_id`: the LND node's public key, 33 bytes."""
        self.prefix = f"sis:{node_id.hex()[:NODE_DIGITS]}:"
        """What all of them begin with."""
        self.names = self.prefix + "names"
        self.nodes = self.prefix + "nodes"
        self.mail_uses = self.prefix + "mail"
        self.webhook_nodes = self.prefix + "webhooks"
        self.lease = self.prefix + "lease"
        self.probe = self.prefix + "probe"

    def client(self, client_id: bytes) -> str:
        """The client's own record, with what it has in its slots."""
        return f"{self.prefix}{{{client_id.hex()}}}"

    def slot(self, client_id: bytes, slot: int) -> str:
        """A slot's invoice."""
        return f"{self.client(client_id)}:{slot}"

    def mail(self, client_id: bytes) -> str:
        """The client's letters."""
        return self.client(client_id) + ":mail"

    def mail_index(self, client_id: bytes) -> str:
        """What must be known of the letters to choose among them."""
        return self.mail(client_id) + ":index"

    def webhooks(self, wallet: bytes) -> str:
        """The webhooks of the wallet with that node id."""
        return f"{self.prefix}{{{wallet.hex()}}}:webhooks"

    def deliveries(self, wallet: bytes) -> str:
        """What became of the notifications to that wallet's webhooks."""
        return f"{self.prefix}{{{wallet.hex()}}}:deliveries"


QUOTA_FIELDS = tuple(each.name for each in fields(Quota))
"""A client's own limits stand in its record under these names; what is not there is the server's."""

FENCE = b"fence"
"""The field of a client's record that tells which leader has changed it last, by the lease's fence."""

_QUOTA_FIELDS = tuple((name, name.encode()) for name in QUOTA_FIELDS)
_NO_QUOTA = Quota()


def quota_fields(quota: Quota) -> list[bytes | str | int]:
    """What is set of a quota, as field, value, field, value."""
    return [part for name, value in quota.own().items() for part in (name, repr(value))]


def _to_quota(record: Record) -> Quota:
    found: dict[str, Any] = {}
    for name, encoded in _QUOTA_FIELDS:
        if (text := record.get(encoded)) is not None:
            found[name] = _rate(text) if name == "requests_per_second" else whole(text, _U32)
    return Quota(**found) if found else _NO_QUOTA


def whole(text: bytes | str, most: int = 10**15) -> int:
    """A number as our scripts and we write them, `most` at most: beyond the default Lua is not exact.

    Raises ValueError.
    """
    # int() takes spaces, signs and underscores as well, and our scripts do not.
    if not text.isdigit() or len(text) > _MOST_DIGITS or (number := int(text)) > most:
        raise ValueError(f"{text[:_MOST_DIGITS]!r} where a number is due")
    return number


def _rate(text: bytes) -> float:
    rate = float(text)
    # Written so that it refuses what is no number, too.
    if not 0 < rate <= MAX_RATE:
        raise ValueError(f"a rate of {rate}")
    return rate


@readable
def to_terms(state: bytes, values: Sequence[bytes | None]) -> Terms:
    """The terms of a client by its state and QUOTA_FIELDS. Raises BadRecord if they are not ours."""
    pairs = zip(QUOTA_FIELDS, values, strict=True)
    quota = _to_quota({name.encode(): value for name, value in pairs if value is not None})
    return Terms(quota, paused=ClientState(state.decode()) is ClientState.PAUSED)


def client_fields(client: Client) -> list[bytes | str | int]:
    """A client as a list of field, value, field, value, as HSET takes it; nothing for a None."""
    record: list[bytes | str | int] = [
        *("name", client.name, "state", client.state.value, "generation", client.generation),
        *quota_fields(client.quota),
        *("created_at", client.created_at),
    ]
    if client.node_id is not None:
        record += ["node_id", client.node_id]
    if client.bound_by is not None:
        record += ["bound_by", client.bound_by.value]
    if client.timestamps is not None:
        record += ["timestamps", client.timestamps.value]
    return record


@readable
def to_client_id(text: bytes) -> bytes:
    """The client id that a name or node points to. Raises BadRecord if we did not write it."""
    return bytes.fromhex(text.decode())


@readable
def to_node_id(text: bytes) -> bytes:
    """A wallet's node id from its hex. Raises BadRecord if we did not write it."""
    return _checked_node_id(bytes.fromhex(text.decode()))


def _checked_node_id(node_id: bytes) -> bytes:
    if len(node_id) != NODE_ID_SIZE:
        raise ValueError(f"a node id of {len(node_id)} bytes")
    return node_id


@readable
def to_client(client_id: bytes, record: Record) -> Client:
    """The client of a record. Raises BadRecord if we did not write it."""
    node_id, bound_by = record.get(b"node_id"), record.get(b"bound_by")
    timestamps = record.get(b"timestamps")
    return Client(
        client_id=client_id,
        name=record[b"name"].decode(),
        state=ClientState(record[b"state"].decode()),
        generation=whole(record[b"generation"], _U32),
        quota=_to_quota(record),
        created_at=whole(record[b"created_at"]),
        node_id=None if node_id is None else _checked_node_id(node_id),
        bound_by=None if bound_by is None else BoundBy(bound_by.decode()),
        timestamps=None if timestamps is None else TimestampForm(timestamps.decode()),
    )


# --- mail -----------------------------------------------------------------------------------------


def packed_letter(letter: Letter) -> bytes:
    """What of a letter is not in the index."""
    return letter.to + letter.path_key + letter.onion


@dataclass(frozen=True, slots=True)
class LetterEntry:
    """What the index of a mailbox knows of one letter; `ends_ms` by Redis's clock."""

    number: int
    queue: Queue
    sender: bytes
    size: int
    kept_at_ms: int
    ends_ms: int
    key: bytes

    def note(self) -> LetterNote:
        """What the operator may see of it."""
        return LetterNote(self.number, self.queue, self.sender, self.size, self.kept_at_ms)


@readable
def to_letter_entries(record: Record) -> list[LetterEntry]:
    """The index of a mailbox, oldest letter first. Raises BadRecord if we did not write it."""
    entries = []
    for number, entry in record.items():
        queue, sender, size, kept_at_ms, ends_ms, key = entry.decode().split(":")
        entries.append(
            LetterEntry(
                number=whole(number),
                queue=Queue(queue),
                sender=bytes.fromhex(sender),
                size=whole(size),
                kept_at_ms=whole(kept_at_ms),
                ends_ms=whole(ends_ms),
                key=bytes.fromhex(key),
            )
        )
    return sorted(entries, key=lambda entry: entry.number)


@readable
def to_letter(entry: LetterEntry, packed: bytes) -> Letter:
    """A letter from both its parts. Raises BadRecord if they are not of one."""
    letter = Letter(
        queue=entry.queue,
        to=packed[:NODE_ID_SIZE],
        path_key=packed[NODE_ID_SIZE : 2 * NODE_ID_SIZE],
        onion=packed[2 * NODE_ID_SIZE :],
        sender=entry.sender,
        key=entry.key,
        kept_at_ms=entry.kept_at_ms,
    )
    if len(packed) < 2 * NODE_ID_SIZE or letter.size != entry.size:
        raise ValueError(f"letter {entry.number} has {len(packed)} bytes, and its entry counts {entry.size}")
    return letter


@readable
def to_mail_use(entry: bytes) -> MailUse:
    """What a mailbox holds. Raises BadRecord if we did not write it."""
    letters, size, newest_ms, change = map(whole, entry.split(b":"))
    return MailUse(letters=letters, bytes=size, newest_ms=newest_ms, change=change)


# --- webhooks -------------------------------------------------------------------------------------


@readable
def to_webhook(app_name: bytes, entry: bytes) -> Webhook:
    """A webhook of a node. Raises BadRecord if we did not write it."""
    announced, failures, paused_until, paused, registered_at, url = entry.decode().split(":", 5)
    return Webhook(
        app_name=app_name.decode(),
        url=url,
        registered_at=whole(registered_at),
        state=WebhookState(
            announced=bool(int(announced)),
            failures=whole(failures, _U32),
            paused_until=whole(paused_until),
            paused=bool(int(paused)),
        ),
    )


@readable
def to_unneeded_since(entry: bytes) -> int | None:
    """Since when nothing speaks for a node's webhooks. Raises BadRecord if we did not write it."""
    return whole(entry) if entry else None


def packed_delivery(delivery: Delivery) -> str:
    """A delivery as a line of text; the app's name, which may hold anything, stands last."""
    return ":".join(
        (
            *(str(delivery.at_ms), str(delivery.tries), delivery.outcome, delivery.method),
            delivery.app_name,
        )
    )


@readable
def to_delivery(packed: bytes) -> Delivery:
    """A delivery. Raises BadRecord if we did not write it."""
    at_ms, tries, outcome, method, app_name = packed.decode().split(":", 4)
    return Delivery(
        at_ms=whole(at_ms), app_name=app_name, method=method, outcome=outcome, tries=whole(tries, _U32)
    )


# --- replies in one ---------------------------------------------------------------------------------


@readable
def unpacked(reply: bytes) -> list[bytes | None]:
    """The values of a reply that comes in one: their sizes in a line of text (-1: none), then all of them.

    Raises BadRecord.
    """
    sizes, _, values = reply.partition(b"\n")
    found: list[bytes | None] = []
    start = 0
    for size in sizes.split():
        if size == b"-1":
            found.append(None)
        else:
            end = start + whole(size)
            found.append(values[start:end])
            start = end
    return found
