"""Wallets with four slots are paid for all their offers, while LND is upgraded from 0.20 to 0.21 as well."""

from pathlib import Path

import pytest

from tests.settle.build import Plan, town
from tests.settle.ledger import Finding, Ledger
from tests.settle.pair import Pair, Payment, all_of

pytestmark = [pytest.mark.settle, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

SLOTS = 4


async def test_payments_that_wait_are_settled_by_the_upgraded_lnd(ledger: Ledger, tmp_path: Path) -> None:
    """What was kept on LND 0.20 is handed over on 0.21 by the same sidecar; old offers stay good."""
    async with town(Plan("custom", "LND 0.20", slots=SLOTS), tmp_path, ledger) as made:
        for pair in made.pairs:
            pair.offers.append(await pair.wallet.next_offer())
            assert len(set(pair.offers)) == SLOTS
        await made.each("asleep, all of four slots paid", all_slots_paid)

        waiting: dict[str, list[Payment]] = {}

        async def fall_asleep(pair: Pair) -> None:
            waiting[pair.name] = await paid_asleep(pair)

        await all_of(*(fall_asleep(pair) for pair in made.pairs))
        guests = await made.stop_lnd()
        await made.start_lnd(guests, "native")
        made.name = "LND 0.21"
        ledger.versions[made.name] = (await made.sidecar.json("status"))["lnd_version"]
        await made.each("LND upgraded meanwhile", lambda pair: woken_for_all(pair, waiting[pair.name]))
        await made.each("asleep, all of four slots paid", all_slots_paid)


async def paid_asleep(pair: Pair) -> list[Payment]:
    """The wallet sleeps, and a payment to each of its offers waits for it."""
    await pair.sleep()
    return [await pair.pay_asleep(offer) for offer in pair.offers]


async def woken_for_all(pair: Pair, payments: list[Payment]) -> Finding:
    """It is woken, and paid for all of them; seconds until the last one."""
    woken_at = await pair.told()
    await pair.wake()
    return [await pair.settled(payment, woken_at) for payment in payments][-1]


async def all_slots_paid(pair: Pair) -> Finding:
    """Each payer found another offer."""
    return await woken_for_all(pair, await paid_asleep(pair))
