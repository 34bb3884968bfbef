"""What was measured at a real LND, as a table to read and as JSON to compare."""

from __future__ import annotations

from typing import Any

from tests.bench import served
from tests.bench.common import Reach, Report, quantile
from tests.bench.served import FULL, QUICK, Found, Lane, Placed, Sample

PLACEMENTS = {
    "shared": "LND, the answerer, its Redis and the load share all cores",
    "apart": "LND has one core, all else has the others",
}

JUDGED = "shared"
"""Whose figures are held against the bounds. Few operators give LND a core of its own: what the sidecar
takes of the processor is taken from LND then, and counts. Apart shows whether LND ever waits for it."""

_SHAPE = "announced"
"""Reply paths that begin at the payer: the sidecar and the cheapest make the very same calls."""

_WHO = ("lnd", "own", "redis", "load")

_NOTES = (
    "announced: the reply path begins at the payer; private: at LND, one signer call more for both.",
    "cheapest: these signer calls, two SendOnionMessage of packets made beforehand, and nothing else.",
    "lnd: LND alone forwards a packet of a request's size between two peers; nobody follows its stream.",
    "a second: with the JSON's `window` of requests under way at all times; the median of the rounds.",
    "p50, p99: from when a request was due until its answer came; they come at random, at half of the most",
    "that the sidecar answers in that placement; lost: what got no answer then, and is in neither. alone:",
    "one request at a time. CPU: milliseconds of the processor for each answered request, at half load;",
    "where that was not measured, at full. own is the answerer's process, load the peers'.",
    f"The bounds hold for {_SHAPE}, {JUDGED}: an operator's LND shares its cores with the sidecar. Apart",
    "tells whether LND waits for it. CPU is compared at one and the same rate; p99 is over LND's p99.",
    "Round trips to Redis: those that the answer waits for, to a tenth, for the server's own look every 5 s",
    "is among them. The mailbox is written beside the answer.",
)


def _shapes(placed: Placed) -> list[str]:
    return [shape for contestant, shape in placed.lanes if contestant == "cheapest"]


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "sent": sample.sent,
        "answered": sample.answered,
        "forwarded": sample.forwarded,
        "offered_a_second": round(sample.offered_a_second, 1),
        "a_second": round(sample.a_second, 1),
        "p50_ms": _milliseconds(sample.latencies, 50),
        "p99_ms": _milliseconds(sample.latencies, 99),
        "processor_ms": {who: round(sample.used(who), 2) for who in sample.processor},
        "counted": {name: count for name, count in sample.counted.items() if count},
        "bytes": sample.bytes,
    }


def _milliseconds(latencies: list[float], percent: int) -> float | None:
    return round(quantile(latencies, percent) * 1000, 1) if len(latencies) > 1 else None


def _lane(lane: Lane) -> dict[str, Any]:
    return {
        "full": [_sample(each) for each in lane.full],
        "half": [_sample(each) for each in lane.half],
        "alone": [_sample(each) for each in lane.alone],
    }


def figures(found: Found, window: int) -> dict[str, Any]:
    """All of it."""
    return {
        "window": window,
        "wallets": served.WALLETS,
        "rising_load": [{"contestant": contestant, **_sample(sample)} for contestant, sample in found.ramp],
        "placements": {
            name: {
                "what": PLACEMENTS[name],
                "half_load_a_second": round(placed.half_rate, 1),
                "answered_ratio": {
                    shape: round(placed.answered_ratio(shape), 3) for shape in _shapes(placed)
                },
                "lanes": {" ".join(key): _lane(lane) for key, lane in placed.lanes.items()},
            }
            for name, placed in found.placed.items()
        },
    }


# --- to read ------------------------------------------------------------------------------------------


