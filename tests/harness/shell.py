"""The `sidecar` command as a shell runs it, and a real admin server for it on a Unix socket."""

import asyncio
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from sidecar import cli
from sidecar.adapters.admin import AdminService, StatusSnapshot
from sidecar.adapters.admin_client import admin_socket_path, private_directory
from sidecar.adapters.admin_server import AdminServer, start_admin
from sidecar.adapters.admin_webhooks import WebhooksService
from sidecar.allowances import Allowances
from sidecar.bindings import Bindings
from sidecar.clients import RunningClients
from sidecar.core.diagnosis import Finding, ok
from sidecar.core.errors import NoSuchInvoice
from sidecar.core.mailbox import MailUse
from sidecar.core.model import Client
from sidecar.core.webhooks import Delivery
from sidecar.lsps import LspsService, LspsSettings
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness import allowed
from tests.harness.fakes import FakeClock, NotedNotifier
from tests.harness.memory_store import MemoryStore
from tests.harness.memory_webhooks import MemoryWebhooks

ROOT = Path(__file__).parents[2]
STATUS = StatusSnapshot(
    "0.1.0", "02ab", "0.21.2-beta", "native", "regtest", "Redis", "strict", True, {"sent": 3}
)


def telling(status: StatusSnapshot) -> Callable[[], Awaitable[StatusSnapshot]]:
    """How a server of that status gives it."""

    async def told() -> StatusSnapshot:
        return status

    return told


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

    async def run(self, *args: str | bytes, stdin: bytes = b"", **environ: str) -> Result:
        """One run of the command, to its end; `stdin` is what it can read."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", *args),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.home), "PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
            cwd="/",
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    def make_socket_path(self) -> Path:
        """Where a server of the default data directory would listen; the directories are made."""
        self.datadir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = admin_socket_path(self.datadir)
        private_directory(path.parent)
        return path


def _main(args: Sequence[str], stdin: bytes, environ: Mapping[str, str]) -> Result:
    """`sidecar` with streams and an environment of its own, as far as one process can have them."""
    encoding = environ.get("PYTHONIOENCODING", "utf-8")
    streams = [io.TextIOWrapper(io.BytesIO(data), encoding=encoding) for data in (stdin, b"", b"")]
    with (
        mock.patch.dict(os.environ, environ, clear=True),
        mock.patch.multiple(sys, stdin=streams[0], stdout=streams[1], stderr=streams[2]),
    ):
        try:
            code = cli.main(args)
        except SystemExit as error:
            code = int(error.code or 0)
    out, err = (_text(stream) for stream in streams[1:])
    return Result(code, out, err)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


async def no_dry_run(request: admin_pb2.DryRunRequest) -> admin_pb2.DryRunResponse:
    """As of a server where no slot has an invoice."""
    raise NoSuchInvoice(f"no invoice is stored in slot {request.slot}")


async def well(egress: str) -> list[Finding]:
    """What a server finds that has nothing to complain of."""
    return [ok("lnd", f"answers, and so does {egress}" if egress else "answers")]


class Issuer:
    """Paths that say whose they are; fails with `error` while there is one."""

    error: Exception | None = None

    async def request_paths(self, client: Client) -> bytes:
        """One path, made up."""
        if self.error is not None:
            raise self.error
        return b"\x00\x01" + client.client_id + bytes([client.generation])


class NoPushes(NotedNotifier):
    """A notifier whose tests end as `outcomes` says, without a push service; `tested` is what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes = ["ok"]
        self.tested: list[tuple[bytes, str | None]] = []

    async def test(self, node_id: bytes, app_name: str | None) -> list[Delivery]:
        """As if there had been a delivery for each outcome."""
        self.tested.append((node_id, app_name))
        name, method = app_name or "all", "lsps5.onion_message_incoming"
        return [Delivery(1_000, name, method, outcome, 1) for outcome in self.outcomes]


async def anyone(_node_id: bytes) -> bool:
    """Whether a node may register: here all may."""
    return True


class Served(Shell):
    """A shell whose default data directory has a running admin server."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.store = MemoryStore()
        self.issuer = Issuer()
        self.bindings = Bindings(self.store, Counter())
        self.allowances = Allowances(self.store, allowed.DEFAULTS, Counter())
        clients = RunningClients(self.bindings, self.allowances, lambda: None)
        self.mail: dict[bytes, MailUse] = {}
        """What waits for each client, by its id."""
        self.leader: str | None = None
        """Who leads, where this server does not."""
        self.service = AdminService(
            *(self.store, self.issuer, clients, telling(STATUS), self.allowances),
            letters=self.store.mail_list,
            mail_use=self.mail.get,
            dry_run=no_dry_run,
            look=well,
        )
        self.hooks = MemoryWebhooks()
        self.notifier = NoPushes()
        registrar = LspsService(
            store=self.hooks,
            notifier=self.notifier,
            clock=FakeClock(),
            may_register=anyone,
            settings=LspsSettings(),
            counters=Counter(),
        )
        self.webhooks = WebhooksService(self.store, self.hooks, registrar, self.notifier)
        self.path = admin_socket_path(self.datadir)

    async def run(self, *args: str | bytes, stdin: bytes = b"", **environ: str) -> Result:
        """One run of the command in this process: it is what `python -m sidecar` calls, and starts sooner."""
        home = {"HOME": str(self.home), "PATH": os.defpath}
        return await asyncio.to_thread(_main, [os.fsdecode(arg) for arg in args], stdin, home | environ)

    async def start(self) -> AdminServer:
        """Let the server listen, in a data directory that it has made, as `sidecar serve` does."""
        return await start_admin(
            self.service, self.make_socket_path(), self.webhooks, standing_by=lambda: self.leader
        )
