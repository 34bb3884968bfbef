"""Onion packets: BOLT 4's vectors byte for byte, and every way in which a packet can be wrong."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import keys, messages, onion, paths
from sidecar.core.errors import (
    BadOnion,
    BadOnionHmac,
    BadOnionSize,
    BadOnionVersion,
    BadPoint,
    Malformed,
    PayloadTooLarge,
)
from sidecar.core.wire import decode_tlvs, encode_tlvs, read_bigsize
from tests.core.making import node, open_layer, secret
from tests.vectors import load

HEADER, HMAC = 34, 32


def unhex(text: str) -> bytes:
    """Bytes of a vector."""
    return bytes.fromhex(text)


def peel_with(node_secret: bytes, packet: bytes) -> onion.Forward | onion.Final:
    """One layer at a node whose key is not blinded."""
    return onion.peel(packet, keys.ecdh(node_secret, onion.check_packet(packet)))


# --- BOLT 4's vectors -----------------------------------------------------------------------------


@pytest.fixture
def message_vector() -> Any:
    """BOLT 4's onion message: Alice → Bob → Carol → Dave, the first hop joined by override."""
    return load("bolt04", "blinded-onion-message-onion-test.json")


def test_the_onion_message_of_bolt_4_is_built_to_the_byte(message_vector: Any) -> None:
    """BOLT 4's blinded-onion-message-onion-test.json: the same keys and payloads make the same packet."""
    hops = [
        (unhex(hop["blinded_node_id"]), messages.hop_payload(unhex(hop["encrypted_recipient_data"])))
        for hop in message_vector["route"]["hops"]
    ]
    last = message_vector["route"]["hops"][-1]
    final = encode_tlvs({1: b"hello", 4: unhex(last["encrypted_recipient_data"])})
    hops[-1] = hops[-1][0], final
    packet = onion.build(unhex(message_vector["generate"]["session_key"]), hops)
    assert packet == unhex(message_vector["onionmessage"]["onion_message_packet"])


def test_each_hop_of_bolt_4s_onion_message_opens_its_layer(message_vector: Any) -> None:
    """Each of the vector's nodes peels to the very message that the next one is sent, up to "hello"."""
    hops = message_vector["decrypt"]["hops"]
    assert len(hops) == 4
    for index, hop in enumerate(hops):
        # type 513 ‖ path_key ‖ u16 length ‖ packet
        message = unhex(hop["onion_message"])
        path_key, packet = message[2:35], message[37:]
        layer, shared = open_layer(unhex(hop["privkey"]), path_key, packet)
        if index + 1 == len(hops):
            assert isinstance(layer, onion.Final)
            assert decode_tlvs(layer.payload)[1] == b"hello"
            final = messages.read_final_payload(layer.payload)
            data = paths.decrypt_recipient_data(shared, final.encrypted_recipient_data)
            assert data.path_id == unhex(message_vector["generate"]["hops"][-1]["tlvs"]["path_id"])
            continue
        assert isinstance(layer, onion.Forward)
        data = paths.decrypt_recipient_data(shared, messages.read_forward_payload(layer.payload))
        following = paths.follow(path_key, shared, data)
        assert following.node_id == unhex(hop["next_node_id"])
        length = len(layer.next_packet).to_bytes(2, "big")
        onward = b"\x02\x01" + following.path_key + length + layer.next_packet
        assert onward == unhex(hops[index + 1]["onion_message"])


@pytest.fixture
def payment_vector() -> Any:
    """BOLT 4's payment onion of five hops, the third payload 275 bytes long."""
    return load("bolt04", "onion-test.json")


def hops_of(vector: Any) -> list[tuple[bytes, bytes]]:
    """Its hops; each payload stands there with its length, which `onion.build` writes itself."""
    hops = []
    for hop in vector["generate"]["hops"]:
        framed = unhex(hop["payload"])
        length, start = read_bigsize(framed, 0)
        assert length == len(framed) - start
        hops.append((unhex(hop["pubkey"]), framed[start:]))
    return hops


def test_a_packet_with_associated_data_is_refused(payment_vector: Any) -> None:
    """BOLT 4: onion messages are decrypted "using an empty associated_data"; a payment onion has some."""
    with pytest.raises(BadOnionHmac):
        peel_with(unhex(payment_vector["decode"][0]), unhex(payment_vector["onion"]))


