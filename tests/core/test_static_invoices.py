"""Static invoices: what a server takes, rule by rule (BOLT 12 for invoices, and what LDK makes of it)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import bolt12, keys, offers, paths
from sidecar.core import static_invoices as statics
from sidecar.core.errors import (
    BadSignature,
    BadStaticInvoice,
    InvoiceTooLarge,
    WrongChain,
)
from sidecar.core.wire import encode_tlvs, write_tu64
from tests.core.making import (
    BLINDEDPAY,
    CREATED_AT,
    ISSUER,
    LND,
    OWN,
    REGTEST,
    invoice_records,
    node,
    path_to,
    secret,
    signed_invoice,
)

Changes = dict[int, bytes | None]

MAINNET = bolt12.BITCOIN
ONE_PATH = paths.encode_path(path_to(LND, ISSUER))
TWO_PATHS = ONE_PATH * 2
WITH_FEATURES = BLINDEDPAY[:-2] + b"\x00\x03\x01\x02\x03"


def read(changes: Changes, signer: int = ISSUER) -> statics.StaticInvoice:
    """What the server makes of an invoice, changed and then signed."""
    return statics.read_static_invoice(signed_invoice(changes, signer), REGTEST)


GOOD: list[tuple[Changes, str]] = [
    ({}, "as LDK's wallets make it"),
    ({statics.INVOICE_PATHS: TWO_PATHS, statics.INVOICE_BLINDEDPAY: BLINDEDPAY * 2}, "two payment paths"),
    ({statics.INVOICE_BLINDEDPAY: WITH_FEATURES}, "features of a payment path"),
    ({statics.STATIC_INVOICE_MESSAGE_PATHS: TWO_PATHS}, "two paths for held_htlc_available"),
    ({statics.INVOICE_FALLBACKS: b"", statics.INVOICE_FEATURES: b"\x02"}, "fallbacks and features"),
    ({offers.OFFER_ABSOLUTE_EXPIRY: write_tu64(CREATED_AT + 9)}, "an expiry of the offer's"),
    ({177: b"?", 239: b"?", 1_000_000_001: b"?", 3_000_000_001: b"?"}, "unknown odd fields"),
    ({241: b"?", 999: b"?"}, "unknown odd signature fields"),
]


@pytest.mark.parametrize(("changes", "why"), GOOD)
def test_an_invoice_that_breaks_no_rule_is_taken(changes: Changes, why: str) -> None:
    """Its records, its offer and its times are read; the stored one reads the same."""
    invoice = read(changes)
    unsigned = {type_: value for type_, value in invoice.records.items() if type_ != bolt12.SIGNATURE}
    assert unsigned == invoice_records(changes), why
    assert invoice.offer.records == offers.offer_fields(invoice.records)
    assert invoice.created_at == CREATED_AT
    assert statics.stored_static_invoice(encode_tlvs(invoice.records)) == invoice
    assert statics.stored_offer(encode_tlvs(invoice.records)) == invoice.offer.records


@pytest.mark.parametrize(
    "type_", [offers.OFFER_PATHS, 160, 162, 164, 176, 236], ids=lambda type_: f"without-{type_}"
)
def test_an_invoice_without_a_required_field_is_refused(type_: int) -> None:
    """16, 160, 162, 164, 176 and 236 are required in a static invoice."""
    with pytest.raises(BadStaticInvoice, match="without"):
        read({type_: None})


BAD: list[tuple[Changes, str]] = [
    ({statics.INVOICE_PAYMENT_HASH: bytes(32)}, "a payment_hash: static invoices have none"),
    ({statics.INVOICE_AMOUNT: b"\x01"}, "an amount: static invoices have none"),
    ({178: b""}, "an unknown even field"),
    ({238: b""}, "the last even field of an invoice"),
    ({24: b""}, "an unknown even field of the offer"),
    ({242: b""}, "an unknown even signature field"),
    ({3_000_000_000: b""}, "an unknown even experimental field"),
    ({offers.INVREQ_METADATA: bytes(32)}, "invreq_metadata: nobody has asked yet"),
    ({offers.INVREQ_PAYER_ID: node(1)}, "invreq_payer_id"),
    ({89: b"note"}, "a field of a request's, though odd"),
    ({1_001: b""}, "a type behind the signatures"),
    ({2_000_000_001: b""}, "an experimental field of a request's"),
    ({4_000_000_001: b""}, "a type behind the experimental ones"),
    ({statics.INVOICE_PATHS: TWO_PATHS}, "more invoice_paths than blindedpay"),
    ({statics.INVOICE_BLINDEDPAY: BLINDEDPAY * 2}, "more blindedpay than invoice_paths"),
    ({statics.INVOICE_BLINDEDPAY: b""}, "no blindedpay"),
    ({statics.INVOICE_BLINDEDPAY: BLINDEDPAY[:-1]}, "blindedpay cut short"),
    ({statics.INVOICE_BLINDEDPAY: BLINDEDPAY + b"\x00"}, "bytes behind blindedpay"),
    ({statics.INVOICE_BLINDEDPAY: WITH_FEATURES[:-1]}, "features of blindedpay cut short"),
    ({statics.INVOICE_PATHS: b""}, "no path in invoice_paths"),
    ({statics.INVOICE_PATHS: ONE_PATH[:-1]}, "invoice_paths cut short"),
    ({statics.STATIC_INVOICE_MESSAGE_PATHS: b""}, "no path for held_htlc_available"),
    ({statics.STATIC_INVOICE_MESSAGE_PATHS: ONE_PATH + b"\x00"}, "bytes behind the message paths"),
    ({statics.INVOICE_CREATED_AT: b"\x00\x01"}, "created_at that is not minimal"),
    ({statics.INVOICE_CREATED_AT: b"\x01" * 9}, "created_at over 64 bits"),
    ({statics.INVOICE_RELATIVE_EXPIRY: b"\x01" * 5}, "relative_expiry over 32 bits"),
    ({statics.INVOICE_RELATIVE_EXPIRY: b"\x00"}, "relative_expiry that is not minimal"),
    ({offers.OFFER_PATHS: b""}, "no path in offer_paths"),
    ({offers.OFFER_AMOUNT: b"\x01"}, "an offer's amount without a description"),
    ({offers.OFFER_CHAINS: REGTEST + MAINNET}, "more than one chain"),
    ({offers.OFFER_CHAINS: b""}, "no chain at all"),
    ({statics.INVOICE_NODE_ID: b"\x02" + bytes(32)}, "a node id that is no point"),
]


@pytest.mark.parametrize(("changes", "why"), BAD)
def test_an_invoice_that_breaks_a_rule_is_refused(changes: Changes, why: str) -> None:
    """BOLT 12's rules for invoices and LDK's for static ones, though the signature is right."""
    with pytest.raises(BadStaticInvoice):
        read(changes)
    assert why


def test_an_invoice_that_never_ends_ends_with_the_numbers() -> None:
    """created_at may be any u64: what it is added to must still be one, for the operator is told of it."""
    latest = (1 << 64) - 1
    assert read({statics.INVOICE_CREATED_AT: b"\xff" * 8}).expires_at == latest


@pytest.mark.parametrize("chain", [MAINNET, bolt12.CHAINS["signet"], None])
def test_an_invoice_for_another_chain_is_refused(chain: bytes | None) -> None:
    """The chain is this node's; where none is named, bitcoin is meant (BOLT 12)."""
    with pytest.raises(WrongChain):
        read({offers.OFFER_CHAINS: chain})


