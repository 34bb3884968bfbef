"""What the floods did to the others, as a table to read and as JSON to compare."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.bench import isolation_scene
from tests.bench.common import Reach, Report, quantile
from tests.bench.isolation import QUICK, Effort, Found, Round
from tests.bench.isolation_floods import BOUNDED, PEER_RATE, PEERS, RATE

_QUIET = "no flood"

_OTHERS, _KB = isolation_scene.OTHERS, PEER_RATE / 1_000
_PACE = isolation_scene.PACE * _OTHERS

_NOTES = f"""\
The others: {_OTHERS} clients, {_PACE:.0f} requests a second in all, each by a payer behind LND; their wallets
are offline and bound, so each request is a letter on the disk.
Floods: {RATE} a second by {PEERS} peers; or of one peer all that LND 0.21 lets through ({_KB:.0f} kB/s, and
no burst). Times are from the update that LND streams to SendOnionMessage of the answer; `late` is by
how much (p99) the load was late with the update. At its onset a flood spends the bursts that its
client had saved up: its first 0.4 s are told apart (its slowest answer).
/ none: of the p99s with and without, the median over the cycles; pooled: of all rounds together, which
a single pause of the machine spoils; of no flood: what is noise.
"""


def _row(round_: Round) -> dict[str, float]:
    return {
        "requests": len(round_.times),
        "p50_ms": round_.milliseconds(50),
        "p90_ms": round_.milliseconds(90),
        "p99_ms": round_.milliseconds(99),
        "max_ms": 1_000 * max(round_.times),
        "onset_max_ms": 1_000 * max(round_.at_onset),
        "late_p99_ms": 1_000 * quantile(round_.late, 99),
        "lost": round_.lost,
        "sidecar_cores": round_.cpu,
    }


def figures(found: Found) -> dict[str, Any]:
    """All of it."""
    rows: dict[str, Any] = {_QUIET: _row(found.quiet) | {"control": found.control}}
    for flood, rate in found.rates.items():
        rows[flood.value] = {
            "a_second": rate,
            **_row(found.flooded(flood)),
            "ratio": found.ratio(flood) if flood in BOUNDED else None,
            "ratios_by_cycle": found.by_cycle(flood),
            "pooled_ratio": found.pooled(flood),
        }
    return {"notes": _NOTES.splitlines(), "rounds": rows, "counters": found.counters}


def text(found: Found) -> str:
    """The table."""
    head = f"{'flood':34}{'a second':>9}{'p50 ms':>8}{'p90':>7}{'p99':>7}{'max':>7}{'/ none':>8}{'pooled':>8}"
    lines = [head + f"{'onset':>8}{'late':>6}{'lost':>6}{'cores':>7}"]
    lines.append(_line(f"{_QUIET:43}", found.quiet, f"{found.control:.2f}", ""))
    for flood, rate in found.rates.items():
        ratio = f"{found.ratio(flood):.2f}" if flood in BOUNDED else ""
        name = f"{flood.value:34}{rate:9.0f}"
        lines.append(_line(name, found.flooded(flood), ratio, f"{found.pooled(flood):.2f}"))
    return "\n".join([*lines, "", _NOTES.rstrip()])


def _line(name: str, round_: Round, ratio: str, pooled: str) -> str:
    row = _row(round_)
    line = f"{name}{row['p50_ms']:8.1f}{row['p90_ms']:7.1f}{row['p99_ms']:7.1f}{row['max_ms']:7.1f}"
    line += f"{ratio:>8}{pooled:>8}{row['onset_max_ms']:8.1f}{row['late_p99_ms']:6.1f}"
    return line + f"{row['lost']:6.0f}{row['sidecar_cores']:7.2f}"


def report(found: Found) -> Report:
    """All of it, and what was to be reached by the worst of the floods on one client or by one peer."""
    worst = max((flood for flood in found.rates if flood in BOUNDED), key=found.ratio)
    reach = [
        Reach("isolation: p99 of the others, worst flood / none", found.ratio(worst), 1.2),
        Reach("isolation: requests of the others that got no answer", _lost(found), 0),
    ]
    return Report("isolation", figures(found), text(found), reach)


def _lost(found: Found) -> int:
    return found.quiet.lost + sum(found.flooded(flood).lost for flood in found.rates if flood in BOUNDED)


def run(quick: bool) -> Report:
    """Measure and report; two minutes and a half, or a quarter of one."""
    return report(asyncio.run(isolation_scene.measure(QUICK if quick else Effort())))