def text(found: Found) -> str:
    """Both tables."""
    lines = [f"{'offered a second':18}{'answered':>10}{'p50 ms':>9}{'p99 ms':>9}{'lost':>6}"]
    for contestant, sample in found.ramp:
        p50, p99 = (quantile(sample.latencies, percent) * 1000 for percent in (50, 99))
        row = f"{contestant:10}{sample.offered_a_second:8.1f}{sample.a_second:10.1f}{p50:9.1f}{p99:9.1f}"
        lines.append(row + f"{sample.sent - sample.answered:6}")
    for name, placed in found.placed.items():
        lines += ["", f"{name}: {PLACEMENTS[name]}; half load is {placed.half_rate:.0f}/s", _HEAD]
        lines += [_row(key, lane) for key, lane in sorted(placed.lanes.items())]
        ratios = (f"{shape} {placed.answered_ratio(shape):.2f}" for shape in _shapes(placed))
        lines.append(f"answered / the cheapest: {', '.join(ratios)}")
    return "\n".join([*lines, "", *_NOTES])


_HEAD = (
    f"{'':22}{'a second':>9}{'p50 ms':>8}{'p99 ms':>8}{'lost':>6}{'alone p50':>10}"
    f"{'CPU LND':>9}{'own':>6}{'redis':>7}{'load':>6}"
)


def _row(key: tuple[str, str], lane: Lane) -> str:
    row = f"{key[0]:10}{key[1]:12}" + (f"{lane.a_second:9.1f}" if lane.full else " " * 9)
    latencies = lane.latencies()
    row += "".join(f"{quantile(latencies, each) * 1000:8.1f}" if latencies else " " * 8 for each in (50, 99))
    row += f"{lane.lost:6}" if latencies else " " * 6
    row += f"{quantile(lane.alone[0].latencies, 50) * 1000:10.1f}" if lane.alone else " " * 10
    half = bool(lane.half)
    for who, width in zip(_WHO, (9, 6, 7, 6), strict=True):
        there = who in (lane.half or lane.full)[0].processor
        row += f"{lane.used(who, half=half):{width}.2f}" if there else " " * width
    return row


# --- what was to be reached -----------------------------------------------------------------------------


def reach(found: Found) -> list[Reach]:
    """What was to be reached, and was it."""
    placed = found.placed[JUDGED]
    ours, theirs = placed.lane("sidecar", _SHAPE), placed.lane("cheapest", _SHAPE)
    lnd, private = placed.lane("lnd", "forward"), placed.lane("sidecar", "private")
    way_in = ours.counted("lnd.DeriveSharedKey")
    way_out = private.counted("lnd.DeriveSharedKey") - way_in
    answered = "answered / the cheapest possible answerer"
    rows = [Reach(answered, placed.answered_ratio(_SHAPE), 0.95, at_least=True)]
    if (apart := found.placed.get("apart")) is not None:
        ratio = apart.answered_ratio(_SHAPE)
        rows.append(Reach("answered / the cheapest, LND on a core of its own", ratio, 0.95, at_least=True))
    p99 = quantile(ours.latencies(), 99) / quantile(lnd.latencies(), 99)
    per_request = "CPU per answered request"
    return [
        *rows,
        Reach(f"LND's {per_request} / with the cheapest", ours.used("lnd") / theirs.used("lnd"), 1.1),
        Reach("p99 at half load / LND's forwarding", p99, 3),
        Reach("requests at half load that got no answer", ours.lost + private.lost, 0),
        Reach("sidecar's CPU / LND's CPU per request", ours.used("own") / ours.used("lnd"), 0.3),
        Reach("signer calls on the way in", round(way_in, 1), 1),
        Reach("signer calls on the way out", round(way_out, 1), 1),
        Reach("Redis round trips before the answer", round(ours.counted("store.read"), 1), 1),
    ]


def report(found: Found, window: int) -> Report:
    """All of it, and what was to be reached."""
    return Report("served", figures(found, window), text(found), reach(found))


def run(quick: bool) -> Report:
    """Measure and report. Raises BuildError."""
    effort = QUICK if quick else FULL
    return report(served.run(effort), effort.window)
