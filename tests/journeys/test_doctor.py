"""`sidecar doctor` from where no LND is, as a test of an installation runs it: the server looks at itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness.certificates import self_signed
from tests.harness.doctor_world import TellingLnd
from tests.harness.ports import free_port
from tests.harness.shell import Shell
from tests.harness.sidecar_process import SidecarProcess

TOKEN = "0123456789abcdef" * 4


@pytest.mark.slow
async def test_a_server_is_looked_at_from_another_machine(tmp_path: Path) -> None:
    """Its LND, macaroon, embedded Redis and stream are told; here are but the address, a CA and a token."""
    key, certificate = self_signed()
    files = {"tlskey": key, "tlscert": certificate, "tokenfile": TOKEN.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    address = f"127.0.0.1:{free_port()}"
    options = [f"--admin.listen={address}", *(f"--admin.{name}={tmp_path / name}" for name in files)]
    shell = Shell(tmp_path / "here")
    async with (
        TellingLnd(tmp_path / "lnd") as lnd,
        SidecarProcess(tmp_path / "sidecar", lnd, options=options) as sidecar,
    ):
        argv = [
            f"--admin.address={address}",
            f"--admin.tokenfile={tmp_path / 'tokenfile'}",
            f"--admin.cafile={tmp_path / 'tlscert'}",
        ]
        result = await shell.run("doctor", "--json", *argv)
        found = {each["name"]: each for each in json.loads(result.out)["checks"]}
        assert result.err == ""
        assert found["server"]["seen"].startswith(f"{address} (admin.address) answers")
        for name in ("server", "server.stream", "lnd", "lnd.macaroon", "redis", "datadir"):
            assert found[name]["level"] == "ok", found[name]
        assert str(sidecar.datadir) in found["datadir"]["seen"]
        assert TOKEN not in result.out
        # It takes nothing from the server that looks: that one goes on.
        assert (await sidecar.json("status"))["stream_up"]
        assert not any(word in line for line in sidecar.lines for word in ("error", "Traceback", "audit"))
