"""One client, one offer, one peer, one webhook host is flooded: the others get their answers as before.

How long they wait is told beside each flood, against rounds without it in the same run; what is held to
is that every one of them is answered. The machine that this runs on may be a busy one.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from sidecar.core.webhooks import ONION_MESSAGE_INCOMING
from tests.bench import isolation_scene
from tests.bench.common import quantile
from tests.bench.isolation import Effort, Round, together
from tests.bench.isolation_floods import BOUNDED, Flood
from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import APART
from tests.harness.notifying import Notifying, services
from tests.harness.push_service import PushService, hang

pytestmark = pytest.mark.faults

EFFORT = Effort(onset=0.1, measured=0.6)
"""Of each round, in seconds."""

CLIENTS = 6
"""That nobody floods."""

OTHERS, FLOODED = 20, 400
"""Wallets at a webhook host that is well, and at one that hangs."""


@pytest.mark.timeout(600)
async def test_whoever_is_not_flooded_is_answered(promise: NewRow, rounds: int, tmp_path: Path) -> None:
    """A row for each flood; rounds with it and rounds without take turns."""
    rows = {flood: promise(APART, flood.value) for flood in BOUNDED}
    flooded: dict[Flood, list[Round]] = {flood: [] for flood in BOUNDED}
    quiet: list[Round] = []
    async with isolation_scene.scene(tmp_path, CLIENTS) as scene:
        for flood in BOUNDED:
            scene.prepare(flood, EFFORT)
        await scene.round(EFFORT, None)  # what is met for the first time is not measured
        for number in range(rounds):
            quiet.append(await scene.round(EFFORT, None))
            for flood, row in rows.items():
                flooded[flood].append(found := await scene.round(EFFORT, flood))
                row.tried(len(found.late))
                if found.lost:
                    row.violated(f"{found.lost} of the others got no answer in round {number}")
    for flood, row in rows.items():
        ratio = together(flooded[flood]).milliseconds(99) / together(quiet).milliseconds(99)
        row.note = f"p99 {ratio:.2f} x"


@pytest.mark.timeout(600)
async def test_wallets_at_another_webhook_host_are_woken(
    promise: NewRow, rounds: int, tmp_path: Path
) -> None:
    """Hundreds of notifications are for a host that takes them and never answers; the others arrive."""
    row = promise(APART, "one webhook host")
    quiet: list[float] = []
    flooded: list[float] = []
    for _ in range(rounds):
        async with services(tmp_path, 2) as (dead, alive), Notifying([dead, alive]) as notifying:
            quiet += await _wake(notifying, alive, row)
            dead.behaviour = hang
            for number in range(FLOODED):
                node = b"\x03" + number.to_bytes(32, "big")
                await notifying.register(dead.url(), node)
                notifying.bell.notify(node, ONION_MESSAGE_INCOMING)
            await dead.next()
            flooded += await _wake(notifying, alive, row)
    row.note = f"p99 {quantile(flooded, 99) / quantile(quiet, 99):.2f} x"


async def _wake(notifying: Notifying, alive: PushService, row: Row) -> list[float]:
    """Seconds from each wallet's notification to its push service; a try each."""
    times = []
    notifying.clock.pass_seconds(notifying.settings.cooldown)
    for number in range(OTHERS):
        node, path = b"\x02" + number.to_bytes(32, "big"), f"/{number}"
        await notifying.register(alive.url(path), node)
        began = time.perf_counter()
        notifying.bell.notify(node, ONION_MESSAGE_INCOMING)
        try:
            row.check((came := await alive.next()).path == path, f"{came.path} was woken instead of {path}")
        except TimeoutError:
            row.check(kept=False, what=f"the wallet at {path} was not woken")
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    return times
