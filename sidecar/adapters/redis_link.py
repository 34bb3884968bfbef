"""How Redis is spoken to: reads, and changes that are acknowledged only after they are on disk.

Either the server fsyncs before it answers (`appendfsync always`), or WAITAOF goes out right
behind the change, on the same connection: from another connection, or inside Lua, WAITAOF
returns at once.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any
from weakref import WeakValueDictionary

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, RedisError

from sidecar.adapters.redis_masters import Argument, Command, Masters, unavailable
from sidecar.core.errors import (
    BoundOtherwise,
    ClientPaused,
    ClientRevoked,
    MailboxFull,
    NameTaken,
    NodeTaken,
    NoSuchClient,
    NoSuchWebhook,
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

FSYNC_TIMEOUT_MS = 4_000
"""How long WAITAOF may wait; below the socket's timeout, so that the answer still comes."""

BATCH = 256
"""Records that are read in one pipeline."""

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


class RedisLink:
    """One Redis, or the masters of a Cluster, for all that is kept there.

    Every method raises StoreUnavailable when Redis does not answer in time, or can't do
    what it should: the text says what. No change is tried again in here: one whose answer was
    lost may have happened or not, and its sender repeats it.

    A change with `durable=False` does not wait for WAITAOF: for what may be lost in a crash.
    """

    def __init__(
        self, masters: Masters, *, waitaof: bool, writers: int, timings: Timings | None = None
    ) -> None:
        """`waitaof`, `writers`: as RedisStore takes them."""
        self._masters = masters
        self._timings = timings or Timings()
        self._waitaof = waitaof
        self._worked = False
        self._failing = ""
        self._asking = "_RO"
        self._writers = asyncio.Semaphore(writers)
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

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
    ) -> list[Any]:
        """Run a script. Returns what it says behind `ok`; `what` names it in errors."""
        with self._noticed("changes"):
            try:
                reply: list[Any] = await self._change(script.by_hash(keys, args), durable=durable)
            except NoScriptError:
                reply = await self._change(script.by_text(keys, args), durable=durable)
        slug: str = reply[0].decode()
        if slug == "ok":
            return reply[1:]
        raise REFUSALS[slug](f"{what}: {slug.replace('-', ' ')}")

    async def change_command(self, *command: Argument, durable: bool = True) -> None:
        """Run one command that changes something."""
        with self._noticed("changes"):
            await self._change(command, durable=durable)

    async def change_together(self, *commands: Command) -> None:
        """Run several commands that change one Cluster slot, all or none; not durable."""
        await self._change_all(commands, atomic=True)

    async def change_many(self, *commands: Command) -> None:
        """Run several commands that change something, each for itself; not durable."""
        await self._change_all(commands, atomic=False)

    async def _change_all(self, commands: Sequence[Command], *, atomic: bool) -> None:
        with self._noticed("changes"):
            async with self._writers:
                replies = await self._masters.send(commands, atomic=atomic)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise unavailable(reply) from reply

    async def probe(self, key: str) -> None:
        """Make a change on each master."""
        with self._noticed("changes"):
            keys = await self._masters.probe_keys(key)
        changes = (self.change_command("SET", each, "1", "EX", "60") for each in keys)
        for failure in await asyncio.gather(*changes, return_exceptions=True):
            if failure is not None:
                raise failure

    @contextmanager
    def _noticed(self, what: str) -> Iterator[None]:
        """Say when Redis goes away and when it is back: once, not for each message.

        Reads may go on while changes fail (a full disk, a replica): what failed must work again.
        """
        try:
            yield
        except StoreUnavailable as error:
            if self._worked and not self._failing:
                self._failing = what
                log.warning("Redis is away", failing=what, error=str(error))
            raise
        self._worked = True
        if self._failing == what:
            self._failing = ""
            log.info("Redis is back", working=what)

    async def _change(self, command: Command, *, durable: bool) -> Any:
        """Send a change and wait until it is as safe as it must be. Raises NoScriptError too."""
        commands: list[Command] = [command]
        if durable and self._waitaof:
            commands.append(("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS))
        with self._timings.measure(Timed.STORE, "change"):
            async with self._writers:
                reply, *fsynced = await self._masters.send(commands)
        if isinstance(reply, NoScriptError):
            raise reply
        for answer in (reply, *fsynced):
            if isinstance(answer, RedisError):
                raise unavailable(answer) from answer
        if fsynced and int(fsynced[0][0]) < 1:
            raise StoreUnavailable(f"Redis did not get a change onto its disk within {FSYNC_TIMEOUT_MS} ms")
        return reply


def _is_unknown(error: BaseException | None) -> bool:
    """Whether Redis does not know a command, or not for this user."""
    return isinstance(error, NoPermissionError) or "unknown command" in str(error).lower()
