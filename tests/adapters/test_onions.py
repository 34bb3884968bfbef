"""NativeOnions and CustomOnions against the simulated LND."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.lnd import Lnd, LndNodeKey
from sidecar.adapters.onions import CustomOnions, NativeOnions
from sidecar.core import keys, onion, paths
from sidecar.core.errors import (
    LndDenied,
    LndSetupError,
    LndUnavailable,
    ModeChanged,
    PeerNotConnected,
)
from sidecar.core.wire import encode_tlvs
from sidecar.ports import NodeKey, OnionTransport, Received
from sidecar.rpc import lightning_pb2 as ln
from tests.harness.counted import Counted
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import Mode

Onions = NativeOnions | CustomOnions

SIDECAR, PAYER, CLIENT = b"\x51" * 32, b"\x52" * 32, b"\x53" * 32
MODES = pytest.mark.parametrize("mode", ["native", "custom"])


class Running(Counted):
    """A simulated LND, a transport to it, and what the transport counted."""

    def __init__(self, sim: SimulatedLnd, queue_size: int = 1_000) -> None:
        super().__init__()
        self.sim = sim
        self.lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        kind: Callable[..., Onions] = NativeOnions if sim.mode == "native" else CustomOnions
        self.onions = kind(self.lnd, self.count, queue_size=queue_size)


@asynccontextmanager
async def running(folder: Path, mode: Mode, queue_size: int = 1_000) -> AsyncIterator[Running]:
    """All of it, and all closed again."""
    async with SimulatedLnd(folder, mode) as sim:
        at = Running(sim, queue_size)
        yield at
        await at.lnd.aclose()


@asynccontextmanager
async def reading(at: Running) -> AsyncIterator[asyncio.Queue[Received]]:
    """What `receive` gives, from when the stream is up; what it raises is raised at the end."""
    got: asyncio.Queue[Received] = asyncio.Queue()

    async def read() -> None:
        async for received in at.onions.receive():
            got.put_nowait(received)

    task = asyncio.create_task(read())
    await asyncio.wait_for(at.onions.up.wait(), 20)
    try:
        yield got
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def to_sidecar(sim: SimulatedLnd, marker: bytes = b"hello") -> tuple[bytes, bytes]:
    """An onion message over [LND, sidecar]."""
    sidecar = keys.public_key(SIDECAR)
    hops = ((sim.node_id, paths.next_hop_data(sidecar)), (sidecar, paths.path_id_data(marker)))
    path = paths.build(os.urandom(32), hops)
    payloads = [{4: hop.encrypted_recipient_data} for hop in path.hops]
    payloads[-1][75540] = marker
    frames = [(hop.blinded_node_id, encode_tlvs(load)) for hop, load in zip(path.hops, payloads, strict=True)]
    return path.path_key, onion.build(os.urandom(32), frames)


async def took_up_again(at: Running, cause: Callable[[], object]) -> None:
    """Do what ends the stream, see it down, and wait until it is up again."""
    down = asyncio.Event()
    real_clear = at.onions.up.clear

    def clear() -> None:
        real_clear()
        down.set()

    at.onions.up.clear = clear  # type: ignore[method-assign]
    outcome = cause()
    if asyncio.iscoroutine(outcome):
        await outcome
    await asyncio.wait_for(down.wait(), 20)
    await asyncio.wait_for(at.onions.up.wait(), 30)


def test_the_adapters_fulfil_their_ports(tmp_path: Path) -> None:
    """Checked by mypy; here for the reader."""
    sim = SimulatedLnd(tmp_path, port=1)
    lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
    transports: list[OnionTransport] = [NativeOnions(lnd, print), CustomOnions(lnd, print)]
    node_key: NodeKey = LndNodeKey(lnd)
    assert [transport.forwards_for_others for transport in transports] == [False, True]
    assert node_key


@MODES
async def test_a_message_arrives_as_it_was_sent(tmp_path: Path, mode: Mode) -> None:
    """With the peer, and LND's own encrypted data where LND opened the onion."""
    async with running(tmp_path, mode) as at, reading(at) as got:
        path_key, packet = to_sidecar(at.sim)
        link = await at.sim.connect_peer(PAYER)
        await link.send_onion(path_key, packet)
        received = await asyncio.wait_for(got.get(), 10)
        assert (received.peer, received.path_key, received.onion) == (link.node_id, path_key, packet)
        if mode == "custom":
            assert received.encrypted_recipient_data is None
        else:
            assert received.encrypted_recipient_data is not None
            secret = at.sim.node.ecdh(path_key)
            data = paths.decrypt_recipient_data(secret, received.encrypted_recipient_data)
            assert data.next_node_id == keys.public_key(SIDECAR)


