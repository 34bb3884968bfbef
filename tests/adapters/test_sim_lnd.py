"""The simulated LND does what the real ones were recorded to do."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sidecar.core import keys, onion, paths
from sidecar.core.wire import encode_tlvs
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_grpc
from tests.harness.link import Link, LinkClosed
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import SimLink, SimNode
from tests.vectors import load

SENDER, CLIENT = b"\x31" * 32, b"\x32" * 32


def recorded_node(recording: dict[str, Any], case: dict[str, Any], mode: Any) -> SimNode:
    """A node whose key answers as the recorded one's did, and knows nothing else."""
    answers = case["lnd_derive_shared_key"]

    def ecdh(point: bytes) -> bytes:
        return bytes.fromhex(answers[point.hex()])

    return SimNode(mode, bytes.fromhex(recording["lnd_node_id"]), ecdh)


@functools.cache
def recording(name: str) -> dict[str, Any]:
    """One file of recordings."""
    loaded: dict[str, Any] = load("lnd", name)
    return loaded


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a recording."""
    found: list[dict[str, Any]] = recording(name)["cases"]
    return found


async def replay(node: SimNode, case: dict[str, Any]) -> tuple[list[Any], SimLink | None]:
    """Send a recorded message again; the updates that come of it, and the next hop's link if it is there."""
    online = "online" in case["name"]
    hops = [update["next_hop"] for update in case["updates"] if "next_hop" in update]
    receiver = node.connect(bytes.fromhex(hops[0]["node_id"]), (39,)) if hops and online else None
    sender = node.connect(bytes.fromhex(case["from_peer"]), (39,))
    native, custom = node.onions.subscribe(), node.customs.subscribe()
    await sender.send_onion(bytes.fromhex(case["sent_path_key"]), bytes.fromhex(case["sent_onion"]))
    updates: list[Any] = []
    for queue in (native, custom):
        while not queue.empty():
            updates.append(queue.get_nowait())
    return updates, receiver


@pytest.mark.parametrize("index", range(15))
async def test_native_streams_what_lnd_0_21_2_streamed(index: int) -> None:
    """Each recorded message gives the recorded updates, to the byte, and goes on as it did."""
    case = cases("native-0.21.2.json")[index]
    node = recorded_node(recording("native-0.21.2.json"), case, "native")
    if not case["updates"]:
        # What LND dropped was recorded without secrets, so it can't be replayed: the next test has them.
        assert case["lnd_derive_shared_key"] == {}
        return
    updates, receiver = await replay(node, case)
    expected = [
        ln.OnionMessageUpdate.FromString(bytes.fromhex(update["update"])) for update in case["updates"]
    ]
    assert updates == expected
    if receiver is not None:
        hop = case["updates"][0]["next_hop"]
        path_key, packet = await receiver.receive_onion()
        assert (path_key.hex(), packet.hex()) == (hop["path_key"], hop["onion"])


@pytest.mark.parametrize("index", range(15))
async def test_native_drops_what_lnd_0_21_2_dropped(index: int) -> None:
    """The 0.20.3 recording of a case has its secrets: the same message gives 0.21.2's number of updates."""
    case, native = cases("custom-0.20.3.json")[index], cases("native-0.21.2.json")[index]
    assert case["name"] == native["name"]
    node = recorded_node(recording("custom-0.20.3.json"), case, "native")
    updates, _ = await replay(node, case)
    assert len(updates) == len(native["updates"])
    if not updates:
        assert "unknown even tlv type" in node.dropped[0]


@pytest.mark.parametrize("index", range(15))
async def test_custom_streams_what_lnd_0_20_3_streamed(index: int) -> None:
    """Each message is streamed raw, to the byte, and none is forwarded."""
    case = cases("custom-0.20.3.json")[index]
    node = recorded_node(recording("custom-0.20.3.json"), case, "custom")
    updates, receiver = await replay(node, case)
    expected = [ln.CustomMessage.FromString(bytes.fromhex(update["update"])) for update in case["updates"]]
    assert updates == expected
    if receiver is not None:
        await receiver.close()
        with pytest.raises(LinkClosed):
            await receiver.receive_onion()


