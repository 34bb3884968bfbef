"""What the chart says of itself is so: README, changelog, and the notes after an installation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import docs_reader as reader
from tests.helm import charts
from tests.helm.charts import CHART, Helm, Object, container, pick, values_of, with_values
from tests.helm.values_schema import comments, readme

pytestmark = pytest.mark.helm

README, CHANGELOG = CHART / "README.md", CHART / "CHANGELOG.md"
GUIDE = reader.ROOT / "docs" / "kubernetes.md"
PRINTED = re.compile(r"^```yaml\n(extraContainers:\n.*?)^```$", flags=re.MULTILINE | re.DOTALL)
VALUES = charts.load(charts.VALUES)
SAID = comments(charts.VALUES.read_text(encoding="utf-8"))

# --- README, changelog ------------------------------------------------------------------------------


def test_the_readme_is_as_it_is_made() -> None:
    """Of its template and of values.yaml, by helm-docs."""
    assert README.read_text(encoding="utf-8") == readme(), "the chart's README is old: run `make chart`"


def test_every_value_is_in_the_readme_with_its_comment() -> None:
    """As this suite reads values.yaml, and helm-docs does."""
    table = README.read_text(encoding="utf-8").partition("\n## Values\n")[2]
    rows = dict(re.findall(r"^\| ([\w.]+) \| \w+ \| .*? \| (.*) \|$", table, flags=re.MULTILINE)[1:])
    assert rows == {path: said.replace("|", r"\|") for path, said in SAID.items()}


@pytest.mark.parametrize("path", [README, CHANGELOG], ids=lambda path: path.name)
def test_every_link_and_table_is_one(path: Path) -> None:
    """To files of this repository, and headings in them."""
    assert not reader.bad_links(path, path.read_text())
    assert not reader.bad_tables(path.read_text())


def test_every_value_that_the_readme_names_is_one() -> None:
    """In its prose and tables."""
    groups = {path.partition(".")[0] for path in SAID}
    named = set(re.findall(r"`([a-zA-Z0-9]+(?:\.[a-zA-Z_0-9]+)+)`", README.read_text()))
    ours = {name for name in named if name.partition(".")[0] in groups}
    known = set(SAID) | {path.rpartition(".")[0] for path in SAID}
    # The program's own name of one, and files.
    assert ours - known == {"admin.macaroon", "lsps5.cafile"}


def _blocks(path: Path) -> list[str]:
    """The values that a document shows."""
    text = PRINTED.sub("", path.read_text())
    found: list[str] = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize("block", _blocks(README))
def test_the_values_that_the_readme_shows_are_taken(block: str, helm: Helm) -> None:
    """Those of a part of the whole with the rest that is needed."""
    values = yaml.safe_load(block)
    base = {} if "shape" in values or "existingLnd" in values else values_of("beside-minimal")
    helm.template({**base, **values})


@pytest.mark.parametrize("block", _blocks(GUIDE))
def test_the_values_that_the_guide_shows_are_taken(block: str, helm: Helm) -> None:
    """In each shape that they are for, with the rest that is needed."""
    values = yaml.safe_load(block)
    more = {"redis": {"bundled": False}} if "existingRedis" in values else {}
    for name in ["sidecar-minimal"] if "shape" in values else ["beside-minimal", "sidecar-minimal"]:
        helm.template({**values_of(name), **more, **values})


def test_the_readme_shows_what_is_printed_for_the_pod_of_another_chart(helm: Helm) -> None:
    """Containers and volumes, word for word, for the values above them."""
    attached = next(block for block in _blocks(README) if block.startswith("shape: attached\n"))
    notes = helm.notes(yaml.safe_load(attached), release="invoices", namespace="default")
    printed = notes.split("# --- begin\n")[1].split("# --- end")[0]
    assert PRINTED.findall(README.read_text()) == [printed], "README.md.gotmpl is old"


def test_the_changelog_tells_of_this_version() -> None:
    """First, and of an earlier one below it."""
    headings = re.findall(r"^## (.*)$", CHANGELOG.read_text(), flags=re.MULTILINE)
    assert headings[0] == charts.load(CHART / "Chart.yaml")["version"]


# --- the notes --------------------------------------------------------------------------------------


def _commands(notes: str) -> list[str]:
    """What the notes say to run in the sidecar's container."""
    return re.findall(r"-c sidecar -- (sidecar .*)$", notes, flags=re.MULTILINE)


