"""A sleeping wallet is paid through LND: the money arrives, whatever happens to the wallet meanwhile."""

import time

import pytest

from tests.harness.events import Event
from tests.harness.waking import check_signature
from tests.settle.ledger import Finding
from tests.settle.pair import APP, HELD, RELEASE, REQUEST, SMALL_PACKET, Pair, all_of
from tests.settle.town import Town

pytestmark = [pytest.mark.settle, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

HOUR = 3_600
MINUTES = 60


async def test_a_wallet_that_is_online_is_paid(shared_town: Town) -> None:
    """Nothing sleeps here."""

    async def play(pair: Pair) -> Finding:
        return await pair.settled(await pair.pay())

    await shared_town.each("wallet online", play)


async def test_a_sleeping_wallet_is_woken_and_paid(shared_town: Town) -> None:
    """The wallet registered by LSPS5; it connects because of the signed wake-up, and for no other reason."""

    async def play(pair: Pair) -> Finding:
        await pair.sleep()
        return await woken_and_paid(pair)

    await shared_town.each("asleep, woken by LSPS5", play)


async def woken_and_paid(pair: Pair) -> Finding:
    """A payment to a wallet that is away; seconds since the wake-up."""
    payment = await pair.pay()
    woken_at = await pair.told()
    await pair.wake()
    return await pair.settled(payment, woken_at)


async def test_a_wallet_that_the_operator_registered_is_woken_and_paid(shared_town: Town) -> None:
    """As it is for a wallet that speaks no LSPS5: `sidecar webhook add`."""

    async def play(pair: Pair) -> Finding:
        await pair.wallet.remove_webhook(pair.town.lnd.node_id, APP)
        await pair.town.sidecar.command("webhook", "add", pair.client, APP, pair.push.url())
        await pair.told()
        await pair.sleep()
        return await woken_and_paid(pair)

    await shared_town.each("asleep, woken by `webhook add`", play)


async def test_a_payer_behind_a_hub_pays_a_sleeping_wallet(shared_town: Town) -> None:
    """Its only channel is to another node, which told it the graph: two hops; LDK 0.2 writes sciddirs."""

    async def play(pair: Pair) -> Finding:
        await pair.far_payer.connect(pair.town.lnd.node_id, pair.payer_way.port)
        await pair.sleep()
        payment = await pair.pay(payer=pair.far_payer)
        asked = await pair.far_payer.sent(REQUEST, since=payment.since)
        assert (asked["reply_path"]["intro"] == "sciddir") == (pair.payer.version == "0.2")
        woken_at = await pair.told()
        await pair.wake()
        return await pair.settled(payment, woken_at)

    await shared_town.each("asleep, payer behind a hub", play)


async def test_two_payments_to_one_offer_wait_for_a_sleeping_wallet(shared_town: Town) -> None:
    """Both are kept, and both are settled."""

    async def play(pair: Pair) -> Finding:
        await pair.sleep()
        payments = [await pair.pay_asleep() for _ in range(2)]
        woken_at = await pair.told()
        await pair.wake()
        found = [await pair.settled(payment, woken_at) for payment in payments]
        return found[-1]

    await shared_town.each("asleep, two payments to one offer", play)


async def test_a_wallet_restarted_from_disk_is_paid(shared_town: Town) -> None:
    """The app was killed, and is started by the wake-up."""

    async def play(pair: Pair) -> Finding:
        await pair.wallet.kill()
        await pair.town.until_gone(pair.wallet.node_id)
        payment = await pair.pay_asleep()
        since = time.monotonic()
        await pair.wallet.start()
        # LDK answers no payer whose reply path begins at a channel that it does not know.
        await pair.wallet.knows(pair.town.lnd.node_id)
        await pair.told()
        await pair.wake()
        return await pair.settled(payment, since)

    await shared_town.each("asleep, restarted from disk", play)


async def test_a_wallet_that_was_frozen_and_thawed_is_paid(shared_town: Town) -> None:
    """LND sees it connected all along, and so does the wallet; it is woken because it gives no sign."""

    async def play(pair: Pair) -> Finding:
        pair.freeze()
        try:
            payment = await pair.pay()
            check_signature(pair.town.lnd.node_id, await pair.push.next(60))
        finally:
            pair.thaw()
        return await pair.settled(payment, time.monotonic())

    await shared_town.each("frozen, woken, thawed", play)


async def test_a_wallet_whose_connection_died_without_fin_is_paid(shared_town: Town) -> None:
    """All that LND sent went nowhere, and LND has not noticed: what is kept comes over the new connection."""

    async def play(pair: Pair) -> Finding:
        pair.wallet_way.silence()
        payment = await pair.pay()
        woken_at = await pair.told()
        await pair.wallet.disconnect(pair.town.lnd.node_id)
        await pair.wake()
        return await pair.settled(payment, woken_at)

    await shared_town.each("connection dead without FIN", play)


async def test_a_wallet_that_slept_for_an_hour_is_paid(shared_town: Town) -> None:
    """An hour of the wallet's, the payer's and the server's clocks, and of LDK's timer in the payer."""
    town = shared_town
    waiting = {}

    async def fall_asleep(pair: Pair) -> None:
        await pair.sleep()
        waiting[pair.name] = await pair.pay_asleep()

    await all_of(*(fall_asleep(pair) for pair in town.pairs))
    town.sidecar.set_clock(HOUR)

    async def play(pair: Pair) -> Finding:
        for peer in (pair.wallet, pair.payer):
            await peer.clock(HOUR)
        for _ in range(MINUTES):
            await pair.payer.minute()
        woken_at = await pair.told()
        await pair.wake()
        return await pair.settled(waiting[pair.name], woken_at)

    await town.each("asleep for an hour", play)


async def test_an_offer_that_was_replaced_after_the_request_is_paid(shared_town: Town) -> None:
    """The payer holds an invoice of the older offer; the slot has another one when its payment comes."""

    async def play(pair: Pair) -> Finding:
        # LDK replaces offers that it never showed: this one is known from its invoice alone.
        served = await pair.wallet.sent("serve_static_invoice", count=10)
        pair.payer_way.hold_down()
        payment = await pair.pay(served["offer"])
        await pair.payer_way.until_held_down(SMALL_PACKET)
        since, known = pair.wallet.mark(), {served["offer"], *pair.offers}
        await pair.wallet.clock(3 * HOUR)
        await pair.wallet.tick()

        def another(event: Event) -> bool:
            return event.get("msg") == "serve_static_invoice" and event["offer"] not in known

        await pair.wallet.until(another, since=since, what="another offer in the slot")
        await pair.wallet.got("static_invoice_persisted", since=since, count=len(known))
        pair.payer_way.release()
        return await pair.settled(payment)

    await shared_town.each("offer replaced after the request", play)


async def test_wallet_and_payer_that_sleep_in_turn_are_paid_and_pay(shared_town: Town) -> None:
    """The payer is a client too: release_held_htlc waits for it as held_htlc_available did for the wallet."""

    async def play(pair: Pair) -> Finding:
        town = pair.town
        added = await town.sidecar.json("client", "add", f"payer-of-{pair.client}")
        await pair.payer.set_paths(added["paths"])
        await pair.payer.next_offer()
        await pair.sleep()
        payment = await pair.pay_asleep()
        await pair.payer.disconnect(town.lnd.node_id)
        await town.until_gone(pair.payer.node_id)
        woken_at = await pair.told()
        since = pair.wallet.mark()
        await pair.wake()
        await pair.wallet.got(HELD, since=since)
        await pair.wallet.sent(RELEASE, since=since)
        await town.until_letters(f"payer-of-{pair.client}", 1)
        await pair.connect_payer()
        finding = await pair.settled(payment, woken_at)
        await town.sidecar.command("client", "remove", f"payer-of-{pair.client}")
        return finding

    await shared_town.each("wallet and payer asleep in turn", play)
