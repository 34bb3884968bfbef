"""BigSize, TLV streams and truncated integers: what BOLT 1 lets through, and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.errors import BadBigSize, BadInteger, BadTlvStream
from sidecar.core.wire import (
    MAX_U64,
    decode_tlvs,
    encode_tlv,
    encode_tlvs,
    read_bigsize,
    read_tu64,
    read_uint,
    refuse_unknown_even,
    write_bigsize,
    write_tu64,
)

# BOLT 1, "Appendix A: BigSize Test Vectors".
BIGSIZES = [
    (0, "00"),
    (252, "fc"),
    (253, "fd00fd"),
    (65_535, "fdffff"),
    (65_536, "fe00010000"),
    (4_294_967_295, "feffffffff"),
    (4_294_967_296, "ff0000000100000000"),
    (18_446_744_073_709_551_615, "ffffffffffffffffff"),
]
BAD_BIGSIZES = [
    ("fd00fc", "not minimal in 3 bytes"),
    ("fe0000ffff", "not minimal in 5 bytes"),
    ("ff00000000ffffffff", "not minimal in 9 bytes"),
    ("fd00", "3 bytes cut short"),
    ("feffff", "5 bytes cut short"),
    ("ffffffffff", "9 bytes cut short"),
    ("", "nothing"),
    ("fd", "3 bytes without a value"),
    ("fe", "5 bytes without a value"),
    ("ff", "9 bytes without a value"),
]


@pytest.mark.parametrize(("value", "encoded"), BIGSIZES)
def test_a_bigsize_is_read_and_written_as_bolt_1_says(value: int, encoded: str) -> None:
    """BOLT 1's table of BigSizes holds for reader and writer both, and the reader stops behind it."""
    data = bytes.fromhex(encoded)
    assert write_bigsize(value) == data
    assert read_bigsize(b"\xff" + data + b"\xaa", 1) == (value, 1 + len(data))


@pytest.mark.parametrize(("encoded", "why"), BAD_BIGSIZES)
def test_a_bigsize_that_is_short_or_not_minimal_is_refused(encoded: str, why: str) -> None:
    """BOLT 1's table of BigSizes that a decoder must fail on."""
    with pytest.raises(BadBigSize):
        read_bigsize(bytes.fromhex(encoded), 0)
    assert why


@pytest.mark.parametrize("value", [-1, MAX_U64 + 1])
def test_no_bigsize_is_written_outside_64_bits(value: int) -> None:
    """A BigSize holds an unsigned 64-bit integer (BOLT 1)."""
    with pytest.raises(ValueError, match="64 bits"):
        write_bigsize(value)


@given(st.binary(max_size=9))
def test_a_bigsize_that_is_accepted_has_one_encoding(data: bytes) -> None:
    """Whatever bytes come, they are the one encoding of their value or a BadBigSize (BOLT 1)."""
    try:
        value, end = read_bigsize(data, 0)
    except BadBigSize:
        return
    assert write_bigsize(value) == data[:end]


@given(st.integers(0, MAX_U64))
def test_a_bigsize_survives_the_way_there_and_back(value: int) -> None:
    """Every 64-bit value can be written, and reads back as itself."""
    data = write_bigsize(value)
    assert read_bigsize(data, 0) == (value, len(data))


# --- TLV streams ----------------------------------------------------------------------------------

STREAMS: list[tuple[str, dict[int, bytes]]] = [
    ("", {}),
    ("0000", {0: b""}),
    ("2100", {0x21: b""}),
    ("fd020100", {0x201: b""}),
    ("fd00fd00", {0xFD: b""}),
    ("ff020000000000000000", {0x0200_0000_0000_0000: b""}),
    ("0001aa0202bbcc", {0: b"\xaa", 2: b"\xbb\xcc"}),
    ("01fd00fd" + "ee" * 253, {1: b"\xee" * 253}),
]


