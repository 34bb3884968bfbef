"""What the log says when Redis goes away under a running sidecar."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.adapters import redis_acks
from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import StoreUnavailable
from sidecar.core.webhooks import Delivery
from tests.adapters.conftest import NODE, SAFE, Servers
from tests.harness.store_contract import a_client


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events of the link, in order."""
    own = [each for each in caplog.records if each.name == "sidecar.adapters.redis_link"]
    return [each.msg["event"] for each in own if isinstance(each.msg, dict)]


async def test_it_is_said_once_when_redis_goes_and_once_when_it_is_back(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """However many messages find it away."""
    caplog.set_level(logging.INFO)
    server = servers.start(old_redis, *SAFE)
    store, client = store_on(server), a_client()
    await store.add_client(client)
    for _ in range(2):
        server.stop()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.load(client.client_id, 0)
            with pytest.raises(StoreUnavailable):
                await store.rotate_client(client.client_id)
        assert said(caplog) == ["Redis is away"]
        server.start()
        for _ in range(3):
            await store.load(client.client_id, 0)
            await store.rotate_client(client.client_id)
        assert said(caplog) == ["Redis is away", "Redis is back"]
        caplog.clear()


async def test_changes_that_fail_while_reads_go_on_are_said_once(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that only answers is not back before it takes changes again."""
    caplog.set_level(logging.INFO)
    server = servers.start(old_redis, *SAFE)
    store, client = store_on(server), a_client()
    await store.add_client(client)
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    for _ in range(3):
        await store.load(client.client_id, 0)
        with pytest.raises(StoreUnavailable):
            await store.rotate_client(client.client_id)
    assert said(caplog) == ["Redis is away"]
    server.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await store.rotate_client(client.client_id)
    assert said(caplog) == ["Redis is away", "Redis is back"]


async def test_changes_that_wait_for_no_replica_do_not_say_that_it_is_back(
    servers: Servers, old_redis: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is renewed each second, and nothing that a wallet leaves is taken."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(redis_acks, "FSYNC_TIMEOUT_MS", 50)
    store = RedisStore(
        connect_socket(servers.start(old_redis, *SAFE).socket), NODE, waitaof=False, replicas=1
    )
    try:
        await store.list_clients()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.add_client(a_client())
            await store.mail.drop_mail(bytes(16), [])
            await store.webhooks.log_delivery(NODE, Delivery(0, "app", "method", "ok", 1))
        assert said(caplog) == ["Redis is away"]
    finally:
        await store.close()


async def test_a_change_that_is_kept_says_that_all_changes_are_back(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever failed first: the next one of that kind may be long in coming."""
    caplog.set_level(logging.INFO)
    server = servers.start(old_redis, *SAFE)
    store, client = store_on(server), a_client()
    await store.add_client(client)
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(StoreUnavailable):
        await store.webhooks.log_delivery(NODE, Delivery(0, "app", "method", "ok", 1))
    server.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await store.rotate_client(client.client_id)
    assert said(caplog) == ["Redis is away", "Redis is back"]


async def test_what_was_under_way_when_redis_went_and_came_is_no_news(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """An answer to an earlier call does not say that it is back, nor its failure that it went."""
    caplog.set_level(logging.INFO)
    store = store_on(servers.start(old_redis, *SAFE))
    await store.list_clients()

    async def call(after: asyncio.Event, *, fails: bool) -> None:
        with contextlib.suppress(StoreUnavailable), store._link._noticed("changes"):
            await after.wait()
            if fails:
                raise StoreUnavailable("gone")

    late = asyncio.Event()
    now = asyncio.Event()
    now.set()
    good = asyncio.create_task(call(late, fails=False))
    await asyncio.sleep(0)
    await call(now, fails=True)
    late.set()
    await good
    assert said(caplog) == ["Redis is away"]
    late.clear()
    bad = asyncio.create_task(call(late, fails=True))
    await asyncio.sleep(0)
    await call(now, fails=False)
    late.set()
    await bad
    assert said(caplog) == ["Redis is away", "Redis is back"]


async def test_asking_whether_it_takes_changes_says_nothing_while_it_takes_none(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """Each look of the server's own is one failure more, and no return."""
    caplog.set_level(logging.INFO)
    server = servers.start(old_redis, *SAFE)
    store = store_on(server)
    await store.probe()
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.probe()
    assert said(caplog) == ["Redis is away"]


async def test_a_redis_that_never_answered_is_not_said_to_have_gone(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """At the start the one who waits for it says so."""
    server = servers.start(old_redis, *SAFE)
    server.stop()
    with pytest.raises(StoreUnavailable):
        await store_on(server).list_clients()
    assert said(caplog) == []
