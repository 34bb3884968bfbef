"""`sidecar doctor` before real Redis servers, embedded and an operator's own, up and down."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from sidecar.adapters import doctor_redis
from sidecar.adapters.redis_embedded import EmbeddedRedis
from sidecar.config import load
from sidecar.core.diagnosis import Finding, Level
from sidecar.doctor import examine
from tests.adapters.conftest import SAFE, Server, Servers


async def look(datadir: Path, *flags: tuple[str, str], deadline: float = 5.0) -> dict[str, Finding]:
    """The findings about Redis, its disk and its clock, by name."""
    given = {"datadir": str(datadir), "lnd.tlspath": str(datadir / "none")}
    found = await examine(load(given | dict(flags), {}), deadline=deadline)
    return {each.name: each for each in found if each.name.startswith(("redis", "disk", "clock"))}


@pytest.fixture
def own(servers: Servers, old_redis: Path) -> Server:
    """A safe server of the operator's own."""
    return servers.start(old_redis, *SAFE)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """The embedded server of the data directory `data`."""
    running = await EmbeddedRedis.start(tmp_path / "data")
    yield running
    await running.close()


def snapshot_ended(server: Server) -> None:
    """Wait for its BGSAVE."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        while client.info("persistence")["rdb_bgsave_in_progress"]:
            time.sleep(0.005)


def at(server: Server) -> tuple[str, str]:
    """The setting that names a server."""
    return "redis.url", f"unix://{server.socket}"


def saw(finding: Finding, level: Level, seen: str, advice: str = "") -> None:
    """Check one line."""
    assert finding.level is level, finding
    assert seen in finding.seen
    assert advice in finding.advice


async def test_a_safe_server_has_no_warning(own: Server, tmp_path: Path) -> None:
    """Its version, durability, memory, writes, disk and clock."""
    found = await look(tmp_path, at(own))
    assert {each.level for each in found.values()} == {Level.OK}
    assert set(found) == {"redis", "redis.memory", "redis.persistence", "clock.redis", "disk"}
    saw(found["redis"], Level.OK, "AOF always")
    assert "in its `dir`" in found["disk"].seen


async def test_a_server_that_would_lose_invoices_is_refused(own: Server, tmp_path: Path) -> None:
    """In the words of the start, with what to set."""
    own.command("CONFIG", "SET", "appendonly", "no")
    saw(
        (await look(tmp_path, at(own)))["redis"],
        Level.FAILURE,
        "append-only file",
        "CONFIG SET appendonly yes",
    )
    found = await look(tmp_path, at(own), ("redis.durability", "none"))
    saw(found["redis"], Level.OK, "durability none")
    own.command("CONFIG", "SET", "appendonly", "yes")
    own.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    saw((await look(tmp_path, at(own)))["redis"], Level.FAILURE, "evict", "maxmemory-policy noeviction")
    own.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own.command("CONFIG", "SET", "appendfsync", "no")
    saw((await look(tmp_path, at(own)))["redis"], Level.FAILURE, "appendfsync no", "CONFIG SET appendfsync")


async def test_memory_that_runs_out_is_a_failure(own: Server, tmp_path: Path) -> None:
    """Of maxmemory."""
    own.command("CONFIG", "SET", "maxmemory", "900000")
    found = await look(tmp_path, at(own))
    saw(found["redis.memory"], Level.FAILURE, "% of maxmemory", "CONFIG SET maxmemory")


async def test_a_snapshot_that_failed_is_a_failure(own: Server, tmp_path: Path) -> None:
    """Redis refuses changes after it."""
    own.command("CONFIG", "SET", "dir", "/proc")
    own.command("BGSAVE")
    snapshot_ended(own)
    own.command("CONFIG", "SET", "dir", str(own.directory))
    found = await look(tmp_path, at(own))
    saw(found["redis.persistence"], Level.FAILURE, "snapshot", "CONFIG SET save")


async def test_rediss_clock_is_held_against_this_one(own: Server) -> None:
    """By what it says and half of the way there and back."""
    facts, _ = await doctor_redis.examine(f"unix://{own.socket}", None, "strict", lambda: 1_000.0)
    assert facts.ahead > 1_000_000
    facts, _ = await doctor_redis.examine(f"unix://{own.socket}", None, "strict")
    assert abs(facts.ahead) < 1


async def test_a_server_that_is_away_is_a_failure(own: Server, tmp_path: Path) -> None:
    """Named by its place, without the password."""
    own.stop()
    found = await look(tmp_path, ("redis.url", f"unix://:hunter2@{own.socket}"))
    saw(found["redis"], Level.FAILURE, f"at {own.socket} does not answer", "redis.url")
    assert "hunter2" not in str(found)


async def test_it_is_said_why_a_redis_of_several_servers_is_away(tmp_path: Path) -> None:
    """It may be Sentinels that are, or a master, or one of a Cluster's: each is mended elsewhere."""
    found = await look(tmp_path, ("redis.url", "redis+sentinel://u:hunter2@127.0.0.1:1/mine"))
    saw(found["redis"], Level.FAILURE, "does not answer (no Sentinel answers)")
    assert "hunter2" not in str(found)


async def test_a_server_that_hangs_ends_the_look(own: Server, tmp_path: Path) -> None:
    """Within its time."""
    assert own.process is not None
    os.kill(own.process.pid, signal.SIGSTOP)
    found = await look(tmp_path, at(own), deadline=0.3)
    saw(found["redis"], Level.FAILURE, "no answer within 0.3 s")


@pytest.mark.usefixtures("embedded")
async def test_the_embedded_server_is_asked_where_it_runs(tmp_path: Path) -> None:
    """It is as safe as it must be; its disk is that of the data directory."""
    found = await look(tmp_path / "data")
    saw(found["redis"], Level.OK, "embedded, AOF always")
    assert "data directory" in found["disk"].seen
    assert {each.level for each in found.values()} == {Level.OK}


@pytest.mark.parametrize("name", ["data", "x" * 120, 'with "quotes" and \\n'])
async def test_the_embedded_servers_socket_is_found(tmp_path: Path, name: str) -> None:
    """Also one that lies elsewhere, because its path would be too long."""
    datadir = tmp_path / name
    assert doctor_redis.embedded_socket(datadir) is None
    running = await EmbeddedRedis.start(datadir)
    assert doctor_redis.embedded_socket(datadir) == running.socket
    await running.close()
    assert doctor_redis.embedded_socket(datadir) is None


async def test_an_embedded_server_that_is_not_running_is_a_fact(tmp_path: Path) -> None:
    """The sidecar starts it; a killed one leaves its socket behind."""
    saw((await look(tmp_path / "data"))["redis"], Level.INFO, "started by `sidecar serve`")
    running = await EmbeddedRedis.start(tmp_path / "data")
    assert running._supervisor is not None
    running._supervisor.cancel()
    assert running.pid is not None
    assert running._process is not None
    os.kill(running.pid, signal.SIGKILL)
    await running._process.wait()
    saw((await look(tmp_path / "data"))["redis"], Level.INFO, "started by `sidecar serve`")
    await running.close()


async def test_a_machine_without_a_redis_to_embed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the start fails."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    saw((await look(tmp_path / "data"))["redis"], Level.FAILURE, "no redis-server", "install")
