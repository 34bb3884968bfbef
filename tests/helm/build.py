"""Helm, what checks a chart, and a Kubernetes for the chart's tests: built by Go and kept in a cache.

Two Go modules beside this file pin all of it: `tools/chart` has helm, helm-docs, helm-unittest and kwok,
`tools/kube` has Kubernetes' own programs and the etcd that they are made for.

`python -m tests.helm.build` builds all of them (some minutes) and prints where they are.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.harness.building import BuildError, cache_dir, digest_of, kept, run, tell

_MODULES = Path(__file__).resolve().parent / "tools"


class _Module(NamedTuple):
    """A Go module of ours: what is built of it, and what the programs are told of their versions."""

    name: str
    packages: Mapping[str, str]
    """The Go package of each program."""
    told: Callable[[Mapping[str, str]], Mapping[str, str]]
    """The variables to set in them, made from the versions that go.mod requires."""

    @property
    def path(self) -> Path:
        return _MODULES / self.name


def _told_to_helm(required: Mapping[str, str]) -> Mapping[str, str]:
    # Helm's own releases take the Kubernetes that they are made with for a chart's; else it would be 1.20.
    major, minor = "1", required["k8s.io/client-go"].split(".")[1]
    return {
        "helm.sh/helm/v3/internal/version.version": required["helm.sh/helm/v3"],
        **{
            f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}": value
            for package in ("chartutil", "lint/rules")
            for part, value in (("Major", major), ("Minor", minor))
        },
        # Of these programs helm-docs alone has it.
        "main.version": required["github.com/norwoodj/helm-docs"].removeprefix("v"),
    }


def _told_to_kubernetes(required: Mapping[str, str]) -> Mapping[str, str]:
    version = required["k8s.io/kubernetes"]
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return {f"k8s.io/component-base/version.{name}": value for name, value in values.items()}


_ALL = (
    _Module(
        "chart",
        {
            "helm": "helm.sh/helm/v3/cmd/helm",
            "helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs",
            "helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
            "kwok": "sigs.k8s.io/kwok/cmd/kwok",
        },
        _told_to_helm,
    ),
    _Module(
        "kube",
        {
            "etcd": "go.etcd.io/etcd/server/v3",
            **{
                name: f"k8s.io/kubernetes/cmd/{name}"
                for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
            },
        },
        _told_to_kubernetes,
    ),
)


def ensure() -> Mapping[str, Path]:
    """All programs by name, built when they are not there yet (some minutes). Raises BuildError.

    They are helm, helm-docs, helm-unittest, kwok, etcd, kube-apiserver, kube-controller-manager,
    kube-scheduler and kubectl.
    """
    programs: dict[str, Path] = {}
    for module in _ALL:
        flags = _flags(module)
        folder = kept(_folder(module, flags), partial(_build, module, flags))
        programs |= {name: folder / name for name in module.packages}
    return programs


def _folder(module: _Module, flags: str) -> Path:
    """The one place where a build of this module with this Go belongs: whatever changes, the name changes."""
    # Asked inside the module: its `go` line may make Go choose another toolchain.
    go_version = run([_go(), "env", "GOVERSION", "GOOS", "GOARCH"], module.path).stdout
    files = ((module.path / name).read_bytes() for name in ("go.mod", "go.sum"))
    parts = (*files, go_version, flags.encode(), repr(module.packages).encode())
    return cache_dir() / f"helm-{module.name}-{digest_of(parts)}"


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            "the chart's tests need Go to build Helm and a Kubernetes: `go` is not on the PATH; "
            "install Go 1.26 or newer"
        )
    return go


def _flags(module: _Module) -> str:
    """For the linker: no symbols for a debugger, which halves the programs, and the versions."""
    lines = (line.split() for line in (module.path / "go.mod").read_text().splitlines())
    required = {words[0]: words[1] for words in lines if len(words) > 1 and re.match(r"v\d", words[1])}
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in module.told(required).items())])


def _build(module: _Module, flags: str, folder: Path) -> None:
    folder.mkdir()
    # All in one command: Go links one program while it compiles the next.
    packages = module.packages.values()
    command = [_go(), "build", "-mod=readonly", "-ldflags", flags, "-o", f"{folder}/", *packages]
    run(command, module.path, {"CGO_ENABLED": "0"})
    for name, package in module.packages.items():
        # Go names a program by the last part of its package that is no version.
        (folder / Path(re.sub(r"/v\d+$", "", package)).name).rename(folder / name)


if __name__ == "__main__":
    sys.exit(tell(lambda: ensure().values()))
