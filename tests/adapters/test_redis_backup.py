"""All that is kept, out of one real Redis and into another."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.adapters import redis_backup
from sidecar.adapters.backup_check import ExportCheck
from sidecar.adapters.redis_backup import RedisBackup, Restored
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.backup import Record
from sidecar.core.errors import BadExport, NodeTaken, StaleOffer, StoreNotEmpty, StoreUnavailable
from sidecar.core.model import BoundBy
from tests.adapters.conftest import NODE, SAFE, Server, Servers
from tests.harness.backup_scene import backup_of, commands_on, contents, each, exported, furnish
from tests.harness.mail_contract import PLENTY, ROOM, a_letter
from tests.harness.store_contract import a_client, a_node, a_tag, an_invoice, passed, until
from tests.harness.webhook_contract import MOST, a_delivery, a_webhook

StoreOn = Callable[..., RedisStore]
PREFIX = f"sis:{NODE.hex()[:16]}:"


@pytest.fixture
def backup(store: RedisStore) -> RedisBackup:
    """Of the store on each server."""
    return backup_of(store, NODE)


async def moved(server: Server, backup: RedisBackup, records: list[Record]) -> Restored:
    """Import into the same server, emptied."""
    server.command("FLUSHALL")
    return await backup.restore(each(records))


def keys_on(server: Server) -> set[bytes]:
    """All keys but the one that proves a store."""
    return set(contents(commands_on(str(server.socket))))


# --- there and back ---------------------------------------------------------------------------------


async def test_an_import_makes_the_store_what_it_was(
    server: Server, store: RedisStore, backup: RedisBackup
) -> None:
    """Every key with every byte, and when it goes: something of every kind is in the store."""
    furnished = await furnish(store)
    command = commands_on(str(server.socket))
    before = contents(command)
    records = await exported(backup)
    restored = await moved(server, backup, records)
    assert contents(command) == before
    assert restored == furnished.expected
    assert await exported(backup) == records


async def test_it_moves_to_another_version_of_redis(
    servers: Servers, store_on: StoreOn, old_redis: str, new_redis: str
) -> None:
    """From 6.2 to 8.2 and back: no form of Redis's own is in it."""
    first, second = servers.start(old_redis, *SAFE), servers.start(new_redis, *SAFE)  # type: ignore[arg-type]
    old, new = store_on(first), store_on(second, waitaof=True)
    await furnish(old)
    records = await exported(backup_of(old, NODE))
    await backup_of(new, NODE).restore(each(records))
    assert await exported(backup_of(new, NODE)) == records
    first.command("FLUSHALL")
    await backup_of(old, NODE).restore(each(records))
    assert await exported(backup_of(old, NODE)) == records


async def test_an_imported_store_is_worked_with_as_before(
    server: Server, store: RedisStore, backup: RedisBackup
) -> None:
    """Scripts find what they wrote: quotas, replays, nodes, and letters' numbers go on where they were."""
    alice = (await furnish(store)).alice
    letters = await store.mail.mail(alice.client_id)
    uses = await store.mail.mail_uses()
    listed, bindings = await store.list_clients(), await store.bindings()
    await moved(server, backup, await exported(backup))
    assert (await store.list_clients(), await store.bindings()) == (listed, bindings)
    assert await store.mail.mail(alice.client_id) == letters
    assert await store.mail.mail_uses() == uses
    kept = await store.mail.keep(alice.client_id, a_letter(), PLENTY, ROOM)
    assert kept.number > max(number for number, _ in letters)
    with pytest.raises(StaleOffer):
        await store.save(alice.client_id, an_invoice(0), until())
    with pytest.raises(NodeTaken):
        await store.bind(listed[1][0].client_id, alice.node_id, BoundBy.OPERATOR)


