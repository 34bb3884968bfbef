"""Webhooks come and go: LSPS5 over LSPS0 with peers, the operator's own, and what is not needed any more.

A peer's requests are answered in the order in which they came, one at a time: a peer takes no more than
one of the places at work, and what it sets first is not kept last.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from sidecar.core import lsps0, lsps5, webhooks
from sidecar.core.errors import (
    BadWebhook,
    LspsRefused,
    NoSuchWebhook,
    NotLeading,
    OperatorError,
    RateLimited,
    SidecarError,
    TooManyWebhooks,
    Unavailable,
)
from sidecar.core.limits import Rate, TokenBuckets
from sidecar.core.lsps0 import PARSE_ERROR, Request, RpcError
from sidecar.core.lsps5 import Text
from sidecar.core.webhooks import HTTPS_PORT, Fate, Webhook, WebhookSet
from sidecar.ports import Clock, LspsTransport, Notifier, WebhookStore

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 16
"""Peers whose requests are in work at once; others wait in the transport's bounded queue."""

MAX_WAITING = 20
"""Requests of a peer that may wait for the one in work."""

REQUEST_TIMEOUT = 30
"""Seconds for all that one request causes."""

SEND_TIMEOUT = 10
"""Seconds for handing an answer to LND, which may wait for a peer that reads nothing."""

PEER_RATE = Rate(per_second=1, burst=20)
"""Requests of a peer. A wallet sends a few when it connects."""


@dataclass(frozen=True, slots=True)
class LspsSettings:
    """How many webhooks a node may have (1 to 100), and which ports they may be at."""

    max_webhooks: int = 10
    ports: Collection[int] = frozenset({HTTPS_PORT})


