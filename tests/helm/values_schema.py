"""What is made of values.yaml, parts of its schema and the README: `python -m tests.helm.values_schema`.

The schema is written by hand. Filled in are its descriptions (the comments for helm-docs), and that every
value must be there: one that a user has set to null would else be gone without a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.harness.building import run
from tests.helm.build import ensure
from tests.helm.charts import CHART, SCHEMA, VALUES

MAY_BE_ABSENT = frozenset({"global", "enabled", "lnd.service.nodePort"})
"""What charts above this one set, and the one value that null is right for."""

_WIDTH = 110
_KEY = re.compile(r"( *)([A-Za-z0-9_.-]+):")
_COMMENT = re.compile(r" *# ?(-- )?(.*)")


def comments(text: str) -> dict[str, str]:
    """What values.yaml says of each value, by its path, as helm-docs reads it."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said: list[str] | None = None
    for line in text.splitlines():
        if comment := _COMMENT.fullmatch(line):
            if comment[1]:
                said = []
            if said is not None:
                said.append(comment[2])
            continue
        if key := _KEY.match(line):
            path = [each for each in path if each[0] < len(key[1])] + [(len(key[1]), key[2])]
            if said:
                found[".".join(name for _, name in path)] = " ".join(said)
        said = None
    return found


def at(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The schema of the value at that path, with what it refers to. Raises KeyError."""
    place = dict(schema)
    for name in path.split("."):
        place = resolved(schema, place["properties"][name])
    return place


def resolved(schema: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
    """`place`, or what it refers to."""
    if "$ref" in place:
        name = str(place["$ref"]).rpartition("/")[2]
        return {**resolved(schema, schema["definitions"][name]), **place}
    return dict(place)


def completed(schema: Mapping[str, Any], said: Mapping[str, str]) -> dict[str, Any]:
    """The schema with its descriptions, and with every value required."""

    def complete(place: Mapping[str, Any], path: str) -> dict[str, Any]:
        fresh = {**place, "description": said[path]} if path in said else dict(place)
        if path in said or "properties" not in place:
            return fresh
        names = {name: f"{path}.{name}".lstrip(".") for name in place["properties"]}
        fresh["properties"] = {name: complete(place["properties"][name], names[name]) for name in names}
        fresh["required"] = [name for name in names if names[name] not in MAY_BE_ABSENT]
        return fresh

    return complete(schema, "")


def written(value: Any, indent: int = 0) -> str:
    """JSON with what fits on one line there."""
    line = json.dumps(value, ensure_ascii=False)
    if indent + len(line) < _WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + 2
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {written(each, inner)}" for name, each in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [written(each, inner) for each in value]
        opening, closing = "[", "]"
    lines = f",\n{' ' * inner}".join(parts)
    return f"{opening}\n{' ' * inner}{lines}\n{' ' * indent}{closing}"


def complete_schema() -> str:
    """The text that values.schema.json should be."""
    said = comments(VALUES.read_text(encoding="utf-8"))
    return written(completed(json.loads(SCHEMA.read_text(encoding="utf-8")), said)) + "\n"


def readme() -> str:
    """The text that the chart's README should be, by helm-docs. Raises BuildError."""
    command = [str(ensure()["helm-docs"]), "--chart-search-root", str(CHART), "--dry-run"]
    options = ["--sort-values-order", "file", "--template-files", "README.md.gotmpl", "--log-level", "error"]
    return run([*command, *options], CHART).stdout.decode()


if __name__ == "__main__":
    SCHEMA.write_text(complete_schema(), encoding="utf-8")
    (CHART / "README.md").write_text(readme(), encoding="utf-8")
