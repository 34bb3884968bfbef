"""The server on `invoice_request`: (what is known, request) → forward and answer, or which error."""

from dataclasses import replace

import pytest

from sidecar.core import bolt12, keys, messages, offers, paths
from sidecar.core.effects import Send
from sidecar.core.errors import (
    BadInvoiceRequest,
    BadSignature,
    ClientPaused,
    NoInvoiceYet,
    NoReplyPath,
    WrongOffer,
)
from sidecar.core.model import Loaded, OfferTag, SlotMark
from sidecar.core.wire import decode_tlvs, encode_tlvs, write_tu64
from tests.core.server_cases import (
    CLIENT,
    FORWARD_PATH,
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
)
from tests.harness.fakes import DAY
from tests.harness.payer import make_invoice_request

AMOUNT, DESCRIPTION, QUANTITY_MAX = offers.OFFER_AMOUNT, offers.OFFER_DESCRIPTION, offers.OFFER_QUANTITY_MAX


def test_a_request_for_a_paused_client_is_met_with_silence() -> None:
    """Whatever it has: no invoice, and no error either, for it may be served again tomorrow."""
    kept = Kept()
    for stored, now_ms in ((kept.stored, NOW_MS), (None, NOW_MS), (kept.stored, NOW_MS + LIFETIME * 1000)):
        with pytest.raises(ClientPaused):
            SERVER.on_invoice_request(
                kept.asked(Loaded(PAUSED, kept.mark, stored), now_ms=now_ms), kept.request(), forward=True
            )


# --- answered and forwarded -----------------------------------------------------------------------


def test_request_is_forwarded_first_and_then_answered() -> None:
    """Servers respond "with it" and forward "to the recipient" (bLIP 66); LDK's forwards first."""
    kept = Kept()
    effects = SERVER.on_invoice_request(kept.asked(), kept.request(), forward=True)
    assert [effect.what for effect in effects if isinstance(effect, Send)] == [
        "invoice_request",
        "static_invoice",
    ]
    assert len(effects) == 2


def test_request_is_forwarded_to_the_byte_with_the_payers_reply_path_attached() -> None:
    """Forward "over the previously provided `forward_invoice_request_path`" (bLIP 66 "servers")."""
    kept = Kept()
    request = kept.request()
    forwarded, _ = SERVER.on_invoice_request(kept.asked(), request, forward=True)
    # No dialling: a client could send us to any address.
    assert forwarded == Send(
        "invoice_request",
        FORWARD_PATH,
        64,
        request.encoded,
        reply_path=REPLY_PATH,
        may_dial=False,
        mail_key=keys.sha256(request.encoded),
    )


def test_payer_is_answered_with_the_stored_invoice_to_the_byte() -> None:
    """Servers "SHOULD retrieve the persisted invoice and respond to the payer with it" (bLIP 66)."""
    kept = Kept()
    _, answer = SERVER.on_invoice_request(kept.asked(), kept.request(), forward=True)
    assert answer == Send("static_invoice", REPLY_PATH, 70, kept.invoice, may_dial=True)


def test_request_that_was_forwarded_already_is_just_answered() -> None:
    """Each request is forwarded at most once: a client could make a loop (design, section 3)."""
    kept = Kept()
    (answer,) = SERVER.on_invoice_request(kept.asked(), kept.request(), forward=False)
    assert answer == Send("static_invoice", REPLY_PATH, 70, kept.invoice, may_dial=True)


def test_request_is_still_served_after_the_client_was_rotated() -> None:
    """Rotation is about request paths alone; offers that are out stay good (design)."""
    kept = Kept()
    rotated = replace(kept.loaded, client=replace(CLIENT, generation=CLIENT.generation + 1))
    assert len(SERVER.on_invoice_request(kept.asked(rotated), kept.request(), forward=True)) == 2


# --- invoice_error: only what lasts ---------------------------------------------------------------


NEWER = SlotMark(OfferTag(NOW_MS + 1_000, b"\0" * 6), NOW)


