"""BigSize, truncated integers and TLV streams, as strict as BOLT 1 writes them.

Strict both ways: every accepted encoding is the only one of its value, so that
`encode_tlvs(decode_tlvs(data)) == data` for all data that is accepted.
"""

from collections.abc import Collection, Mapping

from sidecar.core.errors import BadBigSize, BadInteger, BadTlvStream

MAX_U64 = 0xFFFF_FFFF_FFFF_FFFF


def read_bigsize(data: bytes, position: int) -> tuple[int, int]:
    """The BigSize at `position` and the position behind it (BOLT 1, "BigSize").

    Raises BadBigSize when it is cut short or longer than it need be.
    """
    if position >= len(data):
        raise BadBigSize("BigSize: no bytes left")
    first = data[position]
    if first < 0xFD:
        return first, position + 1
    size = 2 << (first - 0xFD)
    end = position + 1 + size
    if end > len(data):
        raise BadBigSize(f"BigSize: {size} bytes wanted, {len(data) - position - 1} left")
    value = int.from_bytes(data[position + 1 : end], "big")
    if value < 0xFD or (size > 2 and value < 1 << (size * 4)):
        raise BadBigSize(f"BigSize: {value} is not minimally encoded")
    return value, end


def write_bigsize(value: int) -> bytes:
    """1, 3, 5 or 9 bytes. Raises ValueError outside 0 … 2^64-1."""
    if 0 <= value < 0xFD:
        return bytes([value])
    if 0 <= value <= 0xFFFF:
        return b"\xfd" + value.to_bytes(2, "big")
    if 0 <= value <= 0xFFFF_FFFF:
        return b"\xfe" + value.to_bytes(4, "big")
    if 0 <= value <= MAX_U64:
        return b"\xff" + value.to_bytes(8, "big")
    raise ValueError(f"BigSize: {value} does not fit in 64 bits")


def decode_tlvs(data: bytes) -> dict[int, bytes]:
    """A TLV stream as type → value, in the order of the stream (BOLT 1, "Type-Length-Value Format").

    Raises BadBigSize and BadTlvStream.
    """
    records: dict[int, bytes] = {}
    position, previous, size = 0, -1, len(data)
    while position < size:
        # Nearly all types and lengths are of one byte: a call for each would double the time.
        type_ = data[position]
        if type_ < 0xFD:
            position += 1
        else:
            type_, position = read_bigsize(data, position)
        # "if decoded types are not strictly-increasing (including situations when
        # two or more occurrences of the same type are met): MUST fail to parse"
        if type_ <= previous:
            raise BadTlvStream(f"TLV type {type_} after {previous}")
        if position < size and (length := data[position]) < 0xFD:
            position += 1
        else:
            length, position = read_bigsize(data, position)
        end = position + length
        if end > size:
            raise BadTlvStream(f"TLV type {type_}: {length} bytes wanted, {size - position} left")
        records[type_] = data[position:end]
        position, previous = end, type_
    return records


def encode_tlv(type_: int, value: bytes) -> bytes:
    """One record: BigSize type, BigSize length, value."""
    size = len(value)
    if type_ < 0xFD and size < 0xFD:
        return bytes((type_, size)) + value
    return write_bigsize(type_) + write_bigsize(size) + value


def encode_tlvs(records: Mapping[int, bytes]) -> bytes:
    """The records as a stream, in ascending order of type."""
    return b"".join([encode_tlv(type_, records[type_]) for type_ in sorted(records)])


def refuse_unknown_even(records: Mapping[int, bytes], known: Collection[int]) -> None:
    """Raise BadTlvStream for an even type that is not in `known` (BOLT 1: "it's OK to be odd")."""
    for type_ in records:
        if type_ % 2 == 0 and type_ not in known:
            raise BadTlvStream(f"unknown even TLV type {type_}")


def read_uint(value: bytes, size: int) -> int:
    """A big-endian integer of exactly `size` bytes. Raises BadInteger."""
    if len(value) != size:
        raise BadInteger(f"integer of {len(value)} bytes where {size} are due")
    return int.from_bytes(value, "big")


def read_tu64(value: bytes, size: int = 8) -> int:
    """A truncated integer of at most `size` bytes (BOLT 1: tu64, tu32, tu16). Raises BadInteger."""
    if len(value) > size:
        raise BadInteger(f"truncated integer of {len(value)} bytes, more than {size}")
    # "leading zeros MUST be omitted"
    if value[:1] == b"\x00":
        raise BadInteger("truncated integer with a leading zero")
    return int.from_bytes(value, "big")


def write_tu64(value: int) -> bytes:
    """0 to 8 bytes without leading zeros. Raises OverflowError over 64 bits."""
    if value > MAX_U64:
        raise OverflowError(f"{value} does not fit in 64 bits")
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
