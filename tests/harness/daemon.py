"""A server of others' making, as a process of a test: it prints to a file, and is stopped by its pid."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import IO, ClassVar

from tests.harness.running import Running


class Daemon(Running):
    """What all of them share; a subclass says how it starts. May be stopped and started again."""

    _stop_signal: ClassVar[signal.Signals]
    """Lets it end by itself, as an operator would."""

    _STOP_SECONDS: ClassVar[float] = 30.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._log: IO[bytes] | None = None

    @property
    def log_path(self) -> Path:
        """What it printed, over all its starts."""
        return self.directory / "stdout.log"

    @property
    def pid(self) -> int:
        """The process, for tests that suspend it."""
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped or killed since."""
        return self._process is not None

    def log_tail(self, lines: int = 30) -> str:
        """The end of what it printed."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    async def _launch(self, binary: Path, arguments: list[str]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        self._process = await asyncio.create_subprocess_exec(
            binary, *arguments, stdout=self._log, stderr=asyncio.subprocess.STDOUT
        )
        try:
            await self._until_ready(self._process)
        except BaseException:
            await self.kill()
            raise

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        """Wait for readiness, the end of the process or the time limit, whichever is first."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Let it end by itself; killed when that takes too long."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(self._process.wait(), self._STOP_SECONDS)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._process = None
        if self._log is not None:
            self._log.close()