async def test_what_has_expired_meanwhile_is_left_out(
    server: Server, store: RedisStore, backup: RedisBackup
) -> None:
    """By Redis's clock: an invoice and a mailbox with its use go, the mark and the client stay.

    An expired letter of a mailbox that lives lies there as it lay in Redis, and counts for nothing.
    """
    alice, bob = a_client("alice"), a_client("bob")
    for client in (alice, bob):
        await store.add_client(client)
    short = replace(an_invoice(0), expires_at=int(time.time()) + 2)
    await store.save(alice.client_id, short, until())
    await store.save(alice.client_id, an_invoice(1), until())
    week_old = PLENTY.ttl * 1_000 - 900
    await store.mail.keep(alice.client_id, a_letter(age_ms=week_old), PLENTY, ROOM)
    for age_ms in (week_old, 0):
        await store.mail.keep(bob.client_id, a_letter(age_ms=age_ms), PLENTY, ROOM)
    records = await exported(backup)
    await passed(short.expires_at)
    assert await moved(server, backup, records) == Restored(clients=2, invoices=1, letters=1)
    loaded = await store.load(alice.client_id, 0)
    assert (loaded.invoice, loaded.mark is None) == (None, False)
    assert set(await store.mail.mail_uses()) == {bob.client_id}
    assert await store.mail.mail(alice.client_id) == []
    assert len(await store.mail.mail(bob.client_id)) == 1


async def test_an_export_is_taken_while_clients_write(store: RedisStore, backup: RedisBackup) -> None:
    """Invoices and letters come and go all the time: each export could be imported as it is."""
    clients = [a_client(f"c{number}", size=1 << 20) for number in range(4)]
    for client in clients:
        await store.add_client(client)
    ended = asyncio.Event()

    async def write(client_id: bytes) -> None:
        slot = 0
        while not ended.is_set():
            await store.save(client_id, an_invoice(slot % 4, a_tag(slot + 1), size=500), until())
            kept = await store.mail.keep(client_id, a_letter(), PLENTY, ROOM)
            await store.mail.drop_mail(client_id, [kept.number])
            slot += 1

    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(write(client.client_id))
        for _ in range(15):
            # It would be refused if the parts of a client did not fit.
            assert sum(record.key == "names" for record in await exported(backup)) == 4
        ended.set()


async def test_a_client_that_is_removed_meanwhile_is_in_it_or_not(
    store: RedisStore, backup: RedisBackup
) -> None:
    """Never in part: here it goes after its name was read."""
    stays, goes = a_client("stays"), a_client("goes")
    for client in (stays, goes):
        await store.add_client(client)
    names = await backup._clients()
    await store.remove_client(goes.client_id)
    assert set(names) == {stays.client_id, goes.client_id}
    assert await backup._client(goes.client_id, b"goes") == []
    assert await backup._client(stays.client_id, b"stays") != []


