"""What onion messages carry: BOLT 4's payloads, and the four messages of bLIP 66.

Each of the four exists in two families: as bLIP 66 writes them (65540 …, a bare TLV stream) and as
LDK does (75540 …, BigSize length ‖ TLV stream). A client is answered in the family it speaks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar.core import onion, paths
from sidecar.core.errors import BadBigSize, BadInteger, BadMessage, BadTlvStream, NoForwardPath
from sidecar.core.model import Family
from sidecar.core.paths import BlindedPath
from sidecar.core.wire import (
    decode_tlvs,
    encode_tlvs,
    read_bigsize,
    read_uint,
    refuse_unknown_even,
    write_bigsize,
)

REPLY_PATH, ENCRYPTED_RECIPIENT_DATA = 2, 4
FIRST_CONTENT_TYPE = 64
INVOICE_REQUEST, INVOICE_ERROR, STATIC_INVOICE = 64, 68, 70

INVOICE_ERROR_TEXT = 5


@dataclass(frozen=True, slots=True)
class FinalPayload:
    """An onionmsg_tlv stream of a final hop. `content_type` is None for an empty message."""

    encrypted_recipient_data: bytes
    content_type: int | None
    content: bytes
    reply_path: BlindedPath | None


def _records(payload: bytes) -> dict[int, bytes]:
    try:
        return decode_tlvs(payload)
    except (BadBigSize, BadTlvStream) as error:
        raise BadMessage(f"onionmsg_tlv: {error}") from None


def read_forward_payload(payload: bytes) -> bytes:
    """The encrypted_recipient_data of an intermediate hop. Raises BadMessage."""
    records = _records(payload)
    # "if the `onionmsg_tlv` contains other tlv fields than `encrypted_recipient_data`: MUST ignore"
    if set(records) != {ENCRYPTED_RECIPIENT_DATA}:
        raise BadMessage("an intermediate hop's payload is not encrypted_recipient_data alone")
    return records[ENCRYPTED_RECIPIENT_DATA]


def read_final_payload(payload: bytes) -> FinalPayload:
    """A final hop's payload. Raises BadMessage, BadPath, BadPoint."""
    records = _records(payload)
    contents = [type_ for type_ in records if type_ >= FIRST_CONTENT_TYPE]
    # "if the `onionmsg_tlv` contains more than one payload field: MUST ignore the message."
    if len(contents) > 1:
        raise BadMessage(f"{len(contents)} contents in one onion message")
    for type_ in records:
        if (
            type_ < FIRST_CONTENT_TYPE
            and type_ % 2 == 0
            and type_ not in (REPLY_PATH, ENCRYPTED_RECIPIENT_DATA)
        ):
            raise BadMessage(f"unknown even TLV type {type_} in an onion message")
    if ENCRYPTED_RECIPIENT_DATA not in records:
        raise BadMessage("a final hop without encrypted_recipient_data")
    reply = records.get(REPLY_PATH)
    return FinalPayload(
        encrypted_recipient_data=records[ENCRYPTED_RECIPIENT_DATA],
        content_type=contents[0] if contents else None,
        content=records[contents[0]] if contents else b"",
        reply_path=None if reply is None else paths.decode_path(reply),
    )


def hop_payload(encrypted_recipient_data: bytes) -> bytes:
    """The payload of an intermediate hop."""
    return encode_tlvs({ENCRYPTED_RECIPIENT_DATA: encrypted_recipient_data})


def final_payload(
    encrypted: bytes, content_type: int, content: bytes, reply_path: BlindedPath | None
) -> bytes:
    """The payload of a final hop."""
    records = {ENCRYPTED_RECIPIENT_DATA: encrypted, content_type: content}
    if reply_path is not None:
        records[REPLY_PATH] = paths.encode_path(reply_path)
    return encode_tlvs(records)


def onion_along(
    path: BlindedPath, session_key: bytes, content_type: int, content: bytes, reply_path: BlindedPath | None
) -> bytes:
    """The onion packet of a message that goes along a path, its introduction node first.

    `session_key` is a fresh secret of 32 bytes. Raises PayloadTooLarge, BadPoint.
    """
    *between, last = path.hops
    hops = [(hop.blinded_node_id, hop_payload(hop.encrypted_recipient_data)) for hop in between]
    final = final_payload(last.encrypted_recipient_data, content_type, content, reply_path)
    return onion.build(session_key, [*hops, (last.blinded_node_id, final)])


def invoice_error(text: str, family: Family) -> bytes:
    """An invoice_error that gives just a reason (BOLT 12, "Invoice Errors"), in the framing of a family.

    LDK puts the length before it, as before its own messages, and can't read BOLT 12's bare stream.
    """
    return _frame(encode_tlvs({INVOICE_ERROR_TEXT: text.encode()}), family)


# --- bLIP 66 --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OfferPathsRequest:
    """A client asks for paths to put into an offer."""

    slot: int


