"""Runs targets under libFuzzer, some side by side, and reads what it says."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.target import Target
from tests.fuzz.targets import corpus

ROOT = Path(__file__).parents[2]

SECONDS_AN_INPUT = 10
"""What one input may take; the longest honest one takes 100 ms, and this machine may be busy."""

MEGABYTES, MEGABYTES_AT_ONCE = 1_024, 256
"""What a process may have, and what it may ask for in one piece."""

BESIDE = 60
"""Seconds that a process may take beside its fuzzing: to start, to read its corpus, to end."""

_STATE = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of one target went.

    `executions`: inputs that were tried. `began`, `reached`: edges that the corpus covered, and that
    were covered in the end. `finding`: what was found, with the input in hex; empty for nothing.
    """

    name: str
    executions: int
    began: int
    reached: int
    finding: str = ""
    path: Path | None = None

    def line(self) -> str:
        """It, for people."""
        end = "FOUND" if self.finding else "ok"
        covered = f"coverage {self.began:>5} -> {self.reached:<5}"
        return f"{self.name:20} {self.executions:>12,} runs   {covered} {end}"


def run_all(
    targets: Sequence[Target], seconds: int, found: Path, *, seed: int = 0, work: Path | None = None
) -> Iterator[Outcome]:
    """Each target for so many seconds, two at a time; what is found is kept in the folder `found`.

    `seed` 0: another one each time, which libFuzzer chooses. `work`: where inputs that cover more are
    kept, a folder for each target; None: nowhere.
    """
    found.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda target: _run(target, seconds, found, seed, work), targets)


def _run(target: Target, seconds: int, found: Path, seed: int, work: Path | None) -> Outcome:
    for old in found.glob(f"{target.name}-*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as temporary:
        seeds = _written(target, Path(temporary, "seeds"))
        folder = (work or Path(temporary, "work")) / target.name
        folder.mkdir(parents=True, exist_ok=True)
        options = [*_limits(target, found), f"-max_total_time={seconds}", f"-seed={seed}"]
        ended = _started(target, temporary, [*options, str(folder), str(seeds)], seconds + BESIDE)
    said = ended.stdout + ended.stderr
    return read_outcome(target, ended.returncode, said, sorted(found.glob(f"{target.name}-*")))


def _written(target: Target, folder: Path) -> Path:
    folder.mkdir()
    for each in corpus(target):
        folder.joinpath(hashlib.sha256(each).hexdigest()[:16]).write_bytes(each)
    return folder


def _limits(target: Target, found: Path) -> list[str]:
    return [
        f"-artifact_prefix={found}/{target.name}-",
        f"-max_len={target.longest}",
        f"-timeout={SECONDS_AN_INPUT}",
        f"-rss_limit_mb={MEGABYTES}",
        f"-malloc_limit_mb={MEGABYTES_AT_ONCE}",
    ]


def _started(
    target: Target, temporary: str, arguments: Sequence[str], timeout: float
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.one", target.name, *arguments]
    # libFuzzer lets Python clean up nothing.
    environ = {**os.environ, "TMPDIR": temporary, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
    )


def read_outcome(target: Target, returncode: int, said: str, artifacts: Sequence[Path]) -> Outcome:
    """What libFuzzer said, and with what code it ended."""
    states = _STATE.findall(said)
    begun = [int(covered) for _, what, covered, _ in states if what == "INITED"]
    reached = max((int(covered) for _, _, covered, _ in states), default=0)
    executions = max((int(number) for number, *_ in states), default=0)
    finding, path = "", artifacts[-1] if artifacts else None
    if returncode or path is not None or not executions:
        # Python's own traceback, if there is one, tells more than what libFuzzer says at the end.
        _, uncaught, traceback = said.partition("=== Uncaught")
        told = uncaught + traceback.partition("\nINFO: ")[0] if uncaught else said[-2_000:]
        finding = f"{target.name} ended with code {returncode}:\n{told}"
        if path is not None:
            finding += f"\nthe input, kept in {path}:\n{path.read_bytes().hex()}"
    return Outcome(target.name, executions, begun[0] if begun else 0, reached, finding, path)