def lasting_states(kept: Kept) -> dict[str, tuple[Loaded, int]]:
    """What is known, and when, of an offer that will never be served again."""
    newer_invoice = replace(kept.stored, tag=NEWER.tag)
    return {
        "client removed": (Loaded(None, None, None), NOW_MS),
        "client revoked, invoice dropped": (Loaded(REVOKED, kept.mark, None), NOW_MS),
        "client revoked, invoice there": (Loaded(REVOKED, kept.mark, kept.stored), NOW_MS),
        "replaced by a newer offer": (Loaded(CLIENT, NEWER, newer_invoice), NOW_MS),
        "replaced by a newer offer that ended": (Loaded(CLIENT, NEWER, None), NOW_MS),
        "offer path expired": (kept.loaded, (NOW + LIFETIME) * 1000),
        "offer path expired before any invoice": (NOTHING, (NOW + LIFETIME) * 1000),
        "invoice ended, still in the store": (kept.loaded, kept.stored.expires_at * 1000),
        "invoice ended, gone from the store": (Loaded(CLIENT, kept.mark, None), NOW_MS),
    }


@pytest.mark.parametrize("state", lasting_states(Kept()))
@pytest.mark.parametrize("forward", [True, False])
def test_offer_replaced_expired_or_revoked_gets_invoice_error_alone(state: str, forward: bool) -> None:
    """`invoice_error` for causes that last, and the wallet is left alone (design, section 3)."""
    kept = Kept()
    loaded, now_ms = lasting_states(kept)[state]
    sends = SERVER.on_invoice_request(kept.asked(loaded, now_ms=now_ms), kept.request(), forward=forward)
    for sent in sends:
        assert isinstance(sent, Send)
        assert (sent.path, sent.content_type, sent.reply_path) == (REPLY_PATH, 68, None)
        assert kept.invoice not in sent.content
    bare, framed = (sent.content for sent in sends if isinstance(sent, Send))
    # BOLT 12 "Invoice Errors": TLV 5, `error`, is UTF-8 text.
    text = decode_tlvs(bare)[5].decode()
    assert text.startswith("This offer")
    # LDK reads it with a length before it, and only so.
    assert framed == bytes([len(bare)]) + bare


def test_last_second_of_an_offer_is_served() -> None:
    """Until its path expires an offer is good (bLIP 66 `paths_absolute_expiry`)."""
    kept = Kept()
    loaded = replace(kept.loaded, invoice=replace(kept.stored, expires_at=NOW + LIFETIME))
    arrival = kept.asked(loaded, now_ms=(NOW + LIFETIME) * 1000 - 1)
    assert len(SERVER.on_invoice_request(arrival, kept.request(), forward=True)) == 2


def test_payer_over_an_older_offers_path_never_gets_the_newer_offers_invoice() -> None:
    """The payer's offer is not the newer one: it could not tie the invoice to it (design, offer tag)."""
    older = Kept()
    newer = Kept(ask(older.loaded, now_ms=NOW_MS + 5_000))
    assert newer.stored.tag > older.stored.tag
    effects = SERVER.on_invoice_request(older.asked(newer.loaded), older.request(), forward=True)
    assert [effect.what for effect in effects if isinstance(effect, Send)] == [
        "invoice_error",
        "invoice_error_ldk",
    ]


# --- silence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["served", *lasting_states(Kept())])
def test_invoice_request_without_reply_path_is_met_with_silence(state: str) -> None:
    """Without a `reply_path` there is nowhere to answer, be it an invoice or an error (BOLT 12)."""
    kept = Kept()
    loaded, now_ms = (lasting_states(kept) | {"served": (kept.loaded, NOW_MS)})[state]
    with pytest.raises(NoReplyPath):
        SERVER.on_invoice_request(
            kept.asked(loaded, reply_path=None, now_ms=now_ms), kept.request(), forward=True
        )


