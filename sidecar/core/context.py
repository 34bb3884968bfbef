"""Path contexts: what we seal into a path_id, and believe when it comes back.

version (1) ‖ kind (1) ‖ fields ‖ HMAC-SHA256 cut to 16 bytes; 48 bytes for the two kinds that
name an offer, 32 for a request path's. Anyone can build a blinded path to us: the MAC tells ours.
"""

from dataclasses import dataclass
from enum import IntEnum

from sidecar.core import keys
from sidecar.core.errors import BadContext
from sidecar.core.model import CLIENT_ID_SIZE, TAG_NONCE_SIZE, OfferTag

VERSION = 1
_MAC = 16


class Kind(IntEnum):
    """Which message a path is for."""

    OFFER_PATHS_REQUEST = 1
    SERVE_STATIC_INVOICE = 2
    INVOICE_REQUEST = 3


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Of a request path, handed to the client out of band."""

    client_id: bytes
    generation: int


@dataclass(frozen=True, slots=True)
class OfferContext:
    """Of an offer path, or of the reply path of the offer_paths message that carried it.

    `expires_at` is in seconds since the epoch.
    """

    kind: Kind
    client_id: bytes
    slot: int
    tag: OfferTag
    expires_at: int


Context = RequestContext | OfferContext

# client_id, slot or generation, issued_at_ms, nonce, expires_at
_REQUEST_FIELDS = CLIENT_ID_SIZE + 4
_OFFER_FIELDS = CLIENT_ID_SIZE + 2 + 6 + TAG_NONCE_SIZE + 6


def seal(key: bytes, context: Context) -> bytes:
    """The path_id of a context."""
    if isinstance(context, RequestContext):
        kind = Kind.OFFER_PATHS_REQUEST
        fields = context.client_id + context.generation.to_bytes(4, "big")
    else:
        kind = context.kind
        fields = (
            context.client_id
            + context.slot.to_bytes(2, "big")
            + context.tag.issued_at_ms.to_bytes(6, "big")
            + context.tag.nonce
            + context.expires_at.to_bytes(6, "big")
        )
    body = bytes([VERSION, kind]) + fields
    return body + keys.hmac_sha256(key, body)[:_MAC]


def unseal(key: bytes, path_id: bytes) -> Context:
    """The context of a path_id that we sealed. Raises BadContext; expiry is the caller's to check."""
    body, mac = path_id[:-_MAC], path_id[-_MAC:]
    if not keys.equal(keys.hmac_sha256(key, body)[:_MAC], mac):
        raise BadContext("a path_id that we did not make")
    if len(body) < 2 or body[0] != VERSION:
        raise BadContext("a path_id of a version that we do not know")
    kind, fields = body[1], body[2:]
    if kind == Kind.OFFER_PATHS_REQUEST and len(fields) == _REQUEST_FIELDS:
        return RequestContext(fields[:CLIENT_ID_SIZE], int.from_bytes(fields[CLIENT_ID_SIZE:], "big"))
    if kind in (Kind.SERVE_STATIC_INVOICE, Kind.INVOICE_REQUEST) and len(fields) == _OFFER_FIELDS:
        return _offer_context(Kind(kind), fields)
    raise BadContext("a path_id of a kind that we do not know")


def _offer_context(kind: Kind, fields: bytes) -> OfferContext:
    client_id, rest = fields[:CLIENT_ID_SIZE], fields[CLIENT_ID_SIZE:]
    return OfferContext(
        kind=kind,
        client_id=client_id,
        slot=int.from_bytes(rest[:2], "big"),
        tag=OfferTag(int.from_bytes(rest[2:8], "big"), rest[8 : 8 + TAG_NONCE_SIZE]),
        expires_at=int.from_bytes(rest[8 + TAG_NONCE_SIZE :], "big"),
    )
