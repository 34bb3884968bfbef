"""What Redis hands back: records that somebody else wrote, and answers that make no sense."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from sidecar.adapters import admin_records, admin_webhooks, redis_cluster
from sidecar.adapters.redis_cluster import ClusterMasters
from sidecar.adapters.redis_masters import OneMaster
from sidecar.adapters.redis_records import (
    QUOTA_FIELDS,
    client_fields,
    to_client,
    to_client_id,
    to_delivery,
    to_letter,
    to_letter_entries,
    to_mail_use,
    to_node_id,
    to_terms,
    to_unneeded_since,
    to_webhook,
    unpacked,
)
from sidecar.adapters.redis_slots import to_index, to_invoice, to_loaded, to_slot_entry
from sidecar.core.errors import BadRecord, StoreUnavailable
from sidecar.core.mailbox import MailUse
from sidecar.core.model import BoundBy, Client, ClientState, Quota, TimestampForm, Usage
from tests.fuzz.target import TOKEN, Pieces, Target, edited
from tests.harness.allowed import DEFAULTS

NODE = b"\x02" + bytes(range(32))
CLIENT_ID = b"0123456789"
CLIENT = Client(
    client_id=CLIENT_ID,
    name="alice",
    state=ClientState.ACTIVE,
    generation=1,
    quota=Quota(*[5] * len(QUOTA_FIELDS)),
    created_at=1_800_000_000,
    node_id=NODE,
    bound_by=BoundBy.LEARNT,
    timestamps=TimestampForm.Z,
)
ENTRY = b"5:1900000000:1900000000:1800000000000:1800000000:nonce!"
TOKENS = [
    b"",
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"9" * 400,
    b"9" * 15,
    b"1" * 5_000,
    b"\xff",
    b" 1",
    b"1_0",
    b"07",
    b":" * 9,
]
NOW = 1_850_000_000


def _changed(record: Mapping[bytes, bytes], pieces: Pieces) -> dict[bytes, bytes]:
    """A hash, changed as the fuzzer says; a field of its own is a number."""
    names = sorted(record)
    found = edited(dict(enumerate(record[name] for name in names)), pieces, TOKENS)
    return {names[i] if i < len(names) else str(i).encode(): value for i, value in found.items()}


def _client_record() -> dict[bytes, bytes]:
    fields = [each if isinstance(each, bytes) else str(each).encode() for each in client_fields(CLIENT)]
    return dict(zip(fields[::2], fields[1::2], strict=True)) | {b"0": ENTRY, b"7": ENTRY}


def _shown(client: Client, usage: Usage, use: MailUse | None = None) -> None:
    """Whatever is read can be told to the operator."""
    limits = DEFAULTS.client.under(client.quota)
    admin_records.client_message(client, usage, use, limits, {})


# --- a record at a time ---------------------------------------------------------------------------


def _client(pieces: Pieces) -> None:
    record = _changed(_client_record(), pieces)
    client, index = to_client(CLIENT_ID, record), to_index(record)
    _shown(client, index.usage(NOW))
    index.live(NOW)


def _terms(pieces: Pieces) -> None:
    terms = to_terms(pieces.some(), [pieces.some() or None for _ in QUOTA_FIELDS])
    DEFAULTS.client.under(terms.quota)


def _letters(pieces: Pieces) -> None:
    sender = NODE.hex().encode()
    entries = {b"7": b"messages:" + sender + b":105:1800000000000:1900000000000:6b"}
    entries[b"9"] = b"requests:" + sender + b":104:1800000000000:1900000000000:"
    for entry in to_letter_entries(_changed(entries, pieces)):
        admin_records.letter_message(entry.note())
        to_letter(entry, NODE + NODE + pieces.rest())


def _invoice(pieces: Pieces) -> None:
    entry = to_slot_entry(_changed({b"e": ENTRY}, pieces).get(b"e", b""))
    head, body = pieces.some(), pieces.rest()
    packed = head + (zlib.compress(body) if pieces else b"") if head[:1] == b"z" else head + body
    admin_records.slot_message(to_invoice(3, entry, packed))


def _good_invoice(pieces: Pieces) -> None:
    numbers = (b"1800000001000", b"1800000000", b"1800000001", b"ldk", b"2")
    parts = dict(enumerate((*numbers, zlib.compress(b"pathi")[:400])))
    packed = b":".join(edited(parts, pieces, TOKENS).values())
    admin_records.slot_message(to_invoice(3, to_slot_entry(ENTRY), packed))


def _loaded(pieces: Pieces) -> None:
    record = _changed(_client_record(), pieces)
    words = ("name", "state", "generation", "created_at", "node_id", "bound_by", "timestamps")
    names = (*words, *QUOTA_FIELDS, "revoked_ms")
    head = b"1800000001000:1800000000:1800000001:ldk:2:" + zlib.compress(b"pathi")
    values = [
        str(NOW * 1_000).encode(),
        record.get(b"0"),
        head,
        *(record.get(name.encode()) for name in names),
    ]
    sizes = b" ".join(b"-1" if value is None else str(len(value)).encode() for value in values)
    loaded = to_loaded(CLIENT_ID, 0, sizes + b"\n" + b"".join(value or b"" for value in values))
    if loaded.client is not None:
        _shown(loaded.client, Usage(0, 0))


def _raw_loaded(pieces: Pieces) -> None:
    data = pieces.rest()
    unpacked(data)
    to_loaded(CLIENT_ID, 0, data)


def _webhook(pieces: Pieces) -> None:
    name = pieces.some()
    record = _changed({b"w": b"1:0:0:0:1800000000:https://push.example.org/"}, pieces)
    admin_webhooks._webhook(to_webhook(name, record.get(b"w", b"")))


def _delivery(pieces: Pieces) -> None:
    record = _changed({b"d": b"1800000000000:1:ok:lsps5.webhook_registered:app"}, pieces)
    admin_webhooks._delivery(to_delivery(record.get(b"d", b"")))


def _use(pieces: Pieces) -> None:
    use = to_mail_use(_changed({b"u": b"1:71:1800000000000:1"}, pieces).get(b"u", b""))
    _shown(CLIENT, Usage(0, 0), use)


def _ids(pieces: Pieces) -> None:
    text = pieces.rest()
    to_unneeded_since(text)
    to_client_id(text)
    to_node_id(text)


READERS: tuple[Callable[[Pieces], None], ...] = (
    _client,
    _terms,
    _letters,
    _invoice,
    _good_invoice,
    _loaded,
    _raw_loaded,
    _webhook,
    _delivery,
    _use,
    _ids,
)


def read_records(data: bytes) -> None:
    """One kind of record, and what the operator is told of it."""
    pieces = Pieces(data)
    pieces.choice(READERS)(pieces)


def records_seeds() -> Iterator[bytes]:
    """Each kind: as it was written, and with one change of each sort."""
    for number in range(len(READERS)):
        yield bytes([number])
        for token in (3, 5, 6, 8, 12):
            yield bytes([number, 3, token, token])
        yield bytes([number, 2, 0, 0, 9, 1]) + b"x"
    for field in range(len(_client_record())):
        yield bytes([0, TOKEN, field, TOKENS.index(b"-1")])
    yield b"\x01" + b"\x00\x06active" + b"\x00\x013" * len(QUOTA_FIELDS)
    yield b"\x0a" + NODE.hex().encode()


# --- answers --------------------------------------------------------------------------------------


class _Fed(Connection):
    """A connection whose other end has said all that it will ever say."""

    def __init__(self, data: bytes) -> None:
        super().__init__(protocol=2, driver_info=None)
        self._reader = asyncio.StreamReader()
        self._reader.feed_data(data)
        self._reader.feed_eof()
        self._parser.on_connect(self)  # type: ignore[no-untyped-call]

    async def send_packed_command(self, command: object, check_health: bool = True) -> None:
        """Nobody listens."""

    async def disconnect(self, *_args: Any, **_kwargs: Any) -> None:
        """What came is not read any more."""
        self._parser.on_disconnect()  # type: ignore[no-untyped-call]


class _Pool:
    """Of connections, each of which is fed with the fuzzer's next bytes."""

    def __init__(self, said: Callable[[], bytes]) -> None:
        self._said = said

    async def get_connection(self) -> _Fed:
        """A new one."""
        return _Fed(self._said())

    async def release(self, connection: _Fed) -> None:
        """It is not used again."""


