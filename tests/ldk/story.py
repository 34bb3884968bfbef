"""What one LDK wallet and one LDK payer go through with the product on a real LND."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.harness.ldk import LdkPeer
from tests.harness.lnd_process import LndProcess
from tests.harness.matrix import Cell, Row
from tests.harness.sidecar_process import SidecarProcess

SLOTS = 10
"""Slots that an LDK wallet fills."""

HOURS_3 = 3 * 3_600
"""An LDK wallet renews what is older than two hours."""

Step = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Story:
    """A wallet with its state on disk, and a new payer for each payment."""

    cell: Cell
    lnd: LndProcess
    sidecar: SidecarProcess
    folder: Path
    wallet: LdkPeer
    offers: list[str] = field(default_factory=list)
    _payers: "count[int]" = field(default_factory=count)

    def steps(self) -> list[tuple[str, Step]]:
        """By the names of `matrix.STEPS`."""
        return [
            ("offer ready", self.offer_ready),
            ("second slot", self.second_slot),
            ("answered", self.answered),
            ("accepted", self.accepted),
            ("forwarded", self.forwarded),
            ("held/release", self.held_and_released),
            ("wallet away", self.wallet_away),
            ("wallet back", self.wallet_back),
            ("rotated", self.rotated),
            ("refreshed", self.refreshed),
            ("replaced", self.replaced),
        ]

    async def run(self, row: Row) -> None:
        """All steps; the server is killed and started again between each two."""
        for number, (name, step) in enumerate(self.steps()):
            with row.step(name):
                if number:
                    await self.sidecar.kill()
                    await self.sidecar.start()
                try:
                    await step()
                except AssertionError as error:
                    error.add_note(f"the server's counters: {await self.sidecar.counters()}")
                    raise

    @asynccontextmanager
    async def payer(self) -> AsyncIterator[LdkPeer]:
        """A new payer, connected to LND."""
        folder = self.folder / f"payer-{next(self._payers)}"
        async with LdkPeer(self.cell.payer, folder) as payer:
            await payer.connect(self.lnd.node_id, self.lnd.p2p_port)
            yield payer

    async def pay(self, offer: str) -> int:
        """A payer gets the invoice and accepts it; when the invoice was made (seconds)."""
        async with self.payer() as payer:
            await payer.pay(offer)
            answer = await payer.got("static_invoice")
            # LDK sends this once it has found the invoice to be right and to belong to its request.
            await payer.sent("held_htlc_available")
            created_at: int = answer["created_at"]
            return created_at

    async def connect(self) -> None:
        """The wallet comes online."""
        await self.wallet.connect(self.lnd.node_id, self.lnd.p2p_port)

    async def offer_ready(self) -> None:
        """From the printed request paths to an offer."""
        added = await self.sidecar.json("client", "add", "alice")
        node = self.lnd.node_id, self.lnd.p2p_port
        self.offers.append(await self.wallet.set_up(added["paths"], *node))

    async def second_slot(self) -> None:
        """The wallet's next tick fills the next slot."""
        await self.wallet.tick()
        self.offers.append(await self.wallet.next_offer())
        assert await self.slots() >= {0, 1}
        await self.pay(self.offers[1])

    async def slots(self) -> set[int]:
        """Slots that hold an invoice."""
        shown = await self.sidecar.json("client", "show", "alice")
        return {slot["slot"] for slot in shown["slots"]}

    async def answered(self) -> None:
        """A payer's invoice_request is answered with the static invoice."""
        async with self.payer() as payer:
            await payer.pay(self.offers[0])
            await payer.got("static_invoice")

    async def accepted(self) -> None:
        """The payer takes the invoice: it goes on to the payment."""
        await self.pay(self.offers[0])

    async def forwarded(self) -> None:
        """The wallet gets the request, over the path that it left."""
        since = self.wallet.mark()
        await self.pay(self.offers[0])
        await self.wallet.got("invoice_request", since=since)

    async def held_and_released(self) -> None:
        """held_htlc_available and release_held_htlc pass between payer and wallet, through LND."""
        since = self.wallet.mark()
        async with self.payer() as payer:
            await payer.pay(self.offers[0])
            await self.wallet.got("held_htlc_available", since=since)
            await payer.got("release_held_htlc")

    async def wallet_away(self) -> None:
        """A killed wallet costs the payer nothing."""
        await self.wallet.kill()
        for offer in self.offers:
            await self.pay(offer)

    async def wallet_back(self) -> None:
        """The wallet starts from its state, connects, and hears of the next request."""
        await self.wallet.start()
        await self.connect()
        await self.forwarded()

    async def rotated(self) -> None:
        """With new request paths, old offers stay good and new ones are made."""
        rotated = await self.sidecar.json("client", "rotate", "alice")
        for offer in self.offers:
            await self.pay(offer)
        await self.wallet.set_paths(rotated["paths"])
        await self.wallet.tick()
        self.offers.append(await self.wallet.next_offer())
        await self.pay(self.offers[-1])

    async def refreshed(self) -> None:
        """Offers that were never shown are replaced after two hours: the new one of a slot is served."""
        while len(await self.slots()) < SLOTS:
            since = self.wallet.mark()
            await self.wallet.tick()
            await self.wallet.got("static_invoice_persisted", since=since)
        before = await self.stored()
        slot = await self.renewed()
        assert (await self.stored())[slot] != before[slot]
        self.offers.append(await self.wallet.next_offer())
        await self.pay(self.offers[-1])

    async def renewed(self) -> int:
        """Three hours later: all offers in use get a new invoice, and one other slot a new offer; which."""
        await self.wallet.clock(HOURS_3)
        since = self.wallet.mark()
        await self.wallet.tick()
        asked = await self.wallet.sent("offer_paths_request", since=since)
        await self.wallet.got("static_invoice_persisted", since=since, count=len(self.offers) + 1)
        slot: int = asked["slot"]
        return slot

    async def stored(self) -> dict[int, object]:
        """What is known of each slot."""
        shown = await self.sidecar.json("client", "show", "alice")
        return {slot["slot"]: slot for slot in shown["slots"]}

    async def replaced(self) -> None:
        """An offer in use gets a newer invoice in its slot, and payers get that one."""
        earlier = [await self.pay(offer) for offer in self.offers]
        await self.renewed()
        later = [await self.pay(offer) for offer in self.offers]
        assert all(new >= old + HOURS_3 for new, old in zip(later, earlier, strict=True))
