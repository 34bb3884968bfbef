"""A sidecar that is to die at a point dies there, at the pass that was said, and not before."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_store import RedisStore
from sidecar.core import offers
from tests.faults.crash_scene import Scene, working
from tests.faults.crash_wallet import NotingWallet
from tests.harness.killed import Plan, Point
from tests.harness.mortal import MortalSidecar
from tests.harness.redis_process import RedisProcess
from tests.harness.sim_lnd import SimulatedLnd


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[MortalSidecar]:
    """What makes sidecars."""
    async with MortalSidecar(tmp_path) as sidecar:
        yield sidecar


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """Outlives all of them."""
    async with RedisProcess(tmp_path / "redis") as redis:
        yield redis


@pytest.fixture
async def scene(tmp_path: Path, sidecar: MortalSidecar, redis: RedisProcess) -> AsyncIterator[Scene]:
    """One of them alive."""
    async with SimulatedLnd(tmp_path / "lnd") as lnd:
        scene = Scene(tmp_path, sidecar, lnd, redis.socket, [f"--redis.url={redis.url}"])
        await scene.live()
        yield scene


async def stored(scene: Scene, redis: RedisProcess, wallet: NotingWallet) -> bytes:
    """The invoice that Redis has."""
    store = RedisStore(connect_socket(redis.socket), scene.lnd.node_id, waitaof=False)
    try:
        invoice = (await store.load(wallet.client_id, 0)).invoice
    finally:
        await store.close()
    assert invoice is not None
    return invoice.invoice


async def leave_and_die(scene: Scene, wallet: NotingWallet, plan: Plan) -> int:
    """Leave an invoice anew, in which the sidecar dies; how often that was acknowledged."""
    sent = len(wallet.left[0]) - 1

    async def leave() -> None:
        while True:
            await wallet.renew(0)

    scene.sidecar.die_at(plan)

    async def die() -> None:
        assert await scene.sidecar.wait() == signal.SIGKILL

    await working(leave(), die())
    return max(0, wallet.acked[0] - sent)


@pytest.mark.slow
async def test_it_dies_at_each_point_of_a_change(scene: Scene, redis: RedisProcess) -> None:
    """What was written by then, and what was acknowledged, tell the points from each other."""
    wallet = await scene.new_wallet()
    await wallet.renew(0)
    for point, passes, acked, written in (
        (Point.RECEIVED, 3, 2, 2),
        (Point.DECODED, 3, 2, 2),
        (Point.BEFORE_WRITE, 2, 1, 1),
        (Point.WRITTEN, 2, 1, 2),
        (Point.ACKED, 2, 2, 2),
    ):
        first = len(wallet.left[0]) - 1
        found = await leave_and_die(scene, wallet, Plan(point, passes))
        assert (point, found) == (point, acked)
        place = wallet.left[0].index(await stored(scene, redis, wallet))
        assert (point, place - first) == (point, written)
        await scene.live()


async def test_it_dies_between_mailbox_and_delivery(scene: Scene) -> None:
    """The letter is in Redis, and its wallet, which is there, does not have it."""
    await scene.set_up()
    wallet = scene.wallets[0]
    scene.sidecar.die_at(Plan(Point.LETTER_KEPT, 1))
    payer = await scene.stage.payer()
    await payer.send_request(offers.decode_offer(wallet.offer_of(0)))
    assert await scene.sidecar.wait() == signal.SIGKILL
    await scene.note_letters()
    (letter,) = scene.promised[wallet.name]
    assert await wallet.be_handed({letter}, 0.2) == {letter}
    await scene.live()
    assert not await wallet.be_handed({letter}, 5)


@pytest.mark.slow
async def test_it_lives_as_long_as_nothing_else_is_said(scene: Scene, sidecar: MortalSidecar) -> None:
    """Passes count from when a plan is made, and not before."""
    wallet = await scene.new_wallet()
    await wallet.renew(0)
    for passes in (3, 2):
        sidecar.die_at(Plan(Point.RECEIVED, passes))
        await wallet.renew(0)
    sidecar.let_live()
    for _ in range(3):
        await wallet.renew(0)
    assert sidecar.alive


async def test_one_that_can_not_start_is_told(sidecar: MortalSidecar, tmp_path: Path) -> None:
    """As by the command itself: its last line is the error."""
    async with SimulatedLnd(tmp_path / "lnd") as lnd:
        with pytest.raises(AssertionError, match="no-such-flag"):
            await sidecar.live(tmp_path / "data", lnd, ["--no-such-flag"])
    assert await sidecar.wait() == 0
