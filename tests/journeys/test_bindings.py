"""Which node is a client: said by the operator, or learnt from a wallet that speaks for itself."""

import logging
import os
from collections.abc import Mapping

import pytest

from sidecar.core import keys, messages
from sidecar.core.errors import NodeTaken, StoreUnavailable
from sidecar.core.model import BoundBy
from tests.harness.mail_scene import scene
from tests.harness.wallet import Wallet
from tests.harness.world import World

NODE, OTHER = keys.public_key(b"\x0a" * 32), keys.public_key(b"\x0b" * 32)
MODES = pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])


async def bound(world: World, wallet: Wallet) -> bytes | None:
    """The client that the wallet's node is bound to, once all is dealt with."""
    await world.settled()
    return world.bindings.client_of(wallet.node_id)


async def only_client(world: World) -> bytes:
    """The id of the one client."""
    ((client, _),) = await world.store.list_clients()
    return client.client_id


@MODES
async def test_a_wallet_that_leaves_an_invoice_over_its_own_connection_is_learnt(native: bool) -> None:
    """serve_static_invoice comes from peer X, and its forward path leads through us to that same X."""
    async with World(native=native) as world:
        wallet = await world.wallet()
        await world.offer(wallet)
        assert await bound(world, wallet) == await only_client(world)
        client = await world.store.find_client("alice")
        assert (client.node_id, client.bound_by) == (wallet.node_id, BoundBy.LEARNT)
        assert world.counters["bound"] == 1


async def test_a_binding_is_learnt_once() -> None:
    """Every further invoice of the same wallet changes nothing, and costs no write."""
    async with World() as world:
        wallet = await world.wallet()
        for slot in (0, 1):
            await world.offer(wallet, slot)
        await world.settled()
        assert world.counters["bound"] == 1


async def test_a_wallet_behind_another_node_is_not_learnt() -> None:
    """Its forward path starts at its neighbour: whoever carries its messages is not the wallet."""
    async with World() as world:
        wallet = await world.wallet()
        wallet.forward_path = wallet.path_to_self(b"forwarded", through_lnd=False)
        await world.offer(wallet)
        assert await bound(world, wallet) is None


async def test_a_message_that_another_node_brought_binds_nobody() -> None:
    """The forward path leads to the wallet, and the message comes from elsewhere: no proof of either."""
    async with World() as world:
        wallet, carrier = await world.wallet(), world.payer()
        issued = await wallet.issue()
        wallet.link, home = carrier.link, wallet.link
        await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
        await world.settled()
        assert world.counters["stored"] == 1
        assert world.bindings.client_of(wallet.node_id) is None
        assert world.bindings.client_of(carrier.node_id) is None
        await home.close()


async def test_an_announced_node_is_not_learnt() -> None:
    """A node that the whole network can see is no sleeping phone: its mail is not ours to keep."""
    async with World() as world:
        wallet = await world.wallet()
        world.graph.announced.add(wallet.node_id)
        await world.offer(wallet)
        assert await bound(world, wallet) is None
        assert world.counters["unbound.announced"] == 1


async def test_a_learnt_binding_is_never_replaced_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    """Another node with the client's paths is served, stays unbound, and the operator reads of it once."""
    caplog.set_level(logging.WARNING, "sidecar.bindings")
    async with World() as world:
        wallet = await world.wallet()
        await world.offer(wallet)
        other = world.wallet_of(wallet.request_path)
        for slot in (1, 2):
            await world.offer(other, slot)
        assert await bound(world, other) is None
        assert await bound(world, wallet) == await only_client(world)
        assert world.counters["unbound.bound-otherwise"] == 2
        (record,) = caplog.records
        assert "sidecar client rebind" in record.message


async def test_after_a_rebind_the_next_wallet_is_learnt() -> None:
    """The operator lets go of the old node: the new one leaves an invoice, and is bound."""
    async with World() as world:
        wallet = await world.wallet()
        await world.offer(wallet)
        await world.settled()
        await world.bindings.bind(await only_client(world), None, BoundBy.OPERATOR)
        assert world.bindings.client_of(wallet.node_id) is None
        other = world.wallet_of(wallet.request_path)
        await world.offer(other, 1)
        assert await bound(world, other) == await only_client(world)


async def test_the_operators_word_wins_over_what_is_seen() -> None:
    """A client that the operator bound stays bound so, whoever leaves its invoices."""
    async with World() as world:
        wallet = await world.wallet()
        said = keys.public_key(b"\x09" * 32)
        await world.bindings.bind(await only_client(world), said, BoundBy.OPERATOR)
        await world.offer(wallet)
        assert await bound(world, wallet) is None
        assert world.bindings.client_of(said) == await only_client(world)


