"""Where messages go: every shape of reply and forward path, neighbours, dialling, other people's onions."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.core import keys, messages, paths
from sidecar.core.paths import BlindedPath, SciddirIntroduction
from sidecar.core.wire import encode_tlvs
from sidecar.courier import MAX_HOPS_AT_LND, MAX_RELAYS
from sidecar.service import PEER_RATE
from tests.harness.fakes import peel_hop
from tests.harness.node import Node
from tests.harness.payer import Payer
from tests.harness.wallet import Wallet
from tests.harness.world import World

SCID = (840_000 << 40) + (7 << 16) + 1
ALIAS = (16_000_000 << 40) + 5


def by_scid(world: World, node: Node, path_id: bytes, scid: int) -> BlindedPath:
    """[LND, node], with the node named by a channel of LND's, as LDK's compact paths do."""
    data = encode_tlvs({paths.SHORT_CHANNEL_ID: scid.to_bytes(8, "big")})
    hops = [(world.lnd_node_id, data), (node.node_id, paths.path_id_data(path_id))]
    return paths.build(os.urandom(32), hops)


def over_scid(world: World, node: Node, path_id: bytes, scid: int) -> BlindedPath:
    """`by_scid`, and LND knows the channel."""
    world.graph.scids[scid] = node.node_id
    return by_scid(world, node, path_id, scid)


def sciddir(world: World, path: BlindedPath, scid: int, direction: int) -> BlindedPath:
    """The path with its introduction node named as one end of a channel that the graph knows."""
    assert isinstance(path.introduction_node, bytes)
    world.graph.sciddirs[scid, direction] = path.introduction_node
    world.graph.sciddirs[scid, 1 - direction] = b"\x02" * 33
    return replace(path, introduction_node=SciddirIntroduction(direction, scid))


def past_lnd_times(world: World, node: Node, path_id: bytes, times: int) -> BlindedPath:
    """LND several times before the node."""
    hops = [(world.lnd_node_id, paths.next_hop_data(world.lnd_node_id))] * (times - 1)
    hops.append((world.lnd_node_id, paths.next_hop_data(node.node_id)))
    return paths.build(os.urandom(32), [*hops, (node.node_id, paths.path_id_data(path_id))])


Shape = Callable[[World, Node, bytes], BlindedPath]
SHAPES: dict[str, Shape] = {
    "starts at the node": lambda _, node, name: node.path_to_self(name, through_lnd=False),
    "starts at LND": lambda _, node, name: node.path_to_self(name),
    "dummy hops": lambda _, node, name: node.path_to_self(name, through_lnd=False, dummy_hops=3),
    "LND and dummy hops": lambda _, node, name: node.path_to_self(name, dummy_hops=9),
    "sciddir of the node": lambda world, node, name: sciddir(
        world, node.path_to_self(name, through_lnd=False), SCID, 1
    ),
    "sciddir of LND": lambda world, node, name: sciddir(world, node.path_to_self(name), SCID, 0),
    "next hop by scid": lambda world, node, name: over_scid(world, node, name, SCID),
    "next hop by alias": lambda world, node, name: over_scid(world, node, name, ALIAS),
    "sciddir of LND, next hop by alias": lambda world, node, name: sciddir(
        world, over_scid(world, node, name, ALIAS), SCID, 1
    ),
    "LND as often as may be": lambda world, node, name: past_lnd_times(world, node, name, MAX_HOPS_AT_LND),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_payer_is_answered_over_a_reply_path_of_any_shape(shape: str) -> None:
    """A blinded path may start anywhere and name nodes by id or channel (BOLT 4 "Route Blinding")."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        reply_path = SHAPES[shape](world, payer, b"payer")
        await payer.send_request(offer, reply_path=reply_path)
        await payer.receive_answer(offer)
        # The wallet gets the payer's path as it was.
        assert (await wallet.receive_invoice_request()).payload.reply_path == reply_path


@pytest.mark.parametrize("shape", SHAPES)
async def test_forward_path_of_any_shape_is_resolved_once_when_it_is_stored(shape: str) -> None:
    """LND's own hop of a stored forward path is opened when it is stored (design, section 3)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        wallet.forward_path = SHAPES[shape](world, wallet, b"forwarded invoice_request")
        offer, _, _ = await world.offer(wallet)
        client = await world.store.find_client("alice")
        (stored,) = await world.store.invoices(client.client_id)
        assert paths.decode_path(stored.forward_path).introduction_node == wallet.node_id
        world.graph.scids.clear()
        world.graph.sciddirs.clear()
        await payer.send_request(offer)
        await wallet.receive_invoice_request()


@pytest.mark.parametrize("shape", SHAPES)
async def test_wallet_is_answered_over_a_reply_path_of_any_shape(shape: str) -> None:
    """A wallet's own reply paths are just such blinded paths (bLIP 66, "MUST set `reply_path`")."""
    async with World() as world:
        wallet = await world.wallet()
        request = messages.encode(messages.OfferPathsRequest(0), wallet.family)
        await wallet.send_along(wallet.request_path, *request, SHAPES[shape](world, wallet, b"slot\0"))
        assert (await wallet.receive_offer_paths()).slot == 0


