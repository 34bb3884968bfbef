"""A real LND with the product beside it, and four pairs of LDK peers with real channels to it.

wallets ──┐
          ├── LND ── hub ── far payers
payers  ──┘
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from tests.harness.asserting import until
from tests.harness.beside import URIS
from tests.harness.chain import Regtest
from tests.harness.ldk import LdkPeer
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.redis_process import RedisProcess
from tests.harness.sidecar_process import CommandFailed, SidecarProcess
from tests.settle.ledger import Finding, Ledger
from tests.settle.pair import Case, Pair, all_of, connected


@dataclass(frozen=True, slots=True)
class Guest:
    """A peer that was connected to LND, the port that it comes by, and where its events after that begin."""

    peer: LdkPeer
    port: int
    since: int
    is_wallet: bool


@dataclass(slots=True)
class Town:
    """All of it; cases play in it side by side, one for each pair."""

    name: str
    regtest: Regtest
    lnd: LndProcess
    macaroon: Path
    """The sidecar's."""
    redis: RedisProcess
    sidecar: SidecarProcess
    ledger: Ledger
    pairs: list[Pair] = field(default_factory=list)

    async def each(self, case: str, play: Case) -> None:
        """Play a case with all pairs side by side, enter what came of it, and look for what is stuck."""

        async def one(pair: Pair) -> None:
            try:
                finding = await play(pair)
            except BaseException as error:
                self.ledger.note(case, self.name, pair.name, Finding("FAILED"))
                error.add_note(f"{case}: {pair.name} through {self.name}")
                raise
            self.ledger.note(case, self.name, pair.name, finding)

        try:
            await all_of(*(one(pair) for pair in self.pairs))
        except BaseException as error:
            error.add_note(f"the server's counters: {await self.sidecar.counters()}")
            raise
        await self.nothing_is_stuck()

    async def calm(self) -> None:
        """All are up and connected, nothing is held back, and nobody has a notification to read."""
        for each in (self.lnd, self.redis, self.sidecar):
            if not each.running:
                await each.start()
        await self.until_served()
        for pair in self.pairs:
            pair.wallet_way.release()
            pair.payer_way.release()
        await all_of(*(pair.come_back() for pair in self.pairs))
        # Told while it was there, it is told no more for a while, unless it connects anew.
        await all_of(*(pair.connect_anew() for pair in self.pairs if pair.push.count()))
        for pair in self.pairs:
            pair.push.forget()

    # What LND says

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[ln_rpc.LightningAsyncStub]:
        """LND's own gRPC."""
        async with self.lnd.channel() as channel:
            yield ln_rpc.LightningStub(channel)

    async def until_gone(self, node_id: bytes) -> None:
        """Wait until LND has seen that a peer hung up."""
        async with self.asked() as stub:

            async def gone() -> bool:
                peers = (await stub.ListPeers(ln.ListPeersRequest())).peers
                return node_id.hex() not in [peer.pub_key for peer in peers]

            await until(gone)

    async def bytes_from(self, node_id: bytes) -> int:
        """Bytes that LND has got from a peer over its connection."""
        async with self.asked() as stub:
            peers = (await stub.ListPeers(ln.ListPeersRequest())).peers
            return next(int(peer.bytes_recv) for peer in peers if peer.pub_key == node_id.hex())

    async def forwarded_once(self, msat: int) -> bool:
        """Whether LND's forwarding history has a payment of that amount. Raises for one that it has twice."""
        history = await self.lnd.lncli("fwdinghistory", "--start_time=-1d", "--max_events=50000")
        amounts = [int(event["amt_out_msat"]) for event in history["forwarding_events"]]
        assert amounts.count(msat) <= 1, f"{msat} msat were forwarded {amounts.count(msat)} times"
        return msat in amounts

    async def until_htlcs_came(self) -> None:
        """Wait until each wallet has got an HTLC; LND names none that the wallet has not answered."""

        async def came() -> bool:
            wallets = [await pair.wallet.channels() for pair in self.pairs]
            return all(channel["inbound_htlcs"] for (channel,) in wallets)

        await until(came)

    async def nothing_is_stuck(self) -> None:
        """No HTLC is left in a channel, and none was closed: neither LND nor LDK says so."""

        async def no_htlc() -> bool:
            channels = (await self.lnd.lncli("listchannels"))["channels"]
            return not any(channel["pending_htlcs"] for channel in channels)

        await until(no_htlc, 30)
        assert not (await self.lnd.lncli("closedchannels"))["channels"]
        pending = await self.lnd.lncli("pendingchannels")
        assert not any(pending[kind] for kind in pending if kind.startswith(("pending_", "waiting_"))), (
            pending
        )
        for pair in self.pairs:
            for peer in (pair.wallet, pair.payer, pair.far_payer):
                assert not peer.seen("transaction"), "LDK wants to close a channel"

    # What the server says

    async def letters(self, client: str) -> int:
        """Messages that wait in a client's mailbox."""
        shown = await self.sidecar.json("client", "show", client)
        return int(shown["mailbox"]["messages"])

    async def until_letters(self, client: str, number: int) -> None:
        """Wait until so many messages wait for a client."""

        async def there() -> bool:
            return await self.letters(client) >= number

        await until(there, 30)

    async def until_served(self, mode: Kind | None = None) -> None:
        """Wait until the sidecar hears what comes to LND, and reads and writes what it keeps."""

        async def served() -> bool:
            try:
                await self.sidecar.command("client", "list")
            except CommandFailed:
                return False
            status = await self.sidecar.json("status")
            return bool(status["stream_up"]) and mode in (None, status["mode"])

        await until(served, 60)

    # What a case does to them

    async def stop_lnd(self, *, killed: bool = False) -> list[Guest]:
        """Stop LND, in order or with SIGKILL; who was connected."""
        everybody = [
            Guest(peer, way.port, peer.mark(), is_wallet=peer is pair.wallet)
            for pair in self.pairs
            for peer, way in ((pair.wallet, pair.wallet_way), (pair.payer, pair.payer_way))
            if connected(peer, self.lnd.node_id)
        ]
        await (self.lnd.kill() if killed else self.lnd.stop())
        return everybody

    async def start_lnd(self, guests: Sequence[Guest], kind: Kind | None = None) -> None:
        """Start LND again, as another kind if so said; the sidecar follows it, and then these come back.

        Wallets first: LND fails an HTLC for a wallet that is not there.
        """
        await self.lnd.restart(kind)
        if kind is not None:
            # Each kind has its own calls, and so its own macaroon: the operator bakes it anew.
            baked = await self.lnd.bake(URIS[self.lnd.kind])
            baked.replace(self.macaroon)
        await self.until_served(self.lnd.kind)

        async def come(guest: Guest) -> None:
            await guest.peer.named("disconnected", since=guest.since)
            await guest.peer.connect(self.lnd.node_id, guest.port)
            await guest.peer.payable()

        for wallets in (True, False):
            await all_of(*(come(guest) for guest in guests if guest.is_wallet is wallets))
