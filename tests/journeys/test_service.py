"""The whole story in memory: the sidecar between an LND in process, wallets and payers (bLIP 66)."""

import os

import pytest

from sidecar.core import offers
from sidecar.core.errors import StoreUnavailable
from sidecar.core.model import Family
from sidecar.core.wire import decode_tlvs
from tests.harness.fakes import DAY, behind, peel_hop
from tests.harness.payer import InvoiceErrorReceived, make_invoice_request
from tests.harness.world import World

NATIVE = pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])


@NATIVE
@pytest.mark.parametrize("family", Family)
async def test_wallet_leaves_an_invoice_and_payer_gets_it_and_wallet_the_request(
    family: Family, native: bool
) -> None:
    """The flow of bLIP 66's "Overview", 2 to 7, in both families and both of LND's modes."""
    async with World(native=native) as world:
        wallet, payer = await world.wallet(family=family), world.payer()
        offer, _, invoice = await world.offer(wallet)
        reply_path = payer.path_to_self(b"payer")
        request = await payer.send_request(offer, reply_path=reply_path)
        answer = await payer.receive_answer(offer)
        assert answer.records == decode_tlvs(invoice)
        forwarded = await wallet.receive_invoice_request()
        assert forwarded.payload.content == request
        assert forwarded.payload.reply_path == reply_path
        await world.assert_silence(wallet, payer)
        assert world.counters == {
            "received": 3,
            "sent.offer_paths": 1,
            "stored": 1,
            "bound": 1,
            "sent.static_invoice_persisted": 1,
            "mail.kept": 1,
            "mail.sent": 1,
            "sent.invoice_request": 1,
            "sent.static_invoice": 1,
        }


async def test_wallet_that_is_offline_costs_the_payer_nothing() -> None:
    """The invoice is served "even if the recipient is offline" (bLIP 66 "Motivation")."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, invoice = await world.offer(wallet)
        await wallet.link.close()
        await payer.send_request(offer)
        assert (await payer.receive_answer(offer)).records == decode_tlvs(invoice)
        await world.settled()
        assert world.counters["kept.invoice_request"] == 1
        assert world.counters["sent.static_invoice"] == 1
        assert world.counters["sent.invoice_request"] == 0


async def test_each_slot_serves_its_own_invoice() -> None:
    """The offer path's data identifies the invoice uniquely (bLIP 66 "Senders of `offer_paths`")."""
    async with World() as world:
        alice, bob, payer = await world.wallet("alice"), await world.wallet("bob"), world.payer()
        kept = [await world.offer(wallet, slot) for wallet in (alice, bob) for slot in (0, 1)]
        for offer, _, invoice in kept:
            await payer.send_request(offer)
            assert (await payer.receive_answer(offer)).records == decode_tlvs(invoice)
        await world.settled()
        assert (world.network.waiting(alice.node_id), world.network.waiting(bob.node_id)) == (2, 2)


# --- Redis fails ----------------------------------------------------------------------------------


async def test_invoice_that_was_not_kept_is_not_acknowledged() -> None:
    """Acknowledge once "confirmed as persisted" (bLIP 66 "Senders of `static_invoice_persisted`")."""
    async with World() as world:
        wallet = await world.wallet()
        await wallet.ask_offer_paths(0)
        issued = await wallet.receive_offer_paths()
        invoice = wallet.make_invoice(wallet.make_offer(issued))
        world.store.save_error = StoreUnavailable("no disk")
        await wallet.leave_invoice(issued, invoice)
        await world.assert_silence(wallet)
        assert world.counters == {
            "received": 2,
            "sent.offer_paths": 1,
            "dropped.store-unavailable": 1,
        }
        # The wallet tries again each minute.
        world.store.save_error = None
        await wallet.leave_invoice(issued, invoice)
        await wallet.receive_persisted()


async def test_store_that_is_away_means_silence_and_a_repeat_is_answered_and_forwarded() -> None:
    """For what may pass there is no invoice_error: an LDK payer would give up at once (design)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        world.store.load_error = StoreUnavailable("restarting")
        request = await payer.send_request(offer)
        await world.assert_silence(wallet, payer)
        assert world.counters["dropped.store-unavailable"] == 1
        world.store.load_error = None
        await payer.send_request(offer, request)
        await payer.receive_answer(offer)
        await wallet.receive_invoice_request()


async def test_request_that_came_before_the_invoice_is_answered_and_forwarded_when_repeated() -> None:
    """What was met with silence was neither answered nor forwarded, so its repeat still is."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        await wallet.ask_offer_paths(0)
        issued = await wallet.receive_offer_paths()
        records = wallet.make_offer(issued)
        offer = offers.read_offer_fields(records)
        request = await payer.send_request(offer)
        await world.assert_silence(wallet, payer)
        assert world.counters["dropped.no-invoice-yet"] == 1
        await wallet.leave_invoice(issued, wallet.make_invoice(records))
        await wallet.receive_persisted()
        await payer.send_request(offer, request)
        await payer.receive_answer(offer)
        await wallet.receive_invoice_request()