_REDIS = Redis()


def _master(said: Callable[[], bytes]) -> OneMaster:
    # Making a Redis takes ten times as long as all the rest.
    redis = SimpleNamespace(connection_pool=_Pool(said), parse_response=_REDIS.parse_response)
    return OneMaster(cast("Redis", redis))


COMMANDS = [("HGETALL", "{a}"), ("TIME",), ("WAITAOF", 1, 0, 100), ("GET", "{a}"), ("EVALSHA", "0", 1, "{b}")]


async def _send(data: bytes) -> None:
    pieces = Pieces(data)
    commands = [pieces.choice(COMMANDS) for _ in range(1 + pieces.number() % 3)]
    if pieces.number() % 2 == 0:
        await _master(pieces.rest).send(commands)
        return
    masters = ClusterMasters([("one", 1), ("two", 2)], lambda _host, _port: _master(pieces.some))
    await masters.send(commands)
    await masters.probe_keys("probe")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    # Between two tries nothing need be waited for.
    redis_cluster.PAUSE = 0
    return asyncio.new_event_loop()


def read_answers(data: bytes) -> None:
    """What a server, or the nodes of a Cluster, answer to a few commands."""
    _loop().run_until_complete(_send(data))


def _resp(*values: object) -> bytes:
    """Values as Redis writes them; a text that begins with `-` is an error."""
    found = b""
    for value in values:
        match value:
            case int():
                found += b":%d\r\n" % value
            case bytes():
                found += b"$%d\r\n%s\r\n" % (len(value), value)
            case str():
                found += value.encode() + b"\r\n"
            case list():
                found += b"*%d\r\n%s" % (len(value), _resp(*value))
    return found


