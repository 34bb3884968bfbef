"""The master that Redis Sentinel names, asked for anew at each new connection, and every second.

A demoted master answers READONLY, or Sentinel cuts its connections: the next one leads to the new
master, and takes the idle ones with it. But Sentinel names the new master before it demotes the old
one, which takes changes until then, and would lose them: so it is asked meanwhile, too.
What it names must say itself that it is a master.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from sidecar.adapters.redis_masters import OneMaster
from sidecar.adapters.redis_writing import Writing

SENTINEL_TIMEOUT = 1.0
"""Seconds for a Sentinel's answer; past it the next one is asked."""

LOOK_EVERY = 1.0
"""Seconds for which a master is believed to be it still. Two questions to a Sentinel are the price."""

LOOK_TIMEOUT = 2.5
"""Seconds for such a look: enough for a second Sentinel, where the first one hangs."""

LOOK_LATER = 10.0
"""Seconds, where no Sentinel has told who is the master."""

HostPort = tuple[str, int]


class _MasterConnection(Writing, SentinelManagedConnection):
    """A connection to the master of the moment."""

    async def connect_to(self, address: HostPort) -> None:
        """Connect, and see that it is a master. Raises redis-py's ConnectionError."""
        await super().connect_to(address)  # type: ignore[no-untyped-call]
        try:
            await self.send_command("ROLE")
            role, *_ = await self.read_response()
            if role != b"master":
                raise RedisConnectionError(f"{self.host}:{self.port} is no master (any more)")
        except RedisError:
            # Left open it would be taken for one that was asked.
            await self.disconnect()
            raise

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """An answer. Raises redis-py's ConnectionError, and hangs up, where it is a master no more."""
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            # Before Redis 7 a script's READONLY stands in the middle of a text, where redis-py does not look.
            if "READONLY" not in str(error):
                raise
            await self.disconnect()
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica now") from error


class _SecureMasterConnection(_MasterConnection, SSLConnection):
    """The same over TLS."""


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Sentinel's addresses, and callers that queue where there are no more connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._looking = asyncio.Lock()
        self._believed_until = 0.0

    async def get_master_address(self) -> HostPort:
        """The master's host and port; connections that are idle, and lead elsewhere, are closed."""
        found: HostPort = await super().get_master_address()  # type: ignore[no-untyped-call]
        self._believed_until = asyncio.get_running_loop().time() + LOOK_EVERY
        return found

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect, or connect anew where it still leads to an earlier master."""
        if isinstance(connection, _MasterConnection) and connection.is_connected:
            await self._look()
            if self.master_address != (connection.host, connection.port):
                await connection.disconnect()
        await super().ensure_connection(connection)

    async def _look(self) -> None:
        """See who is the master, unless that was done just now."""
        now = asyncio.get_running_loop().time
        if now() < self._believed_until:
            return
        async with self._looking:
            if now() < self._believed_until:
                return
            try:
                async with asyncio.timeout(LOOK_TIMEOUT):
                    await self.get_master_address()
            except MasterNotFoundError:
                # It answers us, and not the Sentinels: they are about to promote another one.
                self._believed_until = now() + LOOK_EVERY
            except (RedisError, OSError, TimeoutError):
                # All of them are away: what Redis answers itself is good enough meanwhile.
                self._believed_until = now() + LOOK_LATER


class _Sentinels(Sentinel):
    """Several Sentinels: the first that knows a master which is up is believed.

    redis-py asks no other where one hangs for long, or refuses to answer; and it shows its objects in errors.
    """

    async def discover_master(self, service_name: str) -> HostPort:
        """The master's host and port.

        Raises ResponseError when it is the operator's to mend (name, password), else redis-py's
        ConnectionError.
        """
        refused: RedisError | None = None
        known = False
        for sentinel in tuple(self.sentinels):
            try:
                async with asyncio.timeout(SENTINEL_TIMEOUT):
                    state, named = await self._ask(sentinel, service_name)
            except AuthenticationError:
                refused = ResponseError("a Sentinel refuses sentinel_username or sentinel_password")
            except ResponseError as error:
                refused = ResponseError(f"a Sentinel says of the master {service_name}: {error}")
            except (RedisError, OSError):
                # The last one to be asked from now on.
                self.sentinels.remove(sentinel)
                self.sentinels.append(sentinel)
            else:
                known = True
                # The state is the old master's until a failover is over, which takes minutes where a replica
                # does not follow.
                promoted = named != (state["ip"], state["port"])
                if named is not None and (promoted or self.check_master_state(state, service_name)):
                    return named
        if known:
            raise MasterNotFoundError(f"Sentinel knows no master {service_name} that is up")
        raise refused or RedisConnectionError("no Sentinel answers")

    async def _ask(self, sentinel: Redis, service_name: str) -> tuple[dict[str, Any], HostPort | None]:
        """The master's state, and the address that clients are to use."""
        named: tuple[bytes, int] | None
        try:
            state: dict[str, Any] = await sentinel.sentinel_master(service_name)  # type: ignore[assignment]
            named = await sentinel.sentinel_get_master_addr_by_name(service_name)  # type: ignore[assignment]
            return {"ip": None, "port": None, **state}, None if named is None else (
                named[0].decode(),
                named[1],
            )
        except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise InvalidResponse(f"an answer that can't be read: {error}") from error


def connect_sentinel(
    sentinels: Sequence[HostPort],
    service: str,
    where: str,
    *,
    tls: bool,
    options: Mapping[str, Any],
    sentinel_options: Mapping[str, Any],
) -> OneMaster:
    """A client for the master that these Sentinels call `service`; nothing is sent yet.

    `where` is for messages; `options` are those of its pool, `sentinel_options` those of a Sentinel's Redis.
    """
    asked = {
        **sentinel_options,
        # As many as may look for the master at once.
        "max_connections": options["max_connections"],
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
    }
    manager = _Sentinels(sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    kind = _SecureMasterConnection if tls else _MasterConnection
    pool = _MasterPool(service, manager, connection_class=kind, **options)
    pool.connection_class(**pool.connection_kwargs)  # reads all options, without connecting
    return OneMaster(Redis.from_pool(pool), where, manager.aclose)
