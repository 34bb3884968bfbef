"""Runs the pods of a rendered chart as processes: what the manifests say, as the kubelet would do it.

Volumes, variables, command lines, users, probes, hooks and signals are those of the manifests; what is not
known here is refused, so that nothing of them is skipped in silence. A container that ends is not started
again. Seccomp profiles, limits of memory and NetworkPolicies are not imitated.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.harness.running import Running
from tests.helm import charts
from tests.helm.boxed import Boxed, Ended
from tests.helm.boxes import Box, Mount, User
from tests.helm.charts import Object
from tests.helm.dockerfile import Image
from tests.helm.network import Network
from tests.helm.pod_volumes import Objects, PodError, Volume

_READY_SECONDS = 60.0
_LONGEST_GRACE = 60.0  # LND has an hour: a test that waits so long has failed
_LOOK_AGAIN = 0.1
_CLUSTER = "svc.cluster.local"

_OF_POD = frozenset(
    {
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "enableServiceLinks",
        "imagePullSecrets",
        "nodeSelector",
        "priorityClassName",
        "restartPolicy",
        "securityContext",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
    }
)
_OF_CONTAINER = frozenset(
    {
        "args",
        "command",
        "env",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resources",
        "securityContext",
        "startupProbe",
        "volumeMounts",
    }
)


class Node:
    """Where the pods of one namespace run, with what they find there."""

    def __init__(
        self,
        folder: Path,
        network: Network,
        images: Mapping[str, Image],
        objects: Sequence[Object],
        *,
        hosts: Sequence[str] = (),
    ) -> None:
        """`images`: by their repositories, whatever the tag is. `hosts`: names of what is no pod."""
        self.folder, self.network, self.images = folder, network, images
        self.objects = Objects(objects)
        self._hosts = hosts
        self._pods: list[Pod] = []

    def apply(self, objects: Sequence[Object]) -> None:
        """Replace all objects: ConfigMaps and Secrets change in the pods that run, and nothing else does."""
        self.objects = Objects(objects)
        for pod in self._pods:
            pod.renew()

    def pod(self, kind: str, name: str, suffix: str = "x2x4z") -> Pod:
        """The pod of a Deployment or StatefulSet, or a Pod; not started yet. Raises PodError.

        `suffix` is what the name of a Deployment's pod ends with: that of each is another one.
        """
        found = self.objects.get(kind, name)
        if kind == "Pod":
            pod = Pod(self, name, found["metadata"], found["spec"])
        else:
            template = found["spec"]["template"]
            spec = dict(template["spec"])
            own = f"{name}-0" if kind == "StatefulSet" else f"{name}-5d8c7-{suffix}"
            claims = [
                {"name": made["metadata"]["name"], "claimName": f"{made['metadata']['name']}-{own}"}
                for made in found["spec"].get("volumeClaimTemplates", [])
            ]
            spec["volumes"] = [
                *spec.get("volumes", []),
                *(
                    {"name": claim["name"], "persistentVolumeClaim": {"claimName": claim["claimName"]}}
                    for claim in claims
                ),
            ]
            pod = Pod(self, own, template["metadata"], spec)
        self._pods.append(pod)
        return pod

    def hosts(self) -> str:
        """What /etc/hosts has in place of the cluster's DNS: Services that select a pod. Raises PodError."""
        lines = ["127.0.0.1 localhost", *(f"127.0.0.1 {name}" for name in self._hosts)]
        for service in (each for each in self.objects if each["kind"] == "Service"):
            for _, metadata, spec in charts.pod_specs(list(self.objects)):
                if service["spec"]["selector"].items() <= metadata["labels"].items():
                    _check_ports(service, spec)
                    name, namespace = (service["metadata"][key] for key in ("name", "namespace"))
                    full = f"{name}.{namespace}"
                    lines.append(f"127.0.0.1 {name} {full} {full}.svc {full}.{_CLUSTER}")
        return "\n".join(lines) + "\n"


def _check_ports(service: Object, spec: Object) -> None:
    """On one loopback, a Service's port is the container's own."""
    named = {
        port["name"]: port["containerPort"] for each in spec["containers"] for port in each.get("ports", [])
    }
    for port in service["spec"]["ports"]:
        if named.get(port["targetPort"]) != port["port"]:
            raise PodError(f"{service['metadata']['name']}: no container has port {port}")


