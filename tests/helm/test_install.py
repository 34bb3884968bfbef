"""The chart on a Kubernetes: it is installed, its tests pass, and its selectors meet its own pods alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm import charts
from tests.helm.charts import CHART, Helm, Object, pick, values_of, with_values
from tests.helm.cluster import Cluster
from tests.helm.installed import (
    REDIS,
    SERVER,
    TEST,
    Release,
    parent_chart,
    release_in_namespace_of_its_own,
)

pytestmark = [pytest.mark.helm, pytest.mark.asyncio(loop_scope="session")]

SHAPES = ["beside-minimal", "sidecar-minimal", "attached"]

EVERY_SELECTOR: dict[str, Any] = {
    "lnd.rpc.enabled": True,
    "podDisruptionBudget.enabled": True,
    "redis.podDisruptionBudget.enabled": True,
    "metrics.serviceMonitor.enabled": True,
    "metrics.dashboard.enabled": True,
}
"""For shape `sidecar`: all objects that select others, and those with the longest names."""

PLACES = {"secret": "Secret", "secretKeyRef": "Secret", "configMap": "ConfigMap"}
"""Where a volume or a variable names an object, and of what kind."""

_LABELS = "app.kubernetes.io/"


@pytest.mark.parametrize("name", SHAPES)
async def test_it_is_installed_and_its_tests_pass(name: str, cluster: Cluster, tmp_path: Path) -> None:
    """All pods are ready where just restricted ones are admitted; those of the tests stay, for logs."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of(name), wait=True)
    tests = [f"{release.fullname}-test-client", f"{release.fullname}-test-doctor"]
    assert await release.test() == tests
    found = sorted(
        each["metadata"]["labels"][f"{_LABELS}component"] for each in await release.objects("pods")
    )
    assert found == [*([REDIS] if name == "attached" else [REDIS, SERVER]), "test", "test"]


@pytest.mark.parametrize("name", ["beside-minimal", "sidecar-minimal"])
async def test_no_pod_has_a_token_of_its_account(name: str, cluster: Cluster, tmp_path: Path) -> None:
    """Kubernetes mounts one in each pod that does not say no; nothing here calls Kubernetes."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of(name))
    await _make_test_pods(release)
    pods = await release.objects("pods")
    assert len(pods) == 4
    volumes = [volume for pod in pods for volume in pod["spec"].get("volumes", [])]
    sources = [source for volume in volumes for source in _sources(volume)]
    assert "secret" in {kind for source in sources for kind in source}
    assert "serviceAccountToken" not in {kind for source in sources for kind in source}
    accounts = await release.objects("serviceaccounts", selector=f"{_LABELS}instance={release.name}")
    assert [each["automountServiceAccountToken"] for each in accounts] == [False]


async def _make_test_pods(release: Release) -> None:
    """Those of `helm test`, without waiting for their end."""
    hooks = await release.helm("get", "hooks", release.name)
    await release.cluster.kubectl("create", "-n", release.namespace, "-f", "-", stdin=hooks)


async def test_two_releases_in_one_namespace_do_not_meet(cluster: Cluster, tmp_path: Path) -> None:
    """No Service, policy or budget of the one selects a pod of the other, or one that is not meant."""
    first = await release_in_namespace_of_its_own(cluster, tmp_path)
    second = Release(cluster, first.namespace, tmp_path, "lnd2")
    values = with_values(values_of("sidecar-minimal"), EVERY_SELECTOR)
    for release in (first, second):
        await release.install(values)
        await _make_test_pods(release)
    assert len(await first.objects("pods")) == 8
    for release in (first, second):
        assert await _met(release) == _meant(release.fullname, f"{CHART.name} {release.name}", with_lnd=True)


async def _met(release: Release) -> dict[str, set[str]]:
    """Each selector of a release's Services, NetworkPolicies and budgets, and whose pods it meets."""
    kinds = "services,networkpolicies,poddisruptionbudgets"
    met: dict[str, set[str]] = {}
    for each in await release.objects(kinds, selector=f"{_LABELS}instance={release.name}"):
        for place, selector in _selectors(each):
            met.setdefault(f"{each['metadata']['name']}: {place}", set()).update(await release.met(selector))
    return met