@pytest.mark.parametrize("slot", ["empty", "an older offer's", "an older offer's that ended"])
def test_request_before_the_wallet_left_its_invoice_is_met_with_silence(slot: str) -> None:
    """What may pass is no lasting cause: the invoice may come any moment (design, invoice_error)."""
    older = Kept()
    kept = Kept(ask(older.loaded, now_ms=NOW_MS + 5_000))
    known = {
        "empty": NOTHING,
        "an older offer's": older.loaded,
        "an older offer's that ended": replace(older.loaded, invoice=None),
    }[slot]
    with pytest.raises(NoInvoiceYet):
        SERVER.on_invoice_request(kept.asked(known), kept.request(), forward=True)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({DESCRIPTION: b"Coffee!"}, id="another description"),
        pytest.param({DESCRIPTION: None, AMOUNT: None}, id="no description"),
        pytest.param({AMOUNT: b"\x01"}, id="a smaller amount"),
        pytest.param({AMOUNT: None}, id="no amount"),
        pytest.param({offers.OFFER_ISSUER: b"bob"}, id="an issuer more"),
        pytest.param({offers.OFFER_ABSOLUTE_EXPIRY: write_tu64(NOW + 9_999 * DAY)}, id="a later expiry"),
        pytest.param({offers.OFFER_ABSOLUTE_EXPIRY: None}, id="no expiry"),
        pytest.param({offers.OFFER_FEATURES: b"\x02"}, id="a feature more"),
        pytest.param({offers.OFFER_FEATURES: b""}, id="no features, spelled out"),
        pytest.param({offers.OFFER_ISSUER_ID: keys.public_key(b"\x07" * 32)}, id="another issuer_id"),
        pytest.param({offers.OFFER_ISSUER_ID: None}, id="no issuer_id"),
        pytest.param({79: b""}, id="an unknown odd field more"),
        pytest.param({1_999_999_999: b"\0"}, id="an experiment more"),
    ],
)
def test_request_whose_offer_differs_by_one_field_is_met_with_silence(
    changes: dict[int, bytes | None],
) -> None:
    """Reject if "the offer fields do not exactly match a valid, unexpired offer" (BOLT 12)."""
    kept = Kept(extra={DESCRIPTION: b"Coffee", AMOUNT: b"\x03"})
    records = {**kept.offer_records, **changes}
    other = offers.read_offer_fields({t: v for t in sorted(records) if (v := records[t]) is not None})
    request = offers.read_invoice_request(make_invoice_request(other))
    with pytest.raises(WrongOffer):
        SERVER.on_invoice_request(kept.asked(), request, forward=True)


def test_request_whose_offer_names_another_path_is_met_with_silence() -> None:
    """The paths are among the offer fields that must match (BOLT 12): here the path is another issue's."""
    kept = Kept()
    path = paths.encode_path(ask().message.paths[0])
    other = offers.read_offer_fields(kept.offer_records | {offers.OFFER_PATHS: path})
    with pytest.raises(WrongOffer):
        SERVER.on_invoice_request(
            kept.asked(), offers.read_invoice_request(make_invoice_request(other)), forward=True
        )


# --- BOLT 12's rules for the reader of a request --------------------------------------------------


def request_with(changes: dict[int, bytes | None], extra: dict[int, bytes] | None = None) -> bytes:
    """A request with records set or (None) taken out, signed by its payer's key, for an offer of `extra`."""
    payer_secret = b"\x09" * 32
    records = {
        offers.INVREQ_METADATA: b"metadata",
        **Kept(extra=extra or {}).offer_records,
        offers.INVREQ_CHAIN: bolt12.CHAINS["regtest"],
        offers.INVREQ_AMOUNT: b"\x05",
        offers.INVREQ_PAYER_ID: keys.public_key(payer_secret),
        **changes,
    }
    present = {type_: value for type_ in sorted(records) if (value := records[type_]) is not None}
    return encode_tlvs(bolt12.sign(present, "invoice_request", payer_secret))


PRICED = {AMOUNT: b"\x05", DESCRIPTION: b"five"}


