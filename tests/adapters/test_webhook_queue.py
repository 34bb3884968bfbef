"""Cooldowns, queues and turns of the notifier: what waits for what, and what must not wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from sidecar.core.webhooks import ONION_MESSAGE_INCOMING, Webhook
from tests.harness.notifying import ALICE, BOB, CAROL, Notifying, services
from tests.harness.push_service import Behaviour, PushService, answer, hang

PROMPT = 1.0
"""Seconds within which what nothing holds up arrives; what hangs takes three."""


def node(number: int) -> bytes:
    """One of many nodes."""
    return b"\x03" + number.to_bytes(32, "big")


def gate() -> tuple[asyncio.Event, Behaviour]:
    """An event, and a behaviour that answers 200 when it is set."""
    event = asyncio.Event()

    async def behave(writer: asyncio.StreamWriter) -> None:
        await event.wait()
        await answer(200)(writer)

    return event, behave


# --- cooldowns ------------------------------------------------------------------------------------


async def test_what_comes_within_the_cooldown_is_told_once_when_it_ends(service: PushService) -> None:
    """A payment that came a second after a wake-up wakes too, if the wallet has not come meanwhile."""
    async with Notifying([service], cooldown=0.2) as notifying:
        await notifying.register(service.url())
        for _ in range(5):
            notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await service.next()
        await asyncio.sleep(0.2)
        assert service.count() == 0
        notifying.clock.pass_seconds(0.2)
        await service.next()
        notifying.clock.pass_seconds(0.2)
        await asyncio.sleep(0.2)
        assert service.count() == 0


async def test_a_node_that_connects_is_told_at_once_the_next_time_and_not_of_what_was(
    service: PushService,
) -> None:
    """bLIP 55: "The timeout should be reset once the client comes online and then goes offline"."""
    async with Notifying([service], cooldown=0.2) as notifying:
        await notifying.register(service.url())
        for _ in range(2):
            notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await service.next()
        await notifying.quiet()
        notifying.bell.connected(ALICE)
        notifying.clock.pass_seconds(0.2)
        await asyncio.sleep(0.2)
        assert service.count() == 0
        for _ in range(2):
            notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
            notifying.bell.connected(BOB)
        await service.next()
        notifying.bell.connected(ALICE)
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await service.next()


async def test_the_cooldown_is_lifted_when_no_webhook_was_reached(tmp_path: Path) -> None:
    """The wallet was not woken: the next message may try again at once. One webhook reached is enough."""
    async with services(tmp_path, 2) as (dead, alive), Notifying([dead, alive]) as notifying:
        dead.behaviour = answer(500)
        await notifying.register(dead.url(), ALICE, "dead")
        for _ in range(2):
            notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
            await notifying.quiet()
        assert dead.connections == 6
        await notifying.register(alive.url(), ALICE, "alive")
        for _ in range(2):
            notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
            await notifying.quiet()
        assert (dead.connections, alive.connections) == (9, 1)


async def test_a_node_without_webhooks_costs_one_look_a_cooldown(service: PushService) -> None:
    """And when it registers one, its next wake-up need not wait."""
    async with Notifying([service]) as notifying:
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        await notifying.register(service.url())
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        assert service.connections == 0
        notifying.bell.announce(ALICE, "app")
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await service.next()


# --- what a connection drops ----------------------------------------------------------------------


async def test_what_waits_for_a_node_that_connects_is_dropped(service: PushService) -> None:
    """What is under way goes on to its end and is not tried again; webhook_registered is still sent."""
    async with Notifying([service], per_host=1) as notifying:
        event, behave = gate()
        service.behaviour = behave
        for app_name in ("a", "b", "c"):
            await notifying.register(service.url(f"/{app_name}"), ALICE, app_name)
        await notifying.register(service.url("/new"), ALICE, "new", announced=False)
        await notifying.register(service.url("/bob"), BOB)
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        notifying.bell.announce(ALICE, "new")
        notifying.bell.notify(BOB, ONION_MESSAGE_INCOMING)
        await service.next()
        notifying.bell.connected(ALICE)
        event.set()
        assert {(await service.next()).path for _ in range(2)} == {"/new", "/bob"}
        await notifying.quiet()
        assert service.count() == 0
        assert notifying.counters["wake.dropped.connected"] == 3


async def test_a_node_that_connects_between_two_tries_gets_no_more(service: PushService) -> None:
    """Neither in the pause nor when it connects while a POST is under way."""
    async with Notifying([service]) as notifying:
        await notifying.register(service.url())

        async def connect() -> None:
            notifying.bell.connected(ALICE)
            await asyncio.Event().wait()

        notifying.during_pause = connect
        service.behaviour = answer(500)
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        assert (service.connections, notifying.counters["wake.dropped.connected"]) == (1, 1)

        async def connect_meanwhile(writer: asyncio.StreamWriter) -> None:
            notifying.bell.connected(ALICE)
            await answer(500)(writer)

        service.behaviour = connect_meanwhile
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        assert (service.connections, notifying.counters["wake.failed.status-5xx"]) == (2, 1)


async def test_a_node_that_connects_before_its_webhooks_were_read_is_told_nothing(
    service: PushService,
) -> None:
    """All of it within one step of the loop."""
    async with Notifying([service]) as notifying:
        await notifying.register(service.url())
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        notifying.bell.connected(ALICE)
        await notifying.quiet()
        assert (service.connections, notifying.counters["wake.dropped.connected"]) == (0, 1)


# --- turns ----------------------------------------------------------------------------------------


async def test_a_dead_push_service_delays_nobody_else(tmp_path: Path) -> None:
    """However much waits for it, it has but its own few places, and what waits holds none."""
    async with (
        services(tmp_path, 2) as (dead, alive),
        Notifying([dead, alive], per_host=2, concurrency=3) as notifying,
    ):
        dead.behaviour = hang
        for number in range(40):
            await notifying.register(dead.url(), node(number))
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        for _ in range(2):
            await dead.next()
        began = time.monotonic()
        for number in range(100, 110):
            await notifying.register(alive.url(), node(number))
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        for _ in range(10):
            await alive.next()
        assert time.monotonic() - began < PROMPT
        assert (dead.connections, dead.most_open) == (2, 2)


async def test_a_node_with_many_dead_webhooks_delays_no_other_node(tmp_path: Path) -> None:
    """Its webhooks are at hosts of many names; it has its own few places, and holds no host's by waiting."""
    async with (
        services(tmp_path, 5) as (*dead, alive),
        Notifying([*dead, alive], per_host=2, concurrency=3) as notifying,
    ):
        for number, service in enumerate(dead):
            service.behaviour = hang
            await notifying.register(service.url(), ALICE, f"a{number}")
        for number in range(5):
            await notifying.register(alive.url("/alice"), ALICE, f"b{number}")
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        for service in dead[:2]:
            await service.next()
        began = time.monotonic()
        await notifying.register(alive.url("/bob"), BOB)
        notifying.bell.notify(BOB, ONION_MESSAGE_INCOMING)
        assert (await alive.next()).path == "/bob"
        assert time.monotonic() - began < PROMPT
        assert sum(service.connections for service in dead) == 2


