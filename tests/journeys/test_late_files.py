"""`sidecar serve` that starts before LND has made its certificate and the macaroon (`lnd.wait`)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from sidecar import meeting
from tests.harness.ports import free_port
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd


@pytest.fixture
async def lnd(tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """A simulated LND 0.21."""
    async with SimulatedLnd(tmp_path / "lnd") as simulated:
        yield simulated


def late(lnd: SimulatedLnd, tmp_path: Path, wait: str, more: Sequence[str] = ()) -> SidecarProcess:
    """A sidecar that looks for LND's files where there are none yet."""
    folder = tmp_path / "later"
    options = [
        f"--lnd.tlspath={folder / 'tls.cert'}",
        f"--lnd.macaroonpath={folder / 'm'}",
        f"--lnd.wait={wait}",
        *more,
    ]
    return SidecarProcess(tmp_path / "sidecar", lnd, options=options)


def is_waiting(line: str) -> bool:
    """Whether it is the line that says so."""
    return "waiting for LND's" in line


async def test_a_server_waits_for_files_that_come_later(lnd: SimulatedLnd, tmp_path: Path) -> None:
    """It says so once, and is alive and not ready meanwhile."""
    port = free_port()
    folder = tmp_path / "later"
    sidecar = late(lnd, tmp_path, "1d", [f"--http.listen=127.0.0.1:{port}"])
    await sidecar.start(wait=False)
    try:
        said = await sidecar.line(is_waiting)
        assert f"waiting for LND's certificate at {folder / 'tls.cert'}" in said
        assert f" and its macaroon at {folder / 'm'} (No such file or directory)" in said
        assert "warning" in said
        folder.mkdir()
        (folder / "m").touch()
        (folder / "tls.cert").write_bytes(lnd.tls_path.read_bytes())
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for page, status in (("/healthz", 200), ("/readyz", 503)):
                async with http.get(page) as answer:
                    assert answer.status == status
        (folder / "m").write_bytes(lnd.macaroon_path.read_bytes())
        await sidecar.line(lambda line: " ready: " in line)
        assert sum(map(is_waiting, sidecar.lines)) == 1
    finally:
        assert await sidecar.stop() == 0


async def test_sigterm_ends_a_server_that_waits(lnd: SimulatedLnd, tmp_path: Path) -> None:
    """At once, and as well as any other."""
    sidecar = late(lnd, tmp_path, "1d")
    await sidecar.start(wait=False)
    await sidecar.line(is_waiting)
    os.kill(sidecar.pid, signal.SIGTERM)
    async with asyncio.timeout(3):
        assert await sidecar.wait() == 0
    assert sidecar.lines[-1].endswith("stopped")


async def test_a_server_that_is_not_to_wait_says_which_setting_is_wrong(
    lnd: SimulatedLnd, tmp_path: Path
) -> None:
    """And ends with 1, at once: that is the default."""
    sidecar = late(lnd, tmp_path, "0s")
    await sidecar.start(wait=False)
    assert await sidecar.wait() == 1
    assert not any(map(is_waiting, sidecar.lines))
    assert "No such file" in sidecar.lines[-1]
    assert "set --lnd.tlspath to LND's file" in sidecar.lines[-1]


async def test_a_server_whose_time_is_over_goes_on_to_say_so(tmp_path: Path) -> None:
    """As one that is not to wait: by what it does next, which is to read the files."""
    with capture_logs() as said:
        await meeting.wait_for_files(tmp_path / "tls.cert", tmp_path / "m", 0.01)
    assert [line["log_level"] for line in said] == ["warning"]


async def test_a_file_that_may_not_be_read_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes it may change its mode last."""
    monkeypatch.setattr(meeting, "FILES_AGAIN", 0.01)
    tls_path, macaroon_path = tmp_path / "tls.cert", tmp_path / "m"
    tls_path.write_bytes(b"c")
    # A directory can't be read by anybody: the tests may run as root, who can read all files.
    macaroon_path.mkdir()
    waiting = asyncio.create_task(meeting.wait_for_files(tls_path, macaroon_path, 60))
    await asyncio.sleep(0)
    assert not waiting.done()
    macaroon_path.rmdir()
    macaroon_path.write_bytes(b"m")
    async with asyncio.timeout(5):
        await waiting
