"""Generate `sidecar/rpc` from the `.proto` files beside this script.

Usage: `python protos/generate.py [OUT]` — OUT is the directory that holds the
`sidecar` package (default: the repository). `make protos` calls it; a test
calls it into a scratch directory and compares.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write the stubs and their `.pyi` files below `out`/sidecar/rpc."""
    # The virtual path makes the generated imports read `from sidecar.rpc import …`.
    sources = sorted(PROTOS.rglob("*.proto"))
    names = [f"sidecar/rpc/{path.relative_to(PROTOS).as_posix()}" for path in sources]
    arguments = [
        "protoc",
        f"-Isidecar/rpc={PROTOS}",
        *(f"--{plugin}={out}" for plugin in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")),
    ]
    if protoc.main([*arguments, *names]) != 0:
        raise SystemExit("protoc failed; its message is above")
    rpc = out / "sidecar" / "rpc"
    for folder in (rpc, rpc / "sidecar", rpc / "sidecar" / "v1"):
        (folder / "__init__.py").write_text('"""Generated from protos/ by `make protos`; never edited."""\n')


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent)
