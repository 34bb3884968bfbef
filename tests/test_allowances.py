"""What each client may use, as the running server knows it: its own limits, the settings', and refusals."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from sidecar import allowances as module
from sidecar.allowances import Allowances, Limit
from sidecar.core.context import Context, Kind, OfferContext, RequestContext
from sidecar.core.errors import (
    ClientPaused,
    MailboxFull,
    QuotaExceeded,
    RateLimited,
    SlotOutOfRange,
    StaleOffer,
)
from sidecar.core.limits import Rate
from sidecar.core.mailbox import MailLimits
from sidecar.core.model import ClientState, OfferTag, Quota, Terms, Usage
from tests.harness.allowed import DEFAULTS, LIMITS
from tests.harness.memory_store import MemoryStore
from tests.harness.store_contract import a_client

NOW = 1_800_000_000_000


class Scene:
    """Allowances over a store, and two clients: alice with limits of her own, bob with none."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.counters: Counter[str] = Counter()
        self.allowances = Allowances(self.store, DEFAULTS, self.counters)
        self.alice = replace(a_client("alice"), quota=Quota(slots=3, requests_per_second=1, requests_burst=2))
        self.bob = replace(a_client("bob"), quota=Quota())

    def let_in(self, context: Context, now_ms: int = NOW, tries: int = 1_000) -> int:
        """How many messages at one moment are admitted."""
        return sum(self._admitted(context, now_ms) for _ in range(tries))

    def _admitted(self, context: Context, now_ms: int) -> bool:
        try:
            self.allowances.admit(context, now_ms)
        except RateLimited:
            return False
        return True


def request(client_id: bytes, slot: int = 0) -> OfferContext:
    """The context of an offer's path."""
    return OfferContext(Kind.INVOICE_REQUEST, client_id, slot, OfferTag(1, bytes(6)), 1 << 40)


def store(client_id: bytes) -> OfferContext:
    """The context of the path over which an invoice is left."""
    return replace(request(client_id), kind=Kind.SERVE_STATIC_INVOICE)


async def test_clients_own_limits_are_read_from_the_store() -> None:
    """With all that others changed there since; who has none is as the settings say."""
    at = Scene()
    for client in (at.alice, at.bob):
        await at.store.add_client(client)
    assert at.allowances.limits_of(at.alice.client_id) == LIMITS
    await at.allowances.refresh()
    assert at.allowances.limits_of(at.alice.client_id) == LIMITS.under(at.alice.quota)
    assert at.allowances.limits_of(at.bob.client_id) == LIMITS
    await at.store.pause_client(at.bob.client_id, paused=True)
    await at.store.remove_client(at.alice.client_id)
    assert await at.allowances.refresh() == {at.bob.client_id}
    assert at.allowances.is_paused(at.bob.client_id)
    assert at.allowances.limits_of(at.alice.client_id) == LIMITS


async def test_what_changes_while_all_is_read_is_not_undone() -> None:
    """Reading takes its time: what was read of a client before a change of our own does not hold."""
    at = Scene()
    for client in (at.alice, at.bob):
        await at.store.add_client(client)
    await at.store.pause_client(at.bob.client_id, paused=True)
    await at.allowances.refresh()
    read = at.store.terms

    async def read_slowly() -> Mapping[bytes, Terms]:
        found = await read()
        at.allowances.note(await at.store.pause_client(at.alice.client_id, paused=True))
        at.allowances.note(await at.store.pause_client(at.bob.client_id, paused=False))
        return found

    at.store.terms = read_slowly  # type: ignore[method-assign]
    # One reading is enough, however often something is changed: a million clients take seconds.
    assert await at.allowances.refresh() == frozenset()
    assert at.allowances.is_paused(at.alice.client_id)
    assert not at.allowances.is_paused(at.bob.client_id)
    at.store.terms = read  # type: ignore[method-assign]
    assert await at.allowances.refresh() == frozenset()
    assert at.allowances.is_paused(at.alice.client_id)


def test_what_the_operator_changes_holds_at_once() -> None:
    """And is gone at once with its client."""
    at = Scene()
    at.allowances.note(at.alice)
    assert at.allowances.limits_of(at.alice.client_id).slots == 3
    at.allowances.note(replace(at.alice, quota=Quota(bytes=9)))
    assert at.allowances.limits_of(at.alice.client_id) == replace(LIMITS, bytes=9)
    at.allowances.note(replace(at.alice, quota=Quota()))
    assert at.allowances._terms == {}
    at.allowances.note(at.alice)
    at.allowances.forget(at.alice.client_id)
    assert at.allowances.limits_of(at.alice.client_id) == LIMITS


