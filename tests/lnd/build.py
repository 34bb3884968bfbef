"""Real LNDs for the tests: built by Go from the tool modules beside this file, and kept in a cache.

The newest LND's module has two further tools, which serve all LNDs: btcd, which is their chain where a
test needs channels, and lncli, with which the tests open them.

`python -m tests.lnd.build` builds all of them and prints where they are.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Literal

from tests.harness.building import BuildError, cache_dir, digest_of, kept, run, tell

VERSIONS = ("0.21", "0.20")
TOOLS_VERSION = "0.21"
"""The one whose module has the further tools."""

Tool = Literal["lnd", "lncli", "btcd"]
_MODULES = Path(__file__).resolve().parent
_COMMANDS: dict[Tool, str] = {
    "lnd": "github.com/lightningnetwork/lnd/cmd/lnd",
    "lncli": "github.com/lightningnetwork/lnd/cmd/lncli",
    "btcd": "github.com/btcsuite/btcd",
}
_TOOLS: dict[str, tuple[Tool, ...]] = {TOOLS_VERSION: ("lnd", "lncli", "btcd"), "0.20": ("lnd",)}
_TAGS = "signrpc walletrpc peersrpc routerrpc"


def binary_path(version: str, tool: Tool = "lnd") -> Path:
    """The one place a build of this module with this Go belongs: whatever changes, the name changes."""
    module = _module(version)
    if tool not in _TOOLS[version]:
        raise BuildError(f"the module of LND {version} has no {tool}; it has {', '.join(_TOOLS[version])}")
    parts = ((module / "go.mod").read_bytes(), (module / "go.sum").read_bytes(), _go_version(module))
    name = "lnd" if tool == "lnd" else f"{tool}-lnd"
    return cache_dir() / f"{name}-{version}-{digest_of(parts)}"


def ensure(version: str, tool: Tool = "lnd") -> Path:
    """The binary of this LND or of a tool beside it, built when it is not there yet (LND: some minutes)."""
    return kept(binary_path(version, tool), partial(_build, _module(version), tool))


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
    return run([_go(), "env", "GOVERSION", "GOOS", "GOARCH"], module).stdout


def _build(module: Path, tool: Tool, output: Path) -> None:
    run([_go(), "build", "-mod=readonly", "-tags", _TAGS, "-o", str(output), _COMMANDS[tool]], module)


if __name__ == "__main__":
    sys.exit(tell(lambda: (ensure(version, tool) for version in VERSIONS for tool in _TOOLS[version])))
