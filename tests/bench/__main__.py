"""`python -m tests.bench core [--out FILE]`: a table, and the same as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from tests.bench import core, ldk_server, report
from tests.harness.building import BuildError


def main(arguments: list[str] | None = None) -> int:
    """Run what is named. Returns a process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", choices=["core"])
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--without-ldk", action="store_true", help="do not build or run LDK's server")
    parser.add_argument("--rounds", type=int, default=core.ROUNDS, help="default: %(default)s")
    parser.add_argument(
        "--each", type=int, default=core.EACH, help="requests in a round; default: %(default)s"
    )
    chosen = parser.parse_args(arguments)
    versions = [] if chosen.without_ldk else ldk_server.VERSIONS
    try:
        programs = [ldk_server.ensure(version) for version in versions]
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        found = core.measure(programs, chosen.rounds, chosen.each)
    except pytest.skip.Exception as absent:
        # tests/vectors.py says what is missing, and how to tell where it lies.
        print(absent, file=sys.stderr)
        return 1
    print(report.text(found))
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(report.figures(found), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
