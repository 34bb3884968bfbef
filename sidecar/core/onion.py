"""Onion packets for onion messages: build one, peel one layer (BOLT 4, "Packet Structure").

version (1 byte) ‖ ephemeral key (33) ‖ hop data (1,300 or 32,768) ‖ HMAC (32).
Each payload stands in the hop data as BigSize length ‖ payload ‖ HMAC.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.core import keys
from sidecar.core.errors import (
    BadBigSize,
    BadOnion,
    BadOnionHmac,
    BadOnionSize,
    BadOnionVersion,
    PayloadTooLarge,
)
from sidecar.core.wire import read_bigsize, write_bigsize

SMALL_HOP_DATA = 1_300
LARGE_HOP_DATA = 32_768
_HEADER = 34
_HMAC = 32
_OVERHEAD = _HEADER + _HMAC

SMALL_PACKET = SMALL_HOP_DATA + _OVERHEAD
LARGE_PACKET = LARGE_HOP_DATA + _OVERHEAD
_NO_HMAC = bytes(_HMAC)


@dataclass(frozen=True, slots=True)
class Forward:
    """A layer of an intermediate hop: what it may read, and the packet for the next."""

    payload: bytes
    next_packet: bytes


@dataclass(frozen=True, slots=True)
class Final:
    """The innermost layer."""

    payload: bytes


def check_packet(packet: bytes) -> bytes:
    """The packet's ephemeral key (33 bytes, not yet checked to be a point).

    Raises BadOnionSize, BadOnionVersion.
    """
    # "SHOULD set `onion_message_packet` `len` to 1366 or 32834": no one sends others.
    if len(packet) not in (SMALL_PACKET, LARGE_PACKET):
        raise BadOnionSize(
            f"an onion packet of {len(packet)} bytes; {SMALL_PACKET} or {LARGE_PACKET} are due"
        )
    if packet[0] != 0:
        raise BadOnionVersion(f"onion packet version {packet[0]}")
    return packet[1:_HEADER]


def peel(packet: bytes, shared_secret: bytes) -> Forward | Final:
    """Open one layer with the ECDH of its blinded key and its ephemeral key.

    Raises BadOnionSize, BadOnionVersion, BadOnionHmac, BadOnion, BadPoint.
    """
    ephemeral = check_packet(packet)
    hop_data, hmac = packet[_HEADER:-_HMAC], packet[-_HMAC:]
    # "MUST decrypt `onion_message_packet` using an empty `associated_data`", and
    # "MUST use a constant time comparison of the computed HMAC and `hmac`".
    if not keys.equal(keys.hmac_sha256(keys.hmac_sha256(b"mu", shared_secret), hop_data), hmac):
        raise BadOnionHmac("the onion packet was not made for this key")
    size = len(hop_data)
    plain = keys.chacha20(keys.hmac_sha256(b"rho", shared_secret), hop_data + bytes(size))
    try:
        length, start = read_bigsize(plain, 0)
    except BadBigSize as error:
        raise BadOnion(f"payload length: {error}") from None
    end = start + length
    if end + _HMAC > size:
        raise BadOnion(f"a payload of {length} bytes runs out of the hop data")
    payload, next_hmac = plain[start:end], plain[end : end + _HMAC]
    if next_hmac == _NO_HMAC:
        return Final(payload)
    shift = end + _HMAC
    next_ephemeral = keys.next_point(ephemeral, shared_secret)
    return Forward(payload, b"\x00" + next_ephemeral + plain[shift : shift + size] + next_hmac)


def build(session_key: bytes, hops: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A packet for `hops` of (blinded node id, payload), first to last.

    1,366 bytes if the payloads fit, else 32,834. `session_key` is a fresh secret
    of 32 bytes. Raises PayloadTooLarge, BadPoint.
    """
    frames = [write_bigsize(len(payload)) + payload for _, payload in hops]
    needed = sum(len(frame) + _HMAC for frame in frames)
    size = SMALL_HOP_DATA if needed <= SMALL_HOP_DATA else LARGE_HOP_DATA
    if needed > size:
        raise PayloadTooLarge(f"{needed} bytes of payloads do not fit in {size}")
    return _wrap(session_key, [node for node, _ in hops], frames, size)


def _wrap(session_key: bytes, nodes: Sequence[bytes], frames: Sequence[bytes], size: int) -> bytes:
    ephemeral, secrets = keys.shared_secrets(session_key, nodes)
    # "The `hop_payloads` … MUST be initialized with random bytes": a stream that
    # only the sender can repeat, so that the last hop can't tell the route's length.
    hop_data = keys.chacha20(keys.hmac_sha256(b"pad", session_key), bytes(size))
    filler = _filler(secrets, frames, size)
    hmac = _NO_HMAC
    for index in range(len(nodes) - 1, -1, -1):
        shared, frame = secrets[index], frames[index]
        hop_data = (frame + hmac + hop_data)[:size]
        hop_data = keys.chacha20(keys.hmac_sha256(b"rho", shared), hop_data)
        if index == len(nodes) - 1 and filler:
            hop_data = hop_data[: size - len(filler)] + filler
        hmac = keys.hmac_sha256(keys.hmac_sha256(b"mu", shared), hop_data)
    return b"\x00" + ephemeral + hop_data + hmac


def _filler(secrets: Sequence[bytes], frames: Sequence[bytes], size: int) -> bytes:
    """What the hops' shifting leaves at the end of the hop data (BOLT 4, "Filler Generation")."""
    filler = b""
    for shared, frame in zip(secrets[:-1], frames[:-1], strict=True):
        stream = keys.chacha20(keys.hmac_sha256(b"rho", shared), bytes(2 * size))
        start = size - len(filler)
        filler += bytes(len(frame) + _HMAC)
        mask = stream[start : start + len(filler)]
        filler = (int.from_bytes(filler, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(filler), "big")
    return filler
