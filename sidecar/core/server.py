"""The static invoice server of bLIP 66: a message and what is known, in; effects, out.

Nothing here waits, reads a clock or draws randomness: `now_ms` and `entropy` are arguments. A rule
that a message breaks is raised (core/errors.py); its reason is counted, and the sender hears nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from sidecar.core import context as contexts
from sidecar.core import keys, messages, paths, static_invoices
from sidecar.core.context import Kind, OfferContext, RequestContext
from sidecar.core.effects import Bind, Effect, Save, Send
from sidecar.core.errors import (
    ClientPaused,
    ClientRevoked,
    ContextExpired,
    InvoiceExpired,
    NoInvoiceYet,
    NoReplyPath,
    OldGeneration,
    SlotOutOfRange,
    StaleOffer,
    UnknownClient,
    WrongOfferPaths,
)
from sidecar.core.keys import SidecarKeys
from sidecar.core.messages import OfferPaths, OfferPathsRequest, ServeStaticInvoice, StaticInvoicePersisted
from sidecar.core.model import (
    TAG_NONCE_SIZE,
    Client,
    ClientState,
    Family,
    Limits,
    Loaded,
    OfferTag,
    StoredInvoice,
)
from sidecar.core.offers import InvoiceRequest
from sidecar.core.paths import BlindedPath
from sidecar.core.static_invoices import StaticInvoice

Entropy = Callable[[int], bytes]
"""`entropy(n)` gives n unpredictable bytes."""

MAX_OFFER_PATHS = 4
"""Offer paths that an invoice may carry; we issue one, and each costs LND a signature call."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server is, and for how long its paths live (seconds)."""

    lnd_node_id: bytes
    keys: SidecarKeys
    chain: bytes
    paths_lifetime: int


C = TypeVar("C", bound=contexts.Context)


@dataclass(frozen=True, slots=True)
class Arrival(Generic[C]):
    """What stands around a message: the context of the path it came over, where to answer, what is kept."""

    context: C
    reply_path: BlindedPath | None
    loaded: Loaded
    now_ms: int

    @property
    def now(self) -> int:
        """Seconds since the epoch."""
        return self.now_ms // 1000

    def answer_path(self) -> BlindedPath:
        """The reply path. Raises NoReplyPath: "MUST set `reply_path` in the `onionmsg_tlv` stream"."""
        if self.reply_path is None:
            raise NoReplyPath("a message that must bring a reply_path and does not")
        return self.reply_path

    def client(self) -> Client:
        """The client, if it is let in. Raises UnknownClient, ClientRevoked, ClientPaused."""
        if self.loaded.client is None:
            raise UnknownClient("a context of a client that was removed")
        if self.loaded.client.state is ClientState.REVOKED:
            raise ClientRevoked("a context of a client that was revoked")
        if self.loaded.client.state is ClientState.PAUSED:
            raise ClientPaused("a context of a client that is paused")
        return self.loaded.client


@dataclass(frozen=True, slots=True)
class AdmittedInvoice:
    """A static invoice that passed every check but the one that needs LND's key; `ttl` is the client's."""

    invoice: StaticInvoice
    encoded: bytes
    family: Family
    ttl: int


