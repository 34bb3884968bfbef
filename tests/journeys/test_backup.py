"""A server moves to another Redis: what clients have made before is served after."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.sidecar_process import CommandFailed, SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage

URL = "https://push.example/a-token"


@pytest.fixture
async def lnd(tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """LND, which stays what it is."""
    async with SimulatedLnd(tmp_path / "lnd", "native") as simulated:
        yield simulated


@pytest.mark.slow
async def test_an_offer_that_was_made_before_the_move_is_served_after_it(
    lnd: SimulatedLnd, tmp_path: Path
) -> None:
    """Export while it serves, import into a new data directory: offers, paths, mail, webhooks are there."""
    stage, file = Stage(lnd), tmp_path / "all.export"
    async with SidecarProcess(tmp_path / "old", lnd) as old:
        wallet = await stage.wallet(old, "alice")
        offer, issued, _ = await wallet.set_up()
        await old.command("webhook", "add", "alice", "app", URL)
        await wallet.link.close()
        await (await stage.payer()).get_invoice(offer)
        before = await old.json("client", "show", "alice")
        await old.command("export", str(file))
        with pytest.raises(CommandFailed, match="something is kept here already"):
            await old.command("import", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    async with SidecarProcess(tmp_path / "new", lnd) as new:
        done = await new.json("import", str(file))
        assert done == {"clients": 1, "invoices": 1, "letters": 1, "webhooks": 1}
        after = await new.json("client", "show", "alice")
        # Paths are made anew each time they are shown.
        for shown in (before, after):
            del shown["paths"], shown["refused"]
        assert after == before
        assert (await new.json("dry-run", "alice", "0"))["outcome"] == "static_invoice"

        await (await stage.payer()).get_invoice(offer)
        wallet.link = await stage.connect(wallet.secret)
        await wallet.receive_invoice_request()
        await wallet.receive_invoice_request()
        # Over the path that the old server gave it, it leaves its next invoice with the new one.
        await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
        await wallet.receive_persisted()
        listed = await new.json("webhook", "list", "alice")
        assert [each["app_name"] for each in listed["webhooks"]] == ["app"]
