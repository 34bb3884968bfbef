"""How the sidecar comes to its store: connect, check that invoices are safe there, open.

A Redis that would lose invoices is refused, unless the operator accepts that by name:

    durability   an acknowledged invoice is lost when
    strict       the disk is
    everysec     Redis or its machine crashes within about a second of it
    none         Redis restarts, or evicts it

With `replicas` so many of them must have it as well, on their disks where durability is strict and the server
has WAITAOF: then it outlives a master whose place one of them takes.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from sidecar.adapters.redis_connect import connect, connect_socket, place
from sidecar.adapters.redis_embedded import EmbeddedRedis
from sidecar.adapters.redis_masters import Masters, unavailable
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import ConfigError, StoreSetupError, StoreUnavailable
from sidecar.core.model import Durability
from sidecar.timings import Timings

OLDEST = (6, 2)
"""The oldest Redis that the tests run against."""

FIRST_WITH_WAITAOF = (7, 2)

WRITERS = 96
"""Connections that changes may hold at once: with `appendfsync everysec`, each for up to a second."""

PASSING = (AskError, ClusterDownError, TryAgainError)
"""What a Cluster answers while it changes: a refusal that ends by itself."""

PASSING_TEXTS = ("NOREPLICAS", "UNBLOCKED", "with replica instances")
"""In what a master answers that lacks replicas (min-replicas-to-write), or that just became one itself."""


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
    url: str | None,
    datadir: Path,
    node_id: bytes,
    durability: str,
    timings: Timings | None = None,
    *,
    replicas: int = 0,
) -> RedisStore:
    """A store that is ready for use; `close` it in the end.

    `url` None means the embedded server in `datadir`. `node_id` is LND's, 33 bytes. `replicas`: how many
    must have a change before it is acknowledged. Raises ConfigError for a bad setting, StoreSetupError
    when the Redis or the data directory must be mended first, StoreUnavailable when Redis does not
    answer: try again.
    """
    try:
        wanted = Durability(durability)
    except ValueError:
        raise ConfigError("redis.durability: strict, everysec or none") from None
    stop: Callable[[], Awaitable[None]] | None = None
    if url is None:
        embedded = await EmbeddedRedis.start(datadir)
        stop, where = embedded.close, "embedded"
        masters: Masters = connect_socket(embedded.socket)
    else:
        masters, where = connect(url), place(url)
    try:
        report = await check_server(masters, wanted, where, replicas)
        store = RedisStore(
            masters,
            node_id,
            waitaof=report.waitaof,
            replicas=replicas,
            writers=WRITERS,
            description=report.description,
            timings=timings,
            on_close=stop,
        )
        await _prove(store, where)
    except BaseException:
        await masters.aclose()
        if stop is not None:
            await stop()
        raise
    return store


# --- checking -----------------------------------------------------------------------------------


async def check_server(
    masters: Masters, durability: Durability, where: str, replicas: int = 0
) -> ServerReport:
    """Ask a Redis what it is, and whether it keeps what it is given as `durability` says.

    Of a Cluster each master is asked. `replicas`: how many are waited for; whether they are there the first
    change shows. Raises StoreSetupError, whose text says what to set or to accept; StoreUnavailable.
    """
    try:
        found = [(each.where, await _ask(each.redis)) for each in await masters.each()]
    except (RedisError, OSError, StoreUnavailable) as error:
        raise _refusal(error, where) from error
    if not masters.clustered:
        ((_, facts),) = found
        return judge(facts, durability, where, replicas=replicas)
    for each, facts in found:
        if facts.role != "master":
            raise StoreUnavailable(f"Redis: the Cluster {where} is changing masters")
        report = judge(facts, durability, each, clustered=True)
    if len({facts.has_waitaof for _, facts in found}) > 1:
        raise StoreSetupError(f"the Cluster {where} has masters before and after Redis 7.2: update the older")
    details = _details(facts, durability, replicas, waitaof=report.waitaof)
    description = f"{facts.name} {facts.version} {where} (Cluster of {len(found)}, {', '.join(details)})"
    return ServerReport(description, report.waitaof)


def _refusal(error: Exception, where: str) -> StoreSetupError | StoreUnavailable:
    """What the operator must mend, or that Redis is away."""
    # What Redis says while a connection is set up comes wrapped in a ConnectionError.
    said: BaseException = error
    while isinstance(said.__cause__, RedisError):
        said = said.__cause__
    if isinstance(said, AuthenticationError | AuthorizationError):
        return StoreSetupError(f"Redis {where} refuses the user or password of redis.url")
    if isinstance(said, NoPermissionError):
        return StoreSetupError(f"Redis {where} lets this user do too little: {said}")
    if isinstance(said, ResponseError) and not _passes(said):
        return StoreSetupError(f"Redis {where} can't be used: {said}")
    return error if isinstance(error, StoreUnavailable) else unavailable(error)


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


def _passes(said: ResponseError) -> bool:
    """Whether a refusal ends by itself."""
    return isinstance(said, PASSING) or any(text in str(said) for text in PASSING_TEXTS)


def judge(
    facts: ServerFacts, durability: Durability, where: str, *, clustered: bool = False, replicas: int = 0
) -> ServerReport:
    """Whether a server with these facts may be used, alone or in a Cluster. Raises StoreSetupError."""
    server = f"{facts.name} {facts.version} {where}"
    if facts.number < OLDEST:
        raise StoreSetupError(f"{server} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    if facts.role != "master":
        raise StoreSetupError(
            f"{server} is a replica, and can't be written to: name its primary in --redis.url"
        )
    if facts.cluster and not clustered:
        raise StoreSetupError(
            f"{server} is a node of a Redis Cluster: say so by redis+cluster://… (TLS: rediss+cluster://…)"
        )
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
    details = _details(facts, durability, replicas, waitaof=waitaof)
    if where == "embedded":
        return ServerReport(f"{facts.name} {facts.version} ({', '.join([where, *details])})", waitaof)
    return ServerReport(f"{server} ({', '.join(details)})", waitaof)


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


def _details(facts: ServerFacts, durability: Durability, replicas: int, *, waitaof: bool) -> list[str]:
    details = [f"AOF {facts.appendfsync or ''}".strip() if facts.aof else "no AOF"]
    if waitaof and (replicas or facts.appendfsync != "always"):
        details.append("WAITAOF")
    if replicas:
        details[-1] += f" + {replicas} replica{'' if replicas == 1 else 's'}"
    if durability is not Durability.STRICT:
        details.append(f"durability {durability.value}")
    return details


async def _prove(store: RedisStore, where: str) -> None:
    """Let the store make one change as it makes all, before anything depends on it."""
    try:
        await store.probe()
    except StoreUnavailable as error:
        if isinstance(error.__cause__, ResponseError) and not _passes(error.__cause__):
            raise StoreSetupError(f"Redis {where} can't keep what it is given: {error.__cause__}") from error
        raise
