"""What a payer of a stored invoice's offer would get now: a made-up payer asks the very server.

Nothing is sent, and nothing of what limits payers (rates, repeated requests) is looked at.
"""

from dataclasses import dataclass
from typing import Literal

from sidecar.core import bolt12, keys, messages, offers, paths, static_invoices
from sidecar.core.context import Context, Kind, OfferContext
from sidecar.core.effects import Effect, Send
from sidecar.core.errors import (
    ClientRevoked,
    ContextExpired,
    InvoiceExpired,
    NoSuchInvoice,
    SidecarError,
    WrongOfferPaths,
)
from sidecar.core.model import ClientState, Loaded, StoredInvoice
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.core.server import Arrival, Entropy, StaticInvoiceServer
from sidecar.core.static_invoices import StaticInvoice
from sidecar.core.wire import decode_tlvs, encode_tlvs, write_tu64

AMOUNT_MSAT = 1_000
"""What the made-up payer offers where the offer leaves it to the payer."""

Outcome = Literal["static_invoice", "invoice_error", "silence"]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a payer would get, and of which offer; `reason` is empty for a good invoice.

    A static_invoice with a reason is one that payers refuse. `forwarded`: the request would go on to
    the wallet too. `invoice` and `offer` are None for what can't be read any more.
    """

    outcome: Outcome
    reason: str
    explanation: str
    stored: StoredInvoice
    invoice: StaticInvoice | None = None
    forwarded: bool = False

    @property
    def offer(self) -> Offer | None:
        """The invoice's."""
        return None if self.invoice is None else self.invoice.offer

    @property
    def offer_string(self) -> str:
        """`lno1…` (BOLT 12, "Encoding"); empty when there is no offer."""
        return "" if self.offer is None else bolt12.encode_string("lno", encode_tlvs(self.offer.records))

    @property
    def description(self) -> str:
        """The offer's own words."""
        return "" if self.offer is None else self.offer.records.get(offers.OFFER_DESCRIPTION, b"").decode()


def stored_invoice(loaded: Loaded, what: str) -> StoredInvoice:
    """The slot's invoice; `what` names the slot. Raises NoSuchInvoice."""
    if loaded.invoice is not None:
        return loaded.invoice
    if loaded.client is not None and loaded.client.state is ClientState.REVOKED:
        raise NoSuchInvoice(
            f"no invoice is stored in {what}: the client is revoked, and its payers are told so"
        )
    if loaded.mark is not None:
        raise NoSuchInvoice(
            f"no invoice is stored in {what} any more: the last one has expired; its wallet leaves another "
            "one when it is online"
        )
    raise NoSuchInvoice(f"no invoice is stored in {what}: its wallet has left none yet")


def offer_paths(stored: StoredInvoice) -> tuple[BlindedPath, ...]:
    """The paths of its offer; none when the invoice can't be read."""
    try:
        return static_invoices.stored_static_invoice(stored.invoice).offer.paths
    except SidecarError:
        return ()


def dry_run(
    server: StaticInvoiceServer,
    chain: bytes,
    *,
    loaded: Loaded,
    stored: StoredInvoice,
    opened: Context | None,
    now_ms: int,
    entropy: Entropy,
) -> DryRun:
    """Ask the server for the stored invoice's offer, over the path that `opened` is the end of.

    `opened`: where the offer's first path leads, walked; None when not to us.
    """
    invoice: StaticInvoice | None = None
    try:
        invoice = static_invoices.stored_static_invoice(stored.invoice)
        if not isinstance(opened, OfferContext) or opened.kind is not Kind.INVOICE_REQUEST:
            raise WrongOfferPaths(
                "the offer's paths do not lead to this server: is LND's seed another one now?"
            )
        payer = entropy(32)
        request = offers.read_invoice_request(_request(invoice.offer, chain, payer, entropy))
        reply_path = paths.build(entropy(32), [(keys.public_key(payer), paths.path_id_data(b"dry run"))])
        effects = server.on_invoice_request(
            Arrival(opened, reply_path, loaded, now_ms), request, forward=True
        )
    except SidecarError as error:
        return DryRun("silence", error.reason, str(error), stored, invoice)
    complaint = _complaint(effects)
    if complaint is not None:
        return DryRun("invoice_error", _why(loaded, opened, now_ms), complaint, stored, invoice)
    forwarded = any(isinstance(each, Send) and each.what == "invoice_request" for each in effects)
    try:
        static_invoices.read_static_invoice(stored.invoice, chain)
        if invoice.expires_at <= now_ms // 1000:
            raise InvoiceExpired("the invoice has expired: payers refuse it")
    except SidecarError as error:
        return DryRun("static_invoice", error.reason, str(error), stored, invoice, forwarded)
    return DryRun("static_invoice", "", "the invoice is good", stored, invoice, forwarded)


def _request(offer: Offer, chain: bytes, payer: bytes, entropy: Entropy) -> bytes:
    """A signed invoice_request, as a payer makes it (BOLT 12, "Requirements for Invoice Requests")."""
    records = {
        offers.INVREQ_METADATA: entropy(32),
        **offer.records,
        offers.INVREQ_CHAIN: chain,
        offers.INVREQ_PAYER_ID: keys.public_key(payer),
    }
    if offer.amount is None:
        records[offers.INVREQ_AMOUNT] = write_tu64(AMOUNT_MSAT)
    if offer.quantity_max is not None:
        records[offers.INVREQ_QUANTITY] = write_tu64(1)
    return encode_tlvs(bolt12.sign(records, "invoice_request", payer))


def _complaint(effects: list[Effect]) -> str | None:
    """What an invoice_error among effects tells the payer."""
    for effect in effects:
        if isinstance(effect, Send) and effect.what == "invoice_error":
            return decode_tlvs(effect.content)[messages.INVOICE_ERROR_TEXT].decode()
    return None


def _why(loaded: Loaded, context: OfferContext, now_ms: int) -> str:
    """The slug of a complaint: the server itself has words for the payer alone."""
    if loaded.client is None or loaded.client.state is ClientState.REVOKED:
        return ClientRevoked.reason
    return ContextExpired.reason if context.expires_at <= now_ms // 1000 else InvoiceExpired.reason
