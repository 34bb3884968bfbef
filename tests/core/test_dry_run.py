"""What a payer of a stored invoice's offer would get: the server itself is asked, with nobody there."""

import os
from dataclasses import replace

import pytest

from sidecar.core import bolt12, offers, static_invoices
from sidecar.core.context import Context
from sidecar.core.dry_run import DryRun, dry_run, offer_paths, stored_invoice
from sidecar.core.errors import NoSuchInvoice
from sidecar.core.model import Loaded, OfferTag, SlotMark
from sidecar.core.wire import encode_tlvs, write_tu64
from tests.core.server_cases import CLIENT, NOW, NOW_MS, PAUSED, REVOKED, SERVER, Kept, signed
from tests.harness.wallet import CHAIN

SAME = object()


def run(
    kept: Kept,
    loaded: Loaded | None = None,
    *,
    opened: object = SAME,
    now_ms: int = NOW_MS,
    chain: bytes = CHAIN,
) -> DryRun:
    """A dry run of the kept offer."""
    loaded = kept.loaded if loaded is None else loaded
    assert loaded.invoice is not None
    context: Context | None = kept.offer_context if opened is SAME else opened  # type: ignore[assignment]
    return dry_run(
        SERVER,
        chain,
        loaded=loaded,
        stored=loaded.invoice,
        opened=context,
        now_ms=now_ms,
        entropy=os.urandom,
    )


# --- what is served ---------------------------------------------------------------------------------


def test_a_good_invoice_is_what_a_payer_gets() -> None:
    """And the request goes on to the wallet; the offer is the string that its wallet shows."""
    kept = Kept()
    found = run(kept)
    assert (found.outcome, found.reason, found.forwarded) == ("static_invoice", "", True)
    assert found.offer_string == kept.wallet.offer_string(kept.offer_records)
    assert found.invoice is not None
    assert found.invoice.expires_at == NOW - 60 + static_invoices.DEFAULT_RELATIVE_EXPIRY
    assert found.description == ""


@pytest.mark.parametrize(
    "extra",
    [
        {offers.OFFER_AMOUNT: write_tu64(5_000), offers.OFFER_DESCRIPTION: "Käse".encode()},
        {
            offers.OFFER_AMOUNT: write_tu64(10),
            offers.OFFER_CURRENCY: b"EUR",
            offers.OFFER_DESCRIPTION: "Käse".encode(),
        },
        {offers.OFFER_QUANTITY_MAX: b"", offers.OFFER_DESCRIPTION: "Käse".encode()},
        {offers.OFFER_QUANTITY_MAX: write_tu64(3), offers.OFFER_DESCRIPTION: "Käse".encode()},
    ],
    ids=["amount", "currency", "any quantity", "quantity"],
)
def test_the_made_up_payer_asks_as_the_offer_wants_it(extra: dict[int, bytes]) -> None:
    """Amounts and quantities are the payer's to give where the offer says so, and only there."""
    kept = Kept(extra=extra)
    kept.offer_records = dict(sorted(kept.offer_records.items()))
    kept.invoice = kept.wallet.make_invoice(kept.offer_records, created_at=NOW - 60)
    kept.stored = replace(kept.stored, invoice=kept.invoice)
    found = run(kept, Loaded(CLIENT, kept.mark, kept.stored))
    assert (found.outcome, found.reason, found.description) == ("static_invoice", "", "Käse")


# --- what is not ------------------------------------------------------------------------------------


def test_a_paused_client_is_met_with_silence() -> None:
    """Its invoice waits."""
    kept = Kept()
    found = run(kept, replace(kept.loaded, client=PAUSED))
    assert (found.outcome, found.reason, found.forwarded) == ("silence", "client-paused", False)


def test_a_revoked_clients_payers_are_told_so() -> None:
    """Where an invoice of it is left, as after a crash."""
    kept = Kept()
    found = run(kept, replace(kept.loaded, client=REVOKED))
    assert (found.outcome, found.reason) == ("invoice_error", "client-revoked")
    assert found.explanation == "This offer is not served any more."


