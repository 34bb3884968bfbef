"""Tells webhooks (bLIP 55): what is sent when, to whom, how often it is tried, and what is remembered.

A notification to a node is an errand; it goes to each of the node's webhooks as a job of its own. A job
waits for its turns (at its webhook, host and node, and among all) without holding up the others.
"""

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
from aiohttp.abc import AbstractResolver
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_chain,
    wait_random,
)

from sidecar.adapters.addresses import IPNetwork
from sidecar.adapters.guard import DialRules
from sidecar.adapters.notifications import Job, Notifications, counted
from sidecar.adapters.pushes import NEVER_AGAIN, Pushes, PushLimits
from sidecar.adapters.webhook_turns import Places, Turns
from sidecar.core.cooldowns import Cooldowns
from sidecar.core.errors import NoSuchWebhook, NotNotified
from sidecar.core.model import TimestampForm
from sidecar.core.webhooks import (
    ONION_MESSAGE_INCOMING,
    WEBHOOK_REGISTERED,
    Delivery,
    Webhook,
    host_of,
)
from sidecar.ports import Clock, MessageSigner, WebhookStore
from sidecar.timings import Timings

log = structlog.get_logger(__name__)

_READS = 8
"""Errands that read their node's webhooks at once."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """How webhooks are told; times in seconds.

    Dialled are public addresses and those in `networks`, at `ports`; `ca_file` is one more CA.
    `concurrency` counts POSTs under way, and `slow` those for longer than `patience`, which count no more
    among the others; `per_host` those to one host, and those for one node. `queue` counts what waits or is
    under way, `host_queue` that for one host. A notification is tried `tries`
    times, again after about `wait`, and then after about four times as long; but not when it is older
    than `stale`. After `failures` notifications in a row that did not arrive, a webhook gets none for
    `pause`.
    """

    cooldown: float = 120
    networks: tuple[IPNetwork, ...] = ()
    ports: frozenset[int] = frozenset({443})
    ca_file: Path | None = None
    concurrency: int = 32
    slow: int = 128
    patience: float = 1
    per_host: int = 4
    queue: int = 1_000
    host_queue: int = 250
    tries: int = 3
    wait: float = 4
    stale: float = 120
    failures: int = 10
    pause: int = 3_600
    limits: PushLimits = field(default_factory=PushLimits)


@dataclass(eq=False, slots=True)
class _Errand:
    """One notification to a node: to all its webhooks, or to one. `resting` may be cancelled harmlessly."""

    node_id: bytes
    method: str
    app_name: str | None = None
    since: float = field(default_factory=time.monotonic)
    dropped: bool = False
    resting: set[asyncio.Task[bool | None]] = field(default_factory=set)


class WebhookNotifier:
    """ports.Notifier over HTTPS.

    `counters` get `wake.sent.METHOD`, and by slug: `wake.failed` (after all its tries), `wake.retried`
    (each further try), `wake.dropped` (not tried, or not any more).
    """

    def __init__(
        self,
        store: WebhookStore,
        signer: MessageSigner,
        form_of: Callable[[bytes], Awaitable[TimestampForm]],
        settings: WebhookSettings,
        *,
        clock: Clock,
        counters: Counter[str],
        resolver: AbstractResolver | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timings: Timings | None = None,
        problem: Callable[[str, str], None] = lambda _reason, _text: None,
    ) -> None:
        """`sleep` waits between tries. Raises ConfigError when the CA can't be used.

        `form_of` says how a node's notifications are dated; it may raise StoreUnavailable.
        """
        self._store, self._settings, self._clock, self._counters = store, settings, clock, counters
        rules = DialRules(settings.networks, settings.ports)
        self._notifications = Notifications(
            store=store,
            signer=signer,
            form_of=form_of,
            pushes=Pushes(rules, settings.limits, settings.ca_file, resolver),
            clock=clock,
            counters=counters,
            failures=settings.failures,
            pause=settings.pause,
            timings=timings,
        )
        self._sleep = sleep
        self._problem = problem
        self._cooldowns = Cooldowns(round(settings.cooldown * 1000))
        self._queue: deque[_Errand] = deque()
        self._errands: defaultdict[bytes, set[_Errand]] = defaultdict(set)
        self._errand_count = 0
        self._hosts: Counter[str] = Counter()
        self._arrived = asyncio.Event()
        self._webhook_turns = Turns(1)
        self._host_turns, self._node_turns = Turns(settings.per_host), Turns(settings.per_host)
        self._all = Places(settings.concurrency, settings.slow, settings.patience)
        self._reads = asyncio.Semaphore(_READS)

    # --- ports.Notifier --------------------------------------------------------------------

    def notify(self, node_id: bytes, method: str) -> None:
        """Tell all webhooks of a node: now, or once when the cooldown of this method is over."""
        if self._cooldowns.ask(node_id, method, self._clock.now_ms()):
            self._add(_Errand(node_id, method))
            self._count_lost()

    def announce(self, node_id: bytes, app_name: str) -> None:
        """Send webhook_registered to this one webhook, unless it got it already."""
        # A wake-up that found no webhook, or none that answers, may be tried again with this one.
        self._cooldowns.lift_all(node_id)
        self._add(_Errand(node_id, WEBHOOK_REGISTERED, app_name))

    def connected(self, node_id: bytes) -> None:
        """The node is here: end its cooldowns, and drop what still waits to be sent to it.

        A POST that is under way goes on to its end. webhook_registered is not dropped.
        """
        self._cooldowns.end(node_id)
        self._notifications.connected(node_id)
        for errand in self._errands.get(node_id, ()):
            if errand.method != WEBHOOK_REGISTERED:
                errand.dropped = True
                for task in errand.resting:
                    task.cancel()

    def _count_lost(self) -> None:
        """Count what waited for the end of a cooldown and had no room."""
        if lost := self._cooldowns.take_lost():
            self._counters["wake.dropped.cooldowns-full"] += lost

    def _add(self, errand: _Errand) -> None:
        if self._errand_count >= self._settings.queue:
            self._drop("queue-full")
            self._cooldowns.lift(errand.node_id, errand.method)
            return
        self._errand_count += 1
        self._errands[errand.node_id].add(errand)
        self._queue.append(errand)
        self._arrived.set()

    def _count_failed(self, slug: str) -> None:
        self._counters[f"wake.failed.{slug}"] += 1
        self._problem(f"webhook-{slug}", "a webhook was not told: `sidecar webhook list` says which")

    def _drop(self, slug: str) -> None:
        self._counters[f"wake.dropped.{slug}"] += 1

    # --- the operator's test ---------------------------------------------------------------

    async def test(self, node_id: bytes, app_name: str | None) -> list[Delivery]:
        """Notify a webhook of a node (None: all of them) once and now, whatever its cooldown and pauses.

        One that never got webhook_registered gets that. Raises NoSuchWebhook, StoreUnavailable.
        """
        webhooks = await self._store.webhooks(node_id)
        chosen = [webhook for webhook in webhooks if app_name in (None, webhook.app_name)]
        if not chosen:
            raise NoSuchWebhook("the node has no webhook" if app_name is None else "no webhook has that name")
        return list(await asyncio.gather(*(self._test(node_id, webhook) for webhook in chosen)))

    async def _test(self, node_id: bytes, webhook: Webhook) -> Delivery:
        method = ONION_MESSAGE_INCOMING if webhook.state.announced else WEBHOOK_REGISTERED
        job = Job(node_id, webhook, method)
        try:
            return await self._notifications.post(job, method)
        except NotNotified as error:
            self._count_failed(counted(error.slug))
            return await self._notifications.log(job, error.slug)

    # --- errands ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is to be sent, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_cooldowns())
            while True:
                while self._queue:
                    group.create_task(self._go(self._queue.popleft(), group))
                self._arrived.clear()
                await self._arrived.wait()

    async def _watch_cooldowns(self) -> None:
        tick = min(1.0, self._settings.cooldown / 4)
        while True:
            await asyncio.sleep(tick)
            for node_id, method in self._cooldowns.due(self._clock.now_ms()):
                self._add(_Errand(node_id, method))

    async def _go(self, errand: _Errand, group: asyncio.TaskGroup) -> None:
        try:
            if not await self._reached(errand, group):
                self._cooldowns.lift(errand.node_id, errand.method)
        except Exception as error:  # noqa: BLE001 - a fault of ours: one errand must not stop the rest
            self._complain(error)
        finally:
            self._errand_count -= 1
            self._errands[errand.node_id].discard(errand)
            if not self._errands[errand.node_id]:
                del self._errands[errand.node_id]

    async def _reached(self, errand: _Errand, group: asyncio.TaskGroup) -> bool:
        """Run an errand to its end. False when there was a webhook to be told, and none was."""
        try:
            async for attempt in self._tries(errand):
                with attempt:
                    async with self._reads:
                        webhooks = await self._notifications.webhooks(errand.node_id)
        except NotNotified as error:
            self._count_failed(counted(error.slug))
            return False
        if errand.dropped:
            self._drop("connected")
            return True
        chosen = [webhook for webhook in webhooks if errand.app_name in (None, webhook.app_name)]
        tasks = [self._start(errand, webhook, group) for webhook in chosen if self._has_room(webhook)]
        told = await asyncio.gather(*tasks, return_exceptions=True)
        return True in told or (len(tasks) == len(chosen) and False not in told)

    def _tries(self, errand: _Errand) -> AsyncRetrying:
        """As many tries as a notification gets, with pauses in between that may be cut short."""

        def again(error: BaseException) -> bool:
            return isinstance(error, NotNotified) and error.slug not in NEVER_AGAIN and not errand.dropped

        def before_pause(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, NotNotified):
                self._counters[f"wake.retried.{counted(error.slug)}"] += 1

        pauses = [self._settings.wait * 4**number for number in range(max(1, self._settings.tries - 1))]
        return AsyncRetrying(
            retry=retry_if_exception(again),
            stop=stop_after_attempt(self._settings.tries),
            wait=wait_chain(*(wait_random(pause / 2, pause * 3 / 2) for pause in pauses)),
            sleep=self._sleep,
            before_sleep=before_pause,
            reraise=True,
        )

    # --- jobs ------------------------------------------------------------------------------

    def _has_room(self, webhook: Webhook) -> bool:
        full = self._hosts.total() >= self._settings.queue
        if full or self._hosts[host_of(webhook.url)] >= self._settings.host_queue:
            self._drop("queue-full" if full else "host-busy")
            return False
        return True

    def _start(
        self, errand: _Errand, webhook: Webhook, group: asyncio.TaskGroup
    ) -> asyncio.Task[bool | None]:
        host = host_of(webhook.url)
        self._hosts[host] += 1
        task = group.create_task(self._run_job(errand, webhook, host))
        errand.resting.add(task)
        task.add_done_callback(partial(self._job_over, errand, host))
        return task

    def _job_over(self, errand: _Errand, host: str, task: asyncio.Task[bool | None]) -> None:
        errand.resting.discard(task)
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]
        if task.cancelled() and errand.dropped:
            self._drop("connected")

    async def _run_job(self, errand: _Errand, webhook: Webhook, host: str) -> bool | None:
        """Whether the webhook was told; None: it was not to be told (any more)."""
        job = Job(errand.node_id, webhook, errand.method)
        task = _this_task()
        try:
            # One at a time to a webhook: webhook_registered goes first, and its state is but one.
            async with self._webhook_turns.turn((errand.node_id, webhook.app_name)):
                async for attempt in self._tries(errand):
                    with attempt:
                        try:
                            return await self._in_turn(errand, job, host)
                        except NotNotified:
                            errand.resting.add(task)
                            raise
        except NotNotified as error:
            errand.resting.discard(task)
            self._count_failed(counted(error.slug))
            await self._notifications.note_failure(job, error.slug)
        except Exception as error:  # noqa: BLE001 - a fault of ours: one webhook must not stop the rest
            self._complain(error)
        return False

    def _complain(self, error: Exception) -> None:
        self._count_failed("internal-error")
        # Its text may hold the URL, and so may its traceback.
        log.error("a notification caused a fault in the sidecar; please report it", kind=type(error).__name__)

    async def _in_turn(self, errand: _Errand, job: Job, host: str) -> bool | None:
        """Wait, and try once. The wait may be cancelled, the try not: it might have arrived."""
        # The node's turn first, and that among all last: who waits holds nothing that others wait for.
        async with self._node_turns.turn(job.node_id), self._host_turns.turn(host), self._all.place():
            errand.resting.discard(_this_task())
            if time.monotonic() - errand.since > self._settings.stale:
                self._drop("stale")
                return False
            return await self._try(errand, job)

    async def _try(self, errand: _Errand, job: Job) -> bool | None:
        # As it is now: it may have been replaced, paused or removed since the last try.
        webhooks = await self._notifications.webhooks(job.node_id)
        same = (webhook for webhook in webhooks if webhook.app_name == job.webhook.app_name)
        webhook = next(same, None)
        if webhook is None or webhook.url != job.webhook.url:
            self._drop("removed")
            return None
        job.webhook = webhook
        if self._notifications.is_paused(webhook):
            self._drop("paused")
            return None
        # "The LSP MUST send this notification to this webhook before sending any other notifications to
        # this webhook." (bLIP 55, of lsps5.webhook_registered)
        if not webhook.state.announced:
            await self._notifications.post(job, WEBHOOK_REGISTERED)
        if errand.method != WEBHOOK_REGISTERED:
            await self._notifications.post(job, errand.method)
        return True


def _this_task() -> "asyncio.Task[bool | None]":
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - jobs are tasks
    return task
