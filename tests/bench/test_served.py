"""The benchmark at a real LND: all that is asked is answered, told apart, and counted once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from sidecar.core import keys, messages, onion, paths
from tests.bench import served, served_report
from tests.bench.children import Child, ChildError, processor_seconds
from tests.bench.load import PAYERS, Load, WrongAnswer
from tests.bench.served import Found, Lane, Placed, Sample
from tests.harness import bolt8
from tests.harness.link import LinkClosed

COUNT = 2 * PAYERS

Change = Callable[[int, bytes], bytes | None]
"""What a forwarder makes of its nth packet; None loses it."""

# --- the load ---------------------------------------------------------------------------------------


async def forward(secret: bytes, listener: bolt8.Listener, change: Change) -> None:
    """As much of an LND as forwards between its peers."""
    links: dict[bytes, bolt8.Bolt8Link] = {}
    seen = 0

    async def follow(link: bolt8.Bolt8Link) -> None:
        nonlocal seen
        with contextlib.suppress(LinkClosed):
            while True:
                path_key, packet = await link.receive_onion()
                shared = keys.ecdh(secret, path_key)
                blinded = paths.blind(onion.check_packet(packet), shared)
                layer = onion.peel(packet, keys.ecdh(secret, blinded))
                assert isinstance(layer, onion.Forward)
                data = paths.decrypt_recipient_data(shared, messages.read_forward_payload(layer.payload))
                hop = paths.follow(path_key, shared, data)
                assert hop.node_id is not None
                seen += 1
                if (changed := change(seen, layer.next_packet)) is not None:
                    await links[hop.node_id].send_onion(hop.path_key, changed)

    async with asyncio.TaskGroup() as tasks:
        while True:
            link = await listener.accept()
            links[link.remote_node_id] = link
            tasks.create_task(follow(link))


@contextlib.asynccontextmanager
async def prepared(change: Change) -> AsyncIterator[Load]:
    """A load whose payers are about to send one another COUNT messages."""
    secret = os.urandom(32)
    async with await bolt8.listen(secret) as listener:
        forwarding = asyncio.create_task(forward(secret, listener, change))
        load = Load()
        await load.connect({"node": listener.node_id.hex(), "port": listener.port, "paths": []})
        await load.prepare({"shape": "forward", "count": COUNT})
        yield load
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)


@pytest.mark.parametrize("how", [{"rate": 1_000.0}, {"window": 3, "seconds": 10.0}])
async def test_each_answer_is_told_by_its_path_key_and_timed(how: dict[str, float]) -> None:
    """At random moments, and a few at all times: what came is what was sent, and nothing twice."""
    async with prepared(lambda _, packet: packet) as load:
        told = await load.run({**how, "check": True})
    assert (told["sent"], told["answered"], told["unknown"]) == (COUNT, COUNT, 0)
    assert len(told["latencies"]) == COUNT
    assert 0 < min(told["latencies"]) <= max(told["latencies"]) < 5


async def test_no_more_are_under_way_than_the_window() -> None:
    """When the first is lost, a window of one stays shut: nothing else goes out."""
    async with prepared(lambda seen, packet: None if seen == 1 else packet) as load:
        told = await load.run({"window": 1, "seconds": 10.0})
    assert (told["sent"], told["answered"]) == (1, 0)


async def test_what_is_lost_is_not_answered() -> None:
    """Every other one: the run ends by itself, and the next one's answer is not taken for a lost one's."""
    async with prepared(lambda seen, packet: None if seen % 2 else packet) as load:
        told = await load.run({"rate": 1_000.0, "check": True})
    assert (told["sent"], told["answered"], len(told["latencies"])) == (COUNT, COUNT // 2, COUNT // 2)


async def test_an_answer_that_can_not_be_opened_stops_the_run() -> None:
    """The last one is opened: a path_key alone proves nothing."""
    async with prepared(
        lambda seen, packet: packet[:-1] + bytes([packet[-1] ^ 1]) if seen == COUNT else packet
    ) as load:
        with pytest.raises(WrongAnswer):
            await load.run({"window": 1, "seconds": 10.0, "check": True})


async def test_a_child_says_what_it_can_not_do() -> None:
    """No traceback and no end: one line, raised at whoever told it; its processor time can be read."""
    async with Child("tests.bench.load") as load:
        with pytest.raises(ChildError, match="IndexError"):
            await load.ask("run", rate=1)
        assert processor_seconds(load.pid) > 0


# --- the report -------------------------------------------------------------------------------------


def sample(
    a_second: float, lnd: float = 0.7, own: float = 0.3, seconds: float = 0.01, derived: int = 0
) -> Sample:
    """A run of 100 requests that took so much of the processor."""
    return Sample(
        sent=100,
        answered=100,
        forwarded=100,
        offered_a_second=50,
        a_second=a_second,
        latencies=[seconds] * 100,
        processor={"lnd": lnd, "own": own, "redis": 0.1, "load": 0.05},
        counted={"lnd.DeriveSharedKey": derived, "store.read": 101},
        bytes={"request": 1366, "forward": 1366, "answer": 32834},
    )


def found() -> Found:
    """What a run could have found, in both placements."""

    def placed(cheapest: float) -> Placed:
        return Placed(
            {
                ("sidecar", "announced"): Lane(
                    [sample(rate, derived=100) for rate in (60, 90, 100)],
                    [sample(50, lnd=0.77, own=0.231, seconds=0.03, derived=100)],
                    [sample(50)],
                ),
                ("cheapest", "announced"): Lane([sample(cheapest)] * 3, [sample(50)], [sample(50)]),
                ("sidecar", "private"): Lane([sample(80, derived=200)], [sample(50, derived=200)]),
                ("cheapest", "private"): Lane([sample(100)]),
                ("lnd", "forward"): Lane([], [sample(50, seconds=0.012)], [sample(50)]),
            },
            half_rate=45,
        )

    return Found([("sidecar", sample(49))], {"shared": placed(100), "apart": placed(90)})


def test_the_bounds_are_held_against_medians_and_one_and_the_same_rate() -> None:
    """Rates by their rounds; LND's processor time as it is at half load, not when it is at its end."""
    reach = {each.what: round(each.figure, 3) for each in served_report.reach(found())}
    assert reach == {
        "answered / the cheapest possible answerer": 0.9,
        "answered / the cheapest, LND on a core of its own": 1.0,
        "LND's CPU per answered request / with the cheapest": 1.1,
        "p99 at half load / LND's forwarding": 2.5,
        "requests at half load that got no answer": 0,
        "sidecar's CPU / LND's CPU per request": 0.3,
        "signer calls on the way in": 1.0,
        "signer calls on the way out": 1.0,
        "Redis round trips before the answer": 1.0,
    }


