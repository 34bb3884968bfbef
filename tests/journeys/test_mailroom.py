"""The mailbox at work: what is for a client's node is kept, handed over again, and let go with proof."""

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import pytest

from sidecar import deliveries
from sidecar.core import messages, paths
from sidecar.core.mailbox import SENDER_OVERHEAD, Kept
from sidecar.core.model import BoundBy
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.core.webhooks import ONION_MESSAGE_INCOMING
from sidecar.mailroom import FRESH_MS, NEWS_MS, WAKES_WITHOUT_NEWS, MailroomSettings
from tests.harness.fakes import MAIL, World
from tests.harness.payer import Payer
from tests.harness.wallet import Wallet

HELD_HTLC_AVAILABLE = 72
MODES = pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])


@dataclass
class Scene:
    """A wallet that is known and has an offer, and a payer."""

    world: World
    wallet: Wallet
    payer: Payer
    offer: Offer

    def held_path(self) -> BlindedPath:
        """The path for held_htlc_available that the wallet's invoice carries: LND, then the wallet."""
        return self.wallet.path_to_self(b"held htlc")

    async def hold(self, sender: Payer | None = None, content: bytes = b"") -> None:
        """A payer says that its HTLC is held."""
        await (sender or self.payer).send_along(self.held_path(), HELD_HTLC_AVAILABLE, content)
        await self.world.settled()

    async def away(self) -> None:
        """The wallet goes offline."""
        await self.wallet.link.close()
        await self.world.settled()
        self.world.notifier.notified.clear()

    async def back(self) -> None:
        """The wallet connects."""
        self.wallet.link = self.world.network.connect(self.wallet.node_id)
        await self.world.settled()

    async def read(self) -> list[tuple[int | None, bytes]]:
        """Content types and contents that the wallet has got and not read."""
        got = []
        for _ in range(self.world.network.waiting(self.wallet.node_id)):
            payload = (await self.wallet.receive()).payload
            got.append((payload.content_type, payload.content))
        return got

    async def letters(self) -> int:
        """Letters in the client's mailbox."""
        ((client, _),) = await self.world.store.list_clients()
        return len(await self.world.store.mail(client.client_id))

    def woken(self) -> int:
        """How often the wallet was woken."""
        assert set(self.world.notifier.notified) <= {(self.wallet.node_id, ONION_MESSAGE_INCOMING)}
        return len(self.world.notifier.notified)

    async def prove_life(self) -> None:
        """Time passes, and the wallet sends bytes all along."""
        for _ in range(5):
            self.world.clock.pass_seconds(10)
            self.world.network.peers.received[self.wallet.node_id] += 100
            await self.world.mailroom.look()


async def scene(world: World) -> Scene:
    """All is set up, long ago, with nothing in the mailbox."""
    wallet, payer = await world.wallet(), world.payer()
    offer, _, _ = await world.offer(wallet)
    await world.settled()
    world.clock.pass_seconds(60)
    return Scene(world, wallet, payer, offer)


@MODES
async def test_a_sleeping_wallet_is_woken_and_finds_the_request(native: bool) -> None:
    """The invoice_request waits, the wallet is told that something does, and gets it as it connects."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.away()
        await at.payer.send_request(at.offer)
        await at.payer.receive_answer(at.offer)
        await world.settled()
        assert (at.woken(), await at.letters()) == (1, 1)
        await at.back()
        await at.wallet.receive_invoice_request()
        assert world.counters["kept.invoice_request"] == 1
        assert world.notifier.came[-1] == at.wallet.node_id


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
async def test_letters_are_handed_over_in_order(native: bool) -> None:
    """As they came, requests and others' messages alike."""
    async with World(native=native) as world:
        at = await scene(world)
        await at.away()
        for number in range(3):
            await at.hold(content=bytes([number]))
        await at.payer.send_request(at.offer)
        await world.settled()
        await at.hold(content=b"\x03")
        await at.back()
        types = [content_type for content_type, _ in await at.read()]
        assert types == [72, 72, 72, messages.INVOICE_REQUEST, 72]


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


