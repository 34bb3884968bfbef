"""How fast wallets are woken, and what dead push services cost: as a table, and as JSON."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Any

from sidecar import logs
from tests.bench import wake
from tests.bench.common import Reach, Report, quantile
from tests.bench.wake import Compared, Round

_ROUNDS = 3

_NOTES = f"""\
The product's notifier in this process, over real HTTPS to push services in another; LND is a stand-in that
takes {1_000 * wake.SIGNING:.1f} ms to sign, the store is memory. All wallets are rung at once.
Times are from `notify` to the POST's arrival at a living host; ratios are medians over rounds.
One host in twenty is dead, a third of those each: it refuses, never answers, or lets TLS hang.
Given up: the dead alone, waited out with short times; three tries each, one signature a try.
"""


def _row(rounds: Sequence[Round]) -> dict[str, float]:
    median = statistics.median
    return {
        "living": len(rounds[0].times),
        "per_second": median(each.per_second for each in rounds),
        "p50_s": median(quantile(each.times, 50) for each in rounds),
        "p99_s": median(quantile(each.times, 99) for each in rounds),
        "last_s": median(each.last for each in rounds),
        "cpu_ms_each": median(each.cpu_each for each in rounds),
        "signed": median(each.signed for each in rounds),
        "lost": sum(each.lost for each in rounds),
    }


def figures(found: Sequence[Compared]) -> dict[str, Any]:
    """All of it."""
    scenes = {}
    for each in found:
        scenes[each.scene.name] = {
            "webhooks": each.scene.webhooks,
            "hosts": each.scene.hosts,
            "dead_webhooks": each.scene.dead,
            "without_the_dead": _row(each.without),
            "with_the_dead": _row(each.with_dead),
            "ratios": {f"p{percent}": each.ratio(percent) for percent in (50, 99)},
            "given_up": each.given_up.outcomes if each.given_up else None,
        }
    return {"notes": _NOTES.splitlines(), "scenes": scenes}


def text(found: Sequence[Compared]) -> str:
    """The table."""
    head = f"{'1 webhook a client':26}{'':14}{'told':>6}{'a second':>10}{'p50 s':>8}{'p99 s':>8}{'last s':>8}"
    lines = [head + f"{'CPU ms each':>13}{'signed':>8}{'lost':>6}"]
    for each in found:
        name = f"{each.scene.webhooks} at {each.scene.name}"
        for kind, rounds in (("living alone", each.without), (f"+ {each.scene.dead} dead", each.with_dead)):
            row = _row(rounds)
            line = f"{name:26}{kind:14}{row['living']:6.0f}{row['per_second']:10.0f}{row['p50_s']:8.2f}"
            line += f"{row['p99_s']:8.2f}{row['last_s']:8.2f}{row['cpu_ms_each']:13.2f}{row['signed']:8.0f}"
            lines.append(line + f"{row['lost']:6.0f}")
        lines.append(f"{'':26}{'with / without':14}{'':16}{each.ratio(50):8.2f}{each.ratio(99):8.2f}")
        if each.given_up is not None:
            failed = {name.removeprefix("wake."): count for name, count in each.given_up.outcomes.items()}
            said = ", ".join(f"{name} {count}" for name, count in failed.items())
            lines.append(f"{'':26}given up, of {each.scene.dead}: {said}; signed {each.given_up.signed}")
    return "\n".join([*lines, "", _NOTES.rstrip()])


def report(found: Sequence[Compared]) -> Report:
    """All of it, and what was to be reached: the dead delay the living by next to nothing."""
    reach = []
    for each in found:
        reach.append(Reach(f"wake: p99 with dead hosts / without, {each.scene.name}", each.ratio(99), 1.2))
        lost = sum(one.lost for one in (*each.with_dead, *each.without))
        reach.append(Reach(f"wake: living wallets not told, {each.scene.name}", lost, 0))
    return Report("wake", figures(found), text(found), reach)


def run(quick: bool) -> Report:
    """Measure and report; within a minute."""
    logs.setup("error")  # what is said of each failed notification is for operators
    found = wake.measure(wake.QUICK_SCENES, 1) if quick else wake.measure(wake.SCENES, _ROUNDS)
    return report(asyncio.run(found))
