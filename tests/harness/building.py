"""What the builds of other projects' programs share: the cache they are kept in, a lock, a command."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class BuildError(Exception):
    """A program could not be built; the text says what to do about it."""


def cache_dir() -> Path:
    """Where binaries are kept: `SIDECAR_CACHE`, or a folder of ours in the user's cache."""
    if chosen := os.environ.get("SIDECAR_CACHE"):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "static-invoice-sidecar"


def digest_of(parts: Iterable[bytes]) -> str:
    """A name part for all that a build is made from: whatever changes, the name changes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def run(
    command: list[str], cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a build's command to its end; `env` is added to our own environment."""
    full = None if env is None else {**os.environ, **env}
    done = subprocess.run(command, cwd=cwd, env=full, capture_output=True, check=False)
    if done.returncode:
        tail = done.stderr.decode(errors="replace")[-4000:]
        raise BuildError(f"`{' '.join(command)}` failed in {cwd}:\n{tail}")
    return done


def kept(target: Path, build: Callable[[Path], None]) -> Path:
    """The binary at `target`, built when it is not there yet: `build` is given where to write it."""
    if target.exists():
        return target
    with lock(target.with_name(target.name + ".lock")):
        # Another process may have built it while this one waited for the lock.
        if not target.exists():
            # Built beside its place and renamed, so that a build cut short is never taken for a binary.
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as scratch:
                output = Path(scratch) / target.name
                build(output)
                output.rename(target)
    return target


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """One process at a time builds a thing; the others wait here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tell(paths: Callable[[], Iterable[Path]]) -> int:
    """Print the paths of programs as they are built. Returns a process's exit code."""
    try:
        for path in paths():
            print(path, flush=True)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
