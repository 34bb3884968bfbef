"""The lease on real Redis servers, and what its fence keeps a sidecar that was replaced from."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.adapters.redis_connect import connect
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import NotLeading
from sidecar.core.model import BoundBy
from sidecar.core.webhooks import Webhook
from sidecar.ports import Claim, Grant
from tests.adapters.conftest import NODE, Server
from tests.harness.mail_contract import PLENTY, ROOM, a_letter
from tests.harness.redis_groups import Cluster
from tests.harness.store_contract import a_client, a_node, a_tag, an_invoice, until

LONG = 60_000
LEFT = Claim("11" * 16, "left", hears=True, done={"onions": b"12345678"})
RIGHT = Claim("22" * 16, "right", hears=True, done={})
KEY = f"sis:{NODE.hex()[:16]}:lease"


def deaf(claim: Claim) -> Claim:
    """The same, while LND streams nothing."""
    return replace(claim, hears=False)


async def expired(server: Server) -> None:
    """Wait until the lease's time is over, by the server's clock."""
    while True:
        until_ms, now = server.command("HGET", KEY, "until_ms"), server.command("TIME")
        assert isinstance(until_ms, bytes)
        assert isinstance(now, tuple)
        if now[0] * 1_000 + now[1] // 1_000 >= int(until_ms):
            return
        await asyncio.sleep(0.005)


async def test_one_leads_and_others_are_told_who(store: RedisStore) -> None:
    """Whoever asks next changes nothing, and learns what the one that leads has dealt with."""
    first = await store.lease.take(LEFT, LONG)
    assert (first.ours, first.name, first.released) == (True, "left", True)
    assert await store.lease.take(RIGHT, LONG) == Grant(
        ours=False, name="left", fence=first.fence, done={"onions": b"12345678"}
    )
    again = await store.lease.take(replace(LEFT, done={"onions": b"", "lsps": b"\0\xff"}), LONG)
    assert (again.ours, again.fence) == (True, first.fence)
    assert (await store.lease.take(RIGHT, LONG)).done == {"onions": b"", "lsps": b"\0\xff"}


async def test_a_lease_that_has_run_out_is_anybodys(server: Server, store: RedisStore) -> None:
    """The next one gets a higher fence, and what the one before has told; the one before is told of it."""
    first = await store.lease.take(LEFT, 1)
    await expired(server)
    taken = await store.lease.take(RIGHT, LONG)
    assert (taken.ours, taken.name, taken.released) == (True, "right", False)
    assert taken.fence > first.fence
    assert taken.done == LEFT.done
    assert not (await store.lease.take(LEFT, LONG)).ours


async def test_the_holder_of_a_lease_that_has_run_out_leads_on(server: Server, store: RedisStore) -> None:
    """Redis was away: as long as nobody else took over, it is as before."""
    first = await store.lease.take(LEFT, 1)
    await expired(server)
    again = await store.lease.take(LEFT, LONG)
    assert (again.ours, again.fence) == (True, first.fence)


async def test_the_deaf_begin_nothing_and_give_way(store: RedisStore) -> None:
    """Of two that hear nothing the one that leads leads on."""
    assert await store.lease.take(deaf(LEFT), LONG) == Grant(ours=False, name="", fence=0, done={})
    await store.lease.take(LEFT, LONG)
    assert (await store.lease.take(deaf(LEFT), LONG)).ours
    assert not (await store.lease.take(deaf(RIGHT), LONG)).ours
    assert (await store.lease.take(RIGHT, LONG)).ours


@pytest.mark.parametrize("drained", [True, False])
async def test_a_lease_that_was_let_go_is_free_at_once(store: RedisStore, *, drained: bool) -> None:
    """With the last word of what is dealt with; nobody lets go of another one's."""
    first = await store.lease.take(LEFT, LONG)
    assert not await store.lease.release(RIGHT, drained=True)
    done = replace(LEFT, done={"onions": b"87654321"})
    assert await store.lease.release(done, drained=drained)
    assert not await store.lease.release(done, drained=drained)
    taken = await store.lease.take(RIGHT, LONG)
    assert (taken.ours, taken.done, taken.released) == (True, done.done, drained)
    assert taken.fence > first.fence
    # And the next one is not told that nothing else was answered.
    await store.lease.take(deaf(RIGHT), LONG)
    assert not (await store.lease.take(LEFT, LONG)).released


async def test_who_stands_by_writes_nothing(server: Server, store: RedisStore) -> None:
    """Not a byte for the disk, however often it asks."""
    await store.lease.take(LEFT, LONG)

    def written() -> list[str]:
        info = server.command("INFO", "persistence")
        assert isinstance(info, dict)
        return [str(info["aof_current_size"]), str(info["rdb_changes_since_last_save"])]

    before = written()
    for _ in range(3):
        await store.lease.take(RIGHT, LONG)
    assert written() == before


