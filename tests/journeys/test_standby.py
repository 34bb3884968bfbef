"""Two sidecars beside one simulated LND, as processes: one leads, the other takes over, nothing is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.core import keys
from tests.harness.asking import Asking
from tests.harness.pair import LEASE, Pair, leads, stand_by
from tests.harness.payer import Payer
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage
from tests.harness.wallet import Wallet, set_webhook

RATE = 8
"""Requests a second, of the ten that one offer may have: what is held must not look like a flood."""


BOTH_KINDS = pytest.mark.parametrize(
    "lnd", ["native", pytest.param("custom", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture
async def lnd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """A simulated LND 0.21, or of the kind that a test asks for."""
    async with SimulatedLnd(tmp_path / "lnd", getattr(request, "param", "native")) as simulated:
        yield simulated


@pytest.fixture
async def pair(lnd: SimulatedLnd, tmp_path: Path) -> AsyncIterator[Pair]:
    """The left one leads."""
    async with Pair.running(tmp_path, lnd) as pair:
        yield pair


async def scene(lnd: SimulatedLnd, pair: Pair) -> tuple[Wallet, Payer, str]:
    """A wallet that has left an invoice and is away, a payer, and the offer."""
    stage = Stage(lnd)
    wallet = await stage.wallet(pair.left, "alice")
    offer, _, _ = await wallet.set_up()
    await wallet.link.close()
    return wallet, await stage.payer(), offer


@BOTH_KINDS
async def test_a_rolling_update_answers_every_request_once(lnd: SimulatedLnd, pair: Pair) -> None:
    """SIGTERM under load: the other one leads at once, and goes on where the first one ended."""
    _, payer, offer = await scene(lnd, pair)
    async with Asking(payer, offer, RATE) as asking:
        await asking.until_asked(8)
        assert await pair.left.stop() == 0
        await leads(pair.right)
        assert any("leading: took over from left" in line for line in pair.right.lines)
        await asking.until_asked(8)
        await asking.until_answered(5)
    assert (asking.unanswered(), asking.most()) == ([], 1)
    assert asking.slowest() < 2


@BOTH_KINDS
@pytest.mark.slow
async def test_kill_9_under_load_loses_no_request(lnd: SimulatedLnd, pair: Pair) -> None:
    """What the one that is dead had not answered, the other one does: within the lease and two seconds."""
    _, payer, offer = await scene(lnd, pair)
    async with Asking(payer, offer, RATE) as asking:
        await asking.until_asked(8)
        await pair.left.kill()
        await leads(pair.right)
        await asking.until_asked(8)
        await asking.until_answered(5)
    assert (asking.unanswered(), asking.contents()) == ([], 1)
    assert LEASE / 2 < asking.slowest() < LEASE + 2
    # The letters are in the mailbox, from both.
    letters = (await pair.right.json("client", "mailbox", "alice"))["messages"]
    assert len(letters) == len(asking.asked)


@pytest.mark.slow
async def test_one_that_comes_back_at_once_lets_the_other_answer_first(lnd: SimulatedLnd, pair: Pair) -> None:
    """It knows its lease again, and that it has not heard what came meanwhile."""
    _, payer, offer = await scene(lnd, pair)
    async with Asking(payer, offer, RATE) as asking:
        await asking.until_asked(8)
        await pair.left.kill()
        await stand_by(pair.left)
        await leads(pair.right)
        await asking.until_answered(5)
    assert (asking.unanswered(), asking.contents()) == ([], 1)


@pytest.mark.slow
async def test_one_that_was_held_up_steps_down_and_changes_nothing(lnd: SimulatedLnd, pair: Pair) -> None:
    """SIGSTOP for longer than the lease: what it takes for its own to store then is the other one's.

    A request for offer paths, to which the two would give different answers, gets one answer at most.
    """
    stage = Stage(lnd)
    wallet = await stage.wallet(pair.left, "alice")
    first = await wallet.issue(0)
    os.kill(pair.left.pid, signal.SIGSTOP)
    try:
        await wallet.ask_offer_paths(3)
        await leads(pair.right)
        await wallet.ask_offer_paths(1)
        assert (await wallet.receive_offer_paths()).slot == 1
        await wallet.leave_invoice(first, wallet.make_invoice(wallet.make_offer(first)))
        await wallet.receive_persisted()
    finally:
        os.kill(pair.left.pid, signal.SIGCONT)
    await pair.left.line(lambda line: "standing by: right leads" in line)
    # The first one too, if that it was answered could not be told any more.
    assert (await pair.right.counters())["dropped.replayed"] in (1, 2)
    assert (await pair.left.counters()).get("stored", 0) == 0
    # Nothing came twice: the next thing that the wallet hears is the answer to its next question.
    assert (await wallet.issue(2)).slot == 2


@pytest.mark.slow
async def test_webhooks_are_registered_at_whoever_leads(lnd: SimulatedLnd, pair: Pair) -> None:
    """What LSPS request comes while nobody leads is answered within the lease and two seconds."""
    secret = os.urandom(32)
    link = await lnd.connect_peer(secret)
    lnd.add_channel(1 << 40, keys.public_key(secret))
    url = "https://push.example.org/"
    assert (await set_webhook(link, "first", url))["num_webhooks"] == 1
    await pair.left.kill()
    async with asyncio.timeout(LEASE + 2):
        assert (await set_webhook(link, "second", url))["num_webhooks"] == 2
    # What was answered before is there, and was not done again.
    assert (await set_webhook(link, "first", url))["no_change"]


@pytest.mark.slow
@pytest.mark.parametrize("lnd", ["custom"], indirect=True)
async def test_other_peoples_messages_are_forwarded_by_whoever_leads(lnd: SimulatedLnd, pair: Pair) -> None:
    """In custom mode: by one of the two, and by the other one once that is dead."""
    stage = Stage(lnd)
    one, other = await stage.payer(), await stage.payer()

    async def passes(name: bytes, *before: bytes) -> None:
        await one.send_along(other.path_to_self(name), 64, b"anything")
        while (came := (await other.receive()).path_id) != name:
            assert came in before

    await passes(b"first")
    await passes(b"second")
    assert "forwarded" not in await pair.right.counters()
    await pair.left.kill()
    async with asyncio.timeout(LEASE + 2):
        # The first one could tell nobody any more that it had forwarded these.
        await passes(b"third", b"first", b"second")
    await passes(b"fourth")


@pytest.mark.slow
async def test_one_that_lnd_does_not_stream_to_gives_way(lnd: SimulatedLnd, pair: Pair) -> None:
    """The lease is not for the deaf: whoever hears LND leads, long before the lease has run out.

    What the first one had in hand, and could send to nobody any more, the other one answers.
    """
    _, payer, offer = await scene(lnd, pair)
    async with Asking(payer, offer, RATE) as asking:
        await asking.until_asked(4)
        # What LND says comes no more, and nor do its answers: one request at least is in hand.
        pair.relay.hold_up()
        await asking.until_asked(2)
        await pair.relay.stop()
        async with asyncio.timeout(LEASE):
            await leads(pair.right)
        await asking.until_asked(4)
        await asking.until_answered(5)
    assert (asking.unanswered(), asking.contents()) == ([], 1)
    # Told to stop it would wait for LND with what it has in hand.
    await pair.left.kill()


@pytest.mark.slow
async def test_of_two_that_start_at_once_one_leads(lnd: SimulatedLnd, tmp_path: Path) -> None:
    """And the other one says who."""
    async with Pair.running(tmp_path, lnd) as pair:
        await asyncio.gather(pair.left.stop(), pair.right.stop())
        both = pair.left, pair.right
        await asyncio.gather(*(each.start(wait=False) for each in both))
        said = [await each.line(lambda line: " ready: " in line or " standing by: " in line) for each in both]
        assert sorted(" ready: " in line for line in said) == [False, True]
