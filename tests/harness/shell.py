"""The `sidecar` command as a shell runs it, and a real admin server for it on a Unix socket."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from sidecar.adapters.admin import AdminServer, AdminService, StatusSnapshot, start_admin
from sidecar.adapters.admin_client import admin_socket_path
from sidecar.core.model import Client, Quota
from tests.harness.memory_store import MemoryStore
from tests.harness.store_contract import DAY

ROOT = Path(__file__).parents[2]
STATUS = StatusSnapshot(
    "0.1.0", "02ab", "0.21.2-beta", "native", "regtest", "Redis", "strict", True, {"sent": 3}
)


class Result:
    """How a run of the command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        """What was printed, which must be JSON and all that there is."""
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)

    def text(self) -> str:
        """What was printed by a run that went well."""
        assert (self.code, self.err) == (0, "")
        return self.out

    def refusal(self, code: int = 1) -> str:
        """The one line of a run that failed."""
        assert (self.code, self.out) == (code, "")
        assert re.fullmatch(r"sidecar: [^\n]+\n", self.err), self.err
        return self.err.removeprefix("sidecar: ").rstrip()


class Shell:
    """Runs `python -m sidecar` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.datadir = home / ".static-invoice-sidecar"

    async def run(self, *args: str | bytes, **environ: str) -> Result:
        """One run of the command, to its end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", *args),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.home), "PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
            cwd="/",
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())


class Issuer:
    """Paths that say whose they are; fails with `error` while there is one."""

    error: Exception | None = None

    async def request_paths(self, client: Client) -> bytes:
        """One path, made up."""
        if self.error is not None:
            raise self.error
        return b"\x00\x01" + client.client_id + bytes([client.generation])


class Served(Shell):
    """A shell whose default data directory has a running admin server."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.store = MemoryStore()
        self.issuer = Issuer()
        defaults = Quota(slots=10, bytes=131_072, ttl=365 * DAY)
        self.service = AdminService(self.store, self.issuer, lambda: STATUS, defaults)
        self.path = admin_socket_path(self.datadir)

    async def start(self) -> AdminServer:
        """Let the server listen."""
        return await start_admin(self.service, self.path)
