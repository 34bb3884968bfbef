"""A wallet that is a client of the server, and a payer: both with a channel to the same LND."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from tests.harness.asserting import until
from tests.harness.ldk import LdkPeer
from tests.harness.ldk_lsps5 import LdkLsps5
from tests.harness.push_service import PushService
from tests.harness.relay import Relay
from tests.harness.waking import check_signature
from tests.settle.ledger import Finding, column

if TYPE_CHECKING:
    from tests.settle.town import Town

APP = "My wallet"
HELD, RELEASE, REQUEST, INVOICE = (
    "held_htlc_available",
    "release_held_htlc",
    "invoice_request",
    "static_invoice",
)
SETTLE_SECONDS = 60.0
SMALL_PACKET = 1_300
"""Bytes of hop data in the smallest onion message."""

_amounts = count(1_000_001)
"""Millisatoshi, each amount once: a forward in LND's history belongs to one payment."""


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment that was begun."""

    payer: LdkPeer
    id: str
    msat: int
    since: int
    """Where the payer's events about it begin."""
    began_at: float
    """On the monotonic clock."""

    async def held(self) -> None:
        """Wait until the payer has the invoice and has said that its HTLC is held."""
        await self.payer.got(INVOICE, since=self.since, payment=self.id)
        await self.payer.sent(HELD, since=self.since)


@dataclass(slots=True)
class Pair:
    """A wallet, its push service, and two payers: a neighbour of LND, and one behind a hub."""

    town: Town
    client: str
    wallet: LdkLsps5
    payer: LdkPeer
    far_payer: LdkPeer
    """Behind a hub; the payer itself in a town that has no such payers."""
    push: PushService
    wallet_way: Relay
    payer_way: Relay
    offers: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As in the table."""
        return column(self.wallet.version, self.payer.version)

    @property
    def offer(self) -> str:
        """The offer that most payments are for."""
        return self.offers[0]

    # Coming and going

    async def wake(self) -> None:
        """The wallet connects."""
        await self.wallet.connect(self.town.lnd.node_id, self.wallet_way.port)

    async def sleep(self) -> None:
        """The wallet hangs up, and LND has seen it."""
        await self.wallet.disconnect(self.town.lnd.node_id)
        await self.town.until_gone(self.wallet.node_id)

    async def connect_anew(self) -> None:
        """The wallet hangs up and connects again."""
        await self.sleep()
        await self.wake()

    async def connect_payer(self) -> None:
        """The payer connects."""
        await self.payer.connect(self.town.lnd.node_id, self.payer_way.port)

    async def come_back(self) -> None:
        """Both connect, those who are not connected."""
        for peer, way in ((self.wallet, self.wallet_way), (self.payer, self.payer_way)):
            if not connected(peer, self.town.lnd.node_id):
                await peer.connect(self.town.lnd.node_id, way.port)

    def freeze(self) -> None:
        """The phone suspends the wallet."""
        os.kill(self.wallet.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        os.kill(self.wallet.pid, signal.SIGCONT)

    # Paying

    async def pay(self, offer: str | None = None, payer: LdkPeer | None = None) -> Payment:
        """Begin a payment: the payer asks for an invoice."""
        payer, msat = payer or self.payer, next(_amounts)
        since, began_at = payer.mark(), time.monotonic()
        asked = await payer.pay(offer or self.offer, msat)
        return Payment(payer, str(asked["payment"]), msat, since, began_at)

    async def pay_asleep(self, offer: str | None = None, payer: LdkPeer | None = None) -> Payment:
        """Begin a payment to a wallet that is away; both its messages are in the mailbox."""
        before = await self.town.letters(self.client)
        payment = await self.pay(offer, payer)
        await payment.held()
        await self.town.until_letters(self.client, before + 2)
        return payment

    async def told(self, timeout: float = 60.0) -> float:
        """Wait for the wake-up, which the wallet's own LDK has to believe; when it came."""
        notification = await self.push.next(timeout)
        at = time.monotonic()
        check_signature(self.town.lnd.node_id, notification)
        verdict = await self.wallet.verdict_of(self.town.lnd.node_id, notification)
        assert verdict.ok, verdict
        return at

    async def settled(
        self, payment: Payment, since: float | None = None, *, timeout: float = SETTLE_SECONDS
    ) -> Finding:
        """Payer and wallet both say so, and so does LND; the seconds since then, or since it was begun."""
        await payment.payer.event("PaymentSent", timeout, payment=payment.id)
        seconds = time.monotonic() - (payment.began_at if since is None else since)
        await self.wallet.event("PaymentClaimed", SETTLE_SECONDS, msat=payment.msat)
        await until(lambda: self.town.forwarded_once(payment.msat), SETTLE_SECONDS)
        return Finding("settled", seconds)

    async def unpaid(self, payment: Payment) -> Finding:
        """No money has moved, and none is under way."""
        assert not payment.payer.seen("event", event="PaymentSent", payment=payment.id)
        assert not self.wallet.seen("event", event="PaymentClaimed", msat=payment.msat)
        assert not await self.town.forwarded_once(payment.msat)
        return Finding("unpaid")


Case = Callable[[Pair], Awaitable[Finding]]


def connected(peer: LdkPeer, node: bytes) -> bool:
    """Whether it is connected to that node, as far as it knows."""
    for event in reversed(peer.events):
        if event["ev"] == "ready":
            return False
        if event["ev"] in {"connected", "disconnected"} and event["node"] == node.hex():
            return bool(event["ev"] == "connected")
    return False


async def all_of(*awaitables: Awaitable[object]) -> None:
    """Side by side, each to its end; all that failed is raised together."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    if failed := [result for result in results if isinstance(result, BaseException)]:
        raise BaseExceptionGroup("of several at once", failed)