@pytest.mark.parametrize("shape", ["scid", "sciddir"])
async def test_reply_path_over_an_unknown_channel_is_counted_and_the_wallet_still_hears(shape: str) -> None:
    """A `Send` that fails is counted, and the list of effects goes on (design, section 7)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        reply_path = by_scid(world, payer, b"payer", SCID)
        if shape == "sciddir":
            reply_path = replace(payer.path_to_self(b"payer"), introduction_node=SciddirIntroduction(0, SCID))
        await payer.send_request(offer, reply_path=reply_path)
        await wallet.receive_invoice_request()
        await world.assert_silence(payer)
        assert world.counters["unsent.static_invoice.unknown-scid"] == 1


# --- first hop not connected ----------------------------------------------------------------------


class Scene:
    """A wallet's offer, a payer who asks, and somebody not connected to whom the answer shall go."""

    def __init__(self, world: World, wallet: Wallet, payer: Payer) -> None:
        self.world, self.wallet, self.payer = world, wallet, payer
        secret = os.urandom(32)
        self.target = Payer(secret, payer.link, world.lnd_node_id)

    async def ask(self, *, through_lnd: bool = True) -> bytes:
        """Ask for the invoice, to be sent to the target; its bytes."""
        offer, _, invoice = await self.world.offer(self.wallet)
        reply_path = self.target.path_to_self(b"target", through_lnd=through_lnd)
        await self.payer.send_request(offer, reply_path=reply_path)
        await self.world.settled()
        return invoice


async def scene(world: World) -> Scene:
    """Set it up."""
    return Scene(world, await world.wallet(), world.payer())


@pytest.mark.parametrize("through_lnd", [True, False], ids=["path from LND", "path from the target"])
async def test_answer_goes_through_a_neighbour_where_the_first_hop_is_not_connected(
    through_lnd: bool,
) -> None:
    """One more hop, blinded by ourselves, joined by next_path_key_override (BOLT 4; design, section 3)."""
    async with World() as world:
        at = await scene(world)
        relay = world.payer()
        world.graph.relays[at.target.node_id] = [relay.node_id]
        world.graph.reachable.add(at.target.node_id)
        invoice = await at.ask(through_lnd=through_lnd)
        hop, packet, _ = peel_hop(relay.secret, *await relay.link.receive_onion())
        assert hop.node_id == at.target.node_id
        arrived = at.target.open(hop.path_key, packet)
        assert (arrived.path_id, arrived.payload.content) == (b"target", invoice)
        assert world.graph.dialled == []


async def test_forwarded_request_goes_through_a_neighbour_too() -> None:
    """A wallet need not be our peer: its request goes by a neighbour of it (bLIP 66 "Rationale")."""
    async with World() as world:
        at = await scene(world)
        relay = world.payer()
        world.graph.relays[at.wallet.node_id] = [relay.node_id]
        # Announced, and so no phone whose mail is kept.
        world.graph.announced.add(at.wallet.node_id)
        offer, _, _ = await world.offer(at.wallet)
        await at.wallet.link.close()
        request = await at.payer.send_request(offer)
        hop, packet, _ = peel_hop(relay.secret, *await relay.link.receive_onion())
        assert hop.node_id == at.wallet.node_id
        assert at.wallet.open(hop.path_key, packet).payload.content == request


async def test_neighbour_that_is_gone_is_passed_over() -> None:
    """The next neighbour is tried where one is not connected any more (design, section 3)."""
    async with World() as world:
        at = await scene(world)
        gone, relay = world.payer(), world.payer()
        await gone.link.close()
        world.graph.relays[at.target.node_id] = [gone.node_id, relay.node_id]
        await at.ask()
        assert world.network.waiting(relay.node_id) == 1
        assert world.counters["sent.static_invoice"] == 1


