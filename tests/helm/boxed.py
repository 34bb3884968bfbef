"""A program that runs in a box: its process 1, as an engine starts, enters, stops and kills it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.harness.running import Running
from tests.helm.boxes import Box, is_setting_up

_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a command."""

    code: int
    out: str
    err: str


class Boxed(Running):
    """`async with Boxed(box, ["sidecar", "serve"], log): ...`; signals are its own business."""

    def __init__(self, box: Box, command: Sequence[str], log: Path) -> None:
        """`log`: a file for what it prints, over all its starts."""
        self.box, self.command, self.log = box, list(command), log
        self.pid = 0
        """Of its process 1, as it is known outside."""
        self._process: asyncio.subprocess.Process | None = None
        self._out: IO[bytes] | None = None

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self._process is not None
        return self._process.returncode

    async def start(self) -> None:
        """Start it: ready when it is the program itself that runs. Raises AssertionError."""
        self._out = self.log.open("ab")
        self._process = await asyncio.create_subprocess_exec(
            *self.box.argv(self.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._out,
            stderr=asyncio.subprocess.STDOUT,
        )
        outer = self._process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children")
        async with asyncio.timeout(_START_SECONDS):
            # The kernel tells nobody that a process has become another program.
            while self._process.returncode is None:
                with contextlib.suppress(OSError):
                    self.pid = int(children.read_text() or "0")
                    if self.pid and not is_setting_up(self.pid):
                        return
                await asyncio.sleep(0.005)
        await self._forgotten()

    async def exec(self, *command: str, seconds: float = 60) -> Ended:
        """Run a further command in the box to its end, as the same user. Raises TimeoutError."""
        process = await asyncio.create_subprocess_exec(
            *self.box.inside(self.pid, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def ask(self, *command: str) -> str:
        """Run a further command that must succeed; what it printed. Raises AssertionError."""
        ended = await self.exec(*command)
        assert ended.code == 0, (
            f"{shlex.join(command)} ended with {ended.code}: {ended.err}\n{self.said[-4000:]}"
        )
        return ended.out

    def signal(self, number: signal.Signals) -> None:
        """Send it one: process 1 of a container gets only those that it has a handler for, and SIGKILL."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end; its exit code."""
        assert self._process is not None
        code = await self._process.wait()
        await self._forgotten()
        return code

    async def end(self, seconds: float) -> int:
        """SIGTERM, and SIGKILL when it has not ended in time, as the kubelet does; its exit code."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                return await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self.wait()

    async def stop(self) -> None:
        """End it at once."""
        if self._process is None:
            return
        if self._process.returncode is None:
            # Process 1 takes all others with it. With what started it alone it would not go: a program that
            # has become another user's outlives its parent.
            self.signal(signal.SIGKILL)
            if not self.pid:
                self._process.kill()
        await self.wait()

    async def _forgotten(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None
