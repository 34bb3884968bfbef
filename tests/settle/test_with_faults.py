"""Whatever dies between invoice_request and claim: the payment settles, or can be made again."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.harness.asserting import until
from tests.harness.events import Event
from tests.settle.faults import FAULTS, FAULTS_IN_PAYMENTS, Fault, LndRestarted, RedisKilled
from tests.settle.ledger import Finding
from tests.settle.pair import HELD, INVOICE, RELEASE, SMALL_PACKET, Pair, Payment, all_of
from tests.settle.town import Town

pytestmark = [pytest.mark.settle, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

NO_STORE = "dropped.store-unavailable"

SOON = 5.0

AT = pytest.mark.parametrize("fault", [each() for each in FAULTS], ids=lambda fault: fault.name)
AT_PAYMENTS = pytest.mark.parametrize(
    "fault", [each() for each in FAULTS_IN_PAYMENTS], ids=lambda fault: fault.name
)


@dataclass(slots=True)
class Underway:
    """One pair's payment, to a wallet that slept when it was begun."""

    pair: Pair
    payment: Payment

    async def given_up(self) -> bool:
        """Whether the payer's LDK has; or else it has an invoice, and told the wallet so."""

        def known(event: Event) -> bool:
            held = event["ev"] == "sends" and event["msg"] == HELD
            failed = event["ev"] == "event" and event["event"] == "PaymentFailed"
            return held or (failed and bool(event["payment"] == self.payment.id))

        payment = self.payment
        first, *_ = await payment.payer.until(known, since=payment.since, what=f"{HELD}, or PaymentFailed")
        return bool(first["ev"] == "event")

    async def paid_again(self) -> Finding:
        """The payment is not made, and a new one to the same offer is."""
        await self.pair.unpaid(self.payment)
        again = await self.pair.pay_asleep()
        woken_at = await self.pair.told()
        await self.pair.wake()
        await self.pair.settled(again, woken_at)
        return await self.pair.unpaid(self.payment)

    async def settled(self) -> Finding:
        """It is, if need be when the wallet connects for another time.

        LND had not told the wallet's answer when it died, or told it when the payer was not back yet.
        """
        try:
            return await self.pair.settled(self.payment, timeout=SOON)
        except AssertionError:
            await self.pair.sleep()
            await self.pair.wake()
            return await self.pair.settled(self.payment)

    async def woken_and_settled(self) -> Finding:
        """The wallet hears of it, connects, and is paid."""
        woken_at = await self.pair.told()
        await self.pair.wake()
        return await self.pair.settled(self.payment, woken_at)


def let_through(town: Town, fault: Fault) -> None:
    """What was held back on its way to the payers reaches them; with LND it is lost, as connections are."""
    for pair in town.pairs:
        if isinstance(fault, LndRestarted):
            pair.payer_way.cut()
        pair.payer_way.release()


async def asleep(town: Town) -> None:
    """All wallets are away."""
    await all_of(*(pair.sleep() for pair in town.pairs))


async def begun(town: Town) -> dict[str, Underway]:
    """A payment of each pair, by the pair's name."""
    return {pair.name: Underway(pair, await pair.pay()) for pair in town.pairs}


async def kept(town: Town) -> dict[str, Underway]:
    """Payments whose two messages are in the mailbox, with all wallets away."""
    await asleep(town)
    before = {pair.name: await town.letters(pair.client) for pair in town.pairs}
    underway = await begun(town)
    for pair in town.pairs:
        await underway[pair.name].payment.held()
        await town.until_letters(pair.client, before[pair.name] + 2)
    return underway


async def dropped_more(town: Town, number: int) -> bool:
    """Whether the sidecar has dropped so many messages for want of Redis."""
    return (await town.sidecar.counters()).get(NO_STORE, 0) >= number


async def through(town: Town, before: Sequence[int]) -> None:
    """Wait until LND has got a packet more from each payer."""
    for pair, had in zip(town.pairs, before, strict=True):

        async def came(pair: Pair = pair, had: int = had) -> bool:
            return await town.bytes_from(pair.payer.node_id) >= had + SMALL_PACKET

        await until(came)


async def received(town: Town) -> list[int]:
    """What LND has got from each payer so far."""
    return [await town.bytes_from(pair.payer.node_id) for pair in town.pairs]


@AT
async def test_a_request_that_nobody_heard_is_made_again(shared_town: Town, fault: Fault) -> None:
    """The invoice_request comes while something is down: the payer pays again, if LDK has not asked again."""
    town = shared_town
    await asleep(town)
    for pair in town.pairs:
        pair.payer_way.hold_up()
    underway = await begun(town)
    for pair in town.pairs:
        await pair.payer_way.until_held_up(SMALL_PACKET)
    before = await received(town)
    dropped = (await town.sidecar.counters()).get(NO_STORE, 0)
    await fault.down(town)
    for pair in town.pairs:
        pair.payer_way.release()
    if not isinstance(fault, LndRestarted):
        await through(town, before)
    if isinstance(fault, RedisKilled):
        await until(lambda: dropped_more(town, dropped + len(town.pairs)))
    for pair in town.pairs:
        assert not pair.payer.seen("got", since=underway[pair.name].payment.since, msg=INVOICE)
    await fault.up(town)

    async def play(pair: Pair) -> Finding:
        one = underway[pair.name]
        # LDK asks once more when it hears anything, and gives up after a minute or two.
        for _ in range(2):
            await pair.payer.minute()
        return await (one.paid_again() if await one.given_up() else one.woken_and_settled())

    await town.each(f"{fault.name}: request", play)


