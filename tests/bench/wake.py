"""A thousand wallets are woken at once, and one push service in twenty is dead.

The product's notifier, in this process, over real HTTPS to push services in another. Webhooks are in
memory, and a stand-in for LND takes 0.4 ms to sign. Rounds with dead hosts and rounds without take turns;
in those without, the living are told just as many, by the same names.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sidecar.adapters.pushes import PushLimits
from sidecar.adapters.webhooks import WebhookNotifier, WebhookSettings
from sidecar.core import keys
from sidecar.core.model import TimestampForm
from sidecar.core.webhooks import ONION_MESSAGE_INCOMING, Webhook, WebhookState
from tests.bench.common import quantile
from tests.bench.wake_push import DOMAIN, PushProcess, push_process
from tests.harness.fakes import FakeClock
from tests.harness.hostile_addresses import Zone
from tests.harness.memory_webhooks import MemoryWebhooks

SIGNING = 0.000_4
"""Seconds that LND takes for SignMessage."""

DEAD = ("refuses", "never answers", "TLS hangs")
PATIENCE = 30.0
"""Seconds for all the living: what was not told by then is lost."""

FAST = WebhookSettings(wait=0.1, limits=PushLimits(connect=0.2, address=0.2, total=0.4))
"""Minutes in seconds: the round that is waited out until the last dead one was given up."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Whose webhooks are where. Every twentieth host is dead, in one of the three ways in turn."""

    name: str
    webhooks: int
    hosts: int

    def host(self, number: int) -> int:
        """Where a client's webhook is."""
        return number % self.hosts

    def death(self, host: int) -> str | None:
        """How a host is dead."""
        return DEAD[host // 20 % len(DEAD)] if host % 20 == 10 else None

    @property
    def dead(self) -> int:
        """Webhooks at dead hosts."""
        return sum(self.death(self.host(number)) is not None for number in range(self.webhooks))


SCENES = (
    Scene("60 hosts", webhooks=1_000, hosts=60),
    Scene("a host for each", webhooks=1_000, hosts=1_000),
)
QUICK_SCENES = (Scene("20 hosts", webhooks=60, hosts=20),)


@dataclass(slots=True)
class Round:
    """What became of one burst."""

    times: list[float]
    """Seconds from `notify` to the POST's arrival, of the living."""
    lost: int
    """Of the living."""
    signed: int
    cpu: float
    """Seconds of this process."""
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> float:
        """Seconds until the last living one was told."""
        return max(self.times)

    @property
    def per_second(self) -> float:
        """Of the living, until the last."""
        return len(self.times) / self.last

    @property
    def cpu_each(self) -> float:
        """Milliseconds a notification that arrived."""
        return 1_000 * self.cpu / len(self.times)


@dataclass(slots=True)
class Compared:
    """One scene's rounds."""

    scene: Scene
    with_dead: list[Round] = field(default_factory=list)
    without: list[Round] = field(default_factory=list)
    given_up: Round | None = None
    """The dead alone, until the last was given up; of the first scene."""

    def ratio(self, percent: int) -> float:
        """Of a percentile with the dead / without: the median over the rounds."""
        pairs = zip(self.with_dead, self.without, strict=True)
        return statistics.median(quantile(a.times, percent) / quantile(b.times, percent) for a, b in pairs)


class Signer:
    """ports.MessageSigner: LND's time, and none of its work."""

    def __init__(self) -> None:
        self.calls = 0

    async def sign_message(self, text: bytes) -> str:
        """A made-up signature, as long as LND's."""
        self.calls += 1
        await asyncio.sleep(SIGNING)
        return keys.sha256(text).hex() + "y" * 40


def node_id(number: int) -> bytes:
    """A client's node, which nobody ever decodes."""
    return b"\x02" + keys.sha256(number.to_bytes(4, "big"))


async def _form_of(_: bytes) -> TimestampForm:
    return TimestampForm.OFFSET


class Bell:
    """A notifier of its own, with nothing to remember."""

    def __init__(self, push: PushProcess, hosts: int, settings: WebhookSettings) -> None:
        self._push = push
        self._store, self.signer, self.counters = MemoryWebhooks(), Signer(), Counter[str]()
        self._notifier = WebhookNotifier(
            self._store,
            self.signer,
            _form_of,
            replace(
                settings,
                networks=(ipaddress.ip_network("127.0.0.0/8"),),
                ports=frozenset(push.ports.values()),
                ca_file=push.ca_file,
            ),
            clock=FakeClock(),
            counters=self.counters,
            resolver=Zone({f"h{host}.{DOMAIN}": ("127.0.0.1",) for host in range(hosts)}),
        )

    async def register(self, number: int, host: int, port: int) -> None:
        """Put a client's webhook into the store, as one that was told of its registration."""
        webhook = Webhook("app", f"https://h{host}.{DOMAIN}:{port}/{number}", 0)
        await self._store.set_webhook(node_id(number), webhook, 10)
        await self._store.note_state(node_id(number), webhook, WebhookState(announced=True))

    async def ring(self, numbers: Sequence[int], living: set[int], *, to_the_end: bool = False) -> Round:
        """Tell all at once; until the living were told, or until nothing is left to do."""
        running = asyncio.create_task(self._notifier.run())
        gc.collect()
        start, before = time.monotonic(), time.process_time()
        for number in numbers:
            self._notifier.notify(node_id(number), ONION_MESSAGE_INCOMING)
        end = start + PATIENCE
        while time.monotonic() < end and not self._done(  # noqa: ASYNC110 - looks at counters
            numbers, living, to_the_end=to_the_end
        ):
            await asyncio.sleep(0.02)
        used = time.process_time() - before
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        came = await self._push.arrived()
        return Round(
            times=[came[number] - start for number in living if number in came],
            lost=sum(number not in came for number in living),
            signed=self.signer.calls,
            cpu=used,
            outcomes=dict(sorted(self.counters.items())),
        )

    def _done(self, numbers: Sequence[int], living: set[int], *, to_the_end: bool) -> bool:
        told = self.counters[f"wake.sent.{ONION_MESSAGE_INCOMING}"]
        over = sum(count for name, count in self.counters.items() if name.startswith("wake.failed."))
        over += sum(count for name, count in self.counters.items() if name.startswith("wake.dropped."))
        return told + over >= len(numbers) if to_the_end else told >= len(living)


async def one_round(push: PushProcess, scene: Scene, *, dead: bool) -> Round:
    """A burst to all; the dead hosts are dead, or are not asked at all."""
    bell = Bell(push, scene.hosts, WebhookSettings())
    living, numbers = set(), []
    for number in range(scene.webhooks):
        host = scene.host(number)
        death = scene.death(host)
        if death is None:
            living.add(number)
        elif not dead:
            continue
        numbers.append(number)
        await bell.register(number, host, push.ports[death or "living"])
    return await bell.ring(numbers, living)


async def given_up(push: PushProcess, scene: Scene) -> Round:
    """The dead alone, with short times, until each was given up."""
    bell = Bell(push, scene.hosts, FAST)
    numbers = []
    for number in range(scene.webhooks):
        if (death := scene.death(scene.host(number))) is not None:
            numbers.append(number)
            await bell.register(number, scene.host(number), push.ports[death])
    return await bell.ring(numbers, set(), to_the_end=True)


async def measure(scenes: Sequence[Scene], rounds: int) -> list[Compared]:
    """All scenes."""
    found: list[Compared] = []
    with TemporaryDirectory(prefix="wake-") as directory:
        async with push_process(Path(directory)) as push:
            await one_round(push, QUICK_SCENES[0], dead=False)  # what is met for the first time
            for scene in scenes:
                compared = Compared(scene)
                for number in range(rounds):
                    # Whose turn is first changes.
                    for dead in (False, True) if number % 2 == 0 else (True, False):
                        found_now = await one_round(push, scene, dead=dead)
                        (compared.with_dead if dead else compared.without).append(found_now)
                if not found:
                    compared.given_up = await given_up(push, scene)
                found.append(compared)
    return found