class Pod(Running):
    """Made by `Node.pod`; `async with` starts it and waits until it is ready."""

    def __init__(self, node: Node, name: str, metadata: Object, spec: Object) -> None:
        _known(spec, _OF_POD, f"the pod {name}")
        self.node, self.name, self.metadata, self.spec = node, name, metadata, spec
        self.containers: dict[str, Container] = {}
        self.folder = node.folder / "pods" / name
        self.ended: list[str] = []
        """The containers that have ended when it was stopped, in that order."""
        self._starts = 0
        self.volumes: dict[str, Volume] = {}

    @property
    def group(self) -> int | None:
        """fsGroup."""
        group: int | None = self.spec.get("securityContext", {}).get("fsGroup")
        return group

    async def start(self) -> None:
        """Start all containers, and wait until they are ready. Raises PodError."""
        await self.begin()
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await asyncio.gather(*(each.until_ready() for each in self.containers.values()))
        except TimeoutError:
            said = {name: each.boxed.said[-2000:] for name, each in self.containers.items()}
            await self.stop()
            raise PodError(f"{self.name} is not ready in time: {said}") from None
        except BaseException:
            await self.stop()
            raise

    async def begin(self) -> None:
        """Start all containers, and wait for nothing. Raises PodError."""
        self._starts += 1
        folder = self.folder / str(self._starts)
        folder.mkdir(parents=True)
        (folder / "hosts").write_text(self.node.hosts())
        self.volumes = {
            each["name"]: Volume(folder / each["name"], each, self.group, self.node.folder / "claims")
            for each in self.spec.get("volumes", [])
        }
        for volume in self.volumes.values():
            volume.make(self.node.objects)
        self.containers = {
            each["name"]: Container(self, each, folder / f"{each['name']}.container")
            for each in self.spec["containers"]
        }
        for container in self.containers.values():
            await container.boxed.start()

    def renew(self) -> None:
        """Show what the objects have now."""
        for volume in self.volumes.values():
            volume.renew(self.node.objects)

    async def finish(self) -> dict[str, int]:
        """Wait until all containers have ended by themselves, as a test's do; their exit codes."""
        codes = [await each.boxed.wait() for each in self.containers.values()]
        return dict(zip(self.containers, codes, strict=True))

    async def delete(self) -> dict[str, int]:
        """Hooks, SIGTERM, and SIGKILL when the grace is over, as at `kubectl delete`; the exit codes."""
        self.ended = []
        grace = min(self.spec.get("terminationGracePeriodSeconds", 30), _LONGEST_GRACE)
        deadline = time.monotonic() + grace
        codes = await asyncio.gather(*(self._end(each, deadline) for each in self.containers.values()))
        return dict(zip(self.containers, codes, strict=True))

    async def _end(self, container: Container, deadline: float) -> int:
        await asyncio.sleep(container.pause)
        code = await container.boxed.end(max(deadline - time.monotonic(), 0))
        self.ended.append(container.name)
        return code

    async def stop(self) -> None:
        """End all at once."""
        for container in self.containers.values():
            await container.boxed.stop()


