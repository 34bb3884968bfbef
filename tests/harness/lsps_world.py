"""The LSPS service at work, on a transport and a store in process."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from sidecar.core import keys
from sidecar.core.errors import (
    PeerNotConnected,
)
from sidecar.core.webhooks import Webhook, WebhookSet
from sidecar.lsps import LspsService, LspsSettings
from tests.harness.fakes import FakeClock
from tests.harness.memory_webhooks import MemoryWebhooks

DAY = 86_400
TOKEN = "token-4f1c"
URL = f"https://push.example.org/wake?t={TOKEN}"


def node() -> bytes:
    """A node id that nobody had before."""
    return keys.public_key(os.urandom(32))


def request(method: str, params: dict[str, Any] | None = None, request_id: str = "6ba7b810") -> bytes:
    """A request as LDK's client writes one: in UTF-8, without escapes that need not be."""
    body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


class LoopbackLsps:
    """ports.LspsTransport without a wire. `sent` is what was handed over; `gone` peers take nothing."""

    def __init__(self) -> None:
        self.sent: dict[bytes, list[Any]] = {}
        self.gone: set[bytes] = set()
        self.deaf: set[bytes] = set()
        self.answered: defaultdict[bytes, asyncio.Event] = defaultdict(asyncio.Event)
        """Set when a peer was answered for the first time."""
        self._arrived: asyncio.Queue[tuple[bytes, bytes] | None] = asyncio.Queue()

    def arrive(self, peer: bytes, payload: bytes) -> None:
        """A message of a peer."""
        self._arrived.put_nowait((peer, payload))

    def pause(self) -> None:
        """End the running `receive` behind what has arrived."""
        self._arrived.put_nowait(None)

    async def receive(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """What has arrived."""
        while (message := await self._arrived.get()) is not None:
            yield message

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Hand over an answer; to a deaf peer it takes forever."""
        if peer in self.gone:
            raise PeerNotConnected(peer.hex())
        if peer in self.deaf:
            await asyncio.Event().wait()
        self.sent.setdefault(peer, []).append(json.loads(payload))
        self.answered[peer].set()


class Announcements:
    """ports.Notifier that only remembers: what it was told, and what the store held at that time."""

    def __init__(self, store: WatchedWebhooks) -> None:
        self.made: list[tuple[bytes, str]] = []
        self._store = store

    def notify(self, node_id: bytes, method: str) -> None:
        """No other notification comes from here."""
        raise AssertionError(node_id, method)

    def announce(self, node_id: bytes, app_name: str) -> None:
        """webhook_registered for this one webhook, which is kept already."""
        assert app_name in self._store.names(node_id)
        self.made.append((node_id, app_name))

    def connected(self, node_id: bytes) -> None:
        """Connections are no business of LSPS5's."""
        raise AssertionError(node_id)


class WatchedWebhooks(MemoryWebhooks):
    """MemoryWebhooks that can be held up: while `ready` is not set, setting a webhook takes forever."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.ready = asyncio.Event(), asyncio.Event()
        self.ready.set()
        self.error: Exception | None = None

    async def set_webhook(self, node_id: bytes, webhook: Webhook, most: int) -> WebhookSet:
        """Wait until it is ready, or raise `error`."""
        if self.error is not None:
            raise self.error
        self.asked.set()
        await self.ready.wait()
        return await super().set_webhook(node_id, webhook, most)

    def names(self, node_id: bytes) -> list[str]:
        """The names of a node's webhooks."""
        return sorted(self._webhooks.get(node_id, {}))


class Lsps:
    """The service at work. Use it as `async with Lsps() as lsps`; `known` may register."""

    def __init__(self, settings: LspsSettings | None = None) -> None:
        self.transport = LoopbackLsps()
        self.store = WatchedWebhooks()
        self.announced = Announcements(self.store)
        self.clock = FakeClock()
        self.known: set[bytes] = set()
        self.dealt_with: list[tuple[bytes, bytes]] = []
        self.lnd_error: Exception | None = None
        self.counters: Counter[str] = Counter()
        self.service = LspsService(
            store=self.store,
            notifier=self.announced,
            clock=self.clock,
            may_register=self.may_register,
            settings=settings or LspsSettings(),
            counters=self.counters,
        )

    async def __aenter__(self) -> Self:
        self._running = self._serve()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def _serve(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.service.run(self.transport, dealt_with=self.dealt_with.append))

    async def may_register(self, node_id: bytes) -> bool:
        """Whether a test knows the node; raises what the test put there."""
        if self.lnd_error is not None:
            raise self.lnd_error
        return node_id in self.known

    def wallet(self) -> bytes:
        """A node that may register."""
        node_id = node()
        self.known.add(node_id)
        return node_id

    async def settled(self) -> None:
        """Wait until all that has arrived is dealt with."""
        self.transport.pause()
        await self._running
        self._running = self._serve()

    async def ask(self, peer: bytes, payload: bytes) -> Any:
        """The answer to one message."""
        self.transport.arrive(peer, payload)
        await self.settled()
        return self.transport.sent[peer].pop()

    async def call(self, peer: bytes, method: str, params: dict[str, Any] | None = None) -> Any:
        """The result of a request, or its error."""
        answer = await self.ask(peer, request(method, params))
        assert (answer.pop("jsonrpc"), answer.pop("id")) == ("2.0", "6ba7b810")
        ((_, body),) = answer.items()
        return body

    async def set(self, peer: bytes, app_name: str, url: str = URL) -> Any:
        """The answer to set_webhook."""
        return await self.call(peer, "lsps5.set_webhook", {"app_name": app_name, "webhook": url})
