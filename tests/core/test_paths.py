"""Blinded paths: BOLT 4's route blinding vectors, reading and writing, and going along one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import keys, paths
from sidecar.core.errors import BadPath, BadPoint, BadRecipientData
from sidecar.core.paths import BlindedHop, BlindedPath, RecipientData, SciddirIntroduction
from sidecar.core.wire import encode_tlvs
from tests.core.making import node, path_to, secret
from tests.vectors import load


def unhex(text: str) -> bytes:
    """Bytes of a vector."""
    return bytes.fromhex(text)


# --- BOLT 4's vectors -----------------------------------------------------------------------------


@pytest.fixture
def vector() -> Any:
    """BOLT 4's route-blinding-test.json: Bob → Carol, joined by override to Dave → Eve."""
    return load("bolt04", "route-blinding-test.json")


def test_the_routes_of_bolt_4_are_blinded_to_the_byte(vector: Any) -> None:
    """Each of the two routes, built from its session key, is that part of the vector's route."""
    hops = [(unhex(hop["node_id"]), unhex(hop["encoded_tlvs"])) for hop in vector["generate"]["hops"]]
    sessions = [hop["session_key"] for hop in vector["generate"]["hops"] if "session_key" in hop]
    first, second = (
        paths.build(unhex(session), part)
        for session, part in zip(sessions, (hops[:2], hops[2:]), strict=True)
    )
    expected = [
        BlindedHop(unhex(hop["blinded_node_id"]), unhex(hop["encrypted_data"]))
        for hop in vector["route"]["hops"]
    ]
    assert [*first.hops, *second.hops] == expected
    assert first.introduction_node == unhex(vector["route"]["first_node_id"])
    assert first.path_key == unhex(vector["route"]["first_path_key"])
    assert second.path_key == unhex(vector["unblind"]["hops"][2]["path_key"])


def test_each_hop_of_bolt_4s_route_reads_its_data_and_finds_the_next_path_key(vector: Any) -> None:
    """All four nodes of the vector decrypt their data and derive the path_key of the hop behind them."""
    for hop, blinded in zip(vector["unblind"]["hops"], vector["route"]["hops"], strict=True):
        path_key, node_secret = unhex(hop["path_key"]), unhex(hop["node_privkey"])
        shared = keys.ecdh(node_secret, path_key)
        rho = keys.hmac_sha256(b"rho", shared)
        assert keys.unseal(rho, unhex(blinded["encrypted_data"])) == unhex(hop["decrypted_data"])
        assert keys.next_point(path_key, shared) == unhex(hop["next_path_key"])
        blinded_secret = keys.multiply_secret(node_secret, paths.blinding_factor(shared))
        assert blinded_secret == unhex(hop["blinded_privkey"])
        assert keys.public_key(blinded_secret) == unhex(blinded["blinded_node_id"])


def test_an_override_replaces_the_next_path_key(vector: Any) -> None:
    """BOLT 4: next_path_key_override is what joins two paths; Carol sends Dave that one."""
    carol, dave = vector["unblind"]["hops"][1:3]
    path_key = unhex(carol["path_key"])
    shared = keys.ecdh(unhex(carol["node_privkey"]), path_key)
    data = RecipientData(
        short_channel_id=1_105, next_path_key_override=unhex(carol["next_path_key_override"])
    )
    assert paths.follow(path_key, shared, data) == paths.NextHop(None, 1_105, unhex(dave["path_key"]))


def test_a_path_for_payments_is_refused(vector: Any) -> None:
    """BOLT 4: in an onion message's path payment_relay and payment_constraints "MUST NOT" stand."""
    for hop, blinded in zip(vector["unblind"]["hops"], vector["route"]["hops"], strict=True):
        shared = keys.ecdh(unhex(hop["node_privkey"]), unhex(hop["path_key"]))
        with pytest.raises(BadRecipientData, match="no place"):
            paths.decrypt_recipient_data(shared, unhex(blinded["encrypted_data"]))


