"""The dashboard, the rules and the document name exactly what the server exports."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from sidecar.adapters.metrics import Facts, SidecarCollector, new_registry
from sidecar.timings import Timed, Timings
from tests.monitoring import files

LABELS_OF_PROMETHEUS = {"instance", "job", "le"}


@pytest.fixture(scope="module")
def exported() -> dict[str, list[dict[str, str]]]:
    """The labels of each series of a server on which each thing has been timed, by the series' name."""
    timings = Timings()
    for timed, label in ((Timed.LND, "GetInfo"), (Timed.CONNECT, ""), (Timed.WEBHOOK, "")):
        timings.observe(timed, 1, label)
    about = dict.fromkeys(("version", "lnd_version", "mode", "network"), "x")
    # These are not shown as 0 before they are counted.
    counters = dict.fromkeys(("mail.undelivered.x", "lsps.refused.x", "unbound.x", "another"), 1)
    series: dict[str, list[dict[str, str]]] = {}
    for metric in new_registry(SidecarCollector(lambda: Facts(about, counters)), timings).collect():
        for sample in metric.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def expressions() -> Iterator[tuple[str, str]]:
    """All that is asked of Prometheus, with where."""
    yield from files.queries()
    for name, block in files.alerts().items():
        yield name, files.expression(block)


def test_each_metric_that_is_asked_for_is_exported(exported: dict[str, list[dict[str, str]]]) -> None:
    """A panel of a metric that was renamed would stay empty, and an alert silent."""
    asked = {name for _, expr in expressions() for name in files.NAME.findall(expr)}
    assert asked
    assert asked <= exported.keys()


@pytest.mark.parametrize(("where", "expr"), [(where, expr) for where, expr in expressions()])
def test_each_label_that_is_asked_for_is_there(
    exported: dict[str, list[dict[str, str]]], where: str, expr: str
) -> None:
    """With the very value: an alert on a reason that no code gives would stay silent for ever."""
    for matcher in files.matchers(expr):
        if matcher.label in LABELS_OF_PROMETHEUS:
            continue
        there = {labels.get(matcher.label) for labels in exported[matcher.metric]}
        assert there != {None}, f"{where}: {matcher.metric} has no label {matcher.label}"
        if matcher.operator in ("=", "=~"):
            assert set(matcher.value.split("|")) <= there, f"{where}: {matcher}"


def test_the_document_lists_each_metric_and_no_other(exported: dict[str, list[dict[str, str]]]) -> None:
    """docs/monitoring.md has the names that are exported; of a histogram, the one without a suffix."""
    ours = {name for name in exported if name.startswith("sidecar_")}
    histograms = {name.removesuffix("_bucket") for name in ours if name.endswith("_bucket")}
    parts = {f"{name}{suffix}" for name in histograms for suffix in ("_bucket", "_sum", "_count")}
    named = {name for name in files.NAME.findall(files.DOCUMENT.read_text()) if name.startswith("sidecar_")}
    assert named - parts == (ours - parts) | histograms


def test_the_document_tells_what_to_do_about_each_alert() -> None:
    """Each has a row, and no other alert has one."""
    text = files.DOCUMENT.read_text()
    rows = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `Sidecar")}
    assert rows == set(files.alerts())


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    """A severity, a summary that names the instance, and an action."""
    for name, block in files.alerts().items():
        assert name.startswith("Sidecar")
        for part in ("severity: ", "summary: ", "action: ", "$labels.instance"):
            assert part in block, f"{name}: {part}"


def test_each_alert_is_tested_firing_and_silent() -> None:
    """rules_test.yaml, which promtool runs, has both cases of each."""
    assert sorted(files.tested()) == sorted(
        (name, fires) for name in files.alerts() for fires in (True, False)
    )


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    """A schema of Grafana 10, its data source a variable; panels that don't overlap, each with a text."""
    board = files.dashboard()
    assert board["schemaVersion"] >= 38
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "instance"]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["description"]
        assert {each["datasource"]["uid"] for each in (panel, *panel["targets"])} == {"${datasource}"}
        x, y, width, height = (panel["gridPos"][name] for name in "xywh")
        covered = set(itertools.product(range(x, x + width), range(y, y + height)))
        assert x + width <= 24
        assert not covered & cells
        cells |= covered
