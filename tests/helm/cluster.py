"""A Kubernetes without machines for the chart's tests: its own control plane, as processes on loopback.

etcd, the API server, the controllers and the scheduler are real. kwok plays two nodes: their pods run, and
become ready, without any container. So the cluster shows what Kubernetes makes of a chart's objects, and
nothing of what runs in their pods.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import aiohttp

from tests.harness.certificates import self_signed
from tests.harness.daemon import Daemon
from tests.harness.ports import free_port
from tests.harness.running import Running
from tests.helm.build import ensure

STORAGE_CLASS = "test"
"""The default one: of volumes that `Cluster.volumes` made by hand."""

_FILES = Path(__file__).resolve().parent / "tools" / "cluster"
_START_SECONDS = 60.0


class CommandFailed(Exception):
    """kubectl or helm did not end with 0; the text is all that it printed (`helm lint` tells on stdout)."""


class Eviction(NamedTuple):
    """What the API server answered to one."""

    status: int
    """HTTP's: 201 if the pod goes, 429 if a PodDisruptionBudget holds it."""
    reason: str
    """Empty, or Kubernetes' word for a refusal: TooManyRequests, NotFound …"""
    message: str


class _Program(Daemon):
    """A part of the control plane."""

    _stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(
        self,
        home: Path,
        binary: Path,
        options: Mapping[str, object],
        ready: Callable[[], Awaitable[bool]] | None,
    ) -> None:
        super().__init__(home / binary.name)
        self._binary = binary
        self._options = options
        self._ready = ready

    async def start(self) -> None:
        """Start it, and wait until it is ready, where it can be asked."""
        await self._launch(self._binary, [f"--{key}={value}" for key, value in self._options.items()])

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while process.returncode is None:
                    if self._ready is None or await self._ready():
                        return
                    await asyncio.sleep(0.05)  # it tells nobody when it is ready
        raise AssertionError(f"{self._binary.name} is not ready ({process.returncode=}):\n{self.log_tail()}")

    @property
    def obituary(self) -> str:
        """If it ended by itself: the end of its log."""
        if self._process is None or self._process.returncode is None:
            return ""
        return f"\n{self._binary.name} ended with {self._process.returncode}:\n{self.log_tail()}"


