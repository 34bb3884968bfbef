"""What floods one client, and what the payers of the others ask: made before it is sent, opened as LND does.

A real LND opens onions on cores of its own. Here all is made ahead, so that a round costs the simulated
LND nothing but the streaming.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from sidecar.core import keys, messages, onion, paths
from sidecar.core.messages import OfferPathsRequest
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.rpc import lightning_pb2 as ln
from tests.harness.payer import make_invoice_request
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import ONION_MESSAGE, SimNode
from tests.harness.wallet import Wallet

RATE = 400
"""Messages a second of a flood."""

PEER_RATE = 512_000 / 8
"""Bytes a second that LND 0.21 takes of one peer's onion messages; it drops the rest."""

PEERS = 9
"""Peers that a flood takes: small messages of eight would be limited below RATE."""

Sent = tuple[bytes, bytes, bytes]
"""peer, path_key, onion: what a peer hands to LND."""


class Flood(Enum):
    """What is flooded, and with what."""

    REQUESTS = "signed requests, one offer"
    OFFER_PATHS = "offer_paths_requests, one client"
    GARBAGE = "bad MACs, one offer's path_key"
    ONLINE = "signed requests, wallet online"
    RUBBISH = "unknown paths, one peer"
    CROWD = "unknown paths, nine peers"


BOUNDED = tuple(flood for flood in Flood if flood is not Flood.CROWD)
"""Those of one attacker on one client, or of one peer. A crowd is no one's neighbour: it is shown beside."""


@dataclass(frozen=True, slots=True)
class Question:
    """What LND streams for a payer's request, and the path_key that its answer goes out with."""

    update: ln.OnionMessageUpdate
    answer: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """A client with a stored invoice."""

    wallet: Wallet
    offer: Offer


class Opener:
    """Opens onions with LND's key as the simulated LND does, and streams them to nobody."""

    def __init__(self, lnd: SimulatedLnd) -> None:
        self._lnd, self.lnd_node_id = lnd, lnd.node_id
        self._node = SimNode("native", lnd.node_id, lnd.node.ecdh)
        self._opened = self._node.onions.subscribe()

    def open(self, sent: Sent) -> ln.OnionMessageUpdate:
        """The update of a message. Raises asyncio.QueueEmpty for one that LND would drop."""
        peer, path_key, packet = sent
        self._node.take(peer, ONION_MESSAGE, path_key + len(packet).to_bytes(2, "big") + packet)
        update = self._opened.get_nowait()
        assert update is not None
        return update

    def question(self, peer: bytes, offer: Offer) -> Question:
        """A fresh request of a payer that is LND's peer."""
        reply_path = _reply_path(self._lnd.node_id, peer)
        update = self.open(_asked(peer, offer, reply_path))
        hop = paths.first_hop(reply_path, self._lnd.node.ecdh(reply_path.path_key))
        return Question(update, hop.path_key)


def _reply_path(lnd_node_id: bytes, peer: bytes) -> BlindedPath:
    """A private peer's: through LND."""
    end = peer, paths.path_id_data(os.urandom(32))
    return paths.build(os.urandom(32), [(lnd_node_id, paths.next_hop_data(peer)), end])


def _asked(peer: bytes, offer: Offer, reply_path: BlindedPath) -> Sent:
    path, request = offer.paths[0], make_invoice_request(offer)
    packet = messages.onion_along(path, os.urandom(32), messages.INVOICE_REQUEST, request, reply_path)
    return peer, path.path_key, packet


def _request(target: Target, lnd_node_id: bytes, peer: bytes) -> Sent:
    return _asked(peer, target.offer, _reply_path(lnd_node_id, peer))


def _offer_paths(target: Target, lnd_node_id: bytes, peer: bytes) -> Sent:
    path, wallet = target.wallet.request_path, target.wallet
    type_, content = messages.encode(OfferPathsRequest(0), wallet.family)
    packet = messages.onion_along(path, os.urandom(32), type_, content, _reply_path(lnd_node_id, peer))
    return peer, path.path_key, packet


def _garbage(target: Target, _: bytes, peer: bytes) -> Sent:
    """LND's layer is right, or LND would drop it; ours is not even for our key."""
    path = target.offer.paths[0]
    hops = [(hop.blinded_node_id, messages.hop_payload(hop.encrypted_recipient_data)) for hop in path.hops]
    hops[-1] = keys.public_key(os.urandom(32)), os.urandom(400)
    return peer, path.path_key, onion.build(os.urandom(32), hops)


def _rubbish(_: Target, lnd_node_id: bytes, peer: bytes) -> Sent:
    nobody = keys.public_key(os.urandom(32))
    path = paths.build(
        os.urandom(32), [(lnd_node_id, paths.next_hop_data(nobody)), (nobody, paths.path_id_data(b"-"))]
    )
    return peer, path.path_key, messages.onion_along(path, os.urandom(32), 77, os.urandom(100), None)


_MAKE: dict[Flood, Callable[[Target, bytes, bytes], Sent]] = {
    Flood.REQUESTS: _request,
    Flood.OFFER_PATHS: _offer_paths,
    Flood.GARBAGE: _garbage,
    Flood.ONLINE: _request,
    Flood.RUBBISH: _rubbish,
    Flood.CROWD: _rubbish,
}


def rate_of(flood: Flood, sample: ln.OnionMessageUpdate) -> float:
    """Messages a second: all that LND lets through of one peer, or RATE."""
    # As LND counts them: the message's type, path_key and length come before the onion.
    of_a_peer = PEER_RATE / (2 + 33 + 2 + len(sample.onion))
    return min(RATE, of_a_peer) if flood is Flood.RUBBISH else RATE


def make(
    flood: Flood, opener: Opener, target: Target, peers: Sequence[bytes], count: int
) -> list[ln.OnionMessageUpdate]:
    """So many different messages of a flood, by these peers in turn; by the first one, where one floods."""
    names = peers[:1] if flood is Flood.RUBBISH else peers
    made = _MAKE[flood]
    return [opener.open(made(target, opener.lnd_node_id, names[at % len(names)])) for at in range(count)]
