"""The sidecar on a machine whose wall clock a test moves: `python -m tests.harness.shifted FILE ARGUMENTS…`.

It is `python -m sidecar ARGUMENTS…`, with `time.time()` and `time.time_ns()` as many seconds ahead as FILE
says at each call; `set_clock` writes it. Monotonic clocks go on as they are, as they do when a machine's
clock is set. What does not ask Python's `time` module is not moved: the embedded Redis, and OpenSSL.
"""

import importlib
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

_WIDTH = 20
_SECOND = 1_000_000_000
_GRPC_MODULES = (
    "grpc._channel",
    "grpc._common",
    "grpc._cython.cygrpc",
    "grpc._server",
    "grpc._utilities",
    "grpc.aio._utils",
)
"""All that ask for the time in it."""


def set_clock(path: Path, seconds: int) -> None:
    """Put the clocks of those who read that file so many seconds ahead; back, when negative."""
    # One write of always the same width, in place: a reader never finds half of a number.
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, f"{seconds:+0{_WIDTH}d}".encode(), 0)
    finally:
        os.close(file)


def shift(path: Path) -> None:
    """Let this process's wall clock go by that file from now on. Raises OSError when there is none."""
    _spare_grpc()
    file = os.open(path, os.O_RDONLY)
    true_ns: Callable[[], int] = time.time_ns

    def shifted_ns() -> int:
        return true_ns() + int(os.pread(file, _WIDTH, 0)) * _SECOND

    def shifted() -> float:
        return shifted_ns() / _SECOND

    time.time, time.time_ns = shifted, shifted_ns


def _spare_grpc() -> None:
    """Leave gRPC the machine's clock.

    It counts a call's deadline from `time.time()` and hands it to its core, which has a clock of its
    own: with another one here each call would end at once, or never.
    """
    machines = ModuleType(time.__name__, time.__doc__)
    vars(machines).update(vars(time))
    for name in _GRPC_MODULES:
        vars(importlib.import_module(name))["time"] = machines


def main() -> None:
    """Take the first argument, and be the sidecar with the others."""
    path = Path(sys.argv.pop(1))
    shift(path)
    # Only now: the sidecar's modules bind time.time when they are read.
    runpy.run_module("sidecar", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
