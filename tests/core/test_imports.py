"""Who may import whom: the layers of the code, read from its import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sidecar

ROOT = Path(sidecar.__file__).parent

# A module, or a package with all that is in it → what of `sidecar` it may import. The first that fits holds.
LAYERS: dict[str, tuple[str, ...]] = {
    "sidecar.rpc": ("sidecar.rpc",),
    "sidecar.core": ("sidecar.core",),
    "sidecar.ports": ("sidecar.core",),
    "sidecar.timings": (),
    "sidecar.logs": (),
    "sidecar.problems": ("sidecar.ports",),
    "sidecar.peeler": ("sidecar.core", "sidecar.ports"),
    "sidecar.courier": ("sidecar.core", "sidecar.ports"),
    "sidecar.bindings": ("sidecar.core", "sidecar.ports"),
    "sidecar.allowances": ("sidecar.core", "sidecar.ports"),
    "sidecar.clients": ("sidecar.allowances", "sidecar.bindings", "sidecar.core", "sidecar.mailroom"),
    "sidecar.deliveries": ("sidecar.core", "sidecar.ports"),
    "sidecar.pending": ("sidecar.core",),
    "sidecar.mailroom": (
        "sidecar.allowances",
        "sidecar.bindings",
        "sidecar.core",
        "sidecar.deliveries",
        "sidecar.pending",
        "sidecar.ports",
    ),
    "sidecar.lsps": ("sidecar.core", "sidecar.ports"),
    "sidecar.lease": ("sidecar.core", "sidecar.ports"),
    "sidecar.standby": (),
    "sidecar.leading": (
        "sidecar.core",
        "sidecar.lease",
        "sidecar.mailroom",
        "sidecar.ports",
        "sidecar.standby",
    ),
    "sidecar.again": ("sidecar.core", "sidecar.ports"),
    "sidecar.service": (
        "sidecar.again",
        "sidecar.allowances",
        "sidecar.core",
        "sidecar.ports",
        "sidecar.bindings",
        "sidecar.courier",
        "sidecar.mailroom",
        "sidecar.peeler",
        "sidecar.timings",
    ),
    "sidecar.parsing": (),
    "sidecar.settings": ("sidecar.core", "sidecar.parsing"),
    "sidecar.options": ("sidecar.core", "sidecar.parsing", "sidecar.settings"),
    "sidecar.config": ("sidecar.core", "sidecar.options", "sidecar.settings"),
    "sidecar.adapters": (
        "sidecar.adapters",
        "sidecar.core",
        "sidecar.ports",
        "sidecar.rpc",
        "sidecar.problems",
        "sidecar.timings",
    ),
    "sidecar.meeting": ("sidecar.adapters", "sidecar.core"),
    "sidecar.report": (
        "sidecar.__version__",
        "sidecar.adapters",
        "sidecar.mailroom",
        "sidecar.problems",
        "sidecar.timings",
    ),
    "sidecar.app": (
        "sidecar.__version__",
        "sidecar.adapters",
        "sidecar.assembly",
        "sidecar.config",
        "sidecar.core.errors",
        "sidecar.logs",
        "sidecar.meeting",
        "sidecar.timings",
    ),
    "sidecar.assembly": (
        "sidecar.__version__",
        "sidecar.adapters",
        "sidecar.allowances",
        "sidecar.bindings",
        "sidecar.clients",
        "sidecar.config",
        "sidecar.core",
        "sidecar.courier",
        "sidecar.doctor",
        "sidecar.leading",
        "sidecar.lsps",
        "sidecar.mailroom",
        "sidecar.meeting",
        "sidecar.peeler",
        "sidecar.ports",
        "sidecar.problems",
        "sidecar.report",
        "sidecar.service",
    ),
    # It looks at what the server stands on, whether a server runs or not.
    "sidecar.doctor": (
        "sidecar.__version__",
        "sidecar.adapters",
        "sidecar.config",
        "sidecar.core",
        "sidecar.parsing",
    ),
    "sidecar.cli.doctor": (
        "sidecar.__version__",
        "sidecar.adapters.admin_client",
        "sidecar.cli",
        "sidecar.config",
        "sidecar.core",
        "sidecar.doctor",
        "sidecar.logs",
        "sidecar.rpc.sidecar.v1",
    ),
    "sidecar.cli": (
        "sidecar.__version__",
        "sidecar.adapters.admin_client",
        "sidecar.adapters.admin_remote",
        "sidecar.adapters.permissions",
        "sidecar.app",
        "sidecar.cli",
        "sidecar.config",
        "sidecar.core",
        "sidecar.options",
        "sidecar.parsing",
        # The messages of the admin service, which it prints; never LND's.
        "sidecar.rpc.sidecar.v1",
        "sidecar.settings",
    ),
    "sidecar.__main__": ("sidecar.cli",),
    "sidecar": (),
}

# The core takes bytes and gives bytes: what it may use of Python has no clock, socket, log or file.
CORE_MAY_USE = {
    *("collections", "dataclasses", "enum", "functools", "hashlib", "hmac", "re", "typing"),
    # Text to values and back; of datetime just what is told which time it is.
    *("base64", "datetime", "ipaddress", "json", "urllib"),
}

CRYPTO = {"coincurve", "cryptography"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, by its full name."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["sidecar", *path.relative_to(ROOT).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(), str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    """What a module imports, wherever in it; `from a import b` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import would slip through the rules: refuse it by a name that none allows.
            base = "sidecar.<relative>" if node.level else node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    """Whether a name is a package's, or in it."""
    return name == package or name.startswith(package + ".")


