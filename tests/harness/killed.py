"""Sidecars that kill themselves at a point that a test names: `python -m tests.harness.killed FILE`.

It reads lines: each is the JSON list of the arguments of one `sidecar` command, which runs in a process
of its own until it ends; then the next line. All has been imported once, before, and each process is a
fork. At each pass of a Point it looks into FILE, and at the pass that `set_plan` wrote there, it sends
itself SIGKILL. What all of them write on stderr comes out of stderr, between lines of BEGAN and ENDED.
"""

import asyncio
import functools
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

BEGAN, ENDED = "--- began", "--- ended"
"""Before a process's id; before its id and its status, as os.waitpid gives it."""

_NOWHERE = b"nowhere"
_WIDTH = 64


class Point(Enum):
    """Where the sidecar's work may be cut off."""

    RECEIVED = "received"
    """A message was read from LND's stream."""
    DECODED = "decoded"
    """Its layers are peeled; nothing was read from Redis for it."""
    BEFORE_WRITE = "before the write"
    """A change is about to be sent to Redis."""
    WRITTEN = "between write and ack"
    """Redis has answered a change, and nobody was told."""
    ACKED = "after the ack"
    """LND was given the answer to a wallet."""
    LETTER_KEPT = "between mailbox write and delivery"
    """A letter is on disk, and was not handed over."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Die at a point, at the `passes`-th pass from now on.

    What is there waits for `delay` seconds before; all else goes on, as it does when a disk is slow.
    """

    point: Point
    passes: int
    delay: float = 0.0


def set_plan(path: Path, plan: Plan | None) -> None:
    """Let those who look into that file die so; None: live. Passes count from the change on."""
    words = _NOWHERE if plan is None else f"{plan.point.name} {plan.passes} {plan.delay:.6f}".encode()
    # One write of always the same width, in place: a reader never finds half of it.
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, words.ljust(_WIDTH), 0)
    finally:
        os.close(file)


class Killer:
    """Counts passes by the plan in a file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when there is no such file."""
        self._file = os.open(path, os.O_RDONLY)
        self._plan, self._passes = _NOWHERE, 0

    def passed(self, point: Point) -> float | None:
        """The process is at that point: in how many seconds it is to `die`; None: it goes on."""
        plan = os.pread(self._file, _WIDTH, 0)
        if plan != self._plan:
            self._plan, self._passes = plan, 0
        name, *numbers = plan.split()
        if name != point.name.encode():
            return None
        self._passes += 1
        return float(numbers[1]) if self._passes == int(numbers[0]) else None


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- the seams ----------------------------------------------------------------------------------


_Passed = Callable[..., float | None]


async def _die_in(delay: float | None) -> None:
    if delay is not None:
        await asyncio.sleep(delay)
        _die()


def _wrap(owner: type, name: str, before: _Passed, after: _Passed) -> None:
    """Let an async method pass `before` with its arguments, and `after` with its result and arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    async def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        await _die_in(before(*args, **kwargs))
        result = await original(self, *args, **kwargs)
        await _die_in(after(result, *args, **kwargs))
        return result

    setattr(owner, name, wrapped)


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _wrap_read(stream: type, found: _Passed) -> None:
    """Let the method that reads a stream's updates pass `found` for each that has something for us."""
    original = vars(stream)["_read"]

    @functools.wraps(original)
    def wrapped(self: Any, update: Any) -> Any:
        item = original(self, update)
        if item is not None and (delay := found()) is not None:
            time.sleep(delay)
            _die()
        return item

    type.__setattr__(stream, "_read", wrapped)


def wrap_seams(killer: Killer) -> None:
    """Let the sidecar's code of this process tell at which Point it is."""
    from sidecar.adapters.onions import CustomOnions, NativeOnions
    from sidecar.adapters.peers import NativeLsps
    from sidecar.adapters.redis_link import RedisLink
    from sidecar.courier import Courier
    from sidecar.mailroom import Mailroom
    from sidecar.peeler import Peeler

    def at(point: Point, wanted: Callable[..., bool] = lambda *_, **__: True) -> _Passed:
        return lambda *args, **kwargs: killer.passed(point) if wanted(*args, **kwargs) else None

    for stream in (NativeOnions, CustomOnions, NativeLsps):
        _wrap_read(stream, at(Point.RECEIVED))
    _wrap(Peeler, "peel", _nothing, at(Point.DECODED))
    before, after = at(Point.BEFORE_WRITE, _is_durable), at(Point.WRITTEN, _is_durable)
    _wrap(RedisLink, "_change", before, after)
    _wrap(Courier, "send", _nothing, at(Point.ACKED, _acknowledges))
    _wrap(NativeLsps, "send", _nothing, at(Point.ACKED))
    _wrap(Mailroom, "_keep", _nothing, at(Point.LETTER_KEPT, _is_on_disk))


def _is_durable(*_: Any, durable: bool, **__: Any) -> bool:
    return durable


def _acknowledges(_: None, parcel: Any) -> bool:
    return bool(parcel.message.what == "static_invoice_persisted")


def _is_on_disk(kept: tuple[bool, int | None], *_: Any) -> bool:
    return kept[1] is not None


# --- the program --------------------------------------------------------------------------------


def _tell(*words: object) -> None:
    # On a line of its own, though the one before was cut short.
    os.write(2, ("\n" + " ".join(map(str, words)) + "\n").encode())


def _be(arguments: list[str]) -> int:
    """Be the sidecar; its exit code."""
    from sidecar.cli import program

    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what this program is told is not for it
        os.dup2(null, standard)
    return program.main(arguments)


def main() -> None:
    """Serve the lines of stdin, one process after the other."""
    os.environ["GRPC_VERBOSITY"] = "NONE"  # as the command sets it before gRPC is loaded
    for module in ("sidecar.cli.program", "sidecar.app"):
        importlib.import_module(module)
    wrap_seams(Killer(Path(sys.argv[1])))
    for line in sys.stdin:
        arguments = json.loads(line)
        # gRPC was imported and not used: it has no threads yet that a fork would leave behind.
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _be(arguments)
            finally:
                os._exit(code)
        _tell(BEGAN, child)
        _, status = os.waitpid(child, 0)
        _tell(ENDED, child, status)


if __name__ == "__main__":
    main()