async def test_the_lease_waits_for_no_other_changes(store: RedisStore) -> None:
    """A flood of changes must not cost the one that leads its lease."""
    await store.lease.take(LEFT, LONG)
    writers = store._link._writers
    while not writers.locked():
        await writers.acquire()
    async with asyncio.timeout(5):
        assert (await store.lease.take(LEFT, LONG)).ours
        assert await store.lease.release(LEFT, drained=True)


async def test_the_lease_does_not_end_as_a_key(server: Server, store: RedisStore) -> None:
    """A fence that began anew would let an old leader in again."""
    await store.lease.take(LEFT, 1)
    assert server.command("TTL", KEY) == -1


async def test_in_a_cluster_it_is_the_same(new_redis: Path) -> None:
    """One key, in a slot of its own."""
    cluster = Cluster(new_redis)
    try:
        cluster.start()
        store = RedisStore(connect(cluster.url), NODE, waitaof=True)
        first = await store.lease.take(LEFT, LONG)
        assert first.ours
        assert not (await store.lease.take(RIGHT, LONG)).ours
        await store.lease.release(LEFT, drained=True)
        assert (await store.lease.take(RIGHT, LONG)).fence > first.fence
        await store.close()
    finally:
        cluster.end()


# --- the fence ------------------------------------------------------------------------------------


def leading(store: RedisStore, fence: int) -> RedisStore:
    """A store for who leads, or led, with this fence."""

    async def confirmed() -> int:
        return fence

    store.fence_by(confirmed)
    return store


async def test_a_change_of_an_earlier_leader_is_refused(
    server: Server, store: RedisStore, store_on: Callable[..., RedisStore]
) -> None:
    """Once a later one has changed a client, with nothing changed; and its letters are kept all the same."""
    old, new = leading(store, 7), leading(store_on(server), 8)
    client = a_client()
    await old.add_client(client)
    earlier, later_one = an_invoice(tag=a_tag(1)), an_invoice(tag=a_tag(2))
    await old.save(client.client_id, earlier, until())
    await new.save(client.client_id, earlier, until())
    with pytest.raises(NotLeading):
        await old.save(client.client_id, later_one, until())
    with pytest.raises(NotLeading):
        await old.bind(client.client_id, a_node(), BoundBy.LEARNT)
    assert (await new.load(client.client_id, earlier.slot)).invoice == earlier
    assert (await new.find_client(client.name)).node_id is None
    assert await new.bindings() == {}
    await old.mail.keep(client.client_id, a_letter(), PLENTY, ROOM)
    assert len(await new.mail.mail(client.client_id)) == 1
    await new.save(client.client_id, later_one, until())
    # The operator's word is nobody's turn.
    await old.bind(client.client_id, a_node(), BoundBy.OPERATOR)


async def test_what_only_the_one_that_leads_may_change_is_not_even_sent(
    server: Server, store: RedisStore
) -> None:
    """Who is not sure to lead changes neither invoices nor bindings nor webhooks, and drops no letter."""

    async def confirmed() -> int:
        raise NotLeading("another one leads")

    client, node = a_client(), a_node()
    await store.add_client(client)
    store.fence_by(confirmed)
    webhook = Webhook("app", "https://push.example/", 1)
    changes = (
        store.save(client.client_id, an_invoice(), until()),
        store.bind(client.client_id, node, BoundBy.LEARNT),
        store.mail.drop_mail(client.client_id, []),
        store.webhooks.set_webhook(node, webhook, 10),
        store.webhooks.remove_webhook(node, "app"),
        store.webhooks.forget_webhooks(node),
        store.webhooks.mark_unneeded(node, 1),
    )
    server.command("CONFIG", "RESETSTAT")
    for change in changes:
        with pytest.raises(NotLeading):
            await change
    info = server.command("INFO", "commandstats")
    assert isinstance(info, dict)
    assert not {name for name in info if "eval" in name or "hset" in name}


async def test_an_export_has_no_fence_and_a_lease_is_no_record(
    server: Server, store: RedisStore, store_on: Callable[..., RedisStore]
) -> None:
    """Else nobody could ever lead with what is imported elsewhere; and an import finds its Redis empty."""
    client = a_client()
    await store.add_client(client)
    await leading(store, 9_000_000_000).save(client.client_id, an_invoice(), until())
    records = [record async for record in store.backup.export()]
    assert not [record for record in records if b"fence" in record.items]
    server.command("FLUSHALL")
    elsewhere = store_on(server)
    await elsewhere.lease.take(LEFT, LONG)
    await elsewhere.backup.check_empty()
