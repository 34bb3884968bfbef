"""The server on `serve_static_invoice`: (what is known, message) → keep and acknowledge, or which error."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sidecar.core import bolt12, keys, messages, offers, paths, static_invoices
from sidecar.core.context import Context, Kind, RequestContext
from sidecar.core.effects import Save, Send
from sidecar.core.errors import (
    BadSignature,
    BadStaticInvoice,
    ClientPaused,
    ClientRevoked,
    ContextExpired,
    InvoiceExpired,
    InvoiceTooLarge,
    NoForwardPath,
    NoReplyPath,
    Refused,
    SidecarError,
    SlotOutOfRange,
    StaleOffer,
    UnknownClient,
    WrongChain,
    WrongOfferPaths,
)
from sidecar.core.messages import StaticInvoicePersisted
from sidecar.core.model import Client, Family, Loaded, OfferTag, Quota, SlotMark
from sidecar.core.server import MAX_OFFER_PATHS
from sidecar.core.wire import decode_tlvs, encode_tlvs, write_tu64
from tests.core.server_cases import (
    CLIENT,
    FORWARD_PATH,
    KEYS,
    LIFETIME,
    NOTHING,
    NOW,
    NOW_MS,
    PAUSED,
    REPLY_PATH,
    REVOKED,
    SERVER,
    Kept,
    ask,
    contexts_of,
    issued_context,
    signed,
)
from tests.harness.allowed import LIMITS
from tests.harness.fakes import DAY, LND_SECRET
from tests.harness.wallet import BLINDEDPAY, CHAIN

PATHS, BLINDEDPAYS = static_invoices.INVOICE_PATHS, static_invoices.INVOICE_BLINDEDPAY
CREATED_AT, EXPIRY = static_invoices.INVOICE_CREATED_AT, static_invoices.INVOICE_RELATIVE_EXPIRY
NODE_ID, HELD = static_invoices.INVOICE_NODE_ID, static_invoices.STATIC_INVOICE_MESSAGE_PATHS


def admit(kept: Kept, invoice: bytes | None = None, loaded: Loaded = NOTHING) -> bytes:
    """Run the checks that need no key of LND's; the admitted invoice's bytes."""
    return SERVER.admit_static_invoice(kept.update(loaded), kept.message(invoice), Family.LDK, LIMITS).encoded


# --- who may leave an invoice, and over which path ----------------------------------------------


def test_serve_static_invoice_without_reply_path_is_met_with_silence() -> None:
    """Senders "MUST set `reply_path`" (bLIP 66 "Senders of `serve_static_invoice`")."""
    kept = Kept()
    with pytest.raises(NoReplyPath):
        SERVER.admit_static_invoice(kept.update(reply_path=None), kept.message(), Family.LDK, LIMITS)


@pytest.mark.parametrize("family", Family)
def test_serve_static_invoice_without_forward_path_is_met_with_silence(family: Family) -> None:
    """Senders "MUST set `forward_invoice_request_path`" (bLIP 66 "Senders of `serve_static_invoice`")."""
    stream = encode_tlvs({0: Kept().invoice})
    framed = {
        Family.BLIP66: (65544, stream),
        Family.LDK: (75544, b"\xfd" + len(stream).to_bytes(2, "big") + stream),
    }
    with pytest.raises(NoForwardPath):
        messages.decode(*framed[family])


@pytest.mark.parametrize(
    ("client", "error"),
    [
        pytest.param(None, UnknownClient, id="removed"),
        pytest.param(REVOKED, ClientRevoked, id="revoked"),
        pytest.param(PAUSED, ClientPaused, id="paused"),
        pytest.param(replace(CLIENT, quota=Quota(0, 50_000, DAY)), SlotOutOfRange, id="slots taken away"),
    ],
)
def test_invoice_of_a_client_that_is_not_let_in_is_met_with_silence(
    client: Client | None, error: type[Refused]
) -> None:
    """Recipients "MUST authenticate the message" (bLIP 66 "Recipients of `serve_static_invoice`")."""
    with pytest.raises(error):
        admit(Kept(), loaded=Loaded(client, None, None))


def test_rotated_client_keeps_its_offers() -> None:
    """Rotation makes request paths silent; offers that are out, and their updates, live on (design)."""
    kept = Kept()
    rotated = replace(CLIENT, generation=CLIENT.generation + 1)
    assert admit(kept, loaded=Loaded(rotated, None, None)) == kept.invoice


@pytest.mark.parametrize("late", [0, 1, DAY])
def test_invoice_over_an_expired_path_is_met_with_silence(late: int) -> None:
    """Past `paths_absolute_expiry` paths "can no longer be used" (bLIP 66 "Senders of `offer_paths`")."""
    kept = Kept()
    arrival = kept.update(now_ms=(NOW + LIFETIME + late) * 1000)
    with pytest.raises(ContextExpired):
        SERVER.admit_static_invoice(arrival, kept.message(), Family.LDK, LIMITS)


def test_invoice_over_a_path_in_its_last_second_is_admitted() -> None:
    """Until `paths_absolute_expiry` the paths can be used (bLIP 66 "Senders of `offer_paths`")."""
    kept = Kept()
    arrival = kept.update(now_ms=(NOW + LIFETIME) * 1000 - 1)
    late = kept.wallet.make_invoice(kept.offer_records, created_at=NOW + LIFETIME - 60)
    assert SERVER.admit_static_invoice(arrival, kept.message(late), Family.LDK, LIMITS).encoded == late


@pytest.mark.parametrize("by", [1, 1_000, DAY * 1000])
def test_replayed_older_tag_never_replaces(by: int) -> None:
    """An invoice for paths that newer ones of the slot replaced is refused: onions can be replayed."""
    kept = Kept()
    newer = SlotMark(OfferTag(kept.stored.tag.issued_at_ms + by, b"\0" * 6), 0)
    with pytest.raises(StaleOffer):
        admit(kept, loaded=Loaded(CLIENT, newer, None))


@pytest.mark.parametrize("mark", ["none", "same", "older"])
def test_invoice_of_the_same_or_a_newer_tag_is_admitted_again_and_again(mark: str) -> None:
    """A wallet leaves its invoice each minute until acknowledged, and every 2 h later on (design)."""
    kept = Kept()
    older = SlotMark(OfferTag(kept.stored.tag.issued_at_ms - 1, b"\xff" * 6), NOW + DAY)
    known = {"none": NOTHING, "same": kept.loaded, "older": Loaded(CLIENT, older, None)}[mark]
    assert admit(kept, loaded=known) == kept.invoice


# --- the invoice itself ---------------------------------------------------------------------------


def test_invoice_of_5120_bytes_is_admitted_and_one_more_is_not() -> None:
    """A static invoice has at most 5,120 bytes, as LDK's own server wants it (design, section 4)."""
    kept = Kept()
    description = offers.OFFER_DESCRIPTION
    spare = 5_120 - len(signed(kept, {description: bytes(1_000)})) + 1_000
    fits = signed(kept, {description: b"x" * spare})
    assert len(fits) == 5_120
    assert admit(kept, fits) == fits
    with pytest.raises(InvoiceTooLarge):
        admit(kept, signed(kept, {description: b"x" * (spare + 1)}))


