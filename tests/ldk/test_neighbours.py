"""Wallets and payers that are no peers of the served LND: relayed by its neighbours, or dialled."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.core import offers
from sidecar.core.model import Family
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from tests.harness.asserting import met_with_silence, until
from tests.harness.behind import Neighbour, payer_behind, wallet_behind
from tests.harness.chain import Gossiping, open_channel
from tests.harness.ldk import LdkPeer
from tests.harness.lnd_process import LndProcess
from tests.ldk.build import VERSIONS
from tests.ldk.neighbourhood import Neighbourhood, Served, neighbourhood, serving

pytestmark = [pytest.mark.ldk, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def around(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Neighbourhood]:
    """Six LNDs on one chain, for all tests here."""
    async with neighbourhood(tmp_path_factory.mktemp("neighbours")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["native", "custom"])
async def served(
    request: pytest.FixtureRequest, around: Neighbourhood, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """Each of the served LNDs with a sidecar."""
    async with serving(around, request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def name() -> str:
    """A client's name that no other test has."""
    return os.urandom(6).hex()


async def ready_offer(served: Served) -> str:
    """An offer whose wallet, a peer of the served LND, has gone to sleep."""
    wallet = await served.stage.wallet(served.sidecar, name())
    offer, _, _ = await wallet.set_up()
    await wallet.link.close()
    return offer


async def ask_here_be_answered_behind(served: Served, there: LndProcess) -> None:
    """A payer sends its request to the served LND itself; its reply path starts at another LND."""
    offer = offers.decode_offer(await ready_offer(served))
    asking = await served.stage.payer()
    answered = await payer_behind(Neighbour.of(there))
    await asking.send_request(offer, reply_path=answered.path_to_self(b"payer"))
    await answered.receive_answer(offer)


async def connected(served: Served, node_id: bytes) -> bool:
    """Whether the served LND is connected to a node."""
    async with served.lnd.channel() as channel:
        answer = await ln_rpc.LightningStub(channel).ListPeers(ln.ListPeersRequest())
    return node_id.hex() in {peer.pub_key for peer in answer.peers}


@pytest.mark.parametrize("family", list(Family))
async def test_a_wallet_that_is_no_peer_is_served_by_way_of_a_neighbour(
    served: Served, family: Family
) -> None:
    """bLIP 66, "Rationale": sender and recipient need not be "direct [channel] peers"."""
    wallet = await wallet_behind(Neighbour.of(served.around.open), served.sidecar, name(), family)
    offer, _, _ = await wallet.set_up()
    await (await served.stage.payer()).get_invoice(offer)
    forwarded = await wallet.receive_invoice_request()
    assert forwarded.payload.reply_path is not None


async def test_wallet_and_payer_may_both_be_behind_neighbours(served: Served) -> None:
    """Neither has a connection to the served LND; requests and answers go by way of its neighbours."""
    behind = Neighbour.of(served.around.open)
    wallet = await wallet_behind(behind, served.sidecar, name(), Family.BLIP66)
    offer, _, _ = await wallet.set_up()
    await (await payer_behind(behind)).get_invoice(offer)
    await wallet.receive_invoice_request()


async def test_an_answer_goes_through_a_channel_peer_on_default_flags(served: Served) -> None:
    """LND on its default flags takes onion messages from channel peers: a reply path may start there."""
    await ask_here_be_answered_behind(served, served.around.closed)


async def test_an_lnd_on_default_flags_takes_nothing_from_a_payer_without_a_channel(served: Served) -> None:
    """A known limit of LND >= 0.21: such a payer has to connect to the served LND itself."""
    offer = await ready_offer(served)
    before = (await served.sidecar.counters())["received"]
    payer = await payer_behind(Neighbour.of(served.around.closed))
    await payer.send_request(offers.decode_offer(offer))
    await met_with_silence(payer)
    assert (await served.sidecar.counters())["received"] == before


