"""The test's side of sidecars that are killed, again and again (killed.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.harness import killed
from tests.harness.running import Running
from tests.harness.sidecar_process import START_TIMEOUT, LndFiles

_KEPT_LINES = 500
_PATIENCE = 30.0


class MortalSidecar(Running):
    """`async with MortalSidecar(folder) as sidecar:`; then `live` as often as it has died.

    One sidecar at a time; the next may have other arguments. `started` and `stop` are of the program that
    makes them, and takes a second: a sidecar itself is ready in a third of that.
    """

    def __init__(self, folder: Path) -> None:
        self._plan_file = folder / "plan"
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._pid = self._count = 0
        self._status: int | None = None
        self.lines: list[str] = []
        """What the present sidecar has written on stderr: its log."""
        self.died_at = 0.0
        """By time.monotonic, of the one before."""

    async def start(self) -> None:
        """Import all that sidecars need."""
        killed.set_plan(self._plan_file, None)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", killed.__name__, str(self._plan_file)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")},
        )
        self._reader = asyncio.create_task(self._read(self._process))

    async def stop(self) -> None:
        """Kill the present sidecar, and end."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reader is not None
        if self.alive:
            await self.kill()
        self._process.stdin.close()
        await self._reader
        await self._process.wait()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            async with self._changed:
                if line.startswith(killed.BEGAN):
                    self._pid, self._status, self.lines = int(line.split()[-1]), None, []
                    self._count += 1
                elif line.startswith(killed.ENDED):
                    self._status, self._pid, self.died_at = int(line.split()[-1]), 0, time.monotonic()
                elif line:
                    self.lines.append(line)
                    del self.lines[:-_KEPT_LINES]
                self._changed.notify_all()

    @property
    def alive(self) -> bool:
        """Whether there is a sidecar."""
        return self._pid != 0

    @property
    def pid(self) -> int:
        """Of the present sidecar."""
        assert self.alive
        return self._pid

    async def live(
        self, datadir: Path, lnd: LndFiles, options: Sequence[str] = (), timeout: float = START_TIMEOUT
    ) -> None:
        """Start a sidecar that lives on until it is killed, and wait until it is ready."""
        await self.begin(datadir, lnd, options)
        await self.line(lambda line: " ready: " in line, timeout)

    async def begin(self, datadir: Path, lnd: LndFiles, options: Sequence[str] = ()) -> None:
        """As `live`, without waiting for more than the process."""
        assert not self.alive, "the one before is alive"
        assert self._process is not None
        assert self._process.stdin is not None
        arguments = [
            f"--datadir={datadir}",
            f"--lnd.host={lnd.host}",
            f"--lnd.tlspath={lnd.tls_path}",
            f"--lnd.macaroonpath={lnd.macaroon_path}",
            *options,
            "serve",
        ]
        self.let_live()
        before = self._count
        self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
        await self._until(lambda: self._count > before, _PATIENCE)

    def die_at(self, plan: killed.Plan) -> None:
        """Let it die so; passes are counted from now on."""
        killed.set_plan(self._plan_file, plan)

    def let_live(self) -> None:
        """Let it pass all points."""
        killed.set_plan(self._plan_file, None)

    async def line(self, wanted: Callable[[str], bool], timeout: float = START_TIMEOUT) -> str:
        """Wait for a log line, past ones included. Raises AssertionError when the sidecar ends first."""

        def found() -> str | None:
            return next((line for line in self.lines if wanted(line)), None)

        await self._until(lambda: not self.alive or found() is not None, timeout)
        line = found()
        assert line is not None, "the sidecar ended:\n" + "\n".join(self.lines)
        return line

    async def wait(self, timeout: float = _PATIENCE) -> int:
        """Wait for its end; the signal that ended it, 0 where it was none. Raises TimeoutError."""
        await self._until(lambda: not self.alive, timeout)
        assert self._status is not None
        return os.WTERMSIG(self._status) if os.WIFSIGNALED(self._status) else 0

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            assert await self.wait() == signal.SIGKILL

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(condition)
