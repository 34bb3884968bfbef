"""Connecting LND to nodes it has no connection to: sparingly, and hung up again."""

import asyncio
import contextlib
import ipaddress
import time
from collections import deque
from collections.abc import Callable, Iterable

import structlog

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.addresses import is_public
from sidecar.adapters.lnd import Lnd
from sidecar.core.errors import NoRoute, SidecarError
from sidecar.rpc import lightning_pb2 as ln

log = structlog.get_logger(__name__)

# Seconds for one address, and for the peer to be through with its handshakes.
_CONNECT_TIMEOUT = 10
_ADDRESSES = 3
_MINUTE = 60.0


class Dialler:
    """Dials nodes at their announced addresses, within a budget, and hangs up when they are idle.

    A peer that it did not dial itself, or that LND has a channel with, is never hung up.
    """

    def __init__(
        self,
        lnd: Lnd,
        node_id: bytes,
        *,
        in_flight: int = 4,
        per_minute: int = 10,
        idle: float = 120.0,
        private_addresses: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`node_id` is LND's own; `idle` and `clock` in seconds.

        `private_addresses` lets it dial addresses that are not public: for regtest and the like.
        """
        self._lnd = lnd
        self._node_id = node_id
        self._in_flight, self._per_minute, self._idle = in_flight, per_minute, idle
        self._private_addresses = private_addresses
        self._clock = clock
        self._dialling: dict[bytes, asyncio.Task[None]] = {}
        self._started: deque[float] = deque()
        self._dialled: dict[bytes, float] = {}
        self._janitor: asyncio.Task[None] | None = None

    async def dial(self, node_id: bytes) -> None:
        """Connect LND to a node; returns when messages can be sent to it.

        Raises NoRoute: no address, nobody there, or over the budget. LndUnavailable.
        """
        if node_id == self._node_id:
            raise NoRoute("LND does not dial itself")
        task = self._dialling.get(node_id)
        if task is None:
            self._spend()
            task = asyncio.create_task(self._dial(node_id))
            self._dialling[node_id] = task
            task.add_done_callback(lambda done: self._ended(node_id, done))
        # Several messages may wait for the same node; one that gives up must not end the others' dial.
        await asyncio.shield(task)

    def _ended(self, node_id: bytes, task: asyncio.Task[None]) -> None:
        del self._dialling[node_id]
        # Nobody may be waiting for it any more; asyncio would complain of an error that is lost.
        if not task.cancelled():
            task.exception()

    def _spend(self) -> None:
        now = self._clock()
        while self._started and now - self._started[0] >= _MINUTE:
            self._started.popleft()
        if len(self._dialling) >= self._in_flight:
            raise NoRoute(f"{self._in_flight} nodes are being dialled already")
        if len(self._started) >= self._per_minute:
            raise NoRoute(f"{self._per_minute} nodes were dialled within a minute already")
        self._started.append(now)

    async def _dial(self, node_id: bytes) -> None:
        addresses = await self._addresses(node_id)
        # ConnectPeer returns before LND would send to the peer: its event tells when it does.
        async with self._lnd.subscribe(calls.PEER_EVENTS, ln.PeerEventSubscription()) as events:
            if not await self._connect(node_id, addresses):
                if node_id in self._dialled:
                    self._dialled[node_id] = self._clock()
                return
            # From here on it is ours to hang up, whatever comes of it.
            self._dialled[node_id] = self._clock()
            self._start_janitor()
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    async for event in events:
                        if event.pub_key == node_id.hex():
                            break
            except TimeoutError:
                raise NoRoute(f"{node_id.hex()} answers, and does not finish its handshake") from None
            if event.type != ln.PeerEvent.PEER_ONLINE:
                self._dialled.pop(node_id, None)
                raise NoRoute(f"{node_id.hex()} hung up at once")

    async def _connect(self, node_id: bytes, addresses: Iterable[str]) -> bool:
        """Try the addresses one by one. False when LND was connected already. Raises NoRoute."""
        why = f"{node_id.hex()} has announced no address that can be dialled"
        for address in addresses:
            request = ln.ConnectPeerRequest(
                addr=ln.LightningAddress(pubkey=node_id.hex(), host=address), timeout=_CONNECT_TIMEOUT
            )
            try:
                await self._lnd.call(
                    calls.CONNECT_PEER, request, deadline=2 * _CONNECT_TIMEOUT, failed=NoRoute
                )
            except NoRoute as error:
                why = str(error)
                if "already connected to peer" in why:
                    return False
            else:
                return True
        raise NoRoute(why)

    async def _addresses(self, node_id: bytes) -> list[str]:
        request = ln.NodeInfoRequest(pub_key=node_id.hex())
        answer = await self._lnd.call(calls.GET_NODE_INFO, request, failed=NoRoute)
        usable = [entry.addr for entry in answer.node.addresses if self._may_dial(entry.addr)]
        # Tor takes seconds, and not every LND has it.
        usable.sort(key=_is_onion)
        return usable[:_ADDRESSES]

    def _may_dial(self, address: str) -> bool:
        # Anybody can announce any address: LND must not be made to knock at its own network's doors.
        if self._private_addresses or _is_onion(address):
            return True
        try:
            return is_public(ipaddress.ip_address(_host(address)))
        except ValueError:
            return not _host(address).lower().endswith((".local", ".internal", "localhost"))

    # --- hanging up ------------------------------------------------------------------------

    async def hang_up_idle(self) -> None:
        """Disconnect what was dialled long enough ago and has no channel. Raises LndUnavailable."""
        now = self._clock()
        await self._hang_up([node for node, since in self._dialled.items() if now - since >= self._idle])

    async def _hang_up(self, nodes: list[bytes]) -> None:
        if not nodes:
            return
        answer = await self._lnd.call(calls.LIST_CHANNELS, ln.ListChannelsRequest())
        keep = {channel.remote_pubkey for channel in answer.channels}
        peers = await self._lnd.call(calls.LIST_PEERS, ln.ListPeersRequest())
        # One that left and came back by itself is not ours to hang up any more.
        keep |= {peer.pub_key for peer in peers.peers if peer.inbound}
        for node_id in nodes:
            self._dialled.pop(node_id, None)
            if node_id.hex() not in keep:
                # It may have hung up itself.
                with contextlib.suppress(NoRoute):
                    request = ln.DisconnectPeerRequest(pub_key=node_id.hex())
                    await self._lnd.call(calls.DISCONNECT_PEER, request, failed=NoRoute)

    def _start_janitor(self) -> None:
        if self._janitor is None or self._janitor.done():
            self._janitor = asyncio.create_task(self._tidy())

    async def _tidy(self) -> None:
        while self._dialled:
            await asyncio.sleep(self._idle / 4)
            try:
                await self.hang_up_idle()
            except SidecarError as error:
                log.debug("could not hang up idle peers", error=str(error))

    async def aclose(self) -> None:
        """Stop dialling, and hang up what was dialled, if LND is there."""
        tasks = [*self._dialling.values(), *([self._janitor] if self._janitor else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(SidecarError):
            await self._hang_up(list(self._dialled))


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_onion(address: str) -> bool:
    return _host(address).endswith(".onion")
