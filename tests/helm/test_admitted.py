"""What a real API server says to the manifests of each set of values: no field that it does not know.

A namespace here admits restricted pods alone, and warns of a workload whose pods it would refuse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.helm import charts
from tests.helm.charts import Helm, pick, values_of
from tests.helm.cluster import Cluster, CommandFailed

pytestmark = [pytest.mark.helm, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace(cluster: Cluster) -> str:
    """Nothing is kept in it."""
    return await cluster.namespace("admitted")


async def _admitted(cluster: Cluster, namespace: str, manifests: str) -> int:
    """How many the API server would take and has nothing to say of. Raises CommandFailed."""
    names = await cluster.kubectl(
        *("apply", "-n", namespace, "-f", "-", "-o", "name"),
        *("--dry-run=server", "--validate=strict", "--warnings-as-errors"),
        stdin=manifests,
    )
    return len(names.splitlines())


def _given_twice(node: Any) -> Iterator[str]:
    """The keys that a mapping of this YAML has more than once."""
    if isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value)
        yield from (f"{key}{node.start_mark}" for key, number in keys.items() if number > 1)
    if isinstance(node, yaml.CollectionNode):
        parts = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else [entry])]
        yield from (key for part in parts for key in _given_twice(part))


@pytest.mark.parametrize("name", charts.matrix())
async def test_the_api_server_takes_every_object_and_warns_of_none(
    name: str, cluster: Cluster, namespace: str, helm: Helm, record: Callable[[str, int], None]
) -> None:
    """Each set of values: all fields are known, none is given twice, and all pods are restricted ones."""
    manifests = helm.template(values_of(name), namespace=namespace)
    admitted = await _admitted(cluster, namespace, manifests)
    assert admitted == len(charts.sources(manifests)) > 0
    # kubectl itself keeps the last one, and does not tell.
    assert not [key for node in yaml.compose_all(manifests) for key in _given_twice(node)]
    record("objects admitted by the API server", admitted)


async def test_an_unknown_field_is_refused(cluster: Cluster, namespace: str, helm: Helm) -> None:
    """So a misspelt one can't stand in a template: elsewhere it would be dropped in silence."""
    manifests = helm.template(values_of("beside-minimal"), namespace=namespace)
    misspelt = manifests.replace("enableServiceLinks:", "enableServiceLink:")
    with pytest.raises(CommandFailed, match=r'unknown field "spec\.template\.spec\.enableServiceLink"'):
        await _admitted(cluster, namespace, misspelt)


@pytest.mark.parametrize(("name", "kind"), [("beside-minimal", "Deployment"), ("attached", "StatefulSet")])
async def test_pods_that_are_not_restricted_are_warned_of(
    name: str, kind: str, cluster: Cluster, namespace: str, helm: Helm
) -> None:
    """The API server takes their Deployment or StatefulSet all the same: a warning is a failure here."""
    workload = pick(helm.render(values_of(name), namespace=namespace), kind)
    for container in workload["spec"]["template"]["spec"]["containers"]:
        del container["securityContext"]["capabilities"]
    with pytest.raises(CommandFailed, match='would violate PodSecurity "restricted:latest"'):
        await _admitted(cluster, namespace, yaml.safe_dump(workload))
