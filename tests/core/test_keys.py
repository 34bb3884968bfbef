"""Keys: what the sidecar derives from LND's, for ever the same, and which points may be asked about."""

from __future__ import annotations

import pytest
from coincurve import PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.core import keys
from sidecar.core.errors import BadPoint, ForbiddenPoint
from sidecar.core.keys import NUMS_POINT, SidecarKeys
from tests.core.making import node, secret

ROOT = bytes(range(32))


def test_the_root_point_never_changes() -> None:
    """Changing it voids every path that is out there: it is written down here once more."""
    assert NUMS_POINT.hex() == "0278d005b7265c713ca8918fdcb887262e7e517ed5714eafed5ce9a3d22239a5fd"
    assert keys.check_point(NUMS_POINT) == NUMS_POINT


def test_the_derived_keys_never_change() -> None:
    """Paths and contexts live on for as long as LND's key does, over every update of ours."""
    own = SidecarKeys.derive(ROOT)
    assert own.node_secret.hex() == "7978f510c0062d59a126e634cd5a67095d077675c06ee18383d9c239a31a466f"
    assert own.context_key.hex() == "201e0d9ca700def5e9563f09eb4775ad3fca4d6eb1f5798fccac2ae8f2caedda"
    assert own.node_id == keys.public_key(own.node_secret)


def test_the_derived_keys_are_not_printed() -> None:
    """Not even where somebody logs the whole of them."""
    own = SidecarKeys.derive(ROOT)
    for one in (own.node_secret, own.context_key):
        assert one.hex() not in repr(own)
        assert repr(one) not in repr(own)


def test_keys_are_derived_by_hkdf() -> None:
    """RFC 5869's HKDF-SHA256: an empty salt, the purpose as info, 32 bytes; another purpose, another key."""
    for purpose in ("one", "another"):
        theirs = HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(ROOT)
        assert keys.derive_key(ROOT, purpose) == theirs


def test_the_root_point_is_forbidden_with_either_sign() -> None:
    """Its ECDH is the root of our secrets, and its negative's gives the same x: nobody else may ask."""
    for sign in (b"\x02", b"\x03"):
        with pytest.raises(ForbiddenPoint):
            keys.refuse_nums(sign + NUMS_POINT[1:])
    keys.refuse_nums(node(1))


def test_a_point_has_33_bytes_and_lies_on_the_curve() -> None:
    """The BOLTs know compressed points alone; what is none is BadPoint, wherever it is used."""
    uncompressed = PublicKey(node(1)).format(compressed=False)
    for wrong in (
        b"",
        node(1)[:32],
        node(1) + b"\x00",
        uncompressed,
        b"\x02" + bytes(32),
        b"\x04" + node(1)[1:],
    ):
        for use in (
            keys.check_point,
            lambda point: keys.ecdh(secret(1), point),
            lambda point: keys.multiply_point(point, secret(2)),
        ):
            with pytest.raises(BadPoint):
                use(wrong)


@given(st.integers(1, 250), st.integers(1, 250))
@settings(deadline=None, max_examples=20)
def test_both_sides_agree_on_the_shared_secret(one: int, other: int) -> None:
    """ECDH is SHA256 of the compressed product (BOLT 4), the same from either side."""
    assert keys.ecdh(secret(one), node(other)) == keys.ecdh(secret(other), node(one))
    product = keys.multiply_point(node(other), secret(one))
    assert keys.ecdh(secret(one), node(other)) == keys.sha256(product)
    assert keys.public_key(keys.multiply_secret(secret(one), secret(other))) == product


@given(st.integers(1, keys.CURVE_ORDER - 1), st.integers(1, keys.CURVE_ORDER - 1))
def test_secrets_are_multiplied_modulo_the_order(one: int, other: int) -> None:
    """As integers are; neither of the two is changed by it."""
    left, right = one.to_bytes(32, "big"), other.to_bytes(32, "big")
    product = one * other % keys.CURVE_ORDER
    assert keys.multiply_secret(left, right) == product.to_bytes(32, "big")
    assert (left, right) == (one.to_bytes(32, "big"), other.to_bytes(32, "big"))


