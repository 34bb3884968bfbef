"""How the server ends, and how it takes over other settings, as a process beside a simulated LND."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage


@pytest.fixture
async def lnd(tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """A simulated LND 0.21."""
    async with SimulatedLnd(tmp_path / "lnd", "native") as simulated:
        yield simulated


@pytest.fixture
async def sidecar(lnd: SimulatedLnd, tmp_path: Path) -> AsyncIterator[SidecarProcess]:
    """`sidecar serve` on it."""
    async with SidecarProcess(tmp_path / "sidecar", lnd) as process:
        yield process


def redis_of(sidecar: SidecarProcess) -> int:
    """The pid of the embedded Redis."""
    return int((sidecar.datadir / "redis" / "redis.pid").read_text())


async def test_sigterm_takes_no_more_and_finishes_what_is_in_hand(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """An invoice is on its way to a slow disk: LND's stream is closed, then it is stored and acknowledged."""
    wallet = await Stage(lnd).wallet(sidecar, "alice")
    issued = await wallet.issue()
    redis = redis_of(sidecar)
    os.kill(redis, signal.SIGSTOP)
    try:
        asked = lnd.called["DeriveSharedKey"]
        await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
        await lnd.until_called("DeriveSharedKey", asked + 1)
        os.kill(sidecar.pid, signal.SIGTERM)
        await lnd.node.onions.idle.wait()
    finally:
        os.kill(redis, signal.SIGCONT)
    await wallet.receive_persisted()
    assert await sidecar.wait() == 0
    assert sidecar.lines[-1].endswith("stopped")


async def test_sighup_takes_over_what_may_change(sidecar: SidecarProcess) -> None:
    """Quotas and the log level hold at once; what needs a restart is named."""
    file = sidecar.datadir / "sidecar.toml"
    file.write_text('client.slots = 3\nloglevel = "debug"\nlsps5.cooldown = "5m"\n')
    os.kill(sidecar.pid, signal.SIGHUP)
    read = await sidecar.line(lambda line: "settings read anew" in line)
    assert "client.slots, loglevel" in read
    assert "lsps5.cooldown" in await sidecar.line(lambda line: "after a restart" in line)
    assert (await sidecar.json("client", "add", "alice"))["quota"]["slots"] == 3
    await sidecar.command("status")
    await sidecar.line(lambda line: "[debug" in line)


async def test_a_changed_file_is_read_without_a_signal(sidecar: SidecarProcess) -> None:
    """As when Kubernetes replaces a ConfigMap; clients with no limits of their own follow."""
    await sidecar.command("client", "add", "alice")
    own = (await sidecar.json("client", "add", "bob", "--slots", "7"))["quota"]
    (sidecar.datadir / "sidecar.toml").write_text("client.slots = 4\n")
    await sidecar.line(lambda line: "settings read anew" in line)
    assert (await sidecar.json("client", "show", "alice"))["quota"]["slots"] == 4
    assert (await sidecar.json("client", "show", "bob"))["quota"] == own


async def test_settings_that_can_not_be_read_change_nothing(sidecar: SidecarProcess) -> None:
    """A typo in a file must not end a server that works: it is said once, and the old ones hold."""
    file = sidecar.datadir / "sidecar.toml"
    file.write_text("client.slotz = 4\n")
    line = await sidecar.line(lambda line: "can't be read anew" in line)
    assert "did you mean client.slots?" in line
    file.write_text("client.slots = 4\n")
    await sidecar.line(lambda line: "settings read anew" in line)
    assert (await sidecar.json("client", "add", "alice"))["quota"]["slots"] == 4
    assert sum("can't be read anew" in line for line in sidecar.lines) == 1