def test_the_payment_onion_of_bolt_4_is_built_and_peeled_to_the_byte(
    payment_vector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BOLT 4's onion-test.json, whose hop payloads vary in length.

    It is a payment's: its HMACs cover 32 bytes of associated_data, which our packets never have. They
    are put behind the hop data here, where BOLT 4 has them; all the rest is our own code.
    """
    plain_hmac, extra = keys.hmac_sha256, unhex(payment_vector["generate"]["associated_data"])

    def with_associated_data(key: bytes, data: bytes) -> bytes:
        return plain_hmac(key, data + extra if len(data) == onion.SMALL_HOP_DATA else data)

    monkeypatch.setattr(keys, "hmac_sha256", with_associated_data)
    hops, packet = hops_of(payment_vector), unhex(payment_vector["onion"])
    assert onion.build(unhex(payment_vector["generate"]["session_key"]), hops) == packet
    for node_secret, (_, payload) in zip(payment_vector["decode"], hops, strict=True):
        layer = peel_with(unhex(node_secret), packet)
        assert layer.payload == payload
        packet = layer.next_packet if isinstance(layer, onion.Forward) else b""
    assert packet == b""


# --- sizes ----------------------------------------------------------------------------------------

# One hop takes 3 bytes of length and 32 of HMAC besides its payload.
LARGEST_SMALL, LARGEST = onion.SMALL_HOP_DATA - 35, onion.LARGE_HOP_DATA - 35


@pytest.mark.parametrize(
    ("payload", "packet"),
    [(0, 1_366), (LARGEST_SMALL, 1_366), (LARGEST_SMALL + 1, 32_834), (LARGEST, 32_834)],
)
def test_a_packet_is_1366_bytes_if_the_payloads_fit_else_32834(payload: int, packet: int) -> None:
    """BOLT 4: "SHOULD set `onion_message_packet` `len` to 1366 or 32834"; both open."""
    made = onion.build(secret(5), [(node(1), bytes(payload))])
    assert len(made) == packet
    assert peel_with(secret(1), made) == onion.Final(bytes(payload))


def test_payloads_that_fit_in_no_packet_are_refused() -> None:
    """More than 32,768 bytes of hop data is PayloadTooLarge."""
    with pytest.raises(PayloadTooLarge):
        onion.build(secret(5), [(node(1), bytes(LARGEST + 1))])


def test_hop_data_that_is_full_leaves_no_hole() -> None:
    """A route of many hops that fills the small packet to the last byte opens at each of them."""
    # 20 hops of 65 bytes: 1 of length, 32 of payload, 32 of HMAC.
    hops = [(node(number), bytes([number]) * 32) for number in range(1, 21)]
    packet = onion.build(secret(200), hops)
    assert len(packet) == onion.SMALL_PACKET
    for number in range(1, 20):
        layer = peel_with(secret(number), packet)
        assert isinstance(layer, onion.Forward)
        assert layer.payload == bytes([number]) * 32
        packet = layer.next_packet
        assert len(packet) == onion.SMALL_PACKET
    assert peel_with(secret(20), packet) == onion.Final(bytes([20]) * 32)


@given(
    st.lists(st.tuples(st.integers(1, 8), st.binary(max_size=400)), min_size=1, max_size=8),
    st.binary(min_size=32, max_size=32).filter(lambda key: 0 < int.from_bytes(key, "big") < keys.CURVE_ORDER),
)
@settings(deadline=None, max_examples=40)
def test_what_is_built_opens_hop_by_hop(route: list[tuple[int, bytes]], session_key: bytes) -> None:
    """Along any route each hop finds its own payload, and a packet as large as the one it got."""
    packet = onion.build(session_key, [(node(number), payload) for number, payload in route])
    size = len(packet)
    for index, (number, payload) in enumerate(route):
        layer = peel_with(secret(number), packet)
        assert layer.payload == payload
        assert isinstance(layer, onion.Final) == (index + 1 == len(route))
        packet = layer.next_packet if isinstance(layer, onion.Forward) else packet
        assert len(packet) == size


def test_a_bad_node_id_makes_no_packet() -> None:
    """33 bytes that are no point can't be encrypted to (BadPoint)."""
    with pytest.raises(BadPoint):
        onion.build(secret(5), [(b"\x02" + bytes(32), b"")])


def test_the_padding_is_random_to_all_but_the_sender() -> None:
    """BOLT 4: "MUST be initialized with random bytes": no last hop reads zeros, nor the same ones twice."""
    seen: set[bytes] = set()
    for session in (5, 6):
        packet = onion.build(secret(session), [(node(1), b"payload")])
        hop_data = packet[HEADER:-HMAC]
        shared = keys.ecdh(secret(1), onion.check_packet(packet))
        plain = keys.chacha20(keys.hmac_sha256(b"rho", shared), hop_data)
        assert plain[: 8 + HMAC] == b"\x07payload" + bytes(HMAC)
        for padding in (plain[8 + HMAC :], hop_data[8 + HMAC :]):
            pieces = {padding[at : at + 16] for at in range(0, len(padding) - 16, 16)}
            assert len(pieces) == (len(padding) - 1) // 16
            assert not seen & pieces
            seen |= pieces


# --- the last layer behind another ----------------------------------------------------------------


def last_behind(*, hops: int) -> tuple[onion.Forward, bytes]:
    """The first layer of a packet over so many nodes, and the second one's shared secret."""
    packet = onion.build(secret(5), [(node(number), bytes([number])) for number in range(1, hops + 1)])
    layer = peel_with(secret(1), packet)
    assert isinstance(layer, onion.Forward)
    return layer, keys.ecdh(secret(2), onion.check_packet(layer.next_packet))


def test_a_last_layer_opens_with_no_packet_in_between() -> None:
    """As `peel` opens the next packet; the scalar between the two keys may go to the secret instead."""
    layer, shared = last_behind(hops=2)
    assert onion.peel_last(layer, shared) == onion.peel(layer.next_packet, shared) == onion.Final(b"\x02")
    assert keys.ecdh(keys.multiply_secret(secret(2), layer.factor), layer.ephemeral) == shared


@given(st.binary(max_size=1_400), st.binary(max_size=300), st.binary(max_size=40), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_last_layer_is_opened_or_refused_as_the_next_packet_is(
    first: bytes, second: bytes, noise: bytes, end: bool
) -> None:
    """Whatever its plain text says: a payload of any length, or noise where that should stand."""
    packet = onion.build(secret(5), [(node(1), first), (node(2), second)])
    layer = peel_with(secret(1), packet)
    assert isinstance(layer, onion.Forward)
    shared = keys.ecdh(secret(2), onion.check_packet(layer.next_packet))
    assert onion.peel_last(layer, shared) == onion.peel(layer.next_packet, shared) == onion.Final(second)
    forged_data = keys.chacha20(
        keys.hmac_sha256(b"rho", shared),
        (noise + bytes(HMAC if end else 0)).ljust(len(layer.hop_data), b"\x07"),
    )
    hmac = keys.hmac_sha256(keys.hmac_sha256(b"mu", shared), forged_data)
    layer = replace(layer, hop_data=forged_data, hmac=hmac)
    whole: onion.Forward | onion.Final | None = None
    last: onion.Final | None = None
    with contextlib.suppress(BadOnion):
        whole = onion.peel(layer.next_packet, shared)
    with contextlib.suppress(BadOnion):
        last = onion.peel_last(layer, shared)
    assert last == (whole if isinstance(whole, onion.Final) else None)


def test_a_layer_that_should_be_the_last_and_is_not_is_refused() -> None:
    """A packet that goes on behind it is BadOnion."""
    layer, shared = last_behind(hops=3)
    assert isinstance(onion.peel(layer.next_packet, shared), onion.Forward)
    with pytest.raises(BadOnion):
        onion.peel_last(layer, shared)


def test_the_last_layers_hmac_covers_all_of_it() -> None:
    """Each byte of the hop data and of the HMAC, and the key."""
    layer, shared = last_behind(hops=2)
    for position in range(0, len(layer.hop_data), 97):
        altered = bytearray(layer.hop_data)
        altered[position] ^= 1
        with pytest.raises(BadOnionHmac):
            onion.peel_last(replace(layer, hop_data=bytes(altered)), shared)
    with pytest.raises(BadOnionHmac):
        onion.peel_last(replace(layer, hmac=bytes(32)), shared)
    with pytest.raises(BadOnionHmac):
        onion.peel_last(layer, secret(9))


# --- refusals -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> bytes:
    """A packet that goes over node 1 to node 2."""
    return onion.build(secret(5), [(node(1), b"first"), (node(2), b"second")])


@pytest.mark.parametrize("size", [0, 1, 66, 1_300, 1_365, 1_367, 32_768, 32_833, 32_835, 65_535])
def test_a_packet_of_another_size_is_refused(size: int) -> None:
    """Only 1,366 and 32,834 bytes are sent by anyone (BOLT 4)."""
    with pytest.raises(BadOnionSize):
        onion.check_packet(bytes(size))


@pytest.mark.parametrize("version", [1, 2, 255])
def test_a_packet_of_another_version_is_refused(good: bytes, version: int) -> None:
    """BOLT 4: "if the version is not 0: MUST ignore the message"."""
    with pytest.raises(BadOnionVersion):
        onion.check_packet(bytes([version]) + good[1:])


def test_every_altered_byte_is_noticed(good: bytes) -> None:
    """BOLT 4: version, ephemeral key, hop data and HMAC are all covered, each byte of them."""
    for position in range(len(good)):
        altered = bytearray(good)
        altered[position] ^= 1
        with pytest.raises((BadOnionHmac, BadOnionVersion, BadPoint)):
            peel_with(secret(1), bytes(altered))


def test_a_packet_for_another_key_is_refused(good: bytes) -> None:
    """A layer opens for its own hop alone (BOLT 4)."""
    with pytest.raises(BadOnionHmac):
        peel_with(secret(2), good)


def forged(shared: bytes, plain: bytes, ephemeral: bytes) -> bytes:
    """A packet whose HMAC is right, with hop data that starts with `plain` once it is decrypted."""
    hop_data = keys.chacha20(
        keys.hmac_sha256(b"rho", shared), plain + bytes(onion.SMALL_HOP_DATA - len(plain))
    )
    hmac = keys.hmac_sha256(keys.hmac_sha256(b"mu", shared), hop_data)
    return b"\x00" + ephemeral + hop_data + hmac


@pytest.mark.parametrize(
    ("length", "why"),
    [
        ("fd04f2", "the HMAC behind it would end one byte outside"),
        ("fd0514", "as long as the hop data"),
        ("feffffffff", "4 GiB"),
        ("ffffffffffffffffff", "2^64-1 bytes"),
        ("fd0001", "not minimal"),
    ],
)
def test_a_payload_that_runs_out_of_the_hop_data_is_refused(length: str, why: str) -> None:
    """A payload and its HMAC lie within the hop data (BOLT 4, "Packet Structure")."""
    shared = keys.ecdh(secret(1), node(9))
    with pytest.raises(BadOnion) as caught:
        onion.peel(forged(shared, bytes.fromhex(length), node(9)), shared)
    assert caught.type is BadOnion, why


def test_a_payload_may_fill_the_hop_data_to_the_last_byte() -> None:
    """1,265 bytes, with 3 of length and 32 of HMAC, are the most that the small packet holds."""
    shared = keys.ecdh(secret(1), node(9))
    assert onion.peel(forged(shared, bytes.fromhex("fd04f1"), node(9)), shared) == onion.Final(bytes(1_265))


def test_an_ephemeral_key_that_is_no_point_goes_nowhere() -> None:
    """The next hop's ephemeral key is a multiple of this one: BadPoint when this is none."""
    shared = bytes(32)
    layer = onion.peel(forged(shared, b"\x00" + b"\x01" * 32, b"\x02" + bytes(32)), shared)
    assert isinstance(layer, onion.Forward)
    with pytest.raises(BadPoint):
        _ = layer.next_packet


@given(st.binary(max_size=64), st.binary(min_size=32, max_size=32))
def test_hop_data_of_any_kind_raises_declared_errors_alone(plain: bytes, shared: bytes) -> None:
    """Whoever knows the shared secret can write any hop data: it opens, or is Malformed."""
    try:
        layer = onion.peel(forged(shared, plain, node(9)), shared)
    except Malformed:
        return
    assert len(layer.payload) < onion.SMALL_HOP_DATA
