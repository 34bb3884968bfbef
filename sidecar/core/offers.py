"""Offers and invoice_requests, read by BOLT 12's rules for their readers."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from sidecar.core import bolt12, keys, paths
from sidecar.core.errors import BadInvoiceRequest, BadOffer, BadSignature, Malformed
from sidecar.core.paths import BlindedPath
from sidecar.core.wire import decode_tlvs, read_tu64, refuse_unknown_even

OFFER_CHAINS, OFFER_CURRENCY, OFFER_AMOUNT, OFFER_DESCRIPTION, OFFER_FEATURES = 2, 6, 8, 10, 12
OFFER_ABSOLUTE_EXPIRY, OFFER_PATHS, OFFER_ISSUER, OFFER_QUANTITY_MAX, OFFER_ISSUER_ID = 14, 16, 18, 20, 22
INVREQ_METADATA, INVREQ_CHAIN, INVREQ_AMOUNT, INVREQ_FEATURES, INVREQ_QUANTITY = 0, 80, 82, 84, 86
INVREQ_PAYER_ID, INVREQ_PAYER_NOTE, INVREQ_PATHS, INVREQ_BIP_353_NAME = 88, 89, 90, 91

OFFER_EVEN = frozenset(range(2, 24, 2))
_INVREQ_EVEN = OFFER_EVEN | {INVREQ_METADATA, 80, 82, 84, 86, 88, 90, bolt12.SIGNATURE}

T = TypeVar("T")


def is_offer_type(type_: int) -> bool:
    """Whether BOLT 12 gives this TLV type to offers."""
    return 1 <= type_ <= 79 or 1_000_000_000 <= type_ <= 1_999_999_999


def is_signature_type(type_: int) -> bool:
    """Whether BOLT 12 keeps this TLV type for signatures."""
    return 240 <= type_ <= 1000


def offer_fields(records: Mapping[int, bytes]) -> dict[int, bytes]:
    """The offer's records in an invoice_request or invoice: "MUST copy all fields from the offer"."""
    return {type_: value for type_, value in records.items() if is_offer_type(type_)}


def _has_even_bit(features: bytes) -> bool:
    return any(byte & 0x55 for byte in features)


def _utf8(value: bytes) -> str:
    try:
        return value.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise Malformed("text that is not UTF-8") from None


def _optional(records: Mapping[int, bytes], type_: int, read: Callable[[bytes], T]) -> T | None:
    value = records.get(type_)
    return None if value is None else read(value)


def _chains(value: bytes) -> tuple[bytes, ...]:
    # "An empty `offer_chains` (present but with zero entries) is explicitly invalid"
    if not value or len(value) % 32:
        raise Malformed(f"offer_chains of {len(value)} bytes")
    return tuple(value[i : i + 32] for i in range(0, len(value), 32))


_CURRENCY = re.compile("[A-Z]{3}")  # ISO 4217


# --- offers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """The fields of an offer that a server needs; `records` are all of them.

    `absolute_expiry` is in seconds since the epoch, `amount` in msat (or in `currency`).
    """

    records: Mapping[int, bytes]
    chains: tuple[bytes, ...]
    amount: int | None
    currency: str | None
    absolute_expiry: int | None
    paths: tuple[BlindedPath, ...]
    quantity_max: int | None
    issuer_id: bytes | None


def read_offer(data: bytes) -> Offer:
    """An offer's bytes, by the rules for its reader (BOLT 12, "Requirements For Offers").

    Time and chain are for the caller to judge. Raises BadOffer.
    """
    try:
        records = decode_tlvs(data)
        # "if the offer contains any TLV fields outside the inclusive ranges: … MUST NOT respond"
        if outside := [type_ for type_ in records if not is_offer_type(type_)]:
            raise BadOffer(f"TLV type {outside[0]} has no place in an offer")
        return read_offer_fields(records)
    except BadOffer:
        raise
    except Malformed as error:
        raise BadOffer(f"offer: {error}") from None


def read_offer_fields(records: Mapping[int, bytes]) -> Offer:
    """The offer that an invoice_request or invoice mirrors. Raises Malformed, BadOffer."""
    fields = offer_fields(records)
    small = len(fields) <= _KEPT_RECORDS and sum(map(len, fields.values())) <= _KEPT_BYTES
    return (_read_offer if small else _read_offer.__wrapped__)(tuple(fields.items()))


_KEPT_RECORDS, _KEPT_BYTES = 16, 1_024
"""Of an offer that is remembered: far more than one with a path of ours has, and little enough for 256.