def answers_seeds() -> Iterator[bytes]:
    """Good answers, redirections, and slots as a Cluster tells them."""
    yield b"\0\0\0" + _resp([b"name", b"alice"])
    yield b"\0\x02\x01\x02\0" + _resp([b"1", b"2"], [1, 0], [b"1"])
    for error in ("-ERR x", "-MOVED 3 two:2", "-MOVED 3", "-ASK 3 two:99999", "-LOADING x", "-CLUSTERDOWN x"):
        yield b"\0\0\0" + _resp(error)
        yield b"\0\0\x01" + _said(_resp([[0, 16_383, [b"one", 1, b"id"]]]), _resp(error), _resp(1), _resp(1))
    for odd in (
        [[0, 16_383]],
        [[0, 99_999, [b"", 1]]],
        [[5]],
        [[b"a", b"b", [1, 2]]],
        7,
        [[0, 1, [b"\xff", 1]]],
    ):
        yield b"\0\0\x01" + _said(_resp(odd), _resp(odd))


def _said(*each: bytes) -> bytes:
    """What `Pieces.some` takes apart again."""
    return b"".join(len(one).to_bytes(2, "big") + one for one in each)


def _targets() -> Iterable[Target]:
    yield Target("redis_records", "Redis's records", read_records, (BadRecord,), records_seeds)
    yield Target("redis_answers", "Redis's answers", read_answers, (StoreUnavailable,), answers_seeds)


TARGETS = tuple(_targets())