@pytest.mark.parametrize("index", range(21))
async def test_native_with_channels_streams_what_lnd_0_21_2_streamed(index: int) -> None:
    """Messages between real wallets, with next hops by scid, give the recorded updates."""
    name = "native-0.21.2-channels.json"
    case = cases(name)[index]
    node = recorded_node(recording(name), case, "native")
    sim_channels(node, case)
    expected = ln.OnionMessageUpdate.FromString(bytes.fromhex(case["update"]))
    updates = node.onions.subscribe()
    sender = node.connect(expected.peer, (39,))
    await sender.send_onion(expected.path_key, expected.onion)
    assert updates.get_nowait() == expected
    assert not node.dropped


def sim_channels(node: SimNode, case: dict[str, Any]) -> None:
    """The channels that the recorded LND had."""
    for scid, peer in case["next_hops_by_scid"].items():
        first, second = sorted((node.node_id, bytes.fromhex(peer)))
        node.edges[int(scid)] = first, second


def test_no_recorded_case_is_left_out() -> None:
    """The numbers of cases above are those of the recordings."""
    assert len(cases("native-0.21.2.json")) == len(cases("custom-0.20.3.json")) == 15
    assert len(cases("native-0.21.2-channels.json")) == 21


# --- rules that the recordings do not show, as design notes and LND's source have them ----------


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedLnd:
    """A native one, not listening: messages alone need no gRPC."""
    return SimulatedLnd(tmp_path)


def message_to(path: paths.BlindedPath, final: dict[int, bytes]) -> tuple[bytes, bytes]:
    """An onion message along a blinded path."""
    payloads = [(hop.blinded_node_id, {4: hop.encrypted_recipient_data}) for hop in path.hops]
    payloads[-1][1].update(final)
    hops = [(node, encode_tlvs(records)) for node, records in payloads]
    return path.path_key, onion.build(os.urandom(32), hops)


def path_over(*hops: tuple[bytes, bytes]) -> paths.BlindedPath:
    """A blinded path with a fresh secret."""
    return paths.build(os.urandom(32), hops)


async def updates_of(sim: SimulatedLnd, message: tuple[bytes, bytes]) -> list[ln.OnionMessageUpdate]:
    """What is streamed of a message from SENDER."""
    link, queue = await sim.connect_peer(SENDER), sim.node.onions.subscribe()
    await link.send_onion(*message)
    found = []
    while not queue.empty():
        update = queue.get_nowait()
        assert update is not None
        found.append(update)
    return found


@pytest.mark.parametrize(
    ("final", "streamed"),
    [
        ({64: b"x"}, True),
        ({66: b"x"}, True),
        ({68: b"x"}, True),
        ({65: b"x"}, True),
        ({75541: b""}, True),
        ({}, True),
        ({70: b"x"}, False),
        ({72: b"x"}, False),
        ({65540: b"x"}, False),
        ({75546: b"x"}, False),
        ({64: b"x", 65: b"y"}, False),
        ({6: b"x"}, False),
    ],
)
async def test_only_known_even_types_reach_a_subscriber(
    sim: SimulatedLnd, final: dict[int, bytes], streamed: bool
) -> None:
    """LND as last hop: an unknown even type, or two payloads, and nobody sees the message."""
    message = message_to(path_over((sim.node_id, paths.path_id_data(b"id"))), final)
    assert bool(await updates_of(sim, message)) is streamed


