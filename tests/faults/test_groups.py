"""Servers of a group that die, hang, are cut off or hand over under load: Sentinel's, and a Cluster's."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import BACK, KEPT
from tests.harness import debian_redis
from tests.harness.crowd import OPTIONS, Crowd, Lost, until_there
from tests.harness.redis_groups import SAFE, Cluster, Node, SentinelGroup, eventually
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

WALLETS = 4
LOAD = 1.0
"""Seconds of load before a fault."""

CUT = 1.0
"""Seconds for which a master that dies was cut off from its replicas."""

A_ROUND = 90
"""Seconds that a round may take."""


@pytest.fixture(scope="module")
def executable() -> Path:
    """Debian's redis-server."""
    return debian_redis.ensure()


@contextlib.asynccontextmanager
async def crowded(folder: Path, url: str, *options: str) -> AsyncIterator[Crowd]:
    """A sidecar on a Redis, and who uses it."""
    async with SimulatedLnd(folder / "lnd") as lnd:
        given = (f"--redis.url={url}", *options, *OPTIONS)
        async with SidecarProcess(folder / "sidecar", lnd, options=given) as sidecar:
            crowd = Crowd(Stage(lnd), sidecar, seed=66)
            await crowd.gather(WALLETS)
            try:
                yield crowd
            finally:
                await crowd.close()


async def after(function: Callable[..., object], *args: object) -> None:
    """What waits for other processes, off the loop."""
    await asyncio.to_thread(function, *args)


# --- Sentinel -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def sentinel(executable: Path, *options: str, replicas: int = 1) -> AsyncIterator[SentinelGroup]:
    """A master and replicas with a Sentinel."""
    group = SentinelGroup(executable, replicas=replicas, options=(*SAFE, *options))
    try:
        await after(group.start)
        await after(group.whole)
        yield group
    finally:
        await after(group.end)


Break = Callable[[SentinelGroup], Coroutine[None, None, Node]]
"""Does it to the group's master, and returns it."""


async def killed(group: SentinelGroup) -> Node:
    """SIGKILL."""
    master = group.current()
    await after(master.kill)
    return master


async def stopped(group: SentinelGroup) -> Node:
    """SIGSTOP: it cuts no connection, and is a master still when it goes on."""
    master = group.current()
    master.signal(signal.SIGSTOP)
    return master


async def cut_off(group: SentinelGroup) -> Node:
    """Its replicas are gone for a while in which it goes on, then it dies."""
    master = group.current()
    await after(group.cut, master)
    await asyncio.sleep(CUT)
    await after(master.kill)
    return master


async def ordered(group: SentinelGroup) -> Node:
    """`SENTINEL FAILOVER`: another one is promoted while it is well, and it is told so later."""
    master = group.current()
    await after(group.fail_over)
    return master


async def ordered_while_changes_wait(group: SentinelGroup) -> Node:
    """The same behind `CLIENT PAUSE`: nothing is taken in that another one might not have."""
    await after(group.current().command, "CLIENT", "PAUSE", 10_000, "WRITE")
    return await ordered(group)


FAULTS: Sequence[Break] = (killed, stopped, cut_off, ordered)
ORDERED: Mapping[Break, str] = {
    ordered: "handed over by order",
    ordered_while_changes_wait: "handed over while changes wait",
}


async def fail_over(group: SentinelGroup, crowd: Crowd, fault: Break, back: Row) -> None:
    """Break the master under load, let the old one come back behind the new, and wait until all is served."""
    since = time.monotonic()
    old = await fault(group)
    await after(group.until_replaced, old)
    if fault is stopped:
        old.signal(signal.SIGCONT)
    elif fault not in ORDERED:
        await after(old.start)
    await crowd.until_back()
    back.tried()
    back.was_out(since)
    await after(group.whole)


async def test_with_a_replica_that_must_have_it_a_failover_loses_nothing(
    executable: Path, tmp_path: Path, promise: NewRow, rounds: int
) -> None:
    """Invoices, letters and clients that were acknowledged are at the replica that is promoted.

    Every replica must have them: one that need not might be promoted while the others still follow the old
    master, and make it acknowledge.
    """
    kept = {fault: promise(KEPT, f"Sentinel, each replica must have it: {named(fault)}") for fault in FAULTS}
    back = {fault: promise(BACK, f"Sentinel: {named(fault)}, and back as a replica") for fault in FAULTS}
    rounds = max(rounds, len(FAULTS))
    async with (
        asyncio.timeout(A_ROUND * rounds),
        sentinel(executable) as group,
        crowded(tmp_path, group.url, "--redis.replicas=1") as crowd,
    ):
        for number in range(rounds):
            fault = FAULTS[number % len(FAULTS)]
            await crowd.busy()
            await asyncio.sleep(LOAD)
            await fail_over(group, crowd, fault, back[fault])
            await crowd.quiet()
            await judge(crowd, kept[fault], f"round {number}")


def named(fault: Break) -> str:
    """What happens to the master."""
    return ORDERED.get(fault) or f"master {fault.__name__.replace('_', ' ')}"


async def judge(crowd: Crowd, row: Row, when: str) -> None:
    """Ask for all that was acknowledged."""
    lost = Lost()
    await crowd.look(lost)
    row.tried(lost.tries)
    for what in lost.lost:
        row.violated(f"{when}: {what}")