@pytest.mark.parametrize("what", [":2", "nodes"])
async def test_what_comes_first_while_a_client_is_read_is_read_too(
    store: RedisStore, backup: RedisBackup, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What is to be read is known before: a slot or a node that came in between is not forgotten."""
    client = a_client()
    await store.add_client(client)

    async def came_late() -> object:
        if what == ":2":
            return await store.save(client.client_id, an_invoice(2), until())
        return await store.bind(client.client_id, a_node(), BoundBy.OPERATOR)

    read = backup._link.read
    written: list[object] = []

    async def read_late(*commands: tuple[str, ...], atomic: bool = False) -> object:
        if atomic and not written:
            written.append(await came_late())
        return await read(*commands, atomic=atomic)

    monkeypatch.setattr(backup._link, "read", read_late)
    found = {record.key.rpartition("}")[2] for record in await backup._client(client.client_id, b"alice")}
    assert found == {"", "names", what}


async def test_long_records_are_written_in_parts(
    server: Server, store: RedisStore, backup: RedisBackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of one key, and many pipelines of them, make the key that it was."""
    await furnish(store)
    command = commands_on(str(server.socket))
    before = contents(command)
    parts = [
        Record(record.key, record.type, record.items[start : start + 2], record.expires_at_ms)
        for record in await exported(backup)
        for start in range(0, len(record.items), 2)
    ]
    check = ExportCheck()
    for record in parts:
        check.record(record)
    check.finish()
    monkeypatch.setattr(redis_backup, "BATCH", 3)
    monkeypatch.setattr(redis_backup, "BATCH_BYTES", 2_000)
    await moved(server, backup, parts)
    assert contents(command) == before


# --- all or nothing ---------------------------------------------------------------------------------


async def test_an_import_into_a_store_that_holds_something_is_refused(
    server: Server, store: RedisStore, backup: RedisBackup
) -> None:
    """It says what is there, and changes nothing; what belongs to another LND's node is not in the way."""
    await furnish(store)
    records = await exported(backup)
    before = keys_on(server)
    with pytest.raises(StoreNotEmpty, match=r"\(4 clients, webhooks of 2 wallets, \d+ keys in all\)"):
        await backup.restore(each(records))
    assert keys_on(server) == before
    await backup_of(store, a_node()).restore(each(records))
    assert len(keys_on(server)) == 2 * len(before)


@pytest.mark.parametrize("what", ["client", "webhook", "delivery"])
async def test_anything_at_all_is_something(store: RedisStore, backup: RedisBackup, what: str) -> None:
    """One client, one webhook, one line of a log."""
    await backup.check_empty()
    if what == "client":
        await store.add_client(a_client())
    elif what == "webhook":
        await store.webhooks.set_webhook(a_node(), a_webhook(), MOST)
    else:
        await store.webhooks.log_delivery(a_node(), a_delivery())
    with pytest.raises(StoreNotEmpty):
        await backup.check_empty()


async def test_what_came_during_the_import_is_not_replaced(
    server: Server, store: RedisStore, backup: RedisBackup
) -> None:
    """A client that is added meanwhile wins; of the import nothing is there, and nothing lies aside."""
    await furnish(store)
    records = await exported(backup)
    server.command("FLUSHALL")
    late = a_client("late")

    async def with_a_guest() -> "object":
        for record in records[:-1]:
            yield record
        await store.add_client(late)
        yield records[-1]

    with pytest.raises(StoreNotEmpty, match="nothing was imported"):
        await backup.restore(with_a_guest())  # type: ignore[arg-type]
    assert [client for client, _ in await store.list_clients()] == [late]
    assert len(keys_on(server)) == 2


async def test_an_import_that_breaks_off_leaves_nothing(
    server: Server, store: RedisStore, backup: RedisBackup
) -> None:
    """Whatever ends it: nothing is in force, and nothing lies aside."""
    await furnish(store)
    records = await exported(backup)
    server.command("FLUSHALL")

    async def broken() -> "object":
        for record in records[:20]:
            yield record
        raise BadExport("the disk is gone")

    with pytest.raises(BadExport, match="the disk is gone"):
        await backup.restore(broken())  # type: ignore[arg-type]
    assert keys_on(server) == set()


async def test_a_crash_during_an_import_leaves_nothing_that_is_served(
    server: Server, store: RedisStore, backup: RedisBackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies aside is no client and in no export; a repeated import clears it away, and is whole."""
    alice = (await furnish(store)).alice
    records = await exported(backup)
    server.command("FLUSHALL")
    monkeypatch.setattr(redis_backup, "BATCH", 3)

    async def crash() -> None:
        raise StoreUnavailable("killed")

    with monkeypatch.context() as patch:
        clear = backup._clear
        patch.setattr(backup, "_clear", lambda: clear() if not keys_on(server) else crash())
        patch.setattr(backup._link, "change", lambda *_, **__: crash())
        with pytest.raises(StoreUnavailable):
            await backup.restore(each(records))
    assert len(keys_on(server)) > len(records) / 2
    assert all(key.startswith(f"{PREFIX}import".encode()) for key in keys_on(server))
    assert list(await store.list_clients()) == []
    assert await store.bindings() == {}
    assert (await store.load(alice.client_id, 0)).client is None
    assert await exported(backup) == []
    fewer = [record for record in records if not record.key.endswith(("webhooks", ":deliveries"))]
    await backup.restore(each(fewer))
    assert await exported(backup) == fewer
    assert not any(b":import" in key for key in keys_on(server))


async def test_a_store_that_holds_what_we_did_not_write_is_not_exported(
    server: Server, store: RedisStore, backup: RedisBackup
) -> None:
    """An export that could not be imported is worse than none: it says so when it is made."""
    alice = (await furnish(store)).alice
    key = f"{PREFIX}{{{alice.client_id.hex()}}}"
    server.command("EXPIREAT", f"{key}:3", "9999999999")
    server.command("HSET", key, "3", "12:9999999999:9999999999:1:1:nonce")
    with pytest.raises(StoreUnavailable, match=r"can't be exported.*slot 3 has .* and its entry counts 12"):
        await exported(backup)
    server.command("HSET", key, "3", "1:2:3")
    with pytest.raises(StoreUnavailable, match=r"can't be read"):
        await exported(backup)
