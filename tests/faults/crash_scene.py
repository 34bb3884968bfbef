"""What is acknowledged while things are killed, and whether it is found again, in rounds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from sidecar.adapters.admin_client import admin_socket_path, socket_target
from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_store import RedisStore
from sidecar.core import offers, paths
from sidecar.core.wire import encode_tlvs
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.faults.crash_wallet import NotingWallet
from tests.faults.ledger import Row
from tests.harness.mortal import MortalSidecar
from tests.harness.payer import InvoiceErrorReceived
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage

ANSWER_TIMEOUT = 10.0
LETTERS_TIMEOUT = 10.0
SETTLE = 0.02
"""Seconds for what has left a sidecar that was killed, and is in gRPC's hands here."""

HELD_HTLC_AVAILABLE = 72
REQUESTS = 2
"""Of each round's two wallets: more than four would be handed over with pauses."""

OPTIONS = (
    "--limits.stores_per_minute=100000",
    "--limits.offer_paths_per_minute=100000",
    "--lsps5.max_webhooks=100",
)
T = TypeVar("T")
Letters = set[tuple[bytes, bytes]]


def in_halves(stands: Sequence[T], rounds: int) -> Iterator[tuple[T, range]]:
    """Of two stands, each with the numbers of the rounds that are for it; none is given for no rounds."""
    half = rounds // 2
    for stand, numbers in zip(stands, (range(half), range(half, rounds)), strict=True):
        if numbers:
            yield stand, numbers


