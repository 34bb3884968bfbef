"""Every error of the sidecar, in one tree.

    SidecarError
    ├── Malformed                 bytes from the network that no rule lets through
    │   ├── BadBigSize, BadTlvStream, BadInteger
    │   ├── BadPoint, ForbiddenPoint
    │   ├── BadOnion, BadOnionVersion, BadOnionSize, BadOnionHmac, PayloadTooLarge
    │   ├── BadPath, BadRecipientData
    │   ├── BadMessage, NoReplyPath, NoForwardPath
    │   └── BadOffer, BadInvoiceRequest, BadStaticInvoice, BadSignature
    ├── Refused                   well formed, and still not answered
    │   ├── BadContext, ContextExpired, WrongContext
    │   ├── UnknownClient, ClientRevoked, ClientPaused, OldGeneration
    │   ├── SlotOutOfRange, QuotaExceeded, StaleOffer, StaleInvoice
    │   ├── WrongOfferPaths, WrongOffer, InvoiceExpired, WrongChain, InvoiceTooLarge
    │   ├── NoInvoiceYet, ContentNotServed
    │   ├── LspsRefused, TooManyWebhooks, BoundOtherwise
    │   └── RateLimited, Repeated, Replayed, NotForUs, PathToSelf
    ├── Undeliverable             a message that could not be handed on
    │   ├── PeerNotConnected, UnknownScid, NoRoute
    │   └── MailboxFull, NotNotified
    ├── Unavailable               what passes: wait, and go on
    │   ├── LndUnavailable, ModeChanged
    │   └── StoreUnavailable, BadRecord, NotLeading
    └── OperatorError             what only the operator can mend; its text says how
        ├── ConfigError, LndSetupError, LndDenied, StoreSetupError
        ├── NameTaken, BadName, NoSuchClient, NodeTaken, NodeUnknown, BadNodeId
        ├── BadWebhook, NoSuchWebhook, NoSuchInvoice
        ├── BadExport, StoreNotEmpty
        └── ServerNotRunning, ServerTooOld, StandsBy, AdminDenied, BadToken

`reason` is the slug under which an error is logged and counted. Messages may be shown to an
operator. None is sent to a peer but those of BadWebhook and lsps0.RpcError, which hold no URL.
"""


class SidecarError(Exception):
    """Base of all errors raised on purpose."""

    reason = "error"


# --- bytes from the network ---------------------------------------------------------------------


class Malformed(SidecarError):
    """Bytes that break a rule of their own format."""

    reason = "malformed"


class BadBigSize(Malformed):
    """A BigSize that is cut short or not minimally encoded (BOLT 1)."""

    reason = "bad-bigsize"


class BadTlvStream(Malformed):
    """A TLV stream out of order, with duplicates, cut short, or with an unknown even type (BOLT 1)."""

    reason = "bad-tlv-stream"


class BadInteger(Malformed):
    """An integer of a wrong length, or a truncated integer with leading zeros (BOLT 1)."""

    reason = "bad-integer"


class BadPoint(Malformed):
    """33 bytes that are no compressed point of secp256k1."""

    reason = "bad-point"


class ForbiddenPoint(Malformed):
    """A point whose ECDH is the sidecar's own secret; nobody honest sends it."""

    reason = "forbidden-point"


class BadOnion(Malformed):
    """An onion packet whose payload can't be read (BOLT 4, "Packet Structure")."""

    reason = "bad-onion"


class BadOnionVersion(BadOnion):
    """An onion packet whose version is not 0."""

    reason = "bad-onion-version"


class BadOnionSize(BadOnion):
    """An onion packet with other than 1,300 or 32,768 bytes of hop data."""

    reason = "bad-onion-size"


class BadOnionHmac(BadOnion):
    """An onion packet that was not made for this key, or was altered."""

    reason = "bad-onion-hmac"


class PayloadTooLarge(BadOnion):
    """Payloads that do not fit in 32,768 bytes of hop data."""

    reason = "payload-too-large"


class BadPath(Malformed):
    """A blinded path that can't be read (BOLT 4, "Route Blinding")."""

    reason = "bad-path"


class BadRecipientData(Malformed):
    """encrypted_recipient_data that does not decrypt, or says what it must not."""

    reason = "bad-recipient-data"


