"""What the core's benchmark measured, as a table to read and as JSON to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.bench import core, ldk_server
from tests.bench.common import Reach, Report
from tests.bench.contestants import INCLUDES, needed
from tests.bench.core import Case

_RATIOS = (("sidecar", "ldk"), ("sidecar", "floor"), ("sidecar+signer", "ldk"))


def figures(found: Sequence[Case]) -> dict[str, Any]:
    """All of it."""
    return {
        "clock": "processor time of the one thread at work",
        "includes": INCLUDES,
        "cases": [_case(case) for case in found],
    }


def _case(case: Case) -> dict[str, Any]:
    example = case.example
    assert example is not None
    operations = needed(example.reply_path, case.stored.forward_path, case.stored.lnd.node_id)
    ratios = {f"{one} / {other}": case.ratio(one, other) for one, other in _RATIOS}
    return {
        "source": case.source,
        "reply_path": case.shape,
        "request_bytes": len(example.content),
        "received_bytes": case.bytes_in,
        "invoice_bytes": len(case.stored.invoice),
        "answer_bytes": case.bytes_out,
        "floor_operations": {
            "products": operations.products,
            "public_keys": operations.public_keys,
            "verifications": operations.verifications,
        },
        "contestants": {
            name: {
                "per_second": round(lane.per_second, 1),
                "p50_us": round(lane.microseconds(50), 1),
                "p99_us": round(lane.microseconds(99), 1),
                "requests": len(lane.all),
            }
            for name, lane in case.lanes.items()
        },
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items() if ratio is not None},
    }


def text(found: Sequence[Case]) -> str:
    """The table."""
    head = f"{'requests from':24}{'reply path':13}{'contestant':16}{'a second':>9}{'p50 us':>9}{'p99 us':>9}"
    lines = [head + f"{'/ LDK':>8}{'/ floor':>9}"]
    for case in found:
        for name in sorted(case.lanes, key=list(INCLUDES).index):
            lane = case.lanes[name]
            row = f"{case.source:24}{case.shape:13}{name:16}{lane.per_second:9.0f}"
            row += f"{lane.microseconds(50):9.0f}{lane.microseconds(99):9.0f}"
            lines.append(row + _ratio(case, name, "ldk", 8) + _ratio(case, name, "floor", 9))
    lines += ["", *(f"{name}: {what}" for name, what in INCLUDES.items())]
    lines.append(
        "Times are processor time of the one thread at work; ratios are medians over rounds. Requests"
    )
    lines.append("and their reply paths are new to who is asked, but for the recorded two: these come again.")
    return "\n".join(lines)


def _ratio(case: Case, one: str, other: str, width: int) -> str:
    ratio = None if one == other else case.ratio(one, other)
    return " " * width if ratio is None else f"{ratio:{width}.2f}"


def report(found: Sequence[Case]) -> Report:
    """All of it, and what was to be reached: beside LDK 0.2.7 and the floor, each shape of its payers."""
    reach = []
    for case in found:
        ldk, floor = case.ratio("sidecar", "ldk"), case.ratio("sidecar", "floor")
        if case.source == "LDK 0.2.7" and ldk is not None and floor is not None:
            reach += [
                Reach(f"core / LDK 0.2.7's server, {case.shape}", ldk, 2.5, at_least=True),
                Reach(f"core / the elliptic-curve floor, {case.shape}", floor, 0.6, at_least=True),
            ]
    return Report("core", figures(found), text(found), reach)


def run(quick: bool) -> Report:
    """Measure and report. Raises BuildError, and skips as a test does where there are no recordings."""
    programs = [ldk_server.ensure(version) for version in ldk_server.VERSIONS]
    found = core.measure(programs, *((2, 2) if quick else (core.ROUNDS, core.EACH)))
    return report(found)
