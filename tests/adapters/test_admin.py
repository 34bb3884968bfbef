"""The admin service over a real Unix socket: its answers, its refusals, and the socket itself."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from sidecar.adapters.admin import AdminService, StatusSnapshot
from sidecar.adapters.admin_client import REASON_KEY, admin_socket_path, socket_target
from sidecar.adapters.admin_server import start_admin
from sidecar.bindings import Bindings
from sidecar.core import keys
from sidecar.core.errors import AdminDenied, LndUnavailable, OperatorError, SidecarError
from sidecar.core.mailbox import MailUse
from sidecar.core.model import BoundBy, Quota, TimestampForm
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.memory_store import MemoryStore
from tests.harness.shell import Issuer
from tests.harness.store_contract import an_invoice, until

NODE, OTHER_NODE = keys.public_key(b"\x01" * 32), keys.public_key(b"\x02" * 32)
DEFAULTS = Quota(slots=10, bytes=131_072, ttl=31_536_000)
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


class Running:
    """A running admin service and what it stands on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = MemoryStore()
        self.issuer = Issuer()
        self.bindings = Bindings(self.store, Counter())
        self.mail: dict[bytes, MailUse] = {}
        self.service = AdminService(
            self.store, self.issuer, self.bindings, lambda: STATUS, DEFAULTS, mail_use=self.mail.get
        )
        self.channel = grpc.aio.insecure_channel(socket_target(path))
        self.stub = admin_pb2_grpc.AdminStub(self.channel)

    async def add(self, name: str = "alice", **quota: int) -> admin_pb2.AddClientResponse:
        """Add a client over the socket."""
        request = admin_pb2.AddClientRequest(name=name, quota=admin_pb2.Quota(**quota))
        return await self.stub.AddClient(request)

    async def add_node(self, name: str, node_id: str) -> admin_pb2.AddClientResponse:
        """Add a client whose node is known."""
        return await self.stub.AddClient(admin_pb2.AddClientRequest(name=name, node_id=node_id))

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


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A service on a socket of its own."""
    running = Running(admin_socket_path(tmp_path))
    server = await start_admin(running.service, running.path)
    yield running
    await running.channel.close()
    await server.stop(None)


class Refusal:
    """Expects a call to be refused with a status code and a reason slug."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        self._expected = (code, reason)
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        assert isinstance(error, grpc.aio.AioRpcError), "was not refused"
        trailer = dict(error.trailing_metadata())
        assert (error.code(), trailer[REASON_KEY]) == self._expected
        self.text = error.details() or ""
        return True


# --- clients ------------------------------------------------------------------------------------


async def test_an_added_client_is_kept_and_gets_paths(running: Running) -> None:
    """The answer holds the whole client, and the paths for its first generation."""
    added = await running.add()
    client = added.client
    kept = await running.store.find_client("alice")
    assert kept.client_id.hex() == client.client_id
    assert (client.name, client.generation) == ("alice", 1)
    assert client.state == admin_pb2.CLIENT_STATE_ACTIVE
    assert client.quota == admin_pb2.Quota(slots=10, bytes=131_072, ttl_seconds=31_536_000)
    assert added.paths == b"\x00\x01" + kept.client_id + b"\x01"
    assert kept.quota == DEFAULTS


async def test_client_ids_are_never_the_same(running: Running) -> None:
    """Not even for the same name, after its first owner is gone."""
    seen = set()
    for _ in range(5):
        seen.add((await running.add()).client.client_id)
        await running.stub.RemoveClient(admin_pb2.RemoveClientRequest(name="alice"))
    assert len(seen) == 5


async def test_a_quota_field_of_0_takes_the_default(running: Running) -> None:
    """And one that is given is kept."""
    added = await running.add(slots=3)
    assert added.client.quota == admin_pb2.Quota(slots=3, bytes=131_072, ttl_seconds=31_536_000)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 64, "ab" * 9, "ab" * 11, "g" * 20, "..", "-h"])
async def test_a_good_name_is_taken(running: Running, name: str) -> None:
    """1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`."""
    assert (await running.add(name)).client.name == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a/b", "a\n", "älice", "a\0", "{a}", "0" * 20, "deadBEEF0123456789ab"]
)
async def test_a_bad_name_is_refused(running: Running, name: str) -> None:
    """As is a name that could be a client's id: nobody could tell whom `remove` means."""
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-name") as refused:
        await running.add(name)
    assert "\n" not in refused.text
    assert list(await running.store.list_clients()) == []