def test_a_second_signer_call_on_the_way_in_would_be_seen() -> None:
    """Also if it is made for some requests only."""
    made = found()
    for each in made.placed["shared"].lanes["sidecar", "announced"].full:
        each.counted["lnd.DeriveSharedKey"] = 120
    reach = {each.what: each.reached for each in served_report.reach(made)}
    assert not reach["signer calls on the way in"]
    assert reach["signer calls on the way out"]


def test_what_got_no_answer_falls_short_by_itself() -> None:
    """It has no latency: without it, who answers none but the easy ones would look fast."""
    made = found()
    lane = made.placed["shared"].lanes["sidecar", "announced"]
    lane.half.append(replace(lane.half[0], answered=99))
    short = [each.what for each in served_report.reach(made) if not each.reached]
    assert "requests at half load that got no answer" in short


def test_the_table_and_the_json_have_every_lane() -> None:
    """Also those that were measured in one way only."""
    made = found()
    text = served_report.text(made)
    assert text.count("cheapest  announced") == text.count("lnd       forward") == 2
    lanes = json.loads(json.dumps(served_report.figures(made, 32)))["placements"]["apart"]["lanes"]
    assert lanes["sidecar announced"]["full"][0]["processor_ms"] == {
        "lnd": 7.0,
        "own": 3.0,
        "redis": 1.0,
        "load": 0.5,
    }


# --- the real thing ---------------------------------------------------------------------------------


@pytest.mark.real
def test_every_request_is_answered_once_and_forwarded_once_by_both() -> None:
    """The sidecar's answers are opened by the run itself; the cheapest one's are of the very same sizes."""
    made = served.run(served.QUICK)
    lanes = {(name, *key): lane for name, placed in made.placed.items() for key, lane in placed.lanes.items()}
    runs = made.ramp + [
        (contestant, each)
        for (_, contestant, _), lane in lanes.items()
        for each in (*lane.full, *lane.half, *lane.alone)
    ]
    assert {contestant for contestant, _ in runs} == {"sidecar", "cheapest", "lnd"}
    for contestant, each in runs:
        assert each.sent == each.answered > 0
        assert each.forwarded == (0 if contestant == "lnd" else each.sent)
        assert each.bytes["request"] == onion.SMALL_PACKET
        if contestant != "lnd":
            assert (each.bytes["forward"], each.bytes["answer"]) == (onion.SMALL_PACKET, onion.LARGE_PACKET)
    for shape, derivations in served.DERIVATIONS.items():
        lane = lanes["shared", "sidecar", shape]
        assert lane.counted("lnd.DeriveSharedKey") == derivations
        assert lane.counted("lnd.SendOnionMessage") == 2
    assert served_report.report(made, served.QUICK.window).text