def test_other_settings_hold_from_the_next_message_on() -> None:
    """For what is not a client's own: in the buckets too, and for the store's arguments."""
    at = Scene()
    at.allowances.note(at.alice)
    assert (at.let_in(store(at.bob.client_id)), at.let_in(RequestContext(at.bob.client_id, 1))) == (60, 60)
    client = replace(LIMITS, slots=7, bytes=8, stores_per_minute=120, mailbox_letters=4, mailbox_bytes=5)
    at.allowances.set_defaults(replace(DEFAULTS, client=client, offer=Rate(1, 1), mail_ttl=6))
    assert at.let_in(store(at.bob.client_id), NOW + 30_000) == 60
    assert at.let_in(request(at.bob.client_id)) == 1
    assert at.allowances.limits_of(at.alice.client_id) == client.under(at.alice.quota)
    assert at.allowances.usage() == Usage(slots=7, bytes=8)
    assert at.allowances.mail() == MailLimits(letters=4, bytes=5, ttl=6)


def test_requests_are_limited_at_the_clients_own_rate() -> None:
    """Over all its offers; another client is limited as the settings say, and each offer for itself."""
    at = Scene()
    at.allowances.note(at.alice)
    assert [at.let_in(request(at.alice.client_id, slot), tries=1) for slot in range(4)] == [1, 1, 0, 0]
    assert at.let_in(request(at.alice.client_id, 9), NOW + 1_000) == 1
    assert at.let_in(request(at.bob.client_id)) == 5
    assert sum(at.let_in(request(at.bob.client_id, slot)) for slot in range(1, 20)) == 45


@pytest.mark.parametrize(
    ("own", "stores", "offer_paths"),
    [(Quota(stores_per_minute=2), 2, 60), (Quota(offer_paths_per_minute=3), 60, 3)],
    ids=str,
)
def test_a_wallets_messages_are_limited_at_the_clients_own_rate(
    own: Quota, stores: int, offer_paths: int
) -> None:
    """So many a minute, at once or one after the other."""
    at = Scene()
    at.allowances.note(replace(at.bob, quota=own))
    client_id = at.bob.client_id
    assert (at.let_in(store(client_id)), at.let_in(RequestContext(client_id, 1))) == (stores, offer_paths)
    a_minute_later = NOW + 60_000
    assert at.let_in(store(client_id), a_minute_later) == stores
    assert at.let_in(RequestContext(client_id, 1), a_minute_later) == offer_paths


def test_a_paused_clients_messages_are_refused_and_use_nothing_up() -> None:
    """Whatever path they come over; once it is resumed its buckets are full."""
    at = Scene()
    at.allowances.note(replace(at.alice, state=ClientState.PAUSED))
    contexts = (request(at.alice.client_id), store(at.alice.client_id), RequestContext(at.alice.client_id, 1))
    for context in contexts:
        for _ in range(100):
            with pytest.raises(ClientPaused):
                at.allowances.admit(context, NOW)
    assert at.allowances.refusals(at.alice.client_id) == {"paused": 300}
    at.allowances.note(at.alice)
    assert [at.let_in(context) for context in contexts] == [2, 60, 60]


def test_what_is_refused_is_counted_by_client_and_limit() -> None:
    """Each limit by its name, and all clients together in the counters."""
    at = Scene()
    at.allowances.note(at.alice)
    alice, bob = at.alice.client_id, at.bob.client_id
    at.let_in(request(alice), tries=5)
    at.let_in(request(bob), tries=7)
    at.let_in(store(bob), tries=63)
    at.let_in(RequestContext(bob, 1), tries=64)
    for error in (SlotOutOfRange, QuotaExceeded, MailboxFull, ClientPaused):
        at.allowances.refused(bob, error("over"))
    at.allowances.refused(bob, StaleOffer("no limit's word"))
    at.allowances.refuse(bob, Limit.MAILBOX, 4)
    assert at.allowances.refusals(alice) == {"requests": 3}
    expected = {
        "offer-requests": 2,
        "stores": 3,
        "offer-paths": 4,
        "slots": 1,
        "bytes": 1,
        "mailbox": 5,
        "paused": 1,
    }
    assert at.allowances.refusals(bob) == expected
    assert at.counters == {f"refused.{limit}": times for limit, times in {**expected, "requests": 3}.items()}


def test_refusals_are_remembered_of_a_bounded_number_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that were refused something last."""
    monkeypatch.setattr(module, "_COUNTED", 2)
    at = Scene()
    first, second, third = (bytes([number]) * 10 for number in range(3))
    for client_id in (first, second, first, third):
        at.allowances.refuse(client_id, Limit.SLOTS)
    assert [at.allowances.refusals(each) for each in (first, second, third)] == [
        {"slots": 2},
        {},
        {"slots": 1},
    ]