def test_no_secret_is_multiplied_by_zero_or_by_what_has_not_32_bytes() -> None:
    """Zero is no secret (BadPoint), nor is the order; the library would read on behind what is too short."""
    for zero in (bytes(32), keys.CURVE_ORDER.to_bytes(32, "big")):
        with pytest.raises(BadPoint):
            keys.multiply_secret(secret(1), zero)
        with pytest.raises(BadPoint):
            keys.multiply_secret(zero, secret(1))
    for wrong in (b"", secret(1)[:31], secret(1) + b"\x01"):
        with pytest.raises(ValueError, match="32 bytes"):
            keys.multiply_secret(secret(1), wrong)
        with pytest.raises(ValueError, match="32 bytes"):
            keys.multiply_secret(wrong, secret(1))


def test_what_is_no_secret_has_no_shared_secret() -> None:
    """Zero and the order are none; the library would read on behind what is too short."""
    order = keys.CURVE_ORDER.to_bytes(32, "big")
    for wrong in (b"", secret(1)[:31], secret(1) + b"\x01", bytes(32), order, b"\xff" * 32):
        with pytest.raises(ValueError, match=r"32 bytes|order"):
            keys.ecdh(wrong, node(1))
    with pytest.raises(BadPoint):
        keys.ecdh(secret(1), b"\x02" + bytes(32))


@given(st.lists(st.integers(1, 254), min_size=1, max_size=4), st.integers(1, keys.CURVE_ORDER - 1))
@settings(deadline=None, max_examples=50)
def test_each_node_of_a_packet_shares_its_secret_with_the_sender(numbers: list[int], session: int) -> None:
    """BOLT 4's E_i and ss_i: what the sender has in one go, each node has by its own ECDH."""
    point, shared = keys.shared_secrets(session.to_bytes(32, "big"), [node(number) for number in numbers])
    for number, expected in zip(numbers, shared, strict=True):
        assert keys.ecdh(secret(number), point) == expected
        point = keys.next_point(point, expected)


@given(st.binary(max_size=64), st.binary(max_size=100))
def test_a_purposes_key_is_its_hmac(purpose: bytes, shared: bytes) -> None:
    """HMAC256(purpose, ss), as BOLT 4 writes it and as `hmac_sha256` has it."""
    assert keys.purpose_key(purpose, shared) == keys.hmac_sha256(purpose, shared)


@given(st.lists(st.tuples(st.integers(0, 33_000), st.integers(0, 200)), max_size=4))
@example([(64, 1), (63, 2), (128, 64), (0, 0)])
@settings(deadline=None)
def test_a_key_stream_goes_on_from_any_byte(parts: list[tuple[int, int]]) -> None:
    """Wherever it is taken up, and whatever was read before, the bytes are those of the one stream."""
    whole, stream = keys.chacha20(ROOT, bytes(33_500)), keys.KeyStream(ROOT)
    assert stream.xor(bytes(5)) + stream.xor(bytes(70)) == whole[:75]
    for position, size in parts:
        stream.seek(position)
        assert stream.xor(bytes(size)) == whole[position : position + size]
        assert stream.xor(memoryview(bytes(9))) == whole[position + size : position + size + 9]


def test_the_form_of_a_point_is_33_bytes_that_start_with_2_or_3() -> None:
    """Whether it lies on the curve is for whoever uses it to find out."""
    no_point = b"\x03" + bytes(32)
    assert keys.check_point_form(no_point) == no_point
    for wrong in (b"", node(1)[:32], node(1) + b"\x00", b"\x04" + node(1)[1:], b"\x00" * 33):
        with pytest.raises(BadPoint):
            keys.check_point_form(wrong)
