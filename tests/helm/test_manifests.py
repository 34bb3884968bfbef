"""What the chart renders is what Kubernetes takes, holds together, and asks for no more than it needs."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.helm import charts
from tests.helm.charts import Helm, Object, container, pick, pod_specs, sources, values_of

pytestmark = pytest.mark.helm

Record = Callable[[str, int], None]

VERSIONS = ("1.30.0", "1.35.0", "1.36.0", "1.37.0")
"""The oldest Kubernetes that the chart takes, and those that are maintained."""

LONGEST = "r" * 53
"""As long as Helm lets the name of a release be."""

every_set = pytest.mark.parametrize("name", charts.matrix())


@functools.cache
def _schema(filename: str, version: str) -> Any:
    return _read_schema(filename, version)


_read_schema = kubernetes_validate.utils.schema_contents


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    """The library reads its megabytes anew for each object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", _schema)
        yield


# --- Kubernetes takes it ----------------------------------------------------------------------------


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_ALERT = _closed(
    ["alert", "expr", "labels", "annotations"],
    alert=_TEXT,
    expr=_TEXT,
    labels=_TEXTS,
    annotations=_TEXTS,
    **{"for": _TEXT},
)
_ENDPOINT = _closed(
    ["port", "interval", "scrapeTimeout"],
    port=_TEXT,
    path={"const": "/metrics"},
    interval=_TEXT,
    scrapeTimeout=_TEXT,
    relabelings={"type": "array", "items": {"type": "object"}},
    metricRelabelings={"type": "array", "items": {"type": "object"}},
)
OPERATORS = {
    "ServiceMonitor": _closed(
        ["endpoints", "selector"],
        endpoints={"type": "array", "items": _ENDPOINT, "minItems": 1},
        selector=_closed(["matchLabels"], matchLabels=_TEXTS),
        jobLabel=_TEXT,
        namespaceSelector={"type": "object"},
    ),
    "PrometheusRule": _closed(
        ["groups"],
        groups={
            "type": "array",
            "minItems": 1,
            "items": _closed(
                ["name", "rules"], name=_TEXT, interval=_TEXT, rules={"type": "array", "items": _ALERT}
            ),
        },
    ),
}
"""What the Prometheus operator takes of the fields that we use: no schema of Kubernetes has these."""


@every_set
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(name: str, version: str, helm: Helm, record: Record) -> None:
    """By the schema of that version, in which no unknown field is taken."""
    objects = helm.render(values_of(name), kube_version=version)
    for each in objects:
        if each["kind"] in OPERATORS:
            assert each["apiVersion"] == "monitoring.coreos.com/v1"
            jsonschema.validate(each["spec"], OPERATORS[each["kind"]])
        else:
            used = kubernetes_validate.validate(each, version, strict=True)
            assert version.startswith(used)
    record("manifests validated", len(objects))


