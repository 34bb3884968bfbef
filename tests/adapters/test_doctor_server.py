"""A server's look at itself: what it stands on, as its own settings say, and one look at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from sidecar import doctor
from sidecar.config import Settings, load
from sidecar.core.diagnosis import Finding, Level, ok
from sidecar.core.errors import ConfigError
from sidecar.doctor import SelfLook
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.admin_tcp import TOKEN
from tests.harness.admin_world import Refusal, Running
from tests.harness.doctor_world import TellingLnd
from tests.harness.shell import Served


class Looks:
    """Stands in for the look itself: `begun` says that one goes on, and `ends` lets it end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.ends = asyncio.Queue[object](), asyncio.Event()
        self.running = self.most = 0
        monkeypatch.setattr(doctor, "examine", self._examine)

    async def _examine(self, _settings: Settings, egress: object, **_more: object) -> list[Finding]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.put_nowait(egress)
        try:
            await self.ends.wait()
        finally:
            self.running -= 1
        return [ok("lnd", "answers")]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Looks that a test ends."""
    return Looks(monkeypatch)


async def test_one_look_goes_on_at_a_time(looks: Looks) -> None:
    """Others wait for it, and have one of their own."""
    own = SelfLook(load({}, {}))
    first, second = asyncio.create_task(own.findings("")), asyncio.create_task(own.findings("[::1]"))
    assert await looks.begun.get() is None
    assert looks.begun.empty()
    looks.ends.set()
    assert await first == await second == [ok("lnd", "answers")]
    assert await looks.begun.get() == ("::1", 443)
    assert looks.most == 1


async def test_who_waits_too_long_is_told(looks: Looks) -> None:
    """And neither it nor a caller that hangs up keeps others from looking."""
    own = SelfLook(load({}, {}), whole=0.05)
    first = asyncio.create_task(own.findings(""))
    await looks.begun.get()
    (line,) = await own.findings("")
    assert (line.name, line.level) == ("server", Level.FAILURE)
    assert "no time" in line.seen
    await first
    gone = asyncio.create_task(own.findings(""))
    await looks.begun.get()
    gone.cancel()
    looks.ends.set()
    assert await own.findings("") == [ok("lnd", "answers")]


@pytest.mark.parametrize("egress", ["https://a.example/", "a.example:0", " "])
async def test_an_egress_that_is_no_host_is_refused(looks: Looks, egress: str) -> None:
    """Before anything is looked at: callers need not be our own command."""
    with pytest.raises(ConfigError, match=r"egress: .* give host:port"):
        await SelfLook(load({}, {})).findings(egress)
    assert looks.begun.empty()


async def test_an_egress_that_is_no_host_is_the_callers_fault(running: Running) -> None:
    """Over gRPC: with the slug of what was given wrongly."""
    running.service._look = SelfLook(load({}, {})).findings
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config"):
        await running.stub.Diagnose(admin_pb2.DiagnoseRequest(egress="https://a.example/"))


@pytest.fixture
async def lnd(tmp_path: Path) -> AsyncIterator[TellingLnd]:
    """A healthy LND."""
    async with TellingLnd(tmp_path / "lnd") as telling:
        yield telling


async def test_a_server_sees_its_own_lnd_files_and_admin_socket(served: Served, lnd: TellingLnd) -> None:
    """Though its settings name a server elsewhere, which is for the command. No secret is shown."""
    token = lnd.folder / "token"
    token.write_text(TOKEN)
    settings = load(
        {
            "datadir": str(served.datadir),
            "lnd.host": lnd.host,
            "lnd.tlspath": str(lnd.tls_path),
            "lnd.macaroonpath": str(lnd.macaroon_path),
            "redis.url": "redis://:hunter2@127.0.0.1:1",
            "admin.address": "127.0.0.1:1",
            "admin.tokenfile": str(token),
        },
        {},
    )
    found = {each.name: each for each in await SelfLook(settings).findings("")}
    assert found["lnd.macaroon"].level is Level.OK
    assert found["server.stream"].level is Level.OK
    assert found["redis"].level is Level.FAILURE
    assert "server" not in found
    assert "hunter2" not in str(found)
    assert TOKEN not in str(found)
