"""Prometheus and promtool for the tests: Debian's package, unpacked into a cache and never installed.

`python -m tests.monitoring.build` fetches it and prints where the two programs are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.harness.building import tell
from tests.harness.debian import unpacked

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")


def ensure() -> dict[str, Path]:
    """The two programs by name, fetched when they are not there yet. Raises BuildError."""
    folder = unpacked(PACKAGE)
    return {name: folder / "usr" / "bin" / name for name in PROGRAMS}


if __name__ == "__main__":
    sys.exit(tell(lambda: ensure().values()))
