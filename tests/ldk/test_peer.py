"""The LDK peers themselves, with LDK's own static invoice server between them and no LND."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.ldk import LdkPeer
from tests.ldk.build import VERSIONS

pytestmark = pytest.mark.ldk

HOUR = 3_600
DAY = 24 * HOUR
OFFER_PATHS_REQUEST = 75_540
ANY_ODD_TYPE = 77_777


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Each LDK."""
    return str(request.param)


@pytest.fixture
async def server(version: str, tmp_path: Path) -> AsyncIterator[LdkPeer]:
    """LDK's own static invoice server."""
    async with LdkPeer(version, tmp_path / "server", listen=True) as peer:
        yield peer


async def set_up(wallet: LdkPeer, server: LdkPeer) -> str:
    """A wallet's offer, ready."""
    return await wallet.set_up(await server.recipient(b"alice"), server.node_id, server.port)


async def test_ldks_own_server_serves_a_wallet_and_a_payer(
    version: str, server: LdkPeer, tmp_path: Path
) -> None:
    """The yardstick: offer ready, invoice served, request forwarded, 72 sent and answered with 74."""
    async with (
        LdkPeer(version, tmp_path / "wallet") as wallet,
        LdkPeer(version, tmp_path / "payer") as payer,
    ):
        offer = await set_up(wallet, server)
        await payer.connect(server.node_id, server.port)
        asked = await payer.pay(offer)
        answered = await payer.got("static_invoice")
        assert answered["payment"] == asked["payment"]
        assert answered["us"] > asked["us"]
        await payer.sent("held_htlc_available")
        await wallet.got("invoice_request")
        await wallet.got("held_htlc_available")
        await payer.got("release_held_htlc")


@pytest.mark.parametrize("payer_version", VERSIONS)
async def test_wallets_and_payers_of_both_versions_understand_each_other(
    version: str, payer_version: str, server: LdkPeer, tmp_path: Path
) -> None:
    """A payer of one LDK takes the invoice of a wallet of the other."""
    async with (
        LdkPeer(version, tmp_path / "wallet") as wallet,
        LdkPeer(payer_version, tmp_path / "payer") as payer,
    ):
        offer = await set_up(wallet, server)
        await payer.connect(server.node_id, server.port)
        await payer.pay(offer)
        await payer.got("static_invoice")
        await payer.sent("held_htlc_available")


async def test_what_a_wallet_sends_is_told_with_its_forms_and_sizes(
    version: str, server: LdkPeer, tmp_path: Path
) -> None:
    """Slot, invoice size and the forms of paths are in the events: tests of sizes are made of them."""
    async with LdkPeer(version, tmp_path / "wallet") as wallet:
        await set_up(wallet, server)
        assert (await wallet.sent("offer_paths_request"))["slot"] == 0
        served = await wallet.sent("serve_static_invoice")
        assert served["invoice_bytes"] > 0
        assert served["forward_path"]["intro"] == "node"
        assert (await server.got("serve_static_invoice"))["reply_path"]["hops"] >= 1


async def test_the_clock_moves_for_all_of_ldk(version: str, server: LdkPeer, tmp_path: Path) -> None:
    """A moved clock is what LDK dates invoices with; it can be set at the start, moved, and put right."""
    async with LdkPeer(version, tmp_path / "wallet", clock=DAY) as wallet:
        await set_up(wallet, server)
        invoice = await wallet.sent("serve_static_invoice")
        assert abs(invoice["created_at"] - (time.time() + DAY)) < 60
        assert abs(await wallet.clock(HOUR) - (time.time() + DAY + HOUR)) < 60
        assert abs(await wallet.clock(-2 * HOUR) - (time.time() + DAY - HOUR)) < 60
        assert abs(await wallet.set_clock() - time.time()) < 60


async def test_a_state_outlives_a_kill(version: str, server: LdkPeer, tmp_path: Path) -> None:
    """After SIGKILL a wallet still has its offers, its server's paths, and answers for its slots."""
    async with LdkPeer(version, tmp_path / "wallet", state=tmp_path / "state") as wallet:
        offer = await set_up(wallet, server)
        await wallet.kill()
        since = wallet.mark()
        await wallet.start()
        await wallet.named("state_read", since=since)
        await wallet.connect(server.node_id, server.port)
        async with LdkPeer(version, tmp_path / "payer") as payer:
            await payer.connect(server.node_id, server.port)
            await payer.pay(offer)
            await payer.got("release_held_htlc")
        await wallet.tick()
        assert await wallet.next_offer() != offer


async def test_a_payer_is_told_of_a_request_that_nobody_answers(
    version: str, server: LdkPeer, tmp_path: Path
) -> None:
    """With nobody to answer, LDK gives up after two ticks, and says why."""
    async with LdkPeer(version, tmp_path / "wallet") as wallet:
        offer = await set_up(wallet, server)
    await server.stop()
    async with (
        LdkPeer(version, tmp_path / "other", listen=True) as other,
        LdkPeer(version, tmp_path / "payer") as payer,
    ):
        # Without any peer LDK can't even write a request: its reply path starts at one.
        await payer.connect(other.node_id, other.port)
        asked = await payer.pay(offer)
        for _ in range(3):
            await payer.tick()
        failed = await payer.event("PaymentFailed", payment=asked["payment"])
        assert failed["reason"] == "InvoiceRequestExpired"


@pytest.mark.parametrize("kind", [OFFER_PATHS_REQUEST, ANY_ODD_TYPE])
async def test_any_content_can_be_sent_often(
    version: str, server: LdkPeer, kind: int, tmp_path: Path
) -> None:
    """Garbage goes out even in LDK's own types, and floods go as fast as the peer reads."""
    paths = await server.recipient(b"alice")
    async with LdkPeer(version, tmp_path / "rude") as rude:
        await rude.connect(server.node_id, server.port)
        sent = await rude.send_raw(kind, b"\xff" * 40, paths, count=500)
        assert sent["accepted"] == 500
        one = await rude.send_raw(kind, "", paths, reply=True)
        assert one["accepted"] == 1
        refused = await rude.send_raw(63, b"", paths)
        assert refused["refused"] == {"InvalidMessage": 1}


async def test_a_lost_connection_is_told(version: str, server: LdkPeer, tmp_path: Path) -> None:
    """`disconnected` comes for either end, and a port where nobody listens is `connect_failed`."""
    async with LdkPeer(version, tmp_path / "peer") as peer:
        await peer.connect(server.node_id, server.port)
        await peer.disconnect(server.node_id)
        await server.named("disconnected", node=peer.node_id.hex())
        await peer.connect(server.node_id, server.port)
        await server.kill()
        await peer.named("disconnected", count=2, node=server.node_id.hex())
        with pytest.raises(AssertionError, match="cannot connect"):
            await peer.connect(server.node_id, server.port)


async def test_what_does_not_come_is_told_with_what_did(version: str, tmp_path: Path) -> None:
    """A wait that fails names what was missed and shows the last events; a bad command is told at once."""
    async with LdkPeer(version, tmp_path / "peer", seed=os.urandom(32)) as peer:
        with pytest.raises(AssertionError, match=r"PaymentSent(?s:.)*ready"):
            await peer.event("PaymentSent", timeout=0.05)
        with pytest.raises(AssertionError, match="hex"):
            await peer.set_paths("0")
        waiting = asyncio.create_task(peer.event("PaymentSent"))
        await peer.kill()
        with pytest.raises(AssertionError, match="the process ended"):
            await waiting
