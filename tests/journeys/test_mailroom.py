"""What is for a client's node is kept, handed over again, and let go with proof."""

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

from sidecar import deliveries
from sidecar.core import messages, paths
from sidecar.core.errors import LndDenied, LndUnavailable, SidecarError
from sidecar.core.mailbox import Kept
from sidecar.core.model import BoundBy
from sidecar.mailroom import FRESH_MS
from tests.harness.mail_scene import HELD_HTLC_AVAILABLE, scene
from tests.harness.world import World

MODES = pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])


@MODES
async def test_what_others_send_to_a_sleeping_wallet_waits_for_it(native: bool) -> None:
    """A payer sends held_htlc_available once, and without it there is no payment."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.away()
        await at.hold(content=b"held")
        assert (at.woken(), await at.letters()) == (1, 1)
        await at.back()
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"held")]


@MODES
async def test_messages_are_handed_over_before_requests(native: bool) -> None:
    """A wallet that is woken has seconds: what a payment waits for goes first, and of that the newest."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.away()
        for number in range(3):
            await at.hold(content=bytes([number]))
        await at.ask()
        await at.hold(content=b"\x03")
        await at.back()
        got = await at.read()
        assert got[:4] == [(HELD_HTLC_AVAILABLE, bytes([number])) for number in (3, 2, 1, 0)]
        assert [content_type for content_type, _ in got[4:]] == [messages.INVOICE_REQUEST]


@MODES
async def test_what_a_wallet_was_handed_already_does_not_hold_up_what_is_new(native: bool) -> None:
    """A phone that is given seconds never proves life: all it ever got comes again, but last."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.away()
        for number in range(3):
            await at.ask()
            await at.hold(content=bytes([number]))
            await at.back()
            assert (await at.read())[0] == (HELD_HTLC_AVAILABLE, bytes([number]))
            await at.away()


@MODES
async def test_a_wallet_that_is_here_gets_each_message_once(native: bool) -> None:
    """LND forwards by itself in native mode: we keep a copy, and send nothing twice."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.hold(content=b"held")
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"held")]
        assert (at.woken(), await at.letters()) == (0, 1)


@MODES
async def test_copies_are_handed_over_again_on_a_new_connection(native: bool) -> None:
    """LND's "sent" means written to a socket: what a dead connection swallowed comes again."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.hold(content=b"held")
        await at.back()
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"held")]
        assert await at.letters() == 1


@MODES
async def test_a_letter_goes_with_proof_of_life(native: bool) -> None:
    """Bytes that came from the node 30 s after it prove that it arrived."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.hold()
        await at.prove_life()
        assert await at.letters() == 0
        assert world.counters["mail.arrived"] == 1
        await at.away()
        await at.back()
        assert await at.read() == []


async def test_nothing_stays_in_memory_of_what_arrived() -> None:
    """A wallet may be connected for months, and be paid every minute."""
    async with World() as world:
        at = await scene(world)
        for count in range(3):
            await at.hold(content=bytes([count]))
        remembered = world.mailroom._turns._times[at.wallet.node_id]
        assert len(remembered) == 3
        await at.prove_life()
        assert not remembered


async def test_a_node_that_speaks_proves_what_it_got() -> None:
    """An onion message of its own is as good as bytes that LND counts."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        world.clock.pass_seconds(30)
        await at.wallet.ask_offer_paths(1)
        await world.settled()
        assert await at.letters() == 0


async def test_without_proof_a_letter_stays_through_any_number_of_connections() -> None:
    """A phone that wakes for seconds gets it each time: twice is allowed, lost is not."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        for _ in range(4):
            await at.back()
            assert len(await at.read()) == 1
            await at.away()
        assert await at.letters() == 1


