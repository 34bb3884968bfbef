"""The one place where the server's adapters are built and wired to what uses them."""

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type

from sidecar import __version__
from sidecar.adapters.admin import AdminService
from sidecar.adapters.admin_backup import BackupService, DryRunner
from sidecar.adapters.admin_client import admin_socket_path
from sidecar.adapters.admin_server import AdminServer, start_admin
from sidecar.adapters.admin_tcp import TcpAddress
from sidecar.adapters.admin_webhooks import WebhooksService
from sidecar.adapters.clock import SystemClock
from sidecar.adapters.dialler import Dialler
from sidecar.adapters.graph import LndGraph
from sidecar.adapters.lnd import Lnd, LndNodeKey, LndSigner, NodeInfo, backoff
from sidecar.adapters.locks import succeed
from sidecar.adapters.monitoring import Monitoring
from sidecar.adapters.onions import CustomOnions, NativeOnions
from sidecar.adapters.peers import CustomLsps, LndPeers, NativeLsps
from sidecar.adapters.redis_store import RedisStore
from sidecar.adapters.vitals import Vitals
from sidecar.adapters.webhooks import WebhookNotifier, WebhookSettings
from sidecar.allowances import Allowances, Defaults
from sidecar.bindings import Bindings
from sidecar.clients import RunningClients
from sidecar.config import Settings
from sidecar.core import bolt12, paths
from sidecar.core.errors import (
    LndDenied,
    ModeChanged,
    NoSuchClient,
    NotLeading,
    SidecarError,
    StoreUnavailable,
)
from sidecar.core.keys import SidecarKeys
from sidecar.core.limits import Rate
from sidecar.core.model import Client, TimestampForm
from sidecar.core.server import ServerSettings, StaticInvoiceServer
from sidecar.courier import Courier
from sidecar.doctor import SelfLook
from sidecar.leading import Leading
from sidecar.lsps import LspsService, LspsSettings
from sidecar.mailroom import Mailroom
from sidecar.meeting import Meeting
from sidecar.peeler import Peeler
from sidecar.ports import OnionTransport
from sidecar.problems import Problems
from sidecar.report import AtWork, Onions, Report
from sidecar.service import SidecarService

log = structlog.get_logger(__name__)

REFRESH_EVERY = 30
"""Seconds after which another sidecar's bindings are known here."""

TIDY_EVERY = 3_600
"""Seconds between looks for webhooks that nothing speaks for any more."""


class RequestPaths:
    """Makes the paths that a client is given out of band. Fulfils adapters.admin.PathIssuer."""

    def __init__(self, server: StaticInvoiceServer) -> None:
        self._server = server

    async def request_paths(self, client: Client) -> bytes:
        """u16 count ‖ paths, in the form that ldk-node takes."""
        # "SHOULD provide at least 1 blinded path out-of-band"
        return paths.encode_path_list([self._server.request_path(client, os.urandom)])


def _defaults(settings: Settings) -> Defaults:
    """What holds for clients that have no limits of their own."""
    return Defaults(
        client=settings.client_limits,
        offer=Rate(settings.limits.offer_rate, settings.limits.offer_burst),
        mail_ttl=settings.mailbox.ttl,
        mail_total_bytes=settings.mailbox.total_bytes,
    )


def _tcp_address(settings: Settings) -> TcpAddress | None:
    """Where the admin server listens over TCP, if it does: the settings name all four, or none."""
    admin = settings.admin
    if admin.listen and admin.tlscert and admin.tlskey and admin.tokenfile:
        return TcpAddress(admin.listen, admin.tlscert, admin.tlskey, admin.tokenfile)
    return None


