"""What a sidecar could not answer for reasons of its own is not told of as dealt with: another one may."""

import pytest

from sidecar.core.errors import (
    LndDenied,
    LndUnavailable,
    NotLeading,
    PeerNotConnected,
    SidecarError,
    StoreUnavailable,
)
from sidecar.core.mailbox import Kept
from tests.harness.lsps_world import URL, Lsps, request
from tests.harness.mail_scene import scene
from tests.harness.world import World

OURS = pytest.mark.parametrize(
    "error",
    [StoreUnavailable("away"), NotLeading("another one"), LndUnavailable("away"), LndDenied("macaroon")],
)


async def test_what_is_answered_or_refused_is_dealt_with() -> None:
    """Nobody else could do more with it."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        assert len(world.dealt_with) == 2
        await payer.send_request(offer)
        await wallet.leave_invoice(issued, invoice[:-1] + bytes([invoice[-1] ^ 1]))
        await payer.send_along(wallet.request_path, 77_777, b"no message of ours")
        await world.settled()
        assert world.counters["sent.static_invoice"] == world.counters["dropped.content-not-served"] == 1
        assert len(world.dealt_with) == world.counters["received"] == 5


@OURS
async def test_what_fails_for_reasons_of_our_own_is_not(error: SidecarError) -> None:
    """Redis or LND is away for us, and perhaps for us alone; or it is a fault of ours."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        world.dealt_with.clear()
        world.store.load_error = error
        await payer.send_request(offer)
        await wallet.leave_invoice(issued, invoice)
        await world.settled()
        world.store.load_error = ZeroDivisionError("a fault")
        await payer.send_request(offer)
        await world.settled()
        assert world.dealt_with == []


@OURS
async def test_what_was_not_sent_for_reasons_of_our_own_is_not(error: SidecarError) -> None:
    """A payer whose invoice LND did not take may get it from another sidecar."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        world.dealt_with.clear()
        world.network.send_error = error
        await payer.send_request(offer)
        await world.settled()
        assert (world.counters[f"unsent.static_invoice.{error.reason}"], world.dealt_with) == (1, [])


async def test_a_payer_who_is_gone_is_dealt_with() -> None:
    """It is as gone for whoever leads next, and the wallet has its letter."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        world.dealt_with.clear()
        world.network.send_error = PeerNotConnected("gone")
        await payer.send_request(offer)
        await world.settled()
        assert len(world.dealt_with) == 1


async def test_a_message_whose_answer_is_another_one_each_time_is_dealt_with_whatever_becomes_of_it() -> None:
    """The answer may have gone out before LND was away: the wallet repeats it by itself."""
    async with World() as world:
        wallet = await world.wallet()
        world.network.send_error = LndUnavailable("away")
        await wallet.ask_offer_paths(0)
        await world.settled()
        assert (world.counters["unsent.offer_paths.lnd-unavailable"], len(world.dealt_with)) == (1, 1)


async def test_a_letter_that_is_in_memory_alone_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is lost with this process, while one that stands by has the message that brought it."""

    async def away(*_: object) -> Kept:
        raise StoreUnavailable("away")

    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold(content=b"kept")
        before = len(world.dealt_with)
        with monkeypatch.context() as patched:
            patched.setattr(world.store, "keep", away)
            await at.hold(content=b"held")
            await at.ask()
            assert world.mailroom.in_memory(at.wallet.node_id)
            assert len(world.dealt_with) == before
        await world.mailroom.until_stored()
        await at.hold(content=b"kept too")
        assert len(world.dealt_with) == before + 1


async def test_one_that_was_replaced_answers_no_more() -> None:
    """Held up for longer than the lease, it would answer from what the wallet has replaced since."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        world.dealt_with.clear()

        async def replaced() -> None:
            raise NotLeading("another one leads")

        world.service._not_replaced = replaced
        await payer.send_request(offer)
        await wallet.leave_invoice(issued, invoice)
        await world.settled()
        assert world.counters["unsent.static_invoice.not-leading"] == 1
        assert world.counters["unsent.static_invoice_persisted.not-leading"] == 1
        assert (payer.link.inbox.qsize(), world.dealt_with) == (0, [])  # type: ignore[attr-defined]


async def test_an_lsps_request_that_another_one_must_answer_is_not() -> None:
    """With nothing changed; what comes behind it has its turn."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        lsps.store.error = NotLeading("another one")
        lsps.transport.arrive(wallet, request("lsps5.set_webhook", {"app_name": "a", "webhook": URL}))
        lsps.transport.arrive(wallet, listing := request("lsps5.list_webhooks"))
        await lsps.settled()
        assert (lsps.dealt_with, lsps.counters["dropped.not-leading"]) == ([(wallet, listing)], 1)
        lsps.store.error = StoreUnavailable("away")
        await lsps.set(wallet, "a")
        assert len(lsps.dealt_with) == 2
