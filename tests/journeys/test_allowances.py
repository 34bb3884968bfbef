"""Limits of a client's own, and a client that is paused, with the whole sidecar in one process."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from sidecar.core.mailbox import Letter
from sidecar.core.model import Client, Quota
from tests.harness.mail_scene import HELD_HTLC_AVAILABLE, Scene, scene
from tests.harness.wallet import Wallet
from tests.harness.world import MAIL, NO_LIMITS, World

MODES = pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])


async def give(world: World, name: str = "alice", **own: float) -> Client:
    """Let a client have limits of its own, as the operator does, and no others."""
    client = await world.store.find_client(name)
    quota = Quota(**own)  # type: ignore[arg-type]
    changed = await world.store.update_quota(client.client_id, quota, list(client.quota.own()))
    changed = await world.store.update_quota(client.client_id, quota)
    world.clients.changed(changed)
    return changed


async def refusals(world: World, name: str = "alice") -> dict[str, int]:
    """What was refused to a client, once all is dealt with."""
    await world.settled()
    return dict(world.allowances.refusals((await world.store.find_client(name)).client_id))


async def waiting(world: World, wallet: Wallet) -> int:
    """Messages that the wallet has not read, once all is dealt with."""
    await world.settled()
    return world.network.waiting(wallet.node_id)


# --- limits of its own ------------------------------------------------------------------------------


async def test_requests_over_a_clients_own_rate_are_met_with_silence_and_counted_as_its() -> None:
    """They cost neither LND nor the store anything; another client is served as ever."""
    async with World() as world:
        alice, bob, payer = await world.wallet("alice"), await world.wallet("bob"), world.payer()
        (offer, _, _), (theirs, _, _) = await world.offer(alice), await world.offer(bob)
        await give(world, requests_per_second=1, requests_burst=2)
        await world.settled()
        loads, calls = world.store.calls["load"], len(world.lnd_key.calls)
        for _ in range(5):
            await payer.send_request(offer)
        await world.settled()
        assert world.store.calls["load"] == loads + 2
        spent = len(world.lnd_key.calls) - calls
        for _ in range(5):
            await payer.send_request(theirs)
        await world.settled()
        assert len(world.lnd_key.calls) - calls - spent > spent
        assert await waiting(world, payer) == 7  # type: ignore[arg-type]
        assert (await refusals(world), await refusals(world, "bob")) == ({"requests": 3}, {})
        assert world.counters["dropped.rate-limited"] == world.counters["refused.requests"] == 3


async def test_slots_and_bytes_follow_the_settings_where_a_client_has_none_of_its_own() -> None:
    """Also when these change while the server runs: for the next message."""
    async with World() as world:
        wallet = await world.wallet()
        await give(world)
        _, issued, _ = await world.offer(wallet, 3)
        defaults = world.allowances.defaults
        world.allowances.set_defaults(replace(defaults, client=replace(defaults.client, slots=3)))
        await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
        await wallet.ask_offer_paths(3)
        assert await refusals(world) == {"slots": 2}
        world.allowances.set_defaults(replace(defaults, client=replace(defaults.client, bytes=400)))
        second = await wallet.issue(1)
        await wallet.leave_invoice(second, wallet.make_invoice(wallet.make_offer(second)))
        assert await refusals(world) == {"slots": 2, "bytes": 1}
        assert world.counters["dropped.quota-exceeded"] == world.counters["refused.bytes"] == 1
        await give(world, bytes=40_000)
        await wallet.leave_invoice(second, wallet.make_invoice(wallet.make_offer(second)))
        await wallet.receive_persisted()


async def test_a_lowered_number_of_slots_leaves_what_is_there() -> None:
    """The invoice in a slot that is the client's no more is served until it ends."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet, 3)
        await give(world, slots=1)
        await payer.send_request(offer)
        await payer.receive_answer(offer)


