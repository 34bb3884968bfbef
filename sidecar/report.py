"""What the running server tells of itself: to `sidecar status`, and to Prometheus."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sidecar import __version__
from sidecar.adapters.admin import StatusSnapshot
from sidecar.adapters.lnd import NodeInfo
from sidecar.adapters.metrics import Facts
from sidecar.adapters.onions import CustomOnions, NativeOnions
from sidecar.adapters.streams import QUEUE_SIZE
from sidecar.adapters.vitals import Vitals
from sidecar.mailroom import Mailroom
from sidecar.problems import Problems
from sidecar.timings import Timings

Onions = NativeOnions | CustomOnions


@dataclass(frozen=True, slots=True)
class AtWork:
    """What serves an LND now; it is built anew when LND changes its kind."""

    info: NodeInfo
    transport: Onions | None
    mailroom: Mailroom | None


@dataclass(frozen=True, slots=True)
class Report:
    """Puts together what others know. `leader` is the name of who leads; `started_at_ms`: since the epoch."""

    at_work: Callable[[], AtWork]
    vitals: Vitals
    counters: Counter[str]
    timings: Timings
    problems: Problems
    redis: str
    durability: str
    mail_bytes_allowed: Callable[[], int]
    leads: Callable[[], bool]
    leader: Callable[[], str]
    started_at_ms: int

    def facts(self) -> Facts:
        """What /metrics shows of this moment."""
        info = self.at_work().info
        letters, size = self._mail()
        return Facts(
            about={
                "version": __version__,
                "lnd_version": info.version,
                "mode": info.mode,
                "network": info.network,
            },
            counters=self.counters,
            leads=self.leads(),
            stream_up=self.vitals.stream_up,
            redis_up=self.vitals.redis_up,
            queued=self._queued(),
            queue_size=QUEUE_SIZE,
            census=self.vitals.census,
            mail_letters=letters,
            mail_bytes=size,
            mail_bytes_allowed=self.mail_bytes_allowed(),
        )

    async def status(self) -> StatusSnapshot:
        """What `sidecar status` shows."""
        await self.vitals.recount()
        info, census = self.at_work().info, self.vitals.census
        letters, size = self._mail()
        return StatusSnapshot(
            version=__version__,
            node_id=info.node_id.hex(),
            lnd_version=info.version,
            mode=info.mode,
            network=info.network,
            redis=self.redis,
            durability=self.durability,
            stream_up=self.vitals.stream_up,
            leads=self.leads(),
            leader=self.leader(),
            counters=dict(self.counters),
            started_at_ms=self.started_at_ms,
            clients=sum(census.clients.values()),
            slots_used=census.slots,
            bytes_used=census.bytes,
            mail_letters=letters,
            mail_bytes=size,
            queued=self._queued(),
            seconds=self.timings.snapshot(),
            problems=self.problems.newest_first(),
        )

    def _mail(self) -> tuple[int, int]:
        mailroom = self.at_work().mailroom
        return (0, 0) if mailroom is None else mailroom.total()

    def _queued(self) -> int:
        transport = self.at_work().transport
        return 0 if transport is None else transport.queued
