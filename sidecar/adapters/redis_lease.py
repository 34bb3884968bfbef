"""The lease in Redis: ports.LeaseStore.

It never expires as a key: the fence must not begin anew. Taking it is as durable as any change, for the one
that takes it acts on it; renewing it is not, and one that stands by writes nothing at all.
"""

from collections.abc import Mapping

from sidecar.adapters.redis_link import RedisLink, Script
from sidecar.adapters.redis_masters import Argument
from sidecar.adapters.redis_records import Keys
from sidecar.ports import Claim, Grant

LEASE = Script("lease")
RELEASE_LEASE = Script("release_lease")


class RedisLease:
    """ports.LeaseStore over one Redis, or a Cluster. Time is Redis's own."""

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link = link
        self._key = keys.lease

    async def take(self, claim: Claim, ms: int) -> Grant:
        """Lead for `ms` milliseconds from now, or lead on, or see who leads. Raises StoreUnavailable."""
        grant, new = await self._take(claim, ms)
        if new:
            # What is on disk together with the second one was written before it.
            await self._take(claim, ms, durable=True)
        return grant

    async def _take(self, claim: Claim, ms: int, *, durable: bool = False) -> tuple[Grant, bool]:
        args = [claim.holder, claim.name, int(claim.hears), ms, *_pairs(claim.done)]
        ours, new, name, fence, alone, done = await self._link.change(
            LEASE, [self._key], args, "lease", durable=durable, at_once=True
        )
        grant = Grant(
            ours=bool(ours),
            name=name.decode(),
            fence=fence,
            done={stream.decode(): marks for stream, marks in zip(done[::2], done[1::2], strict=True)},
            released=bool(alone),
        )
        return grant, bool(new)

    async def release(self, claim: Claim, *, drained: bool) -> bool:
        """Lead no more; whether it held the lease. Raises StoreUnavailable."""
        args = [claim.holder, int(drained), *_pairs(claim.done)]
        (held,) = await self._link.change(
            RELEASE_LEASE, [self._key], args, "lease", durable=False, at_once=True
        )
        return bool(held)


def _pairs(done: Mapping[str, bytes]) -> list[Argument]:
    return [part for pair in done.items() for part in pair]
