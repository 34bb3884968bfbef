"""When a wallet is woken for what waits in its mailbox, and when it is let sleep."""

import asyncio

import pytest

from sidecar.mailroom import NEWS_MS, WAKES_WITHOUT_NEWS
from tests.harness.mail_scene import scene
from tests.harness.world import World

MODES = pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])


@MODES
async def test_a_sleeping_wallet_is_woken_and_finds_the_request(native: bool) -> None:
    """The invoice_request waits, the wallet is told that something does, and gets it as it connects."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.away()
        await at.payer.send_request(at.offer)
        await at.payer.receive_answer(at.offer)
        await world.settled()
        assert (at.woken(), await at.letters()) == (1, 1)
        await at.back()
        await at.wallet.receive_invoice_request()
        assert world.counters["kept.invoice_request"] == 1
        assert world.notifier.came[-1] == at.wallet.node_id


async def test_a_suspended_phone_is_woken_though_it_seems_connected() -> None:
    """No byte for 20 s after a message: it is told by its push service, once for each sleep."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        assert at.woken() == 0
        for _ in range(6):
            world.clock.pass_seconds(10)
            await world.mailroom.look()
        assert at.woken() == 1
        await at.hold(content=b"another")
        assert at.woken() == 2


async def test_a_phone_that_was_thawed_counts_as_connected_anew() -> None:
    """It shows life on the connection that it had: suspended again, it is woken without delay."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        for _ in range(3):
            world.clock.pass_seconds(10)
            await world.mailroom.look()
        assert at.woken() == 1
        came = world.notifier.came.count(at.wallet.node_id)
        world.network.peers.received[at.wallet.node_id] += 100
        world.clock.pass_seconds(10)
        await world.mailroom.look()
        assert world.notifier.came.count(at.wallet.node_id) == came + 1
        await at.hold(content=b"another")
        world.clock.pass_seconds(30)
        await world.mailroom.look()
        assert at.woken() == 2
        # An onion message of its own is a sign too.
        await at.wallet.ask_offer_paths(1)
        await world.settled()
        assert world.notifier.came.count(at.wallet.node_id) == came + 2


async def test_a_wallet_that_pings_does_not_count_as_connected_anew() -> None:
    """Its cooldowns stand: it was there all the time."""
    async with World() as world:
        at = await scene(world)
        came = world.notifier.came.count(at.wallet.node_id)
        await at.hold()
        await at.prove_life()
        assert world.notifier.came.count(at.wallet.node_id) == came


async def test_a_wallet_that_pings_is_not_woken() -> None:
    """LDK pings every 10 s: its life shows."""
    async with World() as world:
        at = await scene(world)
        for number in range(3):
            await at.hold(content=bytes([number]))
            await at.prove_life()
        assert at.woken() == 0


async def test_what_a_connection_swallowed_wakes_when_it_breaks() -> None:
    """LND drops a peer that was dead all along: what was written to it is lost, and waits here."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        await at.wallet.link.close()
        await world.settled()
        assert at.woken() == 1


async def test_a_wallet_that_showed_life_and_left_is_let_sleep() -> None:
    """It was here, it has seen its messages: waking it again would never end."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        world.network.peers.received[at.wallet.node_id] = 1
        await world.mailroom.look()
        world.clock.pass_seconds(10)
        world.network.peers.received[at.wallet.node_id] = 2
        await world.mailroom.look()
        await at.wallet.link.close()
        await world.settled()
        assert at.woken() == 0


async def test_a_wallet_that_connects_for_moments_is_not_woken_for_ever() -> None:
    """Without new letters a few wake-ups are enough; new ones start the count anew."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        for _ in range(WAKES_WITHOUT_NEWS + 3):
            world.clock.pass_seconds(3_600)
            await at.back()
            await at.wallet.link.close()
            await world.settled()
        assert at.woken() == 1 + WAKES_WITHOUT_NEWS
        await at.hold(content=b"news")
        assert at.woken() == 2 + WAKES_WITHOUT_NEWS
        world.clock.pass_seconds(3_600)
        await at.back()
        await at.wallet.link.close()
        await world.settled()
        assert at.woken() == 3 + WAKES_WITHOUT_NEWS


async def test_a_full_mailbox_wakes_all_the_same() -> None:
    """The letter is lost, and the next one would be too: the wallet is told, and empties it."""
    async with World() as world:
        at = await scene(world)
        world.set_mail_total(0)
        await at.away()
        await at.hold()
        assert (await at.letters(), at.woken(), world.counters["lost.message"]) == (0, 1, 1)


async def test_after_a_restart_whoever_has_fresh_mail_is_woken() -> None:
    """The wake-up may have been lost with the process; mail that is old wakes nobody anew."""
    for age_ms, woken in ((NEWS_MS - 1_000, 1), (NEWS_MS + 1_000, 0)):
        async with World() as world:
            at = await scene(world)
            await at.away()
            await at.hold()
            world.notifier.notified.clear()
            world.clock.pass_seconds(age_ms / 1000)
            world.restart_mailroom()
            await world.settled()
            assert at.woken() == woken
            await at.back()
            assert len(await at.read()) == 1


@pytest.mark.parametrize("step", [-86_400, -600, 600, 86_400])
async def test_a_clock_that_is_set_hides_no_sleeping_phone(step: int) -> None:
    """How long a phone gave no sign is measured by a clock that nobody sets."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        await at.prove_life()
        world.clock.step_seconds(step)
        await at.hold(content=b"another")
        await world.mailroom.look()
        assert at.woken() == 0
        for _ in range(3):
            world.clock.pass_seconds(10)
            await world.mailroom.look()
        assert at.woken() == 1


@pytest.mark.parametrize("step", [600, 86_400])
async def test_a_clock_that_is_set_forward_proves_no_letter(step: int) -> None:
    """The bytes that come right after it were under way before the phone fell asleep, perhaps."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        world.clock.step_seconds(step)
        await at.wallet.ask_offer_paths(1)
        await world.settled()
        assert await at.letters() == 1


async def test_who_could_not_be_told_while_the_store_was_away_is_told_when_it_is_back() -> None:
    """Where to wake a wallet is in the store as well: the letter waits in memory, and so does the waking."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        world.store.away = True
        await at.hold()
        assert at.woken() == 1
        world.store.away = False
        async with asyncio.timeout(10):
            await world.mailroom.until_stored()
            while at.woken() < 2:  # noqa: ASYNC110 - a notifier that notes tells nobody
                await asyncio.sleep(0)


async def test_who_could_not_be_told_while_lnd_was_away_is_told_when_it_is_back() -> None:
    """LND signs what wakes a wallet: with its next stream of peers fresh mail is news again, a few times."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        for again in (*range(1, WAKES_WITHOUT_NEWS + 1), WAKES_WITHOUT_NEWS):
            world.network.peers.start_anew()
            await world.settled()
            assert at.woken() == 1 + again


async def test_whom_lnds_restart_disconnects_is_woken_once_for_it() -> None:
    """Its connection swallowed a letter, and the letter is news: that is one reason, and one of few times."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        del world.network.peers.received[at.wallet.node_id]
        world.network.peers.start_anew()
        await world.settled()
        assert at.woken() == 1
