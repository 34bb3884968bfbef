"""Offers and invoice_requests: BOLT 12's rules for their readers, one by one."""

from __future__ import annotations

import pytest
from coincurve import PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import bolt12, offers, paths, static_invoices
from sidecar.core.errors import (
    BadInvoiceRequest,
    BadOffer,
    BadSignature,
    WrongOffer,
)
from sidecar.core.wire import encode_tlvs, write_tu64
from tests.core.making import (
    PAYER,
    REGTEST,
    node,
    offer_records,
    path_to,
    request_records,
    secret,
    signed_invoice,
    signed_request,
)

Changes = dict[int, bytes | None]

MAINNET = bolt12.BITCOIN
NO_HOPS = node(1) + node(2) + b"\x00"
AMOUNT_100 = {offers.OFFER_AMOUNT: b"\x64", offers.OFFER_DESCRIPTION: b"tea"}


# --- offers ---------------------------------------------------------------------------------------

GOOD_OFFERS: list[tuple[Changes, str]] = [
    ({}, "as LDK's wallets make it"),
    ({offers.OFFER_CHAINS: None}, "no chain: bitcoin"),
    ({offers.OFFER_CHAINS: REGTEST + MAINNET}, "two chains"),
    ({offers.OFFER_ISSUER_ID: None}, "paths alone"),
    ({offers.OFFER_PATHS: None}, "issuer alone"),
    ({**AMOUNT_100}, "an amount and what it is for"),
    ({**AMOUNT_100, offers.OFFER_CURRENCY: b"EUR"}, "an amount in another currency"),
    ({offers.OFFER_DESCRIPTION: "Grüße".encode()}, "a description in UTF-8"),
    ({offers.OFFER_FEATURES: b"\xaa"}, "odd features"),
    ({offers.OFFER_FEATURES: b""}, "no features"),
    ({offers.OFFER_QUANTITY_MAX: b""}, "any quantity"),
    ({25: b"?"}, "an unknown odd field"),
    ({1_000_000_001: b"?"}, "an unknown odd experimental field"),
    ({1_999_999_999: b"?"}, "the last type of an offer"),
]


@pytest.mark.parametrize(("changes", "why"), GOOD_OFFERS)
def test_an_offer_that_breaks_no_rule_is_read(changes: Changes, why: str) -> None:
    """BOLT 12, "Requirements For Offers": what a reader must not stumble over."""
    records = offer_records(changes)
    assert offers.read_offer(encode_tlvs(records)).records == records, why


BAD_OFFERS: list[tuple[Changes, str]] = [
    ({24: b""}, "an unknown even field"),
    ({1_000_000_000: b""}, "an unknown even experimental field"),
    ({0: b""}, "a type before an offer's"),
    ({80: REGTEST}, "a type behind an offer's"),
    ({999_999_999: b""}, "a type before the experimental ones"),
    ({2_000_000_001: b""}, "a type behind the experimental ones"),
    ({offers.OFFER_CHAINS: b""}, "no chain at all"),
    ({offers.OFFER_CHAINS: REGTEST[:31]}, "a chain cut short"),
    ({offers.OFFER_CHAINS: REGTEST + b"\x00"}, "half a chain"),
    ({offers.OFFER_FEATURES: b"\x01"}, "an even feature"),
    ({offers.OFFER_FEATURES: b"\x40" + bytes(3)}, "a high even feature"),
    ({offers.OFFER_AMOUNT: b"\x01"}, "an amount without a description"),
    ({**AMOUNT_100, offers.OFFER_AMOUNT: b""}, "an amount of zero"),
    ({**AMOUNT_100, offers.OFFER_AMOUNT: b"\x00\x64"}, "an amount that is not minimal"),
    ({**AMOUNT_100, offers.OFFER_AMOUNT: b"\x01" * 9}, "an amount over 64 bits"),
    ({offers.OFFER_CURRENCY: b"EUR"}, "a currency without an amount"),
    ({**AMOUNT_100, offers.OFFER_CURRENCY: b"EURO"}, "a currency of four letters"),
    ({**AMOUNT_100, offers.OFFER_CURRENCY: b"E1R"}, "a currency with a digit"),
    ({**AMOUNT_100, offers.OFFER_CURRENCY: "äöü".encode()}, "a currency of other letters"),
    ({**AMOUNT_100, offers.OFFER_CURRENCY: b"\xff\xff\xff"}, "a currency that is no text"),
    ({offers.OFFER_DESCRIPTION: b"\xc3"}, "a description that is no UTF-8"),
    ({offers.OFFER_ISSUER: b"\xff"}, "an issuer that is no UTF-8"),
    ({offers.OFFER_PATHS: None, offers.OFFER_ISSUER_ID: None}, "neither path nor issuer"),
    ({offers.OFFER_PATHS: b""}, "no path in offer_paths"),
    ({offers.OFFER_PATHS: NO_HOPS}, "a path of no hops"),
    ({offers.OFFER_ISSUER_ID: b"\x02" + bytes(32)}, "an issuer that is no point"),
    ({offers.OFFER_ISSUER_ID: node(1)[:32]}, "an issuer of 32 bytes"),
    ({offers.OFFER_ISSUER_ID: PublicKey(node(1)).format(compressed=False)}, "an issuer of 65 bytes"),
    ({offers.OFFER_ABSOLUTE_EXPIRY: b"\x00\x01"}, "an expiry that is not minimal"),
    ({offers.OFFER_QUANTITY_MAX: b"\x00"}, "a quantity that is not minimal"),
]


