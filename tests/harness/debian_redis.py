"""Debian's redis-server for the tests, as operators have it: unpacked into the cache, never installed."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.harness.building import cache_dir, digest_of, kept, tell
from tests.harness.debian import unpacked

LIBRARIES = ("libatomic1", "libjemalloc2", "liblzf1")
"""What it needs beside what Python needs itself."""


def ensure() -> Path:
    """The program, fetched when it is not there yet. Raises BuildError."""
    tools = unpacked("redis-tools")
    libraries = [folder for name in LIBRARIES for folder in unpacked(name).glob("usr/lib/*-linux-gnu")]
    parts = [str(path).encode() for path in (tools, *libraries)]
    folder = kept(
        cache_dir() / f"redis-server-{digest_of(parts)}", lambda target: _wrap(target, tools, libraries)
    )
    return folder / "start"


def _wrap(folder: Path, tools: Path, libraries: list[Path]) -> None:
    folder.mkdir()
    # One program, which looks at its name for what it is.
    (folder / "redis-server").symlink_to(tools / "usr" / "bin" / "redis-check-rdb")
    script = folder / "start"
    beside = ":".join(map(str, libraries))
    script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={beside} exec "$(dirname "$0")/redis-server" "$@"\n')
    script.chmod(0o755)


if __name__ == "__main__":
    sys.exit(tell(lambda: [ensure()]))
