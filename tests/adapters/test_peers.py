"""LndPeers, NativeLsps and CustomLsps against the simulated LND."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters import peers as peers_module
from sidecar.adapters.lnd import Lnd
from sidecar.adapters.onions import CustomOnions
from sidecar.adapters.peers import CustomLsps, LndPeers, NativeLsps
from sidecar.adapters.streams import Stream
from sidecar.core import keys
from sidecar.core.errors import LndDenied, LndUnavailable, PeerNotConnected
from sidecar.core.lsps0 import LSPS_MESSAGE
from sidecar.ports import LspsTransport, PeerChange, Peers, PeersNow
from sidecar.rpc import lightning_pb2 as ln
from tests.harness.counted import Counted
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import Mode

SECRETS = [bytes([index]) * 32 for index in range(1, 11)]
NODES = [keys.public_key(secret) for secret in SECRETS]
(ANN, BOB), (ANNS, BOBS) = NODES[:2], SECRETS[:2]
MODES = pytest.mark.parametrize("mode", ["native", "custom"])
Lsps = NativeLsps | CustomLsps


class Running(Counted):
    """A simulated LND, a connection to it, and what the transports counted."""

    def __init__(self, sim: SimulatedLnd) -> None:
        super().__init__()
        self.sim = sim
        self.lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)


@asynccontextmanager
async def running(folder: Path, mode: Mode = "native") -> AsyncIterator[Running]:
    """All of it, and all closed again."""
    async with SimulatedLnd(folder, mode) as sim:
        at = Running(sim)
        yield at
        await at.lnd.aclose()


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Running]:
    """A native one."""
    async with running(tmp_path) as here:
        yield here


class Read:
    """What a transport gives."""

    def __init__(self) -> None:
        self._got: asyncio.Queue[Any] = asyncio.Queue()
        self.put = self._got.put_nowait
        self.empty = self._got.empty

    async def next(self) -> Any:
        """The next of it; waits."""
        return await asyncio.wait_for(self._got.get(), 20)


@asynccontextmanager
async def reading(source: Stream[Any, Any] | CustomLsps) -> AsyncIterator[Read]:
    """What `receive` gives, from when its stream is up."""
    got = Read()

    async def read() -> None:
        async for item in source.receive():
            got.put(item)

    task = asyncio.create_task(read())
    if isinstance(source, Stream):
        await asyncio.wait_for(source.up.wait(), 20)
    try:
        yield got
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_adapters_fulfil_their_ports(tmp_path: Path) -> None:
    """Checked by mypy; here for the reader."""
    sim = SimulatedLnd(tmp_path, port=1)
    lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
    peers: Peers = LndPeers(lnd, print)
    transports: list[LspsTransport] = [NativeLsps(lnd, print), CustomLsps(lnd, print)]
    assert peers
    assert all(transports)


# --- who is there --------------------------------------------------------------------------------


async def test_who_is_there_comes_first_then_every_change(at: Running) -> None:
    """PeersNow, even of nobody; then who comes and who goes, in that order."""
    async with reading(LndPeers(at.lnd, at.count)) as got:
        assert await got.next() == PeersNow(frozenset())
    link = await at.sim.connect_peer(ANNS)
    async with reading(LndPeers(at.lnd, at.count)) as got:
        assert await got.next() == PeersNow(frozenset({ANN}))
        await at.sim.connect_peer(BOBS)
        await link.close()
        assert await got.next() == PeerChange(BOB, online=True)
        assert await got.next() == PeerChange(ANN, online=False)


async def test_a_peer_that_connects_anew_is_said_to_go_and_to_come(at: Running) -> None:
    """LND hangs up the old connection: whoever counts its bytes must know that they start at 0."""
    await at.sim.connect_peer(ANNS)
    async with reading(LndPeers(at.lnd, at.count)) as got:
        await got.next()
        await at.sim.connect_peer(ANNS)
        assert [(await got.next()).online for _ in range(2)] == [False, True]


async def test_after_a_cut_it_is_said_anew_who_is_there(at: Running) -> None:
    """Who came and went while nothing was streamed is known from that alone."""
    peers = LndPeers(at.lnd, at.count)
    link = await at.sim.connect_peer(ANNS)
    async with reading(peers) as got:
        await got.next()
        at.sim.cut_streams()
        await asyncio.wait_for(at.sim.node.events.idle.wait(), 10)
        await link.close()
        await at.sim.connect_peer(BOBS)
        assert await got.next() == PeersNow(frozenset({BOB}))
        await at.sim.connect_peer(ANNS)
        # Bob may be told twice, had the stream been opened again before he came.
        changes = [await got.next()]
        while changes[-1].node_id != ANN or not changes[-1].online:
            changes.append(await got.next())
    assert at.counted == {}


@pytest.mark.parametrize("locked", [False, True])
async def test_after_a_restart_of_lnd_it_is_said_anew_who_is_there(at: Running, locked: bool) -> None:
    """LND hung up on all of them; also when it comes back locked and is unlocked later."""
    await at.sim.connect_peer(ANNS)
    async with reading(LndPeers(at.lnd, at.count)) as got:
        assert await got.next() == PeersNow(frozenset({ANN}))
        await at.sim.restart(locked=locked)
        if locked:
            await at.sim.until_called("SubscribeState", 2)
            at.sim.unlock()
        said = await got.next()
        while said == PeerChange(ANN, online=False):  # LND may have said so before it went
            said = await got.next()
        assert said == PeersNow(frozenset())
        await at.sim.connect_peer(ANNS)
        assert await got.next() == PeerChange(ANN, online=True)


async def test_who_comes_while_the_stream_is_opened_is_not_missed(at: Running) -> None:
    """The stream stands before LND is asked who is there: those are told twice, and none never."""
    peers = LndPeers(at.lnd, at.count)
    ask = peers.bytes_received

    async def slowly() -> Any:
        await at.sim.connect_peer(ANNS)
        found = await ask()
        await at.sim.connect_peer(BOBS)
        return found

    peers.bytes_received = slowly  # type: ignore[method-assign]
    async with reading(peers) as got:
        assert await got.next() == PeersNow(frozenset({ANN}))
        assert [await got.next() for _ in range(2)] == [
            PeerChange(ANN, online=True),
            PeerChange(BOB, online=True),
        ]


async def test_changes_that_do_not_fit_are_made_up_for(at: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that falls behind loses nothing: the stream is opened anew, and says who is there."""
    monkeypatch.setattr(peers_module, "_EVENTS", 3)
    stream = LndPeers(at.lnd, at.count).receive()
    assert await asyncio.wait_for(anext(stream), 20) == PeersNow(frozenset())
    for secret in SECRETS:
        await at.sim.connect_peer(secret)
    await at.until_counted("queue-full", 1)
    await asyncio.wait_for(at.sim.until_called("SubscribePeerEvents", 2), 10)
    first = [await asyncio.wait_for(anext(stream), 20) for _ in range(3)]
    assert first == [PeerChange(node, online=True) for node in NODES[:3]]
    assert await asyncio.wait_for(anext(stream), 20) == PeersNow(frozenset(NODES))
    await stream.aclose()