class BadMessage(Malformed):
    """An onion message payload or bLIP 66 message that breaks its format."""

    reason = "bad-message"


class NoReplyPath(BadMessage):
    """A message that must bring a reply_path and does not."""

    reason = "no-reply-path"


class NoForwardPath(BadMessage):
    """A serve_static_invoice without forward_invoice_request_path."""

    reason = "no-forward-path"


class BadOffer(Malformed):
    """An offer that its reader must not answer (BOLT 12, "Requirements For Offers")."""

    reason = "bad-offer"


class BadInvoiceRequest(Malformed):
    """An invoice_request that its reader must not answer (BOLT 12)."""

    reason = "bad-invoice-request"


class BadStaticInvoice(Malformed):
    """A static invoice that no payer could use."""

    reason = "bad-static-invoice"


class BadSignature(Malformed):
    """A BIP 340 signature that is wrong (BOLT 12, "Signature Calculation")."""

    reason = "bad-signature"


# --- well formed, and not answered --------------------------------------------------------------


class Refused(SidecarError):
    """A message that is well formed, and that the server does not act on."""

    reason = "refused"


class BadContext(Refused):
    """A path_id that we did not make: wrong size, version or MAC."""

    reason = "bad-context"


class ContextExpired(Refused):
    """A path_id of ours whose path has expired."""

    reason = "context-expired"


class WrongContext(Refused):
    """A path_id of ours, made for another kind of message."""

    reason = "wrong-context"


class UnknownClient(Refused):
    """A path_id of a client that is not there any more."""

    reason = "unknown-client"


class ClientRevoked(Refused):
    """A message from a client that the operator revoked."""

    reason = "client-revoked"


class ClientPaused(Refused):
    """A message of or for a client that the operator has paused."""

    reason = "client-paused"


class OldGeneration(Refused):
    """A request path that was rotated away."""

    reason = "old-generation"


class SlotOutOfRange(Refused):
    """An invoice_slot that is not below the client's number of slots."""

    reason = "slot-out-of-range"


class QuotaExceeded(Refused):
    """A change that would take the client over a quota of its own."""

    reason = "quota-exceeded"


class StaleOffer(Refused):
    """A serve_static_invoice for an offer that a newer one has replaced."""

    reason = "stale-offer"


class StaleInvoice(Refused):
    """A serve_static_invoice older than the one that is stored for the same offer."""

    reason = "stale-invoice"


class WrongOfferPaths(Refused):
    """A static invoice whose offer paths are not the very paths that were issued for it."""

    reason = "wrong-offer-paths"


class WrongOffer(Refused):
    """An invoice_request whose offer is not the stored invoice's."""

    reason = "wrong-offer"


class NoInvoiceYet(Refused):
    """An invoice_request for an offer whose invoice is not here, and may still come."""

    reason = "no-invoice-yet"


class ContentNotServed(Refused):
    """A message over one of our paths that is none of those we serve."""

    reason = "content-not-served"


class InvoiceExpired(Refused):
    """A static invoice that has expired already."""

    reason = "invoice-expired"


class WrongChain(Refused):
    """An invoice or request for a chain that this node is not on."""

    reason = "wrong-chain"


class InvoiceTooLarge(Refused):
    """A static invoice of more than 5,120 bytes."""

    reason = "invoice-too-large"


class LspsRefused(Refused):
    """An LSPS request that is answered with a JSON-RPC error (bLIP 50)."""

    reason = "lsps-refused"


class TooManyWebhooks(Refused):
    """One webhook more than a node may have."""

    reason = "too-many-webhooks"


class BoundOtherwise(Refused):
    """A client that seems to be another node than the one it is bound to."""

    reason = "bound-otherwise"


class RateLimited(Refused):
    """A message over a limit of its offer, client or peer."""

    reason = "rate-limited"


class Repeated(Refused):
    """An invoice_request that was answered often enough already."""

    reason = "repeated"


class Replayed(Refused):
    """A message that the sidecar that led before may have answered, with another answer than is due now."""

    reason = "replayed"


class NotForUs(Refused):
    """An onion message whose last hop is LND itself: none of our paths ends there."""

    reason = "not-for-us"


class PathToSelf(Refused):
    """A reply or forward path that leads back to the sidecar: a loop."""

    reason = "path-to-self"


