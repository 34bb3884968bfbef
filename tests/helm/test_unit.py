"""The suites of helm-unittest pass, and leave nothing of the chart out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm import charts
from tests.helm.charts import CHART, TEMPLATES

pytestmark = pytest.mark.helm

Record = Callable[[str, int], None]

SUITES = sorted((CHART / "tests").glob("*_test.yaml"))
SCALARS = (str, int, float, bool, type(None))


@cache
def _suites(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def _all() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each suite, and each of its tests: both have templates and values."""
    for path in SUITES:
        for suite in _suites(path):
            yield path, suite
            yield from ((path, test) for test in suite["tests"])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _set() -> set[tuple[str, Any]]:
    """(path, value) of all that suites set to one word or number, in themselves and in files."""
    found = set()
    for path, part in _all():
        files = [charts.load((path.parent / name).resolve()) for name in part.get("values", [])]
        for values in (*files, part.get("set", {})):
            found |= {(name, value) for name, value in _flat(values) if isinstance(value, SCALARS)}
    return found


def test_all_suites_pass(tools: Mapping[str, Path], record: Record) -> None:
    """By helm-unittest, which takes nothing unknown in them."""
    command = [str(tools["helm-unittest"]), "--strict", str(CHART)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"^Tests: +(\d+) passed, (\d+) total$", done.stdout, flags=re.MULTILINE)
    assert passed is not None, done.stdout
    assert passed[1] == passed[2]
    record("unit tests", int(passed[1]))


def test_every_template_has_a_suite(record: Record) -> None:
    """By its path; partials are in all of them."""
    templates = {
        str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.*") if not path.name.startswith("_")
    }
    tested = set()
    for _, part in _all():
        named = [*part.get("templates", []), part.get("template"), *_asserted(part)]
        tested |= {name.removeprefix("templates/") for name in named if name}
    assert templates - tested == set()
    assert tested - templates == set(), "there is no such template"
    record("templates", len(templates))


def _asserted(part: Mapping[str, Any]) -> list[str | None]:
    return [each.get("template") for each in part.get("asserts", [])]


def test_every_toggle_is_set_by_a_suite() -> None:
    """Both ways of what is true or false, by itself or by a suite; and words that stand for a choice."""
    given = _set()
    toggles = {path: value for path, value in _flat(charts.load(charts.VALUES)) if isinstance(value, bool)}
    # What a pod may do is the operator's: tests/helm/test_manifests.py holds what the chart asks for.
    toggles = {path: value for path, value in toggles.items() if "ecurityContext" not in path}
    missing = {path for path, value in toggles.items() if (path, not value) not in given}
    assert not missing
    words = {
        "shape": {"beside", "sidecar", "attached"},
        "existingLnd.preset": {"lndinit", "blinkbitcoin"},
        "lnd.service.type": {"NodePort", "LoadBalancer"},
        "config.logformat": {"console"},
        "config.loglevel": {"debug"},
        "config.redis.durability": {"everysec"},
        "config.lsps5.timestamps": {"z"},
        "lnd.service.externalTrafficPolicy": {"Local"},
    }
    assert not {(path, word) for path, some in words.items() for word in some} - given


def test_every_rule_is_named_once() -> None:
    """In its suite: the name is what is read when it fails."""
    for path in SUITES:
        for suite in _suites(path):
            names = [test["it"] for test in suite["tests"]]
            assert len(names) == len(set(names)), path.name
