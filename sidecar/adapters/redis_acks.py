"""What a change waits for behind it, on its own connection, and what the answers to that mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.adapters.redis_masters import Command
from sidecar.core.errors import StoreUnavailable

FSYNC_TIMEOUT_MS = 4_000
"""How long a change may wait for disks and replicas; below the socket's timeout, so that the answer still
comes."""

NUDGE_MS = 1_000
"""How much of that WAIT has, where WAITAOF comes behind it."""


@dataclass(frozen=True, slots=True)
class Acks:
    """`waitaof`: the master's disk must have a change, and those of so many `replicas`.

    Without it so many replicas must have it in their memory; what the master's disk has is up to the
    master's settings.
    """

    waitaof: bool = False
    replicas: int = 0

    def commands(self) -> Sequence[Command]:
        """What goes out right behind the change."""
        if not self.waitaof:
            return [("WAIT", self.replicas, FSYNC_TIMEOUT_MS)] if self.replicas else []
        if not self.replicas:
            return [("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS)]
        # A replica that is asked at once tells what it had on disk before the change, and says the rest by
        # itself a second later. Asked by WAITAOF after it has the change, it tells that in a millisecond.
        return [
            ("WAIT", self.replicas, NUDGE_MS),
            ("WAITAOF", 1, self.replicas, FSYNC_TIMEOUT_MS - NUDGE_MS),
        ]

    def check(self, answers: Sequence[int | Sequence[int]]) -> None:
        """Raise StoreUnavailable unless the answers to `commands` say that the change is safe."""
        if not answers:
            return
        last = answers[-1]
        on_disk, replicas = (1, last) if isinstance(last, int) else (last[0], last[1])
        if on_disk < 1:
            raise StoreUnavailable(f"Redis did not get a change onto its disk within {FSYNC_TIMEOUT_MS} ms")
        if replicas < self.replicas:
            where = " on disk: have they an append-only file?" if self.waitaof else ""
            raise StoreUnavailable(
                f"Redis: {replicas} of the {self.replicas} replicas that redis.replicas asks for had a change"
                f" within {FSYNC_TIMEOUT_MS} ms{where}"
            )
