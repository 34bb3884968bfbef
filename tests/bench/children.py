"""Programs of a benchmark that run beside it, each told what to do by lines of JSON on its stdin."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from tests.harness.running import Running

_TICKS = os.sysconf("SC_CLK_TCK")
_LINE_LIMIT = 64 * 1024 * 1024
_STOP_SECONDS = 10.0

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ChildError(Exception):
    """A child ended, or said that it can't do what it was told; the text is its own."""


class Child(Running):
    """A module of ours in a process of its own; it runs `serve`."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "not started"
        return self._process.pid

    async def start(self) -> None:
        """Start it; it may be told at once what to do."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have it do something, and wait for what it says. Raises ChildError."""
        assert self._process is not None, "not started"
        assert self._process.stdin is not None, "started with a pipe"
        assert self._process.stdout is not None, "started with a pipe"
        self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self._module} ended while it was told to {command}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise ChildError(f"{self._module}: {command}: {said['error']}")
        return said

    async def stop(self) -> None:
        """Close its stdin, which ends it; kill it when that takes too long."""
        if self._process is None:
            return
        assert self._process.stdin is not None, "started with a pipe"
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._process = None


async def serve(commands: Mapping[str, Command]) -> None:
    """The child's side: do what each line of stdin says until there are no more."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        arguments = json.loads(line)
        try:
            said = await commands[arguments.pop("do")](arguments)
        except Exception as error:  # noqa: BLE001 - whoever told us raises it
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


def processor_seconds(pid: int) -> float:
    """What a process has used so far, all its threads, in user and in kernel mode."""
    # The name in brackets may hold spaces: what follows it is counted from its end.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def pin(pid: int, cores: set[int]) -> None:
    """Let all threads of a process run on these cores only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may have ended since.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
