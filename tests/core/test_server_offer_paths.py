"""The server on `offer_paths_request`: (what is known, message) → `offer_paths`, or which error."""

import os
from dataclasses import replace

import pytest

from sidecar.core import paths
from sidecar.core.context import Kind, OfferContext, RequestContext
from sidecar.core.effects import Send
from sidecar.core.errors import (
    ClientPaused,
    ClientRevoked,
    NoReplyPath,
    OldGeneration,
    Refused,
    SlotOutOfRange,
    UnknownClient,
)
from sidecar.core.messages import OfferPathsRequest
from sidecar.core.model import MIN_PATHS_LIFETIME, Family, Loaded, OfferTag, Quota, SlotMark
from tests.core.server_cases import (
    CLIENT,
    LIFETIME,
    LND_NODE_ID,
    NOTHING,
    NOW,
    NOW_MS,
    PAUSED,
    REPLY_PATH,
    REQUEST_CONTEXT,
    REVOKED,
    SERVER,
    Kept,
    ask,
    contexts_of,
    offer_paths_arrival,
    open_own_path,
    read_offer_paths,
)
from tests.harness.allowed import LIMITS
from tests.harness.fakes import DAY

SLOTS = 4  # of CLIENT


def test_request_path_leads_through_lnd_to_us_and_names_the_client_and_its_generation() -> None:
    """A request path is [LND, our key] and tells who asks (bLIP 66 "Static invoice server nodes")."""
    path = SERVER.request_path(CLIENT, os.urandom)
    assert open_own_path(path) == RequestContext(CLIENT.client_id, CLIENT.generation)


def test_request_paths_are_unlinkable_to_each_other() -> None:
    """Two request paths of one client have nothing in common but LND (BOLT 4: a fresh session key each)."""
    one, other = (SERVER.request_path(CLIENT, os.urandom) for _ in range(2))
    assert one.path_key != other.path_key
    assert not {hop.blinded_node_id for hop in one.hops} & {hop.blinded_node_id for hop in other.hops}


def test_offer_paths_request_without_reply_path_is_met_with_silence() -> None:
    """Senders "MUST set `reply_path`" (bLIP 66 "Senders of `offer_paths_request`")."""
    with pytest.raises(NoReplyPath):
        SERVER.on_offer_paths_request(
            offer_paths_arrival(reply_path=None), OfferPathsRequest(0), Family.LDK, os.urandom, LIMITS
        )


@pytest.mark.parametrize(
    ("loaded", "context", "error"),
    [
        pytest.param(Loaded(None, None, None), REQUEST_CONTEXT, UnknownClient, id="removed"),
        pytest.param(Loaded(REVOKED, None, None), REQUEST_CONTEXT, ClientRevoked, id="revoked"),
        pytest.param(Loaded(PAUSED, None, None), REQUEST_CONTEXT, ClientPaused, id="paused"),
        pytest.param(NOTHING, replace(REQUEST_CONTEXT, generation=2), OldGeneration, id="rotated away"),
        pytest.param(NOTHING, replace(REQUEST_CONTEXT, generation=4), OldGeneration, id="not yet issued"),
    ],
)
def test_offer_paths_request_of_who_is_not_let_in_is_met_with_silence(
    loaded: Loaded, context: RequestContext, error: type[Refused]
) -> None:
    """Recipients "MUST authenticate the request" (bLIP 66 "Recipients of `offer_paths_request`")."""
    with pytest.raises(error):
        SERVER.on_offer_paths_request(
            offer_paths_arrival(loaded, context=context), OfferPathsRequest(0), Family.LDK, os.urandom, LIMITS
        )


@pytest.mark.parametrize("slot", [SLOTS, SLOTS + 1, 0xFFFF])
def test_offer_paths_request_for_a_slot_beyond_the_clients_is_met_with_silence(slot: int) -> None:
    """Slots count from 0, so a slot ≥ the client's number of slots is not its own (project rule)."""
    with pytest.raises(SlotOutOfRange):
        ask(slot=slot)


def test_a_client_without_slots_of_its_own_has_as_many_as_the_settings_say() -> None:
    """A quota that says nothing leaves it to the server's settings, whatever they are by then."""
    free = Loaded(replace(CLIENT, quota=Quota()), None, None)
    for slots in (1, 2):
        defaults = replace(LIMITS, slots=slots)
        arrival = offer_paths_arrival(free)
        assert SERVER.on_offer_paths_request(
            arrival, OfferPathsRequest(slots - 1), Family.LDK, os.urandom, defaults
        )
        with pytest.raises(SlotOutOfRange):
            SERVER.on_offer_paths_request(arrival, OfferPathsRequest(slots), Family.LDK, os.urandom, defaults)