async def test_bytes_are_those_of_the_present_connection(at: Running) -> None:
    """They grow with what the peer sends, and start at 0 when it connects anew."""
    peers = LndPeers(at.lnd, at.count)
    assert await peers.bytes_received() == {}
    link = await at.sim.connect_peer(ANNS)
    await at.sim.connect_peer(BOBS)
    await link.send_custom(LSPS_MESSAGE, bytes(100))
    assert await peers.bytes_received() == {ANN: 102, BOB: 0}
    await at.sim.connect_peer(ANNS)
    assert await peers.bytes_received() == {ANN: 0, BOB: 0}
    await at.sim.stop()
    with pytest.raises(LndUnavailable):
        await peers.bytes_received()


@pytest.mark.parametrize("uri", [calls.PEER_EVENTS.uri, calls.LIST_PEERS.uri])
async def test_peer_events_that_are_not_allowed_are_one_clear_error(at: Running, uri: str) -> None:
    """Of the stream, or of the list that comes before it: the permission is named."""
    at.sim.denied.add(uri)
    with pytest.raises(LndDenied, match=f"{uri}: `sidecar macaroon-permissions`"):
        await asyncio.wait_for(anext(LndPeers(at.lnd, at.count).receive()), 20)


async def test_leaving_the_iterator_ends_the_stream(at: Running) -> None:
    """LND keeps no queue for a reader that is gone."""
    peers = LndPeers(at.lnd, at.count)
    async with reading(peers):
        assert len(at.sim.node.events) == 1
    await asyncio.wait_for(at.sim.node.events.idle.wait(), 10)
    assert not peers.stream_up


# --- LSPS messages -------------------------------------------------------------------------------


def transport(at: Running) -> Lsps:
    """The one that goes with this kind of LND."""
    kind: Callable[..., Lsps] = NativeLsps if at.sim.mode == "native" else CustomLsps
    return kind(at.lnd, at.count)


@MODES
async def test_send_reaches_a_connected_peer(tmp_path: Path, mode: Mode) -> None:
    """As a custom message 37913, byte for byte, up to the largest that there can be."""
    async with running(tmp_path, mode) as at:
        lsps, link = transport(at), await at.sim.connect_peer(ANNS)
        for payload in (b"{}", b"\xff\x00", bytes(65_533)):
            await lsps.send(ANN, payload)
            assert await asyncio.wait_for(link.receive_custom(), 10) == (37_913, payload)


@MODES
async def test_send_to_who_is_away_says_so(tmp_path: Path, mode: Mode) -> None:
    """PeerNotConnected, and LndUnavailable when it is LND that is away."""
    async with running(tmp_path, mode) as at:
        lsps = transport(at)
        await at.sim.connect_peer(BOBS)
        with pytest.raises(PeerNotConnected):
            await lsps.send(ANN, b"{}")
        await at.sim.stop()
        with pytest.raises(LndUnavailable):
            await lsps.send(ANN, b"{}")