@pytest.mark.parametrize(("changes", "why"), BAD_OFFERS)
def test_an_offer_that_breaks_a_rule_is_refused(changes: Changes, why: str) -> None:
    """BOLT 12, "Requirements For Offers": "MUST NOT respond to the offer"."""
    with pytest.raises(BadOffer):
        offers.read_offer(encode_tlvs(offer_records(changes)))
    assert why


# --- invoice_requests -----------------------------------------------------------------------------

GOOD_REQUESTS: list[tuple[Changes, str]] = [
    ({}, "as LDK's payers make it"),
    ({offers.OFFER_CHAINS: None, offers.INVREQ_CHAIN: None}, "bitcoin on both sides, unnamed"),
    ({offers.OFFER_CHAINS: None, offers.INVREQ_CHAIN: MAINNET}, "bitcoin named by the payer"),
    ({offers.OFFER_CHAINS: REGTEST + MAINNET, offers.INVREQ_CHAIN: None}, "bitcoin among others"),
    ({**AMOUNT_100, offers.INVREQ_AMOUNT: None}, "the offer's amount"),
    ({**AMOUNT_100, offers.INVREQ_AMOUNT: b"\x64"}, "just the offer's amount"),
    ({**AMOUNT_100, offers.INVREQ_AMOUNT: b"\x65"}, "more than the offer's amount"),
    ({**AMOUNT_100, offers.OFFER_CURRENCY: b"EUR", offers.INVREQ_AMOUNT: b"\x01"}, "not ours to convert"),
    ({offers.OFFER_QUANTITY_MAX: b"\x05", offers.INVREQ_QUANTITY: b"\x05"}, "the most that is offered"),
    ({offers.OFFER_QUANTITY_MAX: b"", offers.INVREQ_QUANTITY: b"\xff"}, "any quantity"),
    (
        {
            **AMOUNT_100,
            offers.OFFER_QUANTITY_MAX: b"",
            offers.INVREQ_QUANTITY: b"\x03",
            offers.INVREQ_AMOUNT: b"\x01\x2c",
        },
        "three times the amount",
    ),
    ({offers.INVREQ_FEATURES: b"\x02"}, "an odd feature"),
    ({offers.INVREQ_PAYER_NOTE: "für Tee".encode()}, "a note"),
    ({offers.INVREQ_PATHS: paths.encode_path(path_to(PAYER))}, "a path of the payer's"),
    ({offers.INVREQ_BIP_353_NAME: b"\x05alice\x0bexample.com"}, "a name"),
    ({offers.INVREQ_BIP_353_NAME: b"\x00\x00"}, "an empty name"),
    ({159: b"", 2_999_999_999: b"", 1_000_000_001: b""}, "unknown odd fields within the ranges"),
    ({241: b"?", 999: b"?"}, "unknown odd signature fields"),
]


@pytest.mark.parametrize(("changes", "why"), GOOD_REQUESTS)
def test_a_request_that_breaks_no_rule_is_read(changes: Changes, why: str) -> None:
    """BOLT 12, "Requirements For Invoice Requests": what a reader must not stumble over."""
    data = signed_request(changes)
    request = offers.read_invoice_request(data)
    assert request.encoded == data, why
    assert encode_tlvs(request.records) == data
    assert len(request.signature) == 64


