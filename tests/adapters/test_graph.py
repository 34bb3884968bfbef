"""LndGraph and Dialler against the simulated LND."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.adapters.dialler import Dialler
from sidecar.adapters.graph import LndGraph
from sidecar.adapters.lnd import Lnd
from sidecar.core import keys
from sidecar.core.errors import LndUnavailable, NoRoute, UnknownScid
from sidecar.ports import Graph
from sidecar.rpc import lightning_pb2 as ln
from tests.harness.sim_lnd import SimulatedLnd

SECRETS = {name: bytes([index]) * 32 for index, name in enumerate(("ann", "bob", "cyd", "dan"), start=1)}
ANN, BOB, CYD, DAN = (keys.public_key(secret) for secret in SECRETS.values())

SCID, ALIAS, PEERS_ALIAS, CONFIRMED = 390326627926016, 16_000_001 << 40, 16_000_777 << 40, 391_000 << 40


class FakeClock:
    """Seconds that pass when a test says so."""

    now = 1_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class World:
    """A simulated LND and what the sidecar knows through it."""

    def __init__(self, sim: SimulatedLnd) -> None:
        self.sim, self.clock = sim, FakeClock()
        self.lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        self.dialler = self.new_dialler()
        self.graph = LndGraph(self.lnd, sim.node_id, self.dialler, clock=self.clock)

    def new_dialler(self, *, in_flight: int = 4, per_minute: int = 10, private: bool = True) -> Dialler:
        """A dialler with limits of its own."""
        return Dialler(
            self.lnd,
            self.sim.node_id,
            in_flight=in_flight,
            per_minute=per_minute,
            idle=100.0,
            private_addresses=private,
            clock=self.clock,
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """All of it, running."""
    async with SimulatedLnd(tmp_path) as sim:
        here = World(sim)
        yield here
        await here.dialler.aclose()
        await here.lnd.aclose()


def ends(world: World, peer: bytes) -> list[bytes]:
    """node_id_1 and node_id_2 of a channel of ours."""
    return sorted([world.sim.node_id, peer])


def test_lnd_graph_fulfils_its_port(world: World) -> None:
    """Checked by mypy; here for the reader."""
    graph: Graph = world.graph
    assert graph


# --- scids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scid", [SCID, ALIAS, ALIAS + 1, CONFIRMED, PEERS_ALIAS])
async def test_each_name_of_our_channel_leads_to_its_peer(world: World, scid: int) -> None:
    """Its id, LND's aliases, the confirmed scid of a zero-conf channel, and the peer's own alias."""
    world.sim.add_channel(
        SCID, ANN, aliases=[ALIAS, ALIAS + 1], confirmed=CONFIRMED, peers_alias=PEERS_ALIAS, public=False
    )
    assert await world.graph.next_node(scid) == ANN
    assert [await world.graph.node_of(scid, direction) for direction in (0, 1)] == ends(world, ANN)


async def test_a_sciddir_of_others_is_looked_up_in_the_graph_once(world: World) -> None:
    """The ends of a channel never change, so the answer is kept."""
    world.sim.add_edge(77, BOB, CYD)
    for _ in range(3):
        assert [await world.graph.node_of(77, direction) for direction in (0, 1)] == sorted([BOB, CYD])
    assert world.sim.called["GetChanInfo"] == 1


async def test_a_channel_of_others_is_no_next_hop(world: World) -> None:
    """A next hop by scid is a channel of ours."""
    world.sim.add_edge(77, BOB, CYD)
    with pytest.raises(UnknownScid, match="0x0x77"):
        await world.graph.next_node(77)


async def test_our_own_channel_that_only_the_graph_knows_is_a_next_hop(world: World) -> None:
    """A closed channel stays in the graph for a while, and paths over it are still about."""
    world.sim.add_edge(78, BOB, world.sim.node_id)
    assert await world.graph.next_node(78) == BOB


async def test_a_peer_cannot_name_its_channel_like_anothers(world: World) -> None:
    """The peer chooses peer_scid_alias: it must not draw others' messages to itself."""
    world.sim.add_edge(77, BOB, CYD)
    world.sim.add_channel(SCID, ANN, aliases=[ALIAS])
    world.sim.add_channel(SCID + 1, DAN, peers_alias=77)
    world.sim.add_channel(SCID + 2, DAN, peers_alias=SCID)
    world.sim.add_channel(SCID + 3, DAN, peers_alias=ALIAS)
    assert await world.graph.next_node(SCID) == await world.graph.next_node(ALIAS) == ANN
    assert [await world.graph.node_of(77, direction) for direction in (0, 1)] == sorted([BOB, CYD])
    with pytest.raises(UnknownScid):
        await world.graph.next_node(77)