@pytest.mark.parametrize(
    ("changes", "offer"),
    [
        pytest.param({offers.INVREQ_CHAIN: None}, {}, id="chain: Bitcoin's main one"),
        pytest.param({offers.INVREQ_CHAIN: bolt12.CHAINS["signet"]}, {}, id="chain: another"),
        pytest.param({offers.INVREQ_AMOUNT: None}, {}, id="amount: none at all"),
        pytest.param({offers.INVREQ_AMOUNT: b"\x04"}, PRICED, id="amount: less than the offer's"),
        pytest.param(
            {offers.INVREQ_AMOUNT: b"\x09", offers.INVREQ_QUANTITY: b"\x02"},
            PRICED | {QUANTITY_MAX: b""},
            id="amount: less than two of them",
        ),
        pytest.param({offers.INVREQ_AMOUNT: b"\x00\x05"}, {}, id="amount: a leading zero"),
        pytest.param({offers.INVREQ_QUANTITY: b"\x01"}, {}, id="quantity: none is offered"),
        pytest.param({}, {QUANTITY_MAX: b"\x03"}, id="quantity: not given"),
        pytest.param({offers.INVREQ_QUANTITY: b""}, {QUANTITY_MAX: b"\x03"}, id="quantity: zero"),
        pytest.param({offers.INVREQ_QUANTITY: b"\x04"}, {QUANTITY_MAX: b"\x03"}, id="quantity: too many"),
        pytest.param({offers.INVREQ_FEATURES: b"\x01"}, {}, id="features: unknown even bit"),
        pytest.param({offers.INVREQ_FEATURES: b"\x40\0\0"}, {}, id="features: a high unknown even bit"),
        pytest.param({92: b""}, {}, id="unknown even field"),
        pytest.param({2_000_000_000: b""}, {}, id="unknown even experiment"),
        pytest.param({160: b""}, {}, id="field of an invoice"),
        pytest.param({3_000_000_001: b""}, {}, id="experiment of an invoice"),
        pytest.param({offers.INVREQ_METADATA: None}, {}, id="no metadata"),
        pytest.param({offers.INVREQ_PAYER_NOTE: b"\xff"}, {}, id="payer note: not UTF-8"),
        pytest.param({offers.INVREQ_PATHS: b""}, {}, id="paths: none"),
    ],
)
def test_request_that_breaks_a_rule_of_bolt_12_is_refused(
    changes: dict[int, bytes | None], offer: dict[int, bytes]
) -> None:
    """MUST reject (BOLT 12 "Invoice Requests", requirements for readers): a table of its rules."""
    with pytest.raises(BadInvoiceRequest):
        offers.read_invoice_request(request_with(changes, offer))


@pytest.mark.parametrize(
    ("changes", "offer"),
    [
        pytest.param({offers.INVREQ_AMOUNT: None}, PRICED, id="the offer's amount is meant"),
        pytest.param({}, PRICED, id="just the amount"),
        pytest.param(
            {offers.INVREQ_AMOUNT: b"\x0a", offers.INVREQ_QUANTITY: b"\x02"},
            PRICED | {QUANTITY_MAX: b""},
            id="two of unlimited many",
        ),
        pytest.param({offers.INVREQ_QUANTITY: b"\x03"}, {QUANTITY_MAX: b"\x03"}, id="as many as offered"),
        pytest.param({offers.INVREQ_FEATURES: b"\x82"}, {}, id="odd features"),
        pytest.param({93: b"", 2_000_000_001: b""}, {}, id="odd fields"),
    ],
)
def test_request_that_keeps_the_rules_of_bolt_12_is_read(
    changes: dict[int, bytes | None], offer: dict[int, bytes]
) -> None:
    """What the rules do not forbid is served, odd fields included (BOLT 1: "it's OK to be odd")."""
    data = request_with(changes, offer)
    assert offers.read_invoice_request(data).encoded == data


@pytest.mark.parametrize("how", ["flipped", "missing", "another message's tag", "another payer_id"])
def test_request_with_a_wrong_signature_is_refused(how: str) -> None:
    """MUST reject "if `signature` is not correct" (BOLT 12 "Invoice Requests")."""
    records = decode_tlvs(request_with({}))
    if how == "flipped":
        records[bolt12.SIGNATURE] = bytes([records[bolt12.SIGNATURE][0] ^ 1]) + records[bolt12.SIGNATURE][1:]
    elif how == "missing":
        del records[bolt12.SIGNATURE]
    elif how == "another message's tag":
        records = bolt12.sign(records, "invoice", b"\x09" * 32)
    else:
        records[offers.INVREQ_PAYER_ID] = keys.public_key(b"\x08" * 32)
    with pytest.raises(BadSignature):
        offers.read_invoice_request(encode_tlvs(records))


def test_types_of_the_answers_are_those_that_payers_know() -> None:
    """invoice_request 64, invoice_error 68 (BOLT 12), static_invoice 70 (LDK)."""
    assert (messages.INVOICE_REQUEST, messages.INVOICE_ERROR, messages.STATIC_INVOICE) == (64, 68, 70)
