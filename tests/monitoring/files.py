"""The dashboard and the alert rules as a user gets them, and what they ask Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TOP = Path(__file__).resolve().parents[2]
_FOLDER = _TOP / "helm" / "static-invoice-sidecar" / "files"
RULES, DASHBOARD = _FOLDER / "rules.yaml", _FOLDER / "dashboard.json"
RULES_TEST = Path(__file__).with_name("rules_test.yaml")
DOCUMENT = _TOP / "docs" / "monitoring.md"

NAME = re.compile(r"\b(?:sidecar|process|python)_[a-z_]+\b")
"""A metric of ours, or one that the library adds for the process."""

_SELECTOR = re.compile(r"\b((?:sidecar|process)_[a-z_]+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Matcher:
    """What an expression says of a label of a metric."""

    metric: str
    label: str
    operator: str
    value: str


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    parsed: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return parsed


def queries() -> Iterator[tuple[str, str]]:
    """(panel, expression) of each query of the dashboard."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def alerts(text: str | None = None) -> dict[str, str]:
    """Each alert's lines, by its name."""
    blocks = re.split(r"^ +- alert: ", text or RULES.read_text(), flags=re.MULTILINE)[1:]
    return {block.partition("\n")[0].strip(): block for block in blocks}


def expression(alert: str) -> str:
    """What an alert asks, of its lines as `alerts` gives them."""
    found = re.search(r"^ +expr: (?:>-\n)?(.*?)^ +(?:for|labels):", alert, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, alert
    return found[1]


def matchers(expr: str) -> Iterator[Matcher]:
    """What an expression says of labels."""
    for metric, inside in _SELECTOR.findall(expr):
        for label, operator, value in _MATCHER.findall(inside):
            yield Matcher(metric, label, operator, value)


def tested() -> list[tuple[str, bool]]:
    """(alert, whether it fires) of each case in rules_test.yaml."""
    cases = re.findall(
        r"alertname: (\w+)\n +exp_alerts:(?P<none> \[\])?", RULES_TEST.read_text(), flags=re.MULTILINE
    )
    return [(name, not none) for name, none in cases]