@pytest.mark.parametrize("missing", [offers.OFFER_PATHS, PATHS, BLINDEDPAYS, CREATED_AT, NODE_ID, HELD])
def test_invoice_without_a_required_field_is_refused(missing: int) -> None:
    """16, 160, 162, 164, 176 and 236 are required in a static invoice (design, "Static invoice")."""
    kept = Kept()
    with pytest.raises(BadStaticInvoice):
        admit(kept, signed(kept, {missing: None}))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({static_invoices.INVOICE_PAYMENT_HASH: bytes(32)}, id="payment_hash"),
        pytest.param({static_invoices.INVOICE_AMOUNT: b"\x01"}, id="amount"),
        pytest.param({178: b""}, id="unknown even type"),
        pytest.param({24: b""}, id="unknown even offer type"),
        pytest.param({89: b"note"}, id="an invoice_request's field"),
        pytest.param({2_000_000_001: b""}, id="type of an invoice_request's experiments"),
        pytest.param({BLINDEDPAYS: BLINDEDPAY * 2}, id="more blindedpay than paths"),
        pytest.param({BLINDEDPAYS: b""}, id="no blindedpay"),
        pytest.param({BLINDEDPAYS: BLINDEDPAY[:-1]}, id="blindedpay cut short"),
        pytest.param({PATHS: b""}, id="no payment path"),
        pytest.param({HELD: b""}, id="no path for held_htlc_available"),
        pytest.param({CREATED_AT: b"\x00\x01"}, id="created_at with a leading zero"),
        pytest.param({EXPIRY: bytes([1] * 5)}, id="relative_expiry of 5 bytes"),
        pytest.param({NODE_ID: keys.public_key(b"\x07" * 32)}, id="node_id is not the offer's issuer"),
        pytest.param({offers.OFFER_CHAINS: CHAIN + bolt12.BITCOIN}, id="two chains"),
    ],
)
def test_invoice_that_no_payer_could_use_is_refused(changes: dict[int, bytes | None]) -> None:
    """A static invoice keeps BOLT 12's rules for invoices, has neither payment_hash nor amount (design)."""
    kept = Kept()
    with pytest.raises(BadStaticInvoice):
        admit(kept, signed(kept, changes))