async def test_a_master_that_is_handed_over_while_changes_wait_loses_nothing(
    executable: Path, tmp_path: Path, promise: NewRow
) -> None:
    """Whatever must have them: `CLIENT PAUSE … WRITE` holds changes back until they are refused."""
    kept = promise(KEPT, f"Sentinel, 0 of 2 replicas must have it: {named(ordered_while_changes_wait)}")
    back = promise(BACK, f"Sentinel: {named(ordered_while_changes_wait)}")
    async with (
        asyncio.timeout(A_ROUND),
        sentinel(executable, replicas=2) as group,
        crowded(tmp_path, group.url) as crowd,
    ):
        await crowd.busy()
        await asyncio.sleep(LOAD)
        await fail_over(group, crowd, ordered_while_changes_wait, back)
        await crowd.quiet()
        await judge(crowd, kept, "handed over")


@pytest.mark.parametrize(
    ("fault", "wanted", "there", "of_the_servers"),
    [
        (cut_off, 0, 1, ()),
        (cut_off, 0, 1, ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")),
        (ordered, 1, 2, ()),
    ],
    ids=["none", "min-replicas-to-write", "one-of-two"],
)
async def test_what_a_failover_loses_where_not_every_replica_must_have_it_is_counted(
    *,
    executable: Path,
    tmp_path: Path,
    promise: NewRow,
    fault: Break,
    wanted: int,
    there: int,
    of_the_servers: Sequence[str],
) -> None:
    """Not promised, and so no violation: the row shows how much it was. All else goes on as it should."""
    asked_for = f"{wanted} of {there} replicas must have it{', min-replicas' if of_the_servers else ''}"
    row = promise(KEPT, f"Sentinel, {asked_for}: {named(fault)}; not promised")
    back = promise(BACK, f"Sentinel, {asked_for}: {named(fault)}")
    async with (
        asyncio.timeout(A_ROUND),
        sentinel(executable, *of_the_servers, replicas=there) as group,
        crowded(tmp_path, group.url, f"--redis.replicas={wanted}") as crowd,
    ):
        await crowd.busy()
        await asyncio.sleep(LOAD)
        await fail_over(group, crowd, fault, back)
        await crowd.quiet()
        lost = Lost()
        await crowd.look(lost)
    row.tried(lost.tries)
    row.note = f"{len(lost.lost)} lost"


async def test_what_the_old_master_alone_has_does_not_come_back_with_it(
    executable: Path, tmp_path: Path, promise: NewRow
) -> None:
    """It was never acknowledged; the old master throws it away when it follows the new one."""
    row = promise(KEPT, "Sentinel: the old master is back, with what it alone had")
    async with (
        asyncio.timeout(A_ROUND),
        sentinel(executable) as group,
        crowded(tmp_path, group.url, "--redis.replicas=1") as crowd,
    ):
        each = crowd.wallets[0]
        kept, old = each.acknowledged, group.current()
        await after(group.cut, old)
        before = old.client.info("replication")["master_repl_offset"]
        row.check(not await each.leave(), "it was acknowledged, and no replica had it")
        row.check(old.client.info("replication")["master_repl_offset"] > before, "the master has not got it")
        await after(old.kill)
        await after(group.until_replaced, old)
        await after(old.start)
        await after(group.whole)
        row.check(
            await until_there(partial(crowd.served, each)) == kept,
            "a payer gets what was on the old master alone",
        )
        row.check(await each.leave_until_kept(), "it leaves nothing any more")


# --- Cluster --------------------------------------------------------------------------------------


async def test_a_cluster_whose_masters_die_and_whose_slots_move_loses_nothing(
    executable: Path, tmp_path: Path, promise: NewRow, rounds: int
) -> None:
    """Three masters with a replica each: every request is answered afterwards, and nothing is lost."""
    died, moving, handed = "a master killed", "slots moved", "handed back"
    kept = promise(KEPT, f"Cluster, each replica must have it: {moving}, {died}, {handed}")
    back = {what: promise(BACK, f"Cluster: {what}") for what in (died, moving, handed)}
    cluster = Cluster(executable, replicas=3)
    try:
        await after(cluster.start)
        async with (
            asyncio.timeout(A_ROUND * rounds),
            crowded(tmp_path, cluster.url, "--redis.replicas=1") as crowd,
        ):
            for number in range(rounds):
                await crowd.busy()
                await asyncio.sleep(LOAD / 2)
                await move_slots(cluster, crowd, back[moving])
                await lose_a_master(cluster, number % 3, crowd, back[died], back[handed])
                await crowd.quiet()
                await judge(crowd, kept, f"round {number}")
    finally:
        await after(cluster.end)


async def move_slots(cluster: Cluster, crowd: Crowd, back: Row) -> None:
    """Each wallet's slot goes to another master, and back, its keys one after the other."""
    since = time.monotonic()
    for key in crowd.spread():
        slot, source = await asyncio.to_thread(cluster.owner, key)
        target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
        for one, other in ((source, target), (target, source)):
            await after(cluster.move, slot, one, other)
    await crowd.until_back()
    back.tried()
    back.was_out(since)


async def lose_a_master(cluster: Cluster, number: int, crowd: Crowd, died: Row, handed: Row) -> None:
    """It dies, its replica takes over, it comes back as a replica, and is given its place again."""
    master, replica = cluster.nodes[number], cluster.nodes[3 + number]
    since = time.monotonic()
    await after(master.kill)
    await after(eventually, lambda: cluster.is_master(replica))
    # Without a replica of its own the new master acknowledges nothing: the old one has to come back.
    await after(master.start)
    await crowd.until_back()
    died.tried()
    died.was_out(since)
    await after(cluster.linked, master)
    since = time.monotonic()
    await after(cluster.promote, master)
    await after(cluster.linked, replica)
    await crowd.until_back()
    handed.tried()
    handed.was_out(since)
