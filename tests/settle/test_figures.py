"""How long a payment takes: pair after pair and one payment at a time, as the figures in README are made."""

import pytest

from tests.harness.matrix import percentile
from tests.settle.pair import Pair
from tests.settle.town import Town

pytestmark = [pytest.mark.settle, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ROUNDS = 4


async def test_payments_one_after_another_are_timed(shared_town: Town) -> None:
    """Online and asleep, in turn: every one of them is settled."""
    online: list[float] = []
    asleep: list[float] = []
    for _ in range(ROUNDS):
        for pair in shared_town.pairs:
            online.append(await seconds_online(pair))
            asleep.append(await seconds_asleep(pair))
    await shared_town.nothing_is_stuck()
    for what, seconds in (
        ("from `pay` to settled, wallet online", online),
        ("from the wake-up sent to settled, wallet asleep", asleep),
    ):
        shared_town.ledger.notes.append(
            f"{shared_town.name}: seconds {what}: {percentile(seconds, 50):.2f} (median),"
            f" {max(seconds):.2f} (most) of {len(seconds)} payments"
        )


async def seconds_online(pair: Pair) -> float:
    """A payment to a wallet that is online."""
    found = await pair.settled(await pair.pay())
    assert found.seconds is not None
    return found.seconds


async def seconds_asleep(pair: Pair) -> float:
    """A payment to a wallet that connects when its push service is told."""
    await pair.sleep()
    payment = await pair.pay()
    woken_at = await pair.told()
    await pair.wake()
    found = await pair.settled(payment, woken_at)
    assert found.seconds is not None
    return found.seconds
