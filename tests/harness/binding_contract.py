"""What every ports.Store keeps to about the nodes that clients are: run over each store there is.

A subclass called Test… gives the fixture `store`: an empty store.
"""

import asyncio
from dataclasses import replace

import pytest

from sidecar.core.errors import BoundOtherwise, NameTaken, NodeTaken, NoSuchClient
from sidecar.core.model import BoundBy, ClientState, TimestampForm, Usage
from sidecar.ports import Store
from tests.harness.store_contract import a_bound_client, a_client, a_node


class BindingContract:
    """The rules; each test gets an empty `store`."""

    @pytest.mark.parametrize("by", BoundBy)
    async def test_a_client_is_added_with_its_node(self, store: Store, by: BoundBy) -> None:
        """It comes back bound, with who said so and its form of timestamps; others are not bound."""
        client = replace(a_bound_client(), bound_by=by)
        await store.add_client(client)
        await store.add_client(a_client("bob"))
        assert await store.find_client("alice") == client
        assert (await store.load(client.client_id, 0)).client == client
        assert await store.bindings() == {client.node_id: client.client_id}

    @pytest.mark.parametrize("form", TimestampForm)
    async def test_timestamps_are_chosen_and_left_to_the_default(
        self, store: Store, form: TimestampForm
    ) -> None:
        """A new client may bring its form; it can be changed, and changed back."""
        client = replace(a_client(), timestamps=form)
        await store.add_client(client)
        assert await store.find_client("alice") == client
        for chosen in (None, form, *TimestampForm):
            changed = await store.set_timestamps(client.client_id, chosen)
            assert changed == replace(client, timestamps=chosen)
            assert await store.find_client("alice") == changed

    async def test_a_client_whose_node_is_taken_is_not_added(self, store: Store) -> None:
        """The refusal names who has the node, and leaves nothing behind: no client, and a free name."""
        first = a_bound_client()
        await store.add_client(first)
        refused = a_bound_client("bob", first.node_id)
        with pytest.raises(NodeTaken, match="alice"):
            await store.add_client(refused)
        assert list(await store.list_clients()) == [(first, Usage(0, 0))]
        assert (await store.load(refused.client_id, 0)).client is None
        assert await store.bindings() == {first.node_id: first.client_id}
        await store.add_client(a_bound_client("bob"))

    async def test_a_client_whose_name_is_taken_takes_no_node(self, store: Store) -> None:
        """The node stays free for others."""
        node = a_node()
        await store.add_client(a_client())
        with pytest.raises(NameTaken):
            await store.add_client(a_bound_client("alice", node))
        assert await store.bindings() == {}
        await store.add_client(a_bound_client("bob", node))

    async def test_the_operators_word_replaces_whatever_was_there(self, store: Store) -> None:
        """A node that was learnt or named before is free from then on; None leaves the client without."""
        client, old, new = a_client(), a_node(), a_node()
        await store.add_client(client)
        learnt = await store.bind(client.client_id, old, BoundBy.LEARNT)
        assert learnt == replace(client, node_id=old, bound_by=BoundBy.LEARNT)
        for node in (old, new):
            bound = await store.bind(client.client_id, node, BoundBy.OPERATOR)
            assert bound == replace(client, node_id=node, bound_by=BoundBy.OPERATOR)
            assert await store.find_client("alice") == bound
            assert await store.bindings() == {node: client.client_id}
        await store.add_client(a_bound_client("bob", old))
        for _ in range(2):
            assert await store.bind(client.client_id, None, BoundBy.OPERATOR) == client
        assert new not in await store.bindings()
        assert (await store.bind(client.client_id, new, BoundBy.LEARNT)).node_id == new

    async def test_what_is_learnt_fills_only_a_gap(self, store: Store) -> None:
        """Never replaced in silence: another node is refused, the same one changes nothing."""
        named, learnt = a_bound_client("alice"), a_client("bob")
        await store.add_client(named)
        await store.add_client(learnt)
        learnt = await store.bind(learnt.client_id, a_node(), BoundBy.LEARNT)
        before = await store.bindings()
        for client in (named, learnt):
            assert await store.bind(client.client_id, client.node_id, BoundBy.LEARNT) == client
            for node in (a_node(), None):
                with pytest.raises(BoundOtherwise):
                    await store.bind(client.client_id, node, BoundBy.LEARNT)
            assert await store.find_client(client.name) == client
        assert await store.bindings() == before

    @pytest.mark.parametrize("by", BoundBy)
    async def test_a_node_is_one_clients(self, store: Store, by: BoundBy) -> None:
        """Another client can't be bound to it, whoever says so; both stay as they were."""
        holder, other = a_bound_client("alice"), a_client("bob")
        await store.add_client(holder)
        await store.add_client(other)
        with pytest.raises(NodeTaken, match="alice"):
            await store.bind(other.client_id, holder.node_id, by)
        assert await store.find_client("bob") == other
        assert await store.bindings() == {holder.node_id: holder.client_id}

    async def test_of_many_bindings_at_once_one_wins(self, store: Store) -> None:
        """Ten clients that are bound to one node at the same moment: one is, by its record too."""
        clients, node = [a_client(f"client-{number}") for number in range(10)], a_node()
        for client in clients:
            await store.add_client(client)
        results = await asyncio.gather(
            *(store.bind(client.client_id, node, BoundBy.LEARNT) for client in clients),
            return_exceptions=True,
        )
        assert sum(isinstance(each, NodeTaken) for each in results) == 9
        (bound,) = [client for client, _ in await store.list_clients() if client.node_id is not None]
        assert await store.bindings() == {node: bound.client_id}

    async def test_of_many_nodes_at_once_a_client_gets_one(self, store: Store) -> None:
        """The others are free, whether learnt or named."""
        client, nodes = a_client(), [a_node() for _ in range(10)]
        await store.add_client(client)
        await asyncio.gather(
            *(store.bind(client.client_id, node, by) for node in nodes for by in BoundBy),
            return_exceptions=True,
        )
        bound = await store.find_client("alice")
        assert await store.bindings() == {bound.node_id: client.client_id}
        for number, node in enumerate(nodes):
            if node != bound.node_id:
                await store.add_client(a_bound_client(f"client-{number}", node))

    @pytest.mark.parametrize("gone", ["revoked", "removed"])
    async def test_a_client_that_goes_frees_its_node(self, store: Store, gone: str) -> None:
        """A revoked client still tells which node it was, and can't be bound any more."""
        client = a_bound_client()
        await store.add_client(client)
        if gone == "revoked":
            revoked = await store.revoke_client(client.client_id)
            assert revoked == replace(client, state=ClientState.REVOKED)
            for by in BoundBy:
                for node in (client.node_id, a_node(), None):
                    with pytest.raises(NoSuchClient):
                        await store.bind(client.client_id, node, by)
            assert await store.find_client("alice") == revoked
        else:
            await store.remove_client(client.client_id)
        assert await store.bindings() == {}
        heir = a_bound_client("bob", client.node_id)
        await store.add_client(heir)
        if gone == "revoked":
            await store.remove_client(client.client_id)
        assert await store.bindings() == {client.node_id: heir.client_id}