# --- what a hop's data may say --------------------------------------------------------------------

SHARED = bytes(range(32))


def sealed(records: dict[int, bytes]) -> bytes:
    """encrypted_recipient_data for whoever has SHARED."""
    return keys.seal(keys.hmac_sha256(b"rho", SHARED), encode_tlvs(records))


READ = [
    ({}, RecipientData()),
    ({1: bytes(9)}, RecipientData()),
    ({4: node(1)}, RecipientData(next_node_id=node(1))),
    ({2: bytes(7) + b"\x2a"}, RecipientData(short_channel_id=42)),
    ({6: b""}, RecipientData(path_id=b"")),
    ({4: node(1), 8: node(2)}, RecipientData(next_node_id=node(1), next_path_key_override=node(2))),
    ({4: node(1), 14: b""}, RecipientData(next_node_id=node(1))),
    ({4: node(1), 14: bytes(3)}, RecipientData(next_node_id=node(1))),
    ({4: node(1), 561: b"x"}, RecipientData(next_node_id=node(1))),
]


@pytest.mark.parametrize(("records", "data"), READ)
def test_a_hops_data_says_where_to_go_on_or_whose_the_path_is(
    records: dict[int, bytes], data: RecipientData
) -> None:
    """BOLT 4's encrypted_data_tlv: padding and unknown odd types mean nothing, empty features neither."""
    assert paths.decrypt_recipient_data(SHARED, sealed(records)) == data


REFUSED = [
    ({4: node(1), 10: bytes(8)}, "payment_relay"),
    ({4: node(1), 12: bytes(5)}, "payment_constraints"),
    ({4: node(1), 14: b"\x01"}, "allowed_features with an even bit"),
    ({4: node(1), 14: b"\x02"}, "allowed_features with an odd bit"),
    ({4: node(1), 16: b""}, "an unknown even type"),
    ({4: b"\x02" + bytes(32)}, "next_node_id that is no point"),
    ({4: node(1)[:32]}, "next_node_id of 32 bytes"),
    ({4: node(1), 8: b"\x04" + bytes(32)}, "override that is no point"),
    ({2: bytes(7)}, "short_channel_id of 7 bytes"),
    ({2: bytes(9)}, "short_channel_id of 9 bytes"),
]


@pytest.mark.parametrize(("records", "why"), REFUSED)
def test_a_hops_data_with_what_onion_messages_must_not_have_is_refused(
    records: dict[int, bytes], why: str
) -> None:
    """BOLT 4's rules for the reader of encrypted_data_tlv in an onion message."""
    with pytest.raises(BadRecipientData):
        paths.decrypt_recipient_data(SHARED, sealed(records))
    assert why


def test_data_that_is_no_tlv_stream_is_refused() -> None:
    """Decrypted data must be a strict TLV stream (BOLT 1)."""
    for plain in (b"\x04", b"\x04\x21", b"\x06\x00\x04\x00"):
        with pytest.raises(BadRecipientData):
            paths.decrypt_recipient_data(SHARED, keys.seal(keys.hmac_sha256(b"rho", SHARED), plain))


def test_data_for_another_key_is_refused() -> None:
    """BOLT 4: data that doesn't decrypt was not made with this path_key; nor is anything too short."""
    data = sealed({6: b"path id"})
    for wrong in (data[:-1], bytes([data[0] ^ 1]) + data[1:], data[:15], b""):
        with pytest.raises(BadRecipientData):
            paths.decrypt_recipient_data(SHARED, wrong)
    with pytest.raises(BadRecipientData):
        paths.decrypt_recipient_data(bytes(32), data)