def _selectors(each: Object) -> Iterator[tuple[str, dict[str, str]]]:
    spec, kind = each["spec"], each["kind"]
    if kind == "Service":
        yield kind, spec["selector"]
        return
    yield kind, spec["selector" if kind == "PodDisruptionBudget" else "podSelector"]["matchLabels"]
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for peer in (peer for rule in spec.get(direction, []) for peer in rule.get(side, [])):
            if "podSelector" in peer:
                yield direction, peer["podSelector"]["matchLabels"]


def _meant(fullname: str, whose: str, *, with_lnd: bool) -> dict[str, set[str]]:
    server, redis, test = ({f"{whose} {component}"} for component in (SERVER, REDIS, TEST))
    theirs = {
        ": Service": server,
        ": NetworkPolicy": server,
        ": ingress": test,
        ": egress": redis,
        "-redis: Service": redis,
        "-redis: NetworkPolicy": redis,
        "-redis: ingress": server,
    }
    more = {
        ": PodDisruptionBudget": server,
        "-redis: PodDisruptionBudget": redis,
        "-lnd: Service": server,
        "-lnd-rpc: Service": server,
    }
    return {f"{fullname}{place}": pods for place, pods in (theirs | (more if with_lnd else {})).items()}


async def test_the_pod_of_another_chart_takes_what_the_notes_give(cluster: Cluster, tmp_path: Path) -> None:
    """Shape `attached`: the containers and volumes fit a restricted pod, which our Service then leads to."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    values = values_of("attached")
    await release.install(values)
    notes = await release.helm("get", "notes", release.name)
    given = yaml.safe_load(notes.partition("# --- begin")[2].partition("# --- end")[0])
    attached, defaults = values["attached"], charts.load(charts.VALUES)
    lnd = {
        "name": "lnd",
        "image": "example.invalid/lnd",
        "securityContext": defaults["lnd"]["securityContext"],
        "volumeMounts": [{"name": attached["lndVolume"], "mountPath": attached["lndDirectory"]}],
    }
    volume = {"name": attached["lndVolume"], "emptyDir": {}}
    spec = {
        "securityContext": defaults["podSecurityContext"],
        "containers": [lnd, *given["extraContainers"]],
        "volumes": [volume, *given["extraVolumes"]],
    }
    metadata = {"name": "their-lnd", "labels": attached["podLabels"]}
    await cluster.apply(
        release.namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    )
    await cluster.wait("pod/their-lnd", "condition=Ready", release.namespace)

    met = await _met(release)
    assert met[f"{release.fullname}: Service"] == met[f"{release.fullname}-redis: ingress"] == {"their-lnd"}
    service = await cluster.get("service", release.fullname, release.namespace)
    ports = [port["name"] for each in given["extraContainers"] for port in each.get("ports", [])]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ports == ["http", "admin"]
    assert await _not_there(release, given["extraVolumes"], given["extraContainers"]) == []


@pytest.mark.parametrize("name", ["beside-minimal", "sidecar-minimal"])
async def test_what_pods_take_of_our_secrets_and_settings_is_there(
    name: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Also if values name the keys of Secrets that are not used: a pod would wait for ever for such a key."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    unused = {"redis.auth.key": "unused", "admin.token.key": "unused"}
    await release.install(with_values(values_of(name), unused))
    await _make_test_pods(release)
    for pod in await release.objects("pods"):
        spec = pod["spec"]
        assert await _not_there(release, spec.get("volumes", []), spec["containers"]) == []


async def _not_there(release: Release, volumes: list[Object], containers: list[Object]) -> list[str]:
    """What these name of the chart's own Secrets and ConfigMaps, and is not there."""
    found = await release.objects("secrets,configmaps")
    held = {f"{each['kind']} {each['metadata']['name']}": each["data"] for each in found}
    wanted = [source for volume in volumes for source in [volume, *_sources(volume)]]
    wanted += [
        entry["valueFrom"] for each in containers for entry in each.get("env", []) if "valueFrom" in entry
    ]
    missing = []
    for source in wanted:
        for place, kind in PLACES.items():
            if place in source:
                name = source[place].get("secretName") or source[place]["name"]
                keys = [each["key"] for each in source[place].get("items", [source[place]]) if "key" in each]
                there = held.get(f"{kind} {name}", {})
                missing += [f"{kind} {name}: {key}" for key in keys if key not in there]
                missing += [] if there else [f"{kind} {name}"]
    # LND's are an operator's, and each namespace has Kubernetes' own.
    return [each for each in missing if release.fullname in each]


