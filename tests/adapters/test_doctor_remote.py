"""`sidecar doctor` where admin.address names a server on another machine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.adapters.admin_server import AdminServer, start_admin
from sidecar.adapters.admin_tcp import TcpAddress
from tests.harness.admin_tcp import TOKEN
from tests.harness.certificates import self_signed
from tests.harness.shell import Served, Shell

Lines = dict[str, dict[str, str]]


class Elsewhere:
    """A server over TCP, and this machine's shell: it has no server, and the files that a call needs."""

    def __init__(self, folder: Path) -> None:
        self.tcp = TcpAddress("127.0.0.1:0", folder / "cert", folder / "key", folder / "token")
        key, certificate = self_signed()
        self.tcp.tlskey.write_bytes(key)
        self.tcp.tlscert.write_bytes(certificate)
        self.tcp.tokenfile.write_text(TOKEN)
        self.shell = Shell(folder / "here")
        self.address = ""

    async def start(self, served: Served) -> AdminServer:
        """Let it listen."""
        server = await start_admin(served.service, served.make_socket_path(), served.webhooks, tcp=self.tcp)
        self.address = server.address
        return server

    async def doctor(self, **other: Path | str) -> Lines:
        """The lines about the server and Redis, by name; stdout is JSON, and stderr is empty."""
        given = {
            "address": self.address,
            "tokenfile": self.tcp.tokenfile,
            "cafile": self.tcp.tlscert,
        } | other
        flags = [f"--admin.{name}={value}" for name, value in given.items()]
        result = await self.shell.run(
            "doctor", "--json", f"--lnd.tlspath={self.tcp.tlscert.parent}/none", *flags
        )
        # Here is no LND, which is a failure.
        assert (result.code, result.err) == (1, "")
        result.code = 0
        return {each["name"]: each for each in result.json()["checks"]}


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[Elsewhere]:
    """A server that runs."""
    world = Elsewhere(tmp_path)
    server = await world.start(Served(tmp_path / "there"))
    yield world
    await server.stop(None)


async def test_what_runs_elsewhere_is_told_of_with_its_address(elsewhere: Elsewhere) -> None:
    """And the embedded Redis, which is not here, is no fault: it is there."""
    found = await elsewhere.doctor()
    assert found["server"]["level"] == "ok"
    assert f"running at {elsewhere.address} (admin.address)" in found["server"]["seen"]
    assert found["server.stream"]["level"] == "ok"
    assert found["redis"]["level"] == "info"
    assert f"on the machine of {elsewhere.address}" in found["redis"]["seen"]


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
        line = (await elsewhere.doctor(**wrong))["server"]
        assert line["level"] == "failure"
        assert seen in line["seen"]
        assert advice in line["advice"]
        assert TOKEN not in str(line)
