"""A terminal of a stranger's machine: bash with a home of its own, and what it shows, noted."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.running import Running
from tests.walk.readme import ROOT

PATIENCE = 180.0
"""Seconds that one command may take: `pip install` has to load some forty packages."""

_GRACE = 15.0
"""Seconds until what was asked to end is killed."""

_MARK = "--- exit code"
_PASSED_ON = re.compile(r"PIP_.*|.*_proxy|SSL_CERT_.*", re.IGNORECASE)


@dataclass(slots=True)
class Transcript:
    """What was typed, what came and how long it took, without anything that tells of this machine."""

    hidden: Mapping[str, str]
    """What is written in another way, and how: the longest first."""

    text: str = ""

    def note(self, line: str) -> None:
        """What happens outside of the terminal."""
        self._add(f"# {line}")

    def command(self, typed: str, seconds: float, shown: str) -> None:
        """One command, how long it took, and what it printed."""
        self._add(f"$ {typed}\n{shown.rstrip()}".rstrip() + f"\n# {seconds:.1f} s")

    def _add(self, text: str) -> None:
        for private, public in self.hidden.items():
            text = text.replace(private, public)
        self.text += text + "\n\n"


@dataclass(slots=True)
class Machine:
    """A home directory with a copy of the checkout, and a PATH with little on it."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        """Where the stranger has put the source."""
        return self.home / "static-invoice-sidecar"

    @property
    def commands(self) -> Path:
        """What is on the PATH besides the system's own."""
        return self.home.parent / "bin"

    def set_up(self, lncli: Path) -> None:
        """Make all of it; nothing in the copy that is not in the repository, or meant for it."""
        self.commands.mkdir()
        # Not a link: Python finds its own library from the name by which it was called.
        python = self.commands / "python3"
        python.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" "$@"\n')  # type: ignore[attr-defined]
        python.chmod(0o755)
        (self.commands / "lncli").symlink_to(lncli)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for name in listed.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.checkout / name)
        passed_on = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        own = {
            "HOME": str(self.home),
            "PATH": f"{self.commands}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "COLUMNS": "110",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.environ = passed_on | own | self.environ


class Terminal(Running):
    """`async with Terminal(…) as terminal:`; what a command sets in the shell holds for the next ones."""

    def __init__(self, machine: Machine, transcript: Transcript, directory: Path) -> None:
        """It opens in `directory`."""
        self._machine, self._transcript, self._directory = machine, transcript, directory
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Open it."""
        self._process = await asyncio.create_subprocess_exec(
            *("bash", "--noprofile", "--norc"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self._directory,
            env=self._machine.environ,
            start_new_session=True,
        )

    async def stop(self) -> None:
        """Close it, whatever runs in it."""
        # A server that is killed at once leaves its Redis behind.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _GRACE)
                return

    async def run(self, typed: str) -> str:
        """Run a command to its end; what it printed. Raises AssertionError when its exit code is not 0."""
        begun = time.monotonic()
        # Its standard input is not where the next commands come from.
        self._type(f"{{ {typed}\n}} </dev/null; printf '\\n{_MARK} %d\\n' $?\n")
        lines = await self._read_until(_MARK)
        shown = "".join(lines[:-1]).removesuffix("\n")
        self._transcript.command(typed, time.monotonic() - begun, _brief(typed, shown))
        assert int(lines[-1].removeprefix(_MARK)) == 0, f"$ {typed}\n{shown}"
        return shown

    async def serve(self, typed: str, ready: str) -> str:
        """Run a command that stays; what it printed up to the line that has `ready` in it."""
        begun = time.monotonic()
        self._type(f"exec {typed} </dev/null\n")
        shown = "".join(await self._read_until(ready))
        self._transcript.command(typed, time.monotonic() - begun, shown)
        return shown

    async def terminate(self) -> int:
        """Send SIGTERM to what stays, and wait for its end; its exit code."""
        begun = time.monotonic()
        self._process.terminate()
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            shown = (await self._process.stdout.read()).decode()
            code = await self._process.wait()
        self._transcript.command("kill -TERM …", time.monotonic() - begun, f"{shown}exit code {code}")
        return code

    def _type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def _read_until(self, wanted: str) -> list[str]:
        assert self._process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not (lines and wanted in lines[-1]):
                line = (await self._process.stdout.readline()).decode()
                assert line, "the terminal was closed:\n" + "".join(lines)
                lines.append(line)
        return lines


def _brief(typed: str, shown: str) -> str:
    # What pip loads, and where from, is of this machine.
    if typed.startswith("pip "):
        return "\n".join(line for line in shown.splitlines() if line.startswith("Successfully"))
    return shown
