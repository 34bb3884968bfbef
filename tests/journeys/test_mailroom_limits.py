"""What a mailbox holds, who is pushed out of it, and what happens while the store is away."""

import asyncio
import os
from typing import Any

import pytest

from sidecar import deliveries
from sidecar.core import messages
from sidecar.core.errors import BadRecord
from sidecar.core.mailbox import SENDER_OVERHEAD, Kept, Letter
from sidecar.core.model import BoundBy
from tests.harness.mail_scene import HELD_HTLC_AVAILABLE, scene
from tests.harness.world import MAIL, World


async def test_a_message_played_again_is_kept_once() -> None:
    """Whoever recorded a packet can send it for ever: it takes one place."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        path = at.held_path()
        packet = messages.onion_along(path, os.urandom(32), HELD_HTLC_AVAILABLE, b"held", None)
        for _ in range(5):
            await at.payer.link.send_onion(path.path_key, packet)
        await world.settled()
        assert await at.letters() == 1


async def test_a_request_is_kept_once_however_often_it_comes() -> None:
    """One entry for each request: a payer's repeat replaces it."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        request = await at.payer.send_request(at.offer)
        await world.settled()
        world.clock.pass_seconds(61)
        await at.payer.send_request(at.offer, request)
        await world.settled()
        assert await at.letters() == 1


async def test_a_flood_of_requests_pushes_out_no_held_htlc() -> None:
    """Who knows an offer can fill the queue of requests, and not that of messages."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold(content=b"held")
        await at.ask(MAIL.letters + 10)
        assert await at.letters() == MAIL.letters + 1
        await at.back()
        assert (HELD_HTLC_AVAILABLE, b"held") in await at.read()


async def test_a_flood_of_messages_pushes_out_its_own_senders_only() -> None:
    """The heaviest sender's letters go first: another payer's held_htlc_available stays."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold(content=b"honest")
        flooder = world.payer()
        for number in range(MAIL.letters * 2):
            await at.hold(flooder, content=number.to_bytes(2, "big"))
        assert world.counters["mail.dropped.pushed-out"] == MAIL.letters + 1
        await at.back()
        assert (HELD_HTLC_AVAILABLE, b"honest") in await at.read()


async def test_no_mail_is_kept_for_nodes_that_are_no_clients() -> None:
    """What LND forwards for all others is none of ours, and costs one signer call."""
    async with World() as world:
        at = await scene(world)
        stranger = world.payer()
        await stranger.link.close()
        await at.payer.send_along(stranger.path_to_self(b"any"), 72, b"")
        await world.settled()
        assert world.counters["passed"] == 1
        assert await at.letters() == 0


async def test_a_revoked_clients_mail_is_not_kept() -> None:
    """Nothing is served for it: its node is a stranger's."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        ((client, _),) = await world.store.list_clients()
        await world.store.revoke_client(client.client_id)
        world.bindings.forget(client.client_id)
        await at.hold()
        assert (at.woken(), world.counters["passed"]) == (0, 1)


async def test_while_the_store_is_away_letters_wait_in_memory() -> None:
    """They go out at once if their node comes, and are kept as soon as the store is back."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        world.store.away = True
        for number in range(2):
            await at.hold(content=bytes([number]))
        assert (at.woken(), world.counters["mail.in-memory"]) == (2, 2)
        at.wallet.link = world.network.connect(at.wallet.node_id)
        assert [(await at.wallet.receive()).payload.content for _ in range(2)] == [b"\1", b"\0"]
        world.store.away = False
        async with asyncio.timeout(10):
            while world.counters["mail.kept"] < 2:  # noqa: ASYNC110 - a counter tells nobody
                await asyncio.sleep(0.01)
        assert (await at.letters(), await at.read()) == (2, [])
        await at.back()
        assert [content for _, content in await at.read()] == [b"\1", b"\0"]
        await at.prove_life()
        assert await at.letters() == 0


async def test_a_letter_does_not_overtake_those_in_memory() -> None:
    """The store is back before the memory is emptied: what comes then is numbered after what waits there."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        world.store.away = True
        await at.hold(content=b"first")
        world.store.away = False
        await at.hold(content=b"second")
        at.wallet.link = world.network.connect(at.wallet.node_id)
        async with asyncio.timeout(10):
            got = [(await at.wallet.receive()).payload.content for _ in range(2)]
            while world.counters["mail.kept"] < 2:  # noqa: ASYNC110 - a counter tells nobody
                await asyncio.sleep(0.01)
        assert set(got) == {b"first", b"second"}
        ((client, _),) = await world.store.list_clients()
        letters = [letter for _, letter in await world.store.mail(client.client_id)]
        opened = [at.wallet.open(letter.path_key, letter.onion).payload.content for letter in letters]
        assert opened == [b"first", b"second"]


async def test_memory_is_bounded_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is dropped and counted; what was there first stays."""
    monkeypatch.setattr("sidecar.pending.MEMORY_BYTES", 3_000)
    async with World() as world:
        at = await scene(world)
        await at.away()
        world.store.away = True
        for number in range(3):
            await at.hold(content=bytes([number]))
        assert world.counters["mail.in-memory"] == 2
        assert world.counters["mail.dropped.memory-full"] == 1
        assert world.counters["lost.message"] == 1