def test_an_object_with_an_unknown_field_is_noticed(helm: Helm) -> None:
    """By the library that the test above trusts."""
    service = pick(helm.render(values_of("beside-minimal"), show_only=["service.yaml"]), "Service")
    service["spec"]["portz"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    """One that knows no `sleep` before a container is stopped."""
    said = helm.refusal(values_of("beside-minimal"), kube_version="1.29.14")
    assert "which is incompatible with Kubernetes v1.29.14" in said


# --- names, labels ----------------------------------------------------------------------------------


@every_set
def test_a_template_makes_one_object(name: str, helm: Helm, record: Record) -> None:
    """And no two are of one kind and name."""
    text = helm.template(values_of(name))
    assert not [source for source, count in Counter(sources(text)).items() if count > 1]
    objects = [each for each in yaml.safe_load_all(text) if each]
    names = Counter((each["kind"], each["metadata"]["name"]) for each in objects)
    assert set(names.values()) == {1}
    assert len(objects) == len(sources(text))
    record("objects rendered", len(objects))


@every_set
def test_every_object_is_of_the_release(name: str, helm: Helm) -> None:
    """By its name, its namespace and its labels, and none of them is another one's."""
    values = values_of(name)
    fullname = values.get("fullnameOverride", "test-static-invoice-sidecar")
    for each in helm.render(values):
        meta = each["metadata"]
        own = values.get("serviceAccount", {}).get("name") if each["kind"] == "ServiceAccount" else None
        assert meta["name"] == own or meta["name"].startswith(fullname)
        assert meta["namespace"] == charts.NAMESPACE
        assert meta["labels"]["app.kubernetes.io/instance"] == charts.RELEASE
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert meta["labels"]["app.kubernetes.io/component"] in ("server", "redis", "test")
        assert values.get("commonLabels", {}).items() <= meta["labels"].items()


@every_set
def test_names_and_labels_are_not_too_long(name: str, helm: Helm) -> None:
    """Whatever the release is called; the pods of a StatefulSet have a label of its name and a hash."""
    for each in helm.render(values_of(name), release=LONGEST):
        most = 52 if each["kind"] in ("StatefulSet", "Deployment") else 63
        assert len(each["metadata"]["name"]) <= most
        assert all(len(value) <= 63 for value in each["metadata"]["labels"].values())


@every_set
def test_what_selects_pods_selects_those_of_one_component(name: str, helm: Helm) -> None:
    """And has ports that they have."""
    values = values_of(name)
    objects = helm.render(values)
    pods = [(meta["labels"], spec) for _, meta, spec in pod_specs(objects)]
    # Those of another chart.
    theirs = values.get("attached", {}).get("podLabels")
    for each in objects:
        spec = each.get("spec", {})
        selector = {"Service": spec.get("selector")}.get(each["kind"])
        if each["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            selector = spec["selector"]["matchLabels"]
        elif each["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        if selector is None or selector == theirs:
            continue
        found = [spec for labels, spec in pods if selector.items() <= labels.items()]
        assert len(found) == 1, (each["kind"], each["metadata"]["name"])
        ports = {port["name"] for one in found[0]["containers"] for port in one.get("ports", [])}
        assert {port["targetPort"] for port in spec.get("ports", [])} <= ports


def test_labels_of_the_chart_are_those_of_no_other_release(helm: Helm) -> None:
    """Two releases in a namespace do not get each other's pods."""
    first, second = (
        pick(helm.render(values_of("beside-minimal"), release=release), "Deployment")["spec"]
        for release in ("one", "two")
    )
    assert not first["selector"]["matchLabels"].items() <= second["template"]["metadata"]["labels"].items()


# --- pods -------------------------------------------------------------------------------------------


@every_set
def test_every_pod_is_restricted(name: str, helm: Helm) -> None:
    """No root, no capability, no way to more of them, a read-only root, no token of the cluster."""
    for _, _, spec in pod_specs(helm.render(values_of(name))):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for each in [*spec["containers"], *spec.get("initContainers", [])]:
            context = each["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["runAsUser"] > 0
            assert not each["image"].endswith(":latest")
            assert ":" in each["image"].rpartition("/")[2]
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


@every_set
def test_every_mount_has_its_volume_and_every_volume_is_mounted(name: str, helm: Helm) -> None:
    """Claims of a StatefulSet are volumes too."""
    for each, _, spec in pod_specs(helm.render(values_of(name))):
        claims = {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        volumes = [volume["name"] for volume in spec["volumes"]]
        mounts = {mount["name"] for one in spec["containers"] for mount in one.get("volumeMounts", [])}
        assert len(volumes) == len(set(volumes))
        assert mounts == set(volumes) | claims
        for one in spec["containers"]:
            paths = Counter(mount["mountPath"] for mount in one.get("volumeMounts", []))
            assert set(paths.values()) <= {1}
            # A file by itself is never another one in a running pod.
            assert not [mount for mount in one.get("volumeMounts", []) if "subPath" in mount]


def _references(spec: Object) -> Iterator[tuple[str, str, list[str]]]:
    """(kind, name, keys) of all that a pod takes from elsewhere."""
    yield "ServiceAccount", spec.get("serviceAccountName", "default"), []
    sources_ = [
        source
        for volume in spec["volumes"]
        for source in [volume, *volume.get("projected", {}).get("sources", [])]
    ]
    for source in sources_:
        for field, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
            if found := source.get(field):
                name = found.get("secretName") or found["name"]
                yield kind, name, [item["key"] for item in found.get("items", [])]
        if claim := source.get("persistentVolumeClaim"):
            yield "PersistentVolumeClaim", claim["claimName"], []
    for variable in (each for one in spec["containers"] for each in one.get("env") or []):
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if found := variable.get("valueFrom", {}).get(field):
                yield kind, found["name"], [found["key"]]


@every_set
def test_what_a_pod_takes_is_made_or_named_in_the_values(name: str, helm: Helm) -> None:
    """Secrets, ConfigMaps, claims, service accounts, and the keys in them."""
    values = values_of(name)
    objects = helm.render(values)
    made = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    given = json.dumps(values)
    for _, _, spec in pod_specs(objects):
        for kind, wanted, keys in _references(spec):
            if each := made.get((kind, wanted)):
                assert set(keys) <= {*each.get("data", {}), *each.get("stringData", {})}, wanted
            else:
                assert f'"{wanted}"' in given or (kind, wanted) == ("ServiceAccount", "default"), wanted


@every_set
def test_probes_and_hooks_name_ports_that_are_there(name: str, helm: Helm) -> None:
    """Those of their container."""
    for _, _, spec in pod_specs(helm.render(values_of(name))):
        for one in spec["containers"]:
            ports = {port["name"] for port in one.get("ports", [])}
            probes = [one[key] for key in ("startupProbe", "livenessProbe", "readinessProbe") if key in one]
            assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= ports
            numbers = [port["containerPort"] for port in one.get("ports", [])]
            assert len(numbers) == len(set(numbers))


def test_lnd_is_told_to_stop_when_the_sidecar_has_finished(helm: Helm) -> None:
    """And both have the time for it."""
    spec = pick(helm.render(values_of("sidecar-minimal")), "StatefulSet", "test-static-invoice-sidecar")[
        "spec"
    ]
    pod = spec["template"]["spec"]
    pause = container(pod, "lnd")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 10 <= pause < pod["terminationGracePeriodSeconds"]


# --- rendering --------------------------------------------------------------------------------------


@every_set
def test_numbers_are_written_in_full(name: str, helm: Helm) -> None:
    """A large one out of a file is a float for the templates: 4.194304e+06."""
    parts = helm.template(values_of(name)).split("# Source: ")
    ours = "".join(part for part in parts if "/templates/dashboard" not in part)
    assert not [line for line in ours.splitlines() if "e+0" in line]


@every_set
def test_a_second_rendering_is_the_same(name: str, helm: Helm) -> None:
    """But for the Secrets that are made once: an upgrade that changes nothing makes no new pod."""
    first, second = (
        [each for each in helm.render(values_of(name)) if each["kind"] != "Secret"] for _ in range(2)
    )
    assert first == second
