"""Where the test vectors lie: `SIDECAR_VECTORS`, by default `../shared/vectors` seen from the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent
_REQUIRED = "SIDECAR_VECTORS_REQUIRED"


def vectors(*parts: str) -> Path:
    """The path of a vectors file or folder; skips the test, with the reason, when it is absent.

    With `SIDECAR_VECTORS_REQUIRED=1` an absent one fails the test: CI must not skip.
    """
    folder = os.environ.get("SIDECAR_VECTORS")
    root = Path(folder) if folder else _REPOSITORY.parent / "shared" / "vectors"
    path = root.joinpath(*parts)
    if path.exists():
        return path
    reason = f"no {'/'.join(parts)} among the test vectors: set SIDECAR_VECTORS to their folder"
    if os.environ.get(_REQUIRED) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def load(*parts: str) -> Any:
    """A JSON vectors file, parsed; skips or fails as `vectors` does."""
    return json.loads(vectors(*parts).read_text())
