"""What the server's tables are made of: a client, its state, messages to it, and what it answers."""

import os
from collections.abc import Mapping
from dataclasses import replace

from sidecar.core import bolt12, keys, messages, paths
from sidecar.core import context as contexts
from sidecar.core.context import Context, Kind, OfferContext, RequestContext
from sidecar.core.effects import Effect, Send
from sidecar.core.keys import SidecarKeys
from sidecar.core.messages import OfferPaths, ServeStaticInvoice
from sidecar.core.model import (
    Client,
    ClientState,
    Family,
    Loaded,
    Quota,
    SlotMark,
    StoredInvoice,
)
from sidecar.core.offers import InvoiceRequest, Offer, read_invoice_request, read_offer_fields
from sidecar.core.paths import BlindedPath
from sidecar.core.server import Arrival, ServerSettings, StaticInvoiceServer
from sidecar.core.wire import decode_tlvs, encode_tlvs
from tests.harness.allowed import LIMITS
from tests.harness.fakes import DAY, LND_SECRET, LoopbackNetwork
from tests.harness.payer import make_invoice_request
from tests.harness.wallet import CHAIN, Issued, Wallet

NOW = 1_760_000_000
NOW_MS = NOW * 1000 + 123
LIFETIME = 365 * DAY

LND_NODE_ID = keys.public_key(LND_SECRET)
KEYS = SidecarKeys.derive(keys.ecdh(LND_SECRET, keys.NUMS_POINT))
SERVER = StaticInvoiceServer(ServerSettings(LND_NODE_ID, KEYS, CHAIN, LIFETIME))

CLIENT = Client(
    client_id=b"0123456789",
    name="alice",
    state=ClientState.ACTIVE,
    generation=3,
    quota=Quota(slots=4, bytes=50_000, ttl=100 * DAY),
    created_at=NOW - DAY,
)
REVOKED = replace(CLIENT, state=ClientState.REVOKED)
PAUSED = replace(CLIENT, state=ClientState.PAUSED)
REQUEST_CONTEXT = RequestContext(CLIENT.client_id, CLIENT.generation)
NOTHING = Loaded(CLIENT, None, None)

STRANGER_SECRET = keys.sha256(b"someone with a path of their own")
REPLY_PATH = paths.build(
    keys.sha256(b"reply"), [(keys.public_key(STRANGER_SECRET), paths.path_id_data(b"reply"))]
)
FORWARD_PATH = paths.build(
    keys.sha256(b"forward"), [(keys.public_key(STRANGER_SECRET), paths.path_id_data(b"forward"))]
)


def open_own_path(path: BlindedPath) -> Context:
    """What a path of the server's own says at its end; it must be [LND, our key]."""
    assert path.introduction_node == LND_NODE_ID
    assert len(path.hops) == 2
    hop = paths.first_hop(path, keys.ecdh(LND_SECRET, path.path_key))
    assert hop.node_id == KEYS.node_id
    shared = KEYS.ecdh(hop.path_key)
    data = paths.decrypt_recipient_data(shared, path.hops[1].encrypted_recipient_data)
    assert data.path_id is not None
    return contexts.unseal(KEYS.context_key, data.path_id)


def offer_paths_arrival(
    loaded: Loaded = NOTHING,
    *,
    context: RequestContext = REQUEST_CONTEXT,
    reply_path: BlindedPath | None = REPLY_PATH,
    now_ms: int = NOW_MS,
) -> Arrival[RequestContext]:
    """An offer_paths_request's surroundings."""
    return Arrival(context, reply_path, loaded, now_ms)


def read_offer_paths(effects: list[Effect]) -> tuple[OfferPaths, Family, BlindedPath]:
    """The one offer_paths among effects: the message, its family, its reply path."""
    (sent,) = effects
    assert isinstance(sent, Send)
    message, family = messages.decode(sent.content_type, sent.content)
    assert isinstance(message, OfferPaths)
    assert sent.reply_path is not None
    return message, family, sent.reply_path


