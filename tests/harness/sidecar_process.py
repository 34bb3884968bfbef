"""The product as its users run it: `sidecar serve` in a process of its own, and its other commands."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from tests.harness import named, shifted
from tests.harness.running import Running

START_TIMEOUT = 30
"""Seconds until the ready line must have come."""


class LndFiles(Protocol):
    """How an LND is reached, real or simulated."""

    @property
    def host(self) -> str:
        """host:port of its gRPC."""

    @property
    def tls_path(self) -> Path:
        """Its certificate."""

    @property
    def macaroon_path(self) -> Path:
        """A macaroon that allows everything."""


class CommandFailed(Exception):
    """A `sidecar` command ended with a non-zero exit; `args` are its exit code, stderr and stdout."""


class SidecarProcess(Running):
    """`sidecar serve` with a data directory; may be killed and started again."""

    def __init__(
        self,
        datadir: Path,
        lnd: LndFiles,
        *,
        macaroon: Path | None = None,
        options: Sequence[str] = (),
        clock: Path | None = None,
        names: Path | None = None,
    ) -> None:
        """`clock`: a file for `set_clock`, made when it is not there; without it the clock can't be moved.

        `names`: the file of its DNS (named.py), instead of a clock.
        """
        self.datadir = datadir
        self._clock = clock
        self._names = names
        self.lines: list[str] = []
        self._arguments = [
            f"--datadir={datadir}",
            f"--lnd.host={lnd.host}",
            f"--lnd.tlspath={lnd.tls_path}",
            f"--lnd.macaroonpath={macaroon or lnd.macaroon_path}",
            *options,
        ]
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._ended = False

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, datadir: Path, lnd: LndFiles) -> AsyncIterator[Self]:
        """A server that is not waited for: LND may not be there yet."""
        process = cls(datadir, lnd)
        await process.start(wait=False)
        try:
            yield process
        finally:
            await process.stop()

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server is there."""
        return self._process is not None and self._process.returncode is None

    def set_clock(self, seconds: int) -> None:
        """Put the wall clock of the server, and of `command`, so many seconds ahead; it may be running."""
        assert self._clock is not None
        shifted.set_clock(self._clock, seconds)

    def _sidecar(self) -> Sequence[str]:
        if self._names is not None:
            return (sys.executable, "-m", named.__name__, str(self._names))
        if self._clock is None:
            return (sys.executable, "-m", "sidecar")
        if not self._clock.exists():
            self.set_clock(0)
        return (sys.executable, "-m", shifted.__name__, str(self._clock))

    async def start(self, *, wait: bool = True) -> None:
        """Start the server; wait for its ready line unless told not to."""
        self.lines, self._ended = [], False
        self._process = await asyncio.create_subprocess_exec(
            *self._sidecar(),
            *self._arguments,
            "serve",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        self._reader = asyncio.create_task(self._read(self._process))
        if wait:
            await self.line(lambda line: " ready: " in line)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            async with self._changed:
                self.lines.append(line.decode().rstrip())
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def line(self, wanted: Callable[[str], bool], timeout: float = START_TIMEOUT) -> str:
        """Wait for a log line, past ones included. Raises AssertionError when the server ends first."""

        def found() -> str | None:
            return next((line for line in self.lines if wanted(line)), None)

        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: found() or self._ended)
        line = found()
        assert line is not None, "the sidecar ended:\n" + "\n".join(self.lines)
        return line

    async def wait(self) -> int:
        """Wait for the server to end by itself; its exit code."""
        assert self._process is not None
        assert self._reader is not None
        await self._reader
        return await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL: nothing is said goodbye to."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await self.wait()

    async def command(self, *arguments: str) -> str:
        """Run `sidecar …` against the server; its stdout. Raises CommandFailed."""
        process = await asyncio.create_subprocess_exec(
            *self._sidecar(),
            f"--datadir={self.datadir}",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        stdout, stderr = await process.communicate()
        if process.returncode != 0:
            raise CommandFailed(process.returncode, stderr.decode(), stdout.decode())
        return stdout.decode()

    async def json(self, *arguments: str) -> Any:
        """Run `sidecar … --json`; what it printed, parsed."""
        return json.loads(await self.command(*arguments, "--json"))

    async def counters(self) -> dict[str, int]:
        """What the server did and dropped since its start."""
        counters: dict[str, int] = (await self.json("status"))["counters"]
        return counters


def _environment() -> dict[str, str]:
    # A developer's own settings must not reach the tests.
    return {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