async def test_a_full_mailbox_costs_a_wallet_that_is_here_nothing() -> None:
    """No room for a copy: the message itself goes out all the same."""
    async with World(native=False) as world:
        at = await scene(world)
        world.set_mail_total(0)
        await at.hold(content=b"held")
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"held")]
        assert world.counters["mail.dropped.mailbox-full"] == 1


async def test_a_letter_without_a_place_is_not_left_to_a_delivery() -> None:
    """While a mailbox is handed over, what could not be kept goes out by itself: it is nowhere else."""
    async with World(native=False, answers=deliveries.ANSWERS) as world:
        at = await scene(world)
        await at.away()
        await at.ask(6)
        at.wallet.link = world.network.connect(at.wallet.node_id)
        for _ in range(3):
            await at.wallet.receive_invoice_request()
        world.set_mail_total(0)
        await at.payer.send_along(at.held_path(), HELD_HTLC_AVAILABLE, b"held")
        assert (await at.wallet.receive()).payload.content == b"held"


async def test_all_mailboxes_share_one_bound() -> None:
    """What has arrived makes room again; beyond the bound nothing is kept, and that is counted."""
    async with World() as world:
        at = await scene(world)
        size = 1_366 + SENDER_OVERHEAD
        world.set_mail_total(2 * size)
        for number in range(3):
            await at.hold(content=bytes([number]))
            await at.prove_life()
            assert await at.letters() == 0
        for number in range(3):
            await at.hold(content=bytes([number]))
        assert await at.letters() == 2
        other = await world.wallet("bob")
        await world.offer(other)
        await at.payer.send_along(other.path_to_self(b"held htlc"), HELD_HTLC_AVAILABLE, b"")
        await world.settled()
        assert world.counters["mail.dropped.mailbox-full"] == 1


async def test_what_has_expired_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mailbox that nobody touches is looked at now and then, and lets go of what is too old."""
    monkeypatch.setattr("sidecar.mailroom.TIDY_EVERY", 0.01)
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        ((client, _),) = await world.store.list_clients()
        assert world.mailroom.use(client.client_id) is not None
        world.clock.pass_seconds(MAIL.ttl + 1)
        async with asyncio.timeout(10):
            while world.mailroom.use(client.client_id) is not None:  # noqa: ASYNC110 - the janitor has no event
                await asyncio.sleep(0.01)
        assert world.mailroom.total() == (0, 0)


async def test_mail_that_has_waited_its_time_is_gone() -> None:
    """After the TTL (7 days, as long as an LDK payer waits) nobody waits for an answer any more."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        world.clock.pass_seconds(MAIL.ttl + 1)
        await at.back()
        assert await at.read() == []


async def test_a_mailbox_that_can_not_be_read_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its letters are lost, and counted; what waited in memory behind one of them is kept all the same."""
    monkeypatch.setattr("sidecar.mailroom.RETRY_AFTER", 0.01)
    async with World() as world:
        at, others = await scene(world), await world.wallet("bob")
        bob = await world.store.find_client("bob")
        await world.bindings.bind(bob.client_id, others.node_id, BoundBy.OPERATOR)
        await at.away()
        world.network.disconnect(others.node_id)
        alice = await world.store.find_client("alice")
        keep = world.store.keep

        async def corrupt(client_id: bytes, *args: Any) -> Kept:
            if client_id == alice.client_id and not world.store.away:
                raise BadRecord("Redis holds a record that can't be read")
            return await keep(client_id, *args)

        monkeypatch.setattr(world.store, "keep", corrupt)
        world.store.away = True
        await at.hold()
        await at.payer.send_along(others.path_to_self(b"held"), HELD_HTLC_AVAILABLE, b"held")
        await world.settled()
        assert world.counters["mail.in-memory"] == 2
        world.store.away = False
        async with asyncio.timeout(5):
            await world.mailroom.until_stored()
        assert len(await world.store.mail_list(bob.client_id)) == 1
        await at.hold()
        assert (world.counters["mail.dropped.bad-record"], world.counters["mail.in-memory"]) == (2, 2)


async def test_letters_in_memory_go_out_to_a_client_whose_mailbox_can_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is counted once for each connection, and not tried again and again."""
    async with World() as world:
        at = await scene(world)
        await at.away()

        async def corrupt(_client_id: bytes) -> list[tuple[int, Letter]]:
            raise BadRecord("Redis holds a record that can't be read")

        monkeypatch.setattr(world.store, "mail", corrupt)
        world.store.away = True
        await at.hold(content=b"held")
        await at.back()
        assert (HELD_HTLC_AVAILABLE, b"held") in await at.read()
        assert world.counters["mail.undelivered.bad-record"] == 1