class Sidecar:
    """The sidecar on an LND that is known: what handles onions is built anew when LND changes its kind."""

    def __init__(
        self,
        settings: Settings,
        lnd: Lnd,
        met: tuple[NodeInfo, SidecarKeys],
        store: RedisStore,
        *,
        meeting: Meeting,
        monitoring: Monitoring,
    ) -> None:
        """`met` is what the meeting brought."""
        self._settings = settings
        self._lnd = lnd
        self._info, self._keys = info, keys = met
        self._store = store
        self._meeting = meeting
        self._monitoring = monitoring
        self._counters: Counter[str] = Counter()
        self._transport: Onions | None = None
        self._mailroom: Mailroom | None = None
        self._listening: AdminServer | None = None
        self._lsps_transport: NativeLsps | CustomLsps | None = None
        self._service: asyncio.Task[None] | None = None
        self._problems = Problems(SystemClock())
        self._server = StaticInvoiceServer(
            ServerSettings(info.node_id, keys, bolt12.CHAINS[info.network], settings.paths.lifetime)
        )
        # On a test network nodes announce private addresses; on the others nobody honest does.
        private = info.network in ("regtest", "simnet")
        self._dialler = Dialler(lnd, info.node_id, private_addresses=private)
        self._graph = LndGraph(lnd, info.node_id, self._dialler)
        self._bindings = Bindings(store, self._counters)
        self._allowances = Allowances(store, _defaults(settings), self._counters)
        self._clients = RunningClients(self._bindings, self._allowances, lambda: self._mailroom)
        self._leading = Leading(
            store.lease,
            name=settings.lease.name or socket.gethostname(),
            seconds=settings.lease.time,
            hears=self._stream_up,
            refresh=self._clients.refresh,
            dropped=self._count,
        )
        self._lease = self._leading.lease
        store.fence_by(self._lease.confirmed)
        self._vitals = Vitals(store, stream_up=self._stream_up, allowed=self._allowed)
        self._notifier = self._new_notifier()
        self._lsps = LspsService(
            store=store.webhooks,
            notifier=self._notifier,
            clock=SystemClock(),
            may_register=self._is_known,
            settings=LspsSettings(max_webhooks=settings.lsps5.max_webhooks, ports=settings.lsps5.ports),
            counters=self._counters,
        )
        self._report = Report(
            at_work=lambda: AtWork(self._info, self._transport, self._mailroom),
            vitals=self._vitals,
            counters=self._counters,
            timings=monitoring.timings,
            problems=self._problems,
            redis=store.description,
            durability=settings.redis.durability,
            mail_bytes_allowed=lambda: self._allowances.defaults.mail_total_bytes,
            leads=lambda: self._lease.leads,
            leader=lambda: self._lease.leader,
            started_at_ms=SystemClock().now_ms(),
        )

    def _new_notifier(self) -> WebhookNotifier:
        lsps5 = self._settings.lsps5
        return WebhookNotifier(
            store=self._store.webhooks,
            signer=LndSigner(self._lnd),
            form_of=self._timestamps_of,
            settings=WebhookSettings(
                cooldown=lsps5.cooldown,
                networks=lsps5.private_networks,
                ports=lsps5.ports,
                ca_file=lsps5.cafile,
            ),
            clock=SystemClock(),
            counters=self._counters,
            timings=self._monitoring.timings,
            problem=self._problems.note,
        )

    async def run(self) -> None:
        """Answer the operator and the network until cancelled."""
        self._settings.datadir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._monitoring.follow(self._vitals, self._report.facts)
        await self._read_clients()
        async with AsyncExitStack() as stack:
            self._listening = await self._listen()
            stack.push_async_callback(self._listening.stop)
            stack.push_async_callback(self._dialler.aclose)
            former = stack.enter_context(succeed(self._settings.datadir / "holder", self._leading.holder))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._vitals.run())
                tasks.create_task(self._notifier.run())
                tasks.create_task(self._lease.run(former))
                tasks.create_task(self._keep_clients())
                tasks.create_task(self._keep_webhooks_tidy())
                tasks.create_task(self._serve())

    async def _listen(self) -> AdminServer:
        """Take the operator's calls."""
        clients = self._clients
        chain = bolt12.CHAINS[self._info.network]
        peeler = Peeler(self._info.node_id, LndNodeKey(self._lnd), self._keys)
        admin = AdminService(
            self._store,
            RequestPaths(self._server),
            clients,
            self._report.status,
            self._allowances,
            letters=self._store.mail.mail_list,
            mail_use=clients.mail_use,
            dry_run=DryRunner(self._store, self._server, chain, peeler.walk),
            look=SelfLook(self._settings).findings,
        )
        return await start_admin(
            admin,
            admin_socket_path(self._settings.datadir),
            WebhooksService(self._store, self._store.webhooks, self._lsps, self._notifier),
            backup=BackupService(
                self._store.backup,
                node_id=self._info.node_id,
                network=self._info.network,
                version=__version__,
                directory=self._settings.datadir,
                imported=clients.imported,
            ),
            tcp=_tcp_address(self._settings),
            ready=lambda: self._vitals.ready,
            # While nobody is known to lead there is nobody to disagree with: LND is away for all.
            standing_by=lambda: None if self._lease.leads else self._lease.leader or None,
        )

    def reload(self, settings: Settings) -> None:
        """Let the settings hold that may change at run time."""
        self._allowances.set_defaults(_defaults(settings))

    async def finish(self) -> None:
        """Take no more messages and calls, and return when what was taken is done."""
        # First of all: it leads on with LND's stream closed.
        releasing = asyncio.create_task(self._leading.release(self._service))
        if self._transport is not None:
            self._transport.finish()
        if isinstance(self._lsps_transport, NativeLsps):
            self._lsps_transport.finish()
        if self._listening is not None:
            await self._listening.stop(grace=1)
        await releasing
        if self._service is not None:
            await asyncio.wait([self._service])
        if self._mailroom is not None:
            await self._mailroom.until_stored()

    async def _serve(self) -> None:
        while True:
            try:
                # In a task of its own: before Python 3.13 a TaskGroup that ends with an error
                # leaves its task looking cancelled for ever (`Task.cancelling`).
                await asyncio.create_task(self._serve_lnd())
            except* ModeChanged:
                self._info = await self._meeting.again(self._info)
            except* LndDenied as denied:
                await self._meeting.refused(denied)
            except* NotLeading:
                pass  # it stands by now, with streams that begin anew

    async def _serve_lnd(self) -> None:
        transport, lsps = self._transports()
        onions, requests = self._leading.streams(transport.receive, lsps.receive)
        mailroom = self._mailroom = self._new_mailroom(transport)
        service = self._new_service(transport, mailroom)
        async with asyncio.TaskGroup() as tasks:
            self._service = tasks.create_task(service.run(onions.receive(), onions.dealt_with))
            tasks.create_task(self._lsps.run(lsps, requests.receive(), requests.dealt_with))
            tasks.create_task(self._leading.run(transport.up, mailroom, self._say_ready))

    def _new_service(self, transport: Onions, mailroom: Mailroom) -> SidecarService:
        lnd_key = LndNodeKey(self._lnd)
        courier = Courier(
            lnd_node_id=self._info.node_id,
            own_node_id=self._keys.node_id,
            lnd_key=lnd_key,
            graph=self._graph,
            transport=transport,
            entropy=os.urandom,
        )
        return SidecarService(
            server=self._server,
            peeler=Peeler(self._info.node_id, lnd_key, self._keys),
            courier=courier,
            transport=transport,
            graph=self._graph,
            store=self._store,
            bindings=self._bindings,
            mailroom=mailroom,
            allowances=self._allowances,
            clock=SystemClock(),
            entropy=os.urandom,
            counters=self._counters,
            timings=self._monitoring.timings,
            problem=self._problems.note,
            leading=self._lease.confirmed,
            not_replaced=self._lease.not_replaced,
        )

    def _transports(self) -> tuple[Onions, NativeLsps | CustomLsps]:
        if self._info.mode == "native":
            self._transport = NativeOnions(self._lnd, self._count, died=self._stream_died)
            self._lsps_transport = NativeLsps(self._lnd, self._count)
            return self._transport, self._lsps_transport
        lsps = self._lsps_transport = CustomLsps(self._lnd, self._count)
        self._transport = CustomOnions(self._lnd, self._count, others=lsps.take, died=self._stream_died)
        return self._transport, lsps

    def _stream_died(self, why: str) -> None:
        self._problems.note("stream-down", f"LND's stream of onion messages ended: {why}")

    def _new_mailroom(self, transport: OnionTransport) -> Mailroom:
        return Mailroom(
            allowances=self._allowances,
            bindings=self._bindings,
            store=self._store.mail,
            transport=transport,
            peers=LndPeers(self._lnd, self._count),
            notifier=self._notifier,
            clock=SystemClock(),
            counters=self._counters,
        )

    # --- who is whose -------------------------------------------------------------------------------

    async def _read_clients(self) -> None:
        async for attempt in AsyncRetrying(retry=retry_if_exception_type(StoreUnavailable), wait=backoff()):
            with attempt:
                await self._clients.refresh()

    async def _keep_clients(self) -> None:
        pause: float = REFRESH_EVERY
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            with contextlib.suppress(StoreUnavailable):
                await self._clients.refresh()
            # A million of them take Redis 16 s: it is not asked for more than a twentieth of its time.
            pause = max(REFRESH_EVERY, 20 * (time.monotonic() - began))

    async def _keep_webhooks_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY)
            # LndDenied too: an operator may be replacing the macaroon, and the next round is not far.
            with contextlib.suppress(SidecarError):
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

    def _say_ready(self) -> None:
        info, settings = self._info, self._settings
        # One sentence, and not fields: it is what an operator waits for.
        log.info(
            "ready: LND %s at %s (%s onion messages, %s, node %s), %s",
            info.version,
            settings.lnd.host,
            info.mode,
            info.network,
            info.node_id.hex(),
            self._store.description,
        )

    def _count(self, reason: str) -> None:
        self._counters[f"dropped.{reason}"] += 1

    def _stream_up(self) -> bool:
        return self._transport is not None and self._transport.stream_up

    def _allowed(self, client: Client) -> tuple[int, int]:
        limits = self._allowances.limits_under(client.quota)
        return limits.slots, limits.bytes