@MODES
async def test_a_macaroon_that_may_not_send_is_one_clear_error(tmp_path: Path, mode: Mode) -> None:
    """The URI is named, as for every call."""
    async with running(tmp_path, mode) as at:
        at.sim.denied.add(calls.SEND_CUSTOM.uri)
        with pytest.raises(LndDenied, match=calls.SEND_CUSTOM.uri):
            await transport(at).send(ANN, b"{}")


async def test_native_only_lsps_messages_come_through(at: Running) -> None:
    """With their peer, whatever is in them; messages of other types are not ours."""
    async with reading(NativeLsps(at.lnd, at.count)) as got:
        ann, bob = await at.sim.connect_peer(ANNS), await at.sim.connect_peer(BOBS)
        for type_ in (32_768, 37_911, 37_912, 37_914, 37_915, 65_535):
            await ann.send_custom(type_, b"another")
        for link, payload in ((ann, b""), (bob, b"\xff{"), (ann, bytes(65_533))):
            await link.send_custom(37_913, payload)
        assert [await got.next() for _ in range(3)] == [(ANN, b""), (BOB, b"\xff{"), (ANN, bytes(65_533))]
    assert got.empty()
    assert at.counted == {}


@pytest.mark.parametrize("cause", ["cut", "restart"])
async def test_native_it_lives_through_cuts_and_restarts(at: Running, cause: str) -> None:
    """What comes once the stream is up again arrives."""
    lsps = NativeLsps(at.lnd, at.count)
    async with reading(lsps) as got:
        if cause == "cut":
            at.sim.cut_streams()
        else:
            await at.sim.restart()
        await asyncio.wait_for(at.sim.until_called("SubscribeCustomMessages", 2), 20)
        await asyncio.wait_for(lsps.up.wait(), 20)
        link = await at.sim.connect_peer(ANNS)
        await link.send_custom(37_913, b"{}")
        assert await got.next() == (ANN, b"{}")


async def test_native_a_stream_that_is_not_allowed_is_one_clear_error(at: Running) -> None:
    """An operator who upgrades has a macaroon without it: the URI and the way to a better one are named."""
    at.sim.denied.add(calls.CUSTOM_MESSAGES.uri)
    with pytest.raises(LndDenied, match=f"{calls.CUSTOM_MESSAGES.uri}: `sidecar macaroon-permissions`"):
        await asyncio.wait_for(anext(NativeLsps(at.lnd, at.count).receive()), 20)


async def test_native_a_full_queue_drops_the_newest_and_counts(at: Running) -> None:
    """LND would keep them for us without a bound."""
    lsps = NativeLsps(at.lnd, at.count, queue_size=2)
    stream = lsps.receive()
    first = asyncio.create_task(anext(stream))
    await asyncio.wait_for(lsps.up.wait(), 20)
    link = await at.sim.connect_peer(ANNS)
    await link.send_custom(37_913, b"0")
    assert (await asyncio.wait_for(first, 10)) == (ANN, b"0")
    for number in range(1, 6):
        await link.send_custom(37_913, b"%d" % number)
    await at.until_counted("queue-full", 3)
    assert [await anext(stream) for _ in range(2)] == [(ANN, b"1"), (ANN, b"2")]
    assert at.counted == {"queue-full": 3}
    await stream.aclose()


async def test_custom_lsps_messages_come_over_the_stream_of_onion_messages(tmp_path: Path) -> None:
    """There is one subscription for both: LND would send each message to each subscriber."""
    async with running(tmp_path, "custom") as at:
        lsps = CustomLsps(at.lnd, at.count)
        onions = CustomOnions(at.lnd, at.count, others=lsps.take)
        async with reading(onions) as onion_messages, reading(lsps) as got:
            link = await at.sim.connect_peer(ANNS)
            await link.send_custom(37_915, b"another")
            await link.send_custom(37_913, b"{}")
            await link.send_onion(BOB, bytes(1_366))
            await link.send_custom(37_913, b"\xff")
            assert [await got.next() for _ in range(2)] == [(ANN, b"{}"), (ANN, b"\xff")]
            assert (await onion_messages.next()).onion == bytes(1_366)
            assert at.sim.called["SubscribeCustomMessages"] == 1
            await at.sim.restart()
            await asyncio.wait_for(at.sim.until_called("SubscribeCustomMessages", 2), 20)
            await asyncio.wait_for(onions.up.wait(), 20)
            link = await at.sim.connect_peer(ANNS)
            await link.send_custom(37_913, b"[]")
            assert await got.next() == (ANN, b"[]")
        assert (got.empty(), onion_messages.empty(), at.counted) == (True, True, {})


async def test_custom_a_full_queue_drops_the_newest_and_counts(at: Running) -> None:
    """Nothing waits for a slow reader: onion messages come over the same stream."""
    lsps = CustomLsps(at.lnd, at.count, queue_size=2)
    for number in range(5):
        lsps.take(ln.CustomMessage(peer=ANN, type=37_913, data=b"%d" % number))
        lsps.take(ln.CustomMessage(peer=ANN, type=37_915, data=b"another"))
    assert at.counted == {"queue-full": 3}
    stream = lsps.receive()
    assert [await anext(stream) for _ in range(2)] == [(ANN, b"0"), (ANN, b"1")]
    await stream.aclose()