class StaticInvoiceServer:
    """The rules of bLIP 66 for static invoice servers."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    # --- paths ------------------------------------------------------------------------------------

    def request_path(self, client: Client, entropy: Entropy) -> BlindedPath:
        """A path to hand to a client out of band, over which it asks for offer paths."""
        return self._own_path(RequestContext(client.client_id, client.generation), entropy)

    def _own_path(self, context: contexts.Context, entropy: Entropy) -> BlindedPath:
        # Two hops, [LND, a key of ours]: LND drops most of what ends at itself, and streams
        # what it can't forward.
        settings = self._settings
        path_id = contexts.seal(settings.keys.context_key, context)
        return paths.build(
            entropy(32),
            [
                (settings.lnd_node_id, paths.next_hop_data(settings.keys.node_id)),
                (settings.keys.node_id, paths.path_id_data(path_id)),
            ],
        )

    # --- offer_paths_request ----------------------------------------------------------------------

    def on_offer_paths_request(
        self,
        arrival: Arrival[RequestContext],
        request: OfferPathsRequest,
        family: Family,
        entropy: Entropy,
        defaults: Limits,
    ) -> list[Effect]:
        """Answer with fresh offer paths. `defaults` hold where the client has no limit of its own.

        Raises NoReplyPath, UnknownClient, ClientRevoked, ClientPaused, OldGeneration, SlotOutOfRange.
        """
        reply_path = arrival.answer_path()
        # "MUST authenticate the request using encrypted data from the blinded path they
        # received the request over": the context's MAC was right; is the client still let in?
        client = arrival.client()
        if arrival.context.generation != client.generation:
            raise OldGeneration("a request path that was rotated away")
        _check_slot(request.slot, defaults.under(client.quota))
        # A clock that was stepped back and corrected must not lock a wallet out: a new
        # tag is always newer than the slot's last one.
        mark = arrival.loaded.mark
        last = mark.tag.issued_at_ms if mark else 0
        tag = OfferTag(max(arrival.now_ms, last + 1), entropy(TAG_NONCE_SIZE))
        expires_at = arrival.now + self._settings.paths_lifetime
        # "MUST construct the blinded offer path encrypted data such that the static invoice can
        # be uniquely identified and retrieved", and the reply path's "such that the recipient can
        # reuse the reply path in the future to update the invoice".
        offer_path, update_path = (
            self._own_path(OfferContext(kind, client.client_id, request.slot, tag, expires_at), entropy)
            for kind in (Kind.INVOICE_REQUEST, Kind.SERVE_STATIC_INVOICE)
        )
        answer = messages.encode(OfferPaths((offer_path,), expires_at), family)
        return [Send("offer_paths", reply_path, *answer, reply_path=update_path)]

    # --- serve_static_invoice ---------------------------------------------------------------------

    def admit_static_invoice(
        self, arrival: Arrival[OfferContext], message: ServeStaticInvoice, family: Family, defaults: Limits
    ) -> AdmittedInvoice:
        """All that can be checked of a serve_static_invoice without LND's key.

        `defaults` hold where the client has no limit of its own. Raises NoReplyPath, UnknownClient,
        ClientRevoked, ClientPaused, ContextExpired, SlotOutOfRange, StaleOffer, InvoiceTooLarge,
        BadStaticInvoice, BadSignature, WrongChain, InvoiceExpired, WrongOfferPaths.
        """
        arrival.answer_path()
        limits = defaults.under(arrival.client().quota)
        context, mark = arrival.context, arrival.loaded.mark
        if context.expires_at <= arrival.now:
            raise ContextExpired("serve_static_invoice over a path that has expired")
        _check_slot(context.slot, limits)
        if mark is not None and context.tag < mark.tag:
            raise StaleOffer("an invoice for offer paths that newer ones have replaced")
        invoice = static_invoices.read_static_invoice(message.invoice, self._settings.chain)
        expiry = invoice.offer.absolute_expiry
        if invoice.expires_at <= arrival.now or (expiry is not None and expiry <= arrival.now):
            raise InvoiceExpired("a static invoice that has expired already")
        if len(invoice.offer.paths) > MAX_OFFER_PATHS:
            raise WrongOfferPaths(f"an offer with {len(invoice.offer.paths)} paths, more than we issue")
        return AdmittedInvoice(invoice, message.invoice, family, limits.ttl)

    def on_serve_static_invoice(
        self,
        arrival: Arrival[OfferContext],
        admitted: AdmittedInvoice,
        opened: Sequence[contexts.Context | None],
        forward_path: BlindedPath,
        neighbour: bytes | None = None,
    ) -> list[Effect]:
        """Keep an admitted invoice, learn who the client is, then acknowledge the invoice.

        `opened`: where the invoice's offer paths lead, each walked; None when not to us.
        `forward_path`: the message's, behind our own LND. `neighbour`: the peer that brought the
        message, where its forward path led through our LND. Raises WrongOfferPaths.
        """
        context, invoice = arrival.context, admitted.invoice
        # "MUST use blinded paths from the preceding `offer_paths` message": only we can make
        # a path that opens to this context, so walking them tells, with nothing stored.
        issued = replace(context, kind=Kind.INVOICE_REQUEST)
        if any(found != issued for found in opened):
            raise WrongOfferPaths("the invoice's offer paths are not those that were issued for it")
        ends = [arrival.now + admitted.ttl, context.expires_at, invoice.expires_at]
        # An offer that ends before its paths takes its invoice with it.
        if invoice.offer.absolute_expiry is not None:
            ends.append(invoice.offer.absolute_expiry)
        stored = StoredInvoice(
            slot=context.slot,
            tag=context.tag,
            invoice=admitted.encoded,
            forward_path=paths.encode_path(forward_path),
            family=admitted.family,
            created_at=invoice.created_at,
            stored_at=arrival.now,
            expires_at=min(ends),
        )
        # "SHOULD wait until the invoice is confirmed as persisted before sending this message":
        # Save stands first, and the list ends with it when it fails.
        acknowledgement = messages.encode(StaticInvoicePersisted(), admitted.family)
        learnt: list[Effect] = []
        # Who sends over a connection of its own, and lets requests come back over the same one, is the
        # wallet itself: one behind another node starts its paths there.
        known = arrival.client().node_id
        if neighbour is not None and neighbour == forward_path.introduction_node and neighbour != known:
            learnt.append(Bind(context.client_id, neighbour))
        return [
            Save(context.client_id, stored, mark_until=context.expires_at),
            *learnt,
            Send("static_invoice_persisted", arrival.answer_path(), *acknowledgement),
        ]

    # --- invoice_request --------------------------------------------------------------------------

    def on_invoice_request(
        self, arrival: Arrival[OfferContext], request: InvoiceRequest, *, forward: bool
    ) -> list[Effect]:
        """Forward a verified request to the wallet, and answer it with the static invoice.

        `forward`: false when this very request was forwarded already. Causes that last are told to
        the payer by invoice_error. Raises NoReplyPath, ClientPaused, NoInvoiceYet, WrongOffer.
        """
        reply_path, client, stored = arrival.answer_path(), arrival.loaded.client, arrival.loaded.invoice
        # Before all complaints: what is wrong now may be right again when the client is resumed.
        if client is not None and client.state is ClientState.PAUSED:
            raise ClientPaused("an invoice_request for a client that is paused")
        if complaint := _lasting_complaint(arrival):
            # Nothing tells who the payer is. Each kind drops the form that it can't read.
            return [
                Send(what, reply_path, messages.INVOICE_ERROR, content, may_dial=True)
                for what, content in (
                    ("invoice_error", messages.invoice_error(complaint, Family.BLIP66)),
                    ("invoice_error_ldk", messages.invoice_error(complaint, Family.LDK)),
                )
            ]
        if stored is None or stored.tag != arrival.context.tag:
            raise NoInvoiceYet("an invoice_request before the wallet has left its invoice")
        static_invoices.check_offer(request, static_invoices.stored_offer(stored.invoice), arrival.now)
        effects: list[Effect] = []
        if forward:
            # "SHOULD forward the invoice request to the recipient over the previously provided
            # `forward_invoice_request_path`"; LDK's server does so first.
            path = paths.decode_path(stored.forward_path)
            content = (messages.INVOICE_REQUEST, request.encoded)
            key = keys.sha256(request.encoded)
            effects.append(Send("invoice_request", path, *content, reply_path=reply_path, mail_key=key))
        # "SHOULD retrieve the persisted invoice and respond to the payer with it"
        answer = (messages.STATIC_INVOICE, stored.invoice)
        return [*effects, Send("static_invoice", reply_path, *answer, may_dial=True)]


def _check_slot(slot: int, limits: Limits) -> None:
    if slot >= limits.slots:
        raise SlotOutOfRange(f"slot {slot} of a client with {limits.slots}")


def _lasting_complaint(arrival: Arrival[OfferContext]) -> str | None:
    """Why there is nothing to wait for, in words for the payer; None when the offer is or may be served."""
    client, context = arrival.loaded.client, arrival.context
    if client is None or client.state is ClientState.REVOKED:
        return "This offer is not served any more."
    if context.expires_at <= arrival.now:
        return "This offer has expired."
    mark, stored = arrival.loaded.mark, arrival.loaded.invoice
    if stored is not None and stored.tag == context.tag and stored.expires_at > arrival.now:
        return None
    if mark is None or context.tag > mark.tag:
        return None
    if context.tag < mark.tag:
        return "This offer was replaced by a newer one."
    return "This offer has no invoice any more: it has expired, and its wallet has left no newer one."
