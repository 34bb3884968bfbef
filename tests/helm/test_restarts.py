"""What a change of a value makes new: a pod, or nothing but the ConfigMap that a running sidecar reads."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sidecar.options import OPTIONS
from tests.helm.charts import CHART, Helm, Object, load, pick, pod_specs, values_of, with_values

pytestmark = pytest.mark.helm

SHAPES = ("beside-minimal", "sidecar-minimal")
LIVE: dict[str, Any] = {
    "loglevel": "debug",
    "client.ttl": "30d",
    "client.slots": 20,
    "client.bytes": 1_000_000_000,
    "limits.offer_rate": 0.5,
    "limits.offer_burst": 6,
    "limits.client_rate": 70.25,
    "limits.client_burst": 80,
    "limits.stores_per_minute": 90,
    "limits.offer_paths_per_minute": 100,
    "mailbox.letters": 10_000,
    "mailbox.bytes": 1_000_000_000,
}


def pods(objects: list[Object]) -> list[Object]:
    """The templates of the server's pods."""
    return [
        each["spec"]["template"]
        for each, metadata, _ in pod_specs(objects)
        if metadata["labels"]["app.kubernetes.io/component"] == "server"
    ]


def rendered(helm: Helm, shape: str, more: dict[str, Any], chart: Path = CHART) -> list[Object]:
    """The objects with one more value."""
    return helm.render(with_values(values_of(shape), more), chart=chart)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_of_a_live_setting_makes_no_new_pod(helm: Helm, shape: str) -> None:
    """All of them: they are in the ConfigMap as they were given, and the pod stays as it is."""
    assert set(LIVE) == {option.name for option in OPTIONS if option.reloadable}
    objects = rendered(helm, shape, {f"config.{name}": value for name, value in LIVE.items()})
    settings = tomllib.loads(
        pick(objects, "ConfigMap", "test-static-invoice-sidecar")["data"]["sidecar.toml"]
    )
    assert settings == with_values({}, LIVE)
    assert pods(objects) == pods(rendered(helm, shape, {}))


CHANGES: dict[str, dict[str, Any]] = {
    "beside-minimal": {"config.logformat": "console", "existingLnd.host": "other:10009", "image.tag": "7"},
    "sidecar-minimal": {
        "config.mailbox.total_bytes": 1,
        "lnd.config": {"alias": "another"},
        "lnd.image.tag": "v0.20.2-beta",
        "lnd.wallet.passwordSecret": "wallet",
    },
}


@pytest.mark.parametrize(("shape", "name"), [(shape, name) for shape in CHANGES for name in CHANGES[shape]])
def test_a_change_of_anything_else_makes_a_new_pod(helm: Helm, shape: str, name: str) -> None:
    """What a process reads once must not lie there unread."""
    assert pods(rendered(helm, shape, {name: CHANGES[shape][name]})) != pods(rendered(helm, shape, {}))


def test_another_script_makes_a_new_pod(helm: Helm, tmp_path: Path) -> None:
    """A shell reads it once."""
    chart = Path(shutil.copytree(CHART, tmp_path / "chart"))
    with (chart / "files" / "credentials.sh").open("a") as script:
        script.write("# more\n")
    shape = "sidecar-minimal"
    assert pods(rendered(helm, shape, {}, chart)) != pods(rendered(helm, shape, {}))


@pytest.mark.parametrize("shape", SHAPES)
def test_another_version_of_the_chart_alone_makes_no_new_pod(helm: Helm, tmp_path: Path, shape: str) -> None:
    """An LND is not stopped for a new comment."""
    chart = Path(shutil.copytree(CHART, tmp_path / "chart"))
    about = chart / "Chart.yaml"
    about.write_text(
        about.read_text().replace(f"\nversion: {load(about)['version']}\n", "\nversion: 9.9.9\n")
    )
    assert load(about)["version"] == "9.9.9"
    assert pods(rendered(helm, shape, {}, chart)) == pods(rendered(helm, shape, {}))
