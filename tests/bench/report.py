"""What was measured, as a table to read and as JSON to compare; with the machine and every version."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.backends.openssl import backend

from tests.bench.contestants import INCLUDES, needed
from tests.bench.core import Case

_RATIOS = (("sidecar", "ldk"), ("sidecar", "floor"), ("sidecar+signer", "ldk"))


def machine() -> dict[str, Any]:
    """Where this ran, and on what."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("static-invoice-sidecar", "coincurve", "cryptography")},
        "openssl": backend.openssl_version_text(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def figures(found: Sequence[Case]) -> dict[str, Any]:
    """All of it."""
    return {
        "machine": machine(),
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
    where = machine()
    lines = [", ".join(f"{name} {value}" for name, value in where.items()), ""]
    head = f"{'requests from':24}{'reply path':13}{'contestant':16}{'a second':>9}{'p50 us':>9}{'p99 us':>9}"
    lines.append(head + f"{'/ LDK':>8}{'/ floor':>9}")
    for case in found:
        for name in sorted(case.lanes, key=list(INCLUDES).index):
            lane = case.lanes[name]
            row = f"{case.source:24}{case.shape:13}{name:16}{lane.per_second:9.0f}"
            row += f"{lane.microseconds(50):9.0f}{lane.microseconds(99):9.0f}"
            lines.append(row + _ratio(case, name, "ldk", 8) + _ratio(case, name, "floor", 9))
    lines += ["", *(f"{name}: {what}" for name, what in INCLUDES.items())]
    lines.append("Times are processor time of the one thread at work; ratios are medians over rounds.")
    return "\n".join(lines)


def _ratio(case: Case, one: str, other: str, width: int) -> str:
    ratio = None if one == other else case.ratio(one, other)
    return " " * width if ratio is None else f"{ratio:{width}.2f}"