class Cluster(Running):
    """`async with Cluster(directory) as cluster:`; all that it writes is in that directory.

    It has two nodes in two zones, the storage class "test" (the default), and takes ServiceMonitors and
    PrometheusRules. A pod with the label `sidecar.test/fails: "true"` that is not started again fails,
    any other one succeeds.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._binaries: Mapping[str, Path] = {}
        self._programs: list[_Program] = []
        self._port = free_port()
        self._token = secrets.token_hex(16)
        key, certificate = self_signed()
        self._key, self._certificate = key.decode(), certificate.decode()
        self._numbers = itertools.count(1)

    @property
    def kubeconfig(self) -> Path:
        """Its administrator's, for a program that a test runs itself."""
        return self.directory / "kubeconfig"

    @property
    def url(self) -> str:
        """Of its API server."""
        return f"https://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start all of it, and wait until its nodes are ready. Raises BuildError, AssertionError."""
        self._binaries = ensure()
        self._write_files()
        try:
            await self._start_storage_and_api()
            await self._start_controllers()
            await self._make_objects()
            await self.wait("serviceaccount/default", "create")
            await self.wait("nodes", "condition=Ready", every=True)
        except BaseException:
            await self.stop()
            raise

    def _write_files(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        cluster = {"server": self.url, "certificate-authority": str(self._file("tls.crt"))}
        context = {"cluster": "test", "user": "test"}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(kubeconfig))
        self._file("tls.key").write_text(self._key)
        self._file("tls.crt").write_text(self._certificate)
        self._file("tokens.csv").write_text(f"{self._token},test,test,system:masters\n")

    def _file(self, name: str) -> Path:
        return self.directory / name

    async def _start_storage_and_api(self) -> None:
        storage = f"http://127.0.0.1:{free_port()}"
        peers = f"http://127.0.0.1:{free_port()}"
        await self._run(
            "etcd",
            {
                "data-dir": self._file("etcd.data"),
                "listen-client-urls": storage,
                "advertise-client-urls": storage,
                "listen-peer-urls": peers,
                "initial-advertise-peer-urls": peers,
                "initial-cluster": f"default={peers}",
                # What it keeps is worth nothing after the tests.
                "unsafe-no-fsync": "true",
                "log-level": "warn",
            },
            partial(self._answers, f"{storage}/health"),
        )
        await self._run(
            "kube-apiserver",
            {
                "etcd-servers": storage,
                "bind-address": "127.0.0.1",
                "advertise-address": "127.0.0.1",
                "secure-port": self._port,
                "cert-dir": self.directory,
                "tls-cert-file": self._file("tls.crt"),
                "tls-private-key-file": self._file("tls.key"),
                "authorization-mode": "RBAC",
                "token-auth-file": self._file("tokens.csv"),
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": self._file("tls.crt"),
                "service-account-signing-key-file": self._file("tls.key"),
                "service-cluster-ip-range": "10.96.0.0/16",
                # An endpoint on loopback is refused, and nobody in the cluster asks for it.
                "endpoint-reconciler-type": "none",
            },
            partial(self._answers, f"{self.url}/readyz"),
        )

    async def _start_controllers(self) -> None:
        # Without ports of their own: they can't be asked, and what they do is waited for.
        shared = {"kubeconfig": self.kubeconfig, "leader-elect": "false", "secure-port": 0}
        keys = {
            "service-account-private-key-file": self._file("tls.key"),
            "root-ca-file": self._file("tls.crt"),
            # A claim may be older than the volume that it gets.
            "pvclaimbinder-sync-period": "1s",
        }
        kwok = {
            "kubeconfig": self.kubeconfig,
            "config": _FILES / "stages.yaml",
            "manage-all-nodes": "true",
            "node-lease-duration-seconds": 40,
        }
        await self._run("kube-controller-manager", shared | keys)
        await self._run("kube-scheduler", shared)
        await self._run("kwok", kwok)

    async def _run(
        self, name: str, options: Mapping[str, object], ready: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        program = _Program(self.directory, self._binaries[name], options, ready)
        self._programs.append(program)
        await program.start()

    async def _answers(self, url: str) -> bool:
        try:
            async with self._session() as session, session.get(url) as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=self._certificate)),
        )

    async def _make_objects(self) -> None:
        await self.kubectl("create", "--validate=false", "-f", str(_FILES / "objects.yaml"))
        await self.wait("crd", "condition=Established", every=True)

    async def stop(self) -> None:
        """End all of it at once, those first that talk to the others: what they keep is worth nothing now."""
        while self._programs:
            await self._programs.pop().kill()

    async def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """What kubectl, of the cluster's own version, printed. Raises CommandFailed."""
        return await self._command("kubectl", args, stdin)

    async def helm(self, *args: str) -> str:
        """What helm printed; its home is the cluster's directory. Raises CommandFailed."""
        return await self._command("helm", args, None)

    async def _command(self, name: str, args: tuple[str, ...], stdin: str | None) -> str:
        process = await asyncio.create_subprocess_exec(
            self._binaries[name],
            *args,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Nothing of the user's: no settings, no plugins, no cache.
            env={"HOME": str(self.directory / "home"), "KUBECONFIG": str(self.kubeconfig)},
        )
        try:
            out, err = await process.communicate(None if stdin is None else stdin.encode())
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        if process.returncode:
            dead = "".join(program.obituary for program in self._programs)
            raise CommandFailed(f"{name} {' '.join(args)}: {out.decode()}{err.decode()}{dead}")
        return out.decode()

    async def apply(self, namespace: str, *objects: Mapping[str, Any]) -> None:
        """`kubectl apply` of these. Raises CommandFailed when one is refused."""
        items = {"apiVersion": "v1", "kind": "List", "items": objects}
        await self.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(items))

    async def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """An object as it is now. Raises CommandFailed when there is none."""
        found: dict[str, Any] = json.loads(
            await self.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        )
        return found

    async def wait(
        self,
        what: str,
        condition: str,
        namespace: str = "default",
        *,
        every: bool = False,
        timeout: float = 30,
    ) -> None:
        """`kubectl wait`: `what` is "kind/name", or a kind for every one; `condition` is what --for takes.

        That is "condition=Ready", "jsonpath={.status.phase}=Bound", "create" or "delete". What is waited
        for must exist, but for "create". Raises CommandFailed after `timeout` seconds.
        """
        await self.kubectl(
            "wait", what, f"--for={condition}", "-n", namespace, f"--timeout={timeout}s", *["--all"] * every
        )

    async def rolled_out(self, what: str, namespace: str = "default", *, timeout: float = 30) -> None:
        """Wait until all pods of a "deployment/name" or "statefulset/name" are new and ready.

        Raises CommandFailed after `timeout` seconds.
        """
        await self.kubectl("rollout", "status", what, "-n", namespace, f"--timeout={timeout}s")

    async def namespace(self, name: str) -> str:
        """Make one that admits restricted pods alone, and wait until it can be used; returns its name.

        Of a Deployment or StatefulSet whose pods it would refuse it warns.
        """
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        await self.kubectl("create", "-f", "-", stdin=json.dumps(made))
        # A pod made before its account is refused.
        await self.wait("serviceaccount/default", "create", name)
        return name

    async def volumes(self, number: int, size: str = "10Gi", storage_class: str = STORAGE_CLASS) -> None:
        """Make so many more volumes of that size, ReadWriteOnce. A claim keeps its volume for good."""
        volumes = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"volume-{next(self._numbers)}"},
                "spec": {
                    "capacity": {"storage": size},
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": storage_class,
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": "/nowhere"},
                },
            }
            for _ in range(number)
        ]
        made = {"apiVersion": "v1", "kind": "List", "items": volumes}
        await self.kubectl("create", "-f", "-", stdin=json.dumps(made))

    async def evict(self, pod: str, namespace: str = "default") -> Eviction:
        """Ask for the eviction of a pod, as `kubectl drain` does.

        A PodDisruptionBudget that its controller has not counted yet refuses all: wait for
        "jsonpath={.status.currentHealthy}=…" of it first.
        """
        asked = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        url = f"{self.url}/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        async with self._session() as session, session.post(url, json=asked) as answer:
            said = await answer.json()
        causes = [cause["message"] for cause in said.get("details", {}).get("causes", [])]
        return Eviction(answer.status, said.get("reason", ""), " ".join([said.get("message", ""), *causes]))