@pytest.mark.parametrize(("age_ms", "received"), [(FRESH_MS, 2), (FRESH_MS + 1, 1)])
async def test_on_a_young_connection_we_hand_over_beside_lnd(age_ms: int, received: int) -> None:
    """LND may have tried before the wallet was there, and told us after: twice is allowed."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.back()
        world.clock.pass_seconds(age_ms / 1000)
        await at.hold()
        assert len(await at.read()) == received


async def test_what_was_held_by_one_that_stood_by_is_handed_over_to_who_came_meanwhile() -> None:
    """LND tried when it had it, and nobody was there: how old its connection is by now tells nothing."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        arrive = world.network.inject
        heard_ms = world.clock.steady_ms() - 20_000
        world.network.inject = lambda received: arrive(replace(received, heard_ms=heard_ms))  # type: ignore[method-assign]
        await at.back()
        world.clock.pass_seconds(10)
        await at.hold()
        # LND's own, and ours.
        assert len(await at.read()) == 2


async def test_who_is_connected_when_the_sidecar_starts_gets_its_mail() -> None:
    """What was not proven before the end is handed over again."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        await at.read()
        world.restart_mailroom()
        await world.settled()
        assert len(await at.read()) == 1
        assert at.woken() == 0


async def test_after_lnds_restart_letters_go_out_on_the_new_connection() -> None:
    """LND's stream begins anew with who is there: each of them may have a new connection."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        await at.read()
        world.network.peers.start_anew()
        await world.settled()
        assert len(await at.read()) == 1


async def test_letters_for_an_earlier_node_of_a_client_do_not_hold_up_its_new_one() -> None:
    """They are wrapped for the earlier node's key: the new one gets what is its own, and nothing else."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold(content=b"for the old one")
        ((client, _),) = await world.store.list_clients()
        new = world.payer()
        await world.bindings.bind(client.client_id, new.node_id, BoundBy.OPERATOR)
        await new.link.close()
        await at.payer.send_along(new.path_to_self(b"any"), HELD_HTLC_AVAILABLE, b"for the new one")
        await world.settled()
        new.link = world.network.connect(new.node_id)
        await world.settled()
        assert world.network.waiting(new.node_id) == 1
        assert (await new.receive()).payload.content == b"for the new one"


async def test_a_letter_that_a_new_connection_took_along_goes_out_once() -> None:
    """The wallet connects while its letter is being kept: it goes out with all others, and not again."""
    async with World(native=False) as world:
        at = await scene(world)
        await at.away()
        keep = world.store.keep

        async def keep_and_connect(*args: Any) -> Kept:
            kept = await keep(*args)
            at.wallet.link = world.network.connect(at.wallet.node_id)
            await world._mail_settled()
            return kept

        world.store.keep = keep_and_connect  # type: ignore[method-assign,assignment]
        await at.hold()
        assert len(await at.read()) == 1


async def test_letters_go_out_no_faster_than_the_wallet_may_answer() -> None:
    """LND takes 64 kB a second from a peer: what a wallet answers to 200 requests at once would be lost."""
    async with World(native=False, answers=deliveries.ANSWERS) as world:
        at = await scene(world)
        await at.away()
        await at.ask(6)
        at.wallet.link = world.network.connect(at.wallet.node_id)
        got = [await at.wallet.receive_invoice_request() for _ in range(3)]
        # What comes meanwhile goes out before the others, as soon as there is room for any.
        await at.payer.send_along(at.held_path(), HELD_HTLC_AVAILABLE, b"")
        for _ in range(50):
            await asyncio.sleep(0)
        assert (world.network.waiting(at.wallet.node_id), world.counters["sent.message"]) == (0, 1)
        world.clock.pass_seconds(deliveries.LARGE_ANSWER / deliveries.ANSWERS.per_second)
        assert (await at.wallet.receive()).payload.content_type == HELD_HTLC_AVAILABLE
        for _ in range(3):
            world.clock.pass_seconds(deliveries.LARGE_ANSWER / deliveries.ANSWERS.per_second)
            got.append(await at.wallet.receive_invoice_request())
        assert len(got) == 6


@pytest.mark.parametrize("told", [True, False], ids=["left and came", "came twice"])
async def test_a_delivery_ends_with_its_connection(told: bool) -> None:
    """The next connection gets all letters once: nothing is left over of the one before."""
    async with World(native=False, answers=deliveries.ANSWERS) as world:
        at = await scene(world)
        await at.away()
        await at.ask(6)
        at.wallet.link = world.network.connect(at.wallet.node_id)
        for _ in range(3):
            await at.wallet.receive_invoice_request()
        if told:
            await at.wallet.link.close()
        at.wallet.link = world.network.connect(at.wallet.node_id)
        for _ in range(6):
            world.clock.pass_seconds(1)
            await at.wallet.receive_invoice_request()
        world.clock.pass_seconds(60)
        await world.settled()
        assert world.network.waiting(at.wallet.node_id) == 0


@pytest.mark.parametrize("error", [LndUnavailable("away"), LndDenied("another macaroon")])
async def test_an_lnd_that_refuses_for_a_while_ends_nothing(
    error: SidecarError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LND away, or its macaroon being replaced: what is kept stays kept, and goes out afterwards."""
    monkeypatch.setattr("sidecar.mailroom.LOOK_EVERY", 0)
    async with World(native=False) as world:
        at = await scene(world)
        await at.hold(content=b"held")
        assert len(await at.read()) == 1
        world.network.peers.error = world.network.send_error = error
        await at.back()
        assert world.counters[f"mail.undelivered.{error.reason}"] == 1
        for _ in range(20):
            await asyncio.sleep(0)
        world.network.peers.error = world.network.send_error = None
        await at.back()
        assert len(await at.read()) == 1
        assert await at.letters() == 1