@dataclass(frozen=True, slots=True)
class OfferPaths:
    """Paths for an offer. `paths_absolute_expiry` is in seconds since the epoch."""

    paths: tuple[BlindedPath, ...]
    paths_absolute_expiry: int | None


@dataclass(frozen=True, slots=True)
class ServeStaticInvoice:
    """A static invoice to serve, and the path over which to forward requests for it."""

    invoice: bytes
    forward_invoice_request_path: BlindedPath


@dataclass(frozen=True, slots=True)
class StaticInvoicePersisted:
    """The invoice is kept: the offer is ready to be paid."""


Message = OfferPathsRequest | OfferPaths | ServeStaticInvoice | StaticInvoicePersisted


def _read_offer_paths_request(records: Mapping[int, bytes]) -> OfferPathsRequest:
    if 0 not in records:
        raise BadMessage("offer_paths_request without invoice_slot")
    return OfferPathsRequest(read_uint(records[0], 2))


def _read_offer_paths(records: Mapping[int, bytes]) -> OfferPaths:
    # "MUST include at least 1 blinded path that terminates at their node"
    if 0 not in records:
        raise BadMessage("offer_paths without paths")
    expiry = records.get(2)
    return OfferPaths(paths.decode_paths(records[0]), None if expiry is None else read_uint(expiry, 8))


def _read_serve_static_invoice(records: Mapping[int, bytes]) -> ServeStaticInvoice:
    if 0 not in records:
        raise BadMessage("serve_static_invoice without static_invoice")
    # "MUST set `forward_invoice_request_path`"
    if 2 not in records:
        raise NoForwardPath("serve_static_invoice without forward_invoice_request_path")
    return ServeStaticInvoice(records[0], paths.decode_path(records[2]))


def _read_static_invoice_persisted(_records: Mapping[int, bytes]) -> StaticInvoicePersisted:
    return StaticInvoicePersisted()


# message → (bLIP 66's number, known TLV types, reader); LDK's numbers are 10,000 higher.
_LDK_OFFSET = 10_000
_TABLE: dict[type[Message], tuple[int, frozenset[int], Callable[[Mapping[int, bytes]], Message]]] = {
    OfferPathsRequest: (65540, frozenset({0}), _read_offer_paths_request),
    OfferPaths: (65542, frozenset({0, 2}), _read_offer_paths),
    ServeStaticInvoice: (65544, frozenset({0, 2}), _read_serve_static_invoice),
    StaticInvoicePersisted: (65546, frozenset(), _read_static_invoice_persisted),
}
_BY_TYPE = {number: (message, Family.BLIP66) for message, (number, _, _) in _TABLE.items()} | {
    number + _LDK_OFFSET: (message, Family.LDK) for message, (number, _, _) in _TABLE.items()
}


def is_blip66(content_type: int) -> bool:
    """Whether a content type is one of the eight."""
    return content_type in _BY_TYPE


def name_of(content_type: int | None) -> str:
    """What a message to us is called where messages are timed; `other` for all that are not served."""
    if content_type == INVOICE_REQUEST:
        return "invoice_request"
    message, _ = _BY_TYPE.get(content_type or 0, (None, None))
    if message is OfferPathsRequest:
        return "offer_paths_request"
    return "serve_static_invoice" if message is ServeStaticInvoice else "other"


def decode(content_type: int, content: bytes) -> tuple[Message, Family]:
    """One of the four messages, and the family it came in.

    Raises BadMessage (NoForwardPath among them), BadPath, BadPoint. KeyError for another type.
    """
    message, family = _BY_TYPE[content_type]
    _, known, reader = _TABLE[message]
    try:
        records = decode_tlvs(_unframe(content) if family is Family.LDK else content)
        refuse_unknown_even(records, known)
        return reader(records), family
    except (BadBigSize, BadTlvStream, BadInteger) as error:
        raise BadMessage(f"{message.__name__}: {error}") from None


def _unframe(content: bytes) -> bytes:
    length, start = read_bigsize(content, 0)
    if length != len(content) - start:
        raise BadMessage(f"a length prefix of {length} before {len(content) - start} bytes")
    return content[start:]


def encode(message: Message, family: Family) -> tuple[int, bytes]:
    """The content type and content of a message in a family."""
    number = _TABLE[type(message)][0]
    stream = encode_tlvs(_write(message))
    offset = _LDK_OFFSET if family is Family.LDK else 0
    return number + offset, _frame(stream, family)


def _frame(stream: bytes, family: Family) -> bytes:
    return write_bigsize(len(stream)) + stream if family is Family.LDK else stream


def _write(message: Message) -> dict[int, bytes]:
    match message:
        case OfferPathsRequest(slot):
            return {0: slot.to_bytes(2, "big")}
        case OfferPaths(offer_paths, expiry):
            records = {0: b"".join(paths.encode_path(path) for path in offer_paths)}
            return records if expiry is None else records | {2: expiry.to_bytes(8, "big")}
        case ServeStaticInvoice(invoice, forward):
            return {0: invoice, 2: paths.encode_path(forward)}
        case StaticInvoicePersisted():
            return {}
