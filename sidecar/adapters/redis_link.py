"""How Redis is spoken to: reads, and changes that are acknowledged only after they are on disk.

Either the server fsyncs before it answers (`appendfsync always`), or WAITAOF goes out right
behind the change, on the same connection: from another connection, or inside Lua, WAITAOF
returns at once. So does WAIT, where replicas must have a change as well (redis_acks.py).
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import resources
from typing import Any
from weakref import WeakValueDictionary

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, RedisError

from sidecar.adapters.redis_acks import Acks
from sidecar.adapters.redis_masters import Argument, Command, Masters, unavailable
from sidecar.core.bounded import Bounded
from sidecar.core.errors import (
    BadRecord,
    BoundOtherwise,
    ClientPaused,
    ClientRevoked,
    MailboxFull,
    NameTaken,
    NodeTaken,
    NoSuchClient,
    NoSuchWebhook,
    NotLeading,
    QuotaExceeded,
    SidecarError,
    SlotOutOfRange,
    StaleInvoice,
    StaleOffer,
    StoreUnavailable,
    TooManyWebhooks,
    UnknownClient,
)
from sidecar.timings import Timed, Timings

log = structlog.get_logger(__name__)

BATCH = 256
"""Records that are read in one pipeline."""

_COMPLAINTS = 1_000

REFUSALS: Mapping[str, type[SidecarError]] = {
    error.reason: error
    for error in (
        UnknownClient,
        ClientRevoked,
        ClientPaused,
        SlotOutOfRange,
        QuotaExceeded,
        StaleOffer,
        StaleInvoice,
        NameTaken,
        NoSuchClient,
        NodeTaken,
        BoundOtherwise,
        MailboxFull,
        TooManyWebhooks,
        NoSuchWebhook,
        NotLeading,
    )
}
"""What the scripts answer instead of `ok`, by slug."""


class Script:
    """A Lua script of ours, called by its hash; Redis forgets scripts when it restarts."""

    def __init__(self, name: str) -> None:
        self.name = name
        source = resources.files("sidecar.adapters").joinpath("lua", f"{name}.lua")
        self.text = source.read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def by_hash(self, keys: Sequence[str], args: Sequence[Argument]) -> Command:
        """The call for a Redis that knows the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def by_text(self, keys: Sequence[str], args: Sequence[Argument]) -> Command:
        """The call that also teaches it."""
        return ("EVAL", self.text, len(keys), *keys, *args)


async def unfenced() -> int:
    """The fence where nobody leads, and nobody is kept from anything: 0."""
    return 0


