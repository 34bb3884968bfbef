"""What runs the chart's pods: as strict as a kubelet, and it passes over nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness.ports import free_port
from tests.helm import boxes
from tests.helm.boxed import Boxed
from tests.helm.boxes import Box, Mount, User
from tests.helm.charts import with_values
from tests.helm.dockerfile import Image
from tests.helm.network import Network
from tests.helm.pod_volumes import PodError
from tests.helm.pods import Node

pytestmark = pytest.mark.helm

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "runAsUser": 1000,
    "runAsGroup": 1000,
}
SETTINGS = {
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
    "data": {"a.toml": "a = 1", "b.toml": "b = 2"},
}
SECRET = {"kind": "Secret", "metadata": {"name": "secret"}, "data": {"token": "eA=="}}


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """What all images lie on."""
    if reason := boxes.why_not():
        pytest.skip(reason)
    return boxes.base(tmp_path / "base")


@pytest.fixture
async def network(layer: Path) -> AsyncIterator[Network]:  # noqa: ARG001 - skipped where there can be none
    """Of a test's own."""
    async with Network() as network:
        yield network


class World:
    """One pod of one container, whose program is what the test wants."""

    def __init__(self, folder: Path, network: Network, layer: Path) -> None:
        self.folder, self.network = folder, network
        self.images = {
            "image": Image((layer,), entrypoint=("echo",), command=("hello",), env={"GREETING": "hi"})
        }

    def node(self, container: Mapping[str, Any] | None = None, **spec: Any) -> Node:
        """`container` and `spec`: more of them."""
        base = {"name": "main", "image": "image:1", "securityContext": RESTRICTED}
        pod = {
            "containers": [{**base, **(container or {})}],
            "securityContext": {"runAsNonRoot": True, "fsGroup": 2000},
            **spec,
        }
        objects = [
            {"kind": "Pod", "metadata": {"name": "pod", "labels": {"app": "a"}}, "spec": pod},
            SETTINGS,
            SECRET,
        ]
        return Node(self.folder, self.network, self.images, objects)

    async def said(self, container: Mapping[str, Any], **spec: Any) -> str:
        """What a container printed that ends with 0."""
        pod = self.node(container, **spec).pod("Pod", "pod")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(pod.stop)
            await pod.begin()
            program = pod.containers["main"].boxed
            assert await pod.finish() == {"main": 0}, program.said
            return program.said


@pytest.fixture
def world(tmp_path: Path, network: Network, layer: Path) -> World:
    """Where it runs."""
    return World(tmp_path, network, layer)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"workingDir": "/x"}, "workingDir is not known"),
        ({"image": "other:1"}, "no image other:1"),
        ({"lifecycle": {"postStart": {}}}, "a hook that is not known"),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]},
            "from fieldRef is not known",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "x"}}}]},
            "no x in Secret secret",
        ),
        ({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}]}, "subPath is not known"),
        ({"volumeMounts": [{"name": "w", "mountPath": "/w"}]}, "no volume w"),
        ({"securityContext": {**RESTRICTED, "runAsUser": 0}}, "a restricted pod may not"),
        ({"securityContext": {**RESTRICTED, "capabilities": {}}}, "a restricted pod may not"),
        ({"securityContext": {**RESTRICTED, "allowPrivilegeEscalation": True}}, "a restricted pod may not"),
    ],
)
async def test_a_container_that_no_kubelet_would_run_as_it_is_here_is_refused(
    world: World, container: Mapping[str, Any], said: str
) -> None:
    """What is passed over would seem to work."""
    pod = world.node(container, volumes=[{"name": "v", "emptyDir": {}}]).pod("Pod", "pod")
    with pytest.raises(PodError, match=said):
        await pod.start()


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        ({"configMap": {"name": "none"}}, "no ConfigMap none"),
        ({"secret": {"secretName": "secret", "items": [{"key": "x", "path": "x"}]}}, "no x in Secret"),
        ({"secret": {"secretName": "secret", "optional": True}}, "optional"),
        ({"hostPath": {"path": "/"}}, "hostPath is not known"),
        ({"projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]}}, "serviceAccountToken"),
    ],
)
async def test_a_volume_that_can_not_be_made_is_refused(
    world: World, volume: Mapping[str, Any], said: str
) -> None:
    """A kubelet would wait for it for ever."""
    pod = world.node(volumes=[{"name": "v", **volume}]).pod("Pod", "pod")
    with pytest.raises(PodError, match=said):
        await pod.start()


async def test_a_service_whose_port_no_container_has_is_refused(world: World) -> None:
    """Its name would lead nowhere."""
    node = world.node({"ports": [{"name": "http", "containerPort": 80}]})
    service = {
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
    node.apply([*node.objects, service])
    assert "127.0.0.1 s s.n s.n.svc s.n.svc.cluster.local\n" in node.hosts()
    node.apply([*node.objects, with_values(service, {"spec.selector": {"app": "b"}})])
    assert "s.n" not in node.hosts()
    wrong = [{"name": "http", "port": 81, "targetPort": "http"}]
    node.apply([*node.objects, with_values(service, {"spec.ports": wrong})])
    with pytest.raises(PodError, match="no container has port"):
        node.hosts()


# --- what a program sees ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({}, "hello"),
        ({"args": ["a"]}, "a"),
        ({"command": ["printenv"], "args": ["GREETING"]}, "hi"),
        ({"args": ["$(GREETING) $(NONE) $$(GREETING)"]}, "hi $(NONE) $(GREETING)"),
        (
            {
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "args": ["$(A)"],
            },
            "pod",
        ),
        (
            {
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "token"}}},
                    {"name": "B", "value": "<$(A)>"},
                ],
                "args": ["$(B)"],
            },
            "<x>",
        ),
    ],
)
async def test_commands_and_variables_are_put_together_as_in_kubernetes(
    world: World, container: Mapping[str, Any], said: str
) -> None:
    """`command` takes the place of the entry point, `args` that of its words."""
    assert await world.said(container) == f"{said}\n"


