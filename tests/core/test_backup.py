"""The form of an export: it reads back as it was written, and nothing of it can be changed unseen."""

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import backup
from sidecar.core.backup import ExportReader, ExportWriter, Header, Record
from sidecar.core.errors import BadExport

HEADER = Header(node_id=b"\x02" * 33, network="regtest", sidecar="1.2.3", created_at=1_800_000_000)
RECORDS = [
    Record("{00}", "hash", (b"name", b"alice", b"state", b"active")),
    Record("names", "hash", (b"alice", b"00")),
    Record("{00}:slot:0", "hash", (b"invoice", bytes(range(256))), expires_at_ms=1_800_000_000_000),
    Record("{01}:deliveries", "list", (b"b", b"a", b"b"), expires_at_ms=1),
]


def written(records: list[Record] = RECORDS, header: Header = HEADER) -> list[bytes]:
    """The lines of an export."""
    writer = ExportWriter()
    first = writer.header(header)
    return [first, *(line for record in records for line in writer.record(record)), writer.end()]


def read(lines: list[bytes]) -> tuple[Header | None, list[Record]]:
    """What an import finds in these lines. Raises BadExport."""
    reader = ExportReader()
    found = [reader.line(line) for line in lines]
    reader.finish()
    return reader.header, [record for record in found if record is not None]


def split(data: bytes) -> list[bytes]:
    """A file's lines."""
    return data.splitlines(keepends=True)


# --- there and back ---------------------------------------------------------------------------------


def test_an_export_reads_back_as_it_was_written() -> None:
    """Header, records, their order and ends, whatever bytes they hold."""
    assert read(written()) == (HEADER, RECORDS)


@given(
    st.lists(
        st.builds(
            Record,
            key=st.text(st.characters(exclude_categories=["Cs"])),
            type=st.just("hash"),
            items=st.lists(st.tuples(st.binary(), st.binary()), min_size=1).map(
                lambda pairs: tuple(each for pair in pairs for each in pair)
            ),
            expires_at_ms=st.none() | st.integers(0, (1 << 53) - 1),
        )
    )
)
def test_any_record_is_kept(records: list[Record]) -> None:
    """A line is one line, whatever stands in it."""
    lines = written(records)
    assert all(line.count(b"\n") == 1 for line in lines)
    assert split(b"".join(lines)) == lines
    assert read(lines) == (HEADER, records)


def test_two_exports_of_one_store_differ_in_their_header_alone() -> None:
    """Nothing else in them tells when they were made; the last line follows from the others."""
    later = Header(HEADER.node_id, HEADER.network, HEADER.sidecar, HEADER.created_at + 1)
    first, second = written(), written(header=later)
    assert first[1:-1] == second[1:-1]
    assert first[0] != second[0]


def test_what_is_long_goes_on_in_the_next_line() -> None:
    """Under the same key, with the same end; a field stays with its value, and lines have an end."""
    items = tuple(bytes([number]) * 50_000 for number in range(40))
    lines = written([Record("{00}:mail", "hash", items, 7)])
    _, parts = read(lines)
    assert len(parts) > 5
    assert {(part.key, part.expires_at_ms) for part in parts} == {("{00}:mail", 7)}
    assert all(len(part.items) % 2 == 0 for part in parts)
    assert tuple(item for part in parts for item in part.items) == items
    assert max(map(len, lines)) < 2 * backup.LINE_BYTES


