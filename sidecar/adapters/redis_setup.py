"""How the sidecar comes to its store: connect, check that invoices are safe there, open.

A Redis that would lose invoices is refused, unless the operator accepts that by name:

    durability   an acknowledged invoice is lost when
    strict       the disk is
    everysec     Redis or its machine crashes within about a second of it
    none         Redis restarts, or evicts it
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from sidecar.adapters.redis_embedded import EmbeddedRedis
from sidecar.adapters.redis_link import unavailable
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import ConfigError, StoreSetupError, StoreUnavailable
from sidecar.core.model import Durability
from sidecar.timings import Timings

OLDEST = (6, 2)
"""The oldest Redis that the tests run against."""

FIRST_WITH_WAITAOF = (7, 2)

MAX_CONNECTIONS = 128
"""Connections at most; they are opened as they are needed. Past it, callers queue."""

WRITERS = 96
"""Connections that changes may hold at once: with `appendfsync everysec`, each for up to a second."""

TIMEOUT = 5.0
"""Seconds for a connection from the pool, for connecting, and for an answer."""

URL_OPTIONS = frozenset(
    {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)
"""What may follow `?` in a URL. Anything else would change how the store talks to Redis."""


@dataclass(frozen=True, slots=True)
class ServerReport:
    """A server that may be used: how the ready line calls it, and whether changes wait for WAITAOF."""

    description: str
    waitaof: bool


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. None: it does not tell (CONFIG is forbidden)."""

    name: str
    version: str
    role: str
    cluster: bool
    aof: bool
    appendfsync: str | None
    skips_fsync_on_rewrite: bool | None
    eviction: str

    @property
    def has_waitaof(self) -> bool:
        """Whether this version can tell when a change is on disk."""
        return self.number >= FIRST_WITH_WAITAOF

    @property
    def number(self) -> tuple[int, ...]:
        """The version, major and minor."""
        return tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())


async def open_store(
    url: str | None, datadir: Path, node_id: bytes, durability: str, timings: Timings | None = None
) -> RedisStore:
    """A store that is ready for use; `close` it in the end.

    `url` None means the embedded server in `datadir`. `node_id` is LND's, 33 bytes. Raises
    ConfigError for a bad setting, StoreSetupError when the Redis or the data directory must
    be mended first, StoreUnavailable when Redis does not answer: try again.
    """
    try:
        wanted = Durability(durability)
    except ValueError:
        raise ConfigError("redis.durability: strict, everysec or none") from None
    stop: Callable[[], Awaitable[None]] | None = None
    if url is None:
        embedded = await EmbeddedRedis.start(datadir)
        stop, redis, where = embedded.close, connect_socket(embedded.socket), "embedded"
    else:
        redis, where = connect(url), place(url)
    try:
        report = await check_server(redis, wanted, where)
        store = RedisStore(
            redis,
            node_id,
            waitaof=report.waitaof,
            writers=WRITERS,
            description=report.description,
            timings=timings,
            on_close=stop,
        )
        await _prove(store, where)
    except BaseException:
        await redis.aclose()
        if stop is not None:
            await stop()
        raise
    return store


# --- connecting ---------------------------------------------------------------------------------


def connect(url: str) -> Redis:
    """A client for a redis://, rediss:// or unix:// URL; nothing is sent yet. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        if not (parts.path if parts.scheme == "unix" else parts.hostname):
            raise ValueError("it leads nowhere")
        if not set(parse_qs(parts.query, keep_blank_values=True)) <= URL_OPTIONS:
            raise ConfigError(f"redis.url: only {', '.join(sorted(URL_OPTIONS))} may follow `?`")
        pool = BlockingConnectionPool.from_url(url, **_pool_options())
        pool.connection_class(**pool.connection_kwargs)  # reads all options, without connecting
    except (ValueError, TypeError, RedisError, OSError):
        # Not the cause's own text: of a password with a stray `/` or `@` it shows a part.
        raise ConfigError(
            "redis.url: redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://… or unix:///PATH;"
            " special characters of a password are percent-encoded"
        ) from None
    return _client(pool)


def connect_socket(path: Path) -> Redis:
    """A client for a Unix socket; nothing is sent yet."""
    pool = BlockingConnectionPool(
        connection_class=UnixDomainSocketConnection, path=str(path), **_pool_options()
    )
    return _client(pool)


def _pool_options() -> dict[str, Any]:
    """Options of a pool that queues callers rather than failing them, and tries nothing twice.

    RESP2, without client names and push messages: all that we need, and the same on every server.
    """
    return {
        "max_connections": MAX_CONNECTIONS,
        "timeout": TIMEOUT,
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
        "decode_responses": False,
    }


def _client(pool: BlockingConnectionPool) -> Redis:
    return Redis.from_pool(pool)


def place(url: str) -> str:
    """Where a URL leads, as it may stand in a log: without user, password and options."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"at {parts.path}"
    host = parts.hostname or "localhost"
    return f"at {f'[{host}]' if ':' in host else host}:{parts.port or 6379}"


# --- checking -----------------------------------------------------------------------------------


