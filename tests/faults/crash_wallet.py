"""A wallet that notes what was acknowledged to it, and what it was handed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.core.model import Family
from sidecar.core.paths import BlindedPath
from tests.harness.link import Link
from tests.harness.node import Arrived
from tests.harness.wallet import Issued, LspsRefusal, Wallet, set_webhook

NOWHERE = "https://127.0.0.1/push"
"""A webhook that may be registered, and is never dialled: no push service is on a loopback address."""

FORWARDED = b"forwarded invoice_request"


class NotingWallet(Wallet):
    """One client's wallet. It does one thing after the other: no acknowledgement says of what it is."""

    def __init__(
        self,
        *,
        name: str,
        client_id: bytes,
        secret: bytes,
        link: Link,
        lnd_node_id: bytes,
        request_path: BlindedPath,
        acknowledged: Callable[[bytes], None],
    ) -> None:
        """`acknowledged` is told at once, with bytes that only the change has that was acknowledged.

        A letter that is handed over counts as such: it was put on disk before.
        """
        super().__init__(secret, link, lnd_node_id, request_path, Family.LDK)
        self.name, self.client_id = name, client_id
        self.left: dict[int, list[bytes]] = {}
        """All invoices that were sent, by slot, the last one last."""
        self.acked: dict[int, int] = {}
        """Which of these was acknowledged last."""
        self.webhooks: list[str] = []
        """App names of acknowledged webhooks."""
        self.arrived: set[tuple[bytes, bytes]] = set()
        """All onion messages that it was handed: path_key and packet."""
        self._issued: dict[int, Issued] = {}
        self._acknowledged = acknowledged

    async def receive(self) -> Arrived:
        """The next answer to what it asked itself; letters are noted, and passed over."""
        while True:
            path_key, packet = await self.link.receive_onion()
            self.arrived.add((path_key, packet))
            arrived = self.open(path_key, packet)
            if arrived.path_id != FORWARDED:
                return arrived
            self._acknowledged(packet[-64:])

    def offer_of(self, slot: int) -> str:
        """What payers scan."""
        return self.offer_string(self.make_offer(self._issued[slot]))

    async def renew(self, slot: int) -> None:
        """Leave a fresh invoice for a slot, the first one included, and wait until it is acknowledged."""
        if slot not in self._issued:
            self._issued[slot] = await self.issue(slot)
        issued = self._issued[slot]
        invoice = self.make_invoice(self.make_offer(issued))
        sent = self.left.setdefault(slot, [])
        sent.append(invoice)
        await self.leave_invoice(issued, invoice)
        await self.receive_persisted()
        self.acked[slot] = len(sent) - 1
        self._acknowledged(invoice[-64:])

    async def register(self, app_name: str) -> None:
        """Register one more webhook. A refusal, as while Redis is away, promises nothing."""
        try:
            await set_webhook(self.link, app_name, f"{NOWHERE}/{app_name}")
        except LspsRefusal:
            return
        self.webhooks.append(app_name)
        self._acknowledged(app_name.encode())

    async def be_handed(self, letters: set[tuple[bytes, bytes]], timeout: float) -> set[tuple[bytes, bytes]]:
        """Wait for letters; which of them did not come."""
        try:
            async with asyncio.timeout(timeout):
                while not letters <= self.arrived:
                    self.arrived.add(await self.link.receive_onion())
        except TimeoutError:
            pass
        return letters - self.arrived