async def test_posts_under_way_are_bounded_by_host_and_in_all(tmp_path: Path) -> None:
    """So many to one service, so many in all, and every one arrives."""
    async with (
        services(tmp_path, 2) as (one, two),
        Notifying([one, two], per_host=3, concurrency=5) as notifying,
    ):
        event, behave = gate()
        for number, service in enumerate([one, two] * 10):
            service.behaviour = behave
            await notifying.register(service.url(), node(number))
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        async with asyncio.timeout(5):
            while one.open + two.open < 5:  # noqa: ASYNC110 - looks inside
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert one.open + two.open == 5
        event.set()
        await notifying.quiet()
        assert (one.connections, two.connections) == (10, 10)
        assert max(one.most_open, two.most_open) == 3
        assert not notifying.bell._host_turns._lanes
        assert not notifying.bell._errands


async def test_dead_push_services_of_many_names_give_their_places_away(tmp_path: Path) -> None:
    """Each of another client and another host: who is not done at once holds up nobody who would be."""
    async with (
        services(tmp_path, 4) as (*dead, alive),
        Notifying([*dead, alive], concurrency=1, slow=3, patience=0.1) as notifying,
    ):
        began = time.monotonic()
        for number, service in enumerate((*dead, alive)):
            service.behaviour = answer(200) if service is alive else hang
            await notifying.register(service.url(), node(number))
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        await alive.next()
        assert time.monotonic() - began < PROMPT
        assert [service.open for service in dead] == [1, 1, 1]


async def test_the_places_of_the_slow_are_bounded_too_and_given_back(tmp_path: Path) -> None:
    """What finds none keeps its place among all, until one of the slow is done; then it moves on."""
    async with (
        services(tmp_path, 4) as all_services,
        Notifying(all_services, concurrency=1, slow=1, patience=0.1) as notifying,
    ):
        events = []
        for number, service in enumerate(all_services):
            event, service.behaviour = gate()
            events.append(event)
            await notifying.register(service.url(), node(number))
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        for service in all_services[:2]:
            await service.next()
        await asyncio.sleep(0.3)
        assert [service.open for service in all_services] == [1, 1, 0, 0]
        # The second one takes the place that the first one leaves, and the third the second one's.
        events[0].set()
        await all_services[2].next(PROMPT)
        assert [service.open for service in all_services[1:]] == [1, 1, 0]
        for event in events[1:]:
            event.set()
        await notifying.quiet()
        assert [service.connections for service in all_services] == [1, 1, 1, 1]
        places = notifying.bell._all
        assert (places._free._value, places._free_slow._value) == (1, 1)


