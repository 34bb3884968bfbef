"""A real Cluster of three masters: the stores' contracts on it, and what moving slots do to them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from sidecar.adapters import doctor_redis, redis_cluster
from sidecar.adapters.redis_cluster import ClusterMasters
from sidecar.adapters.redis_connect import connect
from sidecar.adapters.redis_masters import OneMaster
from sidecar.adapters.redis_records import Keys
from sidecar.adapters.redis_setup import check_server
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import ConfigError, StoreNotEmpty, StoreSetupError, StoreUnavailable
from sidecar.core.model import Client, Durability
from tests.adapters.conftest import Open
from tests.harness.backup_scene import backup_of, each, exported, furnish
from tests.harness.binding_contract import BindingContract
from tests.harness.mail_contract import MailContract
from tests.harness.ports import free_port
from tests.harness.redis_groups import SAFE, Cluster, Node, changed_again, eventually, silent_port
from tests.harness.store_contract import StoreContract, a_client, a_node, a_tag, an_invoice, later, until
from tests.harness.webhook_contract import WebhookContract

SECRET = "s3cret-word"


@pytest.fixture(scope="module")
def cluster(new_redis: Path) -> Iterator[Cluster]:
    """Three masters; what a test changes of them it changes back."""
    cluster = Cluster(new_redis)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def node_id() -> bytes:
    """Whose records they are: of each test another's, so that the store is empty."""
    return a_node()


@pytest.fixture
async def store(cluster: Cluster, node_id: bytes) -> AsyncIterator[RedisStore]:
    """An empty store."""
    store = RedisStore(connect(cluster.url), node_id, waitaof=True)
    yield store
    await store.close()


@pytest.mark.slow
class TestClusterStore(StoreContract):
    """ports.Store on a Cluster."""


class TestClusterBindings(BindingContract):
    """The nodes of its clients."""


@pytest.mark.slow
class TestClusterMail(MailContract):
    """Their mail."""


class TestClusterWebhooks(WebhookContract):
    """Webhooks."""


async def clients_everywhere(cluster: Cluster, store: RedisStore, keys: Keys) -> dict[int, Client]:
    """Clients, one on each master at least, by its port."""
    found: dict[int, Client] = {}
    for number in range(200):
        client = a_client(f"client-{number}")
        _, node = cluster.owner(keys.client(client.client_id))
        if node.port not in found:
            await store.add_client(client)
            found[node.port] = client
        if len(found) == 3:
            return found
    raise AssertionError("two hundred clients on fewer than three masters")


