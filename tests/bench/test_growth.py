"""The benchmark of growth: what it fills Redis with is what the scripts write, and all of it is measured."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from sidecar.core.model import Loaded, SlotMark
from tests.bench import growth, growth_report
from tests.bench.growth import Plan
from tests.bench.growth_fill import Population, fill

SAVED = re.compile(rb"^\d{13}:")
"""What save.lua puts before a slot: milliseconds."""

NODE, OTHER = b"\x02" + bytes(32), b"\x03" + bytes(range(32))


def contents(socket: Path, people: Population) -> dict[bytes, tuple[Any, ...]]:
    """All keys of a node, behind its prefix: kind, value and end; of a slot, not when it was saved."""
    found: dict[bytes, tuple[Any, ...]] = {}
    with redis.Redis(unix_socket_path=str(socket)) as client:
        for key in client.keys(people.keys.prefix + "*"):
            kind = client.type(key)
            value = client.hgetall(key) if kind == b"hash" else SAVED.sub(b"", client.get(key), count=1)
            left = client.pttl(key)
            ends = None if left < 0 else round(time.time() + left / 1_000)
            found[key.removeprefix(people.keys.prefix.encode())] = (kind, value, ends)
    return found


@pytest.mark.parametrize("slots", [1, 10])
async def test_what_is_filled_in_is_what_the_scripts_write(slots: int) -> None:
    """Key by key, byte for byte but for the time; and it is loaded as it was meant."""
    now = int(time.time())
    filled, scripted = Population.recorded(NODE, now, slots), Population.recorded(OTHER, now, slots)
    async with growth.staged(filled) as stage:
        await fill(stage.redis.socket, filled, range(3))
        store = growth.Stage(stage.redis, scripted).store
        for number in range(3):
            await store.add_client(scripted.client(number))
            for slot in range(slots):
                await store.save(scripted.client_id(number), scripted.stored(slot), scripted.mark_until)
        await store.close()
        written = contents(stage.redis.socket, filled)
        assert len(written) == 2 + 3 + 3 * slots
        assert written == contents(stage.redis.socket, scripted)
        assert not any(SAVED.match(value) for kind, value, _ in written.values() if kind == b"string")
        stored = filled.stored(slots - 1)
        assert await stage.store.load(filled.client_id(2), slots - 1) == Loaded(
            filled.client(2), SlotMark(stored.tag, stored.created_at), stored
        )


async def test_a_population_grows_by_the_rest() -> None:
    """Clients that are there are not written again, and the last of each part is there."""
    people = Population.recorded(NODE, int(time.time()))
    async with growth.staged(people) as stage:
        for clients in (3, 1_001):
            await stage.grow(clients)
            await stage.refresh()
            assert len(stage.bindings.items()) == clients
            await stage.requests([(0, 0), (clients - 1, 0)])
        with pytest.raises(AssertionError):
            await stage.requests([(1_001, 0)])


def test_the_report_says_what_was_reached() -> None:
    """A tiny run: every size of it has its figures, and a start of the real sidecar its time."""
    plan = Plan(sizes=(200,), few=10, rounds=1, each=5)
    people, found = asyncio.run(growth.measure(plan, None))
    assert people.payload == 1_538
    assert [(size.clients, size.slots) for size in found] == [(200, 1), (20, 10)]
    report = growth_report.report(people, found)
    for figures, size in zip(report.figures["sizes"], found, strict=True):
        assert figures["request_cpu_us"] > 0
        assert figures["redis_bytes_over_payload"] > 0.5
        assert (size.start is not None) == (size.slots == 1)
    started = found[0].start
    assert started is not None
    assert 0 < started.cpu_seconds < 2 * started.seconds
    assert started.mib > 10
    assert [each.bound for each in report.reach] == [growth_report.COST, growth_report.MEMORY]
    assert len(report.text.split("\n\n")[0].splitlines()) == 1 + len(found)