# --- bounds ---------------------------------------------------------------------------------------


async def test_what_waits_for_one_host_is_bounded(tmp_path: Path) -> None:
    """Beyond it, what is for that host is dropped and counted, and the next may ask at once."""
    async with services(tmp_path, 2) as (one, two), Notifying([one, two], host_queue=3) as notifying:
        event, behave = gate()
        one.behaviour = behave
        for number in range(5):
            await notifying.register(one.url(), node(number))
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        await notifying.register(two.url(), ALICE)
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await two.next()
        for _ in range(3):
            await one.next()
        assert notifying.counters["wake.dropped.host-busy"] == 2
        event.set()
        await notifying.quiet()
        for number in range(5):
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        assert one.connections == 5


async def test_what_waits_in_all_is_bounded(service: PushService) -> None:
    """Nodes, and webhooks: what is too much is dropped and counted, and the next may ask at once."""
    async with Notifying([service], queue=3) as notifying:
        event, behave = gate()
        service.behaviour = behave
        for number in range(5):
            await notifying.register(service.url(), ALICE, f"app {number}")
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        assert notifying.counters["wake.dropped.queue-full"] == 2
        await notifying.quiet()
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        for _ in range(3):
            await service.next()
        assert notifying.counters["wake.dropped.queue-full"] == 4
        event.set()
        await notifying.quiet()
        await notifying.register(service.url(), node(4))
        notifying.bell.notify(node(4), ONION_MESSAGE_INCOMING)
        await service.next()


async def test_a_burst_of_wake_ups_does_not_flood_the_store(service: PushService) -> None:
    """Eight nodes' webhooks are read at once; the other nodes wait for their turn."""
    async with Notifying([service]) as notifying:
        webhooks, reading, most = notifying.store.webhooks, 0, 0

        async def read(node_id: bytes) -> Sequence[Webhook]:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            await asyncio.sleep(0.01)
            reading -= 1
            return await webhooks(node_id)

        notifying.store.webhooks = read  # type: ignore[method-assign]
        for number in range(20):
            notifying.bell.notify(node(number), ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        assert most == 8


async def test_what_waited_too_long_is_not_sent(service: PushService) -> None:
    """A wake-up is stale after minutes; the next message may ask at once."""
    async with Notifying([service], per_host=1, stale=0.1) as notifying:
        event, behave = gate()
        service.behaviour = behave
        for node_id in (ALICE, BOB):
            await notifying.register(service.url(), node_id)
            notifying.bell.notify(node_id, ONION_MESSAGE_INCOMING)
        await service.next()
        await asyncio.sleep(0.15)
        event.set()
        await notifying.quiet()
        assert (service.connections, notifying.counters["wake.dropped.stale"]) == (1, 1)
        for node_id in (ALICE, BOB, CAROL):
            notifying.bell.notify(node_id, ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        assert service.connections == 2


async def test_ending_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """Cancelled amidst a POST, a pause and a wait for a turn."""
    async with PushService(tmp_path, hang) as service:
        async with Notifying([service], per_host=1) as notifying:
            for node_id in (ALICE, BOB):
                await notifying.register(service.url(), node_id)
                notifying.bell.notify(node_id, ONION_MESSAGE_INCOMING)
            await service.next()
        assert len(asyncio.all_tasks()) <= 3  # the test's own, and the service's
        assert not notifying.bell._hosts
        assert not notifying.bell._errands
        assert not notifying.bell._host_turns._lanes


async def test_a_wake_up_that_was_forgotten_is_counted(service: PushService) -> None:
    """More nodes within a cooldown than are remembered: what waited for its end comes no more."""
    async with Notifying([service]) as notifying:
        for number in range(10_003):
            notifying.bell._cooldowns.ask(node(number), ONION_MESSAGE_INCOMING, notifying.clock.now_ms())
            notifying.bell._cooldowns.ask(node(number), ONION_MESSAGE_INCOMING, notifying.clock.now_ms())
        notifying.bell.notify(node(20_000), ONION_MESSAGE_INCOMING)
        assert notifying.counters["wake.dropped.cooldowns-full"] == 4