@pytest.mark.parametrize("scid", [0, 5, 2**64 - 1])
async def test_an_unknown_scid_is_an_error_that_is_cheap_to_repeat(world: World, scid: int) -> None:
    """A stranger may send the same unknown scid again and again: LND is not asked each time."""
    for _ in range(5):
        with pytest.raises(UnknownScid):
            await world.graph.next_node(scid)
        with pytest.raises(UnknownScid):
            await world.graph.node_of(scid, 0)
    assert world.sim.called["ListChannels"] == world.sim.called["GetChanInfo"] == 1


async def test_a_new_channel_is_found_though_another_was_looked_for_just_before(world: World) -> None:
    """A wallet names its channel as soon as it has one; who asked before it must not hide it."""
    for scid in (5, 6, 7):
        with pytest.raises(UnknownScid):
            await world.graph.next_node(scid)
    world.sim.add_channel(SCID, ANN, aliases=[ALIAS], public=False)
    assert await world.graph.next_node(ALIAS) == ANN


async def test_scids_that_strangers_make_up_are_looked_for_at_a_bounded_rate(world: World) -> None:
    """Each is another number: at first some are looked for, then one in three seconds."""
    for scid in range(1, 100):
        with pytest.raises(UnknownScid):
            await world.graph.next_node(scid)
    assert world.sim.called["ListChannels"] == 8
    world.clock.now += 3
    for scid in range(101, 200):
        with pytest.raises(UnknownScid):
            await world.graph.next_node(scid)
    assert world.sim.called["ListChannels"] == 9


async def test_a_new_channel_is_found_soon(world: World) -> None:
    """A scid that was not found is looked for again after a few seconds."""
    with pytest.raises(UnknownScid):
        await world.graph.next_node(ALIAS)
    world.sim.add_channel(SCID, ANN, aliases=[ALIAS], public=False)
    with pytest.raises(UnknownScid):
        await world.graph.next_node(ALIAS)
    world.clock.now += 5
    assert await world.graph.next_node(ALIAS) == ANN


async def test_while_lnd_is_away_a_scid_is_not_called_unknown(world: World) -> None:
    """LndUnavailable passes; UnknownScid would not."""
    await world.sim.stop()
    with pytest.raises(LndUnavailable):
        await world.graph.next_node(SCID)


# --- relays --------------------------------------------------------------------------------------


async def test_a_relay_is_a_connected_channel_peer_that_speaks_and_is_next_to_the_node(world: World) -> None:
    """Each condition is needed: online, a channel with us, a channel with it, feature 38 or 39."""
    sim, far = world.sim, keys.public_key(b"\x77" * 32)
    for scid, peer in enumerate((ANN, BOB, CYD), start=100):
        sim.add_channel(scid, peer)
        sim.add_edge(scid + 100, peer, far)
    sim.add_edge(300, DAN, far)
    sim.add_edge(301, sim.node_id, far)
    await sim.connect_peer(SECRETS["ann"], features=(38,))
    await sim.connect_peer(SECRETS["bob"], features=(0, 5))
    await sim.connect_peer(SECRETS["dan"])
    assert list(await world.graph.relays_to(far)) == [ANN]
    # Cyd comes online: who is connected is asked each time.
    await sim.connect_peer(SECRETS["cyd"])
    assert list(await world.graph.relays_to(far)) == [ANN, CYD]
    assert sim.called["GetNodeInfo"] == 1


async def test_there_is_no_relay_to_a_node_that_nobody_knows(world: World) -> None:
    """Nor to our own LND."""
    world.sim.add_channel(100, ANN)
    await world.sim.connect_peer(SECRETS["ann"])
    assert list(await world.graph.relays_to(DAN)) == []
    assert world.sim.node_id not in await world.graph.relays_to(ANN)