@pytest.mark.parametrize(
    "data",
    [
        RecipientData(next_node_id=node(1), path_id=b"x"),
        RecipientData(short_channel_id=1, path_id=b""),
        RecipientData(),
        RecipientData(path_id=b"x"),
        RecipientData(next_path_key_override=node(2)),
    ],
)
def test_an_intermediate_hop_names_a_next_node_and_has_no_path_id(data: RecipientData) -> None:
    """BOLT 4, not the final node: "if the encrypted_data_tlv contains path_id: MUST ignore"."""
    with pytest.raises(BadRecipientData):
        paths.follow(node(3), SHARED, data)


def test_a_next_node_given_twice_is_the_one_given_by_id() -> None:
    """With both next_node_id and short_channel_id the id stands: no look-up can contradict it."""
    hop = paths.follow(node(3), SHARED, RecipientData(next_node_id=node(1), short_channel_id=7))
    assert (hop.node_id, hop.scid) == (node(1), None)


# --- advancing ------------------------------------------------------------------------------------


def test_a_path_advanced_by_one_hop_is_the_path_from_there() -> None:
    """Behind its introduction node a path goes on with the next path_key, and opens at its end."""
    path = path_to(1, 2, 3, path_id=b"mine")
    for here in (1, 2):
        shared = keys.ecdh(secret(here), path.path_key)
        hop = paths.first_hop(path, shared)
        assert hop.node_id == node(here + 1)
        path = paths.advance(path, hop, hop.node_id)
        assert path.introduction_node == node(here + 1)
    shared = keys.ecdh(secret(3), path.path_key)
    data = paths.decrypt_recipient_data(shared, path.hops[0].encrypted_recipient_data)
    assert data == RecipientData(path_id=b"mine")


def test_a_path_that_ends_at_its_introduction_node_is_not_advanced() -> None:
    """Behind the last hop there is no path left (BadPath)."""
    path = path_to(1)
    with pytest.raises(BadPath):
        paths.advance(path, paths.NextHop(node(2), None, node(3)), node(2))


def test_a_path_of_no_hops_is_not_built() -> None:
    """A path leads to somebody: at least one hop (BOLT 4)."""
    with pytest.raises(BadPath):
        paths.build(secret(1), [])


# --- reading and writing --------------------------------------------------------------------------

POINTS = [node(number) for number in range(1, 9)]
points = st.sampled_from(POINTS)
introductions = points | st.builds(SciddirIntroduction, st.integers(0, 1), st.integers(0, 2**64 - 1))
hops = st.builds(BlindedHop, points, st.binary(max_size=80))
some_paths = st.builds(BlindedPath, introductions, points, st.lists(hops, min_size=1, max_size=5).map(tuple))


@given(st.lists(some_paths, min_size=1, max_size=4))
@settings(deadline=None)
def test_paths_survive_the_way_there_and_back(given_paths: list[BlindedPath]) -> None:
    """One path, several one behind the other, and a counted list of them."""
    encoded = [paths.encode_path(path) for path in given_paths]
    assert paths.decode_path(encoded[0]) == given_paths[0]
    assert paths.decode_paths(b"".join(encoded)) == tuple(given_paths)
    assert paths.decode_path_list(paths.encode_path_list(given_paths)) == tuple(given_paths)


def test_a_path_is_laid_out_as_bolt_4_says() -> None:
    """Introduction node, path_key, u8 hops, and for each its id, u16 length and data."""
    hop = BlindedHop(POINTS[2], b"\xaa" * 258)
    rest = POINTS[1] + b"\x01" + POINTS[2] + b"\x01\x02" + b"\xaa" * 258
    by_id = BlindedPath(POINTS[0], POINTS[1], (hop,))
    by_channel = BlindedPath(SciddirIntroduction(1, 0x0102030405060708), POINTS[1], (hop,))
    assert paths.encode_path(by_id) == POINTS[0] + rest
    assert paths.encode_path(by_channel) == unhex("010102030405060708") + rest
    assert paths.decode_path(POINTS[0] + rest) == by_id
    assert paths.decode_path(unhex("010102030405060708") + rest) == by_channel


