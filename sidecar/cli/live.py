"""`sidecar top`: the terminal. Asks a server again and again, draws what it said, and hears the keyboard."""

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, TextIO

from rich.console import Console
from rich.live import Live

from sidecar.cli.digest import Frame, History, Sample
from sidecar.cli.top import view
from sidecar.core.errors import OperatorError

if TYPE_CHECKING:
    from sidecar.adapters.admin_client import AdminClient

TICK = 0.25
"""Seconds between two drawings, and until a key is heard at the latest."""


def ask(server: "AdminClient") -> Sample:
    """What the server says now. Raises OperatorError."""
    status, clients = server.status(), list(server.clients().clients)
    return Sample(time.monotonic(), time.time_ns() // 1_000_000, status, clients)


class Watch:
    """Asks a server every `interval` seconds in a thread of its own; a context manager.

    One call is made after the other, so that a slow server is never asked twice at a time. Opening raises
    what `connect` and a call raise; later failures are part of the frame, and it goes on asking.
    """

    def __init__(self, connect: "Callable[[], AdminClient]", interval: float) -> None:
        self._connect = connect
        self._interval = interval
        self._history = History()
        self._server: AdminClient | None = None
        self._frame: Frame | None = None
        self._fault: Exception | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def frame(self) -> Frame:
        """What was last heard. Raises what went wrong when it was a fault of ours."""
        if self._fault is not None:
            raise self._fault
        assert self._frame is not None, "open it first"  # noqa: S101 - for mypy
        return self._frame

    def __enter__(self) -> Self:
        self._server = self._connect()
        self._frame = self._history.add(ask(self._server))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._hang_up()  # which ends a call that nobody waits for any more
        self._thread.join(timeout=1)

    def _hang_up(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.__exit__(None, None, None)

    def _run(self) -> None:
        while not self._ending.wait(self._interval):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - raised again where the view is drawn
                if not self._ending.is_set():
                    self._fault = error
                return

    def _look(self) -> None:
        try:
            if self._server is None:
                self._server = self._connect()
            self._frame = self._history.add(ask(self._server))
        except OperatorError as error:
            self._hang_up()
            self._frame = replace(self.frame, trouble=str(error) or error.reason)


@contextlib.contextmanager
def keyboard(stream: TextIO) -> Iterator[Callable[[float], str]]:
    """Yields what waits for keys so many seconds and returns them; no Enter is needed meanwhile.

    Where `stream` is no terminal no key ever comes.
    """
    if not stream.isatty():
        never = threading.Event()
        yield lambda seconds: "q" if never.wait(seconds) else ""
        return
    number = stream.fileno()

    def pressed(seconds: float) -> str:
        if not select.select([number], [], [], seconds)[0]:
            return ""
        # Nothing to read where something was announced: the terminal is gone.
        return os.read(number, 64).decode(errors="replace") or "q"

    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextlib.contextmanager
def closed_at_sigterm() -> Iterator[None]:
    """Meanwhile SIGTERM ends the process as an exception does, so that all that is open is closed.

    The exit code is the one that a shell gives such a process: 128 and the signal's number.
    """

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(connect: "Callable[[], AdminClient]", interval: float, console: Console) -> None:
    """The view on the whole terminal, until q or Ctrl-C; it leaves the terminal as it was, at SIGTERM too.

    Raises what the first call raises.
    """
    with (
        contextlib.suppress(KeyboardInterrupt),
        closed_at_sigterm(),
        Watch(connect, interval) as watch,
        keyboard(sys.stdin) as pressed,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            frame = watch.frame
            age = time.monotonic() - frame.now.at
            live.update(view(frame, age, console.width, console.height, hint="q ends"), refresh=True)
            if "q" in pressed(TICK).lower():
                return
