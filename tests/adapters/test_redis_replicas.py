"""Changes that replicas must have: what is acknowledged, what is refused, and what that is called."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.adapters import doctor_redis, redis_acks
from sidecar.adapters.redis_acks import Acks
from sidecar.adapters.redis_connect import connect
from sidecar.adapters.redis_embedded import server_executable
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.diagnosis import Finding, Level, RedisFacts
from sidecar.core.diagnosis import redis as judged
from sidecar.core.errors import StoreSetupError, StoreUnavailable
from tests.adapters.conftest import Open
from tests.harness.ports import free_ports
from tests.harness.redis_groups import SAFE, Cluster, Node, SentinelGroup, changed_again, eventually
from tests.harness.store_contract import a_client, a_node, an_invoice, until

EVERYSEC = ("--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0")


class Pair:
    """A master and a replica."""

    def __init__(self, executable: Path, *of_the_replica: str) -> None:
        one, two = free_ports(2)
        self.master = Node(executable, one, *SAFE)
        options = of_the_replica or SAFE
        self.replica = Node(executable, two, *options, "--replicaof", "127.0.0.1", str(one))
        self.url = f"redis://127.0.0.1:{one}"

    def start(self) -> None:
        """Both, until one follows the other."""
        self.master.start()
        self.replica.start()
        self.follows()

    def follows(self) -> None:
        """Wait until the replica follows."""
        eventually(lambda: self.master.client.info("replication").get("slave0", {}).get("state") == "online")

    def end(self) -> None:
        """Both."""
        self.replica.end()
        self.master.end()


Start = Callable[..., Pair]


@pytest.fixture
def paired(new_redis: Path) -> Iterator[Start]:
    """Pairs of one test's own: "6.2", which has WAIT alone, or "8.2", which has WAITAOF."""
    pairs: list[Pair] = []

    def start(version: str = "8.2", *of_the_replica: str) -> Pair:
        pairs.append(Pair(new_redis if version == "8.2" else server_executable(), *of_the_replica))
        pairs[-1].start()
        return pairs[-1]

    yield start
    for pair in pairs:
        pair.end()


versions = pytest.mark.parametrize("version", ["6.2", "8.2"])


# --- one replica ----------------------------------------------------------------------------------


@versions
async def test_what_is_acknowledged_is_at_the_replica(version: str, paired: Start, opened: Open) -> None:
    """The moment after: the master may die then."""
    pair = paired(version)
    store, client = await opened(pair.url, replicas=1), a_client()
    await store.add_client(client)
    for slot in range(4):
        invoice = an_invoice(slot)
        await store.save(client.client_id, invoice, until())
        assert pair.replica.client.exists(store._keys.slot(client.client_id, slot))