async def test_a_clients_mailbox_has_its_own_size() -> None:
    """Letters that made room for others are counted as what its mailbox refused, and so are lost ones."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await give(world, mailbox_letters=2)
        for number in range(3):
            await at.hold(content=bytes([number]))
        assert (await at.letters(), await refusals(world)) == (2, {"mailbox": 1})
        await give(world, mailbox_bytes=1)
        await at.hold(content=b"none has room")
        assert (await at.letters(), await refusals(world)) == (2, {"mailbox": 2})
        assert world.counters["mail.dropped.pushed-out"] == world.counters["mail.dropped.mailbox-full"] == 1
        await give(world)
        for number in range(MAIL.letters):
            await at.hold(content=bytes([9, number]))
        assert await at.letters() == MAIL.letters


# --- paused -----------------------------------------------------------------------------------------


@MODES
async def test_a_paused_client_is_met_with_silence(native: bool) -> None:
    """Payers and the wallet itself, over paths that are known and over new ones; others are served."""
    async with World(native=native) as world:
        alice, bob, payer = await world.wallet("alice"), await world.wallet("bob"), world.payer()
        offer, issued, invoice = await world.offer(alice)
        fresh = await alice.issue(1)
        theirs, _, _ = await world.offer(bob)
        await payer.send_request(offer)
        await payer.receive_answer(offer)
        await alice.receive_invoice_request()
        await world.pause()
        loads, calls = world.store.calls["load"], len(world.lnd_key.calls)
        await payer.send_request(offer)
        await alice.leave_invoice(issued, invoice)
        await alice.ask_offer_paths(0)
        await world.assert_silence(alice, payer)
        assert (world.store.calls["load"], len(world.lnd_key.calls)) == (loads, calls)
        # A path that was never used must be peeled before it is known whose it is.
        await alice.leave_invoice(fresh, alice.make_invoice(alice.make_offer(fresh)))
        await world.assert_silence(alice, payer)
        assert world.store.calls["load"] == loads
        assert await refusals(world) == {"paused": 4}
        assert world.counters["dropped.client-paused"] == world.counters["refused.paused"] == 4
        await payer.send_request(theirs)
        await payer.receive_answer(theirs)


async def test_a_resumed_client_is_served_as_before() -> None:
    """Its offers and its paths are what they were."""
    async with World() as world:
        alice, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(alice)
        await world.pause()
        await payer.send_request(offer)
        await world.assert_silence(alice, payer)
        await world.pause(paused=False)
        await payer.send_request(offer)
        await payer.receive_answer(offer)
        await alice.receive_invoice_request()
        await world.offer(alice, 1)


async def test_a_pause_that_another_sidecar_made_is_met_with_silence_too() -> None:
    """The store's word holds before this one has read it, and it is counted as a pause."""
    async with World() as world:
        alice, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(alice)
        client = await world.store.find_client("alice")
        await world.store.pause_client(client.client_id, paused=True)
        await payer.send_request(offer)
        await alice.leave_invoice(issued, invoice)
        await alice.ask_offer_paths(0)
        await world.assert_silence(alice, payer)
        assert await refusals(world) == {"paused": 3}
        await world.allowances.refresh()
        assert world.allowances.is_paused(client.client_id)


async def paused_scene(world: World) -> Scene:
    """A wallet that is away, with one letter that waits, and its client paused."""
    at = await scene(world)
    await at.away()
    await at.hold(content=b"before")
    await world.pause()
    world.notifier.notified.clear()
    return at


@MODES
async def test_mail_for_a_paused_client_is_refused_and_what_waits_stays(native: bool) -> None:
    """Nobody is woken, nothing is kept, and nothing is handed over while the client is paused."""
    async with World(native=native) as world:
        at = await paused_scene(world)
        await at.hold(content=b"meanwhile")
        assert (await at.letters(), at.woken(), await refusals(world)) == (1, 0, {"paused": 1})
        await at.back()
        assert await at.read() == []
        await at.wallet.link.close()
        await world.settled()
        assert (await at.letters(), at.woken()) == (1, 0)


@MODES
async def test_what_is_sent_to_a_paused_clients_node_goes_where_any_nodes_goes(native: bool) -> None:
    """While the wallet is online: an LND that forwards by itself hands it over, and so do we elsewhere."""
    async with World(native=native) as world:
        at = await scene(world)
        await world.pause()
        await at.hold(content=b"held")
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"held")]
        assert world.counters["passed" if native else "forwarded"] == 1
        assert await at.letters() == 0


async def test_after_a_restart_a_paused_client_is_not_woken() -> None:
    """Its mail is fresh, and it waits."""
    async with World() as world:
        at = await paused_scene(world)
        world.restart_mailroom()
        await world.settled()
        assert at.woken() == 0


async def test_a_resumed_wallet_that_is_here_gets_what_waited() -> None:
    """Over the connection that it has."""
    async with World() as world:
        at = await paused_scene(world)
        await at.back()
        await world.pause(paused=False)
        await world.settled()
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"before")]
        await at.prove_life()
        assert await at.letters() == 0