def test_an_invoice_without_a_chain_is_for_bitcoin() -> None:
    """BOLT 12: no offer_chains means bitcoin alone; naming it changes nothing."""
    for chain in (None, MAINNET):
        data = signed_invoice({offers.OFFER_CHAINS: chain})
        assert statics.read_static_invoice(data, MAINNET).offer.chains == (MAINNET,)


# --- who signs ------------------------------------------------------------------------------------


def test_an_invoice_of_an_offer_with_an_issuer_is_the_issuers() -> None:
    """BOLT 12: invoice_node_id equals offer_issuer_id, whoever is at the end of the offer's paths."""
    last = path_to(LND, OWN).hops[-1].blinded_node_id
    for other in (node(OWN), last):
        with pytest.raises(BadStaticInvoice, match="whom the offer names"):
            read({statics.INVOICE_NODE_ID: other})


def blinded_secret(session: int) -> tuple[bytes, bytes]:
    """An offer path's encoding, and the secret of its last blinded_node_id."""
    # With one hop the blinded secret follows from the session key and the node's own secret.
    path = path_to(ISSUER, session=session)
    factor = paths.blinding_factor(keys.ecdh(secret(ISSUER), path.path_key))
    return paths.encode_path(path), keys.multiply_secret(secret(ISSUER), factor)