@versions
async def test_without_its_replica_nothing_is_acknowledged(
    version: str, paired: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, as a network that is cut stops it: the error says how many there were. Then it goes on."""
    pair = paired(version)
    store, client, invoice = await opened(pair.url, replicas=1), a_client(), an_invoice()
    await store.add_client(client)
    monkeypatch.setattr(redis_acks, "FSYNC_TIMEOUT_MS", 300)
    monkeypatch.setattr(redis_acks, "NUDGE_MS", 100)
    pair.replica.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"0 of the 1 replicas that redis\.replicas asks for had"):
        await store.save(client.client_id, invoice, until())
    assert time.monotonic() - began < 2
    assert (await store.load(client.client_id, 0)).client == client
    # What may be lost anyway does not wait.
    await store.mail.drop_mail(client.client_id, [1])
    pair.replica.signal(signal.SIGCONT)
    await changed_again(store)
    await store.save(client.client_id, invoice, until())
    assert pair.replica.client.exists(store._keys.slot(client.client_id, 0))


async def test_a_replica_without_an_append_only_file_does_not_count_where_disks_do(
    paired: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAITAOF counts those that have the change on disk, and the error says so; to WAIT memory will do."""
    pair = paired("8.2", "--save", "", "--repl-diskless-sync-delay", "0")
    monkeypatch.setattr(redis_acks, "FSYNC_TIMEOUT_MS", 300)
    monkeypatch.setattr(redis_acks, "NUDGE_MS", 100)
    with pytest.raises(StoreUnavailable, match=r"0 of the 1 replicas .* have they an append-only file"):
        await opened(pair.url, replicas=1)
    await (await opened(pair.url, replicas=1, durability="everysec")).add_client(a_client())


async def test_a_replica_that_fsyncs_always_costs_no_second(paired: Start, opened: Open) -> None:
    """Asked by WAITAOF alone it would say what it has on disk a second later: WAIT goes in front."""
    pair = paired()
    store, client = await opened(pair.url, replicas=1), a_client()
    await store.add_client(client)
    began = time.monotonic()
    for _ in range(10):
        await store.rotate_client(client.client_id)
    assert time.monotonic() - began < 3


@pytest.mark.slow
async def test_a_replica_that_fsyncs_every_second_is_waited_for(paired: Start, opened: Open) -> None:
    """It takes a second or two, which is what the operator chose."""
    store = await opened(paired("8.2", *EVERYSEC).url, replicas=1)
    await store.add_client(a_client())


async def test_more_replicas_than_there_are_is_away_and_not_a_set_up_error(
    paired: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may be on its way: the server waits for it."""
    monkeypatch.setattr(redis_acks, "FSYNC_TIMEOUT_MS", 300)
    monkeypatch.setattr(redis_acks, "NUDGE_MS", 100)
    with pytest.raises(StoreUnavailable, match="1 of the 2 replicas"):
        await opened(paired().url, replicas=2)


@versions
@pytest.mark.slow
async def test_min_replicas_to_write_is_away_at_the_start_too(
    version: str, paired: Start, opened: Open
) -> None:
    """NOREPLICAS passes when the replica is back: a server that starts meanwhile must not end for it."""
    pair = paired(version)
    store, client = await opened(pair.url), a_client()
    await store.add_client(client)
    pair.master.command("CONFIG", "SET", "min-replicas-to-write", 1)
    await store.save(client.client_id, an_invoice(), until())
    pair.replica.kill()
    eventually(lambda: not pair.master.client.info("replication")["connected_slaves"])
    with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
        await store.save(client.client_id, an_invoice(1), until())
    with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
        await opened(pair.url)
    pair.replica.start()
    await changed_again(store)


async def test_a_user_who_may_not_wait_is_told_at_the_start(paired: Start, opened: Open) -> None:
    """WAIT is a command that has to be allowed."""
    pair = paired()
    pair.master.command("ACL", "SETUSER", "sidecar", "on", ">word", "~*", "+@all", "-wait")
    with pytest.raises(StoreSetupError, match=r"(?i)\bwait"):
        await opened(pair.url.replace("://", "://sidecar:word@"), replicas=1)


# --- what it is called ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "durability", "said"),
    [
        ("6.2", "strict", "(AOF always + 1 replica)"),
        ("8.2", "strict", "(AOF always, WAITAOF + 1 replica)"),
        ("8.2", "everysec", "(AOF always + 1 replica, durability everysec)"),
    ],
)
async def test_the_ready_line_tells_of_the_replicas(
    version: str, durability: str, said: str, paired: Start, opened: Open
) -> None:
    """And of what they must have: WAITAOF counts their disks."""
    store = await opened(paired(version).url, replicas=1, durability=durability)
    assert store.description.endswith(said)


async def test_the_doctor_counts_replicas_that_follow(paired: Start) -> None:
    """Fewer than are asked for: no change is taken."""
    pair = paired()

    async def seen(wanted: int) -> tuple[str, list[Finding]]:
        facts, _ = await doctor_redis.examine(pair.url, None, "strict", replicas=wanted)
        return facts.judgement, [each for each in judged(facts) if each.name == "redis.replicas"]

    assert (await seen(0))[1] == []
    judgement, (found,) = await seen(1)
    assert "WAITAOF + 1 replica" in judgement
    assert (found.level, found.seen) == (Level.OK, "1 follow, 1 must have each change")
    _, (found,) = await seen(2)
    assert found.level is Level.FAILURE
    assert found.seen.startswith("1 of the 2 that must have each change")


@pytest.mark.parametrize(("least", "level"), [(0, Level.FAILURE), (1, Level.OK), (2, Level.OK)])
def test_the_doctor_counts_those_of_the_clusters_master_with_the_fewest(least: int, level: Level) -> None:
    """The clients of its slots are told nothing where they are too few, whatever others have."""
    facts = RedisFacts("redis", refused=False, replicas=6, replicas_least=least, replicas_wanted=1)
    (found,) = (each for each in judged(facts) if each.name == "redis.replicas")
    assert found.level is level


def test_no_wait_is_longer_than_an_answer_may_take() -> None:
    """Else the connection would be given up before Redis says how many there were."""
    for acks in (Acks(), Acks(waitaof=True), Acks(replicas=2), Acks(waitaof=True, replicas=2)):
        waited = sum(int(command[-1]) for command in acks.commands())
        assert waited in (0, redis_acks.FSYNC_TIMEOUT_MS)


# --- Cluster and Sentinel -------------------------------------------------------------------------


@pytest.mark.slow
async def test_in_a_cluster_each_masters_own_replicas_are_waited_for(
    new_redis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAIT and WAITAOF go to the master that has the change, behind it on its connection."""
    monkeypatch.setattr(redis_acks, "FSYNC_TIMEOUT_MS", 1_200)
    monkeypatch.setattr(redis_acks, "NUDGE_MS", 1_000)
    cluster = Cluster(new_redis, replicas=1)
    store = RedisStore(connect(cluster.url), a_node(), waitaof=True, replicas=1)
    try:
        await asyncio.to_thread(cluster.start)
        outcomes = set()
        for key in await store._link._masters.probe_keys("probe"):
            port = cluster.owner(key)[1].port
            try:
                await store._link.change_command("SET", key, "1")
            except StoreUnavailable as error:
                outcomes.add((port, "0 of the 1 replicas" in str(error)))
            else:
                outcomes.add((port, False))
        with_replica, *without = (node.port for node in cluster.nodes[:3])
        assert outcomes == {(with_replica, False), *((port, True) for port in without)}
        assert cluster.nodes[3].command("DBSIZE") == 1
    finally:
        await store.close()
        cluster.end()


@pytest.mark.slow
async def test_after_a_failover_nothing_is_acknowledged_until_a_replica_follows(
    new_redis: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promoted one is alone; the old master, back as its replica, makes changes possible again."""
    monkeypatch.setattr(redis_acks, "FSYNC_TIMEOUT_MS", 1_300)
    monkeypatch.setattr(redis_acks, "NUDGE_MS", 200)
    group = SentinelGroup(new_redis)
    try:
        await asyncio.to_thread(group.start)
        store, client, invoice = await opened(group.url, replicas=1), a_client(), an_invoice()
        await store.add_client(client)
        await store.save(client.client_id, invoice, until())
        group.master.kill()
        await asyncio.to_thread(eventually, lambda: group.named() == group.replica.port)
        with pytest.raises(StoreUnavailable):
            await store.probe()
        # Once it is on the new master, it is the missing replica that it complains of.
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.probe()
                except StoreUnavailable as error:
                    if "0 of the 1 replicas" in str(error):
                        break
        assert (await store.load(client.client_id, 0)).invoice == invoice
        group.master.start()
        await changed_again(store)
    finally:
        group.end()
