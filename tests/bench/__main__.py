"""`python -m tests.bench [NAME ...] [--quick] [--out FILE]`: tables, and the same as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import core_report, growth_report, isolation_report, served_report, wake_report
from tests.bench.children import ChildError
from tests.bench.common import Report, machine, reach_table
from tests.bench.core import WrongAnswer
from tests.bench.isolation_scene import Unkept
from tests.harness.building import BuildError
from tests.harness.lnd_process import LndError

BENCHMARKS: dict[str, Callable[[bool], Report]] = {
    "core": core_report.run,
    "growth": growth_report.run,
    "served": served_report.run,
    "isolation": isolation_report.run,
    "wake": wake_report.run,
}
"""Each by its name; given whether to be quick, and so rough."""

# What is missing, and how to come by it: programs to build, recordings to point to; and runs gone wrong.
_SPOILT = (BuildError, pytest.skip.Exception, ChildError, LndError, WrongAnswer, Unkept)


def main(arguments: list[str] | None = None) -> int:
    """Run what is named, or all. Returns a process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--quick", action="store_true", help="a small part of the work: rough figures")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    where = machine()
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
    reports: list[Report] = []
    code = 0
    for name in chosen.names or BENCHMARKS:
        try:
            reports.append(BENCHMARKS[name](chosen.quick))
        except _SPOILT as error:
            print(f"{name}: {error}", file=sys.stderr)
            code = 1
            break
        except KeyboardInterrupt:
            code = 130
            break
        print(f"\n=== {name} ===\n{reports[-1].text}", flush=True)
    if reports:
        # What was measured before is worth its time.
        print(f"\n=== reach ===\n{reach_table(reports)}")
    if chosen.out is not None and reports:
        found = {"machine": where, **{report.name: report.figures for report in reports}}
        found["reach"] = {each.what: [each.figure, each.bound] for report in reports for each in report.reach}
        chosen.out.write_text(json.dumps(found, indent=2) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
