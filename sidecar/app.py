"""The one place where adapters are built and wired: `sidecar serve`."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

from tenacity import AsyncRetrying, retry_if_exception_type

from sidecar import __version__
from sidecar.adapters.admin import AdminService, StatusSnapshot
from sidecar.adapters.admin_client import admin_socket_path
from sidecar.adapters.admin_server import start_admin
from sidecar.adapters.admin_webhooks import WebhooksService
from sidecar.adapters.dialler import Dialler
from sidecar.adapters.graph import LndGraph
from sidecar.adapters.lnd import Lnd, LndNodeKey, LndSigner, NodeInfo, backoff
from sidecar.adapters.onions import CustomOnions, NativeOnions
from sidecar.adapters.peers import CustomLsps, LndPeers, NativeLsps
from sidecar.adapters.redis_setup import open_store
from sidecar.adapters.redis_store import RedisStore
from sidecar.adapters.webhooks import WebhookNotifier, WebhookSettings
from sidecar.bindings import Bindings
from sidecar.config import LimitSettings, Settings
from sidecar.core import bolt12, paths
from sidecar.core.errors import (
    LndDenied,
    LndSetupError,
    LndUnavailable,
    ModeChanged,
    NoSuchClient,
    StoreUnavailable,
    Unavailable,
)
from sidecar.core.keys import SidecarKeys
from sidecar.core.limits import Rate
from sidecar.core.mailbox import MailUse
from sidecar.core.model import BoundBy, Client, TimestampForm
from sidecar.core.server import ServerSettings, StaticInvoiceServer
from sidecar.courier import Courier
from sidecar.lsps import LspsService, LspsSettings
from sidecar.mailroom import Mailroom, MailroomSettings
from sidecar.peeler import Peeler
from sidecar.ports import LspsTransport, OnionTransport
from sidecar.service import ServiceLimits, SidecarService

log = logging.getLogger(__name__)

REFRESH_EVERY = 30
"""Seconds after which another sidecar's bindings are known here."""

MACAROON_AGAIN = 2.0
"""Seconds between looks for another macaroon, after LND was upgraded."""

TIDY_EVERY = 3_600
"""Seconds between looks for webhooks that nothing speaks for any more."""


class SystemClock:
    """The machine's clock. Fulfils ports.Clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000


class RequestPaths:
    """Makes the paths that a client is given out of band. Fulfils adapters.admin.PathIssuer."""

    def __init__(self, server: StaticInvoiceServer) -> None:
        self._server = server

    async def request_paths(self, client: Client) -> bytes:
        """u16 count ‖ paths, in the form that ldk-node takes."""
        # "SHOULD provide at least 1 blinded path out-of-band"
        return paths.encode_path_list([self._server.request_path(client, os.urandom)])


class RunningClients:
    """What the operator changes of the clients that the server knows. Fulfils adapters.admin.Binder."""

    def __init__(self, bindings: Bindings, mailroom: Callable[[], Mailroom | None]) -> None:
        """`mailroom` gives the one at work, if any is."""
        self._bindings = bindings
        self._mailroom = mailroom

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Say which node a client is. Raises NodeTaken, NoSuchClient, StoreUnavailable."""
        return await self._bindings.bind(client_id, node_id, by)

    def add(self, client: Client) -> None:
        """A client that was made with a node of its own."""
        self._bindings.add(client)

    def forget(self, client_id: bytes) -> None:
        """A client is not served any more."""
        self._bindings.forget(client_id)
        if (mailroom := self._mailroom()) is not None:
            mailroom.forget(client_id)

    def mail_use(self, client_id: bytes) -> MailUse | None:
        """What waits for a client."""
        mailroom = self._mailroom()
        return None if mailroom is None else mailroom.use(client_id)


async def serve(settings: Settings) -> None:
    """Run the sidecar until SIGTERM or SIGINT. Raises OperatorError for what only the operator can mend."""
    logging.basicConfig(
        level=settings.loglevel.upper(), format="%(asctime)s %(levelname)-7s %(message)s", force=True
    )
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    running = asyncio.create_task(_run(settings))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        log.info("stopping")
        running.cancel()
    stop.cancel()
    await asyncio.gather(stop, return_exceptions=True)
    try:
        await running
    except asyncio.CancelledError:
        log.info("stopped")


