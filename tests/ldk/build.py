"""The peers made of rust-lightning: built by cargo from the packages here, and kept in a cache.

`python -m tests.ldk.build` builds all of them and prints where they are; with `lint` it checks them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.harness.building import BuildError, cache_dir, digest_of, kept, lock, run, tell

VERSIONS = ("0.2", "0.3")
NODE = "ldk-node"
_FOLDER = Path(__file__).resolve().parent
_CARGO_TARGET = "cargo"


@dataclass(frozen=True, slots=True)
class _Package:
    """What cargo is told."""

    directory: Path
    features: tuple[str, ...]
    binary: str
    also: tuple[Path, ...] = ()
    """Folders of sources that it takes modules from, besides its own."""
    release: bool = False
    """Whether it is optimised, for it is measured."""

    def cargo(self, *command: str) -> None:
        """Run it here, with these features and no default ones."""
        options = ["--features", ",".join(self.features)] if self.features else []
        options += ["--release"] if self.release else []
        arguments = [command[0], "--locked", "--no-default-features", *options, *command[1:]]
        # One folder for all packages and features, so that dependencies are compiled once.
        target = {"CARGO_TARGET_DIR": str(cache_dir() / _CARGO_TARGET)}
        run([_tool("cargo"), *arguments], self.directory, target)


def lsps5(version: str) -> str:
    """The name of the peer of LDK 0.2 or 0.3 that has LSPS5 as well."""
    return f"lsps5-{version}"


def bench(version: str) -> str:
    """The name of the server of LDK 0.2 or 0.3 that benchmarks are held against."""
    return f"bench-{version}"


_PACKAGES = {
    "0.2": _Package(_FOLDER, ("ldk-0_2",), "ldk-peer"),
    "0.3": _Package(_FOLDER, ("ldk-0_3",), "ldk-peer"),
    NODE: _Package(_FOLDER / "node", (), "ldk-node-wallet"),
    lsps5("0.2"): _Package(_FOLDER / "lsps5", ("ldk-0_2",), "ldk-lsps5", also=(_FOLDER / "src",)),
    lsps5("0.3"): _Package(_FOLDER / "lsps5", ("ldk-0_3",), "ldk-lsps5", also=(_FOLDER / "src",)),
    bench("0.2"): _Package(_FOLDER / "bench", ("ldk-0_2",), "ldk-bench", release=True),
    bench("0.3"): _Package(_FOLDER / "bench", ("ldk-0_3",), "ldk-bench", release=True),
}


def ensure(name: str) -> Path:
    """LDK 0.2's or 0.3's peer, NODE, an `lsps5` or a `bench`: built if it is not there (minutes at first)."""
    if name not in _PACKAGES:
        raise BuildError(f"no LDK {name} here; there are {', '.join(_PACKAGES)}")
    package = _PACKAGES[name]
    return kept(_binary_path(package), partial(_build, package))


def _binary_path(package: _Package) -> Path:
    parts = [",".join(package.features).encode()]
    parts += [(package.directory / name).read_bytes() for name in ("Cargo.toml", "Cargo.lock")]
    for folder in (package.directory / "src", *package.also):
        for source in sorted(folder.rglob("*.rs")):
            # `Path.relative_to` leads out of a folder from Python 3.12 on only.
            parts += [os.path.relpath(source, package.directory).encode(), source.read_bytes()]
    # Asked inside the package: a toolchain file there may choose another compiler.
    parts.append(run([_tool("rustc"), "-vV"], package.directory).stdout)
    name = "-".join([package.binary, *package.features])
    return cache_dir() / f"{name}-{digest_of(parts)}"


def _build(package: _Package, output: Path) -> None:
    # The finished binary has one name in cargo's folder for all features: it is copied away under a lock.
    with lock(cache_dir() / f"{_CARGO_TARGET}.lock"):
        package.cargo("build", "--bin", package.binary)
        profile = "release" if package.release else "debug"
        shutil.copy2(cache_dir() / _CARGO_TARGET / profile / package.binary, output)


def _lint() -> None:
    for directory in sorted({package.directory for package in _PACKAGES.values()}):
        run([_tool("cargo"), "fmt", "--check"], directory)
    for package in _PACKAGES.values():
        package.cargo("clippy", "--quiet", "--", "-D", "warnings")


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"the tests with LDK need Rust to build it: `{name}` is not on the PATH")
    return found


def _all(arguments: Sequence[str]) -> Iterator[Path]:
    """Every peer, built; or, told to `lint`, nothing, when format and clippy are content."""
    if list(arguments) == ["lint"]:
        _lint()
        return
    for name in _PACKAGES:
        yield ensure(name)


if __name__ == "__main__":
    sys.exit(tell(lambda: _all(sys.argv[1:])))
