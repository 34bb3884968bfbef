"""All at once, for as long as it is wanted: wallets, payers, strangers, push services, operator, faults.

Each of them goes on by itself and cares little for answers: what is lost while Redis is away is not what is
looked at here, but what the sidecar keeps of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import grpc

from sidecar.adapters.admin_client import AdminClient
from sidecar.core import keys, messages, offers, paths
from sidecar.core.errors import OperatorError
from sidecar.core.lsps0 import LSPS_MESSAGE
from sidecar.core.model import Quota
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.rpc import lightning_pb2 as ln
from tests.bench.isolation_floods import Opener
from tests.harness import push_service
from tests.harness.link import LinkClosed
from tests.harness.narrowed import NarrowedProcess
from tests.harness.node import Node
from tests.harness.payer import Payer
from tests.harness.ports import free_port
from tests.harness.push_service import Behaviour, PushService
from tests.harness.redis_process import RedisProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import SimLink
from tests.harness.stage import Stage
from tests.harness.waking import push_options
from tests.harness.wallet import Issued, Wallet, set_webhook

SLEEPERS, APPS = 3, 10
"""Wallets that are away most of the time, and webhooks of each: to wake all of them takes 30 POSTs."""

PATIENCE = 3.0
"""Seconds for an answer that may never come."""

BURST = 1_500
"""Messages that LND streams at once: more than may wait."""

DIFFERENT = 100
"""Different ones among them."""

HANGS = 4.0
"""Seconds for which Redis says nothing: the sidecar still waits for it."""

HELD_HTLC_AVAILABLE = 72

EXCESS = (
    *("dropped.queue-full", "dropped.rate-limited", "dropped.bad-context", "dropped.store-unavailable"),
    *("refused.offer-requests", "refused.stores", "refused.mailbox", "mail.dropped.pushed-out"),
    *("mail.in-memory", "wake.failed.timeout", "wake.retried.status-5xx", "wake.dropped.host-busy"),
    *("lsps.refused.1003", "lsps.refused.-32700", "unsent.static_invoice.no-route"),
)
"""What must have been counted: each is the excess of something that the load does."""

Act = Callable[[], Awaitable[None]]


class MixedLoad:
    """Everybody: made by `mixed_load`. `run` until it is cancelled; `seed` decides who does what when."""

    def __init__(self, lnd: SimulatedLnd, redis: RedisProcess, push: PushService, seed: int) -> None:
        self._chance = random.Random(seed)
        self._lnd, self._redis, self._push = lnd, redis, push
        self._stage, self._opener = Stage(lnd), Opener(lnd)
        self._http = free_port()
        self._numbers = itertools.count()
        self._redis_at_work = asyncio.Lock()
        self._offers: list[Offer] = []
        self._sleepers: list[Wallet] = []
        self._renewing: list[tuple[Wallet, Issued, dict[int, bytes]]] = []
        self.sidecar: NarrowedProcess
        self.failures: list[str] = []
        """What the load itself could not do."""

    def start(self, datadir: Path) -> NarrowedProcess:
        """The sidecar, with settings under which limits are soon reached."""
        options = (
            *push_options(self._push),
            f"--redis.url={self._redis.url}",
            f"--http.listen=127.0.0.1:{self._http}",
            *("--lsps5.cooldown=1s", "--mailbox.letters=20", "--limits.offer_rate=2"),
            "--limits.stores_per_minute=30",
        )
        self.sidecar = NarrowedProcess(datadir, self._lnd, options=options)
        return self.sidecar

    async def set_up(self) -> None:
        """Wallets that sleep, and one that renews what it left; each has an offer."""
        for number in range(SLEEPERS + 1):
            wallet = await self._stage.wallet(self.sidecar, f"wallet-{number}")
            issued = await wallet.issue()
            offer = wallet.make_offer(issued)
            await wallet.leave_invoice(issued, wallet.make_invoice(offer))
            await wallet.receive_persisted()
            self._offers.append(offers.decode_offer(wallet.offer_string(offer)))
            if number == SLEEPERS:
                self._renewing.append((wallet, issued, offer))
                self._lnd.node.peers[wallet.node_id].suspended = True
                continue
            for app in range(APPS):
                await set_webhook(wallet.link, f"app {app}", self._push.url(f"/{number}/{app}"))
            await wallet.link.close()
            self._sleepers.append(wallet)

    async def run(self) -> None:
        """All of them, until cancelled."""
        async with asyncio.TaskGroup() as everybody:
            for rate, act in (
                *((8, self._pay), (1, self._pay_from_nowhere), (0.3, self._ask_too_often)),
                *((15, self._rubbish), (10, self._write), (0.3, self._come_and_go), (2, self._renew)),
                *((2, self._lsps), (0.5, self._operate), (1, self._scrape), (0.05, self._flood)),
                *((0.1, self._lose_redis), (0.07, self._lose_streams), (1, self._change_push)),
            ):
                everybody.create_task(self._again_and_again(rate, act))

    async def _again_and_again(self, rate: float, act: Act) -> None:
        """So many times a second about, for one who waits for nobody."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(self._chance.uniform(0.5, 1.5) / rate)
                task = asyncio.create_task(self._once(act))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _once(self, act: Act) -> None:
        try:
            await act()
        except (TimeoutError, LinkClosed):
            pass
        except Exception as error:  # noqa: BLE001 - told at the end: else there would be less load than is said
            self.failures.append(repr(error))

    # --- payers -------------------------------------------------------------------------------------

    def _an_offer(self) -> Offer:
        return self._chance.choice(self._offers)

    async def _pay(self) -> None:
        payer = await self._stage.payer()
        try:
            async with asyncio.timeout(PATIENCE):
                offer = self._an_offer()
                await payer.send_request(offer)
                await payer.receive_answer(offer)
        finally:
            await payer.link.close()

    async def _pay_from_nowhere(self) -> None:
        """The answer is for a node that LND is to dial, and there is none."""
        payer = await self._stage.payer()
        nobody = Node(os.urandom(32), payer.link, self._lnd.node_id)
        self._lnd.add_node(nobody.node_id, "127.0.0.1:1", listens=False)
        try:
            await payer.send_request(
                self._an_offer(), reply_path=nobody.path_to_self(b"payer", through_lnd=False)
            )
            await asyncio.sleep(PATIENCE)
        finally:
            del self._lnd.node.graph[nobody.node_id]
            await payer.link.close()

    async def _ask_too_often(self) -> None:
        payer, offer = await self._stage.payer(), self._an_offer()
        for _ in range(20):
            await payer.send_request(offer)
        await payer.link.close()

    # --- strangers ----------------------------------------------------------------------------------

    async def _stranger(self) -> Payer:
        stranger = await self._stage.payer()
        assert isinstance(stranger.link, SimLink)
        stranger.link.suspended = True  # it reads nothing
        return stranger

    async def _rubbish(self) -> None:
        stranger = await self._stranger()
        path = self._chance.choice((self._path_to_nobody, self._path_of_its_own, self._stolen_path))()
        content = os.urandom(self._chance.choice((10, 500, 20_000)))
        await stranger.send_along(path, self._chance.choice((64, 77, 65_540)), content)
        # What is not even an onion, LND itself drops.
        await stranger.link.send_onion(os.urandom(33), os.urandom(1_366))
        await stranger.link.close()

    def _path_to_nobody(self) -> BlindedPath:
        padding = bytes((1, 253, 8, 0)) + bytes(2_048)
        nobody = keys.public_key(os.urandom(32))
        data = self._chance.choice((b"", padding)) + paths.next_hop_data(nobody)
        hops = [(self._lnd.node_id, data), (nobody, paths.path_id_data(b"-"))]
        return paths.build(os.urandom(32), hops)

    def _path_of_its_own(self) -> BlindedPath:
        """It leads to the sidecar, and the sidecar did not make it: anybody learns its key from an offer."""
        path = self._an_offer().paths[0]
        hop = paths.first_hop(path, self._lnd.node.ecdh(path.path_key))
        assert hop.node_id is not None
        hops = [
            (self._lnd.node_id, paths.next_hop_data(hop.node_id)),
            (hop.node_id, paths.path_id_data(b"-")),
        ]
        return paths.build(os.urandom(32), hops)

    def _stolen_path(self) -> BlindedPath:
        return self._an_offer().paths[0]

    async def _write(self) -> None:
        """Letters for a wallet that sleeps: of who sent several, one makes room for the next stranger's."""
        stranger = await self._stranger()
        to = self._chance.choice(self._sleepers).path_to_self(b"held htlc")
        for _ in range(self._chance.choice((1, 1, 3))):
            await stranger.send_along(to, HELD_HTLC_AVAILABLE, os.urandom(self._chance.choice((0, 20_000))))
        await stranger.link.close()

    def _letters(self) -> list[ln.OnionMessageUpdate]:
        """What a flood is made of: letters for wallets that sleep."""
        peer = keys.public_key(os.urandom(32))
        made = []
        for _ in range(DIFFERENT):
            path = self._chance.choice(self._sleepers).path_to_self(b"held htlc")
            packet = messages.onion_along(path, os.urandom(32), HELD_HTLC_AVAILABLE, b"", None)
            made.append(self._opener.open((peer, path.path_key, packet)))
        return made

    async def _flood(self) -> None:
        """More than may wait, while Redis hangs and all that is in work waits for it."""
        letters = self._letters()
        async with self._redis_at_work:
            pid = self._redis.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                for update, _ in zip(itertools.cycle(letters), range(BURST), strict=False):
                    self._lnd.node.onions.send(update)
                await asyncio.sleep(HANGS)
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _lsps(self) -> None:
        stranger = await self._stranger()
        params = {"app_name": "app", "webhook": "https://a.example/b"}
        request = {"jsonrpc": "2.0", "id": "1", "method": "lsps5.set_webhook", "params": params}
        data = self._chance.choice((json.dumps(request).encode(), b"{", os.urandom(60_000)))
        for _ in range(self._chance.choice((1, 1, 40))):
            await stranger.link.send_custom(LSPS_MESSAGE, data)
        # LND keeps it for as long as an answer may take.
        await asyncio.sleep(PATIENCE)
        await stranger.link.close()

    # --- wallets ------------------------------------------------------------------------------------

    async def _come_and_go(self) -> None:
        """A wallet is woken, takes what waits, and goes."""
        wallet = self._chance.choice(self._sleepers)
        wallet.link = link = await self._stage.connect(wallet.secret)
        try:
            async with asyncio.timeout(self._chance.uniform(0, PATIENCE)):
                while True:
                    await link.receive_onion()
        finally:
            await link.close()

    async def _renew(self) -> None:
        wallet, issued, offer = self._chance.choice(self._renewing)
        await wallet.leave_invoice(issued, wallet.make_invoice(offer))
        if self._chance.random() < 0.2:
            await wallet.ask_offer_paths(self._chance.randrange(1, 4))

    async def _change_push(self) -> None:
        choices: Sequence[Behaviour] = (push_service.hang, push_service.answer(500), push_service.OK)
        self._push.behaviour = self._chance.choice((*choices, push_service.hang_up, push_service.hang))
        self._push.forget()

    # --- the operator, and faults -------------------------------------------------------------------

    async def _operate(self) -> None:
        with contextlib.suppress(OperatorError, grpc.RpcError):
            await asyncio.to_thread(self._administer, f"guest-{next(self._numbers)}")

    def _administer(self, name: str) -> None:
        with AdminClient(self.sidecar.datadir) as admin:
            admin.status()
            admin.add(name, Quota(slots=2))
            admin.pause(name)
            admin.show("wallet-0")
            admin.mail("wallet-0")
            for _ in admin.export():
                pass
            admin.clients()
            admin.remove(name)

    async def _scrape(self) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            timeout = aiohttp.ClientTimeout(total=PATIENCE)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{self._http}/metrics") as answer,
            ):
                await answer.read()

    async def _lose_redis(self) -> None:
        async with self._redis_at_work:
            await self._redis.kill()
            await asyncio.sleep(self._chance.uniform(0.3, 1.5))
            await self._redis.start()

    async def _lose_streams(self) -> None:
        self._lnd.cut_streams()
        self._lnd.node.dropped.clear()


@contextlib.asynccontextmanager
async def mixed_load(directory: Path, seed: int) -> AsyncIterator[MixedLoad]:
    """All of it, set up and not at work yet."""
    async with (
        SimulatedLnd(directory / "lnd") as lnd,
        RedisProcess(directory / "redis") as redis,
        PushService(directory) as push,
    ):
        load = MixedLoad(lnd, redis, push, seed)
        async with load.start(directory / "sidecar"):
            await load.set_up()
            yield load