BAD_REQUESTS: list[tuple[Changes, str]] = [
    ({offers.INVREQ_METADATA: None}, "no invreq_metadata"),
    ({offers.INVREQ_PAYER_ID: None}, "no invreq_payer_id"),
    ({offers.INVREQ_PAYER_ID: b"\x05" + bytes(32)}, "a payer id that is no point"),
    ({offers.INVREQ_PAYER_ID: b"\x02" + bytes(32)}, "a payer id that only looks like one"),
    ({92: b""}, "an unknown even field"),
    ({2_000_000_000: b""}, "an unknown even experimental field"),
    ({24: b""}, "an unknown even field of the offer"),
    ({242: b""}, "an unknown even signature field"),
    ({161: b""}, "a type behind a request's"),
    ({239: b""}, "a type before the signatures"),
    ({1_001: b""}, "a type behind the signatures"),
    ({3_000_000_001: b""}, "a type behind the experimental ones"),
    ({offers.INVREQ_CHAIN: MAINNET}, "a chain that is not the offer's"),
    ({offers.INVREQ_CHAIN: None}, "no chain, where the offer is not for bitcoin"),
    ({offers.INVREQ_CHAIN: REGTEST[:31]}, "a chain cut short"),
    ({offers.INVREQ_CHAIN: REGTEST + REGTEST}, "two chains"),
    ({offers.INVREQ_AMOUNT: None}, "no amount on either side"),
    ({offers.INVREQ_AMOUNT: b"\x00\x01"}, "an amount that is not minimal"),
    ({**AMOUNT_100, offers.INVREQ_AMOUNT: b"\x63"}, "less than the offer's amount"),
    (
        {
            **AMOUNT_100,
            offers.OFFER_QUANTITY_MAX: b"",
            offers.INVREQ_QUANTITY: b"\x03",
            offers.INVREQ_AMOUNT: b"\x01\x2b",
        },
        "less than three times the amount",
    ),
    ({offers.INVREQ_QUANTITY: b"\x01"}, "a quantity that was not offered"),
    ({offers.OFFER_QUANTITY_MAX: b"\x05"}, "no quantity where it is offered"),
    ({offers.OFFER_QUANTITY_MAX: b""}, "no quantity where any is offered"),
    ({offers.OFFER_QUANTITY_MAX: b"\x05", offers.INVREQ_QUANTITY: b""}, "a quantity of zero"),
    ({offers.OFFER_QUANTITY_MAX: b"\x05", offers.INVREQ_QUANTITY: b"\x06"}, "more than is offered"),
    ({offers.INVREQ_FEATURES: b"\x04"}, "an even feature"),
    ({offers.OFFER_FEATURES: b"\x04"}, "an even feature of the offer"),
    ({offers.INVREQ_PAYER_NOTE: b"\xff"}, "a note that is no UTF-8"),
    ({offers.INVREQ_PATHS: NO_HOPS}, "a path of no hops"),
    ({offers.INVREQ_PATHS: b""}, "no path in invreq_paths"),
    ({offers.OFFER_PATHS: None, offers.OFFER_ISSUER_ID: None}, "an offer that nobody can be found by"),
    ({offers.OFFER_AMOUNT: b"\x64"}, "an offer's amount without a description"),
    ({offers.INVREQ_BIP_353_NAME: b""}, "a name of nothing"),
    ({offers.INVREQ_BIP_353_NAME: b"\x05alice"}, "a name without a domain"),
    ({offers.INVREQ_BIP_353_NAME: b"\x09alice"}, "a name cut short"),
    ({offers.INVREQ_BIP_353_NAME: b"\x05alice\x0cexample.com"}, "a domain cut short"),
    ({offers.INVREQ_BIP_353_NAME: b"\x05alice\x0bexample.com."}, "bytes behind the domain"),
    ({offers.INVREQ_BIP_353_NAME: b"\x05al ce\x0bexample.com"}, "a name with a space"),
    ({offers.INVREQ_BIP_353_NAME: b"\x05alice\x0bexample/com"}, "a domain with a slash"),
    ({offers.INVREQ_BIP_353_NAME: b"\x02\xc3\xa9\x0bexample.com"}, "a name beyond ASCII"),
]


@pytest.mark.parametrize(("changes", "why"), BAD_REQUESTS)
def test_a_request_that_breaks_a_rule_is_refused(changes: Changes, why: str) -> None:
    """BOLT 12: "MUST reject the invoice request", though its signature is right."""
    with pytest.raises(BadInvoiceRequest):
        offers.read_invoice_request(signed_request(changes))
    assert why


def test_a_request_signed_by_another_key_is_refused() -> None:
    """BOLT 12: "MUST reject the invoice request if `signature` is not correct"."""
    data = signed_request(signer=15)
    with pytest.raises(BadSignature):
        offers.read_invoice_request(data)


def test_a_request_without_a_signature_or_with_another_ones_is_refused() -> None:
    """The signature is the payer's, over all fields, as an invoice_request (BOLT 12)."""
    records = request_records()
    of_an_invoice = bolt12.sign(records, "invoice", secret(PAYER))
    of_other_fields = bolt12.sign(
        {**records, offers.INVREQ_AMOUNT: b"\x01"}, "invoice_request", secret(PAYER)
    )
    altered = {**records, bolt12.SIGNATURE: of_other_fields[bolt12.SIGNATURE]}
    for wrong in (records, of_an_invoice, altered):
        with pytest.raises(BadSignature):
            offers.read_invoice_request(encode_tlvs(wrong))


