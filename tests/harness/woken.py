"""A sleeping LDK wallet, its push service, and who wants to pay it: beside the product on a real LND."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.core import webhooks
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from tests.harness.beside import sidecar_beside
from tests.harness.ldk import LdkPeer
from tests.harness.ldk_lsps5 import LdkLsps5, Registered
from tests.harness.lnd_process import LndProcess
from tests.harness.push_service import PushService
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waking import check_signature, push_options

APP = "My wallet"

HELD, REQUEST = "held_htlc_available", "invoice_request"


@dataclass(slots=True)
class Woken:
    """A wallet of LDK's that is a client, with an offer; all in one folder."""

    lnd: LndProcess
    sidecar: SidecarProcess
    push: PushService
    wallet: LdkLsps5
    validator: LdkLsps5
    folder: Path
    offer: str = ""
    _payers: int = 0

    async def set_up(self) -> None:
        """From the printed request paths to an offer, and to a node that the server knows."""
        added = await self.sidecar.json("client", "add", "alice")
        self.offer = await self.wallet.set_up(added["paths"], self.lnd.node_id, self.lnd.p2p_port)
        assert await self.client("node_id") == self.wallet.node_id.hex()

    async def register(self) -> Registered:
        """The wallet's own LSPS5 client registers its webhook; the push service hears of it."""
        registered = await self.wallet.set_webhook(self.lnd.node_id, APP, self.push.url())
        assert await self.told() == webhooks.WEBHOOK_REGISTERED
        return registered

    async def client(self, name: str) -> Any:
        """A field of what `sidecar client show` says."""
        return (await self.sidecar.json("client", "show", "alice"))[name]

    async def mail(self) -> int:
        """Messages that wait in the mailbox."""
        return int((await self.client("mailbox"))["messages"])

    async def told(self, timeout: float = 30) -> str:
        """The next notification's method: signed by LND, and accepted by LDK's own validator."""
        notification = await self.push.next(timeout)
        method = check_signature(self.lnd.node_id, notification)
        verdict = await self.validator.verdict_of(self.lnd.node_id, notification)
        assert verdict.ok, verdict
        assert verdict.method == method
        return method

    async def connect(self) -> None:
        """The wallet comes online."""
        await self.wallet.connect(self.lnd.node_id, self.lnd.p2p_port)

    async def sleep(self) -> None:
        """The wallet hangs up, in order."""
        await self.wallet.disconnect(self.lnd.node_id)

    async def pay(self) -> None:
        """A new payer gets the invoice, takes it, says that its HTLC is held, and leaves; both are kept."""
        self._payers += 1
        before = await self.mail()
        async with LdkPeer("0.2", self.folder / f"payer-{self._payers}") as payer:
            await payer.connect(self.lnd.node_id, self.lnd.p2p_port)
            await payer.pay(self.offer)
            await payer.got("static_invoice")
            await payer.sent(HELD)
            # What LDK has sent is not yet on its way.
            await self._until_kept(before + 2)

    async def _until_kept(self, number: int) -> None:
        """Wait until so many letters are in the mailbox."""
        try:
            async with asyncio.timeout(20):
                # Another process, which tells only when it is asked.
                while await self.mail() < number:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{await self.mail()} letters: {await self.sidecar.counters()}") from None

    async def until_lnd_drops_it(self, timeout: float) -> None:
        """Wait until LND gives the wallet's connection up."""
        async with self.lnd.channel() as channel, asyncio.timeout(timeout):
            stub = ln_rpc.LightningStub(channel)
            events = stub.SubscribePeerEvents(ln.PeerEventSubscription())
            async for event in events:
                if event.pub_key == self.wallet.node_id.hex() and event.type == ln.PeerEvent.PEER_OFFLINE:
                    return

    def freeze(self) -> None:
        """The phone suspends the wallet: no FIN, no answer, a connection that stands."""
        os.kill(self.wallet.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        os.kill(self.wallet.pid, signal.SIGCONT)


@asynccontextmanager
async def woken(
    lnd: LndProcess, folder: Path, options: Sequence[str] = (), *, version: str = "0.2"
) -> AsyncIterator[Woken]:
    """All of it, set up and online, with a webhook that the wallet (of that LDK) registered by itself."""
    async with (
        PushService(folder) as push,
        sidecar_beside(lnd, folder, [*push_options(push), *options]) as sidecar,
        LdkLsps5(version, folder / "wallet", state=folder / "wallet" / "state") as wallet,
        # In a process of its own: that of the wallet may be frozen.
        LdkLsps5(version, folder / "validator") as validator,
    ):
        scene = Woken(lnd, sidecar, push, wallet, validator, folder)
        await scene.set_up()
        await scene.register()
        yield scene