async def test_a_node_is_no_more_than_one_clients() -> None:
    """The first keeps it: learnt for a second one it is refused, and said by the operator too."""
    async with World() as world:
        alice = await world.wallet("alice")
        await world.offer(alice)
        bob = await world.client("bob")
        alice.request_path = world.server.request_path(bob, os.urandom)
        await world.offer(alice)
        await world.settled()
        assert world.counters["unbound.node-taken"] == 1
        with pytest.raises(NodeTaken):
            await world.bindings.bind(bob.client_id, alice.node_id, BoundBy.OPERATOR)


async def test_bindings_are_there_after_a_restart() -> None:
    """They are kept with the clients, and read at the start."""
    async with World() as world:
        wallet = await world.wallet()
        await world.offer(wallet)
        await world.settled()
        world.bindings._clients.clear()
        await world.bindings.refresh()
        assert world.bindings.client_of(wallet.node_id) == await only_client(world)


async def test_what_is_bound_while_all_are_read_is_not_forgotten() -> None:
    """Reading takes its time: what was read before a binding was made must not undo it."""
    async with World() as world:
        client = await world.client()
        read = world.store.bindings

        async def read_slowly() -> Mapping[bytes, bytes]:
            found = await read()
            if world.bindings.client_of(NODE) is None:
                await world.bindings.bind(client.client_id, NODE, BoundBy.OPERATOR)
            return found

        world.store.bindings = read_slowly  # type: ignore[method-assign]
        await world.bindings.refresh()
        assert world.bindings.client_of(NODE) == client.client_id
        assert world.bindings.node_of(client.client_id) == NODE


async def test_what_is_forgotten_while_all_are_read_does_not_come_back() -> None:
    """A client that is revoked in that time was still among those that were read."""
    async with World() as world:
        client = await world.client()
        await world.bindings.bind(client.client_id, NODE, BoundBy.OPERATOR)
        read = world.store.bindings

        async def read_slowly() -> Mapping[bytes, bytes]:
            found = await read()
            assert NODE in found
            world.bindings.forget(client.client_id)
            return found

        world.store.bindings = read_slowly  # type: ignore[method-assign]
        await world.bindings.refresh()
        assert world.bindings.client_of(NODE) is None
        assert world.bindings.node_of(client.client_id) is None


async def test_a_client_that_moves_leaves_its_node_to_others() -> None:
    """Bound anew it has one node; the earlier one may be another client's by then."""
    async with World() as world:
        one, two = await world.client(), await world.client("two")
        await world.bindings.bind(one.client_id, NODE, BoundBy.OPERATOR)
        await world.bindings.bind(one.client_id, OTHER, BoundBy.OPERATOR)
        await world.bindings.bind(two.client_id, NODE, BoundBy.OPERATOR)
        world.bindings.forget(one.client_id)
        assert [world.bindings.client_of(node) for node in (NODE, OTHER)] == [two.client_id, None]


async def test_a_failing_store_costs_no_acknowledgement() -> None:
    """What can't be learnt now is learnt with the next invoice: the invoice is kept, and is said to be."""
    async with World() as world:
        wallet = await world.wallet()
        issued = await wallet.issue()
        world.store.bind_error = StoreUnavailable("away")
        await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
        await wallet.receive_persisted()
        await world.settled()
        assert world.counters["unsent.bind.store-unavailable"] == 1
        world.store.bind_error = None
        await world.offer(wallet, 1)
        assert await bound(world, wallet) == await only_client(world)


# --- a node that becomes another client's ---------------------------------------------------------


@MODES
@pytest.mark.parametrize("proved", [True, False])
async def test_a_client_that_is_made_anew_gets_its_mail_over_the_connection_that_stands(
    native: bool, proved: bool
) -> None:
    """Its letters are numbered from 1 again: none may pass for one that the earlier client was handed."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.ask()
        assert [type_ for type_, _ in await at.read()] == [messages.INVOICE_REQUEST]
        earlier = await world.store.find_client("alice")
        await world.store.remove_client(earlier.client_id)
        world.clients.forget(earlier.client_id)
        at.wallet.request_path = world.server.request_path(await world.client("alice"), os.urandom)
        at.offer, _, _ = await world.offer(at.wallet)
        if proved:
            world.clock.pass_seconds(20)
        await at.ask()
        assert [type_ for type_, _ in await at.read()] == [messages.INVOICE_REQUEST]
        if proved:
            world.clock.pass_seconds(20)
            # Half a minute after what the earlier client was handed, and not after this one's.
            await at.wallet.ask_offer_paths(1)
            await world.settled()
        assert await at.letters() == 1