A stranger's may be of 32 kB and five thousand records, and his signature is checked later.
"""


# Many payers ask for one and the same offer. It is kept by its content; rubbish raises, and is not kept.
@lru_cache(maxsize=256)
def _read_offer(items: tuple[tuple[int, bytes], ...]) -> Offer:
    fields = dict(items)
    refuse_unknown_even(fields, OFFER_EVEN)
    _optional(fields, OFFER_DESCRIPTION, _utf8)
    _optional(fields, OFFER_ISSUER, _utf8)
    offer = Offer(
        records=fields,
        chains=_optional(fields, OFFER_CHAINS, _chains) or (bolt12.BITCOIN,),
        amount=_optional(fields, OFFER_AMOUNT, read_tu64),
        currency=_optional(fields, OFFER_CURRENCY, _utf8),
        absolute_expiry=_optional(fields, OFFER_ABSOLUTE_EXPIRY, read_tu64),
        paths=_optional(fields, OFFER_PATHS, paths.decode_paths) or (),
        quantity_max=_optional(fields, OFFER_QUANTITY_MAX, read_tu64),
        issuer_id=_optional(fields, OFFER_ISSUER_ID, keys.check_point),
    )
    # "if `offer_features` contains unknown _even_ bits that are non-zero: MUST NOT respond"
    if _has_even_bit(fields.get(OFFER_FEATURES, b"")):
        raise BadOffer("offer_features demands a feature that we do not know")
    # "if `offer_amount` is set and `offer_description` is not set: MUST NOT respond"
    if offer.amount is not None and OFFER_DESCRIPTION not in fields:
        raise BadOffer("offer_amount without offer_description")
    # "if `offer_amount` is set and is not greater than zero: MUST NOT respond"
    if offer.amount == 0:
        raise BadOffer("offer_amount is zero")
    # "if `offer_currency` is set and `offer_amount` is not set: MUST NOT respond"
    if offer.currency is not None and offer.amount is None:
        raise BadOffer("offer_currency without offer_amount")
    if offer.currency is not None and not _CURRENCY.fullmatch(offer.currency):
        raise BadOffer("offer_currency is no ISO 4217 code")
    # "if neither `offer_issuer_id` nor `offer_paths` are set: MUST NOT respond"
    if offer.issuer_id is None and not offer.paths:
        raise BadOffer("neither offer_issuer_id nor offer_paths")
    return offer


def decode_offer(text: str) -> Offer:
    """An `lno1…` string. Raises BadOffer."""
    prefix, data = bolt12.decode_string(text)
    if prefix != "lno":
        raise BadOffer(f"an offer string starts with `lno1`, not `{prefix}1`")
    return read_offer(data)


# --- invoice_request ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InvoiceRequest:
    """A verified invoice_request; `amount` in msat."""

    encoded: bytes
    records: dict[int, bytes]
    offer: Offer
    chain: bytes
    amount: int | None
    quantity: int | None

    @property
    def signature(self) -> bytes:
        """64 bytes, other for each request."""
        return self.records[bolt12.SIGNATURE]


def read_invoice_request(data: bytes) -> InvoiceRequest:
    """An invoice_request by the rules for its reader, signature included.

    Whether it names an offer that is served is for static_invoices.check_offer to judge.
    Raises BadInvoiceRequest, BadSignature.
    """
    try:
        records = decode_tlvs(data)
        request = _read_invoice_request(data, records)
        # "MUST reject the invoice request if `signature` is not correct"
        bolt12.verify(records, "invoice_request", records[INVREQ_PAYER_ID])
    except (BadInvoiceRequest, BadSignature):
        raise
    except Malformed as error:
        raise BadInvoiceRequest(f"invoice_request: {error}") from None
    return request


def _is_invreq_type(type_: int) -> bool:
    # "outside the inclusive ranges: 0 to 159 and 1000000000 to 2999999999", signatures aside
    return 0 <= type_ <= 159 or is_signature_type(type_) or 1_000_000_000 <= type_ <= 2_999_999_999


def _read_invoice_request(data: bytes, records: dict[int, bytes]) -> InvoiceRequest:
    if outside := [type_ for type_ in records if not _is_invreq_type(type_)]:
        raise BadInvoiceRequest(f"TLV type {outside[0]} has no place in an invoice_request")
    refuse_unknown_even(records, _INVREQ_EVEN)
    # "MUST reject the invoice request if `invreq_payer_id` or `invreq_metadata` are not present."
    for type_, name in ((INVREQ_PAYER_ID, "invreq_payer_id"), (INVREQ_METADATA, "invreq_metadata")):
        if type_ not in records:
            raise BadInvoiceRequest(f"invoice_request without {name}")
    # Whether it is a point, the check of the signature tells.
    keys.check_point_form(records[INVREQ_PAYER_ID])
    # "if `invreq_features` contains unknown _even_ bits that are non-zero: MUST reject"
    if _has_even_bit(records.get(INVREQ_FEATURES, b"")):
        raise BadInvoiceRequest("invreq_features demands a feature that we do not know")
    _optional(records, INVREQ_PAYER_NOTE, _utf8)
    # "if `num_hops` is 0 in any `blinded_path` in `invreq_paths`: MUST reject"
    _optional(records, INVREQ_PATHS, paths.decode_paths)
    _optional(records, INVREQ_BIP_353_NAME, _check_bip_353_name)
    chain = records.get(INVREQ_CHAIN, bolt12.BITCOIN)
    if len(chain) != 32:
        raise BadInvoiceRequest(f"invreq_chain of {len(chain)} bytes")
    request = InvoiceRequest(
        encoded=data,
        records=records,
        offer=read_offer_fields(records),
        chain=chain,
        amount=_optional(records, INVREQ_AMOUNT, read_tu64),
        quantity=_optional(records, INVREQ_QUANTITY, read_tu64),
    )
    _check_quantity(request)
    _check_amount(request)
    if chain not in request.offer.chains:
        raise BadInvoiceRequest("invreq_chain is none of the offer's chains")
    return request


def _check_quantity(request: InvoiceRequest) -> None:
    most, quantity = request.offer.quantity_max, request.quantity
    # "if `offer_quantity_max` is present: MUST reject the invoice request if there is no
    # `invreq_quantity` field. … otherwise: MUST reject … if there is an `invreq_quantity` field."
    if (most is None) != (quantity is None):
        raise BadInvoiceRequest("invreq_quantity goes with offer_quantity_max")
    # "if `offer_quantity_max` is non-zero: MUST reject the invoice request if
    # `invreq_quantity` is zero, OR greater than `offer_quantity_max`."
    if quantity == 0 or (most and quantity is not None and quantity > most):
        raise BadInvoiceRequest(f"invreq_quantity {quantity} where at most {most} is offered")


def _check_amount(request: InvoiceRequest) -> None:
    amount, wanted = request.amount, request.offer.amount
    # "otherwise (no `offer_amount`): MUST reject … if it does not contain `invreq_amount`."
    if wanted is None:
        if amount is None:
            raise BadInvoiceRequest("neither offer_amount nor invreq_amount")
        return
    # An amount in another currency is the wallet's to convert: it sees the request too.
    if request.offer.currency is None and amount is not None and amount < wanted * (request.quantity or 1):
        raise BadInvoiceRequest(f"invreq_amount {amount} msat is less than the offer asks")


_BIP_353_LETTERS = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.")


def _check_bip_353_name(value: bytes) -> None:
    name_end = 1 + value[0] if value else 0
    name, rest = value[1:name_end], value[name_end:]
    if not rest or len(rest) != 1 + rest[0]:
        raise BadInvoiceRequest("invreq_bip_353_name whose lengths do not add up")
    if not _BIP_353_LETTERS.issuperset(name + rest[1:]):
        raise BadInvoiceRequest("invreq_bip_353_name with letters that it must not have")
