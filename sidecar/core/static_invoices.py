"""Static invoices: BOLT 12 invoices without a payment_hash, as bLIP 66 leaves them with a server."""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.core import bolt12, keys, paths
from sidecar.core.errors import (
    BadSignature,
    BadStaticInvoice,
    InvoiceTooLarge,
    Malformed,
    WrongChain,
    WrongOffer,
)
from sidecar.core.offers import (
    OFFER_EVEN,
    OFFER_PATHS,
    InvoiceRequest,
    Offer,
    is_offer_type,
    is_signature_type,
    offer_fields,
    read_offer_fields,
)
from sidecar.core.wire import MAX_U64, decode_tlvs, read_tu64, refuse_unknown_even

MAX_STATIC_INVOICE = 5_120
"""Bytes; what LDK's own server takes."""

DEFAULT_RELATIVE_EXPIRY = 14 * 24 * 3600
"""Seconds. BOLT 12 says 7,200 for invoices; for static ones LDK says two weeks."""

INVOICE_PATHS, INVOICE_BLINDEDPAY, INVOICE_CREATED_AT, INVOICE_RELATIVE_EXPIRY = 160, 162, 164, 166
INVOICE_PAYMENT_HASH, INVOICE_AMOUNT, INVOICE_FALLBACKS, INVOICE_FEATURES = 168, 170, 172, 174
INVOICE_NODE_ID, STATIC_INVOICE_MESSAGE_PATHS = 176, 236

_STATIC_EVEN = OFFER_EVEN | {
    INVOICE_PATHS,
    INVOICE_BLINDEDPAY,
    INVOICE_CREATED_AT,
    INVOICE_RELATIVE_EXPIRY,
    INVOICE_FALLBACKS,
    INVOICE_FEATURES,
    INVOICE_NODE_ID,
    STATIC_INVOICE_MESSAGE_PATHS,
    bolt12.SIGNATURE,
}


@dataclass(frozen=True, slots=True)
class StaticInvoice:
    """A verified static invoice; times in seconds since the epoch."""

    records: dict[int, bytes]
    offer: Offer
    created_at: int
    expires_at: int


def read_static_invoice(data: bytes, chain: bytes) -> StaticInvoice:
    """A static invoice as a server takes it: fields, chain and signature; time is the caller's.

    Raises InvoiceTooLarge, WrongChain, BadStaticInvoice, BadSignature.
    """
    if len(data) > MAX_STATIC_INVOICE:
        raise InvoiceTooLarge(f"a static invoice of {len(data)} bytes; {MAX_STATIC_INVOICE} at most")
    try:
        records = decode_tlvs(data)
        invoice = _read_static_invoice(records)
        if len(invoice.offer.chains) > 1:
            raise BadStaticInvoice("a static invoice for more than one chain")
        if invoice.offer.chains[0] != chain:
            raise WrongChain("a static invoice for another chain than this node's")
        bolt12.verify(records, "static_invoice", records[INVOICE_NODE_ID])
    except (BadStaticInvoice, BadSignature):
        raise
    except Malformed as error:
        raise BadStaticInvoice(f"static_invoice: {error}") from None
    return invoice


def stored_static_invoice(data: bytes) -> StaticInvoice:
    """A static invoice that `read_static_invoice` let through when it was stored. Raises Malformed."""
    return _read_static_invoice(decode_tlvs(data))


def stored_offer(data: bytes) -> Mapping[int, bytes]:
    """The records of its offer alone: a quarter of the time. Raises Malformed."""
    return offer_fields(decode_tlvs(data))


def _is_invoice_type(type_: int) -> bool:
    return (
        is_offer_type(type_)
        or 160 <= type_ <= 239
        or is_signature_type(type_)
        or 3_000_000_000 <= type_ <= 3_999_999_999
    )


_REQUIRED = {
    OFFER_PATHS: "offer_paths",
    INVOICE_PATHS: "invoice_paths",
    INVOICE_BLINDEDPAY: "invoice_blindedpay",
    INVOICE_CREATED_AT: "invoice_created_at",
    INVOICE_NODE_ID: "invoice_node_id",
    STATIC_INVOICE_MESSAGE_PATHS: "invoice_message_paths",
}


def _read_static_invoice(records: dict[int, bytes]) -> StaticInvoice:
    # 168 (payment_hash) and 170 (amount) are among the types that are refused here:
    # a static invoice has neither.
    refuse_unknown_even(records, _STATIC_EVEN)
    if outside := [type_ for type_ in records if not _is_invoice_type(type_)]:
        raise BadStaticInvoice(f"TLV type {outside[0]} has no place in a static invoice")
    for type_, name in _REQUIRED.items():
        if type_ not in records:
            raise BadStaticInvoice(f"a static invoice without {name}")
    offer = read_offer_fields(records)
    # "the number of `blindedpay` … MUST equal the number of `invoice_paths`"
    if len(paths.decode_paths(records[INVOICE_PATHS])) != _count_blindedpay(records[INVOICE_BLINDEDPAY]):
        raise BadStaticInvoice("as many invoice_blindedpay as invoice_paths are due")
    paths.decode_paths(records[STATIC_INVOICE_MESSAGE_PATHS])
    node_id = keys.check_point(records[INVOICE_NODE_ID])
    # The invoice is signed by whom the offer names: "offer_issuer_id", or without one
    # the final blinded_node_id of one of the offer's paths.
    signers = (
        [offer.issuer_id] if offer.issuer_id else [path.hops[-1].blinded_node_id for path in offer.paths]
    )
    if node_id not in signers:
        raise BadStaticInvoice("invoice_node_id is not whom the offer names")
    created_at = read_tu64(records[INVOICE_CREATED_AT])
    relative = records.get(INVOICE_RELATIVE_EXPIRY)
    seconds = DEFAULT_RELATIVE_EXPIRY if relative is None else read_tu64(relative, 4)
    # A wallet may date it to the end of time: no later moment can be told in an API of ours.
    return StaticInvoice(records, offer, created_at, min(created_at + seconds, MAX_U64))


def _count_blindedpay(value: bytes) -> int:
    # u32 fee_base ‖ u32 fee_proportional ‖ u16 cltv_expiry_delta ‖ u64 min ‖ u64 max ‖ u16 flen ‖ features
    position, count = 0, 0
    while position < len(value):
        length = int.from_bytes(value[position + 26 : position + 28], "big")
        position += 28 + length
        count += 1
    if position != len(value):
        raise BadStaticInvoice("invoice_blindedpay that is cut short")
    return count


def check_offer(request: InvoiceRequest, offer: Mapping[int, bytes], now: int) -> None:
    """Whether a request asks for just this offer, given by its records, still good. Raises WrongOffer.

    "MUST reject the invoice request if the offer fields do not exactly match a valid, unexpired offer."
    """
    if request.offer.records != offer:
        raise WrongOffer("the request's offer is not the stored invoice's")
    if request.offer.absolute_expiry is not None and request.offer.absolute_expiry <= now:
        raise WrongOffer("the offer has expired")