@MODES
async def test_send_reaches_a_connected_peer(tmp_path: Path, mode: Mode) -> None:
    """Small and large packets alike."""
    async with running(tmp_path, mode) as at:
        link = await at.sim.connect_peer(CLIENT)
        for size in (onion.SMALL_PACKET, onion.LARGE_PACKET):
            path_key, packet = keys.public_key(PAYER), os.urandom(size)
            await at.onions.send(link.node_id, path_key, packet)
            assert await asyncio.wait_for(link.receive_onion(), 10) == (path_key, packet)


@MODES
async def test_send_to_who_is_away_says_so(tmp_path: Path, mode: Mode) -> None:
    """PeerNotConnected, and LndUnavailable when it is LND that is away."""
    async with running(tmp_path, mode) as at:
        message = keys.public_key(CLIENT), keys.public_key(PAYER), bytes(onion.SMALL_PACKET)
        with pytest.raises(PeerNotConnected):
            await at.onions.send(*message)
        await at.sim.stop()
        with pytest.raises(LndUnavailable):
            await at.onions.send(*message)


async def test_custom_mode_without_custom_message_513_names_the_lines(tmp_path: Path) -> None:
    """LND takes the announcement without it, and then refuses to send."""
    async with running(tmp_path, "custom") as at:
        at.sim.custom_types = False
        link = await at.sim.connect_peer(CLIENT)
        with pytest.raises(LndSetupError, match=r"protocol\.custom-message=513"):
            await at.onions.send(link.node_id, keys.public_key(PAYER), bytes(onion.SMALL_PACKET))


async def test_custom_messages_that_are_no_onion_messages_are_dropped(tmp_path: Path) -> None:
    """Cut short: counted. Of another type: not even that. With bytes behind it: BOLT 1 ignores them."""
    async with running(tmp_path, "custom") as at, reading(at) as got:
        path_key, packet = to_sidecar(at.sim)
        whole = path_key + len(packet).to_bytes(2, "big") + packet
        link = await at.sim.connect_peer(PAYER)
        for data in (b"", whole[:34], whole[:-1]):
            await link.send_custom(513, data)
        await link.send_custom(37913, b"{}")
        await link.send_custom(513, whole + b"\x01\x00")
        received = await asyncio.wait_for(got.get(), 10)
        assert (received.path_key, received.onion) == (path_key, packet)
        assert got.empty()
        assert at.counted == {"bad-onion-message": 3}


async def test_custom_messages_of_other_types_are_handed_to_others(tmp_path: Path) -> None:
    """All of them with their peer, in order, and no onion message among them, however broken."""
    async with running(tmp_path, "custom") as at:
        handed: asyncio.Queue[tuple[bytes, int, bytes]] = asyncio.Queue()
        at.onions = CustomOnions(
            at.lnd, at.count, others=lambda each: handed.put_nowait((each.peer, each.type, each.data))
        )
        async with reading(at) as got:
            link = await at.sim.connect_peer(PAYER)
            await link.send_custom(37913, b"{}")
            await link.send_custom(513, b"")
            await link.send_onion(*to_sidecar(at.sim))
            await link.send_custom(65535, b"")
            await asyncio.wait_for(got.get(), 10)
            received = [await asyncio.wait_for(handed.get(), 10) for _ in range(2)]
        assert received == [(link.node_id, 37913, b"{}"), (link.node_id, 65535, b"")]
        assert (handed.empty(), got.empty(), at.counted) == (True, True, {"bad-onion-message": 1})


