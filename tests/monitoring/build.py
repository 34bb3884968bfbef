"""Prometheus and promtool for the tests: Debian's package, unpacked into a cache and never installed.

`python -m tests.monitoring.build` fetches it and prints where the two programs are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.harness.building import BuildError
from tests.harness.debian import unpacked

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")


def ensure() -> dict[str, Path]:
    """The two programs by name, fetched when they are not there yet. Raises BuildError."""
    folder = unpacked(PACKAGE)
    return {name: folder / "usr" / "bin" / name for name in PROGRAMS}


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