async def test_payer_is_dialled_only_when_no_neighbour_leads_to_it() -> None:
    """Dialling is the last resort, for a verified request (design, section 3)."""
    async with World() as world:
        at = await scene(world)
        gone = [world.payer() for _ in range(MAX_RELAYS)]
        for each in gone:
            await each.link.close()
        spare = world.payer()
        world.graph.relays[at.target.node_id] = [each.node_id for each in [*gone, spare]]
        world.graph.reachable.add(at.target.node_id)
        await at.ask()
        assert world.graph.dialled == [at.target.node_id]
        assert world.network.waiting(at.target.node_id) == 1
        assert world.network.waiting(spare.node_id) == 0


async def test_payer_that_nothing_leads_to_is_counted_as_no_route() -> None:
    """No neighbour, no address: the answer is unsent, and the wallet has the request (design)."""
    async with World() as world:
        at = await scene(world)
        await at.ask()
        assert world.counters["unsent.static_invoice.no-route"] == 1
        assert world.network.waiting(at.wallet.node_id) == 1


async def test_client_is_never_dialled() -> None:
    """A client chose these paths: dialling them would make us call whom it names (design, section 3)."""
    async with World() as world:
        at = await scene(world)
        elsewhere = at.target.path_to_self(b"forwarded invoice_request")
        world.graph.reachable.add(at.target.node_id)
        at.wallet.forward_path = elsewhere
        offer, issued, invoice = await world.offer(at.wallet)
        await at.payer.send_request(offer)
        await at.payer.receive_answer(offer)
        request = messages.encode(messages.OfferPathsRequest(1), at.wallet.family)
        await at.wallet.send_along(at.wallet.request_path, *request, elsewhere)
        left = messages.encode(messages.ServeStaticInvoice(invoice, elsewhere), at.wallet.family)
        await at.wallet.send_along(issued.update_path, *left, elsewhere)
        await world.assert_silence(at.wallet)
        assert world.graph.dialled == []
        for what in ("invoice_request", "offer_paths", "static_invoice_persisted"):
            assert world.counters[f"unsent.{what}.peer-not-connected"] == 1


async def test_slow_dial_keeps_nobody_else_waiting() -> None:
    """Each message is a task of its own: one payer out of reach slows down no other (issue)."""
    async with World() as world:
        at = await scene(world)
        offer, _, _ = await world.offer(at.wallet)
        world.graph.line_is_free.clear()
        await at.payer.send_request(offer, reply_path=at.target.path_to_self(b"target"))
        await at.payer.send_request(offer)
        await at.payer.receive_answer(offer)
        assert world.graph.dialled == [at.target.node_id]
        world.graph.line_is_free.set()
        await world.settled()


# --- paths that lead back -------------------------------------------------------------------------


def ends_at_lnd(world: World) -> BlindedPath:
    """A path of one hop: LND."""
    return paths.build(os.urandom(32), [(world.lnd_node_id, paths.path_id_data(b"end"))])


def ends_at_us(world: World) -> BlindedPath:
    """A path of one hop: our own key."""
    return paths.build(os.urandom(32), [(world.keys.node_id, paths.path_id_data(b"end"))])