@pytest.mark.parametrize("chains", [None, bolt12.BITCOIN, bolt12.CHAINS["signet"]])
def test_invoice_for_another_chain_is_refused(chains: bytes | None) -> None:
    """No chain means Bitcoin's main one (BOLT 12 `offer_chains`); this node is on another."""
    kept = Kept()
    with pytest.raises(WrongChain):
        admit(kept, signed(kept, {offers.OFFER_CHAINS: chains}))


@pytest.mark.parametrize("how", ["flipped", "missing", "short", "another key", "changed field"])
def test_invoice_with_a_wrong_signature_is_refused(how: str) -> None:
    """The invoice is signed by its node_id, BIP 340 over the merkle root (BOLT 12)."""
    kept = Kept()
    records = decode_tlvs(kept.invoice)
    signature = records[bolt12.SIGNATURE]
    if how == "flipped":
        records[bolt12.SIGNATURE] = signature[:-1] + bytes([signature[-1] ^ 1])
    elif how == "missing":
        del records[bolt12.SIGNATURE]
    elif how == "short":
        records[bolt12.SIGNATURE] = signature[:-1]
    elif how == "another key":
        records = bolt12.sign(records, "static_invoice", b"\x07" * 32)
    else:
        records[CREATED_AT] = write_tu64(NOW)
    with pytest.raises(BadSignature):
        admit(kept, encode_tlvs(records))


def test_invoice_of_an_offer_without_issuer_is_signed_by_the_end_of_one_of_its_paths() -> None:
    """Without offer_issuer_id, node_id is the last blinded_node_id of an offer path (BOLT 12)."""
    kept = Kept()
    (path,) = kept.issued.message.paths
    hop = paths.first_hop(path, keys.ecdh(LND_SECRET, path.path_key))
    changes = {offers.OFFER_ISSUER_ID: None, NODE_ID: path.hops[-1].blinded_node_id}
    with pytest.raises(BadSignature):
        admit(kept, signed(kept, changes))
    # Only we hold the secret of that key, so this is as far as a wallet gets with our paths.
    factor = paths.blinding_factor(KEYS.ecdh(hop.path_key))
    kept.wallet.issuer_secret = keys.multiply_secret(KEYS.node_secret, factor)
    assert admit(kept, signed(kept, changes))
    with pytest.raises(BadStaticInvoice):
        admit(kept, signed(kept, {offers.OFFER_ISSUER_ID: None}))


