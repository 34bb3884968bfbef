"""The admin server's socket: whose it is, where it lies, and what may be in its way."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from sidecar.adapters.admin import AdminService
from sidecar.adapters.admin_client import AdminClient, admin_socket_path, socket_target
from sidecar.adapters.admin_server import start_admin
from sidecar.bindings import Bindings
from sidecar.clients import RunningClients
from sidecar.core.errors import AdminDenied, ConfigError, OperatorError
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.admin_world import DEFAULTS, Running, told
from tests.harness.memory_store import MemoryStore
from tests.harness.shell import Issuer, no_dry_run, well

# --- the socket ---------------------------------------------------------------------------------


def service() -> AdminService:
    """A service over nothing."""
    store = MemoryStore()
    clients = RunningClients(Bindings(store, Counter()), DEFAULTS, lambda: None)
    return AdminService(
        *(store, Issuer(), clients, told, DEFAULTS),
        letters=store.mail_list,
        mail_use=clients.mail_use,
        dry_run=no_dry_run,
        look=well,
    )


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


async def test_no_place_for_temporary_files_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may be read-only but for the data directory; just a path that is too long needs more."""

    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    path = admin_socket_path(tmp_path)
    running = Running(path)
    server = await start_admin(running.service, path)
    with await asyncio.to_thread(AdminClient, tmp_path) as client:
        assert not (await asyncio.to_thread(client.clients)).clients
    await running.channel.close()
    await server.stop(None)
    with pytest.raises(ConfigError, match="too long a path"):
        admin_socket_path(tmp_path / ("d" * 120))


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