async def test_a_program_has_no_rights_beyond_its_user(world: World) -> None:
    """Neither capabilities nor a way to get them; fsGroup is one of its groups."""
    script = "grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|NoNewPrivs)' /proc/self/status; touch /x || echo no"
    said = await world.said({"command": ["/bin/sh", "-c", script]})
    lines = {" ".join(line.split()) for line in said.splitlines()}
    none = "0" * 16
    assert lines >= {
        "Uid: 1000 1000 1000 1000",
        "Gid: 1000 1000 1000 1000",
        "Groups: 2000",
        f"CapEff: {none}",
        f"CapBnd: {none}",
        "NoNewPrivs: 1",
        "no",
    }


async def test_volumes_are_laid_out_as_the_kubelet_does(world: World) -> None:
    """Links for what is replaced in a pod that runs; read-only, and readable by the group alone."""
    volumes = [
        {"name": "settings", "configMap": {"name": "settings", "defaultMode": 0o440}},
        {"name": "secret", "projected": {"sources": [{"secret": {"name": "secret"}}], "defaultMode": 0o440}},
        {"name": "data", "emptyDir": {}},
    ]
    mounts = [{"name": each["name"], "mountPath": f"/v/{each['name']}"} for each in volumes]
    script = """
        readlink /v/settings/a.toml
        cat /v/settings/a.toml /v/settings/b.toml /v/secret/token; echo
        stat -L -c '%a %u %g' /v/secret/token /v/data
        touch /v/data/mine && stat -c '%u %g' /v/data/mine
        touch /v/settings/x || touch /v/secret/x || echo no"""
    container = {"command": ["/bin/sh", "-c", script], "volumeMounts": mounts}
    said = (await world.said(container, volumes=volumes)).splitlines()
    assert said[:5] == ["..data/a.toml", "a = 1b = 2x", "440 0 2000", "2777 0 2000", "1000 2000"]
    assert said[-1] == "no"


# --- what it stands on --------------------------------------------------------------------------


async def test_signals_are_the_programs_own_business(layer: Path, tmp_path: Path) -> None:
    """Process 1 of a container gets no SIGTERM that it has no handler for, and is killed in the end."""
    box = Box((layer,), tmp_path / "changes", user=User(1000, 1000), read_only=True)
    async with Boxed(box, ["sleep", "60"], tmp_path / "log") as deaf:
        # As unshare says it of a process that was killed; SIGTERM would make it -15.
        assert await deaf.end(0.2) == 1
    script = ["/bin/sh", "-c", "trap 'exit 3' TERM; echo up; sleep 60 & wait"]
    async with Boxed(box, script, tmp_path / "log") as polite:
        async with asyncio.timeout(10):
            while "up" not in polite.said:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        assert await polite.end(10) == 3


async def test_a_shell_is_a_command_like_any_other(layer: Path, tmp_path: Path) -> None:
    """Also one that is called as the shell is that makes the box: it has started, and need not end."""
    box = Box((layer,), tmp_path / "changes", user=User(1000, 1000), read_only=True)
    async with asyncio.timeout(10), Boxed(box, ["/bin/sh", "-euc", "sleep 60; :"], tmp_path / "log") as boxed:
        assert boxed.code is None


async def test_nothing_of_a_box_outlives_it(layer: Path, tmp_path: Path) -> None:
    """Neither its process 1, another user's than the tests', nor what that has started."""
    box = Box((layer,), tmp_path / "changes", user=User(1000, 1000), read_only=True)
    async with Boxed(box, ["/bin/sh", "-c", "sleep 4242 & wait"], tmp_path / "log") as boxed:
        children = Path(f"/proc/{boxed.pid}/task/{boxed.pid}/children")
        async with asyncio.timeout(10):
            while not children.read_text():  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
        pids = [boxed.pid, int(children.read_text())]
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_box_shows_nothing_of_this_machines_files(layer: Path, tmp_path: Path) -> None:
    """A program finds what the image has, and not what lies about where the tests run."""
    box = Box((layer,), tmp_path / "changes")
    hidden = [
        entry for entry in Path("/").iterdir() if entry.name in {"home", "opt", "root", "srv", "tmp", "mnt"}
    ]
    assert box.run(["find", *map(str, hidden), "-mindepth", "1"]) == ""
    assert box.run(["cut", "-d:", "-f1", "/etc/passwd"]).split() == ["root", "nobody"]


async def test_a_network_has_nothing_but_what_is_led_into_it(
    network: Network, layer: Path, tmp_path: Path
) -> None:
    """Its ports are not this machine's, and the other way round."""
    greeting = tmp_path / "greeting"
    greeting.write_text("hello")

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"outside")
        writer.write_eof()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        with pytest.raises(ConnectionRefusedError):
            await network.connect(port)
        async with network.offered(7, port):
            reader, writer = await network.connect(7)
            assert await reader.read() == b"outside"
            writer.close()
            async with network.forwarded(7) as forwarded:
                reader, writer = await asyncio.open_connection("127.0.0.1", forwarded)
                assert await reader.read() == b"outside"
                writer.close()
    box = Box(
        (layer,), tmp_path / "changes", mounts=(Mount(greeting, "/etc/greeting"),), network=network.path
    )
    assert box.run(["cat", "/etc/greeting"]) == "hello"
    assert "eth" not in box.run(["cat", "/proc/net/dev"])
