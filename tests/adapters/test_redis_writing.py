"""Commands on their way out, and answers on their way back: what is large, late or given up."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_masters import OneMaster
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import StoreUnavailable
from tests.adapters.conftest import Server
from tests.harness.store_contract import a_client

LARGE = bytes(16 << 20)
"""More than the system takes at once, of a socket that nobody reads."""


def frozen(server: Server) -> Callable[[], None]:
    """Stop Redis where it stands; what is returned lets it go on."""
    assert server.process is not None
    pid = server.process.pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


@pytest.fixture
def master(one_server: Server) -> OneMaster:
    """One that gives up soon, with one connection."""
    one_server.command("FLUSHALL")
    found = connect_socket(one_server.socket)
    pool = found.redis.connection_pool
    pool.max_connections = 1
    pool.connection_kwargs["socket_timeout"] = 0.3
    return found


async def test_what_does_not_go_out_at_once_goes_out(master: OneMaster) -> None:
    """The rest follows when Redis has read the first part."""
    assert await master.send([("SET", "large", LARGE), ("STRLEN", "large")]) == [True, len(LARGE)]
    assert await master.send([("GET", "large")]) == [LARGE]
    await master.aclose()


@pytest.mark.parametrize(
    ("value", "while_"), [(b"small", "reading"), (LARGE, "writing")], ids=["small", "large"]
)
async def test_a_redis_that_stands_still_is_given_up(
    value: bytes, while_: str, master: OneMaster, one_server: Server
) -> None:
    """In writing and in reading alike; the connection is not used again, and the next one works."""
    assert await master.send([("PING",)]) == [True]
    go_on = frozen(one_server)
    try:
        with pytest.raises(StoreUnavailable, match=f"Timeout {while_}"):
            await master.send([("SET", "value", value)])
    finally:
        go_on()
    assert await master.send([("ECHO", "mine"), ("ECHO", "too")]) == [b"mine", b"too"]
    await master.aclose()


async def test_an_answer_that_nobody_waits_for_is_not_taken_for_another(
    master: OneMaster, one_server: Server
) -> None:
    """A message may be given up while Redis thinks: its connection is closed."""
    assert await master.send([("SET", "first", "1"), ("SET", "second", "2")]) == [True, True]
    go_on = frozen(one_server)
    given_up = asyncio.create_task(master.send([("GET", "first"), ("GET", "first")]))
    await asyncio.sleep(0)
    await asyncio.wait({given_up}, timeout=0.05)
    given_up.cancel()
    await asyncio.wait({given_up})
    go_on()
    assert given_up.cancelled()
    assert await master.send([("GET", "second")]) == [b"2"]
    await master.aclose()


async def test_errors_stand_where_their_command_stood(master: OneMaster) -> None:
    """One that Redis refuses does not keep the others from being answered."""
    first, wrong, last = await master.send([("SET", "text", "a"), ("HGETALL", "text"), ("GET", "text")])
    assert (first, last) == (True, b"a")
    assert "WRONGTYPE" in str(wrong)
    await master.aclose()


async def test_one_redis_tells_only_of_clients_that_have_something(
    one_server: Server, store_on: Callable[..., RedisStore]
) -> None:
    """What is read again and again grows with those that have limits of their own, not with all clients."""
    one_server.command("FLUSHALL")
    store = store_on(one_server)
    usual, own = a_client("usual"), a_client("own")
    for client in (usual, own):
        await store.add_client(client)
    await store.update_quota(usual.client_id, type(usual.quota)(), ["slots", "bytes", "ttl"])
    parts = [list(part) async for part in store._listing._entries(store._keys.names, ("state", "slots"))]
    assert parts == [[(b"own", own.client_id.hex().encode(), [b"active", b"4"])]]
