"""Onion packets for onion messages: build one, peel one layer (BOLT 4, "Packet Structure").

version (1 byte) ‖ ephemeral key (33) ‖ hop data (1,300 or 32,768) ‖ HMAC (32).
Each payload stands in the hop data as BigSize length ‖ payload ‖ HMAC.
"""

from collections.abc import Callable, Sequence
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
from sidecar.core.keys import KeyStream
from sidecar.core.wire import read_bigsize, write_bigsize

SMALL_HOP_DATA = 1_300
LARGE_HOP_DATA = 32_768
_HEADER = 34
_HMAC = 32
_OVERHEAD = _HEADER + _HMAC

SMALL_PACKET = SMALL_HOP_DATA + _OVERHEAD
LARGE_PACKET = LARGE_HOP_DATA + _OVERHEAD
_NO_HMAC = bytes(_HMAC)
_LONGEST_BIGSIZE = 9


@dataclass(frozen=True, slots=True)
class Forward:
    """A layer of an intermediate hop: what it may read, and what the next packet is made of."""

    payload: bytes
    ephemeral: bytes
    """This layer's key."""
    factor: bytes
    """The scalar between this layer's key and the next one's."""
    hop_data: bytes
    """The next packet's."""
    hmac: bytes
    """The next packet's."""

    @property
    def next_packet(self) -> bytes:
        """The packet for the next hop. Raises BadPoint."""
        ephemeral = keys.multiply_point(self.ephemeral, self.factor)
        return b"".join((b"\x00", ephemeral, self.hop_data, self.hmac))


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

    Raises BadOnionSize, BadOnionVersion, BadOnionHmac, BadOnion.
    """
    ephemeral = check_packet(packet)
    hop_data = packet[_HEADER:-_HMAC]
    # "MUST decrypt `onion_message_packet` using an empty `associated_data`"
    _check_hmac(hop_data, packet[-_HMAC:], shared_secret)
    xor = _stream(shared_secret).xor
    payload, next_hmac, end = _read_frame(hop_data, xor)
    if next_hmac == _NO_HMAC:
        return Final(payload)
    # What is taken out at the front is filled up behind with the stream itself.
    rest = xor(memoryview(hop_data)[end:]) + xor(bytes(end))
    return Forward(payload, ephemeral, keys.next_factor(ephemeral, shared_secret), rest, next_hmac)


def peel_last(layer: Forward, shared_secret: bytes) -> Final:
    """Open the layer behind `layer`, which must be the last, with no packet made for it in between.

    Raises BadOnionHmac, BadOnion.
    """
    _check_hmac(layer.hop_data, layer.hmac, shared_secret)
    payload, next_hmac, _ = _read_frame(layer.hop_data, _stream(shared_secret).xor)
    if next_hmac != _NO_HMAC:
        raise BadOnion("an onion message that goes on where it should end")
    return Final(payload)


def _check_hmac(hop_data: bytes, hmac: bytes, shared_secret: bytes) -> None:
    # "MUST use a constant time comparison of the computed HMAC and `hmac`"
    if not keys.equal(_hmac(shared_secret, hop_data), hmac):
        raise BadOnionHmac("the onion packet was not made for this key")


def _hmac(shared_secret: bytes, hop_data: bytes) -> bytes:
    return keys.hmac_sha256(keys.purpose_key(b"mu", shared_secret), hop_data)


def _stream(shared_secret: bytes) -> KeyStream:
    return KeyStream(keys.purpose_key(b"rho", shared_secret))


def _read_frame(hop_data: bytes, xor: Callable[[bytes | memoryview], bytes]) -> tuple[bytes, bytes, int]:
    """The payload, the next HMAC and where they end; no more than that is deciphered."""
    head = xor(hop_data[:_LONGEST_BIGSIZE])
    try:
        length, start = read_bigsize(head, 0)
    except BadBigSize as error:
        raise BadOnion(f"payload length: {error}") from None
    end = start + length + _HMAC
    if end > len(hop_data):
        raise BadOnion(f"a payload of {length} bytes runs out of the hop data")
    frame = head + xor(hop_data[_LONGEST_BIGSIZE:end])
    return frame[start:-_HMAC], frame[-_HMAC:], end


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
    streams = [_stream(shared) for shared in secrets]
    filler = _filler(streams, frames, size)
    head = frames[-1] + _NO_HMAC
    padding = _padding(session_key, size - len(head) - len(filler))
    hop_data = streams[-1].xor(head + padding) + filler
    hmac = _hmac(secrets[-1], hop_data)
    for index in range(len(nodes) - 2, -1, -1):
        kept = memoryview(hop_data)[: size - len(frames[index]) - _HMAC]
        streams[index].seek(0)
        hop_data = streams[index].xor(b"".join((frames[index], hmac, kept)))
        hmac = _hmac(secrets[index], hop_data)
    return b"".join((b"\x00", ephemeral, hop_data, hmac))


def _padding(session_key: bytes, size: int) -> bytes:
    """What stands behind the last hop's payload.

    "The `hop_payloads` … MUST be initialized with random bytes": a stream that only the sender can
    repeat, so that the last hop can't tell the route's length.
    """
    return keys.chacha20(keys.purpose_key(b"pad", session_key), bytes(size))


def _filler(streams: Sequence[KeyStream], frames: Sequence[bytes], size: int) -> bytes:
    """What the hops' shifting leaves at the end of the hop data (BOLT 4, "Filler Generation")."""
    filler = b""
    for stream, frame in zip(streams[:-1], frames[:-1], strict=True):
        # Of the hop's stream just what lies on the filler, and behind the hop data's end.
        stream.seek(size - len(filler))
        filler = stream.xor(filler + bytes(len(frame) + _HMAC))
    return filler
