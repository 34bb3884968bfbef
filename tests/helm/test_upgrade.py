"""The chart over time: what an upgrade starts again and leaves alone, and what an uninstall leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helm.charts import values_of, with_values
from tests.helm.cluster import Cluster
from tests.helm.installed import (
    REDIS,
    SERVER,
    Release,
    copy_of_chart,
    labels,
    release_in_namespace_of_its_own,
)

pytestmark = [pytest.mark.helm, pytest.mark.asyncio(loop_scope="session")]

WITH_SERVER = ["beside-minimal", "sidecar-minimal"]

LIVE: dict[str, Any] = {
    "config.loglevel": "debug",
    "config.client": {"ttl": "90d", "slots": 11, "bytes": 262144},
    "config.limits": {
        "offer_rate": 20,
        "offer_burst": 6,
        "client_rate": 60,
        "client_burst": 61,
        "stores_per_minute": 62,
        "offer_paths_per_minute": 63,
    },
    "config.mailbox": {"letters": 100, "bytes": 8388608},
}
"""Another value of each setting that a running sidecar takes over."""


@pytest.mark.parametrize("name", WITH_SERVER)
async def test_a_live_setting_reaches_a_running_pod(name: str, cluster: Cluster, tmp_path: Path) -> None:
    """No pod is started again: a change of a limit does not stop LND."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of(name))
    pods, settings = await release.uids(SERVER, REDIS), await release.settings()
    workloads = await _generations(release)

    await release.upgrade(with_values(values_of(name), LIVE))

    changed = await release.settings()
    assert not set(settings.splitlines()) & set(changed.splitlines())
    assert await _generations(release) == workloads
    assert await release.uids(SERVER, REDIS) == pods


async def _generations(release: Release) -> dict[str, int]:
    """They grow with each change of a `spec`, and at once."""
    found = await release.objects("deployments,statefulsets")
    return {each["metadata"]["name"]: each["metadata"]["generation"] for each in found}


