"""The master that a real Sentinel names: the stores' contracts on it, and what a failover does to them."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection

from sidecar.adapters import redis_connect, redis_sentinel
from sidecar.adapters.redis_connect import connect, place
from sidecar.adapters.redis_embedded import server_executable
from sidecar.adapters.redis_sentinel import _MasterPool
from sidecar.adapters.redis_setup import open_store
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import ConfigError, StoreSetupError, StoreUnavailable
from tests.adapters.conftest import Open
from tests.harness.binding_contract import BindingContract
from tests.harness.mail_contract import MailContract
from tests.harness.redis_groups import SentinelGroup, changed_again, eventually, silent_port
from tests.harness.store_contract import StoreContract, a_client, a_node, an_invoice, later, until
from tests.harness.webhook_contract import WebhookContract

SECRET = "s3cret-word"
Start = Callable[..., SentinelGroup]


@pytest.fixture(scope="module")
def group(new_redis: Path) -> Iterator[SentinelGroup]:
    """A master with a Sentinel for all tests that leave them as they are."""
    group = SentinelGroup(new_redis)
    try:
        group.start()
        yield group
    finally:
        group.end()


@pytest.fixture
def started(new_redis: Path) -> Iterator[Start]:
    """Groups of one test's own."""
    groups: list[SentinelGroup] = []

    def start(executable: Path = new_redis) -> SentinelGroup:
        groups.append(SentinelGroup(executable))
        groups[-1].start()
        return groups[-1]

    yield start
    for group in groups:
        group.end()


@pytest.fixture
async def store(group: SentinelGroup) -> AsyncIterator[RedisStore]:
    """An empty store: its records are of a node of its own."""
    store = RedisStore(connect(group.url), a_node(), waitaof=True)
    yield store
    await store.close()


@pytest.mark.slow
class TestSentinelStore(StoreContract):
    """ports.Store on a master that Sentinel names."""


class TestSentinelBindings(BindingContract):
    """The nodes of its clients."""


@pytest.mark.slow
class TestSentinelMail(MailContract):
    """Their mail."""


class TestSentinelWebhooks(WebhookContract):
    """Webhooks."""


# --- coming to it ---------------------------------------------------------------------------------


async def test_the_ready_line_names_master_and_sentinels_and_no_password(
    group: SentinelGroup, opened: Open
) -> None:
    """Where it leads, and how it keeps what it is given: both as the master says."""
    store = await opened(group.url)
    hosts = f"127.0.0.1:1,127.0.0.1:{group.sentinel.port}"
    assert store.description == f"redis 8.2.3 at mine of Sentinel {hosts} (AOF always)"


async def test_a_name_that_no_sentinel_knows_is_a_set_up_error(group: SentinelGroup, opened: Open) -> None:
    """To wait for it would be in vain."""
    with pytest.raises(StoreSetupError, match=r"says of the master other: .*No such master"):
        await opened(group.url.replace("/mine", "/other"))


async def test_a_sentinels_own_password_is_an_option(group: SentinelGroup, opened: Open) -> None:
    """It may differ from Redis's; a wrong one is the operator's to mend, and in no message."""
    group.sentinel.command("ACL", "SETUSER", "asker", "on", f">{SECRET}", "+@all")
    asked = f"{group.url}?sentinel_username=asker&sentinel_password="
    assert "mine of Sentinel" in (await opened(asked + SECRET)).description
    with pytest.raises(StoreSetupError, match="sentinel_password") as refusal:
        await opened(asked + "not-" + SECRET)
    assert SECRET not in str(refusal.value)


async def test_sentinels_that_are_away_are_waited_for(tmp_path: Path) -> None:
    """As a Redis is that is away."""
    with pytest.raises(StoreUnavailable, match="no Sentinel answers"):
        await open_store("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mine", tmp_path, a_node(), "strict")


async def test_a_sentinel_that_refuses_to_answer_does_not_hide_the_others(
    group: SentinelGroup, opened: Open
) -> None:
    """One may be set up wrongly; here it is no Sentinel at all."""
    url = group.url.replace("127.0.0.1:1,", f"127.0.0.1:{group.master.port},")
    assert "mine of Sentinel" in (await opened(url)).description


async def test_a_user_who_may_not_ask_for_the_role_is_refused(group: SentinelGroup, opened: Open) -> None:
    """A replica that is named would answer payers from the past: it must be known for one, each time."""
    group.master.command("ACL", "SETUSER", "blind", "on", f">{SECRET}", "~*", "+@all", "-role")
    url = group.url.replace("://", f"://blind:{SECRET}@")
    with pytest.raises(StoreSetupError, match=r"lets this user do too little: .*role"):
        await opened(url)
    store = RedisStore(connect(url), a_node(), waitaof=True)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.load(a_client().client_id, 0)
    await store.close()