async def test_a_suspended_phone_is_woken_though_it_seems_connected() -> None:
    """No byte for 20 s after a message: it is told by its push service, once for each sleep."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        assert at.woken() == 0
        for _ in range(6):
            world.clock.pass_seconds(10)
            await world.mailroom.look()
        assert at.woken() == 1
        await at.hold(content=b"another")
        assert at.woken() == 2


async def test_a_wallet_that_pings_is_not_woken() -> None:
    """LDK pings every 10 s: its life shows."""
    async with World() as world:
        at = await scene(world)
        for number in range(3):
            await at.hold(content=bytes([number]))
            await at.prove_life()
        assert at.woken() == 0


async def test_what_a_connection_swallowed_wakes_when_it_breaks() -> None:
    """LND drops a peer that was dead all along: what was written to it is lost, and waits here."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        await at.wallet.link.close()
        await world.settled()
        assert at.woken() == 1


async def test_a_wallet_that_showed_life_and_left_is_let_sleep() -> None:
    """It was here, it has seen its messages: waking it again would never end."""
    async with World() as world:
        at = await scene(world)
        await at.hold()
        world.network.peers.received[at.wallet.node_id] = 1
        await world.mailroom.look()
        world.clock.pass_seconds(10)
        world.network.peers.received[at.wallet.node_id] = 2
        await world.mailroom.look()
        await at.wallet.link.close()
        await world.settled()
        assert at.woken() == 0


async def test_a_wallet_that_connects_for_moments_is_not_woken_for_ever() -> None:
    """Without new letters a few wake-ups are enough; new ones start the count anew."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        for _ in range(WAKES_WITHOUT_NEWS + 3):
            world.clock.pass_seconds(3_600)
            await at.back()
            await at.wallet.link.close()
            await world.settled()
        assert at.woken() == 1 + WAKES_WITHOUT_NEWS
        await at.hold(content=b"news")
        assert at.woken() == 2 + WAKES_WITHOUT_NEWS
        world.clock.pass_seconds(3_600)
        await at.back()
        await at.wallet.link.close()
        await world.settled()
        assert at.woken() == 3 + WAKES_WITHOUT_NEWS


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
        for _ in range(MAIL.letters + 10):
            await at.payer.send_request(at.offer)
            await world.settled()
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
        assert [(await at.wallet.receive()).payload.content for _ in range(2)] == [b"\0", b"\1"]
        world.store.away = False
        async with asyncio.timeout(10):
            while world.counters["mail.kept"] < 2:  # noqa: ASYNC110 - a counter tells nobody
                await asyncio.sleep(0.01)
        assert (await at.letters(), await at.read()) == (2, [])
        await at.back()
        assert [content for _, content in await at.read()] == [b"\0", b"\1"]
        await at.prove_life()
        assert await at.letters() == 0


async def test_a_letter_does_not_overtake_those_in_memory() -> None:
    """The store is back before the memory is emptied: what comes then goes behind what waits there."""
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
        assert got == [b"first", b"second"]
        ((client, _),) = await world.store.list_clients()
        letters = [letter for _, letter in await world.store.mail(client.client_id)]
        opened = [at.wallet.open(letter.path_key, letter.onion).payload.content for letter in letters]
        assert opened == [b"first", b"second"]


async def test_memory_is_bounded_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is dropped and counted; what was there first stays."""
    monkeypatch.setattr("sidecar.mailroom.MEMORY_BYTES", 3_000)
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
        world.mailroom._settings = MailroomSettings(MAIL, total_bytes=0)
        await at.hold(content=b"held")
        assert await at.read() == [(HELD_HTLC_AVAILABLE, b"held")]
        assert world.counters["mail.dropped.mailbox-full"] == 1


async def test_a_letter_without_a_place_is_not_left_to_a_delivery() -> None:
    """While a mailbox is handed over, what could not be kept goes out by itself: it is nowhere else."""
    async with World(native=False, answers=deliveries.ANSWERS) as world:
        at = await scene(world)
        await at.away()
        for _ in range(6):
            await at.payer.send_request(at.offer)
            await world.settled()
        at.wallet.link = world.network.connect(at.wallet.node_id)
        for _ in range(3):
            await at.wallet.receive_invoice_request()
        world.mailroom._settings = MailroomSettings(MAIL, total_bytes=0)
        await at.payer.send_along(at.held_path(), HELD_HTLC_AVAILABLE, b"held")
        assert (await at.wallet.receive()).payload.content == b"held"