@pytest.mark.parametrize(
    ("name", "change", "renewed"),
    [
        ("beside-minimal", {"config.logformat": "console"}, SERVER),
        ("beside-minimal", {"redis.config": {"maxmemory": "1gb"}}, REDIS),
        ("sidecar-minimal", {"lnd.config": {"bitcoin.node": "neutrino", "alias": "bob"}}, SERVER),
    ],
)
async def test_any_other_setting_makes_a_new_pod(
    name: str, change: dict[str, Any], renewed: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Of the one whose setting it is; the other one stays."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of(name))
    before = {component: await release.uids(component) for component in (SERVER, REDIS)}
    await release.upgrade(with_values(values_of(name), change))
    after = {component: await release.uids(component) for component in (SERVER, REDIS)}
    assert [component for component in before if before[component] != after[component]] == [renewed]


@pytest.mark.parametrize("name", WITH_SERVER)
async def test_a_new_version_of_the_chart_starts_nothing_again(
    name: str, cluster: Cluster, tmp_path: Path
) -> None:
    """If that is all that is new: the version stands on the objects and not in the pods."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of(name))
    workloads = await _generations(release)
    await release.upgrade(values_of(name), chart=copy_of_chart(tmp_path, version="99.0.0"))
    assert await _generations(release) == workloads
    marks = [each["metadata"]["labels"] for each in await release.objects("deployments,statefulsets")]
    assert {each["helm.sh/chart"] for each in marks} == {"static-invoice-sidecar-99.0.0"}


@pytest.mark.parametrize("name", WITH_SERVER)
async def test_labels_and_annotations_can_change(name: str, cluster: Cluster, tmp_path: Path) -> None:
    """They stand nowhere where Kubernetes keeps the first ones: in no selector, no claim of a StatefulSet."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of(name))
    more = {"example.com/of": "payments"}
    paths = ["commonLabels", "podLabels", "podAnnotations", "service.annotations"]
    paths += ["redis.podLabels", "redis.podAnnotations", "lnd.service.annotations"]
    await release.upgrade(with_values(values_of(name), dict.fromkeys(paths, more)))
    for component in (SERVER, REDIS):
        metadata = (await release.pod(component))["metadata"]
        assert more.items() <= metadata["labels"].items()
        assert more.items() <= metadata["annotations"].items()


async def test_the_old_pod_stays_until_the_new_one_is_ready(cluster: Cluster, tmp_path: Path) -> None:
    """Beside an LND there are two then, of which one stands by: nobody waits for the new one's start."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of("beside-minimal"))
    (old,) = await release.uids(SERVER)
    nowhere = {"nodeSelector": {"example.com/is": "nowhere"}}
    await release.upgrade(with_values(values_of("beside-minimal"), nowhere), wait=False)
    deployment = f"deployment/{release.fullname}"
    await cluster.wait(deployment, "jsonpath={.status.updatedReplicas}=1", release.namespace)
    pods = await _servers(release)
    assert [each["metadata"]["uid"] == old for each in pods].count(True) == 1
    assert len(pods) == 2
    assert not [each for each in pods if "deletionTimestamp" in each["metadata"]]

    await release.upgrade(values_of("beside-minimal"))
    assert await release.uids(SERVER) == [old]


async def test_several_sidecars_are_apart_and_are_evicted_one_after_the_other(
    cluster: Cluster, tmp_path: Path
) -> None:
    """On a node each, where there are so many, and with a budget that nobody has asked for."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(with_values(values_of("beside-minimal"), {"replicas": 2}))
    pods = await _servers(release)
    assert len({each["spec"]["nodeName"] for each in pods}) == len(pods) == 2
    budget = f"pdb/{release.fullname}"
    await cluster.wait(budget, "jsonpath={.status.currentHealthy}=2", release.namespace)
    await cluster.wait(budget, "jsonpath={.status.disruptionsAllowed}=1", release.namespace)
    evicted = await cluster.evict(pods[0]["metadata"]["name"], release.namespace)
    assert evicted.status == 201

    await release.upgrade(values_of("beside-minimal"))
    assert not await release.objects("pdb")


async def test_those_that_are_not_ready_hold_up_no_drain(cluster: Cluster, tmp_path: Path) -> None:
    """While LND is away none of them is: the budget must not keep their nodes until it is back."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(with_values(values_of("beside-minimal"), {"replicas": 2}))
    names = [each["metadata"]["name"] for each in await _servers(release)]
    budget = f"pdb/{release.fullname}"
    await cluster.wait(budget, "jsonpath={.status.currentHealthy}=2", release.namespace)
    for name in names:
        await _unready(release, name)
    await cluster.wait(budget, "jsonpath={.status.currentHealthy}=0", release.namespace)
    for name in names:
        assert (await cluster.evict(name, release.namespace)).status == 201


async def test_another_number_of_sidecars_leaves_those_alone_that_run(
    cluster: Cluster, tmp_path: Path
) -> None:
    """One more is one more pod, and one fewer is one fewer: the pods are as they were."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of("beside-minimal"))
    first = await release.uids(SERVER)
    await release.upgrade(with_values(values_of("beside-minimal"), {"replicas": 2}))
    two = [each["metadata"]["uid"] for each in await _servers(release)]
    assert len(two) == 2
    assert set(first) < set(two)
    await release.upgrade(values_of("beside-minimal"))
    assert set(await release.uids(SERVER)) < set(two)


async def _unready(release: Release, name: str) -> None:
    """Let a pod say that it is not."""
    unready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    patch = ["--subresource=status", "--type=strategic", "-p", json.dumps(unready)]
    await release.cluster.kubectl("patch", "pod", name, "-n", release.namespace, *patch)


async def _servers(release: Release) -> list[Any]:
    """All pods of the server, those that are to go among them."""
    return await release.objects("pods", selector=labels(release.name, SERVER))


async def test_an_upgrade_replaces_a_pod_that_is_not_ready(cluster: Cluster, tmp_path: Path) -> None:
    """LND is locked, say, and the new values have its password: Kubernetes must not wait for the old pod."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of("sidecar-minimal"))
    before = await release.uids(SERVER, REDIS)
    for component in (SERVER, REDIS):
        await _unready(release, (await release.pod(component))["metadata"]["name"])
    change = {"lnd.wallet.passwordSecret": "wallet", "redis.config": {"maxmemory": "1gb"}}
    await release.upgrade(with_values(values_of("sidecar-minimal"), change))
    assert not set(await release.uids(SERVER, REDIS)) & set(before)


async def test_the_shape_of_a_release_can_change(cluster: Cluster, tmp_path: Path) -> None:
    """The pod of the former shape goes; Redis, which has the invoices, stays as it is."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await cluster.volumes(1, "20Gi")  # LND's, later
    await release.install(values_of("beside-minimal"))
    redis = await release.uids(REDIS)
    for name, workloads in (("sidecar-minimal", 2), ("attached", 1), ("beside-minimal", 2)):
        await release.upgrade(values_of(name))
        assert len(await _generations(release)) == workloads
        assert await release.uids(REDIS) == redis


@pytest.mark.parametrize("name", WITH_SERVER)
async def test_what_was_made_once_stays_and_a_rollback_brings_the_former_settings(
    name: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Redis' password, the token, the CA and its certificate are the same, byte for byte."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    await release.install(values_of(name))
    settings, made = await release.settings(), await _made_once(release)
    assert len(made) == 3
    assert all(content for data in made.values() for content in data.values())

    await release.upgrade(with_values(values_of(name), LIVE | {"config.logformat": "console"}))
    assert await _made_once(release) == made

    await release.rollback(1)
    assert await _made_once(release) == made
    assert await release.settings() == settings


async def _made_once(release: Release) -> dict[str, Any]:
    """All Secrets but lnd.conf, which is made of values."""
    found = await release.secrets()
    return {name: found[name] for name in found if not name.endswith("-lnd")}


async def test_an_uninstall_leaves_the_claims_alone_and_a_new_installation_takes_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    """No Secret stays, and of the tests their pods; Redis takes its new password from the new Secret."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    everything = values_of(
        "sidecar-minimal",
        lnd__rpc__enabled=True,
        metrics__serviceMonitor__enabled=True,
        metrics__prometheusRule__enabled=True,
        metrics__dashboard__enabled=True,
        podDisruptionBudget__enabled=True,
        redis__podDisruptionBudget__enabled=True,
    )
    before = await _everything(release)
    await release.install(everything)
    tests = await release.test()
    claims = await _claims(release)

    await release.uninstall()
    left = {f"persistentvolumeclaim/{name}" for name in claims} | {f"pod/{name}" for name in tests}
    assert await _everything(release) - before == left
    assert set(claims) == {f"data-{release.fullname}-0", f"data-{release.fullname}-redis-0"}

    await release.install(everything, volumes=False)
    assert await _claims(release) == claims


async def _everything(release: Release) -> set[str]:
    """All that is in the namespace, of whatever kind; what controllers tell of it is not of it."""
    kinds = await release.cluster.kubectl(
        "api-resources", "--namespaced", "--verbs=list,delete", "-o", "name"
    )
    told = {"events", "events.events.k8s.io", "endpoints"}
    names = await release.cluster.kubectl(
        "get", ",".join(set(kinds.split()) - told), "-n", release.namespace, "-o", "name"
    )
    return set(names.split())


async def _claims(release: Release) -> dict[str, str]:
    """The volume of each."""
    found = await release.objects("persistentvolumeclaims")
    return {each["metadata"]["name"]: each["spec"]["volumeName"] for each in found}


@pytest.mark.parametrize("component", [SERVER, REDIS])
async def test_an_eviction_is_held_if_values_ask_for_it(
    component: str, cluster: Cluster, tmp_path: Path
) -> None:
    """With a PodDisruptionBudget a node is not drained; without one the pod goes."""
    release = await release_in_namespace_of_its_own(cluster, tmp_path)
    prefix, suffix = {SERVER: ("", ""), REDIS: ("redis.", "-redis")}[component]
    budget = f"{release.fullname}{suffix}"
    held = with_values(values_of("sidecar-minimal"), {f"{prefix}podDisruptionBudget.enabled": True})
    await release.install(held)
    await cluster.wait(f"pdb/{budget}", "jsonpath={.status.currentHealthy}=1", release.namespace)
    pod = (await release.pod(component))["metadata"]["name"]
    refused = await cluster.evict(pod, release.namespace)
    assert (refused.status, refused.reason) == (429, "TooManyRequests")
    assert f"The disruption budget {budget} needs 1 healthy pods" in refused.message

    await release.upgrade(values_of("sidecar-minimal"))
    assert (await cluster.evict(pod, release.namespace)).status == 201