async def test_what_other_masters_do_does_not_say_that_redis_is_back(
    cluster: Cluster, store: RedisStore, node_id: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One takes no changes, for hours: it is said once, and once when all of them do."""
    caplog.set_level(logging.INFO, "sidecar.adapters.redis_link")
    clients = await clients_everywhere(cluster, store, Keys(node_id))
    ill = cluster.nodes[0]
    ill.command("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        for _ in range(3):
            for port, client in clients.items():
                with pytest.raises(StoreUnavailable) if port == ill.port else contextlib.nullcontext():
                    await store.rotate_client(client.client_id)
            with pytest.raises(StoreUnavailable):
                await store.probe()
    finally:
        ill.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await store.probe()
    said = [each.msg["event"] for each in caplog.records if isinstance(each.msg, dict)]
    assert said == ["Redis is away", "Redis is back"]


# --- one connection -------------------------------------------------------------------------------


async def test_waitaof_goes_out_right_behind_the_change_on_its_connection(
    cluster: Cluster, store: RedisStore, node_id: bytes
) -> None:
    """From another connection, or on another master, it would say nothing of the change."""
    for port, client in (await clients_everywhere(cluster, store, Keys(node_id))).items():
        node = next(node for node in cluster.nodes if node.port == port)
        with node.client.monitor() as monitor:  # type: ignore[no-untyped-call]
            await store.save(client.client_id, an_invoice(), until())
            seen = [monitor.next_command()]
            while not seen[-1]["command"].startswith("WAITAOF"):
                seen.append(monitor.next_command())
        sent = [each for each in seen if each["client_type"] != "lua"]
        change = next(each for each in sent if each["command"].startswith("EVAL"))
        assert sent[sent.index(change) + 1] == sent[-1]
        assert change["client_port"] == sent[-1]["client_port"]


async def test_reads_of_many_slots_come_in_the_order_in_which_they_were_asked(
    cluster: Cluster, store: RedisStore, node_id: bytes
) -> None:
    """Each master answers its own; the list of clients is by name all the same."""
    clients = [a_client(f"{number:02}") for number in range(40)]
    for client in clients:
        await store.add_client(client)
    assert {cluster.owner(Keys(node_id).client(each.client_id))[1].port for each in clients} == {
        node.port for node in cluster.nodes
    }
    assert [client for client, _ in await store.list_clients()] == clients


async def test_a_scan_sees_every_master(store: RedisStore) -> None:
    """Else an import would take a store that holds something for an empty one."""
    wallets = {a_node() for _ in range(30)}
    for wallet in wallets:
        await store.webhooks.mark_unneeded(wallet, None)
        await store._link.change_together(("LPUSH", store._keys.deliveries(wallet), "1:1:ok:m:app"))
    found = {key async for key in store._link.scan_keys(f"{store._keys.prefix}*:deliveries")}
    assert found == {store._keys.deliveries(wallet) for wallet in wallets}


# --- slots that move ------------------------------------------------------------------------------


def neighbour(cluster: Cluster, node: Node) -> Node:
    """Another master."""
    return next(other for other in cluster.nodes if other is not node)


@pytest.mark.parametrize("told", ["ip", "hostname"])
async def test_a_client_whose_slot_has_moved_is_served_at_once(
    cluster: Cluster, store: RedisStore, node_id: bytes, told: str
) -> None:
    """MOVED says that nothing was done: a change is sent again, to the new master.

    Nodes that are to tell a name, and have none, say `?`: it is the host that was asked.
    """
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", told)
    client, invoice = a_client(), an_invoice()
    await store.add_client(client)
    slot, source = cluster.owner(Keys(node_id).client(client.client_id))
    target = neighbour(cluster, source)
    for to, back in ((target, source), (source, target)):
        cluster.begin_move(slot, back, to)
        cluster.move_keys(slot, back, to)
        cluster.end_move(slot, to)
        invoice = an_invoice(tag=later(invoice.tag))
        await store.save(client.client_id, invoice, until())
        assert (await store.load(client.client_id, 0)).invoice == invoice
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_a_read_is_moved_too(cluster: Cluster, store: RedisStore, node_id: bytes) -> None:
    """In one step, as load reads, and one by one."""
    client = a_client()
    await store.add_client(client)
    slot, source = cluster.owner(Keys(node_id).client(client.client_id))
    target = neighbour(cluster, source)
    for read in (lambda: store.load(client.client_id, 0), lambda: store.find_client(client.client_id.hex())):
        cluster.begin_move(slot, source, target)
        cluster.move_keys(slot, source, target)
        cluster.end_move(slot, target)
        assert client in (await read(), getattr(await read(), "client", None))
        source, target = target, source


async def test_while_a_slot_moves_its_keys_are_found_where_they_are(
    cluster: Cluster, store: RedisStore, node_id: bytes
) -> None:
    """The index of names is one key: it is here, or there (ASK), and both are served."""
    await store.add_client(a_client("first"))
    slot, source = cluster.owner(Keys(node_id).names)
    target = neighbour(cluster, source)
    cluster.begin_move(slot, source, target)
    await store.add_client(a_client("second"))
    cluster.move_keys(slot, source, target)
    await store.add_client(a_client("third"))
    assert [client.name for client, _ in await store.list_clients()] == ["first", "second", "third"]
    cluster.end_move(slot, target)
    assert len(await store.list_clients()) == 3
    cluster.begin_move(slot, target, source)
    cluster.move_keys(slot, target, source)
    cluster.end_move(slot, source)


async def half_moved(cluster: Cluster, store: RedisStore, keys: Keys) -> tuple[Client, int, Node, Node]:
    """A client whose record is at one master, and its invoice at another; its slot, and both."""
    client = a_client()
    await store.add_client(client)
    await store.save(client.client_id, an_invoice(), until())
    slot, source = cluster.owner(keys.client(client.client_id))
    target = neighbour(cluster, source)
    cluster.begin_move(slot, source, target)
    cluster.move_keys(slot, source, target, keys.slot(client.client_id, 0).encode())
    return client, slot, source, target


def moved_back(cluster: Cluster, slot: int, source: Node, target: Node) -> None:
    """End a move that has begun, and undo it."""
    cluster.move_keys(slot, source, target)
    cluster.end_move(slot, target)
    cluster.move(slot, target, source)


async def test_a_client_whose_keys_are_in_two_places_is_served_when_they_are_together(
    cluster: Cluster, store: RedisStore, node_id: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRYAGAIN: nothing was read or changed, so it is tried again while the move goes on."""
    monkeypatch.setattr(redis_cluster, "PAUSE", 0.02)
    client, slot, source, target = await half_moved(cluster, store, Keys(node_id))
    before = int(source.client.info("stats")["total_error_replies"])
    newer = an_invoice(tag=later(a_tag()))
    saving = asyncio.create_task(store.save(client.client_id, newer, until()))
    loading = asyncio.create_task(store.load(client.client_id, 0))
    await until_refused(source, before)
    assert not saving.done()
    assert not loading.done()
    await asyncio.to_thread(cluster.move_keys, slot, source, target)
    await asyncio.gather(saving, loading)
    assert (await loading).invoice is not None
    assert (await store.load(client.client_id, 0)).invoice == newer
    cluster.end_move(slot, target)
    cluster.move(slot, target, source)


async def until_refused(node: Node, errors: int) -> None:
    """Wait until a server has refused two more commands than it had."""
    async with asyncio.timeout(10):
        while int(node.client.info("stats")["total_error_replies"]) < errors + 2:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.01)


