"""Volumes of a pod as the kubelet lays them out: what is in them, whose they are, who may read them."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.harness.mounted import Mount
from tests.helm.charts import Object


class PodError(Exception):
    """A pod that no kubelet would run, or one with something that is not known here."""


class Objects:
    """What is in the namespace."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self._objects = {(each["kind"], each["metadata"]["name"]): each for each in objects}

    def __iter__(self) -> Iterator[Object]:
        return iter(self._objects.values())

    def get(self, kind: str, name: str) -> Object:
        """Raises PodError when there is none."""
        try:
            return self._objects[kind, name]
        except KeyError:
            raise PodError(f"there is no {kind} {name}") from None

    def data(self, kind: str, name: str) -> dict[str, bytes]:
        """The contents of a ConfigMap or a Secret. Raises PodError."""
        found = self.get(kind, name)
        data = found.get("data") or {}
        if kind == "Secret":
            texts = found.get("stringData") or {}
            return {key: base64.b64decode(value) for key, value in data.items()} | {
                key: value.encode() for key, value in texts.items()
            }
        return {key: value.encode() for key, value in data.items()}

    def value(self, kind: str, name: str, key: str) -> bytes:
        """One of their keys. Raises PodError."""
        data = self.data(kind, name)
        if key not in data:
            raise PodError(f"there is no {key} in {kind} {name}")
        return data[key]


class Volume:
    """One volume of a pod, in a directory of its own."""

    def __init__(self, folder: Path, described: Mapping[str, Any], group: int | None, claims: Path) -> None:
        """`described`: as the pod's spec has it. `group`: fsGroup. `claims`: where those of claims lie."""
        self._described = {name: value for name, value in described.items() if name != "name"}
        (self.kind,) = self._described
        self._group = group
        self._mount: Mount | None = None
        self.folder = folder
        if self.kind == "persistentVolumeClaim":
            self.folder = claims / self._described[self.kind]["claimName"]
        self.read_only = self.kind in ("configMap", "secret", "projected")

    def make(self, objects: Objects) -> None:
        """Bring it to what it is when the pod starts. Raises PodError."""
        if self.read_only:
            self._mount = Mount(self.folder, self._files(objects))
            self._owned()
        elif self.kind in ("emptyDir", "persistentVolumeClaim"):
            fresh = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                self._writable()
        else:
            raise PodError(f"a volume {self.kind} is not known here")

    def renew(self, objects: Objects) -> None:
        """Bring what is in the objects now, in a pod that runs. Raises PodError."""
        if self._mount is not None:
            self._mount.swap(self._files(objects))
            self._owned()

    def _files(self, objects: Objects) -> dict[str, bytes]:
        described = self._described[self.kind]
        if self.kind == "projected":
            files: dict[str, bytes] = {}
            for source in described["sources"]:
                ((kind, part),) = source.items()
                files |= _chosen(objects, kind, part)
            return files
        return _chosen(objects, self.kind, described)

    def _owned(self) -> None:
        """Root's and the group's: fsGroup may read, and enter, whatever the mode is."""
        mode = self._described[self.kind].get("defaultMode", 0o644)
        for path in (self.folder / "..data").resolve().iterdir():
            path.chmod(mode | (0 if self._group is None else 0o440))
            os.chown(path, 0, 0 if self._group is None else self._group)

    def _writable(self) -> None:
        if self._group is None:
            self.folder.chmod(0o777 if self.kind == "emptyDir" else 0o755)
            return
        os.chown(self.folder, 0, self._group)
        self.folder.chmod(0o2777 if self.kind == "emptyDir" else 0o2775)


def _chosen(objects: Objects, kind: str, part: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that a ConfigMap or Secret gives to a volume."""
    kinds = {"configMap": "ConfigMap", "secret": "Secret"}
    known = {"name", "secretName", "items", "defaultMode"}
    if kind not in kinds or set(part) - known:
        raise PodError(f"a source {kind} with {', '.join(sorted(part))} is not known here")
    name = part.get("secretName") or part["name"]
    if "items" not in part:
        return objects.data(kinds[kind], name)
    return {item["path"]: objects.value(kinds[kind], name, item["key"]) for item in part["items"]}
