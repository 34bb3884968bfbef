"""Prometheus and promtool for the tests: Debian's package, unpacked into a cache and never installed.

`python -m tests.monitoring.build` fetches it and prints where the two programs are.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.harness.building import BuildError, cache_dir, digest_of, kept, run

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")


def ensure() -> dict[str, Path]:
    """The two programs by name, fetched when they are not there yet. Raises BuildError."""
    version = _candidate()
    folder = kept(cache_dir() / f"{PACKAGE}-{digest_of([version])}", _unpack)
    return {name: folder / "usr" / "bin" / name for name in PROGRAMS}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"the tests with a real Prometheus need Debian's {name}: it is not on the PATH")
    return found


def _candidate() -> bytes:
    """What apt would fetch, version and all; asked of its lists, without a network."""
    shown = run([_tool("apt-cache"), "show", "--no-all-versions", PACKAGE], Path("/")).stdout
    lines = [line for line in shown.splitlines() if line.startswith((b"Version:", b"SHA256:"))]
    if not lines:
        raise BuildError(f"apt knows no package {PACKAGE}: run `apt-get update`")
    return b"\n".join(lines)


def _unpack(target: Path) -> None:
    scratch = target.parent
    run([_tool("apt-get"), "download", PACKAGE], scratch)
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
