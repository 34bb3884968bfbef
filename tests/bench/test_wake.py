"""The benchmark of waking measures real notifications: who is told, who is given up, and what is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import wake, wake_report
from tests.bench.wake import Compared, Round, Scene
from tests.bench.wake_push import push_process

SCENE = Scene("20 hosts", webhooks=60, hosts=60)


def of(seconds: float, *, lost: int = 0) -> Round:
    """A round in which it took all so long."""
    return Round(times=[seconds] * 10, lost=lost, signed=10, cpu=0.05)


def test_one_host_in_twenty_is_dead_and_a_third_of_those_each_way() -> None:
    """In every scene 5 % of the webhooks."""
    assert [scene.dead for scene in wake.SCENES] == [50, 50]
    assert [SCENE.death(host) for host in (10, 30, 50)] == list(wake.DEAD)
    assert SCENE.death(11) is None


def test_with_and_without_are_compared_round_by_round() -> None:
    """The median of their ratios; who was not told falls short by itself."""
    compared = Compared(SCENE, with_dead=[of(2), of(3), of(9)], without=[of(2), of(2), of(3)])
    assert compared.ratio(99) == pytest.approx(1.5)
    ratio, lost = wake_report.report([compared]).reach
    assert ratio.figure == pytest.approx(1.5)
    assert (ratio.reached, lost.reached) == (False, True)
    compared.without.append(of(2, lost=1))
    compared.with_dead.append(of(2))
    assert not wake_report.report([compared]).reach[1].reached


async def test_the_living_are_told_and_the_dead_given_up(tmp_path: Path) -> None:
    """Over real HTTPS; three tries and three signatures for each of the three kinds of dead hosts."""
    async with push_process(tmp_path) as push:
        quiet = await wake.one_round(push, SCENE, dead=False)
        among_dead = await wake.one_round(push, SCENE, dead=True)
        over = await wake.given_up(push, SCENE)
    for found in (quiet, among_dead):
        assert (len(found.times), found.lost) == (57, 0)
        assert 0 < min(found.times) <= found.last < wake.PATIENCE
        assert found.outcomes["wake.sent.lsps5.onion_message_incoming"] == 57
    assert quiet.signed == 57
    assert among_dead.signed > 57
    assert (over.outcomes["wake.failed.connect"], over.outcomes["wake.failed.timeout"]) == (1, 2)
    assert over.signed == 9