def test_last_slot_of_a_client_is_its_own() -> None:
    """The highest slot is the number of slots less one (project rule)."""
    update, _ = contexts_of(ask(slot=SLOTS - 1))
    assert update.slot == SLOTS - 1


@pytest.mark.parametrize(("family", "number"), [(Family.BLIP66, 65542), (Family.LDK, 75542)])
def test_offer_paths_request_is_answered_once_in_its_own_family_over_its_reply_path(
    family: Family, number: int
) -> None:
    """Servers "SHOULD respond with an `offer_paths` message"; LDK understands only its own numbers."""
    effects = SERVER.on_offer_paths_request(
        offer_paths_arrival(), OfferPathsRequest(1), family, os.urandom, LIMITS
    )
    (sent,) = effects
    assert isinstance(sent, Send)
    assert (sent.path, sent.content_type, sent.may_dial) == (REPLY_PATH, number, False)
    assert read_offer_paths(effects)[1] is family


def test_offer_path_ends_at_us_and_identifies_client_slot_and_offer() -> None:
    """Offer paths "MUST" let the invoice be "uniquely identified" (bLIP 66 "Senders of `offer_paths`")."""
    issued = ask(slot=2)
    (path,) = issued.message.paths
    assert path.introduction_node == LND_NODE_ID
    context = open_own_path(path)
    assert isinstance(context, OfferContext)
    assert (context.kind, context.client_id, context.slot) == (Kind.INVOICE_REQUEST, CLIENT.client_id, 2)


def test_reply_path_of_offer_paths_is_good_for_updates_as_long_as_the_offer_lives() -> None:
    """The client can "reuse the reply path in the future to update the invoice" (bLIP 66)."""
    update, offer = contexts_of(ask(slot=2))
    assert update == replace(offer, kind=Kind.SERVE_STATIC_INVOICE)


def test_paths_absolute_expiry_is_the_end_of_the_paths_themselves() -> None:
    """`paths_absolute_expiry` says when the paths "can no longer be used" (bLIP 66)."""
    issued = ask()
    update, offer = contexts_of(issued)
    assert issued.message.paths_absolute_expiry == update.expires_at == offer.expires_at == NOW + LIFETIME


def test_shortest_allowed_lifetime_is_what_ldk_wallets_ask_for() -> None:
    """LDK takes offer_paths only with an expiry ≥ now + 90 days (design, "The wallet")."""
    assert MIN_PATHS_LIFETIME == 90 * DAY


def test_each_request_gets_fresh_paths_and_a_new_offer_tag() -> None:
    """An LDK wallet refuses paths that another of its offers uses; a tag names one issue of paths."""
    one, other = ask(), ask()
    assert one.message.paths[0].path_key != other.message.paths[0].path_key
    assert one.update_path.path_key != other.update_path.path_key
    assert contexts_of(one)[0].tag != contexts_of(other)[0].tag


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param(None, NOW_MS, id="first of the slot"),
        pytest.param(NOW_MS - 5_000, NOW_MS, id="clock runs as usual"),
        pytest.param(NOW_MS - 1, NOW_MS, id="a millisecond ago"),
        pytest.param(NOW_MS, NOW_MS + 1, id="same millisecond"),
        pytest.param(NOW_MS + 90 * DAY * 1000, NOW_MS + 90 * DAY * 1000 + 1, id="clock stepped back"),
    ],
)
def test_tag_issue_time_is_now_or_just_behind_the_slots_last(last: int | None, expected: int) -> None:
    """Issue time = max(now, last + 1): a clock stepped and corrected locks no wallet out (design)."""
    mark = None if last is None else SlotMark(OfferTag(last, b"\xff" * 6), NOW)
    update, _ = contexts_of(ask(Loaded(CLIENT, mark, None)))
    assert update.tag.issued_at_ms == expected


def test_invoice_for_paths_issued_after_a_clock_was_stepped_back_is_admitted() -> None:
    """The tag is newer than the slot's last one although the clock is behind it (design)."""
    ahead = SlotMark(OfferTag(NOW_MS + 90 * DAY * 1000, b"\xff" * 6), NOW)
    kept = Kept(ask(Loaded(CLIENT, ahead, None)))
    admitted = SERVER.admit_static_invoice(
        kept.update(Loaded(CLIENT, ahead, None)), kept.message(), Family.LDK, LIMITS
    )
    assert admitted.encoded == kept.invoice


def test_offer_path_stays_short_enough_for_a_payment_onion() -> None:
    """An LDK payer puts the whole request into the payment onion, so two hops and 48 bytes of path_id."""
    (path,) = ask().message.paths
    assert len(paths.encode_path(path)) <= 254
