"""Every value of the chart does something, and every setting of the program can be given by one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from sidecar.config import Loaded, Loader, shown
from sidecar.options import OPTIONS, find
from tests.helm import charts
from tests.helm.charts import Helm, HelmError, Object, container, pick, pod_specs, values_of, with_values
from tests.helm.values_schema import comments

pytestmark = pytest.mark.helm

VALUES = charts.load(charts.VALUES)
LEAVES = dict(charts.leaves(VALUES, comments(charts.VALUES.read_text(encoding="utf-8"))))
PARSED: dict[str, Any] = json.loads(charts.SCHEMA.read_text(encoding="utf-8"))
CONFIG = [path for path in LEAVES if path.startswith("config.")]

Record = Callable[[str, int], None]

# --- every value does something ---------------------------------------------------------------------

BASES = (
    "beside-full",
    "sidecar-full",
    "attached",
    "sidecar-minimal",
    "sidecar-lnd-0.20",
    "beside-existing-redis-tls",
    "beside-blinkbitcoin",
)
"""Where a value is tried, in this order, until it changes something."""

FIRST = {"lnd": "sidecar-full", "attached": "attached", "existingRedis": "beside-existing-redis-tls"}
"""Where a group of values is tried before."""

MADE = {"admin.tls.existingSecret": "a", "admin.token.existingSecret": "a", "redis.auth.existingSecret": "a"}
"""Without these the chart makes something that is another one each time; and a certificate takes a while."""

WITH_REPLICAS = {"redis.bundled": False, "existingRedis.url": "redis://redis"}
"""Without these nothing can be waited for."""

NOT_ALONE = {"shape", "redis.bundled"}
"""What changes all: the sets of values are for these."""

BY_DEFINITION: dict[str, Any] = {
    "annotations": {"example.com/other": "yes"},
    "container": {"runAsUser": 4321},
    "digest": f"sha256:{'f' * 64}",
    "key": "other",
    "kubernetesObject": {"fsGroup": 4321},
    "kubernetesObjects": [{"key": "other"}],
    "labels": {"other": "yes"},
    "maybeKey": "other",
    "moreLabels": {"other": "yes"},
    "mounts": [{"name": "other", "mountPath": "/other"}],
    "name": "other",
    "named": [{"name": "other"}],
    "objectName": "other",
    "ownContainer": {"runAsUser": 4321},
    "ownVariables": [{"name": "OTHER", "value": "x"}],
    "peers": [{"podSelector": {"matchLabels": {"app": "other"}}}],
    "port": 4321,
    "ports": [1234, 4321, 6379, 26379],
    "probe": {"periodSeconds": 17},
    "prometheusDuration": "7s",
    "registry": "other.example.com",
    "repository": "other",
    "resources": {"limits": {"memory": "321Mi"}},
    "variables": [{"name": "OTHER", "value": "x"}],
}
BY_PATH: dict[str, Any] = {
    "attached.lndDirectory": "/other",
    "attached.lndVolume": "other",
    "config.client.ttl": "111d",
    "config.lease.time": "9s",
    "config.lsps5.cooldown": "77s",
    "config.lsps5.ports": "4443",
    "config.lsps5.private_networks": "10.99.0.0/16",
    "config.mailbox.ttl": "5d",
    "config.paths.lifetime": "111d",
    "existingLnd.host": "other:4321",
    "existingRedis.url": "redis://other",
    "lnd.config": {"alias": "other"},
    "lnd.extraArgs": ["--alias=other"],
    "lnd.image.tag": "v0.21.1-beta",
    "lnd.service.nodePort": 30_999,
    "listenAddress": "127.0.0.1",
    "networkPolicy.chainBackendPorts": [48332, 28332, 28333, 4321],
    "networkPolicy.extraEgress": [{"to": [{"podSelector": {}}]}],
    "networkPolicy.extraIngress": [{"from": [{"podSelector": {}}]}],
    "networkPolicy.torPorts": [9050, 4321],
    "networkPolicy.privateNetworks": ["10.99.0.0/16"],
    "networkPolicy.privateNetworksV6": ["fd99::/16"],
    "redis.config": {"tcp-keepalive": 77},
    "redis.image.tag": "8.2.2-bookworm",
    "image.tag": "9.9.9",
}
BY_END: dict[str, Any] = {
    "accessModes": ["ReadWriteMany"],
    "loadBalancerClass": "example.com/other",
    "size": "77Gi",
}


def _schema(path: str) -> dict[str, Any]:
    """As it is written: `$ref` names what kind of value it is."""
    place = PARSED
    for name in path.split("."):
        if "$ref" in place:
            place = PARSED["definitions"][place["$ref"].rpartition("/")[2]]
        place = place["properties"][name]
    return place


def _others(path: str) -> list[Any]:
    """Other valid values than the default: all words, or one."""
    schema, default = _schema(path), LEAVES[path]
    kind = schema.get("$ref", "").rpartition("/")[2]
    if kind == "pullPolicy":
        schema = PARSED["definitions"][kind]
    if path in BY_PATH:
        return [BY_PATH[path]]
    if "enum" in schema:
        return [word for word in schema["enum"] if word != default]
    if isinstance(default, bool):
        return [not default]
    if kind in BY_DEFINITION:
        return [BY_DEFINITION[kind]]
    if isinstance(default, int | float):
        return [default + 1]
    return [BY_END[path.rpartition(".")[2]]]


def _settled(text: str) -> str:
    """Manifests without what is another one at each rendering; of certificates the days are kept."""
    objects = [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    for each in objects:
        if each["kind"] == "Secret" and not each["metadata"]["name"].endswith("-lnd"):
            for name, value in _data(each).items():
                _data(each)[name] = _days(value) if name == "tls.crt" else ""
    return json.dumps(objects, indent=1, default=str)


def _data(secret: Object) -> dict[str, Any]:
    data: dict[str, Any] = secret["data"] if "data" in secret else secret["stringData"]
    return data


def _days(value: str) -> int:
    certificate = x509.load_pem_x509_certificate(base64.b64decode(value))
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc) // timedelta(days=1)


def _rendered(helm: Helm, name: str, more: dict[str, Any], *, made: bool) -> str:
    """What one of the sets of values gives with `more`; with what the chart makes of itself, or without."""
    values = with_values(values_of(name), {**({} if made else MADE), **more})
    text = helm.template(values)
    # The notes are what the chart makes of shape attached.
    return (_settled(text) if made else text) + (helm.notes(values) if name == "attached" else "")


def test_every_value_changes_something(helm: Helm, record: Record) -> None:
    """In one of the sets of values at least; each word of those that are one of a few."""
    before = cache(lambda name, made: _rendered(helm, name, {}, made=made))

    def does_something(tried: tuple[str, Any]) -> bool:
        path, value = tried
        made = path.startswith(("admin.t", "redis.auth"))
        for name in sorted(BASES, key=lambda name: name != FIRST.get(path.partition(".")[0])):
            try:
                after = _rendered(helm, name, {path: value}, made=made)
            except HelmError:
                continue  # It doesn't go with this set.
            if after != before(name, made):
                return True
        return False

    tried = [(path, value) for path in LEAVES if path not in NOT_ALONE for value in _others(path)]
    with ThreadPoolExecutor(3) as pool:
        idle = [each for each, works in zip(tried, pool.map(does_something, tried), strict=True) if not works]
    assert not idle
    record("values that were changed", len(tried))


# --- every setting can be given ---------------------------------------------------------------------

NOT_A_SERVERS = {"admin.address", "admin.cafile"}
"""Settings of the command that asks a server; the pods of `helm test` have them."""


def _loaded(objects: list[Object], folder: Path) -> Loaded:
    """What `sidecar serve` would read in its container."""
    spec = next(
        spec
        for _, _, spec in pod_specs(objects)
        if any(each["name"] == "sidecar" and each["args"] == ["serve"] for each in spec["containers"])
    )
    return _read(container(spec, "sidecar"), objects, folder)


def _read(ours: Object, objects: list[Object], folder: Path) -> Loaded:
    # What else there is comes from the pod: its name.
    environ = {each["name"]: each.get("value", "a-pod") for each in ours["env"]}
    settings = next(
        each["data"]["sidecar.toml"] for each in objects if "sidecar.toml" in (each.get("data") or {})
    )
    (folder / "sidecar.toml").write_text(settings)
    (folder / "data").mkdir(exist_ok=True)
    assert environ["SIDECAR_CONFIG"] == "/etc/static-invoice-sidecar/settings/sidecar.toml"
    places = {"SIDECAR_CONFIG": str(folder / "sidecar.toml"), "SIDECAR_DATADIR": str(folder / "data")}
    return Loader({}, environ | places).load()


def test_every_value_of_config_reaches_the_program(helm: Helm, tmp_path: Path) -> None:
    """By `-f`, which makes floats of large numbers, and as the program reads it."""
    given = {path: _others(path)[0] for path in CONFIG}
    given |= {
        "config.mailbox.bytes": 1 << 30,
        "config.limits.offer_rate": 0.25,
        "config.limits.client_rate": 1e6,
    }
    objects = helm.render(with_values(values_of("beside-minimal"), given | WITH_REPLICAS))
    found = shown(_loaded(objects, tmp_path).settings)
    for path, value in given.items():
        name = path.removeprefix("config.")
        option = find(name)
        assert option.parse(found[name]) == option.parse(str(value)), name


def test_a_large_number_of_the_command_line_is_the_same(helm: Helm, tmp_path: Path) -> None:
    """`--set` makes integers."""
    numbers = {"config.mailbox.bytes": 1 << 30, "config.mailbox.total_bytes": 1 << 40, "http.port": 28_066}
    arguments = [word for path, number in numbers.items() for word in ("--set", f"{path}={number}")]
    values = with_values(values_of("beside-minimal"), MADE)
    by_set = _settled(helm.template(values, arguments=arguments))
    assert by_set == _settled(helm.template(with_values(values, numbers)))
    assert _loaded(helm.render(values, arguments=arguments), tmp_path).settings.mailbox.total_bytes == 1 << 40


def test_without_values_of_config_the_programs_defaults_hold(helm: Helm, tmp_path: Path) -> None:
    """But for the log, which machines read here."""
    found = shown(_loaded(helm.render(values_of("beside-minimal")), tmp_path).settings)
    names = [path.removeprefix("config.") for path in CONFIG]
    own = {name: find(name).parse(found[name]) for name in names}
    assert own == {name: find(name).parse(find(name).default) for name in names} | {"logformat": "json"}


def test_every_setting_is_given_by_some_values(helm: Helm, tmp_path: Path) -> None:
    """In one of the sets of values; the program takes what all of them give."""
    given: set[str] = set()
    for name in sorted(set(charts.matrix()) - {"attached"}):
        folder = tmp_path / name
        folder.mkdir()
        given |= set(_loaded(helm.render(values_of(name)), folder).origins)
    assert {option.name for option in OPTIONS} - given == NOT_A_SERVERS


def test_in_the_pod_of_another_chart_the_program_is_set_up_as_in_ours(helm: Helm, tmp_path: Path) -> None:
    """The same settings, but for what is that LND's."""
    values = values_of("attached")
    snippet = yaml.safe_load(helm.notes(values).split("# --- begin")[1].split("# --- end")[0])
    ours = next(each for each in snippet["extraContainers"] if each["name"] == "sidecar")
    attached = shown(_read(ours, helm.render(values), tmp_path).settings)
    beside_lnd = shown(_loaded(helm.render(values_of("sidecar-minimal")), tmp_path).settings)
    assert attached == beside_lnd


@pytest.mark.parametrize("path", CONFIG)
def test_what_is_live_makes_no_new_pod_and_all_else_does(path: str, helm: Helm) -> None:
    """The program says which is which."""
    values = with_values(values_of("sidecar-minimal"), MADE | WITH_REPLICAS)

    def pods(more: dict[str, Any]) -> tuple[Object, str]:
        objects = helm.render(with_values(values, more), show_only=["statefulset.yaml", "configmap.yaml"])
        template = pick(objects, "StatefulSet")["spec"]["template"]
        return template, pick(objects, "ConfigMap")["data"]["sidecar.toml"]

    template, settings = pods({})
    new_template, new_settings = pods({path: _others(path)[0]})
    live = find(path.removeprefix("config.")).reloadable
    assert (new_template == template) is live
    assert (new_settings != settings) is live