async def check_server(redis: Redis, durability: Durability, where: str) -> ServerReport:
    """Ask a server what it is, and whether it keeps what it is given as `durability` says.

    Raises StoreSetupError, whose text says what to set or to accept; StoreUnavailable.
    """
    try:
        facts = await _ask(redis)
    except (RedisError, OSError) as error:
        # What Redis says while a connection is set up comes wrapped in a ConnectionError.
        said = error.__cause__ if isinstance(error.__cause__, RedisError) else error
        if isinstance(said, AuthenticationError | AuthorizationError):
            raise StoreSetupError(f"Redis {where} refuses the user or password of redis.url") from None
        if isinstance(said, NoPermissionError):
            raise StoreSetupError(f"Redis {where} lets this user do too little: {said}") from error
        if isinstance(said, ResponseError):
            raise StoreSetupError(f"Redis {where} can't be used: {said}") from error
        raise unavailable(error) from error
    return judge(facts, durability, where)


async def _ask(redis: Redis) -> ServerFacts:
    info: dict[str, Any] = await redis.info()
    no_fsync = await _config(redis, "no-appendfsync-on-rewrite")
    return ServerFacts(
        name=str(info.get("server_name", "redis")),
        version=str(info.get("valkey_version") or info["redis_version"]),
        role=str(info.get("role", "master")),
        cluster=info.get("redis_mode") == "cluster",
        aof=bool(info.get("aof_enabled")),
        appendfsync=await _config(redis, "appendfsync"),
        skips_fsync_on_rewrite=None if no_fsync is None else no_fsync == "yes",
        eviction=str(info.get("maxmemory_policy", "noeviction")),
    )


async def _config(redis: Redis, name: str) -> str | None:
    """One setting; None where CONFIG is forbidden, as managed services do."""
    try:
        reply = await redis.config_get(name)
    except ResponseError:
        return None
    return reply.get(name)


def judge(facts: ServerFacts, durability: Durability, where: str) -> ServerReport:
    """Whether a server with these facts may be used. Raises StoreSetupError."""
    server = f"{facts.name} {facts.version} {where}"
    if facts.number < OLDEST:
        raise StoreSetupError(f"{server} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    if facts.role != "master":
        raise StoreSetupError(
            f"{server} is a replica, and can't be written to: name its primary in --redis.url"
        )
    if facts.cluster:
        raise StoreSetupError(f"{server} is a node of a Redis Cluster: a single server is needed")
    if facts.eviction != "noeviction" and durability is not Durability.NONE:
        raise StoreSetupError(
            f"{server} may evict invoices (maxmemory-policy {facts.eviction}): run `CONFIG SET"
            " maxmemory-policy noeviction` and set it in redis.conf too, or accept the loss with"
            " --redis.durability none"
        )
    if not facts.aof and durability is not Durability.NONE:
        raise StoreSetupError(
            f"{server} has no append-only file, and would lose all invoices: run `CONFIG SET appendonly"
            " yes` and set it in redis.conf too, or accept the loss with --redis.durability none"
        )
    waitaof = durability is Durability.STRICT and facts.has_waitaof
    if durability is Durability.STRICT:
        _judge_fsync(facts, server)
    return ServerReport(_described(facts, durability, where, waitaof=waitaof), waitaof)


def _judge_fsync(facts: ServerFacts, server: str) -> None:
    """Refuse a server that can't tell when a change is on disk."""
    accept = "or accept to lose the last changes in a crash with --redis.durability everysec"
    if facts.has_waitaof:
        # WAITAOF tells, each time; but `no` leaves the fsync to the system, half a minute later.
        if facts.appendfsync == "no":
            raise StoreSetupError(
                f"{server} does not fsync (appendfsync no): run `CONFIG SET appendfsync always` (or"
                f" everysec) and set it in redis.conf too, {accept}"
            )
        return
    if facts.appendfsync is None:
        raise StoreSetupError(
            f"{server} does not tell when it fsyncs (CONFIG is forbidden) and has no WAITAOF: let this user"
            f" run CONFIG GET, use Redis 7.2 or newer, {accept}"
        )
    if facts.appendfsync != "always":
        raise StoreSetupError(
            f"{server} acknowledges changes before they are on disk (appendfsync {facts.appendfsync}): run"
            f" `CONFIG SET appendfsync always` and set it in redis.conf too, use Redis 7.2 or newer, {accept}"
        )
    if facts.skips_fsync_on_rewrite:
        raise StoreSetupError(
            f"{server} does not fsync while it rewrites its append-only file: run `CONFIG SET"
            f" no-appendfsync-on-rewrite no` and set it in redis.conf too, {accept}"
        )


def _described(facts: ServerFacts, durability: Durability, where: str, *, waitaof: bool) -> str:
    details = [f"AOF {facts.appendfsync or ''}".strip() if facts.aof else "no AOF"]
    if waitaof and facts.appendfsync != "always":
        details.append("WAITAOF")
    if durability is not Durability.STRICT:
        details.append(f"durability {durability.value}")
    if where == "embedded":
        return f"{facts.name} {facts.version} ({', '.join([where, *details])})"
    return f"{facts.name} {facts.version} {where} ({', '.join(details)})"


async def _prove(store: RedisStore, where: str) -> None:
    """Let the store make one change as it makes all, before anything depends on it."""
    try:
        await store.probe()
    except StoreUnavailable as error:
        if isinstance(error.__cause__, ResponseError):
            raise StoreSetupError(f"Redis {where} can't keep what it is given: {error.__cause__}") from error
        raise