def _sources(volume: Object) -> list[Object]:
    sources: list[Object] = volume.get("projected", {}).get("sources", [])
    return sources


@pytest.mark.parametrize(
    ("name", "more", "fullname"),
    [
        ("l" * 53, {}, "l" * 40),
        ("lnd1", {"fullnameOverride": "o" * 40}, "o" * 40),
        ("lnd1", {"nameOverride": "n" * 40}, f"lnd1-{'n' * 35}"),
        (f"my-{CHART.name}", {}, f"my-{CHART.name}"),
    ],
    ids=["release", "fullnameOverride", "nameOverride", "with-the-chart's-name"],
)
async def test_long_names_are_cut_so_that_all_objects_fit(
    name: str, more: dict[str, str], fullname: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Kubernetes takes 63 characters, Helm gives a release up to 53, and suffixes are added."""
    unnamed = await release_in_namespace_of_its_own(cluster, tmp_path)
    release = Release(cluster, unnamed.namespace, tmp_path, name)
    await release.install(with_values(values_of("sidecar-minimal"), EVERY_SELECTOR | more))
    assert await release.test() == [f"{fullname}-test-client", f"{fullname}-test-doctor"]
    made = list(yaml.safe_load_all(await release.helm("get", "manifest", name)))
    assert [
        each["metadata"]["name"] for each in made if not each["metadata"]["name"].startswith(fullname)
    ] == []


async def test_as_a_dependency_it_may_stand_twice_under_names_of_its_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Values are below the aliases, which the objects are called after; the two do not meet either."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    parent = parent_chart(tmp_path, ["invoices", "others"])
    monitored = {"metrics.serviceMonitor.enabled": True, "metrics.prometheusRule.enabled": True}
    values = {
        "global": {"anything": "of the chart above"},
        "invoices": with_values(values_of("beside-minimal"), monitored),
        "others": with_values(values_of("sidecar-minimal"), EVERY_SELECTOR),
    }
    await release.install(values, chart=parent)
    assert len(await release.test()) == 4
    assert await _met(release) == _meant("lnd1-invoices", "invoices lnd1", with_lnd=False) | _meant(
        "lnd1-others", "others lnd1", with_lnd=True
    )
    # Whatever it is called, the alert that nobody answers finds the job.
    made = list(yaml.safe_load_all(await release.helm("get", "manifest", release.name)))
    job = pick(made, "ServiceMonitor", "lnd1-invoices")["spec"]["endpoints"][0]["relabelings"][0][
        "replacement"
    ]
    rule = pick(made, "PrometheusRule")["spec"]["groups"][0]["rules"][0]
    assert rule["alert"] == "SidecarDown"
    assert re.fullmatch(re.findall(r'job=~"(.*)"', rule["expr"])[0], job)


async def test_a_large_number_is_the_same_from_a_file_and_from_the_command_line(helm: Helm) -> None:
    """Out of a file it is a float, which a careless template writes as 3.3554432e+07."""
    numbers = {"config.mailbox.bytes": 16777216, "config.mailbox.total_bytes": 1099511627776}
    plain = values_of("beside-minimal")
    from_file = helm.render(with_values(plain, numbers))
    options = [f"--set={path}={number}" for path, number in numbers.items()]
    from_line = helm.render(plain, arguments=options)
    for kind in ("ConfigMap", "Deployment"):
        name = f"{charts.RELEASE}-{CHART.name}"
        assert pick(from_file, kind, name) == pick(from_line, kind, name)
    assert "mailbox.bytes = 16777216\n" in pick(from_file, "ConfigMap", name)["data"]["sidecar.toml"]
    assert '"1099511627776"' in json.dumps(pick(from_file, "Deployment"))