def test_the_form_is_what_the_docs_say() -> None:
    """Another program can read and check it: JSON, base64, the SHA-256 of all before the last line."""
    lines = written(RECORDS[2:3])
    first, record, last = map(json.loads, lines)
    assert first == {
        "format": "static-invoice-sidecar/export",
        "version": 1,
        "sidecar": "1.2.3",
        "node_id": "02" * 33,
        "network": "regtest",
        "created_at": 1_800_000_000,
    }
    assert record == {
        "key": "{00}:slot:0",
        "type": "hash",
        "items": [base64.b64encode(item).decode() for item in RECORDS[2].items],
        "expires_at_ms": 1_800_000_000_000,
    }
    assert last == {"records": 1, "sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}


def test_a_record_without_items_is_no_line() -> None:
    """What is not there needs no word."""
    assert len(written([Record("{00}", "hash", ())])) == 2


# --- what is refused --------------------------------------------------------------------------------


def test_no_byte_can_be_changed_unseen() -> None:
    """Each byte of an export in turn, in three ways: each is refused."""
    whole = b"".join(written())
    for position in range(len(whole)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(whole)
            changed[position] ^= flip
            with pytest.raises(BadExport):
                read(split(bytes(changed)))


def test_no_byte_can_be_missing_unseen() -> None:
    """An export that is cut anywhere is refused, between two lines as well."""
    whole = b"".join(written())
    for end in range(len(whole)):
        with pytest.raises(BadExport):
            read(split(whole[:end]))


def test_no_line_can_be_swapped_doubled_or_left_out_unseen() -> None:
    """The last line counts the others in their order."""
    lines = written()
    for position in range(1, len(lines) - 1):
        swapped = [*lines]
        swapped[position], swapped[position - 1] = swapped[position - 1], swapped[position]
        doubled = [*lines[:position], lines[position], *lines[position:]]
        missing = [*lines[:position], *lines[position + 1 :]]
        for wrong in (swapped, doubled, missing):
            with pytest.raises(BadExport):
                read(wrong)


def test_nothing_may_follow_the_last_line() -> None:
    """Two exports in one file are none."""
    for more in (b"\n", b"x", written()[1]):
        with pytest.raises(BadExport, match="behind its last line"):
            read([*written(), more])


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"hello\n", b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"1\n"],
    ids=["empty", "newline", "text", "object", "list", "null", "no text", "deep", "number"],
)
def test_what_is_no_export_at_all_is_said_to_be_none(line: bytes) -> None:
    """The operator named a wrong file: the text does not speak of damage."""
    with pytest.raises(BadExport, match="this is no export of a sidecar"):
        read([line])


def test_an_export_of_a_later_version_is_refused_by_name() -> None:
    """It may say what this sidecar would misread."""
    lines = written()
    lines[0] = lines[0].replace(b'"version":1', b'"version":2')
    with pytest.raises(BadExport, match="of version 2, and this sidecar reads 1"):
        read(lines)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_id", 7),
        ("node_id", "0x"),
        ("network", None),
        ("sidecar", []),
        ("created_at", "now"),
        ("created_at", -1),
        ("created_at", True),
    ],
)
def test_a_header_of_wrong_words_is_refused(field: str, value: object) -> None:
    """Its fields are what they are called."""
    header = json.loads(written()[0]) | {field: value}
    with pytest.raises(BadExport, match="first line is damaged"):
        read([json.dumps(header).encode() + b"\n"])


@pytest.mark.parametrize(
    "change",
    [
        {"key": 1},
        {"key": None},
        {"type": "set"},
        {"type": []},
        {"items": "YQ=="},
        {"items": []},
        {"items": ["YQ=="]},
        {"items": ["YQ==", 1]},
        {"items": ["YQ==", "Y"]},
        {"items": ["YQ==", "Y Q="]},
        {"items": ["YQ==", "ä"]},
        {"expires_at_ms": None},
        {"expires_at_ms": -1},
        {"expires_at_ms": 1.5},
        {"expires_at_ms": 1 << 53},
    ],
    ids=str,
)
def test_a_record_of_wrong_words_is_refused(change: dict[str, object]) -> None:
    """Even where the hash is right: whoever writes an export by hand is told which record is wrong."""
    record = {"key": "{00}", "type": "hash", "items": ["YQ==", "Yg=="]} | change
    line = json.dumps(record).encode() + b"\n"
    with pytest.raises(BadExport, match=r"record 2 of the export is damaged"):
        read([*written()[:2], line])
