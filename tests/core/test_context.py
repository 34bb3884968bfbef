"""Path contexts: what was sealed comes back whole, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import context, keys
from sidecar.core.context import Context, Kind, OfferContext, RequestContext
from sidecar.core.errors import BadContext
from sidecar.core.model import OfferTag

KEY = bytes(range(32))
REQUEST = RequestContext(b"client-one", 3)
SERVE = OfferContext(
    Kind.SERVE_STATIC_INVOICE, b"client-one", 2, OfferTag(1_800_000_000_123, b"nonce!"), 1_831_536_000
)
PAY = OfferContext(
    Kind.INVOICE_REQUEST, b"client-one", 2, OfferTag(1_800_000_000_123, b"nonce!"), 1_831_536_000
)
ALL: list[Context] = [REQUEST, SERVE, PAY]

client_ids = st.binary(min_size=10, max_size=10)
tags = st.builds(OfferTag, st.integers(0, 2**48 - 1), st.binary(min_size=6, max_size=6))
some_contexts = st.builds(RequestContext, client_ids, st.integers(0, 2**32 - 1)) | st.builds(
    OfferContext,
    st.sampled_from([Kind.SERVE_STATIC_INVOICE, Kind.INVOICE_REQUEST]),
    client_ids,
    st.integers(0, 2**16 - 1),
    tags,
    st.integers(0, 2**48 - 1),
)


@given(some_contexts, st.binary(min_size=32, max_size=32))
def test_a_context_comes_back_as_it_was_sealed(given_context: Context, key: bytes) -> None:
    """A path_id holds its whole context: kind, client, slot, tag, expiry or generation."""
    assert context.unseal(key, context.seal(key, given_context)) == given_context


@pytest.mark.parametrize(("given_context", "size"), [(REQUEST, 32), (SERVE, 48), (PAY, 48)])
def test_a_path_id_stays_small(given_context: Context, size: int) -> None:
    """48 bytes for what goes into offers: an LDK payer puts the whole request into the payment onion."""
    assert len(context.seal(KEY, given_context)) == size


@pytest.mark.parametrize("given_context", ALL, ids=["request", "serve", "pay"])
def test_a_path_id_with_any_bit_flipped_is_refused(given_context: Context) -> None:
    """Each bit is under the MAC: no field can be altered by whoever hands the path back."""
    sealed = context.seal(KEY, given_context)
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(BadContext):
            context.unseal(KEY, bytes(altered))


@pytest.mark.parametrize("given_context", ALL, ids=["request", "serve", "pay"])
def test_a_path_id_of_another_length_is_refused(given_context: Context) -> None:
    """Cut at either end, or longer: not ours."""
    sealed = context.seal(KEY, given_context)
    for size in range(len(sealed)):
        for wrong in (sealed[:size], sealed[len(sealed) - size :]):
            with pytest.raises(BadContext):
                context.unseal(KEY, wrong)
    for wrong in (sealed + b"\x00", b"\x00" + sealed, sealed * 2):
        with pytest.raises(BadContext):
            context.unseal(KEY, wrong)


def test_a_path_id_sealed_with_another_key_is_refused() -> None:
    """The key is derived from LND's: another node's contexts are not ours."""
    with pytest.raises(BadContext):
        context.unseal(bytes(32), context.seal(KEY, PAY))


def test_a_payers_path_can_not_be_turned_into_a_clients() -> None:
    """The kind is under the MAC: an offer path's context never serves to leave an invoice, nor back."""
    pay, serve = context.seal(KEY, PAY), context.seal(KEY, SERVE)
    assert pay[2:-16] == serve[2:-16]
    assert pay[1] != serve[1]
    for ours, other in ((pay, serve), (serve, pay)):
        for forged in (ours[:1] + other[1:2] + ours[2:], ours[:-16] + other[-16:]):
            with pytest.raises(BadContext):
                context.unseal(KEY, forged)


def maced(body: bytes) -> bytes:
    """A body with a MAC that is right."""
    return body + keys.hmac_sha256(KEY, body)[:16]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "nothing"),
        (b"\x01", "a version and no kind"),
        (b"\x01\x01", "a kind and no fields"),
        (b"\x02\x01" + bytes(14), "a version to come"),
        (b"\x00\x01" + bytes(14), "version 0"),
        (b"\x01\x00" + bytes(14), "kind 0"),
        (b"\x01\x04" + bytes(30), "a kind to come"),
        (b"\x01\x01" + bytes(30), "a request's kind with an offer's fields"),
        (b"\x01\x03" + bytes(14), "an offer's kind with a request's fields"),
        (b"\x01\x01" + bytes(13), "a request's fields, one byte short"),
        (b"\x01\x02" + bytes(31), "an offer's fields, one byte too long"),
    ],
)
def test_a_context_that_we_do_not_know_is_refused_even_with_a_right_mac(body: bytes, why: str) -> None:
    """What another version of ours sealed is BadContext, not a guess."""
    with pytest.raises(BadContext):
        context.unseal(KEY, maced(body))
    assert why


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(path_id: bytes) -> None:
    """Anyone can build a blinded path to us, with any path_id in it."""
    with pytest.raises(BadContext):
        context.unseal(KEY, path_id)