async def _run(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        lnd = Lnd(settings.lnd.host, settings.lnd.tlspath, settings.lnd.macaroonpath)
        stack.push_async_callback(lnd.aclose)
        info, keys = await _meet(lnd, settings.network)
        store = await _open_store(settings, info.node_id)
        stack.push_async_callback(store.close)
        await Sidecar(settings, lnd, info, keys, store).run()


async def _meet(lnd: Lnd, network: str | None) -> tuple[NodeInfo, SidecarKeys]:
    """Wait for LND, and learn who it is. Raises LndSetupError, LndDenied."""
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(LndUnavailable), wait=backoff()):
        with attempt:
            await lnd.wait_ready()
            info = await lnd.describe()
            await lnd.check_permissions()
            keys = SidecarKeys.derive(await LndNodeKey(lnd).root())
    if info.network not in bolt12.CHAINS:
        raise LndSetupError(f"LND is on {info.network!r}, a chain that the sidecar does not know")
    if network is not None and network != info.network:
        raise LndSetupError(f"LND is on {info.network}, and --network says {network}: make them agree")
    return info, keys


async def _open_store(settings: Settings, node_id: bytes) -> RedisStore:
    said = False
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(StoreUnavailable), wait=backoff()):
        with attempt:
            try:
                redis = settings.redis
                return await open_store(redis.url, settings.datadir, node_id, redis.durability)
            except StoreUnavailable as error:
                if not said:
                    log.warning("waiting for Redis: %s", error)
                    said = True
                raise
    raise AssertionError("tenacity tries until it succeeds")


def _limits(settings: LimitSettings) -> ServiceLimits:
    def a_minute(count: int) -> Rate:
        return Rate(per_second=count / 60, burst=count)

    return ServiceLimits(
        offer=Rate(settings.offer_rate, settings.offer_burst),
        client=Rate(settings.client_rate, settings.client_burst),
        stores=a_minute(settings.stores_per_minute),
        offer_paths=a_minute(settings.offer_paths_per_minute),
    )


