"""Limits: a flood over one offer or client slows down no other, and costs nothing (bLIP 66, design)."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

import sidecar.service
from sidecar.allowances import Defaults
from sidecar.core.limits import Rate
from sidecar.core.model import Loaded
from sidecar.service import MAX_AT_ONCE
from tests.harness.world import NO_LIMITS, World

TWO = Rate(per_second=1, burst=2)


def limited(offer: Rate = NO_LIMITS.offer, **client: float) -> Defaults:
    """No limits but these."""
    return replace(NO_LIMITS, offer=offer, client=replace(NO_LIMITS.client, **client))  # type: ignore[arg-type]


async def test_flooded_offer_uses_up_no_other_offers_bucket() -> None:
    """Requests are limited for each offer: another of the same client is served as ever (issue)."""
    async with World(limits=limited(offer=TWO)) as world:
        wallet, flooder, payer = await world.wallet(), world.payer(), world.payer()
        flooded, _, _ = await world.offer(wallet, 0)
        other, _, _ = await world.offer(wallet, 1)
        for _ in range(10):
            await flooder.send_request(flooded)
        await payer.send_request(other)
        await payer.receive_answer(other)
        await world.settled()
        assert world.network.waiting(flooder.node_id) == 2
        assert world.counters["dropped.rate-limited"] == 8


async def test_limited_offer_is_served_again_as_time_passes() -> None:
    """A bucket fills at its rate, up to its burst, so a flood is over when it ends."""
    async with World(limits=limited(offer=TWO)) as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        answered = []
        for waited in (0, 0, 0, 1, 0, 100):
            world.clock.pass_seconds(waited)
            await payer.send_request(offer)
            await world.settled()
            answered.append(world.network.waiting(payer.node_id))
        assert answered == [1, 2, 2, 3, 3, 4]


async def test_requests_are_limited_for_all_offers_of_a_client_together() -> None:
    """Requests per client are limited too, and another client is not touched (issue)."""
    async with World(limits=limited(requests_per_second=1, requests_burst=2)) as world:
        alice, bob, payer = await world.wallet("alice"), await world.wallet("bob"), world.payer()
        offers = [(await world.offer(alice, slot))[0] for slot in range(3)]
        theirs, _, _ = await world.offer(bob)
        for offer in offers:
            await payer.send_request(offer)
        await world.settled()
        assert world.network.waiting(payer.node_id) == 2
        await payer.send_request(theirs)
        await world.settled()
        assert world.network.waiting(payer.node_id) == 3


async def test_requests_refused_for_their_offer_do_not_count_against_the_client() -> None:
    """A flooded offer slows down no other, the client's own others included (issue)."""
    limits = limited(offer=TWO, requests_per_second=0, requests_burst=4)
    async with World(limits=limits) as world:
        wallet, flooder, payer = await world.wallet(), world.payer(), world.payer()
        flooded, _, _ = await world.offer(wallet, 0)
        other, _, _ = await world.offer(wallet, 1)
        for _ in range(10):
            await flooder.send_request(flooded)
        for _ in range(2):
            await payer.send_request(other)
        await world.settled()
        assert world.network.waiting(payer.node_id) == 2


async def test_stores_are_limited_for_each_client() -> None:
    """A limit on stores a minute (issue): over it neither kept nor acknowledged; others go on."""
    async with World(limits=limited(stores_per_minute=2)) as world:
        alice, bob, payer = await world.wallet("alice"), await world.wallet("bob"), world.payer()
        offer, issued, invoice = await world.offer(alice)
        for _ in range(4):
            await alice.leave_invoice(issued, invoice)
        await world.offer(bob)
        await payer.send_request(offer)
        await payer.receive_answer(offer)
        await world.settled()
        # One acknowledgement, and the forwarded request.
        assert world.network.waiting(alice.node_id) == 2
        assert world.counters["dropped.rate-limited"] == 3
        assert world.counters["stored"] == 3


async def test_offer_paths_requests_are_limited_for_each_client_over_all_its_paths() -> None:
    """The limit is the client's: a second request path is no second bucket; others go on (issue)."""
    async with World(limits=limited(offer_paths_per_minute=2)) as world:
        alice, bob = await world.wallet("alice"), await world.wallet("bob")
        client = await world.store.find_client("alice")
        for slot in range(4):
            await alice.ask_offer_paths(slot)
            alice.request_path = world.server.request_path(client, os.urandom)
        await bob.ask_offer_paths(0)
        await bob.receive_offer_paths()
        await world.settled()
        assert world.network.waiting(alice.node_id) == 2
        assert world.counters["dropped.rate-limited"] == 2


Sender = Callable[[World], Coroutine[None, None, Callable[[], Coroutine[None, None, object]]]]


async def _requests(world: World) -> Callable[[], Coroutine[None, None, object]]:
    offer, _, _ = await world.offer(await world.wallet())
    payer = world.payer()
    return lambda: payer.send_request(offer)


