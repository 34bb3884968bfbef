"""What the sidecar takes for granted about LND, asked of real ones: 0.21 (native) and 0.20 (custom)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from sidecar.core import keys, onion, paths
from sidecar.core.wire import decode_tlvs, encode_tlvs
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from sidecar.rpc import signer_pb2 as signer
from sidecar.rpc import signer_pb2_grpc as signer_rpc
from tests.harness.bolt8 import Bolt8Link, connect, listen
from tests.harness.lnd_process import Kind, LndError, LndProcess
from tests.harness.noise import new_secret

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

ENCRYPTED_RECIPIENT_DATA = 4
KINDS: tuple[Kind, ...] = ("native", "custom")
SHARED_URIS = [
    "/signrpc.Signer/DeriveSharedKey",
    *(
        f"/lnrpc.Lightning/{method}"
        for method in (
            "GetInfo",
            "ListPeers",
            "ListChannels",
            "GetChanInfo",
            "GetNodeInfo",
            "ConnectPeer",
            "DisconnectPeer",
            "SubscribePeerEvents",
        )
    ),
]
URIS: dict[Kind, list[str]] = {
    "native": [
        *SHARED_URIS,
        "/lnrpc.Lightning/SubscribeOnionMessages",
        "/lnrpc.Lightning/SendOnionMessage",
    ],
    "custom": [
        *SHARED_URIS,
        "/lnrpc.Lightning/SubscribeCustomMessages",
        "/lnrpc.Lightning/SendCustomMessage",
    ],
}
Update = tuple[bytes, bytes, bytes]


class Node:
    """A running LND, and the calls to it, with a macaroon of just the URIs that the sidecar needs."""

    def __init__(self, process: LndProcess, channel: grpc.aio.Channel) -> None:
        self.process = process
        self.kind = process.kind
        self.node_id = process.node_id
        self.lightning = ln_rpc.LightningStub(channel)
        self._signer = signer_rpc.SignerStub(channel)

    async def ecdh(self, point: bytes) -> bytes:
        """Ask for the node key's shared secret with a point."""
        location = signer.KeyLocator(key_family=6, key_index=0)
        request = signer.SharedKeyRequest(
            ephemeral_pubkey=point, key_desc=signer.KeyDescriptor(key_loc=location)
        )
        return (await self._signer.DeriveSharedKey(request)).shared_key

    def connect(self) -> Awaitable[Bolt8Link]:
        """Connect a peer that has no channel."""
        return connect("127.0.0.1", self.process.p2p_port, self.node_id, new_secret())

    async def updates(self) -> AsyncIterator[Update]:
        """Stream the onion messages that LND hands out, as (peer, path_key, onion)."""
        if self.kind == "native":
            async for update in self.lightning.SubscribeOnionMessages(ln.SubscribeOnionMessagesRequest()):
                yield update.peer, update.path_key, update.onion
        else:
            async for message in self.lightning.SubscribeCustomMessages(ln.SubscribeCustomMessagesRequest()):
                if message.type == 513:
                    yield message.peer, message.data[:33], message.data[35:]

    async def send(self, peer: bytes, path_key: bytes, packet: bytes) -> None:
        """Send an onion message through LND."""
        if self.kind == "native":
            request = ln.SendOnionMessageRequest(peer=peer, path_key=path_key, onion=packet)
            await self.lightning.SendOnionMessage(request)
        else:
            data = path_key + len(packet).to_bytes(2, "big") + packet
            await self.lightning.SendCustomMessage(
                ln.SendCustomMessageRequest(peer=peer, type=513, data=data)
            )


