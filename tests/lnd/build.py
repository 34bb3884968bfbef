"""Real LNDs for the tests: built by Go from the tool modules beside this file, and kept in a cache.

`python -m tests.lnd.build` builds all of them and prints where they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSIONS = ("0.21", "0.20")
_MODULES = Path(__file__).resolve().parent
_COMMAND = "github.com/lightningnetwork/lnd/cmd/lnd"
_TAGS = "signrpc walletrpc peersrpc routerrpc"


class BuildError(Exception):
    """An LND could not be built; the text says what to do about it."""


def cache_dir() -> Path:
    """Where binaries are kept: `SIDECAR_CACHE`, or a folder of ours in the user's cache."""
    if chosen := os.environ.get("SIDECAR_CACHE"):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "static-invoice-sidecar"


def binary_path(version: str) -> Path:
    """The one place a build of this module with this Go belongs: whatever changes, the name changes."""
    module = _module(version)
    digest = hashlib.sha256()
    for part in ((module / "go.mod").read_bytes(), (module / "go.sum").read_bytes(), _go_version(module)):
        digest.update(len(part).to_bytes(8, "big") + part)
    return cache_dir() / f"lnd-{version}-{digest.hexdigest()[:16]}"


def ensure(version: str) -> Path:
    """The binary of this LND, built when it is not there yet (some minutes the first time)."""
    target = binary_path(version)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_name(target.name + ".lock")):
        # Another process may have built it while this one waited for the lock.
        if not target.exists():
            _build(_module(version), target)
    return target


def _module(version: str) -> Path:
    if version not in VERSIONS:
        raise BuildError(f"no LND {version} here; there are {', '.join(VERSIONS)}")
    return _MODULES / f"v{version}"


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise BuildError("the tests with a real LND need Go to build it: `go` is not on the PATH")
    return go


def _go_version(module: Path) -> bytes:
    # Asked inside the module: its `go` line may make Go choose another toolchain.
    return _run([_go(), "env", "GOVERSION", "GOOS", "GOARCH"], module).stdout


def _build(module: Path, target: Path) -> None:
    # Built beside its place and renamed, so that a build cut short is never taken for a binary.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as scratch:
        output = Path(scratch) / "lnd"
        _run([_go(), "build", "-mod=readonly", "-tags", _TAGS, "-o", str(output), _COMMAND], module)
        output.rename(target)


def _run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, check=False)
    if done.returncode:
        tail = done.stderr.decode(errors="replace")[-4000:]
        raise BuildError(f"`{' '.join(command)}` failed in {cwd}:\n{tail}")
    return done


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build every LND and print its path."""
    try:
        for version in VERSIONS:
            print(ensure(version), flush=True)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
