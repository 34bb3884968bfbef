"""`python -m tests.fuzz [TARGET…]`: every decoder, or those named, under a fuzzer that follows coverage.

Fails when an input brought anything but what is declared, took too long, or too much memory. The input
is kept in build/fuzz/found, and its hex is printed. `--keep` takes what was learnt into tests/fuzz/corpus.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.keep import keep
from tests.fuzz.run import run_all
from tests.fuzz.targets import TARGETS, find

FOLDER = Path("build", "fuzz")

LONGEST_KEPT = 1_200
"""Bytes of an input that is kept in the repository; the seeds, which may be longer, are made."""


def main() -> int:
    """How many targets failed."""
    arguments = _parser().parse_args()
    targets = [find(name) for name in arguments.targets] or list(TARGETS)
    failed = 0
    for outcome in run_all(targets, arguments.seconds, FOLDER / "found", work=FOLDER / "work"):
        print(outcome.line(), flush=True)
        if outcome.finding:
            failed += 1
            print(outcome.finding, file=sys.stderr, flush=True)
    if arguments.keep and not failed:
        for target in targets:
            size = keep(target, FOLDER / "work" / target.name, LONGEST_KEPT)
            print(f"{target.name:20} {size:>8,} bytes of corpus", flush=True)
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--seconds", type=int, default=180, help="for each target (default: 180)")
    parser.add_argument("--keep", action="store_true", help="take what covers more into the corpus")
    return parser


if __name__ == "__main__":
    sys.exit(main())
