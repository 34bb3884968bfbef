"""Prometheus and promtool for the tests: Debian's package, unpacked into a cache and never installed.

`python -m tests.monitoring.build` fetches it and prints where the two programs are.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.harness.building import BuildError, cache_dir, digest_of, kept, run

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")

T = TypeVar("T")


def ensure() -> dict[str, Path]:
    """The two programs by name, fetched when they are not there yet. Raises BuildError.

    Where apt has no lists, or old ones, root gets new ones first: a fresh container has none.
    """
    version = _with_lists(_candidate)
    folder = kept(cache_dir() / f"{PACKAGE}-{digest_of([version])}", _unpack)
    return {name: folder / "usr" / "bin" / name for name in PROGRAMS}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"the tests with a real Prometheus need Debian's {name}: it is not on the PATH")
    return found


def _candidate() -> bytes:
    """What apt would fetch, version and all; asked of its lists, without a network."""
    show = _tool("apt-cache")
    try:
        shown = run([show, "show", "--no-all-versions", PACKAGE], Path("/")).stdout
    except BuildError:
        raise BuildError(f"apt knows no package {PACKAGE}: run `apt-get update` as root") from None
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


def _unpack(target: Path) -> None:
    scratch = target.parent
    _with_lists(lambda: run([_tool("apt-get"), "download", PACKAGE], scratch))
    (package,) = scratch.glob("*.deb")
    run([_tool("dpkg"), "--extract", str(package), str(target)], scratch)


def main() -> int:
    """Fetch what is not there, and print the paths."""
    try:
        for path in ensure().values():
            print(path, flush=True)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
