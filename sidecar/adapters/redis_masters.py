"""Which Redis gets a command: one master, or each one of a Cluster (redis_cluster.py)."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from sidecar.core.errors import BadRecord, StoreUnavailable

Argument: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[Argument, ...]

_ILLEGIBLE = re.compile(
    r"\bWRONGTYPE\b|\b(?:not|of) ours\b|: attempt to |\bnot an integer\b|\bbad argument #"
)
"""What Redis says, or Lua in a script of ours, of a record that we did not write so."""

_UNREADABLE = (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What redis-py raises over an answer without sense: a redirection without a port, one to port 99999."""


class Masters(Protocol):
    """The Redis that keeps the records, whatever it is made of.

    Every method raises StoreUnavailable when Redis does not answer in time.
    """

    @property
    def clustered(self) -> bool:
        """Whether keys are spread over Cluster slots: then one step stays within one of them."""

    async def send(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """One round trip; the errors that Redis answers with are in the list.

        What is for one Cluster slot goes out on one connection, in order: a command without a key
        (TIME, WAIT, WAITAOF) goes with its neighbour. `atomic`: all of one slot in one step.
        """

    async def each(self) -> "Sequence[OneMaster]":
        """All masters, for what must be asked of every one."""

    async def probe_keys(self, key: str) -> Sequence[str]:
        """A key like `key` for each master, to see whether it keeps changes."""

    async def aclose(self) -> None:
        """Close the connections."""


class OneMaster:
    """Masters of one server: an operator's own, the embedded one, or the one that Sentinel names."""

    clustered = False

    def __init__(
        self, redis: Redis, where: str = "", on_close: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`where` is for messages; `on_close` is awaited when the connections are closed."""
        self.redis = redis
        self.where = where
        self._on_close = on_close

    async def send(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """One round trip on one connection; errors that Redis answers with are in the list."""
        try:
            return await self.pipe(commands, atomic=atomic)
        except (RedisError, OSError) as error:
            raise unavailable(error) from error

    async def pipe(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        """As `send`, but raises redis-py's errors, and OSError."""
        try:
            if atomic:
                async with self.redis.pipeline() as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    return await pipeline.execute(raise_on_error=False)
            return await self._pipe(commands)
        except _UNREADABLE as error:
            raise InvalidResponse(f"an answer that can't be read: {error}") from error

    async def _pipe(self, commands: Sequence[Command]) -> list[Any]:
        # What redis-py's pipeline does besides takes as long as all the rest.
        pool = self.redis.connection_pool
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await self._reply(connection, command) for command in commands]
        except _UNREADABLE:
            # The answers that are still to come must not be taken for those to other commands.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _reply(self, connection: Any, command: Command) -> Any:
        try:
            return await self.redis.parse_response(connection, str(command[0]))
        except ResponseError as error:
            return error

    async def each(self) -> "Sequence[OneMaster]":
        """Itself."""
        return [self]

    async def probe_keys(self, key: str) -> Sequence[str]:
        """The key itself."""
        return [key]

    async def aclose(self) -> None:
        """Close the connections."""
        try:
            await self.redis.aclose()
        finally:
            if self._on_close is not None:
                await self._on_close()


def unavailable(error: Exception) -> StoreUnavailable:
    """What any error of Redis is to the service: something that may pass, or a record that can't be used."""
    if isinstance(error, ResponseError) and _ILLEGIBLE.search(str(error)):
        return BadRecord(f"Redis holds a record that can't be used: {error}")
    return StoreUnavailable(f"Redis: {error or type(error).__name__}")
