"""Which of the sidecars beside one LND leads: asked of the store again and again, and never assumed.

One that led leads on while the store is away: what needs the store fails by itself then, and the rest goes
on. But it is `valid` only for as long as the store surely gives the lease to nobody else.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

import structlog

from sidecar.core.errors import NotLeading, StoreUnavailable
from sidecar.ports import Claim, Grant, LeaseStore

log = structlog.get_logger(__name__)

LOOKS = 10
"""How often the lease is renewed, or asked for, within its time."""

SHORTEST, LONGEST = 0.2, 1.0
"""Seconds between two looks at least, and at most."""

IDLE = 3
"""Looks in place of one, where the one that leads has nothing new to tell: each is an fsync of Redis's."""

RELEASE_SECONDS = 1.0
"""For letting it go: who can't be told finds out by itself when the lease has run out."""

_NEVER = float("-inf")


class Lease:
    """The lease as this process knows it: `run` beside all that asks. `name` is what it is called itself.

    `leader` is the name of who leads; '' where that is not known. `fence` is of the last time that this one
    led, `after` who was seen to lead before. `clean`: when it began to lead, nothing had been answered but
    what was told to `told`.
    """

    def __init__(
        self,
        store: LeaseStore,
        *,
        holder: str,
        name: str,
        seconds: int,
        hears: Callable[[], bool],
        done: Callable[[], Mapping[str, bytes]],
        told: Callable[[Mapping[str, bytes]], None],
    ) -> None:
        """`holder` as a Claim has it; `seconds`: for how long it leads without another word.

        `hears`: whether LND streams to this process. `done`: what this one has dealt with, as a Claim
        has it; `told` is given the same of the one that leads, and led before, while this one does not.
        """
        self.name = name
        self.leader = ""
        self.after = ""
        self.fence = 0
        self.clean = False
        self._store = store
        self._holder = holder
        self._seconds = seconds
        self._hears = hears
        self._done = done
        self._told = told
        self._pause = min(LONGEST, max(SHORTEST, seconds / LOOKS))
        self._until = _NEVER
        self._gives_way_until = self._disputed_until = _NEVER
        self._last_done: Mapping[str, bytes] = {}
        self._inherited = self._over = False
        self._asking: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()
        self._leading, self._standing = asyncio.Event(), asyncio.Event()
        self._standing.set()

    # --- what is ----------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._leading.is_set()

    @property
    def valid(self) -> bool:
        """Whether no other one can lead at this moment."""
        return self.leads and time.monotonic() < self._until

    async def until_leading(self) -> None:
        """Return once this process leads."""
        await self._leading.wait()

    async def until_lost(self) -> None:
        """Return once another one leads."""
        await self._standing.wait()

    async def confirmed(self) -> int:
        """The fence for a change that only the one that leads may make, or an answer that only it may give.

        Asks the store when the last word of it is too old. Raises NotLeading, StoreUnavailable.
        """
        await self._look_again()
        if not self.valid:
            raise NotLeading(f"{self.leader or 'nobody'} leads, or another sidecar may by now")
        return self.fence

    async def not_replaced(self) -> None:
        """For what is the same whoever does it, but not for ever: no other one leads, by a recent word.

        One that lets the lease go still answers what is in hand. Raises NotLeading, StoreUnavailable.
        """
        await self._look_again()
        if not self.leads:
            raise NotLeading(f"{self.leader or 'nobody'} leads")

    async def _look_again(self) -> None:
        # Who lets it go must not take it anew: its successor would wait for a lease of the dead.
        if self.leads and not self.valid and not self._over:
            await self._look()

    # --- life -------------------------------------------------------------------------------------

    async def run(self, former: str = "") -> None:
        """Ask, until cancelled. `former`: the holder that this process's last life was, if it had one."""
        try:
            while not self._over:
                with contextlib.suppress(StoreUnavailable):
                    if former:
                        await self._end(former)
                        former = ""
                    await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rest()):
                        await self._hurried.wait()
                self._hurried.clear()
        finally:
            if self._asking is not None:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)

    def _rest(self) -> float:
        """Seconds until the next look."""
        idle = self.valid and self._done() == self._last_done
        return IDLE * self._pause if idle else self._pause

    def hurry(self) -> None:
        """Ask now: LND has begun to stream."""
        self._hurried.set()

    async def release(self, *, drained: bool) -> None:
        """Let the lease go, for good. `drained`: nothing is in hand any more."""
        self._over, self._until = True, _NEVER
        led = self.leads
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                if self._asking is not None:
                    # What it was asked before must not come behind; and it may be ours only now.
                    await asyncio.wait((self._asking,))
                if self.leads:
                    await self._store.release(self._claim(hears=False), drained=drained and led)

    async def _end(self, former: str) -> None:
        """What led before in this one's place leads no more: it is dead.

        Whoever stands by has heard what came since, and this one has not: that one goes first.
        """
        claim = Claim(former, self.name, hears=False, done={})
        if await self._store.release(claim, drained=False):
            self._inherited = True
            self._gives_way_until = time.monotonic() + 1.5 * self._pause

    # --- asking -----------------------------------------------------------------------------------

    def _claim(self, *, hears: bool) -> Claim:
        self._last_done = self._done() if self.leads else {}
        return Claim(self._holder, self.name, hears, self._last_done)

    async def _look(self) -> None:
        """Ask, once for all who want to know at the same time. Raises StoreUnavailable."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="lease")
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        # Counted from before it is asked: the store counts from a later moment.
        now = time.monotonic()
        hears = self._hears() and now >= self._gives_way_until
        grant = await self._store.take(self._claim(hears=hears), self._seconds * 1_000)
        if grant.ours and self.leads and grant.fence != self.fence and (grant.done or not grant.released):
            # What comes to us late, because we were held up, that one may have answered: for a while
            # nothing is done that nobody else may have done. From a store that lost all there is no `done`.
            self._disputed_until = now + self._seconds
            log.warning("another sidecar led meanwhile, and leads no more: this one leads on")
        # One that hears nothing may be replaced at any time.
        sure = hears and now >= self._disputed_until and not self._over
        self._until = now + self._seconds if grant.ours and sure else _NEVER
        self._granted(grant, hears=hears)

    def _granted(self, grant: Grant, *, hears: bool) -> None:
        if grant.ours:
            self.fence = grant.fence
            if hears and not self.leads:
                self._take_over(grant)
            return
        if self.leads:
            # Where nobody else leads, LND is away for all.
            if grant.name:
                log.warning("%s leads now: this one stands by", grant.name)
                self._stand_by(grant.name)
            return
        self._told(grant.done)
        if grant.name and grant.name != self.leader:
            self._stand_by(grant.name)

    def _take_over(self, grant: Grant) -> None:
        self._told(grant.done)
        # What our own last life had in hand came to no stream that we have now.
        self.clean = grant.released or (self._inherited and not self.leader)
        if self.leader:
            log.info("leading: took over from %s", self.leader)
        self.after, self.leader, self._inherited = self.leader, self.name, False
        self._standing.clear()
        self._leading.set()

    def _stand_by(self, leader: str) -> None:
        self.leader = leader
        self._leading.clear()
        self._standing.set()
        log.info(
            "standing by: %s leads; this one takes over when that one stops, or says nothing for %ss",
            leader,
            self._seconds,
        )
