"""A wallet that is known and has an offer, a payer, and the wallet's mailbox."""

from dataclasses import dataclass

from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.core.webhooks import ONION_MESSAGE_INCOMING
from tests.harness.payer import Payer
from tests.harness.wallet import Wallet
from tests.harness.world import World

HELD_HTLC_AVAILABLE = 72


@dataclass
class Scene:
    """A wallet that is known and has an offer, and a payer."""

    world: World
    wallet: Wallet
    payer: Payer
    offer: Offer

    def held_path(self) -> BlindedPath:
        """The path for held_htlc_available that the wallet's invoice carries: LND, then the wallet."""
        return self.wallet.path_to_self(b"held htlc")

    async def hold(self, sender: Payer | None = None, content: bytes = b"") -> None:
        """A payer says that its HTLC is held."""
        await (sender or self.payer).send_along(self.held_path(), HELD_HTLC_AVAILABLE, content)
        await self.world.settled()

    async def ask(self, times: int = 1) -> None:
        """The payer asks for the invoice, each time anew."""
        for _ in range(times):
            await self.payer.send_request(self.offer)
            await self.world.settled()

    async def away(self) -> None:
        """The wallet goes offline."""
        await self.wallet.link.close()
        await self.world.settled()
        self.world.notifier.notified.clear()

    async def back(self) -> None:
        """The wallet connects."""
        self.wallet.link = self.world.network.connect(self.wallet.node_id)
        await self.world.settled()

    async def read(self) -> list[tuple[int | None, bytes]]:
        """Content types and contents that the wallet has got and not read."""
        got = []
        for _ in range(self.world.network.waiting(self.wallet.node_id)):
            payload = (await self.wallet.receive()).payload
            got.append((payload.content_type, payload.content))
        return got

    async def letters(self) -> int:
        """Letters in the client's mailbox."""
        ((client, _),) = await self.world.store.list_clients()
        return len(await self.world.store.mail(client.client_id))

    def woken(self) -> int:
        """How often the wallet was woken."""
        assert set(self.world.notifier.notified) <= {(self.wallet.node_id, ONION_MESSAGE_INCOMING)}
        return len(self.world.notifier.notified)

    async def prove_life(self) -> None:
        """Time passes, and the wallet sends bytes all along."""
        for _ in range(5):
            self.world.clock.pass_seconds(10)
            self.world.network.peers.received[self.wallet.node_id] += 100
            await self.world.mailroom.look()


async def scene(world: World) -> Scene:
    """All is set up, long ago, with nothing in the mailbox."""
    wallet, payer = await world.wallet(), world.payer()
    offer, _, _ = await world.offer(wallet)
    await world.settled()
    world.clock.pass_seconds(60)
    return Scene(world, wallet, payer, offer)
