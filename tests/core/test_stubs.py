"""The gRPC stubs are what protos/ makes of itself today."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from protos.generate import PROTOS, generate

RPC = PROTOS.parent / "sidecar" / "rpc"


def sources(folder: Path) -> dict[str, str]:
    """Every file below a folder that is source: path → text."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_stubs_and_protos_do_not_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated anew, sidecar/rpc has the same files with the same text: run `make protos` when not."""
    # protoc looks for the plugin that writes the .pyi files on PATH.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    generate(tmp_path)
    fresh, committed = sources(tmp_path / "sidecar" / "rpc"), sources(RPC)
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == []
    assert (
        len([name for name in fresh if name.endswith("_pb2.pyi")]) == len(list(PROTOS.rglob("*.proto"))) > 3
    )