class Sidecar:
    """The sidecar on an LND that is known: what handles onions is built anew when LND changes its kind."""

    def __init__(
        self, settings: Settings, lnd: Lnd, info: NodeInfo, keys: SidecarKeys, store: RedisStore
    ) -> None:
        self._settings = settings
        self._lnd = lnd
        self._info = info
        self._keys = keys
        self._store = store
        self._counters: Counter[str] = Counter()
        self._upgraded = False
        self._refusal = ""
        self._transport: NativeOnions | CustomOnions | None = None
        self._mailroom: Mailroom | None = None
        self._server = StaticInvoiceServer(
            ServerSettings(info.node_id, keys, bolt12.CHAINS[info.network], settings.paths_lifetime)
        )
        # On a test network nodes announce private addresses; on the others nobody honest does.
        private = info.network in ("regtest", "simnet")
        self._dialler = Dialler(lnd, info.node_id, private_addresses=private)
        self._graph = LndGraph(lnd, info.node_id, self._dialler)
        self._bindings = Bindings(store, self._counters)
        lsps5 = settings.lsps5
        self._notifier = WebhookNotifier(
            store=store.webhooks,
            signer=LndSigner(lnd),
            form_of=self._timestamps_of,
            settings=WebhookSettings(
                cooldown=lsps5.cooldown,
                networks=lsps5.private_networks,
                ports=lsps5.ports,
                ca_file=lsps5.cafile,
            ),
            clock=SystemClock(),
            counters=self._counters,
        )
        self._lsps = LspsService(
            store=store.webhooks,
            notifier=self._notifier,
            clock=SystemClock(),
            may_register=self._is_known,
            settings=LspsSettings(max_webhooks=lsps5.max_webhooks, ports=lsps5.ports),
            counters=self._counters,
        )

    async def run(self) -> None:
        """Answer the operator and the network until cancelled."""
        self._settings.datadir.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._read_bindings()
        clients = RunningClients(self._bindings, lambda: self._mailroom)
        admin = AdminService(
            self._store,
            RequestPaths(self._server),
            clients,
            self.status,
            self._settings.quota,
            mail_use=clients.mail_use,
        )
        webhooks = WebhooksService(self._store, self._store.webhooks, self._lsps, self._notifier)
        listening = await start_admin(admin, admin_socket_path(self._settings.datadir), webhooks)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._notifier.run())
                tasks.create_task(self._keep_bindings())
                tasks.create_task(self._keep_webhooks_tidy())
                tasks.create_task(self._serve())
        finally:
            await self._dialler.aclose()
            await listening.stop()

    async def _serve(self) -> None:
        while True:
            try:
                # In a task of its own: before Python 3.13 a TaskGroup that ends with an error
                # leaves its task looking cancelled for ever (`Task.cancelling`).
                await asyncio.create_task(self._serve_lnd())
            except* ModeChanged:
                await self._meet_again()
                self._upgraded = True
            except* LndDenied as denied:
                # At the start it is a wrong macaroon; after an upgrade its operator has yet to bake another.
                if not self._upgraded:
                    raise
                self._wait_for_macaroon(denied.exceptions[0])
                await asyncio.sleep(MACAROON_AGAIN)

    async def _serve_lnd(self) -> None:
        transport, lsps = self._transports()
        lnd_key = LndNodeKey(self._lnd)
        courier = Courier(
            lnd_node_id=self._info.node_id,
            own_node_id=self._keys.node_id,
            lnd_key=lnd_key,
            graph=self._graph,
            transport=transport,
            entropy=os.urandom,
        )
        mailroom = self._mailroom = self._new_mailroom(transport)
        service = SidecarService(
            server=self._server,
            peeler=Peeler(self._info.node_id, lnd_key, self._keys),
            courier=courier,
            transport=transport,
            graph=self._graph,
            store=self._store,
            bindings=self._bindings,
            mailroom=mailroom,
            clock=SystemClock(),
            entropy=os.urandom,
            limits=_limits(self._settings.limits),
            counters=self._counters,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run())
            tasks.create_task(mailroom.run())
            tasks.create_task(self._lsps.run(lsps))
            tasks.create_task(self._say_ready(transport))

    def _transports(self) -> tuple[NativeOnions | CustomOnions, LspsTransport]:
        if self._info.mode == "native":
            self._transport = NativeOnions(self._lnd, self._count)
            return self._transport, NativeLsps(self._lnd, self._count)
        lsps = CustomLsps(self._lnd, self._count)
        self._transport = CustomOnions(self._lnd, self._count, others=lsps.take)
        return self._transport, lsps

    def _new_mailroom(self, transport: OnionTransport) -> Mailroom:
        return Mailroom(
            settings=MailroomSettings(self._settings.mail, self._settings.mail_total_bytes),
            bindings=self._bindings,
            store=self._store.mail,
            transport=transport,
            peers=LndPeers(self._lnd, self._count),
            notifier=self._notifier,
            clock=SystemClock(),
            counters=self._counters,
        )

    # --- who is whose -------------------------------------------------------------------------------

    async def _read_bindings(self) -> None:
        async for attempt in AsyncRetrying(retry=retry_if_exception_type(StoreUnavailable), wait=backoff()):
            with attempt:
                await self._bindings.refresh()

    async def _keep_bindings(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_EVERY)
            with contextlib.suppress(StoreUnavailable):
                await self._bindings.refresh()

    async def _keep_webhooks_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY)
            with contextlib.suppress(Unavailable):
                await self._lsps.tidy(self._is_known)

    async def _is_known(self, node_id: bytes) -> bool:
        """Whether a node is a client's, or has a channel with LND. Raises LndUnavailable."""
        return self._bindings.client_of(node_id) is not None or await self._graph.has_channel(node_id)

    async def _timestamps_of(self, node_id: bytes) -> TimestampForm:
        """How a node's notifications are dated. Raises StoreUnavailable."""
        default = self._settings.lsps5.timestamps
        client_id = self._bindings.client_of(node_id)
        if client_id is None:
            return default
        try:
            return (await self._store.find_client(client_id.hex())).timestamps or default
        except NoSuchClient:
            return default

    # --- saying what is -----------------------------------------------------------------------------

    async def _say_ready(self, transport: NativeOnions | CustomOnions) -> None:
        await transport.up.wait()
        info = self._info
        log.info(
            "ready: LND %s at %s (%s onion messages, %s, node %s), %s",
            info.version,
            self._settings.lnd.host,
            info.mode,
            info.network,
            info.node_id.hex(),
            self._store.description,
        )

    async def _meet_again(self) -> None:
        """After an upgrade of LND under the running sidecar. Raises LndSetupError for another node."""
        log.warning("LND has changed its kind: looking at it again")
        async for attempt in AsyncRetrying(retry=retry_if_exception_type(LndDenied), wait=backoff()):
            with attempt:
                try:
                    info, _ = await _meet(self._lnd, self._info.network)
                except LndDenied as error:
                    self._wait_for_macaroon(error)
                    raise
        if info.node_id != self._info.node_id:
            raise LndSetupError("LND is another node now: restart the sidecar to serve that one")
        self._info = info

    def _wait_for_macaroon(self, why: BaseException) -> None:
        """Say what is missing, once: each kind of LND has calls of its own."""
        while isinstance(why, BaseExceptionGroup):
            why = why.exceptions[0]
        if str(why) != self._refusal:
            self._refusal = str(why)
            log.warning("waiting for another macaroon: %s", why)

    def _count(self, reason: str) -> None:
        self._counters[f"dropped.{reason}"] += 1

    def status(self) -> StatusSnapshot:
        """What `sidecar status` shows."""
        info = self._info
        return StatusSnapshot(
            version=__version__,
            node_id=info.node_id.hex(),
            lnd_version=info.version,
            mode=info.mode,
            network=info.network,
            redis=self._store.description,
            durability=self._settings.redis.durability,
            stream_up=self._transport is not None and self._transport.stream_up,
            counters=dict(self._counters),
        )