async def test_a_full_mailbox_wakes_all_the_same() -> None:
    """The letter is lost, and the next one would be too: the wallet is told, and empties it."""
    async with World() as world:
        at = await scene(world)
        world.mailroom._settings = MailroomSettings(MAIL, total_bytes=0)
        await at.away()
        await at.hold()
        assert (await at.letters(), at.woken(), world.counters["lost.message"]) == (0, 1, 1)


async def test_after_a_restart_whoever_has_fresh_mail_is_woken() -> None:
    """The wake-up may have been lost with the process; mail that is old wakes nobody anew."""
    for age_ms, woken in ((NEWS_MS - 1_000, 1), (NEWS_MS + 1_000, 0)):
        async with World() as world:
            at = await scene(world)
            await at.away()
            await at.hold()
            world.notifier.notified.clear()
            world.clock.pass_seconds(age_ms / 1000)
            world.restart_mailroom()
            await world.settled()
            assert at.woken() == woken
            await at.back()
            assert len(await at.read()) == 1


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
        for _ in range(6):
            await at.payer.send_request(at.offer)
            await world.settled()
        at.wallet.link = world.network.connect(at.wallet.node_id)
        got = [await at.wallet.receive_invoice_request() for _ in range(3)]
        # What comes meanwhile goes out behind the others.
        await at.payer.send_along(at.held_path(), HELD_HTLC_AVAILABLE, b"")
        for _ in range(50):
            await asyncio.sleep(0)
        assert (world.network.waiting(at.wallet.node_id), world.counters["sent.message"]) == (0, 1)
        for _ in range(3):
            world.clock.pass_seconds(deliveries.LARGE_ANSWER / deliveries.ANSWERS.per_second)
            got.append(await at.wallet.receive_invoice_request())
        assert len(got) == 6
        world.clock.pass_seconds(1)
        assert (await at.wallet.receive()).payload.content_type == HELD_HTLC_AVAILABLE


@pytest.mark.parametrize("told", [True, False], ids=["left and came", "came twice"])
async def test_a_delivery_ends_with_its_connection(told: bool) -> None:
    """The next connection gets all letters once: nothing is left over of the one before."""
    async with World(native=False, answers=deliveries.ANSWERS) as world:
        at = await scene(world)
        await at.away()
        for _ in range(6):
            await at.payer.send_request(at.offer)
            await world.settled()
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
    """All of a mailbox may be 8 MB: after some times in a row, the next one waits for a while."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        times = int(deliveries.RATE.burst)
        for _ in range(times):
            await at.back()
            await at.away()
        assert world.counters["mail.delivered"] == times
        at.wallet.link = world.network.connect(at.wallet.node_id)
        for _ in range(20):  # turns of the event loop: more than a delivery takes
            await asyncio.sleep(0)
        assert world.network.waiting(at.wallet.node_id) == 0
        world.clock.pass_seconds(1 / deliveries.RATE.per_second)
        await at.wallet.receive()


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


async def test_all_mailboxes_share_one_bound() -> None:
    """What has arrived makes room again; beyond the bound nothing is kept, and that is counted."""
    async with World() as world:
        at = await scene(world)
        size = 1_366 + SENDER_OVERHEAD
        world.mailroom._settings = MailroomSettings(MAIL, total_bytes=2 * size)
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
        assert world.mailroom._bytes == 0


async def test_mail_that_has_waited_its_time_is_gone() -> None:
    """After the TTL (7 days, as long as an LDK payer waits) nobody waits for an answer any more."""
    async with World() as world:
        at = await scene(world)
        await at.away()
        await at.hold()
        world.clock.pass_seconds(MAIL.ttl + 1)
        await at.back()
        assert await at.read() == []


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