async def test_other_limits_bring_no_letter_twice() -> None:
    """What a wallet on its connection got already is handed over anew by a resume alone."""
    async with World() as world:
        at = await scene(world)
        await at.hold(content=b"held")
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"held")]
        await give(world, slots=3)
        await world.settled()
        assert (await at.letters(), await at.read()) == (1, [])


async def test_a_resumed_wallet_that_is_away_is_woken_for_what_waited() -> None:
    """And not for an empty mailbox."""
    async with World() as world:
        at = await paused_scene(world)
        await world.pause(paused=False)
        assert at.woken() == 1
        await at.back()
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"before")]
        await at.prove_life()
        await at.away()
        await world.pause()
        await world.pause(paused=False)
        assert at.woken() == 0


async def delivery_that_waits(world: World) -> Scene:
    """Three letters, read for a wallet that has just come back: the answers' rate lets nothing through."""
    at = await scene(world)
    begun, mail = asyncio.Event(), world.store.mail

    async def noted(client_id: bytes) -> Sequence[tuple[int, Letter]]:
        letters = await mail(client_id)
        begun.set()
        return letters

    world.store.mail = noted  # type: ignore[method-assign]
    await at.away()
    for number in range(3):
        await at.hold(content=bytes([number]))
    at.wallet.link = world.network.connect(at.wallet.node_id)
    await begun.wait()
    return at


async def test_a_pause_ends_a_delivery() -> None:
    """Letters that were not handed over yet stay; those that were are not taken back."""
    async with World(answers=NO_LIMITS.offer) as world:
        at = await delivery_that_waits(world)
        await world.pause()
        await world.settled()
        assert (await at.letters(), await at.read()) == (3, [])


async def test_a_pause_that_another_sidecar_made_ends_a_delivery_when_it_is_read() -> None:
    """So does one of our own, when Redis went away before it said that the pause was kept."""
    async with World(answers=NO_LIMITS.offer) as world:
        at = await delivery_that_waits(world)
        client = await world.store.find_client("alice")
        await world.store.pause_client(client.client_id, paused=True)
        await world.clients.refresh()
        await world.settled()
        assert (await at.letters(), await at.read()) == (3, [])


async def test_a_wallet_that_another_sidecar_resumed_gets_what_waited_when_that_is_read() -> None:
    """On the connection that it has; when it is away it is woken; and both just once."""
    async with World() as world:
        at = await paused_scene(world)
        client = await world.store.find_client("alice")
        await world.store.pause_client(client.client_id, paused=False)
        for _ in range(2):
            await world.clients.refresh()
            assert at.woken() == 1
        await world.pause()
        await at.back()
        await world.store.pause_client(client.client_id, paused=False)
        for _ in range(2):
            await world.clients.refresh()
            await world.settled()
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"before")]


async def test_a_delivery_ends_when_its_client_is_removed() -> None:
    """What was read from its mailbox before is not handed over any more."""
    async with World(answers=NO_LIMITS.offer) as world:
        at = await delivery_that_waits(world)
        client = await world.store.find_client("alice")
        await world.store.remove_client(client.client_id)
        world.clients.forget(client.client_id)
        await world.settled()
        assert await at.read() == []


async def test_a_removed_client_that_an_import_brings_back_has_its_mailbox() -> None:
    """What waits for it is counted, and its wallet is woken for it."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold(content=b"before")
        at.world.notifier.notified.clear()
        client = await world.store.find_client("alice")
        world.clients.forget(client.client_id)
        assert world.clients.mail_use(client.client_id) is None
        # The store has it all again, as after an import.
        await world.clients.imported()
        use = world.clients.mail_use(client.client_id)
        assert use is not None
        assert (use.letters, world.mailroom.total()[0], at.woken()) == (1, 1, 1)


async def test_letters_in_memory_are_not_kept_for_a_client_that_was_paused_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store was away when they came; when it is back it refuses them."""
    monkeypatch.setattr("sidecar.mailroom.RETRY_AFTER", 0.01)
    async with World() as world:
        at = await scene(world)
        await at.away()
        client = await world.store.find_client("alice")
        world.store.away = True
        await at.hold()
        assert world.counters["mail.in-memory"] == 1
        world.store.away = False
        await world.store.pause_client(client.client_id, paused=True)
        while world.mailroom._pending:  # noqa: ASYNC110 - the memory tells nobody that it is empty
            await asyncio.sleep(0.01)
        assert (await at.letters(), await refusals(world)) == (0, {"paused": 1})
        assert world.counters["mail.dropped.client-paused"] == 1
