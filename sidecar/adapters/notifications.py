"""One notification to one webhook (bLIP 55): signed, sent, and remembered."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from sidecar.adapters.pushes import Pushes
from sidecar.core.bounded import Bounded
from sidecar.core.errors import LndDenied, LndUnavailable, NotNotified, StoreUnavailable
from sidecar.core.model import TimestampForm
from sidecar.core.webhooks import (
    WEBHOOK_REGISTERED,
    Delivery,
    Webhook,
    WebhookState,
    host_of,
    notification_body,
    printable,
    signed_text,
    timestamp,
)
from sidecar.ports import Clock, MessageSigner, WebhookStore
from sidecar.timings import Timed, Timings

log = structlog.get_logger(__name__)

SIGNER_AWAY: Final = "signer-away"
STORE_AWAY: Final = "store-away"
_WOKEN = 10_000
"""Nodes that were woken and have not come yet; the one woken longest ago is forgotten."""

_NOT_ITS_FAULT = frozenset({SIGNER_AWAY, STORE_AWAY})


@dataclass(slots=True)
class Job:
    """What one webhook is to be told: how it is there, what is being sent, for the how-many-th time."""

    node_id: bytes
    webhook: Webhook
    sending: str
    tries: int = 0


class Notifications:
    """Sends notifications, and keeps account of how their webhooks fare.

    After `failures` notifications in a row that did not arrive, a webhook is paused for `pause` seconds.
    """

    def __init__(
        self,
        *,
        store: WebhookStore,
        signer: MessageSigner,
        form_of: Callable[[bytes], Awaitable[TimestampForm]],
        pushes: Pushes,
        clock: Clock,
        counters: Counter[str],
        failures: int,
        pause: int,
        timings: Timings | None = None,
    ) -> None:
        self._timings = timings or Timings()
        self._woken: Bounded[bytes, int] = Bounded(_WOKEN)
        self._store, self._signer, self._form_of, self._pushes = store, signer, form_of, pushes
        self._clock, self._counters = clock, counters
        self._failures, self._pause = failures, pause
        self._signed_at_ms = 0

    async def webhooks(self, node_id: bytes) -> Sequence[Webhook]:
        """A node's webhooks. Raises NotNotified."""
        try:
            return await self._store.webhooks(node_id)
        except StoreUnavailable:
            raise NotNotified(STORE_AWAY, "the store is away") from None

    async def post(self, job: Job, method: str) -> Delivery:
        """Send a notification once, and remember that it arrived. Raises NotNotified, remembering nothing."""
        job.tries = job.tries + 1 if job.sending == method else 1
        job.sending = method
        body = notification_body(method)
        try:
            form = await self._form_of(job.node_id)
            at = timestamp(self._time_to_sign(), form)
            signature = await self._signer.sign_message(signed_text(at, body))
        except StoreUnavailable:
            raise NotNotified(STORE_AWAY, "the store is away") from None
        except (LndUnavailable, LndDenied):
            raise NotNotified(SIGNER_AWAY, "LND is away, or does not sign for us") from None
        headers = {
            "content-type": "application/json",
            "x-lsps5-timestamp": at,
            "x-lsps5-signature": signature,
        }
        await self._push(job, method, headers, body)
        self._counters[f"wake.sent.{method}"] += 1
        await self._note(job, replace(job.webhook.state, announced=True, failures=0, paused_until=0))
        return await self.log(job, "ok")

    def _time_to_sign(self) -> int:
        """Now, but never the time of another POST.

        The same time gives the same signature, and LDK's validator takes one that it has seen for a replay.
        """
        now_ms = self._clock.now_ms()
        ahead = self._signed_at_ms - now_ms
        # A clock that was stepped back starts anew: a date far ahead would be no better.
        self._signed_at_ms = self._signed_at_ms + 1 if 0 <= ahead < 1_000 else now_ms
        return self._signed_at_ms

    async def _push(self, job: Job, method: str, headers: dict[str, str], body: bytes) -> None:
        # A push service may bring the wallet here before it answers us.
        first = method != WEBHOOK_REGISTERED and job.node_id not in self._woken
        if first:
            self._woken[job.node_id] = self._clock.steady_ms()
        try:
            with self._timings.measure(Timed.WEBHOOK):
                await self._pushes.post(job.webhook.url, headers, body)
        except BaseException:
            if first:
                self._woken.pop(job.node_id, None)
            raise

    def connected(self, node_id: bytes) -> None:
        """The node is here: note how long it took since the first notification that was to wake it."""
        if (woken_at_ms := self._woken.pop(node_id, None)) is not None:
            self._timings.observe(Timed.CONNECT, (self._clock.steady_ms() - woken_at_ms) / 1000)

    def is_paused(self, webhook: Webhook) -> bool:
        """Whether a webhook is not to be told now: by the operator's word, or since it keeps failing."""
        left_ms = webhook.state.paused_until * 1_000 - self._clock.now_ms()
        # What is left of a pause is no more than a pause: else the clock was set back after it began.
        return webhook.state.paused or 0 < left_ms <= self._pause * 1_000

    async def note_failure(self, job: Job, slug: str) -> None:
        """Remember that a notification did not arrive, after all its tries."""
        if slug not in _NOT_ITS_FAULT:
            state = replace(job.webhook.state, failures=job.webhook.state.failures + 1)
            if state.failures >= self._failures:
                state = replace(state, paused_until=self._clock.now_ms() // 1000 + self._pause)
            await self._note(job, state)
        await self.log(job, slug)

    async def _note(self, job: Job, state: WebhookState) -> None:
        if state == job.webhook.state:
            return
        try:
            await self._store.note_state(job.node_id, job.webhook, state)
        except StoreUnavailable:
            self._counters["wake.forgotten"] += 1
        job.webhook = replace(job.webhook, state=state)

    async def log(self, job: Job, outcome: str) -> Delivery:
        """Put what became of a notification into the node's log of deliveries, and into ours."""
        webhook, tries = job.webhook, max(1, job.tries)
        delivery = Delivery(self._clock.now_ms(), webhook.app_name, job.sending, outcome, tries)
        log.log(
            logging.DEBUG if outcome == "ok" else logging.INFO,
            "notification",
            method=job.sending,
            app=printable(webhook.app_name),
            node=job.node_id.hex(),
            host=host_of(webhook.url),
            outcome=outcome,
            tries=tries,
        )
        try:
            await self._store.log_delivery(job.node_id, delivery)
        except StoreUnavailable:
            self._counters["wake.forgotten"] += 1
        return delivery


def counted(slug: str) -> str:
    """A slug as it is counted: strangers choose the status, and a counter for each would be many."""
    return f"{slug[:8]}xx" if slug.startswith("status-") else slug
