"""What values the chart takes, and what it says of those that it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from sidecar import parsing
from sidecar.core import model
from sidecar.options import OPTIONS, find
from tests.helm import charts
from tests.helm.charts import Helm, values_of, with_values
from tests.helm.values_schema import MAY_BE_ABSENT, at, comments, complete_schema

pytestmark = pytest.mark.helm

VALUES = charts.load(charts.VALUES)
SAID = comments(charts.VALUES.read_text(encoding="utf-8"))
LEAVES = dict(charts.leaves(VALUES, SAID))
PARSED: dict[str, Any] = json.loads(charts.SCHEMA.read_text(encoding="utf-8"))
UNITS = ("", "s", "m", "h", "d")

Record = Callable[[str, int], None]


def _taken(path: str, value: Any) -> bool:
    """Whether one value may stand at that path, whatever the others are."""
    return jsonschema.Draft7Validator({"definitions": PARSED["definitions"], **at(PARSED, path)}).is_valid(
        value
    )


def _errors(values: charts.Values) -> list[str]:
    """The paths that the schema complains of."""
    validator = jsonschema.Draft7Validator(PARSED)
    return sorted(".".join(map(str, error.absolute_path)) for error in validator.iter_errors(values))


# --- the schema and values.yaml ---------------------------------------------------------------------


def test_every_value_has_a_comment_and_stands_in_the_schema() -> None:
    """Both ways: nothing is in the one and not in the other."""
    assert set(LEAVES) == set(SAID)

    def own(schema: dict[str, Any], prefix: str) -> set[str]:
        found = set()
        for name in schema["properties"]:
            path = f"{prefix}{name}"
            inner = at(PARSED, path)
            found |= {path} if path in LEAVES or "properties" not in inner else own(inner, f"{path}.")
        return found

    assert own(PARSED, "") - {"global", "enabled"} == set(LEAVES)


def test_the_schema_is_complete() -> None:
    """Its descriptions are the comments of values.yaml: `make chart` brings it up to date."""
    assert charts.SCHEMA.read_text(encoding="utf-8") == complete_schema(), (
        "values.schema.json is old: `make chart`"
    )


def test_nothing_unknown_is_taken_at_any_level() -> None:
    """Every group of values is closed."""
    groups = {""} | {path[: dot.start()] for path in LEAVES for dot in re.finditer(r"\.", path)}
    for group in groups:
        found = at(PARSED, group) if group else PARSED
        assert found["additionalProperties"] is False, group


def test_the_defaults_are_valid_but_for_lnds_place() -> None:
    """Which nobody but the operator knows."""
    assert _errors(VALUES) == ["existingLnd.host", "existingLnd.macaroon.secret", "existingLnd.tls.secret"]


@pytest.mark.parametrize("name", charts.matrix())
def test_every_set_of_values_is_valid(name: str, helm: Helm) -> None:
    """As Helm reads them."""
    helm.template(values_of(name))


def test_a_value_that_is_set_to_null_is_refused() -> None:
    """Helm takes it away then, and what is made of it would change without a word."""
    good = with_values(VALUES, {"shape": "sidecar"})
    assert not _errors(good)
    for path in set(LEAVES) - MAY_BE_ABSENT:
        copy = json.loads(json.dumps(good))
        *parents, last = path.split(".")
        place = copy
        for parent in parents:
            place = place[parent]
        del place[last]
        assert _errors(copy), path


# --- the schema and the program ---------------------------------------------------------------------


def _config() -> list[str]:
    return [path for path in LEAVES if path.startswith("config.")]


def _program_takes(path: str, value: object) -> bool:
    option = find(path.removeprefix("config."))
    try:
        option.parse(str(value))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("path", _config())
def test_what_the_chart_takes_for_a_setting_the_program_takes(path: str) -> None:
    """Else a new pod would be told so, when the old one is gone."""
    numbers = {0, 1, 59, 60, 89, 90, 365, 3650, 3651, 9999, 10_000, 100_000, 1_000_000, 1_000_001}
    around = {number + step for number in numbers for step in (-1, 0, 1)} | {1 << 30, (1 << 30) + 1, 1 << 41}
    texts = {f"{number}{unit}" for number in around for unit in UNITS} | {"", "strict", "z", "443,", "loud"}
    parts = {number + 0.125 for number in numbers}
    tried: list[Any] = [*around, *texts, *parts, 0.0001, 0.00001, True, None, [], {}]
    taken = [value for value in tried if _taken(path, value)]
    assert all(_program_takes(path, value) for value in taken), taken
    assert _taken(path, LEAVES[path])


@pytest.mark.parametrize("path", [path for path in _config() if at(PARSED, path).get("type") == "integer"])
def test_a_number_has_the_programs_bounds(path: str) -> None:
    """No narrower ones."""
    schema = at(PARSED, path)
    low, high = schema["minimum"], schema["maximum"]
    assert [_program_takes(path, number) for number in (low - 1, low, high, high + 1)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("path", "least", "most"),
    [
        ("config.client.ttl", "1m", f"{model.MAX_TTL // 86_400}d"),
        ("config.paths.lifetime", f"{model.MIN_PATHS_LIFETIME // 86_400}d", "3650d"),
        ("config.mailbox.ttl", "1h", "90d"),
        ("config.lsps5.cooldown", "1s", "1d"),
        ("config.lease.time", "2s", "60s"),
    ],
)
def test_a_duration_has_the_programs_bounds(path: str, least: str, most: str) -> None:
    """In the unit that one would write."""
    for text, step in ((least, -1), (most, 1)):
        beyond = f"{int(text[:-1]) + step}{text[-1]}"
        assert _taken(path, text)
        assert not _taken(path, beyond)
        assert not _program_takes(path, beyond)


@pytest.mark.parametrize("path", [path for path in _config() if "enum" in at(PARSED, path)])
def test_every_word_that_the_program_takes_is_taken(path: str) -> None:
    """And no other one."""
    option = find(path.removeprefix("config."))
    with pytest.raises(ValueError, match="one of ") as refusal:
        option.parse("none of these")
    assert set(at(PARSED, path)["enum"]) == set(str(refusal.value).removeprefix("one of ").split(", "))


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis",
        "redis://user@redis-master.db.svc:6379/3",
        "rediss://[fd00::1]:6380/0?ssl_ca_certs=/etc/static-invoice-sidecar/redis-ca/ca.crt",
        "redis+sentinel://a:26379,b,c/mymaster/2",
        "rediss+sentinel://user@a,b/mymaster",
        "redis+cluster://a:7000,b:7001",
    ],
)
def test_a_url_of_redis_that_the_program_takes_is_taken(url: str) -> None:
    """As long as it has no password."""
    assert parsing.redis_url(url) == url
    assert _taken("existingRedis.url", url)
    with_password = parsing.with_password(url, "secret")
    assert parsing.redis_url(with_password)
    assert not _taken("existingRedis.url", with_password)


def test_the_networks_are_the_programs() -> None:
    """All of them."""
    with pytest.raises(ValueError, match="one of ") as refusal:
        find("network").parse("none of these")
    assert set(at(PARSED, "network")["enum"]) == set(str(refusal.value).removeprefix("one of ").split(", "))


def test_the_defaults_are_the_programs() -> None:
    """But for the log, which machines read here."""
    own = {path.removeprefix("config."): str(LEAVES[path]) for path in _config()}
    programs = {option.name: option.default for option in OPTIONS if option.name in own}
    assert own == programs | {"logformat": "json"}


def test_what_is_marked_live_is_what_the_program_takes_over_by_itself() -> None:
    """In the comments of values.yaml."""
    live = {path for path in _config() if SAID[path].startswith("*live*")}
    assert {option.name for option in OPTIONS if option.reloadable} == {
        path[len("config.") :] for path in live
    }


# --- refusals ---------------------------------------------------------------------------------------

HOST = {"existingLnd.host": "lnd:10009", "existingLnd.tls.secret": "a", "existingLnd.macaroon.secret": "b"}
BESIDE, SIDECAR = {"shape": "beside", **HOST}, {"shape": "sidecar"}
ATTACHED = {"shape": "attached", "attached.podLabels": {"app": "lnd"}}
EXISTING = {**SIDECAR, "redis.bundled": False}

REFUSED: list[tuple[dict[str, Any], str]] = [
    # unknown ones
    ({"confg": {}}, "'confg' not allowed"),
    ({"config.logLevel": "info"}, "at '/config': additional properties 'logLevel' not allowed"),
    ({"config.limits.offerRate": 1}, "at '/config/limits': additional properties 'offerRate' not allowed"),
    ({"image.name": "x"}, "at '/image': additional properties 'name' not allowed"),
    ({"lnd.image.sha": "x"}, "at '/lnd/image': additional properties 'sha' not allowed"),
    (
        {"lnd.persistence.enabled": False},
        "at '/lnd/persistence': additional properties 'enabled' not allowed",
    ),
    ({"lnd.service.ports": []}, "at '/lnd/service': additional properties 'ports' not allowed"),
    ({"redis.auth.password": "x"}, "at '/redis/auth': additional properties 'password' not allowed"),
    ({"existingLnd.tls.cert": "x"}, "at '/existingLnd/tls': additional properties 'cert' not allowed"),
    ({"admin.tls.secret": "x"}, "at '/admin/tls': additional properties 'secret' not allowed"),
    ({"metrics.serviceMonitor.enable": True}, "at '/metrics/serviceMonitor': additional properties 'enable'"),
    ({"networkPolicy.lndFrom": []}, "at '/networkPolicy': additional properties 'lndFrom' not allowed"),
    ({"resources.request": {}}, "at '/resources': additional properties 'request' not allowed"),
    ({"probes.readiness.httpGet": {}}, "at '/probes/readiness': additional properties 'httpGet' not allowed"),
    ({"replicaCount": 2}, "'replicaCount' not allowed"),
    # of a wrong type
    ({"admin.enabled": "yes"}, "at '/admin/enabled': got string, want boolean"),
    ({"http.port": "8066"}, "at '/http/port': got string, want integer"),
    ({"config.client.slots": "10"}, "at '/config/client/slots': got string, want integer"),
    ({"config.client.ttl": 365}, "at '/config/client/ttl': got number, want string"),
    ({"config.lsps5.ports": 443}, "at '/config/lsps5/ports': got number, want string"),
    ({"lnd.config": ["alias=x"]}, "at '/lnd/config': got array, want object"),
    ({"lnd.config": {"alias": ["x", None]}}, "at '/lnd/config/alias/1': got null, want"),
    ({"lnd.extraArgs": "--alias=x"}, "at '/lnd/extraArgs': got string, want array"),
    ({"extraEnv": {"A": "b"}}, "at '/extraEnv': got object, want array"),
    ({"extraEnv": [{"name": "A", "value": 1}]}, "at '/extraEnv/0/value': got number, want string"),
    ({"commonLabels": {"a": 1}}, "at '/commonLabels/a': got number, want string"),
    ({"podAnnotations": {"a": True}}, "at '/podAnnotations/a': got boolean, want string"),
    ({"networkPolicy.adminFrom": [{"app": "x"}]}, "at '/networkPolicy/adminFrom/0'"),
    ({"networkPolicy.dnsPorts": []}, "at '/networkPolicy/dnsPorts': minItems: got 0, want 1"),
    ({"extraEnv": [{"name": "SIDECAR_CLIENT_TTL", "value": "1d"}]}, "at '/extraEnv/0/name': 'not' failed"),
    ({"networkPolicy.torPorts": ["9050"]}, "at '/networkPolicy/torPorts/0': got string, want integer"),
    # not one of the words
    ({"shape": "Sidecar"}, "at '/shape': value must be one of 'beside', 'sidecar', 'attached'"),
    ({"network": "bitcoin"}, "at '/network': value must be one of 'mainnet'"),
    ({"image.pullPolicy": "always"}, "at '/image/pullPolicy': value must be one of 'IfNotPresent'"),
    ({"config.loglevel": "trace"}, "at '/config/loglevel': value must be one of 'debug'"),
    ({"config.logformat": "text"}, "at '/config/logformat': value must be one of 'json'"),
    ({"config.redis.durability": "always"}, "at '/config/redis/durability': value must be one of 'strict'"),
    ({"config.lsps5.timestamps": "Z"}, "at '/config/lsps5/timestamps': value must be one of 'offset'"),
    ({"lnd.service.type": "ExternalName"}, "at '/lnd/service/type': value must be one of 'ClusterIP'"),
    ({"lnd.service.externalTrafficPolicy": "local"}, "at '/lnd/service/externalTrafficPolicy': value must"),
    (
        {**BESIDE, "existingLnd.preset": "galoy"},
        "at '/existingLnd/preset': value must be one of '', 'lndinit'",
    ),
    ({"lnd.persistence.accessModes": ["RWO"]}, "at '/lnd/persistence/accessModes/0': value must be one of"),
    # of a wrong form
    ({"config.paths.lifetime": "30d"}, "at '/config/paths/lifetime': '30d' does not match"),
    ({"config.lsps5.cooldown": "2 minutes"}, "at '/config/lsps5/cooldown': '2 minutes' does not match"),
    ({"config.lsps5.ports": "443,70000"}, "at '/config/lsps5/ports': '443,70000' does not match"),
    (
        {"config.lsps5.private_networks": "10.0.0.1"},
        "at '/config/lsps5/private_networks': '10.0.0.1' does not",
    ),
    ({**BESIDE, "existingLnd.host": "lnd"}, "at '/existingLnd/host': 'lnd' does not match"),
    ({**BESIDE, "existingLnd.host": "https://lnd:10009"}, "at '/existingLnd/host'"),
    ({**BESIDE, "existingLnd.tls.secret": "My Secret"}, "at '/existingLnd/tls/secret': 'My Secret' does not"),
    ({"image.digest": "sha256:abc"}, "at '/image/digest': 'sha256:abc' does not match"),
    ({"image.tag": "latest"}, "at '/image/tag'"),
    ({"redis.image.tag": "latest"}, "at '/redis/image/tag': 'not' failed"),
    ({"redis.image.tag": ""}, "at '/redis/image/tag': '' does not match"),
    (
        {"image.registry": "registry.example.com/"},
        "at '/image/registry': 'registry.example.com/' does not match",
    ),
    ({"lnd.persistence.size": "20GB"}, "at '/lnd/persistence/size': '20GB' does not match"),
    ({"resources.limits.memory": "512MB"}, "at '/resources/limits/memory': '512MB' does not match"),
    ({"lnd.config": {"alias": "x\nnoseedbackup=true"}}, "at '/lnd/config/alias'"),
    ({"lnd.config": {"addpeer": ["x\nnoseedbackup=true"]}}, "at '/lnd/config/addpeer/0'"),
    ({"redis.config": {"maxmemory": "1gb\nsave 1 1"}}, "at '/redis/config/maxmemory'"),
    ({"redis.config": {"save 60 1\nappendonly": "no"}}, "at '/redis/config': additional properties"),
    ({"listenAddress": "localhost"}, "at '/listenAddress': 'localhost' does not match"),
    ({"fullnameOverride": "Invoices"}, "at '/fullnameOverride': 'Invoices' does not match"),
    ({"nameOverride": "x" * 41}, "at '/nameOverride': maxLength: got 41, want 40"),
    (
        {"networkPolicy.privateNetworks": ["fd00::/8"]},
        "at '/networkPolicy/privateNetworks/0': 'fd00::/8' does",
    ),
    ({"networkPolicy.privateNetworksV6": ["10.0.0.0/8"]}, "at '/networkPolicy/privateNetworksV6/0'"),
    ({"metrics.serviceMonitor.interval": "30"}, "at '/metrics/serviceMonitor/interval': '30' does not match"),
    # out of range
    ({"admin.port": 0}, "at '/admin/port': minimum: got 0, want 1"),
    ({"http.port": 65_536}, "at '/http/port': maximum: got 65,536, want 65,535"),
    ({"config.client.slots": 1001}, "at '/config/client/slots': maximum: got 1,001, want 1,000"),
    ({"config.client.bytes": (1 << 30) + 1}, "at '/config/client/bytes': maximum"),
    ({"config.limits.offer_rate": 0}, "at '/config/limits/offer_rate': minimum: got 0"),
    ({"config.mailbox.letters": 10_001}, "at '/config/mailbox/letters': maximum"),
    ({"terminationGracePeriodSeconds": 9}, "at '/terminationGracePeriodSeconds': minimum: got 9, want 10"),
    ({"admin.tls.days": 0}, "at '/admin/tls/days': minimum: got 0, want 1"),
    ({**BESIDE, "replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    ({**BESIDE, "replicas": 6}, "at '/replicas': maximum: got 6, want 5"),
    # labels of the chart's own, by which its pods are found
    (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        "at '/commonLabels/app.kubernetes.io~1name': false schema",
    ),
    (
        {"podLabels": {"app.kubernetes.io/instance": "x"}},
        "at '/podLabels/app.kubernetes.io~1instance': false schema",
    ),
    ({"redis.podLabels": {"helm.sh/chart": "x"}}, "at '/redis/podLabels/helm.sh~1chart': false schema"),
    # what `restricted` refuses in a pod
    ({"securityContext.privileged": True}, "at '/securityContext/privileged': value must be false"),
    ({"securityContext.runAsUser": 0}, "at '/securityContext/runAsUser': minimum: got 0, want 1"),
    (
        {"lnd.securityContext.allowPrivilegeEscalation": True},
        "at '/lnd/securityContext/allowPrivilegeEscalation'",
    ),
    (
        {"redis.securityContext.runAsNonRoot": False},
        "at '/redis/securityContext/runAsNonRoot': value must be true",
    ),
    # what must go together
    ({"shape": "beside"}, "at '/existingLnd/host': minLength: got 0, want 1"),
    ({"shape": "beside"}, "at '/existingLnd/tls/secret': minLength: got 0, want 1"),
    ({**BESIDE, "existingLnd.macaroon.secret": ""}, "at '/existingLnd/macaroon/secret': minLength"),
    ({**SIDECAR, "existingLnd.host": "lnd:10009"}, "at '/existingLnd/host': maxLength: got 9, want 0"),
    ({"shape": "attached"}, "at '/attached/podLabels': minProperties: got 0, want 1"),
    (EXISTING, "at '/existingRedis/url': minLength: got 0, want 1"),
    ({**SIDECAR, "existingRedis.url": "redis://r"}, "at '/existingRedis/url': maxLength: got 9, want 0"),
    ({**SIDECAR, "existingRedis.urlSecret": "r"}, "at '/existingRedis/urlSecret': maxLength: got 1, want 0"),
    (
        {**EXISTING, "existingRedis.url": "redis://r", "existingRedis.urlSecret": "r"},
        "at '/existingRedis/url': maxLength: got 9, want 0",
    ),
    (
        {**EXISTING, "existingRedis.urlSecret": "r", "existingRedis.passwordSecret": "p"},
        "at '/existingRedis/passwordSecret': maxLength: got 1, want 0",
    ),
    ({**EXISTING, "existingRedis.url": "redis://u:secret@r"}, "at '/existingRedis/url'"),
    ({**EXISTING, "existingRedis.url": "redis://r?password=secret"}, "at '/existingRedis/url'"),
    (
        {**EXISTING, "existingRedis.url": "redis+sentinel://r/m?sentinel_password=x"},
        "at '/existingRedis/url'",
    ),
    ({**EXISTING, "existingRedis.url": "http://r"}, "at '/existingRedis/url'"),
    ({**EXISTING, "existingRedis.url": "unix:///run/redis"}, "at '/existingRedis/url'"),
    ({**SIDECAR, "replicas": 2}, "replicas must be 1 with shape sidecar: the sidecar is in LND's pod"),
    ({**ATTACHED, "replicas": 2}, "replicas must be 1 with shape attached"),
    ({**SIDECAR, "config.redis.replicas": 1}, "config.redis.replicas must be 0 with redis.bundled"),
]


@pytest.mark.parametrize(("more", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_wrong_value_is_refused_by_its_name(
    more: dict[str, Any], said: str, helm: Helm, record: Record
) -> None:
    """Before anything is changed in the cluster."""
    values = with_values({}, {**SIDECAR, **more})
    assert said in helm.refusal(values)
    record("wrong values refused", 1)


@pytest.mark.parametrize(
    "more",
    [
        {"global": {"storageClass": "x"}},
        {"enabled": True},
        {**BESIDE, "existingLnd.host": "[fd00::1]:10009"},
        {**BESIDE, "existingLnd.host": "lnd.bitcoin.svc.cluster.local:10009"},
        {**EXISTING, "existingRedis.url": "redis://user@redis-master.db.svc:6379/3"},
        {**EXISTING, "existingRedis.url": "rediss://[fd00::1]:6379?ssl_ca_certs=/a/b.crt"},
        {**BESIDE, "replicas": 5},
        {**EXISTING, "existingRedis.url": "redis://r", "config.redis.replicas": 10},
        {"config.lease.time": "1m"},
        {
            "lnd.config": {
                "alias": "Café № 5",
                "maxpendingchannels": 3,
                "tor.active": True,
                "addpeer": ["a", "b"],
            }
        },
        {"resources.limits.cpu": 0.5, "resources.requests.memory": 1073741824},
        {"securityContext": {"runAsUser": None, "runAsGroup": None}},
        {"lnd.service.nodePort": None},
        {"podLabels": {"app.kubernetes.io/part-of": "x"}},
    ],
    ids=lambda more: next(iter(set(more) - {"shape"})),
)
def test_a_right_value_is_taken(more: dict[str, Any], helm: Helm) -> None:
    """What the patterns must not be too narrow for."""
    helm.template(with_values({}, {**SIDECAR, **more}))


def test_a_value_that_is_set_to_null_is_refused_by_helm(helm: Helm) -> None:
    """By its name."""
    said = helm.refusal({**SIDECAR, "config": {"client": {"ttl": None}}})
    assert "at '/config/client': missing property 'ttl'" in said