def test_an_expired_offers_payers_are_told_so() -> None:
    """Its paths have ended."""
    kept = Kept()
    found = run(kept, now_ms=kept.offer_context.expires_at * 1_000)
    assert (found.outcome, found.reason) == ("invoice_error", "context-expired")
    assert found.explanation == "This offer has expired."


def test_the_payers_of_an_invoice_that_is_over_are_told_so() -> None:
    """When it should have left the store already."""
    kept = Kept()
    found = run(kept, now_ms=kept.stored.expires_at * 1_000)
    assert (found.outcome, found.reason) == ("invoice_error", "invoice-expired")


def test_an_offer_whose_paths_lead_elsewhere_is_met_with_silence() -> None:
    """No request for it ever comes here: LND has another key than when they were made."""
    kept = Kept()
    for opened in (None, kept.update_context):
        found = run(kept, opened=opened)
        assert (found.outcome, found.reason) == ("silence", "wrong-offer-paths")
        assert "LND's seed" in found.explanation


def test_the_offer_of_another_tag_is_met_with_silence() -> None:
    """The path in the invoice's offer is not that which the invoice was left for."""
    kept = Kept()
    newer = OfferTag(kept.stored.tag.issued_at_ms + 1, kept.stored.tag.nonce)
    found = run(kept, opened=replace(kept.offer_context, tag=newer))
    assert (found.outcome, found.reason) == ("silence", "no-invoice-yet")


def test_an_invoice_of_another_chain_is_one_that_no_request_fits() -> None:
    """A payer on this chain can't even ask."""
    found = run(Kept(), chain=bolt12.CHAINS["mainnet"])
    assert (found.outcome, found.reason) == ("silence", "bad-invoice-request")


# --- what payers refuse -----------------------------------------------------------------------------


def test_an_invoice_with_a_bad_signature_is_sent_and_refused() -> None:
    """The server does not check it again, payers do."""
    kept = Kept()
    broken = kept.invoice[:-1] + bytes([kept.invoice[-1] ^ 1])
    found = run(kept, replace(kept.loaded, invoice=replace(kept.stored, invoice=broken)))
    assert (found.outcome, found.reason) == ("static_invoice", "bad-signature")


def test_an_invoice_that_has_expired_by_its_own_word_is_sent_and_refused() -> None:
    """It is kept as long as it says, so this is a clock that was wrong."""
    kept = Kept()
    short = signed(kept, {static_invoices.INVOICE_RELATIVE_EXPIRY: write_tu64(10)})
    found = run(kept, replace(kept.loaded, invoice=replace(kept.stored, invoice=short)))
    assert (found.outcome, found.reason) == ("static_invoice", "invoice-expired")


def test_an_invoice_that_can_not_be_read_is_met_with_silence() -> None:
    """Of a disk that has lost its memory: its offer is not known."""
    kept = Kept()
    for data in (b"", b"\x00", kept.invoice[:-70], encode_tlvs({2: b"x"})):
        found = run(kept, replace(kept.loaded, invoice=replace(kept.stored, invoice=data)))
        assert found.outcome == "silence"
        assert found.reason != ""
        assert (found.offer_string, found.description, found.offer) == ("", "", None)
        assert offer_paths(found.stored) == ()


# --- what is not there ------------------------------------------------------------------------------


def test_an_empty_slot_is_said_to_be_empty_and_why() -> None:
    """Never used, over, or of a client that is revoked: the operator does another thing about each."""
    mark = SlotMark(OfferTag(1, bytes(6)), 1)
    for loaded, said in (
        (Loaded(CLIENT, None, None), "its wallet has left none yet"),
        (Loaded(CLIENT, mark, None), "the last one has expired"),
        (Loaded(REVOKED, mark, None), "the client is revoked"),
    ):
        with pytest.raises(NoSuchInvoice, match=f"slot 3 of alice.*{said}"):
            stored_invoice(loaded, "slot 3 of alice")


def test_the_paths_of_a_stored_offer_are_those_that_were_issued() -> None:
    """Walking the first tells where payers' requests arrive."""
    kept = Kept()
    assert offer_paths(kept.stored) == kept.issued.message.paths
    assert stored_invoice(kept.loaded, "slot 0") == kept.stored
