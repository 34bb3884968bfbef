"""The values of the chart, as its documents name them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "static-invoice-sidecar"


@cache
def values() -> dict[str, Any]:
    """What values.yaml holds."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


@cache
def paths() -> frozenset[str]:
    """The dotted name of every value, and of every group of them."""

    def below(tree: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from below(value, f"{prefix}{key}.")

    return frozenset(below(values(), ""))


@cache
def _named() -> re.Pattern[str]:
    groups = "|".join(sorted(key for key, value in values().items() if isinstance(value, dict)))
    return re.compile(rf"(?<![\w./@-])(?:{groups})(?:\.[A-Za-z0-9_]+)+(?![\w/-])")


def bad_values(text: str) -> list[str]:
    """What is named like a value of the chart, and is none. Maps by design, such as labels, hold anything."""
    return sorted({name for name in _named().findall(text) if name not in paths() and not _in_a_map(name)})


def _in_a_map(name: str) -> bool:
    parts = name.split(".")
    above = [".".join(parts[:length]) for length in range(1, len(parts))]
    return any(each == "lnd.config" or _value(each) == {} for each in above)


def _value(name: str) -> Any:
    found: Any = values()
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found
