"""Memory stays bounded: everything at once for a while, and what the sidecar holds does not grow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.conftest import NewRow
from tests.faults.mixed_load import EXCESS, MixedLoad, mixed_load
from tests.faults.promises import BOUNDED
from tests.harness.resident import growth, resident

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3 * 3_600)]

SEED = 66
A_ROUND, SHORTEST = 15.0, 260.0
"""Seconds: 240 rounds are an hour. What is shorter than the other one tells little."""

WARM_UP = 20.0
"""Seconds until all that is bounded is full; more does not fill it further."""


async def curves(load: MixedLoad, seconds: float) -> tuple[list[float], list[float]]:
    """What the sidecar holds under the load: MiB that are resident, and blocks in use.

    A sample of each each second, after the warm-up.
    """
    held, used = [], []
    at_work = asyncio.create_task(load.run())
    try:
        await asyncio.sleep(WARM_UP)
        for _ in range(round(seconds - WARM_UP)):
            await asyncio.sleep(1)
            held.append(resident(load.sidecar.pid))
            used.append(float(load.sidecar.in_use()))
            assert not at_work.done(), at_work
    finally:
        at_work.cancel()
        await asyncio.gather(at_work, return_exceptions=True)
    return held, used


def told(samples: Sequence[float]) -> str:
    """Some sixty of them, in a line."""
    return " ".join(f"{sample:,.0f}" for sample in samples[:: max(1, len(samples) // 60)])


async def test_memory_stays_flat_under_everything_at_once(
    promise: NewRow, rounds: int, tmp_path: Path
) -> None:
    """Queues, caches, mailboxes and what waits to be sent have limits, and what they drop is counted."""
    row = promise(BOUNDED, "mixed load, Redis killed")
    async with mixed_load(tmp_path, SEED) as load:
        held, used = await curves(load, max(SHORTEST, rounds * A_ROUND))
        assert not load.failures, load.failures[:5]
        in_all, in_use = growth(held), growth(used)
        row.note = f"{in_all.after:.0f} MiB, {in_all}; in use {in_use}"
        row.check(in_all.flat, f"seed {SEED}: {in_all} resident; MiB: {told(held)}")
        row.check(in_use.flat_in_use, f"seed {SEED}: {in_use} in use; blocks: {told(used)}")
        counters = await load.sidecar.counters()
        for slug in EXCESS:
            row.check(counters.get(slug), f"seed {SEED}: {slug} was not counted; what was: {counters}")
        faults = [line for line in load.sidecar.lines if "caused a fault in the sidecar" in line]
        row.check(not faults, f"seed {SEED}: {faults}")