@pytest.mark.parametrize("name", charts.matrix())
def test_the_commands_of_the_notes_are_some(name: str, helm: Helm) -> None:
    """In the release's namespace, and in a workload and a container that are there."""
    values = values_of(name)
    notes, objects = helm.notes(values), helm.render(values)
    kubectl = [line.strip() for line in notes.splitlines() if line.startswith("  kubectl")]
    assert kubectl
    assert all(line.startswith(f"kubectl -n {charts.NAMESPACE} ") for line in kubectl)
    assert _commands(notes) == ["sidecar doctor", "sidecar client add alice"]
    assert not reader.bad_commands("".join(f"```\n{command}\n```\n" for command in _commands(notes)))
    kinds = {"deploy": "Deployment", "sts": "StatefulSet"}
    for short, workload, one in re.findall(r" (deploy|sts)/(\S+) -c (\S+)", notes):
        container(pick(objects, kinds[short], workload)["spec"]["template"]["spec"], one)


@pytest.mark.parametrize("name", charts.matrix())
def test_the_addresses_of_the_notes_are_the_services(name: str, helm: Helm) -> None:
    """Host and port."""
    values = values_of(name)
    service = pick(helm.render(values, show_only=["service.yaml"]), "Service")
    host = f"{service['metadata']['name']}.{charts.NAMESPACE}.svc"
    ports = {port["port"] for port in service["spec"]["ports"]}
    found = re.findall(r"(\S+\.svc):(\d+)(?:/metrics.*)?$", helm.notes(values), flags=re.MULTILINE)
    ours = [(place.removeprefix("http://"), int(port)) for place, port in found if "existing" not in place]
    assert {port for place, port in ours if place == host} == ports


def test_the_notes_have_no_secret(helm: Helm) -> None:
    """They are printed, and kept in the release."""
    values = with_values(values_of("attached"), {"lnd.extraArgs": ["--rpcpass=hidden-one"]})
    assert "hidden-one" not in helm.notes(values)


def _snippet(helm: Helm, values: charts.Values) -> dict[str, Any]:
    text = helm.notes(values).split("# --- begin\n")[1].split("# --- end")[0]
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


OWN = {"attached.lndVolume": "data", "attached.lndDirectory": "/lnd"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"admin.enabled": False},
        {"lsps5.ca.configMap": "push-ca"},
        {"redis.bundled": False, "existingRedis.urlSecret": "redis-url"},
        {"lnd.rpc.port": 10_010, "network": "signet"},
        {"extraEnv": [{"name": "A", "value": "b"}], "extraVolumes": [{"name": "a", "emptyDir": {}}]},
    ],
    ids=lambda more: next(iter(more), "plain"),
)
def test_another_charts_pod_gets_the_containers_of_ours(more: dict[str, Any], helm: Helm) -> None:
    """The very same, and their volumes, but for those of LND itself."""
    snippet = _snippet(helm, with_values(values_of("attached"), {**OWN, **more}))
    objects = helm.render(with_values({"shape": "sidecar"}, more))
    ours = pick(objects, "StatefulSet", "test-static-invoice-sidecar")["spec"]["template"]["spec"]
    assert snippet["extraContainers"] == [container(ours, name) for name in ("credentials", "sidecar")]
    of_lnd = {"data", *(mount["name"] for mount in container(ours, "lnd")["volumeMounts"])}
    assert snippet["extraVolumes"] == [each for each in ours["volumes"] if each["name"] not in of_lnd]
    _mounts_are_there(snippet, "data")


def _mounts_are_there(snippet: Object, of_lnd: str) -> None:
    mounts = {mount["name"] for each in snippet["extraContainers"] for mount in each["volumeMounts"]}
    assert mounts - {of_lnd} <= {volume["name"] for volume in snippet["extraVolumes"]}


def test_the_snippet_mounts_lnds_volume_where_the_values_say(helm: Helm) -> None:
    """By the name that the other chart has for it, and read-only."""
    mounts = _snippet(helm, values_of("attached"))["extraContainers"][0]["volumeMounts"]
    assert {"name": "lnd-storage", "mountPath": "/lnd/data", "readOnly": True} in mounts


def test_root_may_be_lnds_user_in_the_pod_of_another_chart_alone(helm: Helm) -> None:
    """Where LND's directory is root's."""
    root = {"lnd.securityContext.runAsUser": 0, "lnd.securityContext.runAsGroup": 0}
    snippet = _snippet(helm, with_values(values_of("attached"), root))
    assert snippet["extraContainers"][0]["securityContext"]["runAsUser"] == 0
    said = helm.refusal(with_values({"shape": "sidecar"}, root))
    assert "at '/lnd/securityContext/runAsUser': minimum: got 0, want 1" in said