class Container:
    """One container of a pod: `boxed` is its program."""

    def __init__(self, pod: Pod, spec: Object, folder: Path) -> None:
        _known(spec, _OF_CONTAINER, f"the container {spec['name']}")
        self.name: str = spec["name"]
        self._pod, self._spec = pod, spec
        self.pause = _pause(spec)
        """Seconds that its preStop hook lets pass before SIGTERM."""
        repository = re.split("[:@]", spec["image"])[0]
        if repository not in pod.node.images:
            raise PodError(f"there is no image {spec['image']} here")
        image = pod.node.images[repository]
        env = self._env(image)
        given = [_expanded(word, env) for word in [*spec.get("command", []), *spec.get("args", [])]]
        own = [*image.entrypoint, *([] if "args" in spec else image.command)]
        folder.mkdir()
        box = Box(
            image.layers,
            folder / "root",
            env=env,
            user=self._user(image),
            workdir=image.workdir,
            mounts=self._mounts(folder.parent / "hosts"),
            read_only=spec["securityContext"]["readOnlyRootFilesystem"],
            network=pod.node.network.path,
        )
        self.boxed = Boxed(box, given if "command" in spec else [*own, *given], folder / "log")

    @property
    def probes(self) -> list[str]:
        """The names of those that it has."""
        return [name for name in self._spec if name.endswith("Probe")]

    def _env(self, image: Image) -> dict[str, str]:
        env = {"HOME": "/", "HOSTNAME": self._pod.name, **image.env}
        for variable in self._spec.get("env") or []:
            if "valueFrom" in variable:
                env[variable["name"]] = self._from(variable["valueFrom"])
            else:
                env[variable["name"]] = _expanded(str(variable.get("value") or ""), env)
        return env

    def _from(self, source: Mapping[str, Any]) -> str:
        ((kind, where),) = source.items()
        if source == {"fieldRef": {"fieldPath": "metadata.name"}}:
            return self._pod.name
        kinds = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
        if kind not in kinds:
            raise PodError(f"{self.name}: a variable from {kind} is not known here")
        return self._pod.node.objects.value(kinds[kind], where["name"], where["key"]).decode()

    def _user(self, image: Image) -> User:
        """Raises PodError for one that a namespace of level `restricted` would not admit."""
        own, shared = self._spec["securityContext"], self._pod.spec["securityContext"]
        both = {**shared, **own}
        uid = both.get("runAsUser", None if image.user is None else image.user.uid)
        gid = both.get("runAsGroup", None if image.user is None else image.user.gid)
        dropped = own["capabilities"] == {"drop": ["ALL"]}
        if not (uid and gid and both["runAsNonRoot"] and dropped and not own["allowPrivilegeEscalation"]):
            raise PodError(f"{self.name}: it may do what a restricted pod may not")
        group = self._pod.group
        return User(uid, gid, () if group is None else (group,))

    def _mounts(self, hosts: Path) -> tuple[Mount, ...]:
        mounts = [Mount(hosts, "/etc/hosts")]
        # What is mounted in another mount comes after it.
        for each in sorted(self._spec.get("volumeMounts", []), key=lambda each: len(each["mountPath"])):
            _known(each, frozenset({"name", "mountPath", "readOnly"}), f"a mount of {self.name}")
            if each["name"] not in self._pod.volumes:
                raise PodError(f"{self.name}: there is no volume {each['name']}")
            volume = self._pod.volumes[each["name"]]
            only = volume.read_only or each.get("readOnly", False)
            mounts.append(Mount(volume.folder, each["mountPath"], read_only=only))
        return tuple(mounts)

    # --- probes ------------------------------------------------------------------------------

    async def until_ready(self) -> None:
        """Wait for the startup probe, then for the readiness probe. Raises PodError when it ends first."""
        for name in ("startupProbe", "readinessProbe"):
            # As the kubelet: what it wants to know it asks again and again.
            while name in self._spec and not await self.passes(name):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_AGAIN)

    async def passes(self, name: str) -> bool:
        """Whether a probe passes now. Raises PodError when the container has ended."""
        if self.boxed.code is not None:
            raise PodError(f"{self.name} ended with {self.boxed.code}:\n{self.boxed.said[-4000:]}")
        probe = self._spec[name]
        seconds = probe.get("timeoutSeconds", 1)
        with contextlib.suppress(TimeoutError, OSError):
            if "exec" in probe:
                return (await self.boxed.exec(*probe["exec"]["command"], seconds=seconds)).code == 0
            if "httpGet" in probe:
                async with asyncio.timeout(seconds):
                    return 200 <= await self._get(probe["httpGet"]) < 400
            raise PodError(f"{self.name}: a probe that is not known here")
        return False

    async def _get(self, what: Mapping[str, Any]) -> int:
        ports = {port["name"]: port["containerPort"] for port in self._spec["ports"]}
        reader, writer = await self._pod.node.network.connect(ports[what["port"]])
        with contextlib.closing(writer):
            writer.write(f"GET {what['path']} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n".encode())
            return int((await reader.readline()).split()[1])

    # --- for tests ---------------------------------------------------------------------------

    async def exec(self, *command: str) -> Ended:
        """`kubectl exec`."""
        return await self.boxed.exec(*command)

    async def ask(self, *command: str) -> str:
        """`kubectl exec` of what must succeed; what it printed. Raises AssertionError."""
        return await self.boxed.ask(*command)


def _pause(spec: Object) -> float:
    """Seconds that the preStop hook lets pass before SIGTERM. Raises PodError for another hook."""
    hooks = spec.get("lifecycle") or {}
    if not hooks:
        return 0
    if list(hooks) != ["preStop"] or list(hooks["preStop"]) != ["sleep"]:
        raise PodError(f"{spec['name']}: a hook that is not known here")
    seconds: float = hooks["preStop"]["sleep"]["seconds"]
    return seconds


def _known(spec: Object, known: frozenset[str], what: str) -> None:
    if unknown := set(spec) - known:
        raise PodError(f"{what}: {', '.join(sorted(unknown))} is not known here")


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """With $(NAME) replaced where there is such a variable; $$ is one $."""
    return re.sub(r"\$\$|\$\(([\w.-]+)\)", lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]), text)
