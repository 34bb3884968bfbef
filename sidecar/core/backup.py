"""The form of an export: lines of JSON, of which the last proves that all the others are there.

    {"format": "static-invoice-sidecar/export", "version": 1, "sidecar": …, "node_id": …, …}
    {"key": "{<client>}", "type": "hash", "items": [<field>, <value>, …]}
    {"key": "{<client>}:0", "type": "string", "items": [<value>], "expires_at_ms": …}
    …
    {"records": <lines between the first and this one>, "sha256": <of all lines before this one>}

`key` is a key of redis_records.py behind the node's prefix, and each item is base64, for it may be any
bytes. What is long goes on in the next line, under the same key. `created_at` of the header is
the only part that differs between two exports of one and the same store.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sidecar.core.errors import BadExport

FORMAT = "static-invoice-sidecar/export"

VERSION = 1
"""Of the form. One more where a server of an earlier version would misread it."""

LINE_BYTES = 256 * 1024
"""Bytes of items after which a record goes on in the next line; one item is never split."""

MAX_LINE = 4 * 1024 * 1024
"""Bytes of a line that is read: far more than any that is written."""

TYPES = {"hash": 2, "list": 1, "string": 1}
"""Redis's name of a type → items that belong together."""

AGAIN = "copy it again, or make another with `sidecar export`"


@dataclass(frozen=True, slots=True)
class Header:
    """Whose records follow, and who wrote them; `node_id` is LND's (33 bytes), `created_at` in seconds."""

    node_id: bytes
    network: str
    sidecar: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Record:
    """A key of Redis, or a part of it: `items` are fields and values in turn, a list's elements, or a string.

    `expires_at_ms`: milliseconds since the epoch; None for what stays.
    """

    key: str
    type: str
    items: tuple[bytes, ...]
    expires_at_ms: int | None = None


class ExportWriter:
    """Turns records into lines: `header`, then `record` for each, then `end`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._records = 0

    def header(self, header: Header) -> bytes:
        """The first line."""
        return self._hashed(
            {
                "format": FORMAT,
                "version": VERSION,
                "sidecar": header.sidecar,
                "node_id": header.node_id.hex(),
                "network": header.network,
                "created_at": header.created_at,
            }
        )

    def record(self, record: Record) -> Iterator[bytes]:
        """The lines of a record; none for one without items."""
        for items in _parts(record.items, TYPES[record.type]):
            fields: dict[str, object] = {
                "key": record.key,
                "type": record.type,
                "items": [base64.b64encode(item).decode() for item in items],
            }
            if record.expires_at_ms is not None:
                fields["expires_at_ms"] = record.expires_at_ms
            self._records += 1
            yield self._hashed(fields)

    def end(self) -> bytes:
        """The last line."""
        return _end(self._records, self._hash.hexdigest())

    def _hashed(self, fields: dict[str, object]) -> bytes:
        line = _line(fields)
        self._hash.update(line)
        return line


class ExportReader:
    """Reads lines back, one at a time; what it says holds only once `finish` has found no fault."""

    def __init__(self) -> None:
        self.header: Header | None = None
        self.records = 0
        self._hash = hashlib.sha256()
        self._ended = False

    def line(self, line: bytes) -> Record | None:
        """The record of a line, its newline included; None for the first and the last. Raises BadExport."""
        if self._ended:
            raise BadExport(f"the export goes on behind its last line: {AGAIN}")
        fields = self._object(line)
        if self.header is None:
            self.header = self._header(fields)
        elif "sha256" in fields:
            # Whoever changes the last line must not go unseen either: there is one way to write it.
            if line != _end(self.records, self._hash.hexdigest()):
                raise BadExport(f"the export is not as it was written: {AGAIN}")
            self._ended = True
            return None
        else:
            record = self._record(fields)
            self.records += 1
            self._hash.update(line)
            return record
        self._hash.update(line)
        return None

    def finish(self) -> None:
        """All lines were read. Raises BadExport when the last one was not among them."""
        if not self._ended:
            raise BadExport(f"the export is cut short: {AGAIN}")

    def _object(self, line: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            if self.header is None:
                raise BadExport("this is no export of a sidecar: make one with `sidecar export`")
            # A line that misses its end is most often the last one of a file that was cut.
            raise BadExport(f"record {self.records + 1} of the export is cut short or damaged: {AGAIN}")
        return fields

    def _header(self, fields: dict[str, Any]) -> Header:
        if fields.get("format") != FORMAT:
            raise BadExport("this is no export of a sidecar: make one with `sidecar export`")
        if fields.get("version") != VERSION:
            raise BadExport(
                f"the export is of version {fields.get('version')!r}, and this sidecar reads {VERSION}: "
                "import it with the sidecar that wrote it, or with a later one"
            )
        try:
            return Header(
                node_id=bytes.fromhex(_text(fields, "node_id")),
                network=_text(fields, "network"),
                sidecar=_text(fields, "sidecar"),
                created_at=_number(fields, "created_at"),
            )
        except ValueError as error:
            raise BadExport(f"the export's first line is damaged ({error}): {AGAIN}") from None

    def _record(self, fields: dict[str, Any]) -> Record:
        try:
            type_, items = _text(fields, "type"), fields.get("items")
            if type_ not in TYPES:
                raise ValueError("a type that is not known")
            if not isinstance(items, list) or not items or len(items) % TYPES[type_]:
                raise ValueError("no items, or too few")
            return Record(
                key=_text(fields, "key"),
                type=type_,
                items=tuple(_bytes(item) for item in items),
                expires_at_ms=_number(fields, "expires_at_ms") if "expires_at_ms" in fields else None,
            )
        except ValueError as error:
            number = self.records + 1
            raise BadExport(f"record {number} of the export is damaged ({error}): {AGAIN}") from None


def _parts(items: tuple[bytes, ...], together: int) -> Iterator[tuple[bytes, ...]]:
    """Items in parts of about LINE_BYTES; what belongs together stays so."""
    start, size = 0, 0
    for position in range(0, len(items), together):
        more = sum(len(item) for item in items[position : position + together])
        if position > start and size + more > LINE_BYTES:
            yield items[start:position]
            start, size = position, 0
        size += more
    if start < len(items):
        yield items[start:]


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _end(records: int, digest: str) -> bytes:
    return _line({"records": records, "sha256": digest})


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"no {name}")  # noqa: TRY004 - one kind for all that is wrong with a line
    return value


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    # bool is an int to Python; beyond 2^53 no other reader of JSON would agree.
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError(f"no {name}")
    return value


def _bytes(item: object) -> bytes:
    if not isinstance(item, str):
        raise ValueError("an item that is no text")  # noqa: TRY004 - as above
    return base64.b64decode(item, validate=True)