# --- not handed on ------------------------------------------------------------------------------


class Undeliverable(SidecarError):
    """A message that could not be handed to its next hop."""

    reason = "undeliverable"


class PeerNotConnected(Undeliverable):
    """LND has no connection to the peer."""

    reason = "peer-not-connected"


class UnknownScid(Undeliverable):
    """A short channel id that neither LND's channels nor its graph know."""

    reason = "unknown-scid"


class NoRoute(Undeliverable):
    """No connected neighbour leads to the node, and dialling it is not possible."""

    reason = "no-route"


class MailboxFull(Undeliverable):
    """A letter for a mailbox in which nothing may be dropped for it."""

    reason = "mailbox-full"


class NotNotified(Undeliverable):
    """A notification that did not reach its webhook; `slug` says why, for the log of deliveries."""

    reason = "not-notified"

    def __init__(self, slug: str, text: str) -> None:
        super().__init__(text)
        self.slug = slug


# --- what passes --------------------------------------------------------------------------------


class Unavailable(SidecarError):
    """Something that the sidecar stands on is away for now."""

    reason = "unavailable"


class LndUnavailable(Unavailable):
    """LND does not answer: down, locked, starting."""

    reason = "lnd-unavailable"


class ModeChanged(Unavailable):
    """LND came back as another kind, or as another node: what was built on it must be built anew."""

    reason = "mode-changed"


class StoreUnavailable(Unavailable):
    """Redis does not answer, or can't write."""

    reason = "store-unavailable"


class BadRecord(StoreUnavailable):
    """A record in Redis that this sidecar did not write so: whom it is of can't be served."""

    reason = "bad-record"


class NotLeading(StoreUnavailable):
    """Another sidecar leads, or may by now: this one may change nothing of what wallets leave."""

    reason = "not-leading"


# --- what the operator can mend -----------------------------------------------------------------


class OperatorError(SidecarError):
    """A fault that only the operator can mend; the text says how."""

    reason = "operator"


class ConfigError(OperatorError):
    """A setting that is missing, unknown or wrong."""

    reason = "bad-config"


class LndSetupError(OperatorError):
    """LND runs, and is set up in a way that can't work."""

    reason = "lnd-setup"


class LndDenied(OperatorError):
    """LND refuses the macaroon, or the macaroon lacks a permission."""

    reason = "lnd-denied"


class StoreSetupError(OperatorError):
    """A Redis that would lose invoices."""

    reason = "store-setup"


class NameTaken(OperatorError):
    """A client of that name is there already."""

    reason = "name-taken"


class BadName(OperatorError):
    """A client name that is not 1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`."""

    reason = "bad-name"


class NoSuchClient(OperatorError):
    """No client has that name or id."""

    reason = "no-such-client"


class NodeTaken(OperatorError):
    """A node id that another client is bound to."""

    reason = "node-taken"


class NodeUnknown(OperatorError):
    """A client whose node is not known: it can't be woken."""

    reason = "node-unknown"


class BadNodeId(OperatorError):
    """A node id that is not the hex of a 33-byte point."""

    reason = "bad-node-id"


class BadWebhook(OperatorError):
    """A webhook that breaks a rule of LSPS5 or of the operator's settings."""

    reason = "bad-webhook"


class NoSuchWebhook(OperatorError):
    """No webhook of the node has that name."""

    reason = "no-such-webhook"


class NoSuchInvoice(OperatorError):
    """No invoice is stored in the slot that was named."""

    reason = "no-such-invoice"


class BadExport(OperatorError):
    """A file that is no whole export, or another node's."""

    reason = "bad-export"


class StoreNotEmpty(OperatorError):
    """An import where something is kept already."""

    reason = "store-not-empty"


class ServerNotRunning(OperatorError):
    """Nothing listens on the admin socket."""

    reason = "server-not-running"


class ServerTooOld(OperatorError):
    """The running server does not know a call that the command makes."""

    reason = "server-too-old"


class StandsBy(OperatorError):
    """A change was asked of a server that stands by: the one that leads must make it."""

    reason = "stands-by"


class AdminDenied(OperatorError):
    """The admin socket may not be used by this user."""

    reason = "admin-denied"


class BadToken(OperatorError):
    """A call over TCP without the token that the server asks for."""

    reason = "bad-token"