async def test_a_transaction_waits_until_its_keys_are_together(
    cluster: Cluster, store: RedisStore, node_id: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is told to ask elsewhere was not executed; half of it would be somewhere else."""
    monkeypatch.setattr(redis_cluster, "PAUSE", 0.02)
    keys = Keys(node_id)
    client, slot, source, target = await half_moved(cluster, store, keys)
    before = int(source.client.info("stats")["total_error_replies"])
    commands = (("HLEN", keys.client(client.client_id)), ("EXISTS", keys.slot(client.client_id, 0)))
    reading = asyncio.create_task(store._link.read(*commands, atomic=True))
    await until_refused(source, before)
    assert not reading.done()
    await asyncio.to_thread(cluster.move_keys, slot, source, target)
    await asyncio.to_thread(cluster.end_move, slot, target)
    fields, there = await reading
    assert fields > 0
    assert there == 1
    cluster.move(slot, target, source)


async def test_a_client_whose_keys_stay_in_two_places_is_away(
    cluster: Cluster, store: RedisStore, node_id: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is answered or changed in part; whoever waits is told so in the end."""
    monkeypatch.setattr(redis_cluster, "PAUSE", 0.001)
    client, slot, source, target = await half_moved(cluster, store, Keys(node_id))
    with pytest.raises(StoreUnavailable, match="moving slot"):
        await store.save(client.client_id, an_invoice(tag=later(a_tag())), until())
    with pytest.raises(StoreUnavailable, match="moving slot"):
        await store.load(client.client_id, 0)
    moved_back(cluster, slot, source, target)
    loaded = await store.load(client.client_id, 0)
    assert loaded.invoice is not None


# --- masters that die -----------------------------------------------------------------------------


@pytest.mark.slow
async def test_what_was_acknowledged_is_served_after_a_masters_death(new_redis: Path, opened: Open) -> None:
    """Killed at once: its replica takes over, and changes work again by themselves; other slots go on."""
    cluster = Cluster(new_redis, replicas=1)
    try:
        await asyncio.to_thread(cluster.start)
        store = await opened(cluster.url)
        assert "(Cluster of 3, AOF always)" in store.description
        clients = await clients_everywhere(cluster, store, store._keys)
        dying, staying = cluster.nodes[0], cluster.nodes[1]
        lost, kept, invoice = clients[dying.port], clients[staying.port], an_invoice()
        await store.save(lost.client_id, invoice, until())
        eventually(lambda: dying.command("WAIT", 1, 1000) == 1)
        dying.kill()
        with pytest.raises(StoreUnavailable):
            await store.load(lost.client_id, 0)
        with pytest.raises(StoreUnavailable):
            await store.probe()
        await store.load(kept.client_id, 0)
        await changed_again(store)
        assert (await store.load(lost.client_id, 0)).invoice == invoice
        newer = an_invoice(tag=later(invoice.tag))
        await store.save(lost.client_id, newer, until())
        assert (await store.load(lost.client_id, 0)).invoice == newer
    finally:
        cluster.end()


# --- nodes that know little -----------------------------------------------------------------------


async def test_a_node_that_is_in_the_cluster_no_more_is_not_believed(
    cluster: Cluster, new_redis: Path, opened: Open
) -> None:
    """It may have been reset, and says that nobody has any slot: the next one is asked."""
    alone = Node(new_redis, free_port(bus=True), "--cluster-enabled", "yes", *SAFE)
    try:
        alone.start()
        store = await opened(cluster.url.replace("://", f"://127.0.0.1:{alone.port},"))
        await store.add_client(a_client())
        assert "(Cluster of 3" in store.description
    finally:
        alone.end()


async def test_a_node_that_hangs_does_not_hold_up_those_who_ask(
    cluster: Cluster, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has which slot another one knows as well."""
    monkeypatch.setattr(redis_cluster, "LEARN_TIMEOUT", 0.1)
    with silent_port() as port:
        async with asyncio.timeout(3):
            await opened(cluster.url.replace("://", f"://127.0.0.1:{port},"))


async def test_each_time_another_node_is_asked_who_has_what(store: RedisStore) -> None:
    """One that is cut off from the others tells of the past, and would be believed for ever."""
    masters = store._link._masters
    assert isinstance(masters, ClusterMasters)
    await store.probe()
    asked = []
    for _ in range(3):
        asked.append(next(iter(masters._nodes)))
        await masters.each()
    assert len(set(asked)) == 3


async def test_a_slot_without_a_master_is_a_cluster_that_is_away(cluster: Cluster, store: RedisStore) -> None:
    """Though all masters answer: the clients of that slot are served by nobody."""
    await store.probe()
    slot, owner = cluster.owner("any")
    cluster.disown(slot, owner)
    try:
        for ask in (store._link._masters.each, store.probe):
            with pytest.raises(StoreUnavailable, match="have no master"):
                await ask()
    finally:
        for node in cluster.nodes:
            node.command("CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(owner))
    await store.probe()


async def test_a_node_that_is_gone_and_hangs_is_given_up(store: RedisStore) -> None:
    """What Redis's client raises then is nobody's concern: least of all that of who asked for an invoice."""

    class Stubborn(OneMaster):
        """Of TLS, say: its peer does not say goodbye."""

        async def aclose(self) -> None:
            raise RedisTimeoutError("Timed out closing connection after 5.0")

    masters = store._link._masters
    assert isinstance(masters, ClusterMasters)
    await masters.each()
    masters._nodes["127.0.0.1", 1] = Stubborn(Redis(port=1))
    assert len(await masters.each()) == 3
    assert ("127.0.0.1", 1) not in masters._nodes


# --- coming to it ---------------------------------------------------------------------------------


async def test_every_master_is_judged(cluster: Cluster, opened: Open) -> None:
    """One that would lose invoices is refused, by its own name."""
    last = cluster.nodes[2]
    last.command("CONFIG", "SET", "appendonly", "no")
    try:
        with pytest.raises(StoreSetupError, match=rf"at 127\.0\.0\.1:{last.port} has no append-only file"):
            await opened(cluster.url)
        facts, _ = await doctor_redis.examine(cluster.url, None, "strict")
        assert facts.refused
    finally:
        last.command("CONFIG", "SET", "appendonly", "yes")
        eventually(lambda: not last.client.info("persistence")["aof_rewrite_in_progress"])


async def test_a_node_given_alone_is_refused_with_the_form_that_helps(cluster: Cluster, opened: Open) -> None:
    """Of a Cluster's keys one node has a part."""
    with pytest.raises(StoreSetupError, match=r"node of a Redis Cluster: .*redis\+cluster://"):
        await opened(f"redis://127.0.0.1:{cluster.nodes[0].port}")


async def test_a_server_that_is_no_cluster_is_refused(new_redis: Path, opened: Open) -> None:
    """By its own words."""
    node = Node(new_redis, free_port(), *SAFE)
    try:
        node.start()
        with pytest.raises(StoreSetupError, match="cluster support disabled"):
            await opened(f"redis+cluster://127.0.0.1:{node.port}")
    finally:
        node.end()


async def test_a_user_and_password_hold_for_every_node(cluster: Cluster, opened: Open) -> None:
    """Those of the URL; a wrong one is the operator's to mend, and in no message."""
    for node in cluster.nodes:
        node.command("ACL", "SETUSER", "sidecar", "on", f">{SECRET}", "~*", "+@all")
    url = cluster.url.replace("://", f"://sidecar:{SECRET}@")
    assert SECRET not in (await opened(url)).description
    for away in ("", ",127.0.0.1:1"):
        with pytest.raises(StoreSetupError, match="refuses the user or password") as refusal:
            await opened(url.replace(SECRET, f"not-{SECRET}") + away)
        assert SECRET not in str(refusal.value)


async def test_a_cluster_that_is_away_is_unavailable(opened: Open) -> None:
    """Every node that the URL names."""
    with pytest.raises(StoreUnavailable):
        await opened("redis+cluster://127.0.0.1:1,127.0.0.1:2")


async def test_the_doctor_shows_the_worst_of_all_masters(cluster: Cluster) -> None:
    """The fullest, and what is wrong with any."""
    for full in cluster.nodes:
        full.command("CONFIG", "SET", "maxmemory", "123456789")
        try:
            facts, directory = await doctor_redis.examine(cluster.url, None, "strict")
        finally:
            full.command("CONFIG", "SET", "maxmemory", "0")
        assert facts.max_memory == 123_456_789
        assert "(Cluster of 3, AOF always)" in facts.judgement
        assert directory is None
    masters = connect(cluster.url)
    assert (await check_server(masters, Durability.STRICT, "at here")).waitaof
    await masters.aclose()


# --- backups --------------------------------------------------------------------------------------


async def test_an_export_goes_into_a_cluster_and_out_again(store: RedisStore, cluster: Cluster) -> None:
    """Every record, and nothing is left aside; a second import is refused."""
    furnished = await furnish(store)
    records = await exported(backup_of(store, node_of(store)))
    other = a_node()
    backup = backup_of(store, other)
    assert await backup.restore(each(records)) == furnished.expected
    assert await exported(backup) == records
    left = [key for node in cluster.nodes for key in node.client.keys(f"sis:{other.hex()[:16]}:import*")]
    assert left == []
    with pytest.raises(StoreNotEmpty, match="4 clients"):
        await backup.restore(each(records))


def node_of(store: RedisStore) -> bytes:
    """Whose records a store keeps."""
    return bytes.fromhex(store._keys.prefix.split(":")[1])


async def test_an_import_that_breaks_off_leaves_nothing(store: RedisStore, cluster: Cluster) -> None:
    """Before it is put in force nothing is served, and the next import clears it away."""
    await furnish(store)
    records = await exported(backup_of(store, node_of(store)))
    other = a_node()
    backup = backup_of(store, other)

    async def broken() -> AsyncIterator[object]:
        for record in records[:-1]:
            yield record
        raise StoreUnavailable("the caller went away")

    with pytest.raises(StoreUnavailable, match="the caller"):
        await backup.restore(broken())  # type: ignore[arg-type]
    assert [key for node in cluster.nodes for key in node.client.keys(f"sis:{other.hex()[:16]}:*")] == []


@pytest.mark.parametrize(("steps", "seen"), [(0, "0 clients"), (5, r"\(4 clients, webhooks of 2 wallets")])
async def test_a_cluster_import_puts_its_indexes_in_force_first(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, steps: int, seen: str
) -> None:
    """What breaks off then is seen, by the list and the next import, and it is said what to do.

    The first step whose answer is lost may have been taken: that is said as well.
    """
    await furnish(store)
    records = await exported(backup_of(store, node_of(store)))
    other = a_node()
    backup = backup_of(store, other)
    change, left = store._link.change, [steps]

    async def breaks_off(*args: Any, **kwargs: Any) -> list[Any]:
        answer = await change(*args, **kwargs)
        left[0] -= 1
        if left[0] < 0:
            raise StoreUnavailable("Redis: it broke off")
        return answer

    monkeypatch.setattr(store._link, "change", breaks_off)
    with pytest.raises(StoreUnavailable, match=f"in part: delete the keys sis:{other.hex()[:16]}:"):
        await backup.restore(each(records))
    monkeypatch.undo()
    with pytest.raises(StoreNotEmpty, match=seen):
        await backup.restore(each(records))


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest",
    [
        f"://:{SECRET}@",
        f"://:{SECRET}@host/0",
        f"://:{SECRET}@host:port",
        f"://:{SECRET}@host:0",
        f"://:{SECRET}@host,,other",
        f"://:{SECRET}/x@host",
        f"://:{SECRET}@host?db=1",
        f"://:{SECRET}@host?sentinel_password=x",
    ],
)
def test_a_url_that_can_not_be_used_is_a_config_error(rest: str) -> None:
    """The forms that there are, and never the password."""
    with pytest.raises(ConfigError, match=r"redis\.url") as refusal:
        connect("redis+cluster" + rest)
    assert SECRET not in str(refusal.value)
