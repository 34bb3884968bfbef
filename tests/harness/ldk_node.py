"""A driver of the wallet made of ldk-node (`tests/ldk/node`), as a process with a chain."""

from __future__ import annotations

from pathlib import Path

from tests.harness.bitcoind_front import BitcoindFront
from tests.harness.ldk import LdkPeer
from tests.ldk import build

OFFER_SECONDS = 90.0
"""ldk-node asks for offers as soon as it has paths and a peer, and again on its timer, once a minute."""


class LdkNodeWallet(LdkPeer):
    """A running ldk-node: `async with LdkNodeWallet(folder, chain, lnd.node_id) as wallet: ...`.

    A new one with the same folder is the same wallet, started again. Of LdkPeer's commands it knows
    `connect`, `set_paths` and `next_offer`; its time is the real one.
    """

    start_seconds = 60.0

    def __init__(self, folder: Path, chain: BitcoindFront, lsp: bytes) -> None:
        super().__init__("0.2", folder)
        self._storage = folder
        self._arguments = [str(folder), str(chain.port), chain.user, chain.password, lsp.hex()]

    def binary(self) -> Path:
        """The program, built when it is not there yet."""
        return build.ensure(build.NODE)

    async def next_offer(self, timeout: float = OFFER_SECONDS) -> str:
        """Wait for an offer whose invoice the server has acknowledged."""
        return await super().next_offer(timeout)

    async def send_to(self, offer: str, msat: int) -> None:
        """Begin to pay an offer; `payment_successful` or `payment_failed` says how it went."""
        await self.say(f"pay {offer} {msat}")
        await self.named("paying")

    @property
    def log(self) -> str:
        """What ldk-node itself logged, over all its starts."""
        return (self._storage / "ldk-node.log").read_text(errors="replace")