class RedisLink:
    """One Redis, or the masters of a Cluster, for all that is kept there.

    Every method raises StoreUnavailable when Redis does not answer in time, or can't do
    what it should: the text says what. No change is tried again in here: one whose answer was
    lost may have happened or not, and its sender repeats it.

    A change with `durable=False` waits for neither disk nor replicas: for what may be lost in a crash.
    `fence` is asked before what only the one that leads may change, and raises NotLeading (lease.py).
    """

    def __init__(self, masters: Masters, *, acks: Acks, writers: int, timings: Timings | None = None) -> None:
        """`acks`: what a durable change waits for; `writers`: as RedisStore takes it."""
        self.fence: Callable[[], Awaitable[int]] = unfenced
        self._masters = masters
        self._timings = timings or Timings()
        self._acks = acks
        self._worked, self._failing = False, ""
        self._calls = self._turned = 0
        self._asking = "_RO"
        self._writers = asyncio.Semaphore(writers)
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._complained: Bounded[bytes, None] = Bounded(_COMPLAINTS)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._masters.aclose()

    @property
    def clustered(self) -> bool:
        """Whether one step stays within one Cluster slot, so that an import takes several."""
        return self._masters.clustered

    def lock(self, name: bytes) -> asyncio.Lock:
        """The lock of that name, for what takes several changes in several Cluster slots.

        Within this process alone: one sidecar writes an LND's records.
        """
        return self._locks.setdefault(name, asyncio.Lock())

    @contextmanager
    def passing_over(self, entry: bytes) -> Iterator[None]:
        """Leave out of a list what can't be read in it: it must not cost all the others.

        It is said in the log once for each `entry`, a field's name or a client's id.
        """
        try:
            yield
        except BadRecord as error:
            if entry not in self._complained:
                self._complained[entry] = None
                log.warning("a record in Redis can't be read: it is left out", entry=entry, error=str(error))

    async def read(
        self, *commands: Command, atomic: bool = False, masters: Masters | None = None
    ) -> list[Any]:
        """The answers to commands that change nothing, in one round trip.

        `atomic`: as they were at one moment; in a Cluster those of one slot. `masters`: all from there.
        """
        with self._noticed("reads"):
            return await self._read(masters or self._masters, commands, atomic=atomic)

    async def ask(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """What a script answers that changes nothing.

        Since Redis 7 as one that can't: then it is not held up while a failover holds up changes.
        """
        call = script.by_hash
        with self._noticed("reads"):
            while True:
                name, *rest = call(keys, args)
                asking = self._asking
                try:
                    (reply,) = await self._read(self._masters, [(f"{name!s}{asking}", *rest)])
                except StoreUnavailable as error:
                    if isinstance(error.__cause__, NoScriptError) and call != script.by_text:
                        call = script.by_text
                    elif asking and _is_unknown(error.__cause__):
                        self._asking = ""
                    else:
                        raise
                else:
                    return reply

    async def _read(
        self, masters: Masters, commands: Sequence[Command], *, atomic: bool = False
    ) -> list[Any]:
        with self._timings.measure(Timed.STORE, "read"):
            try:
                replies = await masters.send(commands, atomic=atomic)
            except StoreUnavailable as error:
                # A pooled connection that Redis closed may show it only when it is used. Reading
                # once more does no harm, and the payer who asked would not ask again.
                if not isinstance(error.__cause__, RedisConnectionError):
                    raise
                replies = await masters.send(commands, atomic=atomic)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise unavailable(reply) from reply
        return replies

    async def scan(self, key: str) -> AsyncIterator[dict[bytes, bytes]]:
        """A long hash in parts. What is changed meanwhile is in it or not; some may come twice."""
        cursor = 0
        while True:
            ((cursor, part),) = await self.read(("HSCAN", key, cursor, "COUNT", BATCH))
            if part:
                yield part
            if cursor == 0:
                return

    async def scan_keys(self, pattern: str) -> AsyncIterator[str]:
        """All keys like `pattern`, of every master; some may come twice."""
        for master in await self._masters.each():
            cursor = 0
            while True:
                command: Command = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000)
                ((cursor, found),) = await self.read(command, masters=master)
                for key in found:
                    yield key.decode()
                if cursor == 0:
                    break

    async def change(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        what: str,
        *,
        durable: bool = True,
        at_once: bool = False,
    ) -> list[Any]:
        """Run a script. Returns what it says behind `ok`; `what` names it in errors.

        `at_once`: it waits for no other changes.
        """
        with self._noticed(*_changes(durable=durable)):
            try:
                reply: list[Any] = await self._change(
                    script.by_hash(keys, args), durable=durable, at_once=at_once
                )
            except NoScriptError:
                reply = await self._change(script.by_text(keys, args), durable=durable, at_once=at_once)
        slug: str = reply[0].decode()
        if slug == "ok":
            return reply[1:]
        raise REFUSALS[slug](f"{what}: {slug.replace('-', ' ')}")

    async def change_command(self, *command: Argument, durable: bool = True) -> None:
        """Run one command that changes something."""
        with self._noticed(*_changes(durable=durable)):
            await self._change(command, durable=durable)

    async def change_together(self, *commands: Command) -> None:
        """Run several commands that change one Cluster slot, all or none; not durable."""
        await self._change_all(commands, atomic=True)

    async def change_many(self, *commands: Command) -> None:
        """Run several commands that change something, each for itself; not durable."""
        await self._change_all(commands, atomic=False)

    async def _change_all(self, commands: Sequence[Command], *, atomic: bool) -> None:
        with self._noticed(*_changes(durable=False)):
            async with self._writers:
                replies = await self._masters.send(commands, atomic=atomic)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise unavailable(reply) from reply

    async def probe(self, key: str) -> None:
        """Make a change on each master."""
        with self._noticed(*_changes(durable=True), everywhere=True):
            keys = await self._masters.probe_keys(key)
            changes = (self._change(("SET", each, "1", "EX", "60"), durable=True) for each in keys)
            for outcome in await asyncio.gather(*changes, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    @contextmanager
    def _noticed(self, what: str, *more: str, everywhere: bool = False) -> Iterator[None]:
        """Say when Redis goes away and when it is back: once, not for each message.

        Reads may go on while changes fail (a full disk, a replica), and so may changes that wait for no
        replica: what failed must work again, or what works only where that does, which names it as `more`.
        Of a Cluster all masters must, which are asked `everywhere`.
        """
        self._calls += 1
        # One that had begun before the last news says nothing of what has been since.
        call = self._calls
        try:
            yield
        except BadRecord:
            # Of one client: Redis itself is there.
            raise
        except StoreUnavailable as error:
            if self._worked and not self._failing and call > self._turned:
                self._failing, self._turned = what, self._calls
                log.warning("Redis is away", failing=what, error=str(error))
            raise
        self._worked = True
        works_again = everywhere if self.clustered else self._failing in (what, *more)
        if self._failing and works_again and call > self._turned:
            self._failing, self._turned = "", self._calls
            log.info("Redis is back", working=what)

    async def _change(self, command: Command, *, durable: bool, at_once: bool = False) -> Any:
        """Send a change and wait until it is as safe as it must be. Raises NoScriptError too."""
        waits = self._acks.commands() if durable else ()
        with self._timings.measure(Timed.STORE, "change"):
            async with nullcontext() if at_once else self._writers:
                reply, *answers = await self._masters.send([command, *waits])
        if isinstance(reply, NoScriptError):
            raise reply
        for answer in (reply, *answers):
            if isinstance(answer, RedisError):
                raise unavailable(answer) from answer
        self._acks.check(answers)
        return reply


def _changes(*, durable: bool) -> Sequence[str]:
    """What is known to work, or not, by a change."""
    may_be_lost = "changes that may be lost"
    return ("changes", may_be_lost) if durable else (may_be_lost,)


def _is_unknown(error: BaseException | None) -> bool:
    """Whether Redis does not know a command, or not for this user."""
    return isinstance(error, NoPermissionError) or "unknown command" in str(error).lower()
