"""The chart in the tests' cluster: installed as an operator does it, and what is there then."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.helm import charts
from tests.helm.charts import CHART, Object, Values
from tests.helm.cluster import Cluster

SERVER, REDIS, TEST = "server", "redis", "test"
"""The components, as the label of their pods says."""


def labels(release: str, component: str, name: str = CHART.name) -> str:
    """What kubectl takes for the pods of one component of a release, whatever their template says of them."""
    prefix = "app.kubernetes.io"
    return f"{prefix}/name={name},{prefix}/instance={release},{prefix}/component={component}"


@dataclass(frozen=True, slots=True)
class Release:
    """One of a name in a namespace; files for Helm are written to `folder`."""

    cluster: Cluster
    namespace: str
    folder: Path
    name: str = "lnd1"

    async def install(
        self, values: Values, *, chart: Path = CHART, volumes: bool = True, wait: bool = False
    ) -> None:
        """Install it, with the volumes that it claims, and wait for its pods; `wait`: as Helm waits for them.

        Raises CommandFailed.
        """
        if volumes:
            await self.cluster.volumes(await self._claims(values, chart), "20Gi")
        # Helm's own --wait looks every two seconds.
        await self._command("install", values, chart, *(["--wait", "--timeout=60s"] if wait else []))
        await self._rolled_out()

    async def upgrade(self, values: Values, *, chart: Path = CHART, wait: bool = True) -> None:
        """To these values and no others, and wait for its pods. Raises CommandFailed."""
        await self._command("upgrade", values, chart)
        if wait:
            await self._rolled_out()

    async def rollback(self, revision: int) -> None:
        """To a former revision, and wait for its pods. Raises CommandFailed."""
        await self.helm("rollback", self.name, str(revision))
        await self._rolled_out()

    async def _rolled_out(self) -> None:
        found = await self.objects("deployments,statefulsets")
        names = [f"{each['kind']}/{each['metadata']['name']}" for each in found]
        await asyncio.gather(*(self.cluster.rolled_out(name, self.namespace) for name in names))

    async def test(self) -> list[str]:
        """`helm test`; returns the tests that passed. Raises CommandFailed."""
        said = await self.helm("test", self.name, "--timeout=60s")
        suites = [entry for entry in said.split("TEST SUITE:")[1:] if "Succeeded" in entry]
        return sorted(entry.split()[0] for entry in suites)

    async def uninstall(self) -> None:
        """Remove it, and wait until that is done. Raises CommandFailed."""
        await self.helm("uninstall", self.name, "--wait", "--cascade=foreground", "--timeout=60s")

    async def helm(self, *arguments: str) -> str:
        """What helm printed, asked about this namespace. Raises CommandFailed."""
        return await self.cluster.helm(*arguments, "-n", self.namespace)

    async def _command(self, command: str, values: Values, chart: Path, *more: str) -> None:
        await self.helm(command, self.name, str(chart), "-f", str(self._file(values)), *more)

    async def _claims(self, values: Values, chart: Path) -> int:
        rendered = await self.helm("template", self.name, str(chart), "-f", str(self._file(values)))
        made = [
            each["spec"] for each in yaml.safe_load_all(rendered) if each and each["kind"] == "StatefulSet"
        ]
        return sum(len(spec.get("volumeClaimTemplates", [])) for spec in made)

    def _file(self, values: Values) -> Path:
        file = self.folder / f"{self.name}-values.json"
        file.write_text(json.dumps(values))
        return file

    async def objects(self, kinds: str, *, selector: str = "") -> list[Object]:
        """All of the namespace: "pods", or "services,secrets"."""
        said = await self.cluster.kubectl("get", kinds, "-n", self.namespace, "-l", selector, "-o", "json")
        found: list[Object] = json.loads(said)["items"]
        return found

    async def pod(self, component: str) -> Object:
        """The one of a component that stays. Raises AssertionError."""
        found = await self.objects("pods", selector=labels(self.name, component))
        staying = [each for each in found if "deletionTimestamp" not in each["metadata"]]
        assert len(staying) == 1, [each["metadata"]["name"] for each in found]
        return staying[0]

    async def uids(self, *components: str) -> list[str]:
        """Which pods they are: a new one has another."""
        return [(await self.pod(component))["metadata"]["uid"] for component in components]

    async def secrets(self) -> Mapping[str, Mapping[str, str]]:
        """What is in those of the chart."""
        found = await self.objects("secrets", selector=f"app.kubernetes.io/instance={self.name}")
        return {each["metadata"]["name"]: each["data"] for each in found}

    async def settings(self) -> str:
        """The file of those that a running sidecar takes over."""
        text: str = (await self.cluster.get("configmap", self.fullname, self.namespace))["data"][
            "sidecar.toml"
        ]
        return text

    @property
    def fullname(self) -> str:
        """What its objects' names begin with, where no value says otherwise."""
        return f"{self.name}-{CHART.name}"

    async def met(self, selector: Mapping[str, str]) -> set[str]:
        """Whose pods a selector of a Service or a NetworkPolicy meets: their "chart release component".

        Or a pod's name, if it is of no chart.
        """
        assert selector, "this would be all pods"
        found = await self.objects("pods", selector=",".join(f"{key}={selector[key]}" for key in selector))
        return {_whose(each["metadata"]) for each in found}


def _whose(metadata: Mapping[str, Any]) -> str:
    marks = metadata["labels"]
    parts = [marks.get(f"app.kubernetes.io/{part}") for part in ("name", "instance", "component")]
    return " ".join(parts) if all(parts) else metadata["name"]


async def release_in_namespace_of_its_own(cluster: Cluster, folder: Path) -> Release:
    """One that is still to be installed; the namespace has the name of the test whose `tmp_path` this is."""
    return Release(cluster, await cluster.namespace(folder.name.lower().replace("_", "-")), folder)


def copy_of_chart(folder: Path, **metadata: Any) -> Path:
    """With other lines in its Chart.yaml, such as `version`."""
    copy = folder / CHART.name
    shutil.copytree(CHART, copy)
    (copy / "Chart.yaml").write_text(yaml.safe_dump(charts.load(copy / "Chart.yaml") | metadata))
    return copy


def parent_chart(folder: Path, aliases: Sequence[str]) -> Path:
    """A chart that has this one as a dependency, once under each of these names."""
    parent = folder / "parent"
    (parent / "charts").mkdir(parents=True)
    shutil.copytree(CHART, parent / "charts" / CHART.name)
    version = charts.load(CHART / "Chart.yaml")["version"]
    needed = [{"name": CHART.name, "version": version, "alias": alias} for alias in aliases]
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": needed}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(chart))
    return parent
