"""What the log says of messages that are lost for something that is away: once for each kind of them."""

import logging

import pytest

from sidecar.core.errors import LndDenied, StoreUnavailable
from tests.harness.mail_scene import scene
from tests.harness.world import World


def lost(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The kinds of which it was said, in order."""
    said = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [each["what"] for each in said if each["event"] == "messages are lost"]


async def test_wallets_that_are_lost_are_said_once_though_payers_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Redis that takes no changes, for hours: what goes through is of another kind."""
    caplog.set_level(logging.ERROR)
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        world.store.save_error = StoreUnavailable("READONLY")
        for _ in range(3):
            await wallet.leave_invoice(issued, invoice)
            await world.settled()
            await payer.send_request(offer)
            await payer.receive_answer(offer)
        assert lost(caplog) == ["serve_static_invoice"]


async def test_what_is_lost_again_after_it_went_through_is_news(caplog: pytest.LogCaptureFixture) -> None:
    """The next outage is another one."""
    caplog.set_level(logging.ERROR)
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        for _ in range(2):
            world.store.load_error = StoreUnavailable("away")
            for _ in range(2):
                await wallet.leave_invoice(issued, invoice)
                await world.settled()
                await payer.send_request(offer)
                await world.settled()
            world.store.load_error = None
            await wallet.leave_invoice(issued, invoice)
            await world.settled()
            await payer.send_request(offer)
            await payer.receive_answer(offer)
        assert lost(caplog) == ["serve_static_invoice", "invoice_request"] * 2


async def test_what_lnd_lets_nobody_send_is_said_once_though_requests_come_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A macaroon without that permission: that a request was read says nothing of the one to the wallet."""
    caplog.set_level(logging.ERROR)
    async with World() as world:
        at = await scene(world)
        world.network.send_error = LndDenied("no")
        await at.ask(3)
        assert sorted(lost(caplog)) == ["invoice_request to send", "static_invoice to send"]


async def test_a_node_that_is_learnt_ends_the_complaint_about_that(caplog: pytest.LogCaptureFixture) -> None:
    """The next wallet whose node can't be learnt is news."""
    caplog.set_level(logging.ERROR)
    async with World() as world:
        for name in ("alice", "bob"):
            wallet = await world.wallet(name)
            for error in (StoreUnavailable("away"), StoreUnavailable("away"), None):
                world.store.bind_error = error
                await world.offer(wallet)
                await world.settled()
        assert lost(caplog) == ["bind"] * 2
