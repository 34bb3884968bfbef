"""The chart, and Helm to render it: what it makes of values, what it refuses, what it prints."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "static-invoice-sidecar"
CI = CHART / "ci"
TEMPLATES = CHART / "templates"
SCHEMA = CHART / "values.schema.json"
VALUES = CHART / "values.yaml"
RELEASE, NAMESPACE = "test", "lightning"

Object = dict[str, Any]
"""A manifest."""

Values = Mapping[str, Any]

_SUFFIX = "-values.yaml"

_NOTES = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: notes
data:
  notes: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}
"""
"""`helm template` leaves the notes out, and `helm install` asks a cluster first."""


class HelmError(Exception):
    """Helm refused; the text is what it said."""


def matrix() -> list[str]:
    """The names of the sets of values that the chart is tested with: `ci/NAME-values.yaml`."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in CI.glob(f"*{_SUFFIX}"))


def load(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def values_of(name: str, **more: Any) -> dict[str, Any]:
    """One of the matrix, with `more` values by their path, `__` for the dots: `redis__bundled=False`."""
    return with_values(load(CI / f"{name}{_SUFFIX}"), {key.replace("__", "."): more[key] for key in more})


def with_values(values: Values, more: Values) -> dict[str, Any]:
    """A copy of `values` with `more` of them, by their paths: {"redis.bundled": False}."""
    copy: dict[str, Any] = json.loads(json.dumps(values))
    for path, value in more.items():
        *parents, last = path.split(".")
        reduce(lambda place, name: place.setdefault(name, {}), parents, copy)[last] = value
    return copy


def leaves(values: Values, documented: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of each value with a comment of its own: below one of these, all is its content."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in documented:
            yield path, value
        elif isinstance(value, Mapping):
            yield from leaves(value, documented, f"{path}.")
        else:
            raise AssertionError(f"{path} has no comment in values.yaml")


@dataclass(frozen=True, slots=True)
class Helm:
    """The program, in an environment where it finds nothing of the user's."""

    program: Path
    home: Path

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints. Raises HelmError."""
        done = subprocess.run(
            [self.program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(self.home), "KUBECONFIG": str(self.home / "none")}
            | {f"HELM_{kind}_HOME": str(self.home / kind) for kind in ("CACHE", "CONFIG", "DATA")},
        )
        if done.returncode:
            raise HelmError(f"{done.stderr}\n{done.stdout}")
        return done.stdout

    def template(
        self,
        values: Values,
        *,
        release: str = RELEASE,
        namespace: str = NAMESPACE,
        kube_version: str | None = None,
        show_only: Sequence[str] = (),
        chart: Path = CHART,
        arguments: Sequence[str] = (),
    ) -> str:
        """The manifests as text, made of `values` (as `-f` reads them) and `arguments`. Raises HelmError."""
        # A number of `-f` is a float for the templates, whatever it looks like: so it is for JSON.
        options = ["--namespace", namespace, "--values", "-", *arguments]
        options += ["--kube-version", kube_version] if kube_version else []
        options += [word for name in show_only for word in ("--show-only", f"templates/{name}")]
        return self.run("template", release, str(chart), *options, stdin=json.dumps(values))

    def render(self, values: Values, **how: Any) -> list[Object]:
        """The manifests, in Helm's order; `how` as for `template`. Raises HelmError."""
        return [each for each in yaml.safe_load_all(self.template(values, **how)) if each]

    def refusal(self, values: Values, **how: Any) -> str:
        """What Helm says against `values`. Raises AssertionError when it takes them."""
        try:
            self.template(values, **how)
        except HelmError as error:
            return str(error)
        raise AssertionError(f"taken: {values}")

    def notes(self, values: Values, **how: Any) -> str:
        """What is printed after an installation. Raises HelmError."""
        copy = self.home / "chart"
        if not copy.exists():
            shutil.copytree(CHART, copy)
            (copy / "templates" / "notes.yaml").write_text(_NOTES)
        text: str = self.render(values, chart=copy, show_only=["notes.yaml"], **how)[0]["data"]["notes"]
        return text


def sources(text: str) -> list[str]:
    """The template that each manifest of `template` came from, by its path below `templates`."""
    return re.findall(r"^# Source: [^/]+/templates/(\S+)$", text, flags=re.MULTILINE)


def pick(objects: Sequence[Object], kind: str, name: str | None = None) -> Object:
    """The one object of that kind (and name). Raises AssertionError."""
    found = [
        each
        for each in objects
        if each["kind"] == kind and (name is None or each["metadata"]["name"] == name)
    ]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
    return found[0]


def pod_specs(objects: Sequence[Object]) -> Iterator[tuple[Object, Object, Object]]:
    """(object, metadata of its pods, spec of its pods) of each that has pods."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each, each["metadata"], each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet"):
            yield each, each["spec"]["template"]["metadata"], each["spec"]["template"]["spec"]


def container(spec: Object, name: str) -> Object:
    """The container of that name in the spec of a pod. Raises StopIteration."""
    found: Object = next(each for each in spec["containers"] if each["name"] == name)
    return found
