"""A notifier at work over real HTTPS on loopback, with webhooks in memory and nothing that takes minutes."""

import asyncio
import contextlib
import dataclasses
import ipaddress
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trustme

from sidecar.adapters.pushes import PushLimits
from sidecar.adapters.webhooks import WebhookNotifier, WebhookSettings
from sidecar.core.errors import LndDenied, LndUnavailable, StoreUnavailable
from sidecar.core.model import TimestampForm
from sidecar.core.webhooks import (
    ONION_MESSAGE_INCOMING,
    WEBHOOK_REGISTERED,
    Delivery,
    Webhook,
    WebhookState,
)
from sidecar.timings import Timings
from tests.harness.fakes import FakeClock
from tests.harness.hostile_addresses import Zone
from tests.harness.memory_webhooks import MemoryWebhooks
from tests.harness.push_service import PushService, answer
from tests.harness.running import Running

ALICE, BOB, CAROL = (bytes([2]) + bytes([number]) * 32 for number in (1, 2, 3))
REGISTERED = WEBHOOK_REGISTERED.removeprefix("lsps5.")
INCOMING = ONION_MESSAGE_INCOMING.removeprefix("lsps5.")
NO = answer(503)
NAMES = {f"{name}.push.test": ("127.0.0.1",) for name in "abcd"}

SETTINGS = WebhookSettings(
    cooldown=120,
    networks=(ipaddress.ip_network("127.0.0.0/8"),),
    wait=0.01,
    limits=PushLimits(connect=2, address=2, total=3),
)


def method_of(body: bytes) -> str:
    """What a notification says, without its prefix."""
    return str(json.loads(body)["method"]).removeprefix("lsps5.")


async def methods(service: PushService, count: int) -> list[str]:
    """What the next so many notifications say."""
    return [method_of((await service.next()).body) for _ in range(count)]


async def _nothing() -> None:
    pass


class Signer:
    """ports.MessageSigner that writes down what it signs; while `away` or `denied` it can't."""

    def __init__(self) -> None:
        self.away = self.denied = False
        self.signed: list[bytes] = []

    async def sign_message(self, text: bytes) -> str:
        """A made-up signature, another one for another text."""
        if self.away:
            raise LndUnavailable("away")
        if self.denied:
            raise LndDenied("the macaroon lacks SignMessage")
        self.signed.append(text)
        return f"signature-{len(self.signed)}"


class Notifying(Running):
    """`async with Notifying(services) as notifying:`; `bell` is the notifier.

    Time stands still for cooldowns, pauses and dates; it goes on for time limits. `pauses` are those
    between tries: instead of waiting, `during_pause` is done.
    """

    def __init__(self, services: Sequence[PushService], **settings: Any) -> None:
        self.store, self.signer, self.clock = MemoryWebhooks(), Signer(), FakeClock()
        self.counters: Counter[str] = Counter()
        self.timings = Timings()
        self.forms: dict[bytes, TimestampForm] = {}
        self.forms_away = False
        self.zone = Zone(dict(NAMES))
        self.pauses: list[float] = []
        self.during_pause: Callable[[], Awaitable[object]] = _nothing
        self.settings = dataclasses.replace(
            SETTINGS,
            ports=frozenset(service.port for service in services),
            ca_file=services[0].ca_file,
            **settings,
        )
        self.bell = WebhookNotifier(
            self.store,
            self.signer,
            self._form_of,
            self.settings,
            clock=self.clock,
            counters=self.counters,
            resolver=self.zone,
            sleep=self._pause,
            timings=self.timings,
        )
        self._task: asyncio.Task[None] | None = None

    async def _form_of(self, node_id: bytes) -> TimestampForm:
        if self.forms_away:
            raise StoreUnavailable("away")
        return self.forms.get(node_id, TimestampForm.OFFSET)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.during_pause()

    async def start(self) -> None:
        """Let it work."""
        self._task = asyncio.create_task(self.bell.run())

    async def stop(self) -> None:
        """Cancel it; nothing else may have ended it."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def register(
        self,
        url: str,
        node_id: bytes = ALICE,
        app_name: str = "app",
        *,
        announced: bool = True,
        state: WebhookState | None = None,
    ) -> None:
        """Put a webhook into the store."""
        webhook = Webhook(app_name, url, self.clock.now_ms() // 1000)
        await self.store.set_webhook(node_id, webhook, 100)
        await self.store.note_state(node_id, webhook, state or WebhookState(announced=announced))

    async def state(self, node_id: bytes = ALICE, app_name: str = "app") -> WebhookState:
        """How a webhook fares."""
        webhooks = await self.store.webhooks(node_id)
        return next(webhook.state for webhook in webhooks if webhook.app_name == app_name)

    async def quiet(self) -> None:
        """Wait until nothing waits or is under way."""
        async with asyncio.timeout(10):
            while self.bell._errand_count or self.bell._hosts:  # noqa: ASYNC110 - looks inside
                await asyncio.sleep(0.005)

    async def log(self, node_id: bytes = ALICE) -> list[tuple[str, str, str, int]]:
        """App, method without its prefix, outcome and tries of all deliveries, oldest first."""
        return [brief(delivery) for delivery in reversed(await self.store.deliveries(node_id))]


def brief(delivery: Delivery) -> tuple[str, str, str, int]:
    """A delivery without its time."""
    return (delivery.app_name, delivery.method.removeprefix("lsps5."), delivery.outcome, delivery.tries)


@contextlib.asynccontextmanager
async def services(directory: Path, count: int) -> AsyncIterator[list[PushService]]:
    """Push services that share a CA."""
    ca = trustme.CA()
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(PushService(directory, ca=ca)) for _ in range(count)]
