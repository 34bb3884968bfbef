"""From what LND hands over to a message for us: peel LND's layer, then our own.

LND's key is behind its signer, at 0.34 ms of LND's CPU a call, so nothing is asked twice: what a
path_key leads to is remembered. A path of ours has a path_key of its own and is used many times.
"""

from dataclasses import dataclass

from sidecar.core import context as contexts
from sidecar.core import keys, messages, onion, paths
from sidecar.core.bounded import Bounded
from sidecar.core.context import Context
from sidecar.core.errors import BadContext, Malformed, NotForUs
from sidecar.core.keys import SidecarKeys
from sidecar.core.messages import FinalPayload
from sidecar.core.paths import BlindedPath, NextHop
from sidecar.ports import NodeKey, Received

MOST_DATA = 512
"""Bytes of encrypted data that are remembered with a path_key; ours have 100, LDK's some 200. A stranger
may make a path with 32 KB of it, and another one each time."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A message over one of our own paths."""

    context: Context
    payload: FinalPayload


@dataclass(frozen=True, slots=True)
class Passing:
    """A message for another node, peeled of LND's layer; `packet` is None where LND forwards it itself."""

    hop: NextHop
    packet: bytes | None


@dataclass(slots=True, repr=False)
class _Known:
    """What a path_key was found to lead to. `own_secret` is None for other people's paths."""

    lnd_secret: bytes
    lnd_data: bytes
    hop: NextHop
    own_secret: bytes | None
    blinded_secret: bytes = b""
    """Our node's secret, blinded as the path blinds its id."""
    own_data: bytes = b""
    context: Context | None = None


class Peeler:
    """Opens onion messages with LND's key and our own. Remembers `most` path_keys."""

    def __init__(self, lnd_node_id: bytes, lnd_key: NodeKey, own: SidecarKeys, most: int = 20_000) -> None:
        self._lnd_node_id = lnd_node_id
        self._lnd_key = lnd_key
        self._own = own
        self._known: Bounded[bytes, _Known] = Bounded(most)

    def context_of(self, path_key: bytes) -> Context | None:
        """The context of a path that was used before: no signer call, no cipher."""
        known = self._known.get(path_key)
        return None if known is None else known.context

    async def peel(self, received: Received) -> Landed | Passing:
        """Where a message goes. Raises Malformed, NotForUs, BadContext, LndUnavailable."""
        ephemeral = onion.check_packet(received.onion)
        known = None
        if received.encrypted_recipient_data is not None:
            # LND has opened its layer already: one signer call tells whose the message is.
            known = await self._lead(received.path_key, received.encrypted_recipient_data)
            if known.own_secret is None:
                return Passing(known.hop, None)
        layer, secret = await self._lnd_layer(received, ephemeral)
        data = messages.read_forward_payload(layer.payload)
        if known is None or known.lnd_data != data:
            known = await self._lead(received.path_key, data, secret)
        if known.own_secret is None:
            return Passing(known.hop, layer.next_packet)
        return self._land(known, known.own_secret, layer)

    async def next_packet(self, received: Received) -> bytes:
        """What LND hands to the next node of a message that it forwards. Raises Malformed, NotForUs."""
        layer, _ = await self._lnd_layer(received, onion.check_packet(received.onion))
        return layer.next_packet

    async def _lnd_layer(self, received: Received, ephemeral: bytes) -> tuple[onion.Forward, bytes]:
        """LND's layer of the onion, and the secret of LND's hop."""
        secret = await self._lnd_secret(received.path_key)
        # The blinded key's ECDH, had from the unblinded key: the factor goes to the other side.
        blinded = paths.blind(ephemeral, secret)
        layer = onion.peel(received.onion, await self._lnd_key.ecdh(blinded))
        if isinstance(layer, onion.Final):
            raise NotForUs("an onion message that ends at LND: no path of ours does")
        return layer, secret

    async def _lnd_secret(self, path_key: bytes) -> bytes:
        known = self._known.get(path_key)
        return known.lnd_secret if known is not None else await self._lnd_key.ecdh(path_key)

    async def _lead(self, path_key: bytes, data: bytes, secret: bytes | None = None) -> _Known:
        """Where LND's hop leads; `secret` is LND's for `path_key`, where it is known already."""
        known = self._known.get(path_key)
        if known is not None and known.lnd_data == data:
            self._known.move_to_end(path_key)
            return known
        secret = secret or await self._lnd_secret(path_key)
        recipient_data = paths.decrypt_recipient_data(secret, data)
        if not recipient_data.names_next_hop:
            raise NotForUs("an onion message that ends at LND: no path of ours does")
        hop = paths.follow(path_key, secret, recipient_data)
        known = _Known(secret, data, hop, None)
        if hop.node_id == self._own.node_id:
            known.own_secret = self._own.ecdh(hop.path_key)
            factor = paths.blinding_factor(known.own_secret)
            known.blinded_secret = keys.multiply_secret(self._own.node_secret, factor)
        if len(data) <= MOST_DATA:
            self._known[path_key] = known
        return known

    def _land(self, known: _Known, own_secret: bytes, layer: onion.Forward) -> Landed:
        # The ECDH of our layer by one product instead of three: the scalar between LND's ephemeral key
        # and ours, and the one that blinds, go to our secret instead of to the point.
        secret = keys.multiply_secret(known.blinded_secret, layer.factor)
        last = onion.peel_last(layer, keys.ecdh(secret, layer.ephemeral))
        payload = messages.read_final_payload(last.payload)
        if known.context is None or payload.encrypted_recipient_data != known.own_data:
            known.context = self._open(own_secret, payload.encrypted_recipient_data)
            known.own_data = payload.encrypted_recipient_data
        return Landed(known.context, payload)

    def _open(self, own_secret: bytes, data: bytes) -> Context:
        path_id = paths.decrypt_recipient_data(own_secret, data).path_id
        if path_id is None:
            raise BadContext("a path to us without a path_id")
        return contexts.unseal(self._own.context_key, path_id)

    async def walk(self, path: BlindedPath) -> Context | None:
        """The context at the end of a path, if it is one that we made; None if not. Raises LndUnavailable."""
        try:
            return await self._walk(path)
        except (Malformed, NotForUs, BadContext):
            return None

    async def _walk(self, path: BlindedPath) -> Context | None:
        if path.introduction_node != self._lnd_node_id or len(path.hops) != 2:
            return None
        known = await self._lead(path.path_key, path.hops[0].encrypted_recipient_data)
        if known.own_secret is None:
            return None
        # The data is sealed, and the keys that payers encrypt to must be the issued ones as well.
        ends = (self._lnd_node_id, known.lnd_secret), (self._own.node_id, known.own_secret)
        for hop, (node_id, secret) in zip(path.hops, ends, strict=True):
            if hop.blinded_node_id != paths.blind(node_id, secret):
                return None
        return self._open(known.own_secret, path.hops[1].encrypted_recipient_data)