async def test_a_first_hop_that_is_not_connected_is_reached_through_a_neighbour(served: Served) -> None:
    """A reply path may start two channels away, all on default flags: nobody is dialled for it."""
    await ask_here_be_answered_behind(served, served.around.remote)
    assert not await connected(served, served.around.remote.node_id)


async def test_a_first_hop_without_a_neighbour_of_ours_is_dialled(served: Served) -> None:
    """A verified payer is worth a connection, to the first hop's announced address; it is hung up again."""
    far = served.around.far.node_id
    await ask_here_be_answered_behind(served, served.around.far)
    assert await connected(served, far)
    await served.sidecar.stop()

    async def hung_up() -> bool:
        return not await connected(served, far)

    try:
        await until(hung_up)
    finally:
        await served.sidecar.start()


async def test_no_wallet_is_dialled(served: Served) -> None:
    """A forward path comes from whoever is a client: it is not worth a connection, the payer is served."""
    wallet = await served.stage.wallet(served.sidecar, name())
    behind = await payer_behind(Neighbour.of(served.around.far))
    wallet.forward_path = behind.path_to_self(b"forwarded invoice_request")
    before = await served.sidecar.counters()
    offer, _, _ = await wallet.set_up()
    await (await served.stage.payer()).get_invoice(offer)
    after = await served.sidecar.counters()
    unsent = "unsent.invoice_request.peer-not-connected"
    assert after[unsent] == before.get(unsent, 0) + 1
    assert not await connected(served, served.around.far.node_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_ldk_payer_behind_a_neighbour_on_default_flags_is_answered(
    served: Served, version: str, tmp_path: Path
) -> None:
    """LDK takes its request to the offer's first node itself, and waits for the answer at its own peer."""
    offer, around = await ready_offer(served), served.around
    async with LdkPeer(version, tmp_path) as payer:
        await around.regtest.follow(payer.block)
        await payer.connect(around.closed.node_id, around.closed.p2p_port)
        await payer.knows(served.lnd.node_id)
        await around.regtest.fund({around.closed: 1})
        await around.regtest.confirm([await open_channel(around.closed, payer.node_id, private=True)])
        around.regtest.followers.remove(payer.block)
        ready = await payer.named("channel_ready")
        # LDK 0.2 names that channel in its reply path, and LND forwards by what its graph knows.
        await Gossiping(around.closed).knows_channel(ready["scid"])
        await payer.pay(offer)
        await payer.named("connection_needed", node=served.lnd.node_id.hex())
        asked = await payer.sent("invoice_request")
        await payer.got("static_invoice")
        await payer.sent("held_htlc_available")
        path = asked["reply_path"]
        # 0.2 names it as one end of an announced channel of its own.
        at_closed = path["intro_at"] == around.closed.node_id.hex()
        assert path["intro"] == "sciddir" if version == "0.2" else at_closed


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_payer_behind_an_ldk_node_is_served(served: Served, version: str, tmp_path: Path) -> None:
    """The LDK node has no channel; it forwards the payer's request, and the answer to the payer."""
    async with LdkPeer(version, tmp_path, listen=True) as hub:
        await hub.connect(served.lnd.node_id, served.lnd.p2p_port)
        payer = await payer_behind(Neighbour(hub.node_id, hub.port))
        await payer.get_invoice(await ready_offer(served))


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_ldk_payer_behind_an_ldk_node_is_answered(
    served: Served, version: str, tmp_path: Path
) -> None:
    """It dials the served LND, known by gossip; its reply path starts at the LDK node, without a channel."""
    async with LdkPeer(version, tmp_path, listen=True) as hub, LdkPeer(version, tmp_path) as payer:
        await hub.connect(served.lnd.node_id, served.lnd.p2p_port)
        await hub.knows(served.lnd.node_id)
        await payer.connect(hub.node_id, hub.port)
        await payer.pay(await ready_offer(served))
        await payer.named("connection_needed", node=served.lnd.node_id.hex())
        asked = await payer.sent("invoice_request")
        assert asked["reply_path"]["intro_at"] == hub.node_id.hex()
        await payer.got("static_invoice")