@pytest.mark.parametrize(("encoded", "records"), STREAMS)
def test_a_tlv_stream_is_read_and_written_in_order(encoded: str, records: dict[int, bytes]) -> None:
    """Type, length, value, one record behind the other (BOLT 1); an empty value is a value."""
    data = bytes.fromhex(encoded)
    assert decode_tlvs(data) == records
    assert encode_tlvs(records) == data
    assert encode_tlvs(dict(reversed(records.items()))) == data


# From BOLT 1, "Appendix B: Type-Length-Value Test Vectors", and one of each kind more.
BAD_STREAMS = [
    ("fd", BadBigSize, "type cut short"),
    ("fd01", BadBigSize, "type cut short in the middle"),
    ("fd000100", BadBigSize, "type not minimal"),
    ("fd0101", BadBigSize, "no length"),
    ("0ffd", BadBigSize, "length cut short"),
    ("0ffd26", BadBigSize, "length cut short in the middle"),
    ("0ffd000100", BadBigSize, "length not minimal"),
    ("0ffd2602", BadTlvStream, "no value"),
    ("0ffd0201" + "00" * 512, BadTlvStream, "value one byte short"),
    ("00ffffffffffffffffff", BadTlvStream, "a length of 2^64-1"),
    ("0208000000000000022601012a", BadTlvStream, "types descend"),
    ("0208000000000000023102080000000000000451", BadTlvStream, "a type twice"),
    ("1f000f012a", BadTlvStream, "types descend, unknown ones"),
    ("1f001f012a", BadTlvStream, "a type twice, unknown ones"),
    ("ffffffffffffffffff000000", BadTlvStream, "types descend from the greatest"),
]


@pytest.mark.parametrize(("encoded", "error", "why"), BAD_STREAMS)
def test_a_tlv_stream_that_breaks_a_rule_is_refused(encoded: str, error: type[Exception], why: str) -> None:
    """Cut short, not minimal, not strictly increasing: "MUST fail to parse the tlv_stream" (BOLT 1)."""
    with pytest.raises(error):
        decode_tlvs(bytes.fromhex(encoded))
    assert why


@given(st.binary(max_size=64) | st.lists(st.binary(max_size=4), max_size=6).map(b"".join))
def test_a_tlv_stream_that_is_accepted_has_one_encoding(data: bytes) -> None:
    """encode(decode(bytes)) == bytes for all that is accepted, and all else is a declared error."""
    try:
        records = decode_tlvs(data)
    except (BadBigSize, BadTlvStream):
        return
    assert encode_tlvs(records) == data
    assert list(records) == sorted(records)


def read_slowly(data: bytes) -> dict[int, bytes]:
    """A TLV stream by BOLT 1's words, each type and length by `read_bigsize`."""
    records: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        type_, position = read_bigsize(data, position)
        length, position = read_bigsize(data, position)
        if position + length > len(data) or type_ <= max(records, default=-1):
            raise BadTlvStream("cut short, or out of order")
        records[type_] = data[position : position + length]
        position += length
    return records


@given(
    st.lists(
        st.sampled_from((b"\xfc", b"\xfd\x00\xfd", b"\xfd", b"\xfe", b"\xff", bytes(300)))
        | st.binary(max_size=3),
        max_size=8,
    ).map(b"".join)
)
def test_the_short_way_through_a_tlv_stream_leads_where_the_long_one_does(data: bytes) -> None:
    """Types and lengths of one byte are read without `read_bigsize`: what is taken or refused is the same."""
    found: dict[int, bytes] | None = None
    expected: dict[int, bytes] | None = None
    with contextlib.suppress(BadBigSize, BadTlvStream):
        expected = read_slowly(data)
    with contextlib.suppress(BadBigSize, BadTlvStream):
        found = decode_tlvs(data)
    assert found == expected


