"""The cluster that the chart's tests stand on: it refuses what Kubernetes refuses, and plays the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helm.cluster import Cluster, CommandFailed

pytestmark = [pytest.mark.helm, pytest.mark.asyncio(loop_scope="session")]

LABELS = {"app": "web"}
RESTRICTED: Mapping[str, Any] = {
    "containers": [
        {
            "name": "web",
            "image": "example.invalid/web:1",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
    ]
}
HELM_TEST = """\
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  labels: {{ .Values.testLabels | toJson }}
  annotations: {helm.sh/hook: test}
spec:
  restartPolicy: Never
  containers: [{name: test, image: example.invalid/test}]
"""


def _pod(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": LABELS}, "spec": spec}


def _workload(kind: str, **more: Any) -> dict[str, Any]:
    """Two pods of one name."""
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": RESTRICTED},
    }
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec | more}


async def test_a_restricted_namespace_refuses_a_root_pod_and_admits_a_restricted_one(
    cluster: Cluster,
) -> None:
    """Pod Security's level "restricted" is enforced, as a strict operator's cluster does."""
    namespace = await cluster.namespace("guarded")
    root = _pod("root", {"containers": [{"name": "web", "image": "example.invalid/web:1"}]})
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted:latest"'):
        await cluster.apply(namespace, root)
    await cluster.apply(namespace, _pod("plain", RESTRICTED))
    await cluster.wait("pod/plain", "condition=Ready", namespace)


async def test_a_deployment_and_a_stateful_set_with_claims_become_ready(cluster: Cluster) -> None:
    """Pods run on both nodes; a claim of the default class gets a volume, also one made after it."""
    stateless, stateful = await cluster.namespace("stateless"), await cluster.namespace("stateful")
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await cluster.apply(stateless, _workload("Deployment"))
    await cluster.apply(stateful, _workload("StatefulSet", serviceName="web", volumeClaimTemplates=[claim]))
    await cluster.wait("pod/web-0", "create", stateful)
    await cluster.volumes(2)

    await cluster.rolled_out("deployment/web", stateless)
    await cluster.rolled_out("statefulset/web", stateful)

    claims = await cluster.kubectl("get", "pvc", "-n", stateful, "-o", "jsonpath={.items[*].status.phase}")
    assert claims == "Bound Bound"
    pods = await cluster.kubectl("get", "pods", "-n", stateless, "-o", "jsonpath={.items[*].spec.nodeName}")
    assert sorted(pods.split()) == ["node-1", "node-2"]


async def test_an_eviction_is_held_by_a_disruption_budget(cluster: Cluster) -> None:
    """While the budget allows no disruption the answer is 429; without it the pod goes."""
    namespace = await cluster.namespace("drained")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": LABELS}},
    }
    await cluster.apply(
        namespace, budget, _workload("StatefulSet", serviceName="web", podManagementPolicy="Parallel")
    )
    await cluster.rolled_out("statefulset/web", namespace)
    await cluster.wait("pdb/web", "jsonpath={.status.currentHealthy}=2", namespace)
    before = (await cluster.get("pod", "web-0", namespace))["metadata"]["uid"]

    held = await cluster.evict("web-0", namespace)
    assert (held.status, held.reason) == (429, "TooManyRequests")
    assert "needs 2 healthy pods and has 2 currently" in held.message
    assert (await cluster.get("pod", "web-0", namespace))["metadata"]["uid"] == before

    await cluster.kubectl("delete", "pdb/web", "-n", namespace)
    assert (await cluster.evict("web-0", namespace)).status == 201


async def test_helm_installs_a_chart_and_runs_its_tests(cluster: Cluster, tmp_path: Path) -> None:
    """A test pod succeeds, unless its label says that it fails: then `helm test` fails."""
    chart = tmp_path / "small"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: small, version: 1.0.0}")
    (chart / "values.yaml").write_text("testLabels: {}")
    (chart / "templates" / "test.yaml").write_text(HELM_TEST)

    await cluster.helm("install", "good", str(chart), "--wait")
    assert "Phase:          Succeeded" in await cluster.helm("test", "good", "--timeout=20s")
    await cluster.helm("install", "bad", str(chart), "--set-string", r"testLabels.sidecar\.test/fails=true")
    with pytest.raises(CommandFailed, match="pod bad-test failed"):
        await cluster.helm("test", "bad", "--timeout=20s")


async def test_the_kinds_of_the_prometheus_operator_are_taken(cluster: Cluster) -> None:
    """All that their `spec` says is kept; without one they are refused."""
    namespace = await cluster.namespace("watched")
    group = "monitoring.coreos.com/v1"
    monitor = {"apiVersion": group, "kind": "ServiceMonitor", "metadata": {"name": "web"}}
    spec = {"endpoints": [{"port": "metrics"}]}
    rules = {
        "apiVersion": group,
        "kind": "PrometheusRule",
        "metadata": {"name": "web"},
        "spec": {"groups": []},
    }
    await cluster.apply(namespace, monitor | {"spec": spec}, rules)
    assert (await cluster.get("servicemonitor", "web", namespace))["spec"] == spec
    with pytest.raises(CommandFailed, match='missing required field "spec"'):
        await cluster.apply(namespace, monitor | {"metadata": {"name": "empty"}})