@asynccontextmanager
async def running(kind: Kind, folder: Path) -> AsyncIterator[Node]:
    """Start an LND and bake a macaroon."""
    async with LndProcess(kind, folder) as process:
        macaroon = await process.bake(URIS[kind])
        async with process.channel(macaroon) as channel:
            yield Node(process, channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    """Start one LND of each kind for the whole module."""
    async with running(request.param, tmp_path_factory.mktemp("lnd")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def peer(node: Node) -> AsyncIterator[Bolt8Link]:
    """Connect a peer without a channel."""
    link = await node.connect()
    yield link
    await link.close()


def packet_along(path: paths.BlindedPath, payload: dict[int, bytes]) -> bytes:
    """Build an onion packet whose last hop gets this payload."""
    records: list[dict[int, bytes]] = [{} for _ in path.hops]
    records[-1] = payload
    hops = [
        (
            hop.blinded_node_id,
            encode_tlvs(
                dict(sorted({**record, ENCRYPTED_RECIPIENT_DATA: hop.encrypted_recipient_data}.items()))
            ),
        )
        for hop, record in zip(path.hops, records, strict=True)
    ]
    return onion.build(new_secret(), hops)


async def until_streamed(stream: AsyncIterator[Update], send: Callable[[], Awaitable[None]]) -> Update:
    """Send until the subscription is there: gRPC has no event for LND having taken it up."""
    read = asyncio.ensure_future(anext(stream))
    while not read.done():
        await send()
        await asyncio.wait({read}, timeout=0.2)
    return await read


async def peel(ecdh: Callable[[bytes], Awaitable[bytes]], path_key: bytes, packet: bytes) -> Any:
    """Open one layer: its recipient data's shared secret first, then the packet's."""
    blinding = await ecdh(path_key)
    tweaked = paths.blind(onion.check_packet(packet), blinding)
    return blinding, onion.peel(packet, await ecdh(tweaked))


@pytest.mark.parametrize(
    ("type_", "body"),
    [(64, bytes(500)), (65540, b"\2\1\0"), (75540, bytes(100)), (70, bytes(5000))],
    ids=["invoice_request", "even-unknown", "even-unknown-ldk", "large-packet"],
)
async def test_a_path_behind_lnd_gets_every_type_through(
    node: Node, peer: Bolt8Link, type_: int, body: bytes
) -> None:
    """[LND, a key of ours]: LND can't forward, streams the packet, and two signer calls peel its layer."""
    secret = new_secret()
    path = paths.build(
        new_secret(),
        [
            (node.node_id, paths.next_hop_data(keys.public_key(secret))),
            (keys.public_key(secret), paths.path_id_data(b"context")),
        ],
    )
    packet = packet_along(path, {type_: body})
    stream = node.updates()
    got = await until_streamed(stream, lambda: peer.send_onion(path.path_key, packet))
    assert got == (peer.node_id, path.path_key, packet)

    blinding, layer = await peel(node.ecdh, got[1], got[2])
    assert isinstance(layer, onion.Forward)
    encrypted = decode_tlvs(layer.payload)[ENCRYPTED_RECIPIENT_DATA]
    hop = paths.follow(path.path_key, blinding, paths.decrypt_recipient_data(blinding, encrypted))
    assert hop.node_id == keys.public_key(secret)

    async def own(point: bytes) -> bytes:
        return keys.ecdh(secret, point)

    blinding, layer = await peel(own, hop.path_key, layer.next_packet)
    assert isinstance(layer, onion.Final)
    payload = decode_tlvs(layer.payload)
    assert payload.pop(type_) == body
    data = paths.decrypt_recipient_data(blinding, payload.pop(ENCRYPTED_RECIPIENT_DATA))
    assert (data.path_id, payload) == (b"context", {})


async def test_as_last_hop_lnd_021_swallows_unknown_even_types(node: Node, peer: Bolt8Link) -> None:
    """Why no path of ours ends at LND: 75540 never arrives there, 64 does. 0.20 hands out both."""
    path = paths.build(new_secret(), [(node.node_id, paths.path_id_data(b"context"))])
    even, known = (packet_along(path, {type_: b"\0"}) for type_ in (75540, 64))

    async def both() -> None:
        await peer.send_onion(path.path_key, even)
        await peer.send_onion(path.path_key, known)

    _, _, first = await until_streamed(node.updates(), both)
    assert first == (known if node.kind == "native" else even)


async def test_a_packet_reaches_a_connected_peer(node: Node, peer: Bolt8Link) -> None:
    """Both sizes go out as message 513, to the byte."""
    path_key = keys.public_key(new_secret())
    for size in (onion.SMALL_PACKET, onion.LARGE_PACKET):
        await node.send(peer.node_id, path_key, b"\0" * size)
        assert await peer.receive_onion() == (path_key, b"\0" * size)


async def test_a_peer_that_is_away_is_not_found(node: Node) -> None:
    """NOT_FOUND is how both kinds say that the peer is not connected."""
    stranger = keys.public_key(new_secret())
    with pytest.raises(grpc.aio.AioRpcError, match="peer is not connected") as error:
        await node.send(stranger, stranger, bytes(onion.SMALL_PACKET))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


async def test_lnd_dials_a_peer_and_hangs_up(node: Node) -> None:
    """ConnectPeer returns when the peer is there or soon after; the peer event says when."""
    events = node.lightning.SubscribePeerEvents(ln.PeerEventSubscription())
    async with await listen(new_secret()) as listener:
        address = ln.LightningAddress(pubkey=listener.node_id.hex(), host=f"127.0.0.1:{listener.port}")
        await node.lightning.ConnectPeer(ln.ConnectPeerRequest(addr=address, timeout=5))
        link = await listener.accept()
        assert link.remote_node_id == node.node_id
        assert 39 in link.remote_features
        async for event in events:
            if event.pub_key == listener.node_id.hex():
                assert event.type == ln.PeerEvent.PEER_ONLINE
                break
        await node.lightning.DisconnectPeer(ln.DisconnectPeerRequest(pub_key=listener.node_id.hex()))
        await link.wait_closed()
    events.cancel()


async def test_an_empty_send_tells_whether_lnd_is_native(node: Node) -> None:
    """The probe: 0.21 stumbles over the empty path key, 0.20 has no such method; nothing is sent."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await node.lightning.SendOnionMessage(ln.SendOnionMessageRequest())
    expected = grpc.StatusCode.UNKNOWN if node.kind == "native" else grpc.StatusCode.UNIMPLEMENTED
    assert error.value.code() == expected


async def test_a_call_that_the_macaroon_lacks_is_denied(node: Node) -> None:
    """LND answers UNKNOWN, "permission denied": the code alone does not tell."""
    only = await node.process.bake(["/lnrpc.Lightning/GetInfo"])
    async with node.process.channel(only) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="permission denied") as error:
            await ln_rpc.LightningStub(channel).ListPeers(ln.ListPeersRequest())
    assert error.value.code() == grpc.StatusCode.UNKNOWN


async def test_what_the_graph_does_not_know_is_not_found(node: Node) -> None:
    """NOT_FOUND for channels and nodes alike."""
    stranger = keys.public_key(new_secret()).hex()
    calls: Sequence[Awaitable[Any]] = (
        node.lightning.GetChanInfo(ln.ChanInfoRequest(chan_id=123456789)),
        node.lightning.GetNodeInfo(ln.NodeInfoRequest(pub_key=stranger, include_channels=True)),
    )
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert error.value.code() == grpc.StatusCode.NOT_FOUND


async def test_bit_39_is_announced(node: Node) -> None:
    """GetInfo shows onion_messages of both kinds."""
    info = await node.lightning.GetInfo(ln.GetInfoRequest())
    assert 39 in info.features


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_the_stream_ends_with_unavailable(tmp_path: Path, how: str) -> None:
    """Whether LND is stopped or dies, its subscribers' streams fail rather than hang."""
    async with running("native", tmp_path) as node, await node.connect() as peer:
        path = paths.build(new_secret(), [(node.node_id, paths.path_id_data(b"context"))])
        packet = packet_along(path, {64: b""})
        stream = node.updates()
        await until_streamed(stream, lambda: peer.send_onion(path.path_key, packet))
        await getattr(node.process, how)()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in stream:
                pass
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_an_upgrade_keeps_the_node_and_its_secrets(tmp_path: Path) -> None:
    """0.21 on 0.20's folder: same node id, same shared secrets: contexts and paths live on."""
    point = keys.public_key(new_secret())
    async with running("custom", tmp_path) as node:
        before = node.node_id, await node.ecdh(point)
    async with running("native", tmp_path) as node:
        assert (node.node_id, await node.ecdh(point)) == before


async def test_lnd_021_refuses_the_flags_of_020(tmp_path: Path) -> None:
    """An upgrade must take the `protocol.custom-*=39` lines out of lnd.conf."""
    process = LndProcess("native", tmp_path, protocol=["--protocol.custom-init=39"])
    with pytest.raises(LndError, match="feature bit: 39 already set"):
        await process.start()


async def test_no_onion_messages_takes_the_bit_away(tmp_path: Path) -> None:
    """`no-onion-messages` leaves the calls in place: only the missing bit tells."""
    async with (
        LndProcess("native", tmp_path, protocol=["--protocol.no-onion-messages"]) as process,
        process.channel() as channel,
    ):
        info = await ln_rpc.LightningStub(channel).GetInfo(ln.GetInfoRequest())
        assert not {38, 39} & set(info.features)
