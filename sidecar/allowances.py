"""What each client may use now, and what was refused because of it: all in process, Redis away or not."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sidecar.core.bounded import Bounded
from sidecar.core.context import Context, Kind, OfferContext, RequestContext
from sidecar.core.errors import (
    ClientPaused,
    MailboxFull,
    QuotaExceeded,
    RateLimited,
    SidecarError,
    SlotOutOfRange,
)
from sidecar.core.limits import Rate, TokenBuckets
from sidecar.core.mailbox import MailLimits
from sidecar.core.model import Client, ClientState, Limits, Quota, Terms, Usage
from sidecar.ports import Store

_COUNTED = 10_000
"""Clients whose refusals are remembered: those that were refused something last."""


class Limit(Enum):
    """What can refuse a message of a client, or one for it; the names under which that is counted."""

    REQUESTS = "requests"
    OFFER_REQUESTS = "offer-requests"
    STORES = "stores"
    OFFER_PATHS = "offer-paths"
    SLOTS = "slots"
    BYTES = "bytes"
    MAILBOX = "mailbox"
    """Letters that its mailbox had no room for, or that had to make room for others."""
    PAUSED = "paused"


_LIMITS: Mapping[type[SidecarError], Limit] = {
    SlotOutOfRange: Limit.SLOTS,
    QuotaExceeded: Limit.BYTES,
    MailboxFull: Limit.MAILBOX,
    ClientPaused: Limit.PAUSED,
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """The limits that the settings give: all of them may change while the server runs.

    `client` holds where a client has no limit of its own, `offer` for the requests of each offer. A
    letter is kept for `mail_ttl` seconds, and all mailboxes hold `mail_total_bytes` (approximately).
    """

    client: Limits
    offer: Rate
    mail_ttl: int
    mail_total_bytes: int


class Allowances:
    """Who may use how much. `counters` counts refusals of all clients, as `refused.<limit>`."""

    def __init__(self, store: Store, defaults: Defaults, counters: Counter[str]) -> None:
        self._store = store
        self._defaults = defaults
        self._counters = counters
        self._terms: dict[bytes, Terms] = {}
        self._reading = asyncio.Lock()
        self._touched: set[bytes] = set()
        self._offers = TokenBuckets(defaults.offer)
        self._requests = TokenBuckets(_requests(defaults.client))
        self._stores = TokenBuckets(_a_minute(defaults.client.stores_per_minute))
        self._offer_paths = TokenBuckets(_a_minute(defaults.client.offer_paths_per_minute))
        self._refusals: Bounded[bytes, Counter[str]] = Bounded(_COUNTED)

    # --- what holds -------------------------------------------------------------------------------

    @property
    def defaults(self) -> Defaults:
        """What the settings give now."""
        return self._defaults

    def set_defaults(self, defaults: Defaults) -> None:
        """Let other settings hold, from the next message on."""
        self._defaults = defaults

    async def refresh(self) -> frozenset[bytes]:
        """Read all clients' own limits; returns who was paused, or resumed, elsewhere.

        Raises StoreUnavailable.
        """
        async with self._reading:
            self._touched = set()
            found = dict(await self._store.terms())
            # What was read before a change of our own would undo it here.
            for client_id in self._touched:
                found.pop(client_id, None)
                if (terms := self._terms.get(client_id)) is not None:
                    found[client_id] = terms
            before, self._terms = self._terms, found
            return _paused(before) ^ _paused(found)

    def note(self, client: Client) -> None:
        """The operator has made a client, or changed it."""
        self._touched.add(client.client_id)
        terms = Terms(client.quota, client.state is ClientState.PAUSED)
        if terms == Terms(Quota(), paused=False):
            self._terms.pop(client.client_id, None)
        else:
            self._terms[client.client_id] = terms

    def forget(self, client_id: bytes) -> None:
        """A client is not served any more."""
        self._touched.add(client_id)
        self._terms.pop(client_id, None)
        self._refusals.pop(client_id, None)

    def is_paused(self, client_id: bytes) -> bool:
        """Whether a client is not served for now."""
        terms = self._terms.get(client_id)
        return terms is not None and terms.paused

    def limits_of(self, client_id: bytes) -> Limits:
        """What holds for a client."""
        terms = self._terms.get(client_id)
        return self._defaults.client if terms is None else self._defaults.client.under(terms.quota)

    def limits_under(self, quota: Quota) -> Limits:
        """What holds for a client with this quota."""
        return self._defaults.client.under(quota)

    def usage(self) -> Usage:
        """Slots and bytes of a client that has no limits of its own; the store knows who has."""
        return Usage(self._defaults.client.slots, self._defaults.client.bytes)

    def mail(self) -> MailLimits:
        """What a queue of such a client's mailbox holds."""
        limits = self._defaults.client
        return MailLimits(limits.mailbox_letters, limits.mailbox_bytes, self._defaults.mail_ttl)

    # --- what is refused --------------------------------------------------------------------------

    def admit(self, context: Context, now_ms: int) -> None:
        """Take a message over one of our paths into account. Raises ClientPaused, RateLimited."""
        client_id = context.client_id
        if self.is_paused(client_id):
            self.refuse(client_id, Limit.PAUSED)
            raise ClientPaused("a message of or for a client that is paused")
        if (limit := self._used_up(context, now_ms)) is not None:
            self.refuse(client_id, limit)
            raise RateLimited(f"over a limit: {limit.value}")

    def _used_up(self, context: Context, now_ms: int) -> Limit | None:
        client_id, limits = context.client_id, self.limits_of(context.client_id)
        if isinstance(context, RequestContext):
            rate = _a_minute(limits.offer_paths_per_minute)
            return None if self._offer_paths.take(client_id, now_ms, rate=rate) else Limit.OFFER_PATHS
        if context.kind is Kind.SERVE_STATIC_INVOICE:
            rate = _a_minute(limits.stores_per_minute)
            return None if self._stores.take(client_id, now_ms, rate=rate) else Limit.STORES
        # The offer's first: what it refuses must not use up what the client's other offers share.
        if not self._offers.take(_offer(context), now_ms, rate=self._defaults.offer):
            return Limit.OFFER_REQUESTS
        return None if self._requests.take(client_id, now_ms, rate=_requests(limits)) else Limit.REQUESTS

    def refuse(self, client_id: bytes, limit: Limit, times: int = 1) -> None:
        """Count what a limit refused."""
        self._counters[f"refused.{limit.value}"] += times
        counted = self._refusals.get(client_id, Counter())
        counted[limit.value] += times
        self._refusals[client_id] = counted

    def refused(self, client_id: bytes, error: SidecarError) -> None:
        """Count an error that is some limit's word; others are not counted here."""
        if (limit := _LIMITS.get(type(error))) is not None:
            self.refuse(client_id, limit)

    def refusals(self, client_id: bytes) -> Mapping[str, int]:
        """What was refused to a client since the start, by limit."""
        return dict(self._refusals.get(client_id, {}))


def _paused(terms: Mapping[bytes, Terms]) -> frozenset[bytes]:
    return frozenset(client_id for client_id, each in terms.items() if each.paused)


def _offer(context: OfferContext) -> tuple[object, ...]:
    return (context.client_id, context.slot, context.tag)


def _requests(limits: Limits) -> Rate:
    return Rate(limits.requests_per_second, limits.requests_burst)


def _a_minute(count: int) -> Rate:
    return Rate(per_second=count / 60, burst=count)