class LspsService:
    """LSPS0 and LSPS5 at work. `counters` tell what was answered and refused.

    `may_register` says whether a node may register webhooks itself: one with a channel, or one that a
    client of ours is bound to. It may raise Unavailable.
    """

    def __init__(
        self,
        *,
        store: WebhookStore,
        notifier: Notifier,
        clock: Clock,
        may_register: Callable[[bytes], Awaitable[bool]],
        settings: LspsSettings,
        counters: Counter[str],
    ) -> None:
        self.counters = counters
        self._store = store
        self._notifier = notifier
        self._clock = clock
        self._may_register = may_register
        self._settings = settings
        self._peers = TokenBuckets(PEER_RATE)
        self._waiting: dict[bytes, deque[bytes]] = {}
        self._changing = asyncio.Lock()
        self._complained = False

    async def run(
        self,
        transport: LspsTransport,
        stream: AsyncIterator[tuple[bytes, bytes]] | None = None,
        dealt_with: Callable[[tuple[bytes, bytes]], None] = lambda _: None,
    ) -> None:
        """Serve peers until cancelled, or until the stream ends: the transport's, where no other is given.

        `dealt_with` is told of each message that was answered, or refused.
        """
        at_once = asyncio.Semaphore(MAX_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                async for peer, payload in stream or transport.receive():
                    self.counters["lsps.received"] += 1
                    waiting = self._waiting.get(peer)
                    too_many = waiting is not None and len(waiting) >= MAX_WAITING
                    if too_many or not self._peers.take(peer, self._clock.now_ms()):
                        self.counters[f"dropped.{RateLimited.reason}"] += 1
                        dealt_with((peer, payload))
                        continue
                    if waiting is not None:
                        waiting.append(payload)
                        continue
                    await at_once.acquire()
                    self._waiting[peer] = deque([payload])
                    task = tasks.create_task(self._serve(peer, transport, dealt_with))
                    task.add_done_callback(lambda _: at_once.release())
        finally:
            self._waiting.clear()

    async def register(self, node_id: bytes, app_name: str, url: str) -> WebhookSet:
        """Register a webhook for a node on the operator's word, with the checks of set_webhook.

        Raises BadWebhook, TooManyWebhooks, StoreUnavailable.
        """
        name = Text(app_name, lsps0.written_size(app_name))
        return await self._keep(node_id, name, Text(url, lsps0.written_size(url)))

    async def unregister(self, node_id: bytes, app_name: str) -> None:
        """Forget a webhook. Raises NoSuchWebhook, StoreUnavailable."""
        async with self._changing:
            await self._store.remove_webhook(node_id, app_name)
        log.info("webhook removed", node=node_id.hex(), app=webhooks.printable(app_name))

    async def tidy(self, needed: Callable[[bytes], Awaitable[bool]]) -> None:
        """Forget the webhooks for which nothing has spoken for seven days. To be called now and then.

        `needed`: whether a node has a channel, or a client of ours is bound to it. What it raises ends
        the round, and so does StoreUnavailable.
        """
        now = self._clock.now_ms() // 1000
        for node_id, since in (await self._store.webhook_nodes()).items():
            match webhooks.fate(since, needed=await needed(node_id), now=now):
                case Fate.MARK:
                    await self._store.mark_unneeded(node_id, now)
                case Fate.UNMARK:
                    await self._store.mark_unneeded(node_id, None)
                case Fate.FORGET:
                    await self._forget(node_id, since)

    async def _forget(self, node_id: bytes, since: int | None) -> None:
        # A registration ends the mark: one that came meanwhile must not be lost.
        async with self._changing:
            if (await self._store.webhook_nodes()).get(node_id) != since:
                return
            await self._store.forget_webhooks(node_id)
        self.counters["lsps.forgotten"] += 1
        log.info("webhooks forgotten: nothing has spoken for them for 7 days", node=node_id.hex())

    # --- requests ---------------------------------------------------------------------------------

    async def _serve(
        self, peer: bytes, transport: LspsTransport, dealt_with: Callable[[tuple[bytes, bytes]], None]
    ) -> None:
        waiting = self._waiting[peer]
        try:
            while waiting:
                payload = waiting.popleft()
                try:
                    answer = await self._answer(peer, payload)
                except NotLeading as error:
                    # With nothing changed: it is for whoever leads, and not dealt with.
                    self.counters[f"dropped.{error.reason}"] += 1
                    continue
                taken = answer is None or await self._send(transport, peer, answer)
                dealt_with((peer, payload))
                if not taken:
                    # Who takes no answers keeps no place from those who do.
                    self.counters["dropped.not-taken"] += len(waiting)
                    break
        finally:
            # No await since the last look: nothing is left behind.
            del self._waiting[peer]

    async def _send(self, transport: LspsTransport, peer: bytes, answer: bytes) -> bool:
        """Whether LND took the answer."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await transport.send(peer, answer)
        except SidecarError as error:
            # "it SHOULD treat this no differently from successfully delivering the response" (bLIP 50)
            self.counters[f"unsent.lsps.{error.reason}"] += 1
            log.debug("an LSPS answer was not sent", reason=error.reason, error=str(error))
        except TimeoutError:
            self.counters["unsent.lsps.timeout"] += 1
        except Exception:
            # A fault of ours. The loop goes on: one message must not stop the rest.
            self.counters["unsent.lsps.internal-error"] += 1
            log.exception("sending an LSPS answer caused a fault in the sidecar; please report it")
        else:
            self.counters["lsps.answered"] += 1
            return True
        return False

    async def _answer(self, peer: bytes, payload: bytes) -> bytes | None:
        """What a message is answered with; None for silence. Raises NotLeading."""
        request_id = None
        try:
            request = lsps0.read_request(payload)
            request_id = request.id
            async with asyncio.timeout(REQUEST_TIMEOUT):
                result = await self._perform(peer, request)
            self._complained = False
            return lsps0.write_result(request_id, result)
        except RpcError as error:
            refusal = error
        except NotLeading:
            raise
        except LspsRefused as error:
            self.counters[f"dropped.{error.reason}"] += 1
            return None
        except (Unavailable, OperatorError, TimeoutError) as error:
            self._complain(error)
            refusal = lsps0.internal_error()
        except Exception:
            # A fault of ours, which the peer need not wait for.
            self.counters["dropped.internal-error"] += 1
            log.exception("an LSPS message caused a fault in the sidecar; please report it")
            refusal = lsps0.internal_error()
        if refusal.code == PARSE_ERROR:
            # "SHOULD log this as an unusual event." (bLIP 50)
            log.info("LSPS: bad message format", peer=peer.hex(), error=refusal.message)
        self.counters[f"lsps.refused.{refusal.code}"] += 1
        return lsps0.write_error(refusal.request_id if request_id is None else request_id, refusal)

    def _complain(self, error: Exception) -> None:
        """Say what keeps requests from being served: once, until one is served again."""
        if not self._complained:
            self._complained = True
            log.error("LSPS requests are not served", error=str(error) or "no answer in time")

    async def _perform(self, peer: bytes, request: Request) -> Mapping[str, Any]:
        params = lsps5.params_of(request)
        match request.method:
            case lsps5.LIST_PROTOCOLS:
                return lsps5.protocols()
            case lsps5.SET_WEBHOOK:
                return await self._set_webhook(peer, params["app_name"], params["webhook"])
            case lsps5.LIST_WEBHOOKS:
                return await self._list_webhooks(peer)
            case lsps5.REMOVE_WEBHOOK:
                return await self._remove_webhook(peer, params["app_name"])
        raise lsps0.method_not_found()

    async def _set_webhook(self, peer: bytes, name: Text, url: Text) -> Mapping[str, Any]:
        if not await self._may_register(peer):
            raise lsps5.no_prior_activity()
        most = self._settings.max_webhooks
        try:
            return lsps5.webhook_set(await self._keep(peer, name, url), most)
        except BadWebhook as error:
            raise lsps5.bad_webhook(error) from None
        except TooManyWebhooks:
            raise lsps5.too_many_webhooks(most) from None

    async def _list_webhooks(self, peer: bytes) -> Mapping[str, Any]:
        # "There are no errors defined for `lsps5.list_webhooks`": a stranger has none.
        return lsps5.webhook_list(await self._store.webhooks(peer), self._settings.max_webhooks)

    async def _remove_webhook(self, peer: bytes, name: Text) -> Mapping[str, Any]:
        # Whoever has webhooks may take them back, with a channel or without.
        names = {webhook.app_name for webhook in await self._store.webhooks(peer)}
        if not names and not await self._may_register(peer):
            raise lsps5.no_prior_activity()
        if name.value not in names:
            raise lsps5.app_name_not_found()
        try:
            await self.unregister(peer, name.value)
        except NoSuchWebhook:
            raise lsps5.app_name_not_found() from None
        return lsps5.webhook_removed()

    # --- what both peers and the operator do ------------------------------------------------------

    async def _keep(self, node_id: bytes, name: Text, url: Text) -> WebhookSet:
        webhooks.check_app_name(name.value, name.size)
        webhooks.check_url(url.value, url.size, self._settings.ports)
        webhook = Webhook(name.value, url.value, self._clock.now_ms() // 1000)
        async with self._changing:
            # "MUST persist the given webhook [...] before responding to this call." (bLIP 55)
            done = await self._store.set_webhook(node_id, webhook, self._settings.max_webhooks)
        if not done.no_change:
            # "If `no_change` is `false`, then the LSP will send the `lsps5.webhook_registered`
            # notification to the `webhook` specified in this call, and only to that webhook."
            self._notifier.announce(node_id, name.value)
            app, host = webhooks.printable(name.value), webhooks.host_of(url.value)
            log.info("webhook registered", node=node_id.hex(), app=app, host=host)
        return done
