"""An admin server for `sidecar export`, `import` and `dry-run` over a real Redis."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from sidecar.adapters.admin_backup import BackupService, DryRunner
from sidecar.adapters.admin_client import AdminClient
from sidecar.adapters.admin_server import start_admin
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.context import Context
from sidecar.core.model import Client
from sidecar.core.paths import BlindedPath
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.core import server_cases
from tests.core.server_cases import SERVER, Kept
from tests.harness.backup_scene import backup_of, commands_on, contents
from tests.harness.shell import Shell
from tests.harness.store_contract import DAY, until
from tests.harness.wallet import CHAIN


class Typed(Protocol):
    """A Redis that takes what an operator types."""

    @property
    def socket(self) -> Path:
        """Where it listens."""

    def command(self, *words: str) -> object:
        """Its answer to a command."""


class Admin(admin_pb2_grpc.AdminServicer):
    """As much of the admin service as these commands use."""

    def __init__(self, runner: DryRunner) -> None:
        self._runner = runner

    async def DryRun(self, request: admin_pb2.DryRunRequest, _context: Any) -> admin_pb2.DryRunResponse:  # noqa: N802
        """As AdminService does."""
        return await self._runner(request)


class Kit:
    """An admin server over a store, and the commands that speak to it."""

    def __init__(self, server: Typed, node_id: bytes, store: RedisStore, shell: Shell) -> None:
        self.server, self.node_id, self.store, self.shell = server, node_id, store, shell
        self.imported = 0
        self.opened: Context | None = None
        self.walked: list[BlindedPath] = []
        self.path = shell.make_socket_path()
        self.spool = shell.home / "spool"
        self.spool.mkdir()
        self.records = backup_of(store, node_id)

    def backup(self, node_id: bytes | None = None, network: str = "regtest") -> BackupService:
        """The service, beside an LND of another node if one is given."""
        return BackupService(
            self.records,
            node_id=node_id or self.node_id,
            network=network,
            version="1.2.3",
            directory=self.spool,
            imported=self._note,
            now=lambda: 1_800_000_000,
        )

    async def _note(self) -> None:
        self.imported += 1

    async def _walk(self, path: BlindedPath) -> Context | None:
        self.walked.append(path)
        return self.opened

    def runner(self) -> DryRunner:
        """What answers a dry run, at the time of the cases of the core."""
        return DryRunner(self.store, SERVER, CHAIN, self._walk)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Kit"]:
        """With its server at work."""
        admin = Admin(self.runner())  # type: ignore[abstract]  # what it lacks is answered UNIMPLEMENTED
        running = await start_admin(admin, self.path, backup=self.backup())
        try:
            yield self
        finally:
            await running.stop()

    async def ask(self, call: Callable[[AdminClient], Any]) -> Any:
        """A call as the commands make it, beside the server."""

        def asked() -> Any:
            with AdminClient(self.shell.datadir) as client:
                return call(client)

        return await asyncio.to_thread(asked)

    async def export(self) -> bytes:
        """All that is kept, as a file."""
        return b"".join(await self.ask(lambda client: list(client.export())))

    async def import_(self, data: bytes, size: int = 60_000) -> admin_pb2.ImportResponse:
        """A file, in parts."""
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        done: admin_pb2.ImportResponse = await self.ask(lambda client: client.import_(parts))
        return done

    def keys(self) -> int:
        """How many there are in Redis."""
        return len(contents(commands_on(str(self.server.socket))))

    def flush(self) -> None:
        """An empty Redis."""
        self.server.command("FLUSHALL")


async def an_offer(kit: Kit, **changes: object) -> Kept:
    """An offer of client alice's that is stored in slot 0, as its wallet would have left it just now."""
    client: Client = replace(server_cases.CLIENT, created_at=int(time.time()))
    await kit.store.add_client(client)
    now_ms = int(time.time()) * 1_000
    kept = Kept(server_cases.ask(now_ms=now_ms))
    kept.invoice = kept.wallet.make_invoice(kept.offer_records, created_at=now_ms // 1_000)
    stored = replace(
        kept.stored,
        invoice=kept.invoice,
        created_at=now_ms // 1_000,
        stored_at=now_ms // 1_000,
        expires_at=now_ms // 1_000 + 10 * DAY,
        **changes,  # type: ignore[arg-type]
    )
    await kit.store.save(client.client_id, stored, until())
    kit.opened = kept.offer_context
    return kept
