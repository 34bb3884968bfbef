"""Wallets and payers that are no peers of the served LND: what they send goes by way of a neighbour."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sidecar.core import keys, paths
from sidecar.core.model import Family
from sidecar.core.paths import BlindedPath
from tests.harness import bolt8
from tests.harness.lnd_process import LndProcess
from tests.harness.node import Node
from tests.harness.payer import Payer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.wallet import Wallet


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Whoever one can connect to: an LND, or a peer of LDK."""

    node_id: bytes
    port: int

    @classmethod
    def of(cls, lnd: LndProcess) -> Neighbour:
        """An LND as a neighbour."""
        return cls(lnd.node_id, lnd.p2p_port)

    async def connect(self, secret: bytes) -> bolt8.Bolt8Link:
        """Connect a peer without a channel."""
        return await bolt8.connect("127.0.0.1", self.port, self.node_id, secret)


class Behind(Node):
    """A node whose only peer is `lnd_node_id`: paths that start elsewhere get one hop before them."""

    async def send_along(
        self, path: BlindedPath, content_type: int, content: bytes, reply_path: BlindedPath | None = None
    ) -> None:
        """Send over a path that starts at our peer or at a peer of our peer."""
        if path.introduction_node != self.lnd_node_id:
            path = prepended(self.lnd_node_id, path)
        await super().send_along(path, content_type, content, reply_path)


class WalletBehind(Behind, Wallet):
    """A wallet behind a neighbour."""


class PayerBehind(Behind, Payer):
    """A payer behind a neighbour."""


def prepended(node_id: bytes, path: BlindedPath) -> BlindedPath:
    """A path with one more hop before it (BOLT 4: `next_path_key_override`)."""
    assert isinstance(path.introduction_node, bytes)
    secret = os.urandom(32)
    data = paths.next_hop_data(path.introduction_node, override=path.path_key)
    hop = paths.encrypt_hop(node_id, keys.ecdh(secret, node_id), data)
    return BlindedPath(node_id, keys.public_key(secret), (hop, *path.hops))


async def wallet_behind(
    neighbour: Neighbour, sidecar: SidecarProcess, name: str, family: Family
) -> WalletBehind:
    """Add a client, and connect its wallet to the neighbour alone."""
    added = await sidecar.json("client", "add", name)
    request_path = paths.decode_path_list(bytes.fromhex(added["paths"]))[0]
    secret = os.urandom(32)
    return WalletBehind(secret, await neighbour.connect(secret), neighbour.node_id, request_path, family)


async def payer_behind(neighbour: Neighbour) -> PayerBehind:
    """Connect a payer to the neighbour alone."""
    secret = os.urandom(32)
    return PayerBehind(secret, await neighbour.connect(secret), neighbour.node_id)