@pytest.mark.parametrize(
    "quota", [{"slots": 1_001}, {"bytes": (1 << 30) + 1}, {"ttl_seconds": 59}, {"ttl_seconds": 1 << 40}]
)
async def test_a_quota_out_of_bounds_is_refused(running: Running, quota: dict[str, int]) -> None:
    """With the field and its bounds in the text."""
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config") as refused:
        await running.add("alice", **quota)
    assert refused.text.startswith(next(iter(quota)).removesuffix("_seconds"))
    assert list(await running.store.list_clients()) == []


async def test_the_same_name_twice_is_refused(running: Running) -> None:
    """The first client stays as it was."""
    first = await running.add()
    with Refusal(grpc.StatusCode.ALREADY_EXISTS, "name-taken") as refused:
        await running.add()
    assert "there is a client alice already" in refused.text
    assert (await running.show()).client == first.client


async def test_a_client_without_paths_is_not_kept(running: Running) -> None:
    """When LND is away the name stays free for another try."""
    running.issuer.error = LndUnavailable("LND does not answer")
    with Refusal(grpc.StatusCode.UNAVAILABLE, "lnd-unavailable"):
        await running.add()
    running.issuer.error = None
    await running.add()


async def test_clients_are_listed_with_their_use(running: Running) -> None:
    """By name, with slots and bytes used."""
    for name in ("bob", "alice"):
        await running.add(name)
    bob = await running.store.find_client("bob")
    await running.store.save(bob.client_id, an_invoice(1, size=700), until())
    listed = (await running.stub.ListClients(admin_pb2.ListClientsRequest())).clients
    assert [(each.name, each.slots_used, each.bytes_used) for each in listed] == [
        ("alice", 0, 0),
        ("bob", 1, 700),
    ]


async def test_show_tells_when_each_slot_ends(running: Running) -> None:
    """By name or by id: slots in order, use of the quota, and the paths once more."""
    added = await running.add()
    client_id = bytes.fromhex(added.client.client_id)
    invoices = [an_invoice(slot, size=600 + slot) for slot in (0, 4)]
    for invoice in reversed(invoices):
        await running.store.save(client_id, invoice, until())
    shown = await running.show()
    assert shown == await running.show(added.client.client_id)
    assert shown.paths == added.paths
    assert (shown.client.slots_used, shown.client.bytes_used) == (2, 1_204)
    assert list(shown.slots) == [
        admin_pb2.Slot(
            slot=invoice.slot,
            expires_at=invoice.expires_at,
            invoice_created_at=invoice.created_at,
            stored_at=invoice.stored_at,
            bytes=invoice.size,
            family="ldk",
        )
        for invoice in invoices
    ]


async def test_rotating_gives_new_paths(running: Running) -> None:
    """The generation rises, and the paths are those of the new one."""
    await running.add()
    rotated = await running.stub.RotateClient(admin_pb2.RotateClientRequest(name="alice"))
    assert rotated.client.generation == 2
    assert rotated.paths.endswith(b"\x02")
    assert (await running.show()).paths == rotated.paths


async def test_a_revoked_client_has_no_paths_and_gets_none(running: Running) -> None:
    """Its paths are met with silence: handing them out would mislead."""
    await running.add()
    revoked = await running.stub.RevokeClient(admin_pb2.RevokeClientRequest(name="alice"))
    assert revoked.client.state == admin_pb2.CLIENT_STATE_REVOKED
    shown = await running.show()
    assert (shown.client, shown.paths) == (revoked.client, b"")
    with Refusal(grpc.StatusCode.FAILED_PRECONDITION, "client-revoked") as refused:
        await running.stub.RotateClient(admin_pb2.RotateClientRequest(name="alice"))
    assert "sidecar client remove alice" in refused.text
    assert (await running.show()).client.generation == 1


async def test_calls_for_nobody_are_refused(running: Running) -> None:
    """Each call that names a client says that there is none of that name."""
    stub, calls = running.stub, admin_pb2
    each: tuple[tuple[Any, Any], ...] = (
        (stub.ShowClient, calls.ShowClientRequest(name="bob")),
        (stub.RotateClient, calls.RotateClientRequest(name="bob")),
        (stub.RevokeClient, calls.RevokeClientRequest(name="bob")),
        (stub.RemoveClient, calls.RemoveClientRequest(name="bob")),
        (stub.RebindClient, calls.RebindClientRequest(name="bob", node_id=NODE.hex())),
        (stub.RebindClient, calls.RebindClientRequest(name="bob")),
        (stub.SetTimestamps, calls.SetTimestampsRequest(name="bob", timestamps="z")),
    )
    for call, request in each:
        with Refusal(grpc.StatusCode.NOT_FOUND, "no-such-client") as refused:
            await call(request)
        assert "no client 'bob'" in refused.text