@pytest.mark.parametrize(
    ("age", "relative", "admitted"),
    [
        pytest.param(14 * DAY - 1, None, True, id="default: 14 days"),
        pytest.param(14 * DAY, None, False, id="default: 14 days are over"),
        pytest.param(3_599, 3_600, True, id="its own expiry"),
        pytest.param(3_600, 3_600, False, id="its own expiry is over"),
        pytest.param(0, 0, False, id="never valid"),
    ],
)
def test_invoice_that_has_expired_is_refused(age: int, relative: int | None, admitted: bool) -> None:
    """A static invoice is good for created_at + relative_expiry, 14 days by default (design)."""
    kept = Kept()
    invoice = kept.wallet.make_invoice(kept.offer_records, created_at=NOW - age, relative_expiry=relative)
    if admitted:
        assert admit(kept, invoice) == invoice
    else:
        with pytest.raises(InvoiceExpired):
            admit(kept, invoice)


@pytest.mark.parametrize("ago", [0, 1])
def test_invoice_of_an_offer_that_has_expired_is_refused(ago: int) -> None:
    """Past offer_absolute_expiry nobody may ask for the invoice (BOLT 12), so it is not kept."""
    kept = Kept()
    with pytest.raises(InvoiceExpired):
        admit(kept, signed(kept, {offers.OFFER_ABSOLUTE_EXPIRY: write_tu64(NOW - ago)}))


def test_invoice_with_more_offer_paths_than_are_ever_issued_is_refused() -> None:
    """Each offer path costs LND a signature call when it is walked, so their number is bounded (design)."""
    kept = Kept()
    path = paths.encode_path(kept.issued.message.paths[0])
    most = signed(kept, {offers.OFFER_PATHS: path * MAX_OFFER_PATHS})
    assert admit(kept, most) == most
    with pytest.raises(WrongOfferPaths):
        admit(kept, signed(kept, {offers.OFFER_PATHS: path * (MAX_OFFER_PATHS + 1)}))


# --- its offer's paths ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"client_id": b"9876543210"}, id="another client"),
        pytest.param({"slot": 1}, id="another slot"),
        pytest.param({"tag": OfferTag(NOW_MS + 1, b"\0" * 6)}, id="another tag"),
        pytest.param({"kind": Kind.SERVE_STATIC_INVOICE}, id="another kind"),
        pytest.param({"expires_at": NOW + LIFETIME + 1}, id="another expiry"),
    ],
)
def test_invoice_whose_offer_path_was_issued_for_something_else_is_refused(
    changes: dict[str, object],
) -> None:
    """Senders "MUST use blinded paths from the preceding `offer_paths` message" (bLIP 66)."""
    kept = Kept()
    with pytest.raises(WrongOfferPaths):
        serve(kept, [issued_context(kept, **changes)])


def test_invoice_whose_offer_path_is_a_request_path_is_refused() -> None:
    """Senders "MUST use blinded paths from the preceding `offer_paths` message" (bLIP 66)."""
    kept = Kept()
    with pytest.raises(WrongOfferPaths):
        serve(kept, [RequestContext(CLIENT.client_id, CLIENT.generation)])


def test_invoice_with_one_offer_path_that_does_not_lead_to_us_is_refused() -> None:
    """All of an offer's paths are those that were issued, not just the first one (bLIP 66)."""
    kept = Kept()
    cases: list[list[Context | None]] = [[None], [issued_context(kept), None], [None, issued_context(kept)]]
    for opened in cases:
        with pytest.raises(WrongOfferPaths):
            serve(kept, opened)


# --- keep, then acknowledge -----------------------------------------------------------------------


def serve(
    kept: Kept,
    opened: Sequence[Context | None] | None = None,
    *,
    invoice: bytes | None = None,
    client: Client = CLIENT,
    family: Family = Family.LDK,
) -> tuple[Save, Send]:
    """Leave an invoice: both effects, in order."""
    arrival = kept.update(Loaded(client, None, None))
    admitted = SERVER.admit_static_invoice(arrival, kept.message(invoice), family, LIMITS)
    found = [issued_context(kept)] if opened is None else opened
    save, send = SERVER.on_serve_static_invoice(arrival, admitted, found, FORWARD_PATH)
    assert isinstance(save, Save)
    assert isinstance(send, Send)
    return save, send