async def test_sentinels_that_hang_do_not_keep_from_looking(
    group: SentinelGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's machine may be the master's. They are asked last from then on, and the look goes on."""
    for name, seconds in (("SENTINEL_TIMEOUT", 0.2), ("LOOK_TIMEOUT", 0.3), ("LOOK_EVERY", 0.0)):
        monkeypatch.setattr(redis_sentinel, name, seconds)
    monkeypatch.setattr(redis_sentinel, "LOOK_LATER", 0.0)
    with silent_port() as one, silent_port() as two:
        url = group.url.replace("127.0.0.1:1,", f"127.0.0.1:{one},127.0.0.1:{two},")
        store = RedisStore(connect(url), a_node(), waitaof=True)
        await store.probe()
        (master,) = await store._link._masters.each()
        sentinels = master.redis.connection_pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
        # As if these two had answered until now.
        sentinels.append(sentinels.pop(0))
        # There is no time for both of them in one look.
        await store.probe()
        await store.probe()
        assert sentinels[0].connection_pool.connection_kwargs["port"] == group.sentinel.port
        await store.close()


# --- failover -------------------------------------------------------------------------------------


async def test_what_was_acknowledged_is_served_after_the_masters_death(started: Start, opened: Open) -> None:
    """Killed at once; the replica is promoted, and changes work again by themselves."""
    group = started()
    store, client, invoice = await opened(group.url), a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, invoice, until())
    eventually(lambda: group.master.command("WAIT", 1, 1000) == 1)
    group.master.kill()
    with pytest.raises(StoreUnavailable):
        await store.save(client.client_id, invoice, until())
    await changed_again(store)
    assert (await store.load(client.client_id, 0)).invoice == invoice
    newer = an_invoice(tag=later(invoice.tag))
    await store.save(client.client_id, newer, until())
    assert (await store.load(client.client_id, 0)).invoice == newer
    assert group.named() == group.replica.port


async def test_a_change_after_a_failover_does_not_go_to_the_old_master(
    started: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a master still when Sentinel names the new one, and loses whatever it is given then."""
    monkeypatch.setattr(redis_sentinel, "LOOK_EVERY", 0.0)
    group = started()
    store, client, invoice = await opened(group.url), a_client(), an_invoice()
    await store.add_client(client)
    await asyncio.gather(*(store.load(client.client_id, 0) for _ in range(20)))
    await asyncio.to_thread(group.fail_over)
    assert group.master.client.info("replication")["role"] == "master"
    await store.save(client.client_id, invoice, until())
    eventually(lambda: group.master.client.info("replication")["role"] == "slave")
    assert (await store.load(client.client_id, 0)).invoice == invoice


@pytest.mark.slow
async def test_a_master_that_only_sentinels_do_not_reach_is_left(
    started: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on as a master, and takes changes that nobody will see: so the next look is soon."""
    monkeypatch.setattr(redis_sentinel, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(redis_sentinel, "LOOK_LATER", 60.0)
    group = started()
    for node in (group.master, group.replica):
        node.command("ACL", "SETUSER", "sidecar", "on", f">{SECRET}", "~*", "+@all")
    store = await opened(group.url.replace("://", f"://sidecar:{SECRET}@"))
    client, invoice = a_client(), an_invoice()
    await store.add_client(client)
    eventually(lambda: group.master.command("WAIT", 1, 1000) == 1)
    group.master.command("ACL", "SETUSER", "default", "-@all", "+info")
    async with asyncio.timeout(20):
        while group.named() == group.master.port:
            await store.probe()
    await changed_again(store)
    await store.save(client.client_id, invoice, until())
    assert group.master.client.info("replication")["role"] == "master"
    promoted = await opened(f"redis://127.0.0.1:{group.replica.port}")
    assert (await promoted.load(client.client_id, 0)).invoice == invoice


async def test_sentinels_that_go_away_later_are_not_needed(
    started: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master goes on: its connections are good while it answers as one."""
    monkeypatch.setattr(redis_sentinel, "LOOK_EVERY", 0.0)
    group = started()
    store = await opened(group.url)
    group.sentinel.kill()
    await store.probe()


@pytest.mark.parametrize("version", ["6.2", "8.2"])
async def test_a_master_that_says_readonly_is_left(version: str, started: Start, new_redis: Path) -> None:
    """Nobody cut its connections: the first change that it refuses leads to the new master."""
    group = started(new_redis if version == "8.2" else server_executable())
    store = RedisStore(connect(group.url), a_node(), waitaof=version == "8.2")
    client, invoice = a_client(), an_invoice()
    await store.add_client(client)
    await asyncio.gather(*(store.load(client.client_id, 0) for _ in range(10)))
    await asyncio.to_thread(group.swap_by_hand)
    with pytest.raises(StoreUnavailable, match=r"replica now|now a slave"):
        await store.save(client.client_id, invoice, until())
    await store.save(client.client_id, invoice, until())
    # Ten connections were open to the old one, and none of them is used again.
    before = group.master.client.info("stats")["total_commands_processed"]
    await asyncio.gather(*(store.load(client.client_id, 0) for _ in range(20)))
    assert group.master.client.info("stats")["total_commands_processed"] - before < 15
    await store.close()


async def test_a_connection_that_was_in_use_meanwhile_is_not_used_again(started: Start) -> None:
    """It comes back to the pool after the idle ones were closed, and leads to the old master still."""
    group = started()
    store = RedisStore(connect(group.url), a_node(), waitaof=True)
    (master,) = await store._link._masters.each()
    pool = master.redis.connection_pool
    held = await pool.get_connection()  # type: ignore[no-untyped-call]
    await asyncio.to_thread(group.swap_by_hand)
    await store.probe()
    await pool.release(held)
    again = [await pool.get_connection() for _ in range(2)]  # type: ignore[no-untyped-call]
    assert held in again
    assert {each.port for each in again} == {group.replica.port}
    for each in again:
        await pool.release(each)
    await store.close()


async def test_a_master_that_hangs_is_left(
    started: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing, and cuts nothing either; when it wakes up nothing is read from it."""
    monkeypatch.setattr(redis_connect, "TIMEOUT", 0.3)
    group = started()
    store, client = await opened(group.url), a_client()
    await store.add_client(client)
    eventually(lambda: group.master.command("WAIT", 1, 1000) == 1)
    group.master.signal(signal.SIGSTOP)
    try:
        await changed_again(store)
    finally:
        group.master.signal(signal.SIGCONT)
    await store.rotate_client(client.client_id)
    loaded = [await store.load(client.client_id, 0) for _ in range(20)]
    assert {each.client.generation for each in loaded if each.client} == {2}


async def test_a_replica_that_sentinel_still_names_is_not_used(started: Start) -> None:
    """It must say itself that it is a master: else a payer would be answered from the past."""
    group = started()
    store = RedisStore(connect(group.url), a_node(), waitaof=True)
    group.master.command("REPLICAOF", "127.0.0.1", group.replica.port)
    with pytest.raises(StoreUnavailable, match="no master"):
        await store.load(a_client().client_id, 0)
    await store.close()


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest",
    [
        f"://:{SECRET}@host:26379",
        f"://:{SECRET}@host/",
        f"://:{SECRET}@host:port/mine",
        f"://:{SECRET}@host,/mine",
        f"://:{SECRET}@host:/mine",
        f"://:{SECRET}/x@host/mine",
        f"://:{SECRET}@host/mine/first",
        f"://:{SECRET}@host/mine?decode_responses=true",
        f"://:{SECRET}@host/mine?ssl_ca_certs=/ca",
        f"://:{SECRET}@host/mine#x",
    ],
)
def test_a_url_that_can_not_be_used_is_a_config_error(rest: str) -> None:
    """The forms that there are, and never the password."""
    with pytest.raises(ConfigError, match=r"redis\.url") as refusal:
        connect("redis+sentinel" + rest)
    assert SECRET not in str(refusal.value)


def test_a_place_says_where_and_no_more() -> None:
    """Logs name a master and its Sentinels without users, passwords and options."""
    url = f"redis+sentinel://u:{SECRET}@a,[::1]:7000/my%20master/2?sentinel_password={SECRET}"
    connect(url)
    assert place(url) == "at my master of Sentinel a:26379,[::1]:7000"


async def test_rediss_means_tls_to_sentinels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes in the clear, and each has its own password and the one database."""
    made: list[_MasterPool] = []
    kept = _MasterPool.__init__

    def note(self: _MasterPool, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        kept(self, *args, **kwargs)

    monkeypatch.setattr(_MasterPool, "__init__", note)
    masters = connect("rediss+sentinel://u:p%40@a,b/mine/2?sentinel_password=q&ssl_check_hostname=no")
    (pool,) = made
    assert issubclass(pool.connection_class, SSLConnection)
    own = pool.connection_kwargs
    assert (own["username"], own["password"], own["db"], own["ssl_check_hostname"]) == ("u", "p@", 2, False)
    for sentinel in pool.sentinel_manager.sentinels:
        asked = sentinel.connection_pool
        assert issubclass(asked.connection_class, SSLConnection)
        assert (asked.connection_kwargs["username"], asked.connection_kwargs["password"]) == (None, "q")
    await masters.aclose()