async def test_a_mailbox_that_can_not_be_read_is_read_again() -> None:
    """The wallet comes while the store is away: it gets its letters as soon as the store is back."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold(content=b"held")
        world.store.away = True
        at.wallet.link = world.network.connect(at.wallet.node_id)
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.network.waiting(at.wallet.node_id) == 0
        world.store.away = False
        assert (await at.wallet.receive()).payload.content == b"held"


async def test_a_connection_that_flaps_is_not_sent_everything_each_time() -> None:
    """A mailbox may be 8 MB: after some times in a row what it had before waits, and what is new does not."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        times = 1 + int(deliveries.RATE.burst)
        for _ in range(times):
            await at.back()
            await at.away()
        assert world.counters["mail.delivered"] == times
        at.wallet.link = world.network.connect(at.wallet.node_id)
        for _ in range(20):  # turns of the event loop: more than a delivery takes
            await asyncio.sleep(0)
        assert world.network.waiting(at.wallet.node_id) == 0
        await at.payer.send_along(at.held_path(), HELD_HTLC_AVAILABLE, b"new")
        assert (await at.wallet.receive()).payload.content == b"new"
        world.clock.pass_seconds(1 / deliveries.RATE.per_second)
        assert (await at.wallet.receive()).payload.content == b""


async def test_who_left_while_lnd_was_away_is_not_taken_for_connected() -> None:
    """LND's new stream tells who is there: the others are not, though no event said so."""
    async with World() as world:
        at = await scene(world)
        world.network._links.pop(at.wallet.node_id)
        world.network.peers.received.pop(at.wallet.node_id)
        world.network.peers.start_anew()
        await world.settled()
        await at.hold()
        assert at.woken() == 1


async def test_a_loop_of_paths_never_reaches_the_mailbox() -> None:
    """A message for LND or for the sidecar itself is no client's."""
    async with World(native=False) as world:
        at = await scene(world)
        loop = paths.build(
            os.urandom(32),
            [
                (world.lnd_node_id, paths.next_hop_data(world.lnd_node_id)),
                (world.lnd_node_id, paths.path_id_data(b"")),
            ],
        )
        await at.payer.send_along(loop, HELD_HTLC_AVAILABLE, b"")
        await world.settled()
        assert world.counters["dropped.not-for-us"] == 1