LOOPS: dict[str, tuple[Callable[[World, Wallet], BlindedPath], str]] = {
    "our own path": (lambda _, wallet: wallet.request_path, "path-to-self"),
    "our own path, sciddir": (
        lambda world, wallet: sciddir(world, wallet.request_path, 9, 0),
        "path-to-self",
    ),
    "ends at LND": (lambda world, _: ends_at_lnd(world), "path-to-self"),
    "ends at our key": (lambda world, _: ends_at_us(world), "path-to-self"),
    "LND too often": (
        lambda world, wallet: past_lnd_times(world, wallet, b"slot\0", MAX_HOPS_AT_LND + 1),
        "bad-path",
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_forward_path_that_leads_back_to_us_is_refused(loop: str) -> None:
    """A client could make a loop that sends 32 KiB each lap (design, section 3): nothing is stored."""
    async with World() as world:
        wallet = await world.wallet()
        make, reason = LOOPS[loop]
        await wallet.ask_offer_paths(0)
        issued = await wallet.receive_offer_paths()
        wallet.forward_path = make(world, wallet)
        await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
        await world.assert_silence(wallet)
        assert world.counters == {"received": 2, "sent.offer_paths": 1, f"dropped.{reason}": 1}
        assert world.store.calls["save"] == 0


async def test_forward_path_that_is_the_offers_own_path_is_refused() -> None:
    """A forward path back to our own offer path would be a loop (design, section 3)."""
    async with World() as world:
        wallet = await world.wallet()
        await wallet.ask_offer_paths(0)
        issued = await wallet.receive_offer_paths()
        wallet.forward_path = issued.message.paths[0]
        await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
        await world.assert_silence(wallet)
        assert world.counters["dropped.path-to-self"] == 1
        assert world.store.calls["save"] == 0


@pytest.mark.parametrize("loop", LOOPS)
async def test_reply_path_that_leads_back_to_us_is_not_answered(loop: str) -> None:
    """An answer to ourselves would be a loop, or lost in LND (design, section 3)."""
    async with World() as world:
        wallet, payer = await world.wallet(), world.payer()
        make, reason = LOOPS[loop]
        offer, _, _ = await world.offer(wallet)
        await payer.send_request(offer, reply_path=make(world, wallet))
        await world.assert_silence(payer)
        assert world.counters[f"unsent.static_invoice.{reason}"] == 1
        assert world.counters["received"] == 3


# --- other people's messages ----------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])
async def test_other_peoples_message_is_forwarded_just_once(native: bool) -> None:
    """Who advertises bit 39 forwards (BOLT 4): LND ≥ 0.21 by itself, we in custom mode (design)."""
    async with World(native=native) as world:
        one, other = world.payer(), world.payer()
        await one.send_along(other.path_to_self(b"hello"), 64, b"anything")
        arrived = await other.receive()
        assert (arrived.path_id, arrived.payload.content) == (b"hello", b"anything")
        await world.assert_silence(one, other)
        assert world.counters == {"received": 1, ("passed" if native else "forwarded"): 1}


@pytest.mark.parametrize("scid", [SCID, ALIAS])
async def test_message_whose_next_hop_is_a_channel_is_forwarded_in_custom_mode(scid: int) -> None:
    """Next hop by scid or alias: a payer's held_htlc_available comes so (design, section 4)."""
    async with World(native=False) as world:
        one, other = world.payer(), world.payer()
        await one.send_along(over_scid(world, other, b"held", scid), 72, b"")
        assert (await other.receive()).path_id == b"held"


async def test_message_for_a_node_that_is_not_connected_is_dropped_and_nobody_dialled() -> None:
    """Forwarding for strangers is worth no connection (design, section 3)."""
    async with World(native=False) as world:
        one, other = world.payer(), world.payer()
        await other.link.close()
        world.graph.reachable.add(other.node_id)
        await one.send_along(other.path_to_self(b"hello"), 64, b"")
        await one.send_along(by_scid(world, other, b"hello", SCID), 64, b"")
        await world.settled()
        assert world.counters == {"received": 2, "dropped.peer-not-connected": 1, "dropped.unknown-scid": 1}
        assert world.graph.dialled == []


async def test_message_from_lnd_to_itself_is_not_forwarded() -> None:
    """A hop that names LND again would come back to us at once: not for us (design)."""
    async with World(native=False) as world:
        one, other = world.payer(), world.payer()
        await one.send_along(past_lnd_times(world, other, b"hello", 2), 64, b"")
        await world.assert_silence(one, other)
        assert world.counters == {"received": 1, "dropped.not-for-us": 1}


async def test_forwarding_in_custom_mode_is_limited_for_each_peer() -> None:
    """A per-peer limit as LND 0.21 has one: 512 kbps, after a burst."""
    async with World(native=False) as world:
        flooder, quiet, other = world.payer(), world.payer(), world.payer()
        small_packet = 1_366
        most = int(PEER_RATE.burst) // small_packet
        for _ in range(most + 10):
            await flooder.send_along(other.path_to_self(b"flood"), 64, b"")
        await world.settled()
        assert world.counters == {"received": most + 10, "forwarded": most, "dropped.rate-limited": 10}
        await quiet.send_along(other.path_to_self(b"hello"), 64, b"")
        await world.settled()
        assert world.counters["forwarded"] == most + 1
        world.clock.pass_seconds(1)
        await flooder.send_along(other.path_to_self(b"later"), 64, b"")
        await world.settled()
        assert world.counters["forwarded"] == most + 2


async def test_keys_of_a_path_that_we_made_open_nothing_for_its_user() -> None:
    """Neither payer nor client can read or move a path_id: the hops are sealed for us alone (design)."""
    async with World() as world:
        wallet = await world.wallet()
        (_, last) = wallet.request_path.hops
        for secret in (wallet.secret, os.urandom(32)):
            shared = keys.ecdh(secret, wallet.request_path.path_key)
            with pytest.raises(Exception, match="not made with this path_key"):
                paths.decrypt_recipient_data(shared, last.encrypted_recipient_data)