def test_a_list_of_paths_is_counted_by_a_u16() -> None:
    """u16 count ‖ paths: what ldk-node's set_paths_to_static_invoice_server takes."""
    one = paths.encode_path(path_to(1, 2))
    assert paths.encode_path_list([path_to(1, 2)] * 2) == b"\x00\x02" + one * 2
    for wrong in (b"", b"\x00", b"\x00\x00", b"\x00\x01" + one * 2, b"\x00\x03" + one * 2, one):
        with pytest.raises((BadPath, BadPoint)):
            paths.decode_path_list(wrong)


def test_a_path_of_0_hops_is_refused() -> None:
    """BOLT 12: "if `num_hops` is 0 in any `blinded_path`: MUST NOT respond"."""
    with pytest.raises(BadPath):
        paths.decode_path(POINTS[0] + POINTS[1] + b"\x00")


def test_a_path_of_255_hops_is_read_and_one_of_256_is_not_written() -> None:
    """The number of hops is a u8."""
    path = BlindedPath(POINTS[0], POINTS[1], (BlindedHop(POINTS[2], b"x"),) * 255)
    assert paths.decode_path(paths.encode_path(path)) == path
    with pytest.raises(ValueError, match="256"):
        paths.encode_path(BlindedPath(POINTS[0], POINTS[1], (BlindedHop(POINTS[2], b"x"),) * 256))


@pytest.mark.parametrize("introduction", [POINTS[0], SciddirIntroduction(0, 5)], ids=["id", "sciddir"])
def test_a_path_cut_anywhere_is_refused(introduction: paths.Introduction) -> None:
    """Every byte of a path is needed, and none may follow it."""
    path = BlindedPath(introduction, POINTS[1], (BlindedHop(POINTS[2], b"abc"), BlindedHop(POINTS[3], b"")))
    encoded = paths.encode_path(path)
    for end in range(len(encoded)):
        with pytest.raises(BadPath):
            paths.decode_path(encoded[:end])
        if end:
            with pytest.raises(BadPath):
                paths.decode_paths(encoded + encoded[:end])
    for behind in (b"\x00", b"\x02", encoded):
        with pytest.raises(BadPath):
            paths.decode_path(encoded + behind)


@pytest.mark.parametrize("first", [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0xFF])
def test_the_first_byte_of_a_path_tells_a_point_from_a_channel(first: int) -> None:
    """BOLT 1's sciddir_or_pubkey: 0 and 1 a channel's end, 2 and 3 a point; others are no point."""
    rest = POINTS[1] + b"\x01" + POINTS[2] + b"\x00\x00"
    size = 8 if first < 2 else 32
    encoded = bytes([first]) + POINTS[0][1 : 1 + size] + rest
    if first < 4:
        assert paths.encode_path(paths.decode_path(encoded)) == encoded
    else:
        with pytest.raises(BadPoint):
            paths.decode_path(encoded)


@pytest.mark.parametrize("position", [0, 33, 67])
def test_every_point_of_a_path_is_checked(position: int) -> None:
    """Introduction node, path_key and blinded_node_id are points of the curve, or the path is refused."""
    encoded = bytearray(paths.encode_path(path_to(1, 2)))
    encoded[position + 1 : position + 33] = bytes(32)
    with pytest.raises(BadPoint):
        paths.decode_path(bytes(encoded))


@given(st.binary(max_size=120) | some_paths.map(paths.encode_path), st.data())
@settings(deadline=None)
def test_bytes_that_are_accepted_as_paths_have_one_encoding(data: bytes, draw: st.DataObject) -> None:
    """Any bytes, and any path with a byte altered, are paths to the byte or a declared error."""
    if data and draw.draw(st.booleans()):
        position = draw.draw(st.integers(0, len(data) - 1))
        data = data[:position] + bytes([draw.draw(st.integers(0, 255))]) + data[position + 1 :]
    try:
        decoded = paths.decode_paths(data)
    except (BadPath, BadPoint):
        return
    assert b"".join(paths.encode_path(path) for path in decoded) == data