async def test_status_is_what_the_server_says(running: Running) -> None:
    """Field by field."""
    status = await running.stub.GetStatus(admin_pb2.GetStatusRequest())
    for name in ("version", "node_id", "lnd_version", "mode", "network", "redis", "durability", "stream_up"):
        assert getattr(status, name) == getattr(STATUS, name)
    assert dict(status.counters) == STATUS.counters


# --- nodes --------------------------------------------------------------------------------------

BAD_NODE_IDS = pytest.mark.parametrize(
    "node_id",
    [
        NODE.hex()[:-2],
        NODE.hex()[:-1],
        NODE.hex() + "00",
        NODE.hex()[:-2] + "0g",
        "04" + NODE.hex()[2:],
        "02" + "ff" * 32,
        "02" + "00" * 32,
        "alice",
        "\x1b[2J",
        "\u0660\u0662",
    ],
)


async def test_a_client_can_be_added_with_its_node(running: Running) -> None:
    """The operator's word: kept, shown, and known at once to those who wake it; capitals are as good."""
    client = (await running.add_node("alice", NODE.hex().upper())).client
    assert (client.node_id, client.bound_by) == (NODE.hex(), "operator")
    kept = await running.store.find_client("alice")
    assert (kept.node_id, kept.bound_by) == (NODE, BoundBy.OPERATOR)
    assert running.bindings.client_of(NODE) == kept.client_id
    assert (await running.show()).client == client


async def test_without_a_node_none_is_known(running: Running) -> None:
    """It is learnt later."""
    client = (await running.add()).client
    assert (client.node_id, client.bound_by) == ("", "")
    assert not running.bindings.items()


@BAD_NODE_IDS
async def test_a_bad_node_id_is_refused(running: Running, node_id: str) -> None:
    """Of a wrong length, no hex, or no point: nothing is added or changed, and the text says what to give."""
    expected = "is no node id: give the 66 hex digits of the wallet's public key"
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-node-id") as refused:
        await running.add_node("alice", node_id)
    assert refused.text.endswith(expected)
    assert refused.text.isprintable()
    assert list(await running.store.list_clients()) == []
    added = (await running.add_node("alice", NODE.hex())).client
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-node-id") as refused:
        await running.rebind("alice", node_id)
    assert refused.text.endswith(expected)
    assert (await running.show()).client == added
    assert running.bindings.client_of(NODE) is not None


async def test_a_node_is_one_client_at_most(running: Running) -> None:
    """The second is refused with the first one's name, is not added, and changes nothing."""
    alice = (await running.add_node("alice", NODE.hex())).client
    with Refusal(grpc.StatusCode.ALREADY_EXISTS, "node-taken") as refused:
        await running.add_node("bob", NODE.hex())
    assert "client alice" in refused.text
    await running.add_node("bob", OTHER_NODE.hex())
    with Refusal(grpc.StatusCode.ALREADY_EXISTS, "node-taken"):
        await running.rebind("bob", NODE.hex())
    assert (await running.show("bob")).client.node_id == OTHER_NODE.hex()
    assert running.bindings.client_of(NODE) == bytes.fromhex(alice.client_id)
    assert running.bindings.client_of(OTHER_NODE) is not None


async def test_rebinding_replaces_the_node(running: Running) -> None:
    """Whoever had said it before; the old node is nobody's from then on."""
    client_id = bytes.fromhex((await running.add()).client.client_id)
    await running.bindings.learn(client_id, NODE)
    learnt = (await running.show()).client
    assert (learnt.node_id, learnt.bound_by) == (NODE.hex(), "learnt")
    rebound = await running.rebind("alice", OTHER_NODE.hex())
    assert (rebound.node_id, rebound.bound_by) == (OTHER_NODE.hex(), "operator")
    assert rebound == (await running.show()).client
    assert dict(running.bindings.items()) == {OTHER_NODE: client_id}
    await running.add_node("bob", NODE.hex())


async def test_rebinding_to_nothing_lets_the_node_be_learnt_anew(running: Running) -> None:
    """For a wallet that moved: the next one that shows itself is it."""
    client_id = bytes.fromhex((await running.add_node("alice", NODE.hex())).client.client_id)
    forgotten = await running.rebind("alice")
    assert (forgotten.node_id, forgotten.bound_by) == ("", "")
    assert not running.bindings.items()
    await running.bindings.learn(client_id, OTHER_NODE)
    assert (await running.show()).client.node_id == OTHER_NODE.hex()


