"""A payer who asks again and again, and a wallet that renews its invoice, each on one connection at a time.

Both number what they send, note what comes back to it and when, and connect again when LND is gone.
Times are time.monotonic's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

from sidecar.core import messages, offers, static_invoices
from sidecar.core.messages import ServeStaticInvoice, StaticInvoicePersisted
from tests.harness.node import Arrived, Node
from tests.harness.payer import Payer
from tests.harness.running import Running
from tests.harness.stage import Stage
from tests.harness.wallet import CHAIN, Issued, Wallet

PATIENCE = 45.0
"""Seconds after a fault within which all must go on."""

_CONNECT_SECONDS = 5.0
_AGO = 100_000
"""Seconds before now that the first invoice is dated: each renewal is dated a second later than the last."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came to message `number`: an invoice or an acknowledgement of one (`invoice`), or a refusal."""

    number: int
    sent_at: float
    at: float
    invoice: int | None


class Caller(Running):
    """Sends, and listens, until it is stopped; `heard` is all that came, in order."""

    _every: ClassVar[float]
    """Seconds between two messages."""

    def __init__(self, stage: Stage, node: Node) -> None:
        self._stage, self.node = stage, node
        self.sent: list[float] = []
        self.heard: list[Heard] = []
        self._came = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """Hang up. Raises what went wrong with it."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.node.link.close()

    async def until(self, found: Callable[[Heard], bool], timeout: float = PATIENCE) -> Heard:
        """The first that is so, past ones included. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self._came:
            await self._came.wait_for(lambda: any(map(found, self.heard)) or self._ended())
        if self._ended():
            await self.stop()
        return next(filter(found, self.heard))

    async def answered(self, since: float, timeout: float = PATIENCE) -> Heard:
        """An invoice, or an acknowledgement, for what was sent since then."""
        return await self.until(lambda heard: heard.sent_at >= since and heard.invoice is not None, timeout)

    def _ended(self) -> bool:
        return self._task is not None and self._task.done()

    async def _go_on(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._send_all())
                    both.create_task(self._listen())
            except* OSError:
                await self.node.link.close()
            await self._connect()

    async def _connect(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    self.node.link = await self._stage.connect(self.node.secret)
                return
            await asyncio.sleep(self._every)

    async def _send_all(self) -> None:
        while True:
            # Noted before it is sent: the answer may be there first.
            self.sent.append(time.monotonic())
            await self._send(len(self.sent) - 1)
            await asyncio.sleep(self._every)

    async def _listen(self) -> None:
        while True:
            arrived = await self.node.receive()
            at = time.monotonic()
            for number, invoice in self._read(arrived):
                async with self._came:
                    self.heard.append(Heard(number, self.sent[number], at, invoice))
                    self._came.notify_all()

    @abstractmethod
    async def _send(self, number: int) -> None:
        """Send message `number`."""

    @abstractmethod
    def _read(self, arrived: Arrived) -> list[tuple[int, int | None]]:
        """To which number it is, and about which invoice; nothing for what is no answer."""


class Asking(Caller):
    """A payer: a fresh invoice_request each 100 ms, whether the last one was answered or not."""

    _every = 0.1

    def __init__(self, stage: Stage, payer: Payer, offer: str, first_at: int) -> None:
        """`first_at`: when the first invoice of the offer was made, in seconds since the epoch."""
        super().__init__(stage, payer)
        self._payer, self._offer, self._first_at = payer, offers.decode_offer(offer), first_at

    async def _send(self, number: int) -> None:
        await self._payer.send_request(
            self._offer, reply_path=self.node.path_to_self(b"asked" + number.to_bytes(4, "big"))
        )

    def _read(self, arrived: Arrived) -> list[tuple[int, int | None]]:
        assert arrived.path_id is not None
        assert arrived.path_id.startswith(b"asked")
        number = int.from_bytes(arrived.path_id[5:], "big")
        if arrived.payload.content_type != messages.STATIC_INVOICE:
            return [(number, None)]
        invoice = static_invoices.read_static_invoice(arrived.payload.content, CHAIN)
        assert invoice.offer.records == self._offer.records
        return [(number, invoice.created_at - self._first_at)]


class Renewing(Caller):
    """A wallet: another invoice for its offer, dated a second later, as often as LND lets it."""

    _every = 0.7

    def __init__(self, stage: Stage, wallet: Wallet, issued: Issued, first_at: int) -> None:
        super().__init__(stage, wallet)
        self._wallet, self._issued, self._first_at = wallet, issued, first_at
        self._offer = wallet.make_offer(issued)
        self.offer = wallet.offer_string(self._offer)

    @classmethod
    async def of(cls, stage: Stage, wallet: Wallet) -> Self:
        """A wallet that has just been added."""
        return cls(stage, wallet, await wallet.issue(), int(time.time()) - _AGO)

    @property
    def first_at(self) -> int:
        """When its first invoice was made, in seconds since the epoch."""
        return self._first_at

    def newest(self, at: float) -> int:
        """The newest invoice that was acknowledged by then; -1 for none."""
        return max((heard.invoice or 0 for heard in self.heard if heard.at <= at), default=-1)

    async def _send(self, number: int) -> None:
        invoice = self._wallet.make_invoice(self._offer, self._first_at + number)
        content = messages.encode(ServeStaticInvoice(invoice, self._wallet.forward_path), self._wallet.family)
        reply_path = self.node.path_to_self(b"kept" + number.to_bytes(4, "big"))
        await self.node.send_along(self._issued.update_path, *content, reply_path)

    def _read(self, arrived: Arrived) -> list[tuple[int, int | None]]:
        if arrived.path_id is None or not arrived.path_id.startswith(b"kept"):
            return []  # a payer's invoice_request, forwarded
        assert Wallet.decode(arrived)[0] == StaticInvoicePersisted()
        number = int.from_bytes(arrived.path_id[4:], "big")
        return [(number, number)]