def trespasses(module: str, tree: ast.Module) -> list[str]:
    """The imports of a module that its layer may not have."""
    allowed = next(may for layer, may in LAYERS.items() if within(module, layer))
    ours = [name for name in imported(tree) if within(name, "sidecar")]
    return [name for name in ours if not any(within(name, package) for package in allowed)]


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("sidecar.core.wire", "from sidecar.core.errors import BadBigSize", 0),
        ("sidecar.core.wire", "from sidecar.ports import Clock", 1),
        ("sidecar.core.wire", "def f():\n    import sidecar.adapters.lnd", 1),
        ("sidecar.core.wire", "from . import errors", 1),
        ("sidecar.core.wire", "from sidecar import core, ports", 1),
        ("sidecar.service", "from sidecar.adapters import lnd", 1),
        (
            "sidecar.adapters.lnd",
            "from sidecar.ports import NodeKey\nfrom sidecar.rpc import lightning_pb2",
            0,
        ),
        ("sidecar.adapters.lnd", "from sidecar.service import SidecarService", 1),
        ("sidecar.adapters.lnd", "from sidecar.portside import x", 1),
        ("sidecar.cli", "from sidecar.adapters.lnd import Lnd", 1),
        ("sidecar.cli", "from sidecar.rpc import lightning_pb2", 1),
        ("sidecar.app", "from sidecar.rpc import lightning_pb2", 1),
        ("sidecar.other", "from sidecar import core", 1),
    ],
)
def test_an_import_across_the_layers_is_noticed(module: str, source: str, count: int) -> None:
    """The rule below can fail: made-up modules that break it are caught, and those that don't are not."""
    assert len(trespasses(module, ast.parse(source))) == count


def test_imports_point_inwards() -> None:
    """`app → service, adapters, config; service → core, ports; adapters → ports, core, rpc; core → core`."""
    found = {name: wrong for name, tree in modules() if (wrong := trespasses(name, tree))}
    assert not found
    assert {name.split(".")[1] for name, _ in modules() if "." in name} >= {
        "core",
        "adapters",
        "service",
        "app",
    }


def test_the_core_has_no_clock_socket_log_or_wait() -> None:
    """Time, entropy and shared secrets are arguments of the core; it does no I/O and waits for nothing."""
    for name, tree in modules():
        if not within(name, "sidecar.core"):
            continue
        outside = {top for top in (what.partition(".")[0] for what in imported(tree)) if top != "sidecar"}
        assert outside <= CORE_MAY_USE | (CRYPTO if name == "sidecar.core.keys" else set()), name
        waits = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
        assert not waits, name


def test_one_module_imports_the_cryptography() -> None:
    """core/keys.py alone touches coincurve and cryptography: what else is done with keys, it does."""
    users = {
        name for name, tree in modules() if any(what.partition(".")[0] in CRYPTO for what in imported(tree))
    }
    assert users == {"sidecar.core.keys"}