async def working(work: Coroutine[Any, Any, None], break_it: Awaitable[None]) -> None:
    """Let work, which does not end by itself, go on until `break_it` is done, and a moment longer."""
    loading, breaking = asyncio.create_task(work), asyncio.ensure_future(break_it)
    try:
        await asyncio.wait({loading, breaking}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        await breaking
        await asyncio.sleep(SETTLE)
    finally:
        for task in (loading, breaking):
            task.cancel()
        await asyncio.gather(loading, breaking, return_exceptions=True)


class Scene:
    """A simulated LND, a sidecar that dies now and then, clients' wallets and payers.

    A round has two wallets of its own: one that is there and leaves invoices anew, one that is away and
    gets letters. More come while it lasts. `socket`: where Redis listens.
    """

    def __init__(
        self, folder: Path, sidecar: MortalSidecar, lnd: SimulatedLnd, socket: Path, options: Sequence[str]
    ) -> None:
        self.sidecar, self.lnd = sidecar, lnd
        self.datadir = folder / "data"
        self._socket, self._options = socket, (*OPTIONS, *options)
        self.stage = Stage(lnd)
        self._names: list[str] = []
        self._gone: list[NotingWallet] = []
        self.wallets: list[NotingWallet] = []
        """This round's: the one that is there, the one that is away, and those that came."""
        self.promised: dict[str, Letters] = {}
        """Letters that have to be handed over, by the names of their wallets."""
        self._count = 0
        self.acknowledged: Callable[[bytes], None] = lambda _: None
        """Told of each acknowledgement, at once; see NotingWallet."""

    # --- the sidecar, and what is asked of it -------------------------------------------------------

    async def live(self) -> None:
        """Start a sidecar."""
        await self.sidecar.live(self.datadir, self.lnd, self._options)

    async def last_words(self) -> str:
        """Start a sidecar that can't live, and wait until it ends; the last line that it writes."""
        await self.sidecar.begin(self.datadir, self.lnd, self._options)
        assert await self.sidecar.wait() == 0, "it was killed"
        return self.sidecar.lines[-1]

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(socket_target(admin_socket_path(self.datadir))) as channel:
            yield channel

    async def new_wallet(self) -> NotingWallet:
        """Let a client in, and connect its wallet. Raises grpc.aio.AioRpcError."""
        self._count += 1
        name = f"client-{self._count}-{os.urandom(4).hex()}"
        async with self._channel() as channel:
            stub = admin_pb2_grpc.AdminStub(channel)
            added = await stub.AddClient(admin_pb2.AddClientRequest(name=name), timeout=ANSWER_TIMEOUT)
        self._names.append(name)
        self.acknowledged(b"{%s}" % added.client.client_id.encode())
        (request_path,) = paths.decode_path_list(added.paths)
        secret, client_id = os.urandom(32), bytes.fromhex(added.client.client_id)
        link = await self.stage.connect(secret)
        wallet = NotingWallet(
            name=name,
            client_id=client_id,
            secret=secret,
            link=link,
            lnd_node_id=self.lnd.node_id,
            request_path=request_path,
            acknowledged=self.acknowledged,
        )
        self.wallets.append(wallet)
        return wallet

    # --- the load -------------------------------------------------------------------------------------

    async def set_up(self) -> None:
        """The two wallets of a round; one leaves again."""
        present, away = await asyncio.gather(self.new_wallet(), self.new_wallet())
        self.wallets = [present, away]
        await asyncio.gather(self._fill(present, 2), self._fill(away, 1))
        await away.link.close()

    @staticmethod
    async def _fill(wallet: NotingWallet, slots: int) -> None:
        for slot in range(slots):
            await wallet.renew(slot)

    async def load(self, rng: random.Random, newcomers: int) -> None:
        """Work until cancelled; so many clients come at once, one after the other."""
        present, away = self.wallets[:2]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(present))
            for _ in range(newcomers):
                tasks.create_task(self._let_in())
            tasks.create_task(self._register(present, rng))
            tasks.create_task(self._write_letters(away, rng))
            tasks.create_task(self._ask([present, away], rng))

    async def _renew(self, wallet: NotingWallet) -> None:
        while True:
            for slot in (0, 1):
                await wallet.renew(slot)

    async def _let_in(self) -> None:
        while True:
            try:
                wallet = await self.new_wallet()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)  # it is killed, or its Redis is: nothing was promised
                continue
            await wallet.renew(0)
            await wallet.register(f"app-{wallet.name}")

    async def _register(self, wallet: NotingWallet, rng: random.Random) -> None:
        for number in range(15):  # a peer may ask for 20 things at once
            await wallet.register(f"app-{number}-{os.urandom(4).hex()}")
            await asyncio.sleep(rng.uniform(0, 0.05))

    async def _write_letters(self, wallet: NotingWallet, rng: random.Random) -> None:
        payer = await self.stage.payer()
        for _ in range(100):
            await payer.send_along(wallet.path_to_self(b"held htlc"), HELD_HTLC_AVAILABLE, b"")
            await asyncio.sleep(rng.uniform(0, 0.02))

    async def _ask(self, wallets: Sequence[NotingWallet], rng: random.Random) -> None:
        payer = await self.stage.payer()
        for _ in range(REQUESTS):
            for wallet in wallets:
                await payer.send_request(offers.decode_offer(wallet.offer_of(0)))
                await asyncio.sleep(rng.uniform(0, 0.05))

    async def under_load(self, rng: random.Random, break_it: Awaitable[None], newcomers: int = 1) -> None:
        """Work until `break_it` is done, and a moment longer."""
        await working(self.load(rng, newcomers), break_it)

    # --- what must be found again ---------------------------------------------------------------------

    async def note_letters(self) -> None:
        """What is in the mailboxes of this round's wallets is promised: Redis must be there."""
        store = RedisStore(connect_socket(self._socket), self.lnd.node_id, waitaof=False)
        try:
            for wallet in self.wallets[:2]:
                found = await store.mail.mail(wallet.client_id)
                self.promised[wallet.name] = {(letter.path_key, letter.onion) for _, letter in found}
        finally:
            await store.close()

    async def until_served(self, row: Row, since: float, timeout: float = 30.0) -> None:
        """Ask as a payer until the invoice of the wallet that is away comes; an outage since then."""
        wallet = self.wallets[1]
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if await self._invoice(wallet.offer_of(0), 0.5) is not None:
                row.was_out(since)
                return
        row.violated(f"no payer was answered within {timeout:.0f} s")

    async def _invoice(self, offer_string: str, timeout: float = ANSWER_TIMEOUT) -> bytes | None:
        """What a payer gets."""
        payer = await self.stage.payer()
        try:
            async with asyncio.timeout(timeout):
                return encode_tlvs((await payer.get_invoice(offer_string)).records)
        except (TimeoutError, InvoiceErrorReceived):
            return None
        finally:
            await payer.link.close()

    async def look(self, row: Row, when: str) -> None:
        """Look for all that this round acknowledged, and let its wallets go."""
        await self._look_for_letters(row, when)
        for wallet in self.wallets:
            for kept, what in await self._of(wallet):
                row.check(kept, f"{when}: {what}")
        known = await self._clients()
        for name in self._names:
            row.check(name in known, f"{when}: client {name} is lost")
        self._names.clear()
        for wallet in self.wallets:
            await wallet.link.close()
        self._gone += self.wallets
        self.wallets.clear()

    async def look_again(self, row: Row, when: str) -> None:
        """Look once more for all that all rounds acknowledged; what was found before is no new try."""
        known = await self._clients()
        for wallet in self._gone:
            for kept, what in [*await self._of(wallet), (wallet.name in known, f"client {wallet.name}")]:
                if not kept:
                    row.violated(f"{when}, in the end: {what}")

    async def _of(self, wallet: NotingWallet) -> list[tuple[bool, str]]:
        """Whether each thing that was acknowledged to a wallet is there, and what it is."""
        found = []
        for slot, acked in wallet.acked.items():
            # What was sent after it may have been kept as well, and the wallet did not hear of it.
            served = await self._invoice(wallet.offer_of(slot))
            what = "nothing" if served is None else "an older or a foreign one"
            kept = served in wallet.left[slot][acked:]
            found.append((kept, f"invoice {acked} of slot {slot} of {wallet.name} is lost: {what} is served"))
        if wallet.webhooks:
            async with self._channel() as channel:
                listed = await admin_pb2_grpc.WebhooksStub(channel).ListWebhooks(
                    admin_pb2.ListWebhooksRequest(client=wallet.name), timeout=ANSWER_TIMEOUT
                )
            names = {webhook.app_name for webhook in listed.webhooks}
            found += [(each in names, f"webhook {each} of {wallet.name} is lost") for each in wallet.webhooks]
        return found

    async def _clients(self) -> set[str]:
        async with self._channel() as channel:
            stub = admin_pb2_grpc.AdminStub(channel)
            listed = await stub.ListClients(admin_pb2.ListClientsRequest(), timeout=ANSWER_TIMEOUT)
        return {client.name for client in listed.clients}

    async def _look_for_letters(self, row: Row, when: str) -> None:
        present, away = self.wallets[:2]
        away.link = await self.stage.connect(away.secret)
        for wallet in (present, away):
            letters = self.promised.pop(wallet.name, set())
            missing = await wallet.be_handed(letters, LETTERS_TIMEOUT)
            row.tried(len(letters) - len(missing))
            for _ in missing:
                row.check(kept=False, what=f"{when}: a kept letter was not handed to {wallet.name}")