@pytest.mark.parametrize("signing", [0, 1])
def test_an_invoice_without_an_issuer_is_of_the_last_hop_of_any_path(signing: int) -> None:
    """BOLT 12: without offer_issuer_id, the last blinded_node_id of one of the offer's paths signs."""
    made = [blinded_secret(session) for session in (90, 91)]
    signer = made[signing][1]
    records = invoice_records(
        {
            offers.OFFER_ISSUER_ID: None,
            offers.OFFER_PATHS: made[0][0] + made[1][0],
            statics.INVOICE_NODE_ID: keys.public_key(signer),
        }
    )
    data = encode_tlvs(bolt12.sign(records, "static_invoice", signer))
    assert statics.read_static_invoice(data, REGTEST).offer.issuer_id is None


def test_an_invoice_without_an_issuer_is_nobody_elses() -> None:
    """Neither the node behind the path nor a hop on the way may sign (BOLT 12)."""
    path = path_to(LND, ISSUER)
    for other in (node(ISSUER), path.hops[0].blinded_node_id, path.path_key):
        changes: Changes = {
            offers.OFFER_ISSUER_ID: None,
            offers.OFFER_PATHS: paths.encode_path(path),
            statics.INVOICE_NODE_ID: other,
        }
        with pytest.raises(BadStaticInvoice, match="whom the offer names"):
            read(changes)


def test_an_invoice_signed_by_another_key_is_refused() -> None:
    """The signature is invoice_node_id's, over the merkle root, under static_invoice's own tag."""
    with pytest.raises(BadSignature):
        read({}, signer=OWN)
    records = invoice_records()
    as_invoice = bolt12.sign(records, "invoice", secret(ISSUER))
    altered = {**bolt12.sign(records, "static_invoice", secret(ISSUER)), 164: write_tu64(CREATED_AT + 1)}
    for wrong in (records, as_invoice, altered):
        with pytest.raises(BadSignature):
            statics.read_static_invoice(encode_tlvs(wrong), REGTEST)


def test_a_signature_tlv_can_be_added_and_no_other() -> None:
    """TLVs 240 … 1000 are not in the merkle tree: an odd one more leaves the signature right (BOLT 12)."""
    signed = read({}).records
    added = {**signed, 241: b"?", 999: b"?"}
    assert statics.read_static_invoice(encode_tlvs(added), REGTEST).records == dict(sorted(added.items()))
    for type_ in (239, 1_000_000_001):
        with pytest.raises(BadSignature):
            statics.read_static_invoice(encode_tlvs({**signed, type_: b"?"}), REGTEST)


# --- size and time --------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """An invoice of just this size, filled up with an unknown odd field."""
    bare = len(signed_invoice({239: bytes(1_000)})) - 1_000
    data = signed_invoice({239: bytes(size - bare)})
    assert len(data) == size
    return data


def test_an_invoice_has_5120_bytes_at_most() -> None:
    """What LDK's own server takes, and not a byte more."""
    assert statics.read_static_invoice(padded(5_120), REGTEST).created_at == CREATED_AT
    with pytest.raises(InvoiceTooLarge):
        statics.read_static_invoice(padded(5_121), REGTEST)


def test_an_invoice_is_good_for_two_weeks_unless_it_says_otherwise() -> None:
    """LDK's default for static invoices is 14 days, not BOLT 12's 7,200 seconds for others."""
    assert read({}).expires_at == CREATED_AT + 14 * 86_400
    for seconds in (0, 1, 7_200, 2**32 - 1):
        relative = read({statics.INVOICE_RELATIVE_EXPIRY: write_tu64(seconds)})
        assert relative.expires_at == CREATED_AT + seconds


@given(st.binary(max_size=80) | st.binary(max_size=8).map(lambda tail: signed_invoice() + tail), st.data())
@settings(deadline=None, max_examples=60)
def test_any_bytes_are_an_invoice_or_a_declared_error(data: bytes, draw: st.DataObject) -> None:
    """No bytes raise anything but what the reader declares."""
    if data and draw.draw(st.booleans()):
        position = draw.draw(st.integers(0, len(data) - 1))
        data = data[:position] + bytes([draw.draw(st.integers(0, 255))]) + data[position + 1 :]
    try:
        invoice = statics.read_static_invoice(data, REGTEST)
    except (BadStaticInvoice, BadSignature, WrongChain):
        return
    assert encode_tlvs(invoice.records) == data