@pytest.mark.parametrize("cut", [1, 64, 65, 66, 100])
def test_a_request_cut_short_is_refused(cut: int) -> None:
    """Cut within a record it is no TLV stream; cut behind one, its signature is gone."""
    with pytest.raises((BadInvoiceRequest, BadSignature)):
        offers.read_invoice_request(signed_request()[:-cut])


@given(st.binary(max_size=80) | st.binary(max_size=8).map(lambda tail: signed_request() + tail), st.data())
@settings(deadline=None, max_examples=60)
def test_any_bytes_are_a_request_or_a_declared_error(data: bytes, draw: st.DataObject) -> None:
    """No bytes raise anything but BadInvoiceRequest and BadSignature from the reader."""
    if data and draw.draw(st.booleans()):
        position = draw.draw(st.integers(0, len(data) - 1))
        data = data[:position] + bytes([draw.draw(st.integers(0, 255))]) + data[position + 1 :]
    try:
        request = offers.read_invoice_request(data)
    except (BadInvoiceRequest, BadSignature):
        return
    assert encode_tlvs(request.records) == data


def test_an_offer_is_remembered_by_all_of_its_content() -> None:
    """What was read of one offer is not taken for another's, in whatever they differ."""
    first = offers.read_offer_fields(offer_records())
    assert offers.read_offer_fields(offer_records()) == first
    for changes in ({offers.OFFER_ISSUER_ID: node(1)}, {offers.OFFER_DESCRIPTION: b"tea"}, {79: b""}):
        other = offers.read_offer_fields(offer_records(changes))
        assert other.records == offer_records(changes) != first.records
    for _ in range(2):
        with pytest.raises(BadOffer):
            offers.read_offer_fields(offer_records({offers.OFFER_FEATURES: b"\x01"}))


@pytest.mark.parametrize(
    "more",
    [dict.fromkeys(range(1000000001, 1000000041, 2), b""), {79: bytes(1_024)}],
    ids=["many records", "much in one"],
)
def test_what_a_stranger_made_large_is_not_remembered(more: dict[int, bytes]) -> None:
    """5,000 records fit into an onion, and its signature is checked later: 256 of them would be 170 MB."""
    offers._read_offer.cache_clear()
    records = offer_records({**more})
    assert offers.read_offer_fields(records).records == records
    assert offers._read_offer.cache_info().currsize == 0
    offers.read_offer_fields(offer_records())
    assert offers._read_offer.cache_info().currsize == 1


# --- a request for a stored invoice ---------------------------------------------------------------


def judge(changes: Changes, now: int, invoice_changes: Changes | None = None) -> None:
    """Whether a request is for the offer of an invoice. Raises WrongOffer."""
    request = offers.read_invoice_request(signed_request(changes))
    invoice = static_invoices.read_static_invoice(signed_invoice(invoice_changes or {}), REGTEST)
    static_invoices.check_offer(request, invoice.offer.records, now)


NOW = 1_800_000_100


def test_a_request_whose_offer_is_the_invoices_is_answered() -> None:
    """BOLT 12: "MUST reject … if the offer fields do not exactly match": here they do."""
    judge({}, NOW)
    expiry: Changes = {offers.OFFER_ABSOLUTE_EXPIRY: write_tu64(NOW + 1)}
    judge(expiry, NOW, expiry)
    odd: Changes = {25: b"?", 1_000_000_001: b"?"}
    judge(odd, NOW, odd)


@pytest.mark.parametrize(
    "changes",
    [
        {offers.OFFER_PATHS: paths.encode_path(path_to(1, 2))},
        {offers.OFFER_ISSUER_ID: None},
        {offers.OFFER_DESCRIPTION: b"tea"},
        {offers.OFFER_CHAINS: REGTEST + MAINNET},
        {25: b"?"},
        {1_000_000_001: b"?"},
    ],
)
def test_a_request_for_any_other_offer_is_refused(changes: Changes) -> None:
    """BOLT 12: the offer's fields in the request match "exactly": none altered, added or left out."""
    with pytest.raises(WrongOffer):
        judge(changes, NOW)


def test_a_request_for_an_expired_offer_is_refused() -> None:
    """BOLT 12: "a valid, unexpired offer"; at offer_absolute_expiry it is over."""
    expiry: Changes = {offers.OFFER_ABSOLUTE_EXPIRY: write_tu64(NOW)}
    judge(expiry, NOW - 1, expiry)
    with pytest.raises(WrongOffer):
        judge(expiry, NOW, expiry)