def ask(
    loaded: Loaded = NOTHING, *, slot: int = 0, family: Family = Family.LDK, now_ms: int = NOW_MS
) -> Issued:
    """Offer paths as the server gives them."""
    effects = SERVER.on_offer_paths_request(
        offer_paths_arrival(loaded, now_ms=now_ms),
        messages.OfferPathsRequest(slot),
        family,
        os.urandom,
        LIMITS,
    )
    message, _, update_path = read_offer_paths(effects)
    return Issued(slot, message, update_path)


def contexts_of(issued: Issued) -> tuple[OfferContext, OfferContext]:
    """The contexts of the update path, and of the (one) offer path."""
    update = open_own_path(issued.update_path)
    offer = open_own_path(issued.message.paths[0])
    assert isinstance(update, OfferContext)
    assert isinstance(offer, OfferContext)
    return update, offer


class Kept:
    """One offer of the wallet's, with all that the server knows when its invoice is stored."""

    def __init__(self, issued: Issued | None = None, extra: Mapping[int, bytes] | None = None) -> None:
        self.issued = issued or ask()
        self.update_context, self.offer_context = contexts_of(self.issued)
        link = LoopbackNetwork(LND_SECRET, native=True).connect(keys.public_key(STRANGER_SECRET))
        self.wallet = Wallet(
            STRANGER_SECRET, link, LND_NODE_ID, SERVER.request_path(CLIENT, os.urandom), Family.LDK
        )
        self.offer_records = self.wallet.make_offer(self.issued, extra or {})
        self.invoice = self.wallet.make_invoice(self.offer_records, created_at=NOW - 60)
        self.stored = StoredInvoice(
            slot=self.issued.slot,
            tag=self.update_context.tag,
            invoice=self.invoice,
            forward_path=paths.encode_path(FORWARD_PATH),
            family=Family.LDK,
            created_at=NOW - 60,
            stored_at=NOW - 30,
            expires_at=NOW + 10 * DAY,
        )
        self.mark = SlotMark(self.stored.tag, self.stored.created_at)
        self.loaded = Loaded(CLIENT, self.mark, self.stored)

    @property
    def offer(self) -> Offer:
        """The offer, read."""
        return read_offer_fields(self.offer_records)

    def message(self, invoice: bytes | None = None) -> ServeStaticInvoice:
        """serve_static_invoice."""
        return ServeStaticInvoice(self.invoice if invoice is None else invoice, FORWARD_PATH)

    def update(
        self,
        loaded: Loaded = NOTHING,
        *,
        reply_path: BlindedPath | None = REPLY_PATH,
        now_ms: int = NOW_MS,
        **changes: object,
    ) -> Arrival[OfferContext]:
        """A serve_static_invoice's surroundings; `changes` are the context's."""
        context = replace(self.update_context, **changes)  # type: ignore[arg-type]
        return Arrival(context, reply_path, loaded, now_ms)

    def request(self, extra: Mapping[int, bytes] | None = None) -> InvoiceRequest:
        """A payer's verified invoice_request."""
        return read_invoice_request(make_invoice_request(self.offer, extra=extra or {}))

    def asked(
        self,
        loaded: Loaded | None = None,
        *,
        reply_path: BlindedPath | None = REPLY_PATH,
        now_ms: int = NOW_MS,
    ) -> Arrival[OfferContext]:
        """An invoice_request's surroundings."""
        return Arrival(self.offer_context, reply_path, self.loaded if loaded is None else loaded, now_ms)


def issued_context(kept: Kept, **changes: object) -> OfferContext:
    """The context that the offer's path was made with, changed."""
    return replace(kept.update_context, **({"kind": Kind.INVOICE_REQUEST} | changes))  # type: ignore[arg-type]


def signed(kept: Kept, changes: Mapping[int, bytes | None]) -> bytes:
    """The invoice with records set or (None) taken out, signed again by the offer's issuer."""
    records = {**decode_tlvs(kept.invoice), **changes}
    present = {type_: records[type_] for type_ in sorted(records)}
    return encode_tlvs(
        bolt12.sign(
            {type_: value for type_, value in present.items() if value is not None},
            "static_invoice",
            kept.wallet.issuer_secret,
        )
    )
