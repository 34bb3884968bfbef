"""What a process does to its disk, seen by strace: when a change was written, and when it was safe there.

All times are seconds since the epoch, as time.time gives them. Of a call's begin they are never too late, of
its end never too early: whatever this says was on disk by then was on disk.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tests.harness import debian
from tests.harness.running import Running

CALLS = ("write", "writev", "pwrite64", "fsync", "fdatasync")
SYNCS = ("fsync", "fdatasync")

_LIBRARIES = ("libunwind8", "liblzma5")
"""Debian's packages of what its strace is linked with, and which a bare system lacks."""

_LINE = re.compile(r"(?P<pid>\d+) +(?P<at>\d+\.\d+) (?P<rest>.*)")
_BEGUN = re.compile(r"(?P<call>\w+)\(\d+<(?P<path>(?:\\x[0-9a-f]{2})*)>(?P<data>.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<data>.*)")
_RESULT = re.compile(r"= (?P<result>-?\d+)(?: [^<]*)? ?<(?P<took>\d+\.\d+)>$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_UNFINISHED = "<unfinished ...>"
_LONGEST = 1 << 24


@dataclass(frozen=True, slots=True)
class Done:
    """One call to the system that did what it was asked to; `data` is what was written."""

    call: str
    path: str
    began: float
    ended: float
    data: bytes


class Traced(Running):
    """`async with Traced(file) as traced`, and a server is started by `traced.command`.

    The process is the server's own, and strace a grandchild of ours that ends with it. At the end all that
    it saw is in the file. `delay`: seconds by which each fsync takes longer, so that whoever
    does not wait for it is caught.
    """

    def __init__(self, file: Path, delay: float = 0.0) -> None:
        self._file, self._delay = file, delay

    async def start(self) -> None:
        """Look for strace: the system's, or Debian's. Raises BuildError."""
        self._program, self._libraries = await asyncio.to_thread(_program)

    async def stop(self) -> None:
        """Wait until strace has written all, which it does when the server has ended."""
        async with asyncio.timeout(30):
            while not self._is_whole():  # noqa: ASYNC110 - it is no child of ours
                await asyncio.sleep(0.01)

    def _is_whole(self) -> bool:
        if not self._file.exists():
            return True  # nothing was started
        with self._file.open("rb") as file:
            first = file.readline().split(b" ")[0]
            file.seek(max(0, self._file.stat().st_size - 300))
            return re.search(rb"(?m)^%s +[0-9.]+ \+\+\+ .*\n\Z" % first, file.read()) is not None

    @property
    def command(self) -> Sequence[str]:
        """What a server's own command is put behind."""
        slow = [f"--inject={','.join(SYNCS)}:delay_enter={int(self._delay * 1e6)}"] if self._delay else []
        start = [self._program] if not self._libraries else ["env", self._libraries, self._program]
        return [
            *(*start, "-D", "-f", "-q", "-ttt", "-T", "-y", "-xx", f"-s{_LONGEST}", f"-o{self._file}"),
            *("-E", "LD_LIBRARY_PATH", f"--trace={','.join(CALLS)}", *slow),
        ]

    def calls(self) -> list[Done]:
        """All that was done to files, in the order in which it began."""
        with self._file.open(encoding="ascii", errors="replace") as lines:
            return sorted(read_calls(lines), key=lambda done: done.began)


def _program() -> tuple[str, str]:
    """strace, and what its environment needs; empty for nothing."""
    if found := shutil.which("strace"):
        return found, ""
    folders = [debian.unpacked(package) for package in _LIBRARIES]
    places = [str(place) for folder in folders for place in folder.glob("**/*-linux-gnu")]
    return str(debian.unpacked("strace") / "usr/bin/strace"), f"LD_LIBRARY_PATH={os.pathsep.join(places)}"


# --- reading it -----------------------------------------------------------------------------------


def read_calls(lines: Iterable[str]) -> Iterator[Done]:
    """The calls in what `strace -f -ttt -T -y -xx` printed that ended well."""
    begun: dict[str, tuple[float, re.Match[str]]] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        pid, at, rest = found["pid"], float(found["at"]), found["rest"].rstrip()
        if resumed := _RESUMED.match(rest):
            if pid in begun:
                began, call = begun.pop(pid)
                yield from _done(call, call["data"] + resumed["data"], began, at)
        elif call_found := _BEGUN.match(rest):
            if rest.endswith(_UNFINISHED):
                begun[pid] = at, call_found
            else:
                yield from _done(call_found, call_found["data"], at, None)


def _done(call: re.Match[str], data: str, began: float, ended: float | None) -> Iterator[Done]:
    """The call, if it ended well; `ended`: None where the line says how long it took."""
    result = _RESULT.search(data)
    if result is None or int(result["result"]) < 0:
        return
    written = b"".join(bytes.fromhex(part.replace("\\x", "")) for part in _STRING.findall(data))
    if call["call"] not in SYNCS:
        written = written[: int(result["result"])]
    path = bytes.fromhex(call["path"].replace("\\x", "")).decode(errors="replace")
    yield Done(call["call"], path, began, began + float(result["took"]) if ended is None else ended, written)


class Appended:
    """What was appended to one file, and from when on it was safe."""

    def __init__(self, calls: Sequence[Done], file: Path) -> None:
        of_file = [done for done in calls if done.path == str(file.resolve())]
        writes = [done for done in of_file if done.call not in SYNCS]
        self._syncs = [done for done in of_file if done.call in SYNCS]
        self._ends = [*accumulate(len(done.data) for done in writes)]
        self._written = [done.ended for done in writes]
        self.data = b"".join(done.data for done in writes)

    def safe_at(self, size: int) -> float | None:
        """When the first `size` bytes were on the disk; None: never.

        That is at the end of an fsync that began when they were written.
        """
        written = self._written[bisect_left(self._ends, size)]
        return min((done.ended for done in self._syncs if done.began >= written), default=None)
