"""A Lightning node that speaks onion messages over one connection to LND: wallets and payers are such."""

import os
from dataclasses import dataclass

from sidecar.core import keys, messages, onion, paths
from sidecar.core.messages import FinalPayload
from sidecar.core.paths import BlindedPath
from tests.harness.link import Link


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that reached the node: over which of its paths, and what it says."""

    path_id: bytes | None
    payload: FinalPayload


class Node:
    """Sends along blinded paths through LND, and opens what comes back."""

    def __init__(self, secret: bytes, link: Link, lnd_node_id: bytes) -> None:
        self.secret = secret
        self.node_id = keys.public_key(secret)
        self.link = link
        self.lnd_node_id = lnd_node_id

    def path_to_self(self, path_id: bytes, *, through_lnd: bool = True, dummy_hops: int = 0) -> BlindedPath:
        """A path that ends here: [LND, we], or [we] alone; `dummy_hops` of our own before the end."""
        hops = [(self.node_id, paths.next_hop_data(self.node_id)) for _ in range(dummy_hops)]
        hops.append((self.node_id, paths.path_id_data(path_id)))
        if through_lnd:
            hops.insert(0, (self.lnd_node_id, paths.next_hop_data(self.node_id)))
        return paths.build(os.urandom(32), hops)

    async def send_along(
        self, path: BlindedPath, content_type: int, content: bytes, reply_path: BlindedPath | None = None
    ) -> None:
        """Send over a path that starts at LND."""
        assert path.introduction_node == self.lnd_node_id
        packet = messages.onion_along(path, os.urandom(32), content_type, content, reply_path)
        await self.link.send_onion(path.path_key, packet)

    async def receive(self) -> Arrived:
        """The next onion message for us, dummy hops peeled off."""
        return self.open(*await self.link.receive_onion())

    def open(self, path_key: bytes, packet: bytes) -> Arrived:
        """Peel every layer that is ours."""
        while True:
            shared = keys.ecdh(self.secret, path_key)
            blinded = paths.blind(onion.check_packet(packet), shared)
            layer = onion.peel(packet, keys.ecdh(self.secret, blinded))
            if isinstance(layer, onion.Final):
                payload = messages.read_final_payload(layer.payload)
                data = paths.decrypt_recipient_data(shared, payload.encrypted_recipient_data)
                return Arrived(data.path_id, payload)
            data = paths.decrypt_recipient_data(shared, messages.read_forward_payload(layer.payload))
            path_key, packet = paths.follow(path_key, shared, data).path_key, layer.next_packet
