# ruff: noqa: N802 - methods are named as the gRPC services name them
"""The simulated LND's gRPC services: the statuses and texts are those of a real LND 0.21.2 and 0.20.3."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
import grpc.aio

from sidecar.core import keys
from sidecar.core.errors import BadPoint
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import signer_pb2 as signer
from sidecar.rpc import state_pb2 as state
from tests.harness import ln_signature
from tests.harness.sim_node import CUSTOM_START, ONION_MESSAGE, Broadcast, NotConnected

if TYPE_CHECKING:
    from tests.harness.sim_lnd import SimulatedLnd

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

_VERSIONS = {"native": "0.21.2-beta commit=", "custom": "0.20.3-beta commit="}
_NATIVE_ONLY = ("SubscribeOnionMessages", "SendOnionMessage")


async def _unknown(context: Context, text: str) -> NoReturn:
    """LND gives nearly all of its errors this code."""
    await context.abort(grpc.StatusCode.UNKNOWN, text)


async def _not_found(context: Context, text: str) -> NoReturn:
    await context.abort(grpc.StatusCode.NOT_FOUND, text)


class Gate(grpc.aio.ServerInterceptor):
    """Whether LND has the method at all, its state, and the macaroon: they come before any service."""

    def __init__(self, sim: SimulatedLnd) -> None:
        self._sim = sim

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The service's own handler, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        service, _, name = method.strip("/").partition("/")
        self._sim.count_call(name)
        metadata = handler_call_details.invocation_metadata or ()
        macaroons = [str(value) for key, value in metadata if key == "macaroon"]
        if self._sim.mode == "custom" and name in _NATIVE_ONLY:
            code, text = grpc.StatusCode.UNIMPLEMENTED, f"unknown method {name} for service {service}"
        elif refusal := self._sim.refusal(method, macaroons):
            code, text = grpc.StatusCode.UNKNOWN, refusal
        else:
            return handler

        async def refuse(_: Any, context: Context) -> NoReturn:
            await context.abort(code, text)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


class StateService:
    """lnrpc.State."""

    def __init__(self, sim: SimulatedLnd) -> None:
        self._sim = sim

    async def GetState(self, _: state.GetStateRequest, __: Context) -> state.GetStateResponse:
        """The state now."""
        return state.GetStateResponse(state=self._sim.state)

    async def SubscribeState(
        self, _: state.SubscribeStateRequest, __: Context
    ) -> AsyncIterator[state.SubscribeStateResponse]:
        """The state now, and each change."""
        queue = self._sim.states.subscribe()
        try:
            yield state.SubscribeStateResponse(state=self._sim.state)
            while (now := await queue.get()) is not None:
                yield state.SubscribeStateResponse(state=now)
        finally:
            self._sim.states.unsubscribe(queue)


class SignerService:
    """signrpc.Signer."""

    def __init__(self, sim: SimulatedLnd) -> None:
        self._sim = sim

    async def DeriveSharedKey(
        self, request: signer.SharedKeyRequest, context: Context
    ) -> signer.SharedKeyResponse:
        """ECDH with the node key."""
        if not request.ephemeral_pubkey:
            await _unknown(context, "must provide ephemeral pubkey")
        where = request.key_desc.key_loc
        if (where.key_family, where.key_index) != (6, 0):
            await _unknown(context, "the simulated LND has no key but its node key")
        try:
            shared = self._sim.node.ecdh(request.ephemeral_pubkey)
        except BadPoint as error:
            await _unknown(context, f"error in ephemeral pubkey: {error}")
        return signer.SharedKeyResponse(shared_key=shared)


class LightningService:
    """lnrpc.Lightning."""

    def __init__(self, sim: SimulatedLnd) -> None:
        self._sim, self._node = sim, sim.node

    async def GetInfo(self, _: ln.GetInfoRequest, __: Context) -> ln.GetInfoResponse:
        """Who it is."""
        return ln.GetInfoResponse(
            identity_pubkey=self._node.node_id.hex(),
            alias="simulated",
            version=_VERSIONS[self._sim.mode],
            block_height=1,
            chains=[ln.Chain(network=self._sim.network)],
            features={bit: ln.Feature(name="onion-messages", is_known=True) for bit in self._sim.features},
        )

    # --- messages --------------------------------------------------------------------------

    async def SendOnionMessage(
        self, request: ln.SendOnionMessageRequest, context: Context
    ) -> ln.SendOnionMessageResponse:
        """Path key first, then the peer, as LND checks them."""
        try:
            keys.check_point(request.path_key)
        except BadPoint as error:
            await _unknown(context, f"unable to decode path key bytes: malformed public key: {error}")
        size = len(request.onion).to_bytes(2, "big")
        await self._send(context, request.peer, ONION_MESSAGE, request.path_key + size + request.onion)
        return ln.SendOnionMessageResponse(status="onion message sent successfully")

    async def SendCustomMessage(
        self, request: ln.SendCustomMessageRequest, context: Context
    ) -> ln.SendCustomMessageResponse:
        """Any type from 32,768 on; 513 in custom mode."""
        allowed = request.type >= CUSTOM_START or self._sim.custom_types
        if request.peer in self._node.peers and not allowed:
            text = f"msg type: {request.type} not in custom range: {CUSTOM_START} and not overridden"
            await _unknown(context, text)
        await self._send(context, request.peer, request.type, request.data)
        return ln.SendCustomMessageResponse(status="message sent successfully")

    async def _send(self, context: Context, peer: bytes, type_: int, data: bytes) -> None:
        if len(peer) != 33:
            await _unknown(context, f"invalid vertex length of {len(peer)}, want 33")
        try:
            self._node.send(peer, type_, data)
        except NotConnected:
            await _not_found(context, "peer is not connected")

    async def SubscribeOnionMessages(
        self, _: ln.SubscribeOnionMessagesRequest, context: Context
    ) -> AsyncIterator[ln.OnionMessageUpdate]:
        """What LND opened."""
        async for update in self._stream(self._node.onions, context):
            yield update

    async def SubscribeCustomMessages(
        self, _: ln.SubscribeCustomMessagesRequest, context: Context
    ) -> AsyncIterator[ln.CustomMessage]:
        """What LND does not handle."""
        async for update in self._stream(self._node.customs, context):
            yield update

    async def SubscribePeerEvents(
        self, _: ln.PeerEventSubscription, context: Context
    ) -> AsyncIterator[ln.PeerEvent]:
        """Who comes and goes."""
        async for update in self._stream(self._node.events, context):
            yield update

    async def _stream(self, source: Broadcast[T], context: Context) -> AsyncIterator[T]:
        queue = source.subscribe()
        try:
            while (update := await queue.get()) is not None:
                yield update
        finally:
            source.unsubscribe(queue)
        await _unknown(context, "shutdown")

    async def SignMessage(self, request: ln.SignMessageRequest, context: Context) -> ln.SignMessageResponse:
        """With the node key."""
        if not request.msg:
            await _unknown(context, "need a message to sign")
        return ln.SignMessageResponse(signature=ln_signature.sign(self._sim.secret, request.msg))

    # --- channels, peers and the graph -----------------------------------------------------

    async def CheckMacaroonPermissions(
        self, _: ln.CheckMacPermRequest, context: Context
    ) -> ln.CheckMacPermResponse:
        """A macaroon of just what the sidecar calls may not ask."""
        await _unknown(context, "permission denied")

    async def ListPeers(self, _: ln.ListPeersRequest, __: Context) -> ln.ListPeersResponse:
        """Who is connected."""
        peers = [
            ln.Peer(
                pub_key=node_id.hex(),
                bytes_recv=link.bytes_recv,
                inbound=link.inbound,
                features={bit: ln.Feature(is_known=True) for bit in link.features},
            )
            for node_id, link in self._node.peers.items()
        ]
        return ln.ListPeersResponse(peers=peers)

    async def ListChannels(self, _: ln.ListChannelsRequest, __: Context) -> ln.ListChannelsResponse:
        """LND's own channels."""
        channels = [
            ln.Channel(
                active=channel.peer in self._node.peers,
                remote_pubkey=channel.peer.hex(),
                chan_id=channel.scid,
                alias_scids=channel.aliases,
                zero_conf_confirmed_scid=channel.confirmed,
                peer_scid_alias=channel.peers_alias,
            )
            for channel in self._node.channels
        ]
        return ln.ListChannelsResponse(channels=channels)

    async def GetChanInfo(self, request: ln.ChanInfoRequest, context: Context) -> ln.ChannelEdge:
        """A channel of the graph."""
        if not request.chan_id:
            await _unknown(context, "specify either chan_id or chan_point")
        edge = self._node.scid_in_graph(request.chan_id)
        if edge is None:
            await _not_found(context, "edge not found")
        return ln.ChannelEdge(channel_id=request.chan_id, node1_pub=edge[0].hex(), node2_pub=edge[1].hex())

    async def GetNodeInfo(self, request: ln.NodeInfoRequest, context: Context) -> ln.NodeInfo:
        """A node of the graph, with its announced channels."""
        if len(request.pub_key) != 66:
            text = f"invalid vertex string length of {len(request.pub_key)}, want 66"
            await _unknown(context, text)
        node_id = bytes.fromhex(request.pub_key)
        node = self._node.graph.get(node_id)
        if node is None:
            await _not_found(context, "unable to find node")
        addresses = [ln.NodeAddress(network="tcp", addr=address) for address in node.addresses]
        edges = dict(self._node.edges)
        for channel in self._node.channels:
            if channel.public:
                first, second = sorted((self._node.node_id, channel.peer))
                edges[channel.scid] = first, second
        announced = [
            ln.ChannelEdge(channel_id=scid, node1_pub=ends[0].hex(), node2_pub=ends[1].hex())
            for scid, ends in edges.items()
            if node_id in ends and request.include_channels
        ]
        return ln.NodeInfo(
            node=ln.LightningNode(
                pub_key=request.pub_key, addresses=addresses, last_update=1 if node.addresses else 0
            ),
            channels=announced,
        )

    async def ConnectPeer(self, request: ln.ConnectPeerRequest, context: Context) -> ln.ConnectPeerResponse:
        """Returns once the transport stands; that the peer is online comes after, as an event."""
        if not request.HasField("addr"):
            await _unknown(context, "need: lnc pubkeyhash@hostname")
        node_id, host = bytes.fromhex(request.addr.pubkey), request.addr.host
        self._sim.dialled.append((node_id, host))
        if node_id in self._node.peers:
            await _unknown(context, f"already connected to peer: {node_id.hex()}@{host}")
        node = self._node.graph.get(node_id)
        if node is None or not node.listens or host not in node.addresses:
            await _unknown(context, f"dial tcp {host}: connect: connection refused")
        connected = functools.partial(self._node.connect, node_id, (39,), inbound=False)
        asyncio.get_running_loop().call_soon(connected)
        return ln.ConnectPeerResponse(status=f"connection to {node_id.hex()}@{host} initiated")

    async def DisconnectPeer(
        self, request: ln.DisconnectPeerRequest, context: Context
    ) -> ln.DisconnectPeerResponse:
        """Refused for a peer with a channel."""
        if len(request.pub_key) != 66:
            await _unknown(context, "unable to parse pubkey: malformed public key: invalid length: 0")
        node_id = bytes.fromhex(request.pub_key)
        with_channel = [channel for channel in self._node.channels if channel.peer == node_id]
        if with_channel:
            text = (
                f"cannot disconnect from peer({node_id.hex()}), still has {len(with_channel)} active channels"
            )
            await _unknown(context, text)
        if node_id not in self._node.peers:
            await _unknown(context, f"unable to disconnect peer: peer {node_id.hex()} is not connected")
        self._node.disconnect(node_id)
        return ln.DisconnectPeerResponse(status="disconnect initiated")
