"""Limits of a client's own, and pauses, as the operator types them: the product beside a simulated LND."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.asserting import met_with_silence
from tests.harness.sidecar_process import CommandFailed, SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage


@pytest.fixture
async def lnd(tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """A simulated LND that forwards by itself."""
    async with SimulatedLnd(tmp_path / "lnd", "native") as simulated:
        yield simulated


@pytest.fixture
async def sidecar(lnd: SimulatedLnd, tmp_path: Path) -> AsyncIterator[SidecarProcess]:
    """`sidecar serve` on it, with settings that are none of the defaults."""
    options = ("--client.slots=2", "--limits.offer_paths_per_minute=2", "--mailbox.letters=9")
    async with SidecarProcess(tmp_path / "sidecar", lnd, options=options) as process:
        yield process


async def test_the_settings_hold_until_the_operator_says_otherwise_for_a_client(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """Shown as limits and not as its own; what it is given holds at once, and after a restart."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    shown = await sidecar.json("client", "show", "alice")
    assert shown["overrides"] == {}
    limits = shown["limits"]
    assert (limits["slots"], limits["offer_paths_per_minute"], limits["mailbox_letters"]) == (2, 2, 9)
    for _ in range(2):
        await wallet.issue()
    await wallet.ask_offer_paths(0)
    await met_with_silence(wallet)
    await sidecar.command("client", "update", "alice", "--offer-paths", "1000", "--slots", "5")
    await sidecar.stop()
    await sidecar.start()
    for slot in (0, 2, 4):
        await wallet.issue(slot)
    await wallet.ask_offer_paths(5)
    await met_with_silence(wallet)
    shown = await sidecar.json("client", "show", "alice")
    assert shown["overrides"] == {"slots": 5, "offer_paths_per_minute": 1_000}
    assert shown["refused"] == {"slots": 1}
    assert (await sidecar.counters())["refused.slots"] == 1


async def test_a_paused_client_is_silent_until_it_is_resumed(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """Over restarts too; its offer is what it was."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, _, _ = await wallet.set_up(0)
    payer = await stage.payer()
    assert "alice is paused" in await sidecar.command("client", "pause", "alice")
    await sidecar.stop()
    await sidecar.start()
    await wallet.ask_offer_paths(1)
    await met_with_silence(wallet)
    shown = await sidecar.json("client", "show", "alice")
    assert (shown["state"], shown["slots_used"], shown["refused"]) == ("paused", 1, {"paused": 1})
    await sidecar.command("client", "resume", "alice")
    await payer.get_invoice(offer)
    with pytest.raises(CommandFailed, match="nothing to change"):
        await sidecar.command("client", "update", "alice")
