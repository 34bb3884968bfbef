"""Which of the inputs that a fuzzer found are worth keeping: the shortest that reach each line."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import sidecar
from tests.fuzz.target import Target
from tests.fuzz.targets import CORPUS

Line = tuple[CodeType, int]

_PRODUCT = str(Path(sidecar.__file__).parent)


def lines_of(target: Target, data: bytes) -> set[Line]:
    """The lines of the product that an input runs through."""
    found: set[Line] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PRODUCT):
            return None
        if event == "line":
            found.add((frame.f_code, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(*target.may_raise):
            target.read(data)
    finally:
        sys.settrace(before)
    return found


def worth_keeping(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Those that reach a line which neither the seeds reach nor a shorter one does."""
    reached: set[Line] = set()
    for seed in target.seeds():
        reached |= lines_of(target, seed)
    kept = []
    for data in sorted(inputs, key=lambda each: (len(each), each)):
        if not (lines := lines_of(target, data)) <= reached:
            reached |= lines
            kept.append(data)
    return kept


def keep(target: Target, work: Path, longest: int) -> int:
    """Make a target's corpus anew, of what it has and what is in `work`; bytes that it has then.

    Inputs of more than `longest` bytes are left out: the corpus is part of the repository.
    """
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    old = [*folder.iterdir()]
    inputs = {path.read_bytes() for path in (*old, *work.iterdir()) if path.stat().st_size <= longest}
    kept = worth_keeping(target, inputs)
    for path in old:
        path.unlink()
    for data in kept:
        folder.joinpath(hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    if not kept:
        folder.rmdir()
    return sum(map(len, kept))