# --- channels and announcements ------------------------------------------------------------------


async def test_who_has_a_channel(world: World) -> None:
    """Private or public, online or not; a connection alone is no channel, nor is a neighbour's."""
    world.sim.add_channel(SCID, ANN, public=False)
    world.sim.add_channel(SCID + 1, BOB)
    world.sim.add_edge(77, BOB, DAN)
    await world.sim.connect_peer(SECRETS["cyd"])
    assert [await world.graph.has_channel(node) for node in (ANN, BOB, CYD, DAN)] == [
        True,
        True,
        False,
        False,
    ]


async def test_many_strangers_do_not_have_channels_listed_each_time(world: World) -> None:
    """Anybody can ask: LND lists its channels a few times for them, and not once for each."""
    for _ in range(30):
        assert not await world.graph.has_channel(ANN)
    assert world.sim.called["ListChannels"] == 1 + 8


async def test_a_channel_that_comes_is_seen_at_once_and_one_that_goes_soon(world: World) -> None:
    """A wallet registers its webhook right after its first channel."""
    assert not await world.graph.has_channel(ANN)
    world.sim.add_channel(SCID, ANN, public=False)
    assert await world.graph.has_channel(ANN)
    world.sim.node.channels.clear()
    world.clock.now += 3
    assert not await world.graph.has_channel(ANN)


async def test_a_node_is_announced_when_it_said_so_itself(world: World) -> None:
    """LND's graph has a node by its channels too, before its announcement came, or without one."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    world.sim.add_edge(77, BOB, CYD)
    assert await world.graph.is_announced(ANN)
    assert not await world.graph.is_announced(BOB)
    assert not await world.graph.is_announced(DAN)
    world.sim.add_node(BOB, "127.0.0.1:9735")
    assert await world.graph.is_announced(BOB)


async def test_while_lnd_is_away_nobody_is_taken_for_a_stranger(world: World) -> None:
    """LndUnavailable passes: a channel that is not seen now may be there."""
    await world.sim.stop()
    with pytest.raises(LndUnavailable):
        await world.graph.has_channel(ANN)
    with pytest.raises(LndUnavailable):
        await world.graph.is_announced(ANN)


# --- dialling ------------------------------------------------------------------------------------


async def test_dial_returns_when_messages_can_be_sent(world: World) -> None:
    """ConnectPeer returns before LND knows the peer: dial waits for the peer's event."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    await world.graph.dial(ANN)
    assert ANN in world.sim.node.peers


async def test_tor_addresses_are_tried_last(world: World) -> None:
    """And at most three of them all."""
    onion = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd.onion:9735"
    world.sim.add_node(ANN, onion, "1.2.3.4:9735", "[2001:db8::1]:9735", "5.6.7.8:9735", listens=False)
    with pytest.raises(NoRoute, match="connection refused"):
        await world.graph.dial(ANN)
    assert [host for _, host in world.sim.dialled] == ["1.2.3.4:9735", "[2001:db8::1]:9735", "5.6.7.8:9735"]


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1:9735", "127.0.0.1:22", "[::1]:9735", "169.254.1.1:80", "localhost:1", "lnd.internal:1"],
)
async def test_addresses_of_our_own_network_are_not_dialled(world: World, address: str) -> None:
    """Anybody can announce any address."""
    world.sim.add_node(ANN, address)
    with pytest.raises(NoRoute, match="no address"):
        await world.new_dialler(private=False).dial(ANN)
    assert not world.sim.dialled


async def test_who_cannot_be_dialled_is_no_route(world: World) -> None:
    """Unknown to the graph, without address, or LND itself."""
    world.sim.add_node(BOB)
    for node in (ANN, BOB, world.sim.node_id):
        with pytest.raises(NoRoute):
            await world.graph.dial(node)
    assert not world.sim.dialled


async def test_dialling_keeps_to_its_budget(world: World) -> None:
    """So many a minute; then again in the next."""
    dialler = world.new_dialler(per_minute=2)
    for node in (ANN, BOB, CYD):
        world.sim.add_node(node, "127.0.0.1:9735")
    await dialler.dial(ANN)
    await dialler.dial(BOB)
    with pytest.raises(NoRoute, match="within a minute"):
        await dialler.dial(CYD)
    world.clock.now += 60
    await dialler.dial(CYD)
    await dialler.aclose()


