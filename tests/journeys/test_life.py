"""How the server ends, and how it takes over other settings, as a process beside a simulated LND."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from sidecar import app, assembly
from sidecar.core import webhooks
from sidecar.core.errors import LndDenied
from tests.harness.mounted import Mount
from tests.harness.push_service import OK, PushService, hang
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage
from tests.harness.waking import check_signature, push_options
from tests.harness.wallet import set_webhook

WITHIN = 10
"""Seconds that it may take to end, whatever hangs: then a container's runtime sends SIGKILL."""


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


@contextmanager
def hung_redis(sidecar: SidecarProcess) -> Iterator[int]:
    """The embedded Redis answers nothing any more; its pid. In the end it is gone, whoever ended it."""
    pid = redis_of(sidecar)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def ended_in_time(sidecar: SidecarProcess) -> bool:
    """SIGTERM; whether the server says goodbye in time."""
    async with asyncio.timeout(WITHIN):
        return await sidecar.stop() == 0 and sidecar.lines[-1].endswith("stopped")


@pytest.mark.slow
async def test_sigterm_kills_a_redis_that_does_not_stop(sidecar: SidecarProcess) -> None:
    """Every acknowledged change is on its disk: nothing is lost, and the next start finds all."""
    await sidecar.command("client", "add", "alice")
    with hung_redis(sidecar) as redis:
        assert await ended_in_time(sidecar)
        with pytest.raises(ProcessLookupError):
            os.kill(redis, 0)
    await sidecar.start()
    assert (await sidecar.json("client", "show", "alice"))["name"] == "alice"


@pytest.mark.slow
async def test_sigterm_ends_in_time_with_work_in_hand_that_redis_holds_up(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """A letter is in memory and can't be stored: what may be waited for is waited for, and no longer."""
    stage = Stage(lnd)
    wallet, payer = await stage.wallet(sidecar, "alice"), await stage.payer()
    await wallet.set_up()
    await wallet.link.close()
    with hung_redis(sidecar):
        asked = lnd.called["DeriveSharedKey"]
        await payer.send_along(wallet.path_to_self(b"held htlc"), 72, b"")
        await lnd.until_called("DeriveSharedKey", asked + 1)
        assert await ended_in_time(sidecar)
        assert any("not all that was in hand" in line for line in sidecar.lines)


async def test_each_closing_has_its_turn_whatever_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is cut short, and those after it are not left out."""
    monkeypatch.setattr(app, "CLOSE_SECONDS", 0.02)
    monkeypatch.setattr(app, "CUT_SECONDS", 0.01)
    closed = []

    async def close(name: str, *, hangs: bool = False) -> None:
        try:
            await asyncio.sleep(3600 if hangs else 0)
        finally:
            closed.append(name)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(close, "first opened")
            stack.push_async_callback(close, "second", hangs=True)
            stack.push_async_callback(close, "last opened", hangs=True)
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    running = asyncio.create_task(run())
    await begun.wait()
    async with asyncio.timeout(2):
        await app._close(running)
    assert (running.cancelled(), closed) == (True, ["last opened", "second", "first opened"])


@pytest.mark.slow
async def test_a_wake_up_that_sigterm_cuts_short_is_sent_after_the_next_start(
    lnd: SimulatedLnd, tmp_path: Path
) -> None:
    """The push service hangs: the server does not wait for it, and does not forget the wallet."""
    async with (
        PushService(tmp_path) as push,
        SidecarProcess(tmp_path / "sidecar", lnd, options=push_options(push)) as sidecar,
    ):
        stage = Stage(lnd)
        wallet, payer = await stage.wallet(sidecar, "alice"), await stage.payer()
        await wallet.set_up()
        await set_webhook(wallet.link, "app", push.url())
        assert check_signature(lnd.node_id, await push.next()) == webhooks.WEBHOOK_REGISTERED
        push.behaviour = hang
        await wallet.link.close()
        await payer.send_along(wallet.path_to_self(b"held htlc"), 72, b"")
        await push.next()
        assert await ended_in_time(sidecar)
        push.behaviour = OK
        await sidecar.start()
        assert check_signature(lnd.node_id, await push.next()) == webhooks.ONION_MESSAGE_INCOMING


async def test_a_macaroon_that_is_being_replaced_does_not_end_the_server_that_tidies_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LND refuses to list its channels just then: the next round does the work."""
    monkeypatch.setattr(assembly, "TIDY_EVERY", 0)
    tidied = asyncio.Event()

    class Lsps:
        rounds = 0

        async def tidy(self, _needed: object) -> None:
            self.rounds += 1
            if self.rounds < 3:
                raise LndDenied("no such macaroon")
            tidied.set()

    sidecar = object.__new__(assembly.Sidecar)
    sidecar._lsps = Lsps()  # type: ignore[assignment]
    async with asyncio.timeout(5):
        tidying = asyncio.create_task(sidecar._keep_webhooks_tidy())
        await asyncio.wait(
            {tidying, waiting := asyncio.create_task(tidied.wait())}, return_when="FIRST_COMPLETED"
        )
    assert waiting.done()
    tidying.cancel()


@pytest.mark.slow
async def test_settings_read_anew_while_lnd_is_away_hold_from_the_start(tmp_path: Path) -> None:
    """Those that may change; what needs a restart stays as it was said, and is not half in force."""
    async with SimulatedLnd(tmp_path / "lnd", "native") as lnd:
        await lnd.restart(locked=True)
        async with SidecarProcess.started(tmp_path / "sidecar", lnd) as sidecar:
            await sidecar.line(lambda line: "LND is locked" in line)
            sidecar.datadir.mkdir(exist_ok=True)
            (sidecar.datadir / "sidecar.toml").write_text('client.slots = 3\nredis.durability = "none"\n')
            os.kill(sidecar.pid, signal.SIGHUP)
            await sidecar.line(lambda line: "after a restart" in line and "redis.durability" in line)
            lnd.unlock()
            await sidecar.line(lambda line: " ready: " in line)
            assert (await sidecar.json("client", "add", "alice"))["quota"]["slots"] == 3
            assert (await sidecar.json("status"))["durability"] == "strict"


@pytest.mark.slow
async def test_a_config_map_that_is_replaced_is_read_without_a_signal(
    lnd: SimulatedLnd, tmp_path: Path
) -> None:
    """The file is a link to a link, and neither its name nor its length changes."""
    mount = Mount(tmp_path / "mount", {"sidecar.toml": b"client.slots = 3\n"})
    options = [f"--config={mount / 'sidecar.toml'}"]
    async with SidecarProcess(tmp_path / "sidecar", lnd, options=options) as sidecar:
        mount.swap({"sidecar.toml": b"client.slots = 4\n"})
        await sidecar.line(lambda line: "settings read anew" in line)
        assert (await sidecar.json("client", "add", "alice"))["quota"]["slots"] == 4


def test_each_version_of_a_config_map_is_news(tmp_path: Path) -> None:
    """Though the directory of the one before is gone, and the file's own link is never touched."""
    mount = Mount(tmp_path / "mount", {"a": b"1"})
    seen = []
    for number in range(5):
        mount.swap({"a": b"%d" % number})
        seen.append(app._stamps([mount / "a"]))
    assert all(one != other for one, other in pairwise(seen))
    assert app._stamps([mount / "a"]) == seen[-1]


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
