"""The LND calls that the sidecar makes, and what LND's error answers mean.

LND gives nearly all of its own errors the code UNKNOWN, so their texts decide;
they were read off LND 0.20 and 0.21 (rpcperms/interceptor.go, macaroons/service.go).
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from sidecar.core.lsps0 import LSPS_MESSAGE
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import signer_pb2 as signer
from sidecar.rpc import state_pb2 as state

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, A]):
    """One gRPC method: its URI (as in a macaroon's permission) and its two message types."""

    uri: str
    request: type[Q]
    answer: type[A]

    @property
    def name(self) -> str:
        """The method without its service."""
        return self.uri.rpartition("/")[2]


_LIGHTNING = "/lnrpc.Lightning/"

GET_INFO = Call(_LIGHTNING + "GetInfo", ln.GetInfoRequest, ln.GetInfoResponse)
LIST_PEERS = Call(_LIGHTNING + "ListPeers", ln.ListPeersRequest, ln.ListPeersResponse)
LIST_CHANNELS = Call(_LIGHTNING + "ListChannels", ln.ListChannelsRequest, ln.ListChannelsResponse)
GET_CHAN_INFO = Call(_LIGHTNING + "GetChanInfo", ln.ChanInfoRequest, ln.ChannelEdge)
GET_NODE_INFO = Call(_LIGHTNING + "GetNodeInfo", ln.NodeInfoRequest, ln.NodeInfo)
CONNECT_PEER = Call(_LIGHTNING + "ConnectPeer", ln.ConnectPeerRequest, ln.ConnectPeerResponse)
DISCONNECT_PEER = Call(_LIGHTNING + "DisconnectPeer", ln.DisconnectPeerRequest, ln.DisconnectPeerResponse)
PEER_EVENTS = Call(_LIGHTNING + "SubscribePeerEvents", ln.PeerEventSubscription, ln.PeerEvent)
SIGN_MESSAGE = Call(_LIGHTNING + "SignMessage", ln.SignMessageRequest, ln.SignMessageResponse)
ONION_MESSAGES = Call(
    _LIGHTNING + "SubscribeOnionMessages", ln.SubscribeOnionMessagesRequest, ln.OnionMessageUpdate
)
SEND_ONION = Call(_LIGHTNING + "SendOnionMessage", ln.SendOnionMessageRequest, ln.SendOnionMessageResponse)
CUSTOM_MESSAGES = Call(
    _LIGHTNING + "SubscribeCustomMessages", ln.SubscribeCustomMessagesRequest, ln.CustomMessage
)
SEND_CUSTOM = Call(
    _LIGHTNING + "SendCustomMessage", ln.SendCustomMessageRequest, ln.SendCustomMessageResponse
)
DERIVE_SHARED_KEY = Call("/signrpc.Signer/DeriveSharedKey", signer.SharedKeyRequest, signer.SharedKeyResponse)
GET_STATE = Call("/lnrpc.State/GetState", state.GetStateRequest, state.GetStateResponse)
STATES = Call("/lnrpc.State/SubscribeState", state.SubscribeStateRequest, state.SubscribeStateResponse)

PROBES: Sequence[tuple[Call[Any, Any], Any]] = (
    (LIST_PEERS, ln.ListPeersRequest()),
    (LIST_CHANNELS, ln.ListChannelsRequest()),
    (GET_CHAN_INFO, ln.ChanInfoRequest()),
    (GET_NODE_INFO, ln.NodeInfoRequest()),
    (CONNECT_PEER, ln.ConnectPeerRequest()),
    (DISCONNECT_PEER, ln.DisconnectPeerRequest()),
    (DERIVE_SHARED_KEY, signer.SharedKeyRequest()),
    (SIGN_MESSAGE, ln.SignMessageRequest()),
    (SEND_CUSTOM, ln.SendCustomMessageRequest(type=LSPS_MESSAGE)),
)
"""Requests that do nothing, by which a permission that is lacking shows: of every call but GetInfo and
the streams, on any LND."""
"""What lnd.conf of LND ≤ 0.20 needs. LND ≥ 0.21 does not start with them."""


def speaks_onion_messages(features: Container[int]) -> bool:
    """Whether a node's feature bits say so: option_onion_messages, 38 or 39 (BOLT 9)."""
    return 38 in features or 39 in features


class Fault(Enum):
    """What is behind an error answer."""

    AWAY = auto()
    """LND is down, locked, starting or shutting down: it passes."""
    CERTIFICATE = auto()
    """LND's TLS certificate is not the one in our file."""
    MACAROON = auto()
    """LND does not know the macaroon."""
    PERMISSION = auto()
    """LND knows the macaroon, and it does not allow this call."""
    MISSING = auto()
    """This LND has no such method."""
    NOT_CUSTOM = auto()
    """LND ≤ 0.20 without `protocol.custom-message=513`."""
    REJECTED = auto()
    """An answer to this very request: no such peer, no such channel …"""


_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED|security handshaker|not in peer certificate")
_AWAY = re.compile(
    r"^(wallet (locked|not created)|waiting to start|the RPC server is in the process"
    r"|server is (still in the process of starting|shutting down)|shutdown$"
    # The macaroon service itself is not up yet: this says nothing about our macaroon.
    r"|unable to determine macaroon permissions)"
)
# "permission denied" alone: a refused dial says "dial tcp …: permission denied".
_PERMISSION = re.compile(r"^permission denied$")
_MACAROON = re.compile(
    r"^(verification failed|cannot determine data format|expected 1 macaroon|cannot get macaroon"
    r"|encoding/hex|caveat |unknown macaroon version|invalid ID|unmarshal)"
)
_NOT_CUSTOM = re.compile(r"^msg type: \d+ not in custom range")

_BY_CODE = {
    grpc.StatusCode.UNIMPLEMENTED: Fault.MISSING,
    grpc.StatusCode.UNAUTHENTICATED: Fault.MACAROON,
    grpc.StatusCode.PERMISSION_DENIED: Fault.PERMISSION,
    grpc.StatusCode.CANCELLED: Fault.AWAY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Fault.AWAY,
    grpc.StatusCode.INTERNAL: Fault.AWAY,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Fault.AWAY,
    grpc.StatusCode.ABORTED: Fault.AWAY,
}
_BY_TEXT = (
    (_AWAY, Fault.AWAY),
    (_PERMISSION, Fault.PERMISSION),
    (_MACAROON, Fault.MACAROON),
    (_NOT_CUSTOM, Fault.NOT_CUSTOM),
)


def fault_of(code: grpc.StatusCode, details: str) -> Fault:
    """What an error answer of LND means."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return Fault.CERTIFICATE if _CERTIFICATE.search(details) else Fault.AWAY
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code is grpc.StatusCode.UNKNOWN:
        for pattern, fault in _BY_TEXT:
            if pattern.search(details):
                return fault
    return Fault.REJECTED
