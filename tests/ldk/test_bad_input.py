"""LDK peers that misbehave, through a real LND: counted, dropped, and nobody else is harmed."""

from functools import partial
from pathlib import Path

import pytest

from tests.harness.asserting import until
from tests.harness.ldk import LdkPeer
from tests.harness.lnd_process import LndProcess
from tests.harness.sidecar_process import SidecarProcess
from tests.ldk.build import VERSIONS

pytestmark = pytest.mark.ldk

DAY = 86_400
INVOICE_REQUEST = 64
OFFER_PATHS_REQUEST, SERVE_STATIC_INVOICE = (65540, 75540), (65544, 75544)
SLOT_0_IN_LDKS_FORM = "0400020000"


async def set_up(wallet: LdkPeer, lnd: LndProcess, paths: str) -> str:
    """A wallet's offer, ready."""
    return await wallet.set_up(paths, lnd.node_id, lnd.p2p_port)


async def is_served(offer: str, lnd: LndProcess, folder: Path, *, clock: int = 0) -> None:
    """A new payer gets the offer's invoice and accepts it."""
    async with LdkPeer("0.2", folder, clock=clock) as payer:
        await payer.connect(lnd.node_id, lnd.p2p_port)
        await payer.pay(offer)
        await payer.got("static_invoice")
        await payer.sent("held_htlc_available")


async def dropped(sidecar: SidecarProcess, count: int) -> bool:
    """Whether so many messages have been dropped, whatever the reason."""
    counters = await sidecar.counters()
    return sum(n for name, n in counters.items() if name.startswith("dropped.")) == count


@pytest.mark.parametrize("version", VERSIONS)
async def test_garbage_in_the_right_types_is_counted_and_dropped(
    lnd: LndProcess, sidecar: SidecarProcess, version: str, tmp_path: Path
) -> None:
    """Bodies that are no TLV streams, cut short or too long: counted by reason, and others are served."""
    paths = (await sidecar.json("client", "add", "alice"))["paths"]
    bodies = ["00", "ff" * 40, "fd", "0400020000" * 200, "04000300", "02ffff"]
    types = [*OFFER_PATHS_REQUEST, *SERVE_STATIC_INVOICE, INVOICE_REQUEST, 65542, 75546, 77_777]
    async with LdkPeer(version, tmp_path / "rude") as rude:
        await rude.connect(lnd.node_id, lnd.p2p_port)
        for sent, content_type in enumerate(types, start=1):
            for body in bodies:
                await rude.send_raw(content_type, body, paths)
            # One after another: of 40 that a peer has under way, LND drops some itself.
            await until(partial(dropped, sidecar, sent * len(bodies)))
    async with LdkPeer(version, tmp_path / "wallet") as wallet:
        await is_served(await set_up(wallet, lnd, paths), lnd, tmp_path / "payer")
    assert not any("Traceback" in line for line in sidecar.lines)
    assert (await sidecar.counters()).get("stored") == 1


async def test_a_wallet_that_asks_10_000_times_costs_only_itself(
    lnd: LndProcess, sidecar: SidecarProcess, tmp_path: Path
) -> None:
    """What is over the client's limit is dropped; meanwhile another client's offer is made and paid."""
    greedy_paths = (await sidecar.json("client", "add", "greedy"))["paths"]
    paths = (await sidecar.json("client", "add", "alice"))["paths"]
    async with (
        LdkPeer("0.2", tmp_path / "greedy") as greedy,
        LdkPeer("0.2", tmp_path / "wallet") as wallet,
    ):
        await greedy.connect(lnd.node_id, lnd.p2p_port)
        await greedy.send_raw(OFFER_PATHS_REQUEST[1], SLOT_0_IN_LDKS_FORM, greedy_paths, count=10_000)
        await is_served(await set_up(wallet, lnd, paths), lnd, tmp_path / "payer")

        async def limited() -> bool:
            return (await sidecar.counters()).get("dropped.rate-limited", 0) > 0

        await until(limited)
    answered = (await sidecar.counters())["sent.offer_paths"]
    assert answered < 100


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("clock", [DAY, -DAY])
async def test_a_wallet_whose_clock_is_a_day_off_is_served(
    lnd: LndProcess, sidecar: SidecarProcess, version: str, clock: int, tmp_path: Path
) -> None:
    """Its invoice is from tomorrow or from yesterday; payers take it, and a corrected clock renews it."""
    paths = (await sidecar.json("client", "add", "alice"))["paths"]
    async with LdkPeer(version, tmp_path / "wallet", clock=clock) as wallet:
        offer = await set_up(wallet, lnd, paths)
        await is_served(offer, lnd, tmp_path / "payer")
        await is_served(offer, lnd, tmp_path / "payer-with-the-same-clock", clock=clock)

        await wallet.set_clock()
        since = wallet.mark()
        await wallet.tick()
        await wallet.got("static_invoice_persisted", since=since)
        await is_served(await wallet.next_offer(), lnd, tmp_path / "payer-after")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_payer_with_an_offer_of_a_removed_client_is_told_so(
    lnd: LndProcess, sidecar: SidecarProcess, version: str, tmp_path: Path
) -> None:
    """The payment fails at once, as rejected, instead of waiting for an answer that never comes."""
    paths = (await sidecar.json("client", "add", "alice"))["paths"]
    async with LdkPeer(version, tmp_path / "wallet") as wallet:
        offer = await set_up(wallet, lnd, paths)
    await sidecar.command("client", "remove", "alice")
    async with LdkPeer(version, tmp_path / "payer") as payer:
        await payer.connect(lnd.node_id, lnd.p2p_port)
        await payer.pay(offer)
        await payer.got("invoice_error")
        failed = await payer.event("PaymentFailed")
        assert "InvoiceRequestRejected" in failed["detail"]