@MODES
async def test_a_full_queue_drops_the_newest_and_counts(tmp_path: Path, mode: Mode) -> None:
    """LND would keep them for us without a bound; we read at once and keep what fits."""
    async with running(tmp_path, mode, queue_size=5) as at:
        stream = at.onions.receive()
        first = asyncio.create_task(anext(stream))
        await asyncio.wait_for(at.onions.up.wait(), 20)
        link = await at.sim.connect_peer(PAYER)
        messages = [to_sidecar(at.sim, bytes([index])) for index in range(20)]
        await link.send_onion(*messages[0])
        assert (await first).onion == messages[0][1]
        for message in messages[1:]:
            await link.send_onion(*message)
        await at.until_counted("queue-full", 14)
        kept = [(await anext(stream)).onion for _ in range(5)]
        assert kept == [packet for _, packet in messages[1:6]]
        await stream.aclose()


@MODES
async def test_a_cut_stream_is_opened_again(
    tmp_path: Path, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once going down and once coming up; what comes afterwards arrives."""
    caplog.set_level(logging.INFO, "sidecar.adapters.streams")
    async with running(tmp_path, mode) as at, reading(at) as got:
        assert at.onions.stream_up
        await took_up_again(at, at.sim.cut_streams)
        link = await at.sim.connect_peer(PAYER)
        message = to_sidecar(at.sim)
        await link.send_onion(*message)
        assert (await asyncio.wait_for(got.get(), 10)).onion == message[1]
        assert len([record for record in caplog.records if "ended" in record.message]) == 1
        assert len([record for record in caplog.records if "again" in record.message]) == 2


@MODES
@pytest.mark.parametrize("locked", [False, True])
async def test_it_lives_through_restarts_of_lnd(tmp_path: Path, mode: Mode, locked: bool) -> None:
    """Also when LND comes back locked and is unlocked later."""
    async with running(tmp_path, mode) as at, reading(at) as got:

        async def restart() -> None:
            await at.sim.restart(locked=locked)
            if locked:
                await at.sim.until_called("SubscribeState", 2)
                at.sim.unlock()

        await took_up_again(at, restart)
        link = await at.sim.connect_peer(PAYER)
        await link.send_onion(*to_sidecar(at.sim))
        assert (await asyncio.wait_for(got.get(), 10)).peer == link.node_id


async def test_it_goes_on_with_a_replaced_macaroon_and_certificate(tmp_path: Path) -> None:
    """Both at once, over a restart, as when an LND is moved."""
    async with running(tmp_path, "native") as at, reading(at) as got:

        async def move() -> None:
            at.sim.new_certificate()
            at.sim.new_macaroon()
            await at.sim.restart()

        await took_up_again(at, move)
        link = await at.sim.connect_peer(PAYER)
        await link.send_onion(*to_sidecar(at.sim))
        await asyncio.wait_for(got.get(), 10)


@pytest.mark.parametrize(("before", "after"), [("custom", "native"), ("native", "custom")])
async def test_an_upgrade_under_a_running_sidecar_ends_the_transport(
    tmp_path: Path, before: Mode, after: Mode
) -> None:
    """0.21 still has the old stream, and nothing would come over it: ModeChanged, for the app to rebuild."""
    async with running(tmp_path, before) as at:
        stream = at.onions.receive()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(at.onions.up.wait(), 20)
        await at.sim.restart(after)
        with pytest.raises(ModeChanged):
            await asyncio.wait_for(first, 30)
        assert not at.onions.stream_up


async def test_another_node_behind_the_same_address_ends_the_transport(tmp_path: Path) -> None:
    """All keys and paths are another's then."""
    async with running(tmp_path, "native") as at:
        stream = at.onions.receive()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(at.onions.up.wait(), 20)
        at.sim.node.node_id = keys.public_key(b"\x66" * 32)
        await at.sim.restart()
        with pytest.raises(ModeChanged, match="another node"):
            await asyncio.wait_for(first, 30)


async def test_an_lnd_that_comes_back_without_bit_39_ends_the_transport(tmp_path: Path) -> None:
    """The operator took the lines out: the error names them."""
    async with running(tmp_path, "custom") as at:
        stream = at.onions.receive()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(at.onions.up.wait(), 20)
        at.sim.features.clear()
        await at.sim.restart()
        with pytest.raises(LndSetupError, match=r"protocol\.custom-nodeann=39"):
            await asyncio.wait_for(first, 30)


@pytest.mark.parametrize(
    ("mode", "uri"), [("native", calls.ONION_MESSAGES.uri), ("custom", calls.CUSTOM_MESSAGES.uri)]
)
async def test_a_stream_that_is_not_allowed_is_one_clear_error(tmp_path: Path, mode: Mode, uri: str) -> None:
    """At start it ends the sidecar, naming the permission."""
    async with running(tmp_path, mode) as at:
        at.sim.denied.add(uri)
        with pytest.raises(LndDenied, match=uri):
            await asyncio.wait_for(anext(at.onions.receive()), 20)


async def test_a_permission_lost_on_the_way_is_said_once_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that worked before: the operator is at work on the macaroon, and the sidecar stays."""
    async with running(tmp_path, "native") as at, reading(at) as got:
        link = await at.sim.connect_peer(PAYER)
        await link.send_onion(*to_sidecar(at.sim))
        await asyncio.wait_for(got.get(), 10)

        async def lose_and_give_back() -> None:
            at.sim.denied.add(calls.ONION_MESSAGES.uri)
            at.sim.cut_streams()
            await at.sim.until_called("SubscribeOnionMessages", 4)
            at.sim.denied.clear()

        await took_up_again(at, lose_and_give_back)
        await link.send_onion(*to_sidecar(at.sim))
        await asyncio.wait_for(got.get(), 10)
        assert len([record for record in caplog.records if "macaroon-permissions" in record.message]) == 1


async def test_leaving_the_iterator_ends_the_stream(tmp_path: Path) -> None:
    """LND keeps no queue for a reader that is gone."""
    async with running(tmp_path, "native") as at:
        async with reading(at):
            assert len(at.sim.node.onions) == 1
        await asyncio.wait_for(at.sim.node.onions.idle.wait(), 10)
        assert not at.onions.stream_up


# --- the end ----------------------------------------------------------------------------------------


@MODES
async def test_what_came_before_the_finish_is_read_and_then_it_ends(tmp_path: Path, mode: Mode) -> None:
    """The queue may be full, and it may be said twice."""
    async with running(tmp_path, mode, queue_size=2) as at:
        onions, stream = at.onions, aiter(at.onions.receive())
        link = await at.sim.connect_peer(PAYER)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(onions.up.wait(), 20)
        await link.send_onion(*to_sidecar(at.sim))
        await asyncio.wait_for(first, 10)
        for _ in range(2):
            await link.send_onion(*to_sidecar(at.sim))
        async with asyncio.timeout(10):
            while onions.queued < 2:  # noqa: ASYNC110 - a queue tells nobody how full it is
                await asyncio.sleep(0.01)
            onions.finish()
            onions.finish()
            assert len([received async for received in stream]) == 2


async def test_a_finish_ends_a_reader_that_waits_and_one_that_has_not_begun(tmp_path: Path) -> None:
    """Nothing is there to be read."""
    async with running(tmp_path, "native") as at, asyncio.timeout(20):
        waiting = NativeOnions(at.lnd, at.count)

        async def read(onions: NativeOnions) -> list[Received]:
            return [received async for received in onions.receive()]

        reader = asyncio.create_task(read(waiting))
        await waiting.up.wait()
        waiting.finish()
        assert await reader == []
        later = NativeOnions(at.lnd, at.count)
        later.finish()
        assert await read(later) == []


@MODES
async def test_what_is_too_long_for_an_onion_takes_no_place_in_the_queue(tmp_path: Path, mode: Mode) -> None:
    """BOLT 4 has two sizes; what waits is bounded in bytes by that of the larger."""
    async with running(tmp_path, mode) as at, reading(at) as got:
        for size in (onion.LARGE_PACKET + 1, 65_000, onion.LARGE_PACKET):
            data = bytes(33) + size.to_bytes(2, "big") + bytes(size)
            if mode == "native":
                update = ln.OnionMessageUpdate(peer=bytes(33), path_key=bytes(33), onion=bytes(size))
                at.sim.node.onions.send(update)
            else:
                at.sim.node.customs.send(ln.CustomMessage(peer=bytes(33), type=513, data=data))
        assert len((await asyncio.wait_for(got.get(), 10)).onion) == onion.LARGE_PACKET
        assert at.counted["bad-onion-message"] == 2
