"""Programs out of Debian's packages for the tests, unpacked into the cache and never installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.harness.building import BuildError, cache_dir, digest_of, kept, run

T = TypeVar("T")


def unpacked(package: str) -> Path:
    """The folder with a package's files, fetched when it is not there yet. Raises BuildError.

    Where apt has no lists, or old ones, root gets new ones first: a fresh container has none.
    """
    version = _with_lists(partial(_candidate, package))
    return kept(cache_dir() / f"{package}-{digest_of([version])}", partial(_unpack, package))


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"the tests take programs from Debian's packages: its {name} is not on the PATH")
    return found


def _candidate(package: str) -> bytes:
    """What apt would fetch, version and all; asked of its lists, without a network."""
    show = _tool("apt-cache")
    try:
        shown = run([show, "show", "--no-all-versions", package], Path("/")).stdout
    except BuildError:
        raise BuildError(f"apt knows no package {package}: run `apt-get update` as root") from None
    return b"\n".join(line for line in shown.splitlines() if line.startswith((b"Version:", b"SHA256:")))


def _with_lists(ask: Callable[[], T]) -> T:
    """What apt answers, asked once more with new lists if it has none."""
    try:
        return ask()
    except BuildError:
        if os.geteuid():
            raise
        run([_tool("apt-get"), "update"], Path("/"))
        return ask()


def _unpack(package: str, target: Path) -> None:
    scratch = target.parent
    _with_lists(lambda: run([_tool("apt-get"), "download", package], scratch))
    (fetched,) = scratch.glob("*.deb")
    run([_tool("dpkg"), "--extract", str(fetched), str(target)], scratch)