@AT
async def test_a_held_htlc_that_is_told_while_something_is_down(shared_town: Town, fault: Fault) -> None:
    """The payer's held_htlc_available is lost where LND streams it to nobody; without Redis it waits."""
    town = shared_town
    await asleep(town)
    for pair in town.pairs:
        pair.payer_way.hold_down()
    underway = await begun(town)
    for pair in town.pairs:
        await pair.payer_way.until_held_down(SMALL_PACKET)
        # From here on it hears, and says nothing: an LDK that loses its connection between the invoice
        # and what it sends for it sends that on its next one.
        pair.payer_way.hold_up()
        pair.payer_way.release_down()
    for pair in town.pairs:
        await underway[pair.name].payment.held()
        await pair.payer_way.until_held_up(SMALL_PACKET)
    before = await received(town)
    await fault.down(town)
    for pair in town.pairs:
        pair.payer_way.release()
    if not isinstance(fault, LndRestarted):
        await through(town, before)
    await fault.up(town)

    async def play(pair: Pair) -> Finding:
        if isinstance(fault, RedisKilled):
            return await underway[pair.name].woken_and_settled()
        return await underway[pair.name].paid_again()

    await town.each(f"{fault.name}: held HTLC told", play)


@AT
async def test_what_is_kept_for_a_sleeping_wallet_outlives_it(shared_town: Town, fault: Fault) -> None:
    """Both messages are in the mailbox, and the wallet is still away."""
    town = shared_town
    underway = await kept(town)
    await fault.down(town)
    await fault.up(town)
    await town.each(f"{fault.name}: kept", lambda pair: underway[pair.name].woken_and_settled())


@AT
async def test_a_wallet_that_comes_while_something_is_down_is_paid(shared_town: Town, fault: Fault) -> None:
    """It is woken, and there is nobody to hand it its mail: it gets that when there is."""
    town = shared_town
    underway = await kept(town)
    await all_of(*(pair.told() for pair in town.pairs))
    await fault.down(town)
    if not isinstance(fault, LndRestarted):
        await all_of(*(pair.wake() for pair in town.pairs))
    await fault.up(town)

    async def play(pair: Pair) -> Finding:
        if isinstance(fault, LndRestarted):
            await pair.wake()
        return await pair.settled(underway[pair.name].payment)

    await town.each(f"{fault.name}: wallet comes", play)


@AT_PAYMENTS
async def test_messages_that_are_being_handed_over_are_not_lost(shared_town: Town, fault: Fault) -> None:
    """The first wallet has its held_htlc_available: an answer that is lost now is asked for once more."""
    town = shared_town
    underway = await kept(town)
    await all_of(*(pair.told() for pair in town.pairs))
    for pair in town.pairs:
        pair.payer_way.hold_down()
    first = town.pairs[0].wallet
    since = first.mark()
    await all_of(*(pair.wake() for pair in town.pairs))
    await first.got(HELD, since=since)
    await fault.down(town)
    let_through(town, fault)
    await fault.up(town)
    await town.each(f"{fault.name}: being handed over", lambda pair: underway[pair.name].settled())


@AT
async def test_a_release_that_is_on_its_way_is_enough(shared_town: Town, fault: Fault) -> None:
    """release_held_htlc has left LND, and not reached the payer: only with LND itself it is lost."""
    town = shared_town
    underway = await released(town)
    await fault.down(town)
    let_through(town, fault)
    if not isinstance(fault, LndRestarted):
        for pair in town.pairs:
            await pair.payer.got(RELEASE, since=underway[pair.name].payment.since)
    await fault.up(town)
    await town.each(f"{fault.name}: released", lambda pair: underway[pair.name].settled())


async def released(town: Town) -> dict[str, Underway]:
    """Payments that were released, with all that LND sends to the payers held back."""
    underway = await kept(town)
    for pair in town.pairs:
        pair.payer_way.hold_down()
    await all_of(*(pair.told() for pair in town.pairs))
    await all_of(*(pair.wake() for pair in town.pairs))
    for pair in town.pairs:
        await pair.payer_way.until_held_down(SMALL_PACKET)
    return underway


@AT_PAYMENTS
async def test_an_htlc_that_is_under_way_is_claimed(shared_town: Town, fault: Fault) -> None:
    """The wallet has the HTLC, and LND does not hear of it: money is at stake on both channels."""
    town = shared_town
    underway = await released(town)
    for pair in town.pairs:
        pair.wallet_way.hold_up()
        pair.payer_way.release()
    await town.until_htlcs_came()
    await fault.down(town)
    for pair in town.pairs:
        pair.wallet_way.release()
    await fault.up(town)
    await town.each(f"{fault.name}: HTLC under way", lambda pair: pair.settled(underway[pair.name].payment))