# --- updates and replays --------------------------------------------------------------------------


async def test_wallet_may_leave_its_invoice_again_and_again_and_the_last_one_is_served() -> None:
    """Recipients "SHOULD replace that invoice" and "SHOULD update the persisted invoice" (bLIP 66)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        now = world.clock.ms // 1000
        for created_at in (now, now, now + 60):
            invoice = wallet.make_invoice(dict(offer.records), created_at=created_at)
            await wallet.leave_invoice(issued, invoice)
            await wallet.receive_persisted()
        await payer.send_request(offer)
        assert (await payer.receive_answer(offer)).records == decode_tlvs(invoice)


async def test_replayed_older_invoice_of_the_same_offer_never_replaces() -> None:
    """Onion packets can be replayed by whoever recorded them: created_at decides (design, offer tag)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, older = await world.offer(wallet)
        created_at = world.clock.ms // 1000 + 60
        world.clock.pass_seconds(60)
        newer = wallet.make_invoice(dict(offer.records), created_at=created_at)
        await wallet.leave_invoice(issued, newer)
        await wallet.receive_persisted()
        await wallet.leave_invoice(issued, older)
        await world.assert_silence(wallet)
        assert world.counters["dropped.stale-invoice"] == 1
        await payer.send_request(offer)
        assert (await payer.receive_answer(offer)).records == decode_tlvs(newer)


async def test_replayed_invoice_of_an_older_offer_never_replaces_and_its_payers_get_invoice_error() -> None:
    """An older tag is refused; a payer over the older offer never gets the newer's invoice (design)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        older, older_issued, older_invoice = await world.offer(wallet)
        world.clock.pass_seconds(5)
        newer, _, newer_invoice = await world.offer(wallet)
        await wallet.leave_invoice(older_issued, older_invoice)
        await world.assert_silence(wallet)
        assert world.counters["dropped.stale-offer"] == 1
        await payer.send_request(older)
        with pytest.raises(InvoiceErrorReceived, match="replaced"):
            await payer.receive_answer(older)
        await payer.send_request(newer)
        assert (await payer.receive_answer(newer)).records == decode_tlvs(newer_invoice)


async def test_wallet_is_not_locked_out_by_a_clock_that_was_stepped_and_corrected() -> None:
    """A tag's issue time is max(now, last + 1), so a slot goes on with a clock put right (design)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        world.clock.pass_seconds(40 * DAY)
        await wallet.ask_offer_paths(0)
        issued = await wallet.receive_offer_paths()
        created_at = world.clock.ms // 1000
        await wallet.leave_invoice(
            issued, wallet.make_invoice(wallet.make_offer(issued), created_at=created_at)
        )
        await wallet.receive_persisted()
        world.clock.pass_seconds(-40 * DAY)
        offer, _, invoice = await world.offer(wallet)
        await payer.send_request(offer)
        assert (await payer.receive_answer(offer)).records == decode_tlvs(invoice)


async def test_invoice_over_a_quota_is_refused_and_the_older_one_served() -> None:
    """Recipients "SHOULD limit the amount of storage" of a client (bLIP 66); refused is not acknowledged."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        small = await world.client("bob", size=2_000)
        wallet.request_path = world.server.request_path(small, os.urandom)
        offer, issued, invoice = await world.offer(wallet)
        wallet.forward_path = wallet.path_to_self(b"forwarded invoice_request", dummy_hops=12)
        await wallet.leave_invoice(issued, wallet.make_invoice(dict(offer.records)))
        await world.assert_silence(wallet)
        assert world.counters["dropped.quota-exceeded"] == 1
        await payer.send_request(offer)
        assert (await payer.receive_answer(offer)).records == decode_tlvs(invoice)


# --- revoked, removed, rotated, expired -----------------------------------------------------------


@pytest.mark.parametrize("how", ["revoke", "remove"])
async def test_client_that_was_let_go_hears_nothing_and_its_payers_get_invoice_error(how: str) -> None:
    """After `client revoke` no invoice is served: payers get invoice_error, the wallet silence (issue)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        client = await world.store.find_client("alice")
        if how == "revoke":
            await world.store.revoke_client(client.client_id)
        else:
            await world.store.remove_client(client.client_id)
        await payer.send_request(offer)
        with pytest.raises(InvoiceErrorReceived, match="not served any more"):
            await payer.receive_answer(offer)
        await wallet.ask_offer_paths(1)
        await wallet.leave_invoice(issued, invoice)
        await world.assert_silence(wallet, payer)
        reason = {"revoke": "client-revoked", "remove": "unknown-client"}[how]
        assert world.counters[f"dropped.{reason}"] == 2


