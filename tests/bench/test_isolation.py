"""The benchmark of floods measures what it says: what is streamed, what is counted, and what a ratio is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import isolation_report, isolation_scene
from tests.bench.isolation import Cycle, Effort, Found, Round, together
from tests.bench.isolation_floods import PEER_RATE, RATE, Flood
from tests.bench.isolation_scene import Scene

OTHERS = 2
SHORT = Effort(onset=0.1, measured=0.5)
STOPPED = {Flood.OFFER_PATHS: "refused.offer-paths", Flood.RUBBISH: "passed", Flood.CROWD: "passed"}
"""Where a flood ends; most end at the limit of an offer."""


def of(milliseconds: float, *, lost: int = 0) -> Round:
    """A round in which all took this long."""
    times = [milliseconds / 1_000] * 100
    return Round(times=times, at_onset=[0.001] * 2, late=[0.0] * 100, lost=lost, cpu=0.1)


def found_of(flooded: dict[Flood, Round], *quiet: Round) -> Found:
    """One cycle."""
    return Found(rates=dict.fromkeys(flooded, RATE), cycles=[Cycle(list(quiet), flooded)])


def test_a_ratio_is_the_median_over_the_cycles() -> None:
    """With a flood / the median round without; pooled, all are as one; and noise is of those without."""
    cycles = [Cycle([of(10), of(5), of(30)], {Flood.REQUESTS: of(each)}) for each in (15, 12, 90)]
    found = Found(rates={Flood.REQUESTS: RATE}, cycles=cycles)
    assert found.by_cycle(Flood.REQUESTS) == [pytest.approx(each) for each in (1.5, 1.2, 9)]
    assert found.ratio(Flood.REQUESTS) == pytest.approx(1.5)
    assert found.pooled(Flood.REQUESTS) == pytest.approx(3)
    assert found.control == pytest.approx(2)
    assert together([of(1, lost=1), of(1, lost=2)]).lost == 3


def test_the_worst_flood_is_what_the_bound_is_for() -> None:
    """A crowd's is shown, and is no part of it; what got no answer falls short by itself."""
    rounds = {Flood.REQUESTS: of(11), Flood.ONLINE: of(13)}
    found = found_of(rounds, of(10), of(10))
    found.beside[Flood.CROWD], found.rates[Flood.CROWD] = of(90, lost=5), RATE
    ratio, lost = isolation_report.report(found).reach
    assert ratio.figure == pytest.approx(1.3)
    assert not ratio.reached
    assert lost.reached
    rounds[Flood.GARBAGE] = of(10, lost=1)
    assert not isolation_report.report(found_of(rounds, of(10), of(10))).reach[1].reached


def test_a_run_whose_requests_were_not_kept_is_worth_nothing() -> None:
    """The disk's part in it would be missing."""
    found = found_of({Flood.REQUESTS: of(1)}, of(1))
    found.counters["kept.invoice_request"] = 200
    isolation_scene._check(found)
    found.counters["kept.invoice_request"] = 199
    with pytest.raises(isolation_scene.Unkept, match="200 requests of the others 199"):
        isolation_scene._check(found)


@pytest.mark.slow
async def test_a_flood_is_stopped_and_what_is_not_answered_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are answered in a flood; an answer that does not come is as slow as the patience."""
    async with isolation_scene.scene(tmp_path, OTHERS) as scene:
        await check(scene, Flood.REQUESTS, {})
        monkeypatch.setattr(isolation_scene, "PATIENCE", 0.2)
        for payer, _ in scene._others:
            monkeypatch.setattr(payer, "deliver", lambda *_: None)
        found = await scene.round(Effort(onset=0.0, measured=0.3), None)
    assert (found.lost, found.times) == (3, [0.2] * 3)


@pytest.mark.slow
async def test_every_flood_is_streamed_and_meets_what_is_to_stop_it(tmp_path: Path) -> None:
    """All of it arrives, and ends where it should; the others are answered all the same."""
    async with isolation_scene.scene(tmp_path, OTHERS) as scene:
        before = await scene.counters()
        for flood in Flood:
            before = await check(scene, flood, before)


async def check(scene: Scene, flood: Flood, before: dict[str, int]) -> dict[str, int]:
    """One round with it; what the sidecar has counted by then."""
    rate = scene.prepare(flood, SHORT)
    assert rate == (pytest.approx(PEER_RATE / 1_403) if flood is Flood.RUBBISH else RATE)
    streamed, asked = round(rate * SHORT.round), round(OTHERS * isolation_scene.PACE * SHORT.round)
    found = await scene.round(SHORT, flood)
    assert len(found.times) + len(found.at_onset) == asked
    assert found.lost == 0
    assert 0 < min(found.times) <= max(found.times) < isolation_scene.PATIENCE
    after = await scene.counters()
    more = {name: count - before.get(name, 0) for name, count in after.items()}
    assert more["received"] >= streamed + asked
    assert more[STOPPED.get(flood, "refused.offer-requests")] > streamed / 2
    assert more["sent.static_invoice"] >= asked
    assert flood is not Flood.GARBAGE or more["dropped.bad-onion-hmac"] > 0
    assert flood is not Flood.ONLINE or more["sent.invoice_request"] > 0
    return after
