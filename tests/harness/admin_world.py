"""An admin server over stores in memory, on a real Unix socket."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import grpc

from sidecar.adapters.admin import AdminService, StatusSnapshot
from sidecar.adapters.admin_client import socket_target
from sidecar.adapters.admin_status import reason_in
from sidecar.allowances import Allowances
from sidecar.bindings import Bindings
from sidecar.clients import RunningClients
from sidecar.core import keys
from sidecar.core.mailbox import MailUse
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness import allowed
from tests.harness.memory_store import MemoryStore
from tests.harness.shell import Issuer, no_dry_run, well

NODE, OTHER_NODE = keys.public_key(b"\x01" * 32), keys.public_key(b"\x02" * 32)
DEFAULTS = Allowances(MemoryStore(), allowed.DEFAULTS, Counter())
"""What clients may use none of which has limits of its own."""
STATUS = StatusSnapshot(
    version="0.1.0",
    node_id="02" * 33,
    lnd_version="0.21.2-beta",
    mode="native",
    network="regtest",
    redis="embedded Redis 6.2.14",
    durability="strict",
    stream_up=True,
    counters={"served": 3, "bad-context": 1},
)


async def told() -> StatusSnapshot:
    """It, as a server gives it."""
    return STATUS


class Running:
    """A running admin service and what it stands on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = MemoryStore()
        self.issuer = Issuer()
        self.bindings = Bindings(self.store, Counter())
        self.allowances = Allowances(self.store, allowed.DEFAULTS, Counter())
        self.clients = RunningClients(self.bindings, self.allowances, lambda: None)
        self.mail: dict[bytes, MailUse] = {}
        self.service = AdminService(
            *(self.store, self.issuer, self.clients, told, self.allowances),
            letters=self.store.mail_list,
            mail_use=self.mail.get,
            dry_run=no_dry_run,
            look=well,
        )
        self.channel = grpc.aio.insecure_channel(socket_target(path))
        self.stub = admin_pb2_grpc.AdminStub(self.channel)

    async def add(self, name: str = "alice", **quota: float) -> admin_pb2.AddClientResponse:
        """Add a client over the socket."""
        request = admin_pb2.AddClientRequest(name=name, quota=admin_pb2.Quota(**quota))  # type: ignore[arg-type]
        return await self.stub.AddClient(request)

    async def add_node(self, name: str, node_id: str) -> admin_pb2.AddClientResponse:
        """Add a client whose node is known."""
        return await self.stub.AddClient(admin_pb2.AddClientRequest(name=name, node_id=node_id))

    async def update(self, quota: Mapping[str, float], reset: Sequence[str] = ()) -> admin_pb2.Client:
        """Change alice's own limits."""
        wanted = admin_pb2.Quota(**quota)  # type: ignore[arg-type]
        request = admin_pb2.UpdateClientRequest(name="alice", quota=wanted, reset=reset)
        return (await self.stub.UpdateClient(request)).client

    async def pause(self) -> admin_pb2.Client:
        """Pause alice."""
        return (await self.stub.PauseClient(admin_pb2.PauseClientRequest(name="alice"))).client

    async def resume(self) -> admin_pb2.Client:
        """Resume alice."""
        return (await self.stub.ResumeClient(admin_pb2.ResumeClientRequest(name="alice"))).client

    async def rebind(self, name: str = "alice", node_id: str = "") -> admin_pb2.Client:
        """Say which node a client is."""
        request = admin_pb2.RebindClientRequest(name=name, node_id=node_id)
        return (await self.stub.RebindClient(request)).client

    async def set_timestamps(self, form: str, name: str = "alice") -> admin_pb2.Client:
        """Choose how a client's notifications are dated."""
        request = admin_pb2.SetTimestampsRequest(name=name, timestamps=form)
        return (await self.stub.SetTimestamps(request)).client

    async def show(self, name: str = "alice") -> admin_pb2.ShowClientResponse:
        """Show a client over the socket."""
        return await self.stub.ShowClient(admin_pb2.ShowClientRequest(name=name))


class Refusal:
    """Expects a call to be refused with a status code and a reason slug."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        self._expected = (code, reason)
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        assert isinstance(error, grpc.aio.AioRpcError), "was not refused"
        assert (error.code(), reason_in(error)) == self._expected
        self.text = error.details() or ""
        return True
