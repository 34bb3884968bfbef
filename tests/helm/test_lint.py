"""The chart is one that Helm takes, alone, packed, and below another chart."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import yaml

import sidecar
from tests.helm import charts
from tests.helm.charts import CHART, Helm, container, pick, pod_specs, values_of

pytestmark = pytest.mark.helm

META = charts.load(CHART / "Chart.yaml")


@pytest.mark.parametrize("name", charts.matrix())
def test_helm_finds_nothing_wrong(name: str, helm: Helm) -> None:
    """Not even what it would only warn of."""
    said = helm.run("lint", "--strict", str(CHART), "--values", str(charts.CI / f"{name}-values.yaml"))
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


@pytest.fixture(scope="module")
def packed(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it is published."""
    folder = tmp_path_factory.mktemp("packed")
    helm.run("package", str(CHART), "--destination", str(folder))
    return folder / f"{META['name']}-{META['version']}.tgz"


def test_what_is_packed_is_what_an_operator_needs(packed: Path) -> None:
    """The templates of `helm test` too; not what checks the chart."""
    with tarfile.open(packed) as archive:
        files = {name.removeprefix(f"{META['name']}/") for name in archive.getnames()}
    templates = {str(path.relative_to(CHART)) for path in charts.TEMPLATES.rglob("*") if path.is_file()}
    others = {"Chart.yaml", "README.md", "CHANGELOG.md", "values.yaml", "values.schema.json", ".helmignore"}
    content = {str(path.relative_to(CHART)) for path in (CHART / "files").iterdir()}
    assert files == templates | others | content


@pytest.mark.parametrize("name", charts.matrix())
def test_packed_it_renders_the_same(name: str, packed: Path, helm: Helm) -> None:
    """Nothing that a template needs is left out."""
    first, second = (
        [each for each in helm.render(values_of(name), chart=chart) if each["kind"] != "Secret"]
        for chart in (CHART, packed)
    )
    assert first == second


def test_it_can_be_part_of_another_chart(packed: Path, helm: Helm, tmp_path: Path) -> None:
    """With a condition, which is a value of ours then, and with values for all charts."""
    parent = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
    needs = {"name": META["name"], "version": META["version"], "condition": f"{META['name']}.enabled"}
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / packed.name).write_bytes(packed.read_bytes())
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump({**parent, "dependencies": [needs]}))
    values = {
        "global": {"registry": "example.com"},
        META["name"]: {**values_of("beside-minimal"), "enabled": True},
    }
    assert pick(helm.render(values, chart=tmp_path), "Deployment")
    values[META["name"]]["enabled"] = False
    assert helm.render(values, chart=tmp_path) == []


def test_the_chart_is_made_for_the_program_of_this_checkout(helm: Helm) -> None:
    """Its appVersion is the tag of the image, where none is given."""
    assert META["appVersion"] == sidecar.__version__
    objects = helm.render(values_of("beside-minimal"))
    image = container(pick(objects, "Deployment")["spec"]["template"]["spec"], "sidecar")["image"]
    assert image == f"static-invoice-sidecar:{sidecar.__version__}"


def test_the_images_of_others_are_those_that_are_listed(helm: Helm) -> None:
    """For Artifact Hub, which looks for holes in them."""
    objects = helm.render(values_of("sidecar-minimal"))
    used = {one["image"] for _, _, spec in pod_specs(objects) for one in spec["containers"]}
    listed = yaml.safe_load(META["annotations"]["artifacthub.io/images"])
    assert used - {f"static-invoice-sidecar:{META['appVersion']}"} == {each["image"] for each in listed}


def test_artifact_hub_can_read_what_is_for_it() -> None:
    """Annotations are texts; kinds of changes are its own."""
    assert all(isinstance(text, str) for text in META["annotations"].values())
    changes = yaml.safe_load(META["annotations"]["artifacthub.io/changes"])
    kinds = {"added", "changed", "deprecated", "removed", "fixed", "security"}
    assert changes
    assert {each["kind"] for each in changes} <= kinds
    assert json.dumps(META["maintainers"]) == json.dumps([{"name": "The Static Invoice Sidecar authors"}])