@pytest.mark.parametrize(
    ("family", "number", "body"), [(Family.BLIP66, 65546, b""), (Family.LDK, 75546, b"\0")]
)
def test_static_invoice_persisted_stands_behind_save_in_the_clients_family(
    family: Family, number: int, body: bytes
) -> None:
    """Acknowledge once "confirmed as persisted" (bLIP 66 "Senders of `static_invoice_persisted`")."""
    save, send = serve(Kept(), family=family)
    assert save.invoice.family is family
    assert (send.path, send.content_type, send.content) == (REPLY_PATH, number, body)
    assert messages.decode(send.content_type, send.content) == (StaticInvoicePersisted(), family)
    assert (send.reply_path, send.may_dial) == (None, False)


def test_invoice_and_forward_path_are_kept_to_the_byte_in_the_paths_own_slot() -> None:
    """Recipients "SHOULD persist the `static_invoice` and `forward_invoice_request_path`" (bLIP 66)."""
    kept = Kept(ask(slot=3))
    save, _ = serve(kept)
    assert save.client_id == CLIENT.client_id
    assert save.invoice.slot == 3
    assert save.invoice.tag == contexts_of(kept.issued)[0].tag
    assert save.invoice.invoice == kept.invoice
    assert save.invoice.forward_path == paths.encode_path(FORWARD_PATH)
    assert (save.invoice.created_at, save.invoice.stored_at) == (NOW - 60, NOW)


def test_slot_remembers_its_tag_as_long_as_the_path_lives() -> None:
    """A slot's last tag outlives its invoice, so that no replay brings an old one back (design)."""
    save, _ = serve(Kept(), client=replace(CLIENT, quota=Quota(4, 50_000, 60)))
    assert save.invoice.expires_at == NOW + 60
    assert save.mark_until == NOW + LIFETIME


@pytest.mark.parametrize(
    ("ttl", "relative", "offer", "expected"),
    [
        pytest.param(7 * DAY, 30 * DAY, None, NOW + 7 * DAY, id="the client's TTL"),
        pytest.param(500 * DAY, 400 * DAY, None, NOW + LIFETIME, id="the offer path's expiry"),
        pytest.param(20 * DAY, None, None, NOW - 60 + 14 * DAY, id="the invoice's expiry"),
        pytest.param(20 * DAY, 30 * DAY, NOW + DAY, NOW + DAY, id="the offer's own expiry"),
    ],
)
def test_invoice_is_kept_until_the_earliest_of_its_ends(
    ttl: int, relative: int | None, offer: int | None, expected: int
) -> None:
    """The earliest of client TTL, offer path expiry and invoice expiry (issue), nor past its offer's."""
    kept = Kept()
    expiry = None if offer is None else write_tu64(offer)
    invoice = signed(
        kept,
        {
            offers.OFFER_ABSOLUTE_EXPIRY: expiry,
            EXPIRY: None if relative is None else write_tu64(relative),
        },
    )
    save, _ = serve(kept, invoice=invoice, client=replace(CLIENT, quota=Quota(4, 50_000, ttl)))
    assert save.invoice.expires_at == expected


def test_an_invoice_of_a_client_without_a_ttl_of_its_own_is_kept_as_the_settings_say() -> None:
    """A quota that says nothing leaves it to the server's settings."""
    kept, client = Kept(), replace(CLIENT, quota=Quota())
    arrival = kept.update(Loaded(client, None, None))
    defaults = replace(LIMITS, ttl=90)
    admitted = SERVER.admit_static_invoice(arrival, kept.message(), Family.LDK, defaults)
    save, _ = SERVER.on_serve_static_invoice(arrival, admitted, [issued_context(kept)], FORWARD_PATH)
    assert isinstance(save, Save)
    assert save.invoice.expires_at == NOW + 90


@pytest.mark.parametrize("cut", [1, 100])
def test_invoice_that_is_cut_short_or_goes_on_is_refused(cut: int) -> None:
    """A TLV stream ends with its last record (BOLT 1)."""
    kept = Kept()
    for invoice in (kept.invoice[:-cut], kept.invoice + b"\xfd" * cut):
        with pytest.raises(SidecarError) as refused:
            admit(kept, invoice)
        assert type(refused.value) is BadStaticInvoice
