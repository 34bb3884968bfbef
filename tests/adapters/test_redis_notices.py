"""What the log says when Redis goes away under a running sidecar."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import StoreUnavailable
from tests.adapters.conftest import SAFE, Servers
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


async def test_a_redis_that_never_answered_is_not_said_to_have_gone(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """At the start the one who waits for it says so."""
    server = servers.start(old_redis, *SAFE)
    server.stop()
    with pytest.raises(StoreUnavailable):
        await store_on(server).list_clients()
    assert said(caplog) == []
