"""Wallets, payers and an operator who are at it all the time, and know what was acknowledged to them."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.adapters.admin_client import AdminClient
from sidecar.adapters.redis_records import Keys
from sidecar.core import messages, offers, paths
from sidecar.core.errors import OperatorError
from sidecar.core.messages import ServeStaticInvoice
from sidecar.core.model import Family, Quota
from tests.harness.link import LinkClosed
from tests.harness.payer import InvoiceErrorReceived, Payer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage
from tests.harness.wallet import Issued, Wallet

HELD_HTLC_AVAILABLE = 72
ANSWER = 1.0
"""Seconds for an answer; who has none by then asks again."""

PATIENCE = 40.0
"""Seconds until what was broken must work again."""

PAUSE = 0.03
"""Seconds between two steps of one of them: the machine is for others, too."""

OPTIONS = (
    *("--limits.stores_per_minute=100000", "--limits.offer_paths_per_minute=100000"),
    *("--limits.offer_rate=100000", "--limits.offer_burst=10000", "--limits.client_rate=100000"),
    *("--mailbox.letters=10000", "--loglevel=info"),
)
"""Settings under which none of them is told to wait."""


@dataclass(slots=True)
class Leaving:
    """A wallet that leaves one invoice after the other; each has its number as creation time."""

    name: str
    client_id: bytes
    wallet: Wallet
    issued: Issued
    offer: dict[int, bytes]
    first: int
    sent: int = 0
    acknowledged: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def leave(self) -> bool:
        """Leave the next one; whether it was acknowledged in time."""
        self.sent += 1
        number = self.sent
        invoice = self.wallet.make_invoice(self.offer, created_at=self.first + number)
        content = messages.encode(ServeStaticInvoice(invoice, self.wallet.forward_path), self.wallet.family)
        reply_path = self.wallet.path_to_self(b"persisted" + number.to_bytes(4, "big"))
        await self.wallet.send_along(self.issued.update_path, *content, reply_path)
        try:
            async with asyncio.timeout(ANSWER):
                while self.acknowledged < number:
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            return False
        return True

    async def leave_until_kept(self) -> bool:
        """Leave one after the other until one is acknowledged; False when none is for long."""
        return await until_there(lambda: _true_or_none(self.leave())) is not None

    async def listen(self) -> None:
        """Read what comes, until the wallet hangs up."""
        while True:
            try:
                arrived = await self.wallet.receive()
            except LinkClosed:
                return
            if arrived.path_id is not None and arrived.path_id.startswith(b"persisted"):
                number = int.from_bytes(arrived.path_id.removeprefix(b"persisted"), "big")
                self.acknowledged = max(self.acknowledged, number)
                self.news.set()


@dataclass(slots=True)
class Lost:
    """What was acknowledged, and what of it is not there any more, or is not what it was."""

    tries: int = 0
    lost: list[str] = field(default_factory=list)

    def check(self, kept: object, what: str) -> None:
        """One thing that was acknowledged."""
        self.tries += 1
        if not kept:
            self.lost.append(what)


class Crowd:
    """All of one sidecar. `busy` keeps them at it; `look` asks for everything that was acknowledged."""

    def __init__(self, stage: Stage, sidecar: SidecarProcess, seed: int) -> None:
        self._stage = stage
        self._sidecar = sidecar
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []
        self._listening: list[asyncio.Task[None]] = []
        self._names = itertools.count()
        self.wallets: list[Leaving] = []
        self.added: set[str] = set()
        self._sleeper: Wallet | None = None
        self._letters: set[bytes] = set()
        self.asked = self.answered = 0

    async def gather(self, count: int) -> None:
        """So many wallets come, each with an offer."""
        for _ in range(count):
            wallet, name, client_id = await self._wallet()
            issued = await wallet.issue()
            # Numbers are times of the past: a wallet's clock may be behind, and not ahead.
            first = int(time.time()) - 5 * 86_400
            each = Leaving(name, client_id, wallet, issued, wallet.make_offer(issued), first)
            self._listening.append(asyncio.create_task(each.listen()))
            self.wallets.append(each)
            assert await each.leave()

    async def _wallet(self) -> tuple[Wallet, str, bytes]:
        name, client_id, encoded = await until_there(self._enrol)
        request_path = paths.decode_path_list(encoded)[0]
        secret = self._random.randbytes(32)
        link = await self._stage.connect(secret)
        return Wallet(secret, link, self._stage.lnd.node_id, request_path, Family.LDK), name, client_id

    def _add(self, name: str) -> tuple[str, bytes, bytes]:
        with AdminClient(self._sidecar.datadir) as server:
            found = server.add(name, Quota())
        self.added.add(name)
        return name, bytes.fromhex(found.client.client_id), found.paths

    # --- at it --------------------------------------------------------------------------------------

    async def busy(self) -> None:
        """They begin, with one more wallet, which falls asleep and is written to."""
        self._sleeper, *_ = await self._wallet()
        await self._sleeper.set_up()
        await self._sleeper.link.close()
        self._letters = set()
        steps: list[Callable[[], Awaitable[object]]] = [each.leave for each in self.wallets]
        steps += [self._write, self._ask, self._enrol]
        self._tasks = [asyncio.create_task(self._again(step)) for step in steps]

    async def quiet(self) -> None:
        """They stop; what they have sent may be under way."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def close(self) -> None:
        """All go home."""
        await self.quiet()
        for each in self.wallets:
            await each.wallet.link.close()
        await asyncio.gather(*self._listening)

    async def _again(self, step: Callable[[], Awaitable[object]]) -> None:
        while True:
            await step()
            await asyncio.sleep(PAUSE)

    async def _write(self) -> None:
        """A payer's message for the wallet that sleeps."""
        assert self._sleeper is not None
        content = self._random.randbytes(16)
        payer = await self._stage.payer()
        self._letters.add(content)
        await payer.send_along(self._sleeper.path_to_self(b"held htlc"), HELD_HTLC_AVAILABLE, content)
        await payer.link.close()

    async def _ask(self) -> None:
        each = self._random.choice(self.wallets)
        self.asked += 1
        if await self.served(each) is not None:
            self.answered += 1

    async def _enrol(self) -> tuple[str, bytes, bytes] | None:
        """A new client's name, id and paths; None when it may be there or not, for nobody was told."""
        try:
            return await asyncio.to_thread(self._add, f"client-{next(self._names)}")
        except OperatorError:
            return None

    async def served(self, each: Leaving) -> int | None:
        """The number of the invoice that a payer gets; None without an answer in time."""
        payer: Payer = await self._stage.payer()
        try:
            async with asyncio.timeout(ANSWER):
                invoice = await payer.get_invoice(Wallet.offer_string(each.offer))
        except TimeoutError:
            return None
        except InvoiceErrorReceived:
            # There is none any more: all of them are lost.
            return 0
        finally:
            await payer.link.close()
        assert invoice.offer.records == offers.decode_offer(Wallet.offer_string(each.offer)).records
        return invoice.created_at - each.first

    def spread(self) -> Sequence[str]:
        """One key of each wallet's Cluster slot, and those of what spans clients."""
        keys = Keys(self._stage.lnd.node_id)
        return [keys.names, keys.mail_uses, *(keys.client(each.client_id) for each in self.wallets)]

    # --- afterwards ---------------------------------------------------------------------------------

    async def until_back(self) -> None:
        """Wait until each wallet was told that an invoice is kept which it leaves from now on."""
        marks = [(each, each.sent) for each in self.wallets]
        async with asyncio.timeout(PATIENCE):
            for each, sent in marks:
                while each.acknowledged <= sent:
                    each.news.clear()
                    await each.news.wait()

    async def look(self, lost: Lost) -> None:
        """Ask for all that was acknowledged. To be called when they are quiet, and nothing is broken."""
        for each in self.wallets:
            served = await until_there(functools.partial(self.served, each))
            kept = served is not None and served >= each.acknowledged
            lost.check(kept, f"{each.name}: invoice {each.acknowledged} acknowledged, {served} served")
        listed = await until_there(self._listed)
        for name in sorted(self.added):
            lost.check(listed is not None and name in listed, f"client {name}")
        got = await self._wake()
        for content in sorted(self._letters):
            lost.check(content in got, f"letter {content.hex()}")

    async def _listed(self) -> set[str] | None:
        def ask() -> set[str]:
            with AdminClient(self._sidecar.datadir) as server:
                return {each.name for each in server.clients().clients}

        try:
            return await asyncio.to_thread(ask)
        except OperatorError:
            return None

    async def _wake(self) -> set[bytes]:
        """The wallet that slept connects; what it gets until nothing more comes."""
        assert self._sleeper is not None
        self._sleeper.link = await self._stage.connect(self._sleeper.secret)
        got: set[bytes] = set()
        try:
            while True:
                async with asyncio.timeout(ANSWER if self._letters <= got else 10 * ANSWER):
                    payload = (await self._sleeper.receive()).payload
                if payload.content_type == HELD_HTLC_AVAILABLE:
                    got.add(payload.content)
        except TimeoutError:
            return got
        finally:
            await self._sleeper.link.close()


async def _true_or_none(asked: Awaitable[bool]) -> bool | None:
    return await asked or None


async def until_there(ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Ask until there is an answer; None when there is none for long."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if (found := await ask()) is not None:
            return found
        await asyncio.sleep(PAUSE)
    return None