async def _stores(world: World) -> Callable[[], Coroutine[None, None, object]]:
    wallet = await world.wallet()
    _, issued, invoice = await world.offer(wallet)
    return lambda: wallet.leave_invoice(issued, invoice)


async def _offer_paths(world: World) -> Callable[[], Coroutine[None, None, object]]:
    wallet = await world.wallet()
    return lambda: wallet.ask_offer_paths(0)


@pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])
@pytest.mark.parametrize("sender", [_requests, _stores, _offer_paths])
async def test_flood_over_a_known_path_costs_neither_a_signer_call_nor_a_load(
    sender: Sender, native: bool
) -> None:
    """A path that was used before is limited before it costs anything (design, section 3)."""
    limits = limited(offer=TWO, stores_per_minute=2, offer_paths_per_minute=2)
    async with World(native=native, limits=limits) as world:
        send = await sender(world)
        for _ in range(2):
            await send()
        await world.settled()
        calls, loads = len(world.lnd_key.calls), world.store.calls["load"]
        dropped = world.counters["dropped.rate-limited"]
        for _ in range(20):
            await send()
        await world.settled()
        assert len(world.lnd_key.calls) == calls
        assert world.store.calls["load"] == loads
        assert world.counters["dropped.rate-limited"] == dropped + 20


@pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])
async def test_message_costs_two_signer_calls_over_a_new_path_and_one_over_a_known_one(native: bool) -> None:
    """Two calls peel one layer, and what a path_key leads to is remembered (design, section 2)."""
    async with World(native=native) as world:
        offer, _, _ = await world.offer(await world.wallet())
        payer = world.payer()
        costs = []
        for _ in range(3):
            before = len(world.lnd_key.calls)
            await payer.send_request(offer, reply_path=payer.path_to_self(b"payer", through_lnd=False))
            await world.settled()
            costs.append(len(world.lnd_key.calls) - before)
        # The offer's path was walked when its invoice was stored: it is known from the start.
        assert costs == [1, 1, 1]
        wallet = await world.wallet("bob")
        wallet.through_lnd = False
        for cost in (2, 1):
            before = len(world.lnd_key.calls)
            await wallet.ask_offer_paths(0)
            await world.settled()
            assert len(world.lnd_key.calls) - before == cost


async def test_other_peoples_message_costs_one_signer_call_and_then_none_where_lnd_forwards() -> None:
    """One call tells whose the message is, and path_key is the same on a path used again (design)."""
    async with World() as world:
        one, other = world.payer(), world.payer()
        path = other.path_to_self(b"hello")
        costs = []
        for _ in range(3):
            await one.send_along(path, 64, b"")
            await world.settled()
            costs.append(len(world.lnd_key.calls))
        assert costs == [1, 1, 1]


async def test_forged_signature_costs_no_load() -> None:
    """The signature is checked first: what no payer signed costs Redis nothing (design, section 3)."""
    async with World() as world:
        offer, _, _ = await world.offer(await world.wallet())
        payer = world.payer()
        loads = world.store.calls["load"]
        await payer.send_request(offer, request=(await payer.send_request(offer))[:-1] + b"\0")
        await world.settled()
        assert world.network.waiting(payer.node_id) == 1
        assert world.counters["dropped.bad-signature"] == 1
        assert world.store.calls["load"] == loads + 1


async def test_message_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that one message causes has a time limit, so that none holds its place for ever (issue)."""
    monkeypatch.setattr(sidecar.service, "MESSAGE_TIMEOUT", 0.01)
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        world.graph.line_is_free.clear()
        elsewhere = world.payer()
        await elsewhere.link.close()
        for _ in range(MAX_AT_ONCE + 1):
            await payer.send_request(offer, reply_path=elsewhere.path_to_self(b"gone"))
        await payer.send_request(offer)
        await payer.receive_answer(offer)
        await world.settled()
        assert world.counters["dropped.timeout"] == MAX_AT_ONCE + 1


async def test_no_more_messages_are_in_work_at_once_than_the_limit() -> None:
    """The rest wait in the transport's bounded queue, and go on when there is room (design, section 2)."""
    async with World() as world:
        wallet = await world.wallet()
        inside, most = 0, 0
        free = asyncio.Event()
        full = asyncio.Event()
        load = world.store.load

        async def slow(client_id: bytes, slot: int) -> Loaded:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            if inside == MAX_AT_ONCE:
                full.set()
            await free.wait()
            inside -= 1
            return await load(client_id, slot)

        world.store.load = slow  # type: ignore[method-assign]
        for _ in range(MAX_AT_ONCE + 5):
            await wallet.ask_offer_paths(0)
        await full.wait()
        free.set()
        await world.settled()
        assert most == MAX_AT_ONCE
        assert world.network.waiting(wallet.node_id) == MAX_AT_ONCE + 5