async def test_rebinding_tells_what_the_client_uses(running: Running) -> None:
    """As show does."""
    client_id = bytes.fromhex((await running.add()).client.client_id)
    await running.store.save(client_id, an_invoice(1, size=700), until())
    running.mail[client_id] = MailUse(letters=2, bytes=3_000, newest_ms=1)
    for client in (await running.rebind("alice", NODE.hex()), await running.set_timestamps("z")):
        assert (client.slots_used, client.bytes_used) == (1, 700)
        assert (client.mail_letters, client.mail_bytes) == (2, 3_000)


@pytest.mark.parametrize("node_id", [OTHER_NODE.hex(), ""])
async def test_a_revoked_client_is_not_rebound(running: Running, node_id: str) -> None:
    """Nothing is kept for it: its node is free for another."""
    await running.add_node("alice", NODE.hex())
    await running.stub.RevokeClient(admin_pb2.RevokeClientRequest(name="alice"))
    with Refusal(grpc.StatusCode.FAILED_PRECONDITION, "client-revoked") as refused:
        await running.rebind("alice", node_id)
    assert refused.text == "client alice is revoked: nothing is kept for it"
    assert not running.bindings.items()
    await running.add_node("bob", NODE.hex())


async def test_a_removed_clients_node_is_free(running: Running) -> None:
    """And nobody is woken for it."""
    await running.add_node("alice", NODE.hex())
    await running.stub.RemoveClient(admin_pb2.RemoveClientRequest(name="alice"))
    assert not running.bindings.items()
    await running.add_node("bob", NODE.hex())


# --- timestamps and mail ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "form"),
    [("offset", TimestampForm.OFFSET), ("z", TimestampForm.Z), ("", None), ("default", None)],
)
async def test_each_form_of_timestamps_can_be_chosen(
    running: Running, text: str, form: TimestampForm | None
) -> None:
    """When a client is added and later; none means as the server's setting says."""
    shown = "" if form is None else form.value
    added = await running.stub.AddClient(admin_pb2.AddClientRequest(name="bob", timestamps=text))
    assert added.client.timestamps == shown
    assert (await running.store.find_client("bob")).timestamps is form
    await running.add()
    await running.set_timestamps("z")
    assert (await running.set_timestamps(text)).timestamps == shown
    assert (await running.store.find_client("alice")).timestamps is form
    assert (await running.show()).client.timestamps == shown


@pytest.mark.parametrize("text", ["Z", "utc", "offset ", "\x1b[2J"])
async def test_another_form_of_timestamps_is_refused(running: Running, text: str) -> None:
    """With those that there are; nothing is added or changed."""
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config") as refused:
        await running.stub.AddClient(admin_pb2.AddClientRequest(name="alice", timestamps=text))
    assert refused.text == f"timestamps: {text!r} is not allowed: give offset, z or default"
    assert list(await running.store.list_clients()) == []
    await running.add()
    await running.set_timestamps("z")
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config"):
        await running.set_timestamps(text)
    assert (await running.show()).client.timestamps == "z"


async def test_clients_are_listed_with_node_mail_and_timestamps(running: Running) -> None:
    """What waits is each one's own."""
    await running.add_node("bob", NODE.hex())
    await running.add()
    await running.set_timestamps("z", "bob")
    bob = await running.store.find_client("bob")
    running.mail[bob.client_id] = MailUse(letters=3, bytes=4_000, newest_ms=1)
    listed = (await running.stub.ListClients(admin_pb2.ListClientsRequest())).clients
    assert [
        (each.name, each.node_id, each.bound_by, each.timestamps, each.mail_letters, each.mail_bytes)
        for each in listed
    ] == [("alice", "", "", "", 0, 0), ("bob", NODE.hex(), "operator", "z", 3, 4_000)]
    assert (await running.show("bob")).client == listed[1]


# --- errors -------------------------------------------------------------------------------------


async def test_a_store_that_is_away_is_unavailable(running: Running) -> None:
    """Which passes: the same call works when it is back."""
    running.store.away = True
    with Refusal(grpc.StatusCode.UNAVAILABLE, "store-unavailable"):
        await running.add()
    running.store.away = False
    await running.add()


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (RuntimeError("secret inside"), "internal", "the server failed inside; its log says why"),
        (SidecarError("odd"), "error", "odd"),
    ],
)
async def test_a_fault_is_internal_and_logged(
    running: Running, caplog: pytest.LogCaptureFixture, error: Exception, reason: str, text: str
) -> None:
    """The caller gets a plain text, the log the cause."""
    running.issuer.error = error
    with Refusal(grpc.StatusCode.INTERNAL, reason) as refused:
        await running.add()
    assert refused.text == text
    assert str(error) in caplog.text