@given(st.dictionaries(st.integers(0, MAX_U64), st.binary(max_size=300), max_size=6))
def test_a_tlv_stream_survives_the_way_there_and_back(records: dict[int, bytes]) -> None:
    """Any records can be written, and read back as themselves."""
    assert decode_tlvs(encode_tlvs(records)) == records


@given(st.dictionaries(st.integers(0, MAX_U64), st.binary(max_size=8), min_size=1, max_size=4), st.data())
def test_a_tlv_stream_cut_within_a_record_is_refused(records: dict[int, bytes], data: st.DataObject) -> None:
    """Bytes may end only where a record ends (BOLT 1)."""
    ends, position = {0}, 0
    for type_ in sorted(records):
        position += len(encode_tlv(type_, records[type_]))
        ends.add(position)
    cut = data.draw(st.integers(0, position))
    encoded = encode_tlvs(records)[:cut]
    if cut in ends:
        decode_tlvs(encoded)
    else:
        with pytest.raises((BadBigSize, BadTlvStream)):
            decode_tlvs(encoded)


@pytest.mark.parametrize(
    ("types", "known", "refused"),
    [
        ([0, 2], {0, 2}, False),
        ([0, 2, 3, 65_537], {0, 2}, False),
        ([0, 4], {0, 2}, True),
        ([65_536], set(), True),
        ([1, 3], set(), False),
    ],
)
def test_an_unknown_type_may_be_odd_but_not_even(types: list[int], known: set[int], refused: bool) -> None:
    """BOLT 1: "if type is even: MUST fail to parse"; it's OK to be odd."""
    records = dict.fromkeys(types, b"")
    if refused:
        with pytest.raises(BadTlvStream):
            refuse_unknown_even(records, known)
    else:
        refuse_unknown_even(records, known)


# --- integers -------------------------------------------------------------------------------------

TU64S = [(0, ""), (1, "01"), (255, "ff"), (256, "0100"), (65_536, "010000"), (MAX_U64, "ff" * 8)]


@pytest.mark.parametrize(("value", "encoded"), TU64S)
def test_a_truncated_integer_has_no_leading_zeros(value: int, encoded: str) -> None:
    """BOLT 1: leading zeros are omitted, and 0 is no byte at all."""
    assert read_tu64(bytes.fromhex(encoded)) == value
    assert write_tu64(value) == bytes.fromhex(encoded)


@pytest.mark.parametrize(
    ("encoded", "size"), [("00", 8), ("0001", 8), ("00" * 8, 8), ("01" * 9, 8), ("01" * 5, 4), ("01" * 3, 2)]
)
def test_a_truncated_integer_that_is_padded_or_too_long_is_refused(encoded: str, size: int) -> None:
    """BOLT 1, "Appendix B": a tu64 that is not minimal, or longer than its type, fails."""
    with pytest.raises(BadInteger):
        read_tu64(bytes.fromhex(encoded), size)


@given(st.binary(max_size=10), st.sampled_from([2, 4, 8]))
def test_a_truncated_integer_that_is_accepted_has_one_encoding(data: bytes, size: int) -> None:
    """Any bytes are the one encoding of a value that fits, or a BadInteger."""
    try:
        value = read_tu64(data, size)
    except BadInteger:
        return
    assert value < 1 << (size * 8)
    assert write_tu64(value) == data


@pytest.mark.parametrize("value", [-1, MAX_U64 + 1])
def test_no_truncated_integer_is_written_outside_64_bits(value: int) -> None:
    """A tu64 holds an unsigned 64-bit integer (BOLT 1)."""
    with pytest.raises(OverflowError):
        write_tu64(value)


def test_an_integer_has_exactly_the_size_of_its_type() -> None:
    """A u16 is two bytes, big-endian: no fewer, no more (BOLT 1, "Fundamental Types")."""
    assert read_uint(b"\x01\x02", 2) == 0x0102
    for wrong in (b"", b"\x01", b"\x00\x01\x02"):
        with pytest.raises(BadInteger):
            read_uint(wrong, 2)
