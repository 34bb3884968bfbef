"""A ConfigMap or Secret as Kubernetes mounts it: links into a directory that is replaced as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


class Mount:
    """`mount / name` is a link to `..data/name`, and `..data` one to the directory of the present version."""

    def __init__(self, folder: Path, files: Mapping[str, bytes]) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()
        self.swap(files)
        for name in files:
            (folder / name).symlink_to(Path("..data") / name)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def swap(self, files: Mapping[str, bytes]) -> None:
        """Bring other contents, all at once, as the kubelet does: the old directory is removed after it."""
        old = (self.folder / "..data").resolve() if self._version else None
        self._version += 1
        fresh = self.folder / f"..2026_01_01_00_00_00.{self._version}"
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(fresh.name)
        link.replace(self.folder / "..data")
        if old is not None:
            shutil.rmtree(old)