async def test_so_many_are_dialled_at_once_and_one_node_once(world: World) -> None:
    """Those who wait for the same node wait for the same dial."""
    dialler = world.new_dialler(in_flight=1)
    for node in (ANN, BOB):
        world.sim.add_node(node, "127.0.0.1:9735")
    first, second, other = await asyncio.gather(
        dialler.dial(ANN), dialler.dial(ANN), dialler.dial(BOB), return_exceptions=True
    )
    assert first is second is None
    assert isinstance(other, NoRoute)
    assert [node for node, _ in world.sim.dialled] == [ANN]
    await dialler.aclose()


async def test_an_idle_peer_is_hung_up(world: World) -> None:
    """Not before its time, and only once."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    await world.graph.dial(ANN)
    await world.dialler.hang_up_idle()
    assert ANN in world.sim.node.peers
    world.clock.now += 100
    await world.dialler.hang_up_idle()
    assert ANN not in world.sim.node.peers
    await world.dialler.hang_up_idle()
    assert world.sim.called["DisconnectPeer"] == 1


async def test_dialling_again_starts_the_time_anew(world: World) -> None:
    """A peer that is in use stays."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    await world.graph.dial(ANN)
    world.clock.now += 99
    await world.graph.dial(ANN)
    world.clock.now += 99
    await world.dialler.hang_up_idle()
    assert ANN in world.sim.node.peers


async def test_a_peer_that_we_did_not_dial_is_never_hung_up(world: World) -> None:
    """It was there already: its connection is its own."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    await world.sim.connect_peer(SECRETS["ann"])
    await world.graph.dial(ANN)
    world.clock.now += 1_000
    await world.dialler.hang_up_idle()
    await world.dialler.aclose()
    assert ANN in world.sim.node.peers


async def test_a_peer_that_came_back_by_itself_is_never_hung_up(world: World) -> None:
    """We dialled it, it left, and this connection is its own."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    await world.graph.dial(ANN)
    await world.sim.connect_peer(SECRETS["ann"])
    world.clock.now += 1_000
    await world.dialler.hang_up_idle()
    assert ANN in world.sim.node.peers


async def test_a_peer_that_has_a_channel_now_is_never_hung_up(world: World) -> None:
    """It was dialled for a message and became more."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    await world.graph.dial(ANN)
    world.sim.add_channel(SCID, ANN)
    world.clock.now += 1_000
    await world.dialler.hang_up_idle()
    assert ANN in world.sim.node.peers
    assert world.sim.called["DisconnectPeer"] == 0


async def test_closing_hangs_up_what_was_dialled(world: World) -> None:
    """The sidecar leaves LND as it found it."""
    world.sim.add_node(ANN, "127.0.0.1:9735")
    await world.graph.dial(ANN)
    await world.dialler.aclose()
    assert ANN not in world.sim.node.peers


async def test_a_peer_that_hangs_up_at_once_is_no_route(world: World) -> None:
    """Its event says so; nobody waits for the time limit."""
    world.sim.add_node(ANN, "127.0.0.1:9735")

    def hang_up(node_id: bytes, features: object, *, inbound: bool) -> None:
        del features, inbound
        offline = ln.PeerEvent(pub_key=node_id.hex(), type=ln.PeerEvent.PEER_OFFLINE)
        world.sim.node.events.send(offline)

    world.sim.node.connect = hang_up  # type: ignore[method-assign,assignment]
    with pytest.raises(NoRoute, match="hung up"):
        await asyncio.wait_for(world.graph.dial(ANN), 5)


async def test_few_of_lnds_longest_answers_are_asked_for_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megabytes each on a large node, and strangers choose whom to ask for: 64 at once would be too many."""
    inside, most, real = 0, 0, world.lnd.call

    async def call(*args: Any, **more: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return await real(*args, **more)
        finally:
            inside -= 1

    monkeypatch.setattr(world.lnd, "call", call)
    nodes = [keys.public_key(number.to_bytes(32, "big")) for number in range(1, 40)]
    await asyncio.gather(*map(world.graph.relays_to, nodes))
    assert most == 4