# --- the socket ---------------------------------------------------------------------------------


def service() -> AdminService:
    """A service over nothing."""
    store = MemoryStore()
    return AdminService(store, Issuer(), Bindings(store, Counter()), lambda: STATUS, DEFAULTS)


async def test_only_the_servers_user_may_open_the_socket(tmp_path: Path) -> None:
    """The socket is 0600 whatever the umask, and a directory that we make is 0700."""
    datadir = tmp_path / "new" / "data"
    mask = os.umask(0)
    try:
        server = await start_admin(service(), admin_socket_path(datadir))
        assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE((datadir / "admin.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(datadir.stat().st_mode) == 0o700
    await server.stop(None)


async def test_two_servers_on_one_datadir_are_refused(running: Running) -> None:
    """The second says so, and does the first no harm."""
    with pytest.raises(OperatorError, match="another sidecar runs on"):
        await start_admin(service(), running.path)
    await running.add()


async def test_a_server_can_start_where_another_was_stopped(tmp_path: Path) -> None:
    """Stopping gives the data directory free."""
    for _ in range(2):
        server = await start_admin(service(), admin_socket_path(tmp_path))
        await server.stop(None)
        await server.stop(None)  # a second stop is no fault


KILLED = """
import asyncio, os, pathlib, signal, sys
from sidecar.adapters.admin_server import start_admin
from sidecar.rpc.sidecar.v1.admin_pb2_grpc import AdminServicer
async def main():
    await start_admin(AdminServicer(), pathlib.Path(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_killed_servers_socket_is_no_obstacle(tmp_path: Path) -> None:
    """A kill -9 leaves a socket file behind; the next server replaces it."""
    path = admin_socket_path(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)  # noqa: ASYNC221
    assert killed.returncode == -9
    assert path.is_socket()
    server = await start_admin(service(), path)
    async with grpc.aio.insecure_channel(socket_target(path)) as channel:
        await admin_pb2_grpc.AdminStub(channel).GetStatus(admin_pb2.GetStatusRequest())
    await server.stop(None)


async def test_another_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    """Whatever it is, it is not ours; and the lock is given back."""
    path = admin_socket_path(tmp_path)
    path.write_text("precious")
    with pytest.raises(OperatorError, match="is in the way"):
        await start_admin(service(), path)
    assert path.read_text() == "precious"
    path.unlink()
    await (await start_admin(service(), path)).stop(None)


async def test_a_datadir_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    """A file in the data directory's place is the operator's to mend."""
    (tmp_path / "file").write_text("")
    with pytest.raises(AdminDenied, match="no socket can be made"):
        await start_admin(service(), admin_socket_path(tmp_path / "file" / "data"))


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory in the place of the system's temporary one."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)


@pytest.mark.parametrize("name", ["d" * 120, "a,b"])
async def test_a_path_that_is_no_socket_address_gets_a_stand_in(
    tmp_path: Path, temporary: Path, name: str
) -> None:
    """Too long for sockaddr_un, or with gRPC's separator: a private directory, the same each time."""
    datadir = tmp_path / name
    path = admin_socket_path(datadir)
    assert path.parent.parent == temporary
    assert path == admin_socket_path(tmp_path / "x" / ".." / name)
    assert path != admin_socket_path(tmp_path / (name + "2"))
    running = Running(path)
    server = await start_admin(running.service, path)
    await running.add()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await running.channel.close()
    await server.stop(None)


@pytest.mark.parametrize("kind", ["open to all", "a link"])
async def test_a_stand_in_that_is_not_ours_alone_is_refused(
    tmp_path: Path, temporary: Path, kind: str
) -> None:
    """Anyone can make a directory where temporary files are: what stands there is not trusted."""
    path = admin_socket_path(tmp_path / ("d" * 120))
    if kind == "a link":
        (temporary / "real").mkdir(mode=0o700)
        path.parent.symlink_to(temporary / "real")
    else:
        path.parent.mkdir()
        path.parent.chmod(0o755)
    with pytest.raises(AdminDenied, match="not a directory of this user alone"):
        await start_admin(service(), path)


@pytest.mark.parametrize("name", ["a b", "a%41b", "a#b", "a?b", "ä", "a:b"])
async def test_odd_letters_in_a_path_are_only_letters(temporary: Path, name: str) -> None:
    """To gRPC an address is a URL: what means something there is escaped."""
    path = admin_socket_path(temporary / name)
    running = Running(path)
    server = await start_admin(running.service, path)
    assert path.is_socket()
    await running.add()
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(str(path))
    await running.channel.close()
    await server.stop(None)
