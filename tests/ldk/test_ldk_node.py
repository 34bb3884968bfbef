"""ldk-node, the library that wallets are made of, is served: with real channels, on each LND."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.core import messages, offers
from tests.harness.asserting import until
from tests.harness.beside import LNDS, sidecar_beside
from tests.harness.bitcoind_front import BitcoindFront
from tests.harness.btcd import Btcd
from tests.harness.chain import Regtest, open_channel
from tests.harness.ldk_node import LdkNodeWallet
from tests.harness.lnd_process import LndProcess
from tests.harness.matrix import Matrix
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage

# ldk-node's time is the real one: what it tries once a minute may take two.
pytestmark = [pytest.mark.ldk, pytest.mark.timeout(240)]

BOLT12_INVOICE = 66
"""BOLT 4, `onionmsg_tlv`: what a payee that is online answers with."""

PAYMENT = 60.0

RECONNECTION = 75.0
"""ldk-node tries those it was connected to when it starts, and then once a minute."""


@dataclass(slots=True)
class Scene:
    """A chain, an LND that follows it, and the product beside that."""

    regtest: Regtest
    front: BitcoindFront
    lnd: LndProcess
    sidecar: SidecarProcess
    folder: Path

    def wallet(self, name: str) -> LdkNodeWallet:
        """A wallet, or one that was here before, started again."""
        return LdkNodeWallet(self.folder / name, self.front, self.lnd.node_id)

    async def connect_with_channel(self, wallet: LdkNodeWallet) -> None:
        """The wallet connects to LND, which opens a channel to it, as an LSP does.

        ldk-node makes an invoice only for a payment path, and a payment path only of a channel.
        """
        await wallet.connect(self.lnd.node_id, self.lnd.p2p_port)
        await self.regtest.fund({self.lnd: 1})
        address = f"127.0.0.1:{self.lnd.p2p_port}"  # not dialled: they are connected
        funding = await open_channel(self.lnd, wallet.node_id, address, push=400_000, private=True)
        await self.regtest.confirm([funding])
        await wallet.named("channel_ready", 60)


@pytest.fixture(params=LNDS)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    """On each LND."""
    kind = LNDS[request.param]
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(Btcd(tmp_path / "btcd"))
        regtest = await Regtest.begin(chain)
        front = await stack.enter_async_context(BitcoindFront(chain))
        lnd = await stack.enter_async_context(LndProcess(kind, tmp_path / "lnd", chain=chain))
        sidecar = await stack.enter_async_context(sidecar_beside(lnd, tmp_path))
        yield Scene(regtest, front, lnd, sidecar, tmp_path)


async def test_ldk_node_is_served_while_it_sleeps_and_answers_requests_when_it_is_back(
    scene: Scene, matrix: Matrix
) -> None:
    """What `client add` prints is all that ldk-node needs; a payer is served over its death and return."""
    sidecar = scene.sidecar
    added = await sidecar.json("client", "add", "alice")
    async with scene.wallet("alice") as wallet:
        await scene.connect_with_channel(wallet)
        since = time.monotonic()
        await wallet.set_paths(added["paths"])
        offer = await wallet.next_offer()
        took = time.monotonic() - since
        await wallet.kill()
        await until_connected(scene.lnd, wallet, connected=False)
    matrix.notes.append(f"ldk-node, {scene.lnd.kind}: an offer {1000 * took:.0f} ms after it got its paths")

    payer = await Stage(scene.lnd).payer()
    await payer.get_invoice(offer)
    assert "sent.invoice_request" not in await sidecar.counters()

    async with scene.wallet("alice") as wallet:
        await until_connected(scene.lnd, wallet, connected=True)
        await payer.send_request(offers.decode_offer(offer))
        answers = {(await payer.receive()).payload.content_type for _ in range(2)}
        # The server's answer, and the wallet's own: it is online, so it makes a real invoice.
        assert answers == {BOLT12_INVOICE, messages.STATIC_INVOICE}
        assert (await sidecar.counters())["sent.invoice_request"] == 1


async def test_ldk_node_pays_an_offer_of_ldk_node(scene: Scene, matrix: Matrix) -> None:
    """Payer and wallet are both ldk-node: the money goes from one to the other."""
    added = await scene.sidecar.json("client", "add", "alice")
    async with scene.wallet("alice") as wallet, scene.wallet("bob") as payer:
        await scene.connect_with_channel(wallet)
        await scene.connect_with_channel(payer)
        await wallet.set_paths(added["paths"])
        offer = await wallet.next_offer()
        since = time.monotonic()
        await payer.send_to(offer, 50_000)
        await payer.named("payment_successful", PAYMENT)
        took = time.monotonic() - since
        received = await wallet.named("payment_received")
        assert received["amount_msat"] == 50_000
        assert (await scene.sidecar.counters())["sent.static_invoice"] >= 1
        # The wallet is online and answers too; the payer takes what comes first.
        invoice = "static" if "ReleaseHeldHtlc" in payer.log else "wallet's own"
    how = f"paid {1000 * took:.0f} ms after `send`, with the {invoice} invoice"
    matrix.notes.append(f"ldk-node, {scene.lnd.kind}: {how}")


async def until_connected(lnd: LndProcess, wallet: LdkNodeWallet, *, connected: bool) -> None:
    """Wait until LND sees the wallet, which connects by itself, or sees that it is gone."""

    async def as_wanted() -> bool:
        peers = (await lnd.lncli("listpeers"))["peers"]
        return connected == any(peer["pub_key"] == wallet.node_id.hex() for peer in peers)

    await until(as_wanted, RECONNECTION)
