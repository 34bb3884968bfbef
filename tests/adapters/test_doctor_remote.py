"""`sidecar doctor` where admin.address names a server: that one looks at itself, and the command shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from sidecar import __version__, logs
from sidecar.adapters.admin_server import AdminServer, start_admin
from sidecar.adapters.admin_tcp import TcpAddress
from sidecar.core.diagnosis import Finding, failure, info, ok, warning
from sidecar.core.errors import ConfigError
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.admin_tcp import TOKEN, stand_in
from tests.harness.certificates import self_signed
from tests.harness.shell import STATUS, Served, telling

FINDINGS = [
    ok("lnd", "answers"),
    info("lnd.burst", "can't be seen", "run grep"),
    warning("server.stream", "600 wait", "see top"),
    ok("redis", "Redis 7"),
]


class Elsewhere:
    """A server over TCP, and this machine's shell: it has no LND, and the files that a call needs."""

    def __init__(self, folder: Path) -> None:
        self.tcp = TcpAddress("127.0.0.1:0", folder / "cert", folder / "key", folder / "token")
        key, certificate = self_signed()
        self.tcp.tlskey.write_bytes(key)
        self.tcp.tlscert.write_bytes(certificate)
        self.tcp.tokenfile.write_text(TOKEN)
        self.shell = Served(folder / "here")
        """It is not started: just its shell is used, which is this process."""
        self.served = Served(folder / "there")
        self.served.service._look = self._look
        self.asked: list[str] = []
        """What each look was given as egress."""
        self.findings = list(FINDINGS)
        self.address = ""

    async def _look(self, egress: str) -> list[Finding]:
        self.asked.append(egress)
        return self.findings

    async def start(self) -> AdminServer:
        """Let it listen."""
        socket = self.served.make_socket_path()
        server = await start_admin(self.served.service, socket, self.served.webhooks, tcp=self.tcp)
        self.address = server.address
        return server

    async def doctor(self, *argv: str, code: int = 0, **other: Path | str) -> list[dict[str, str]]:
        """All lines; stdout is JSON, and stderr is empty."""
        given = {
            "address": self.address,
            "tokenfile": self.tcp.tokenfile,
            "cafile": self.tcp.tlscert,
        } | other
        flags = [f"--admin.{name}={value}" for name, value in given.items()]
        # The log of this process stays as it is.
        with mock.patch.object(logs, "setup"):
            result = await self.shell.run("doctor", "--json", *argv, *flags)
        assert (result.code, result.err) == (code, "")
        result.code = 0
        checks: list[dict[str, str]] = result.json()["checks"]
        return checks


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[Elsewhere]:
    """A server that runs."""
    world = Elsewhere(tmp_path)
    world.served.service._status = telling(replace(STATUS, version=__version__))
    server = await world.start()
    yield world
    await server.stop(None)


async def test_what_the_server_sees_is_shown_below_where_it_was_reached(elsewhere: Elsewhere) -> None:
    """And nothing of this machine, which has neither LND's files nor a Redis: that is no fault here."""
    first, *rest = await elsewhere.doctor()
    assert (first["name"], first["level"]) == ("server", "ok")
    assert first["seen"].startswith(f"{elsewhere.address} (admin.address) answers, version {__version__}")
    assert [Finding(**each) for each in rest] == [replace(each, level=each.level.value) for each in FINDINGS]  # type: ignore[arg-type]
    assert elsewhere.asked == [""]


async def test_a_failure_there_is_a_failure_here(elsewhere: Elsewhere) -> None:
    """The exit code is for who tests an installation; the way out is looked for there too."""
    elsewhere.findings.append(failure("egress", "no TLS connection to [::1]:8443: connect", "let it pass"))
    *_, last = await elsewhere.doctor("--egress", "[::1]:8443", code=1)
    assert (last["name"], last["level"], last["advice"]) == ("egress", "failure", "let it pass")
    await elsewhere.doctor("--egress", "push.example.com", code=1)
    assert elsewhere.asked == ["[::1]:8443", "push.example.com:443"]


async def test_a_server_that_refuses_to_look_says_why(elsewhere: Elsewhere) -> None:
    """As it does where the host is none for it."""

    async def refuse(_egress: str) -> list[Finding]:
        raise ConfigError("egress: 'x' is not allowed: give a host")

    elsewhere.served.service._look = refuse
    (line,) = await elsewhere.doctor(code=1)
    assert (line["name"], line["level"]) == ("server", "failure")
    assert "egress: 'x' is not allowed" in line["seen"]


async def test_what_a_server_says_can_not_act_on_a_terminal(elsewhere: Elsewhere) -> None:
    """And a level of a later version is at least a warning."""
    elsewhere.findings[:] = [ok("lnd", "\x1b[2J"), ok("redis", "\udcff")]
    _, lnd, redis = await elsewhere.doctor()
    assert lnd["seen"] == r"\x1b[2J"
    assert redis["seen"] == "?"

    class Later:
        """A level that nobody knows yet."""

        value = "alarm"

    elsewhere.findings[:] = [replace(FINDINGS[0], level=Later())]  # type: ignore[arg-type]
    assert (await elsewhere.doctor())[1]["level"] == "warning"


async def test_another_version_is_a_warning(elsewhere: Elsewhere) -> None:
    """What either does not know is not looked at."""
    elsewhere.served.service._status = telling(replace(STATUS, version="9.9.9"))
    first = (await elsewhere.doctor())[0]
    assert first["level"] == "warning"
    assert f"version 9.9.9; this command is {__version__}" in first["seen"]


async def test_a_server_that_can_not_look_at_itself_yet_is_told(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """An older one: nothing was looked at, which is no success."""
    old = stand_in()
    server = await start_admin(old, tmp_path / "old.sock", tcp=elsewhere.tcp)
    (line,) = await elsewhere.doctor(code=1, address=server.address)
    await server.stop(None)
    assert line["name"] == "server"
    assert f"{server.address} (admin.address) is of version 1.2.3, which can't look at itself" in line["seen"]
    assert "upgrade" in line["advice"]


async def test_a_server_elsewhere_that_can_not_be_asked_is_told_with_what_to_do(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Its token is another one, it is out of reach, or a setting is wrong: never "start it here"."""
    (tmp_path / "other").write_text("f" * 64)
    for wrong, seen, advice in (
        ({"tokenfile": tmp_path / "other"}, "needs the server's token", "admin.tokenfile"),
        ({"address": "127.0.0.1:1"}, "no server answers at 127.0.0.1:1", "admin.listen"),
        ({"tokenfile": tmp_path / "none"}, "can't be read: No such file", "change that setting"),
        ({"cafile": tmp_path / "key"}, "holds no certificate in PEM", "change that setting"),
    ):
        (line,) = await elsewhere.doctor(code=1, **wrong)
        assert (line["name"], line["level"]) == ("server", "failure")
        assert seen in line["seen"]
        assert advice in line["advice"]
        assert TOKEN not in str(line)


async def test_the_client_of_the_socket_may_ask_for_a_look_too(elsewhere: Elsewhere) -> None:
    """It is a call like any other."""
    request = admin_pb2.DiagnoseRequest(egress="push.example.com")
    answer = await elsewhere.served.service.Diagnose(request, None)  # type: ignore[arg-type]
    assert [each.name for each in answer.findings] == [each.name for each in FINDINGS]