async def test_a_sciddir_reply_path_is_dropped(sim: SimulatedLnd) -> None:
    """LND as last hop parses reply_path, and knows no sciddir."""
    reply = path_over((sim.node_id, paths.path_id_data(b"r")))
    compact = paths.BlindedPath(paths.SciddirIntroduction(0, 5), reply.path_key, reply.hops)
    to_lnd = path_over((sim.node_id, paths.path_id_data(b"id")))
    assert await updates_of(sim, message_to(to_lnd, {2: paths.encode_path(reply), 64: b"x"}))
    assert not await updates_of(sim, message_to(to_lnd, {2: paths.encode_path(compact), 64: b"x"}))


async def test_next_hop_by_scid_is_looked_up_in_the_graph_alone(sim: SimulatedLnd) -> None:
    """A real scid of a private channel is found; an alias gives no update at all."""
    client = keys.public_key(CLIENT)
    sim.add_channel(1001, client, aliases=[16_000_000 << 40], public=False)
    link = await sim.connect_peer(CLIENT)
    for scid, found in ((1001, True), (16_000_000 << 40, False)):
        hop = encode_tlvs({paths.SHORT_CHANNEL_ID: scid.to_bytes(8, "big")})
        message = message_to(path_over((sim.node_id, hop), (client, paths.path_id_data(b"c"))), {64: b"x"})
        assert bool(await updates_of(sim, message)) is found
    path_key, packet = await link.receive_onion()
    blinded = paths.blinding_factor(keys.ecdh(CLIENT, path_key))
    tweaked = keys.multiply_point(onion.check_packet(packet), blinded)
    assert isinstance(onion.peel(packet, keys.ecdh(CLIENT, tweaked)), onion.Final)


async def test_no_update_when_the_next_hop_is_the_sender(sim: SimulatedLnd) -> None:
    """LND calls it a cycle and drops it."""
    sender = keys.public_key(SENDER)
    path = path_over((sim.node_id, paths.next_hop_data(sender)), (sender, paths.path_id_data(b"s")))
    assert not await updates_of(sim, message_to(path, {64: b"x"}))
    assert "cycle" in sim.node.dropped[0]


async def test_the_same_packet_again_is_streamed_again(sim: SimulatedLnd) -> None:
    """LND remembers no packets."""
    message = message_to(path_over((sim.node_id, paths.path_id_data(b"id"))), {64: b"x"})
    assert [len(await updates_of(sim, message)) for _ in range(3)] == [1, 1, 1]


async def test_garbage_is_dropped(sim: SimulatedLnd) -> None:
    """Neither a bad point nor a packet for another key reaches a subscriber."""
    good = message_to(path_over((sim.node_id, paths.path_id_data(b"id"))), {64: b"x"})
    for message in ((b"\x05" * 33, good[1]), (keys.public_key(CLIENT), good[1]), (good[0], good[1][:-1])):
        assert not await updates_of(sim, message)
    assert len(sim.node.dropped) == 3


async def test_a_link_is_what_tests_speak_through(sim: SimulatedLnd) -> None:
    """SimLink fulfils Link; a link that is closed says so to both ends."""
    link: Link = await sim.connect_peer(CLIENT)
    await link.close()
    await link.close()
    with pytest.raises(LinkClosed):
        await link.receive_onion()
    with pytest.raises(LinkClosed):
        await link.send_custom(37913, b"{}")


async def test_custom_mode_answers_unimplemented_for_what_came_with_0_21(tmp_path: Path) -> None:
    """With any macaroon or none: an unknown method is refused before the macaroon is looked at."""
    async with SimulatedLnd(tmp_path, "custom") as sim:
        credentials = grpc.ssl_channel_credentials(sim.tls_path.read_bytes())
        async with grpc.aio.secure_channel(sim.host, credentials) as channel:
            stub = ln_grpc.LightningStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.SendOnionMessage(ln.SendOnionMessageRequest())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            details = "unknown method SendOnionMessage for service lnrpc.Lightning"
            assert caught.value.details() == details
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetInfo(ln.GetInfoRequest())
            assert (caught.value.code(), caught.value.details()) == (
                grpc.StatusCode.UNKNOWN,
                "expected 1 macaroon, got 0",
            )