async def test_rotation_silences_the_old_request_path_and_leaves_offers_alone() -> None:
    """`client rotate` makes older request paths silent; the new one and the offers work (design)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, issued, invoice = await world.offer(wallet)
        client = await world.store.find_client("alice")
        rotated = await world.store.rotate_client(client.client_id)
        await wallet.ask_offer_paths(1)
        await world.assert_silence(wallet)
        assert world.counters["dropped.old-generation"] == 1
        await wallet.leave_invoice(issued, invoice)
        await wallet.receive_persisted()
        await payer.send_request(offer)
        await payer.receive_answer(offer)
        await wallet.receive_invoice_request()
        wallet.request_path = world.server.request_path(rotated, os.urandom)
        await wallet.ask_offer_paths(1)
        assert (await wallet.receive_offer_paths()).slot == 1


@pytest.mark.parametrize(
    "what", ["the paths", "the offer before its paths", "the invoice, gone from the store"]
)
async def test_payer_of_an_expired_offer_gets_invoice_error(what: str) -> None:
    """Offer expired: invoice_error (issue); nobody else hears of it."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        await wallet.ask_offer_paths(0)
        issued = await wallet.receive_offer_paths()
        now = world.clock.ms // 1000
        extra = {offers.OFFER_ABSOLUTE_EXPIRY: (now + DAY).to_bytes(4, "big")} if "offer" in what else {}
        records = wallet.make_offer(issued, extra)
        expiry = DAY if "invoice" in what else 500 * DAY
        await wallet.leave_invoice(issued, wallet.make_invoice(records, now, relative_expiry=expiry))
        await wallet.receive_persisted()
        world.clock.pass_seconds(365 * DAY if what == "the paths" else DAY)
        offer = offers.read_offer_fields(records)
        await payer.send_request(offer)
        with pytest.raises(InvoiceErrorReceived, match="expired"):
            await payer.receive_answer(offer)
        await world.assert_silence(wallet, payer)


async def test_slot_beyond_the_clients_is_met_with_silence_and_counted() -> None:
    """Slot ≥ the client's slots: silence, counted (issue)."""
    async with World() as world:
        wallet = await world.wallet(slots=2)
        await wallet.ask_offer_paths(2)
        await world.assert_silence(wallet)
        assert world.counters == {
            "received": 1,
            "dropped.slot-out-of-range": 1,
            "refused.slots": 1,
        }


# --- repeats and loops ----------------------------------------------------------------------------


async def test_each_request_is_forwarded_once_and_answered_a_few_times() -> None:
    """Each request is forwarded once, and answers per request are capped: no amplification (design)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        request = make_invoice_request(offer)
        for _ in range(6):
            await payer.send_request(offer, request)
        await world.settled()
        assert world.network.waiting(wallet.node_id) == 1
        assert world.network.waiting(payer.node_id) == 3
        assert world.counters["dropped.repeated"] == 3
        # Another request of the same offer is not touched by it.
        await payer.send_request(offer)
        await world.settled()
        assert (world.network.waiting(wallet.node_id), world.network.waiting(payer.node_id)) == (2, 4)


async def test_request_that_is_repeated_later_is_forwarded_again() -> None:
    """At most once in N seconds: a payer that comes back later may find the wallet online (design)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        request = make_invoice_request(offer)
        for waited in (0, 59, 2):
            world.clock.pass_seconds(waited)
            await payer.send_request(offer, request)
            await world.settled()
        assert world.network.waiting(wallet.node_id) == 2


async def test_forward_path_through_a_neighbour_back_to_the_offer_ends_after_one_lap() -> None:
    """A client could point its forward path back at its own offer and make a loop (design, section 3)."""
    async with World() as world:
        wallet, payer, neighbour = await world.wallet(), world.payer(), world.payer()
        await wallet.ask_offer_paths(0)
        issued = await wallet.receive_offer_paths()
        wallet.forward_path = behind(neighbour.node_id, issued.message.paths[0])
        records = wallet.make_offer(issued)
        await wallet.leave_invoice(issued, wallet.make_invoice(records))
        await wallet.receive_persisted()
        offer = offers.read_offer_fields(records)
        await payer.send_request(offer)
        await payer.receive_answer(offer)
        path_key, packet = await neighbour.link.receive_onion()
        hop, packet, _ = peel_hop(neighbour.secret, path_key, packet)
        assert hop.node_id == world.lnd_node_id
        await neighbour.link.send_onion(hop.path_key, packet)
        await payer.receive_answer(offer)
        await world.assert_silence(wallet, neighbour, payer)
        assert world.counters["sent.invoice_request"] == 1
