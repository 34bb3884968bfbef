"""A store in which something of every kind is kept, and what moving it to another one needs."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import redis

from sidecar.adapters.redis_backup import RedisBackup, Restored
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.backup import Record
from sidecar.core.mailbox import Queue
from sidecar.core.model import BoundBy, Client, TimestampForm
from tests.harness.mail_contract import BOB, PLENTY, ROOM, a_letter
from tests.harness.store_contract import a_bound_client, a_client, a_node, a_tag, an_invoice, later, until
from tests.harness.webhook_contract import MOST, WORN, a_delivery, a_webhook

HOSTILE = bytes(range(256)) + b"\r\n$-1\r\n\0"
"""Bytes that would show a place where they are taken for text."""


@dataclass(frozen=True, slots=True)
class Furnished:
    """The clients of a store that `furnish` has filled."""

    alice: Client
    revoked: Client
    learnt: Client
    bare: Client

    @property
    def expected(self) -> Restored:
        """What an import of it brings."""
        return Restored(clients=4, invoices=3, letters=3, webhooks=3)


async def furnish(store: RedisStore) -> Furnished:
    """Fill an empty store with clients in every state, invoices, marks, mail, webhooks, deliveries."""
    alice = replace(a_bound_client("alice"), timestamps=TimestampForm.Z)
    revoked, learnt, bare = a_bound_client("revoked"), a_client("learnt"), a_client("bare")
    for client in (alice, revoked, learnt, bare):
        await store.add_client(client)
    await store.bind(learnt.client_id, a_node(), BoundBy.LEARNT)
    first = an_invoice(0)
    await store.save(alice.client_id, first, until())
    await store.save(alice.client_id, an_invoice(0, later(first.tag), size=700), until())
    await store.save(alice.client_id, replace(an_invoice(3), invoice=HOSTILE), until())
    await store.save(learnt.client_id, an_invoice(1), until())
    await store.save(revoked.client_id, an_invoice(2, a_tag(1)), until())
    for client in (alice, revoked):
        for queue in Queue:
            await store.mail.keep(client.client_id, a_letter(queue=queue), PLENTY, ROOM)
    kept = await store.mail.keep(alice.client_id, a_letter(BOB, size=40_000), PLENTY, ROOM)
    await store.mail.drop_mail(alice.client_id, [kept.number])
    await store.mail.keep(alice.client_id, a_letter(BOB), PLENTY, ROOM)
    await store.rotate_client(alice.client_id)
    await store.revoke_client(revoked.client_id)
    assert alice.node_id is not None
    worn = a_webhook("Ä📱\r\n:")
    for webhook in (worn, a_webhook("b")):
        await store.webhooks.set_webhook(alice.node_id, webhook, MOST)
    await store.webhooks.note_state(alice.node_id, worn, WORN)
    await store.webhooks.log_delivery(alice.node_id, a_delivery(1))
    await store.webhooks.log_delivery(alice.node_id, a_delivery(2))
    stranger, gone = a_node(), a_node()
    await store.webhooks.set_webhook(stranger, a_webhook(), MOST)
    await store.webhooks.mark_unneeded(stranger, 1_700_000_000)
    await store.webhooks.log_delivery(gone, a_delivery(3))
    return Furnished(alice, revoked, learnt, bare)


def backup_of(store: RedisStore, node_id: bytes) -> RedisBackup:
    """Exports and imports over a store's own connections."""
    return RedisBackup(store._link, node_id)


async def exported(backup: RedisBackup) -> list[Record]:
    """All records."""
    return [record async for record in backup.export()]


async def each(records: list[Record]) -> AsyncIterator[Record]:
    """As an import reads them."""
    for record in records:
        yield record


def contents(command: Callable[..., Any]) -> dict[bytes, tuple[object, float]]:
    """Every key of a Redis but the one that proves it: what it holds, and when it ends (to the minute)."""
    found = {}
    for key in command("KEYS", "*"):
        if key.endswith(b":probe"):
            continue
        type_ = command("TYPE", key)
        words = {b"hash": ("HGETALL", key), b"list": ("LRANGE", key, 0, -1), b"string": ("GET", key)}
        held = command(*words.get(type_, ("SMEMBERS", key)))
        left = command("PTTL", key)
        found[key] = (held, left if left < 0 else round((time.time() * 1_000 + left) / 60_000))
    return found


def commands_on(socket: str) -> Callable[..., Any]:
    """What an operator would type into redis-cli, over one connection."""
    client = redis.Redis(unix_socket_path=socket)
    return client.execute_command
