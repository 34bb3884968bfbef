"""What `sidecar doctor` asks of Redis, an operator's own or the embedded one."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from sidecar.adapters.redis_connect import connect, connect_socket, is_local, place
from sidecar.adapters.redis_masters import Masters, unavailable
from sidecar.adapters.redis_setup import check_server
from sidecar.core.diagnosis import RedisFacts
from sidecar.core.errors import StoreSetupError
from sidecar.core.model import Durability

_SOCKET = re.compile(r'^unixsocket "(.*)"$', re.MULTILINE)
_ESCAPED = re.compile(r"\\(.)")


def embedded_socket(datadir: Path) -> Path | None:
    """Where the embedded server of a data directory listens, if one is there: its configuration tells."""
    try:
        text = (datadir / "redis" / "redis.conf").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    match = _SOCKET.search(text)
    if match is None:
        return None
    path = Path(_ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], match[1]))
    return path if path.is_socket() else None


async def examine(
    url: str | None,
    socket: Path | None,
    durability: str,
    now: Callable[[], float] = time.time,
    *,
    replicas: int = 0,
) -> tuple[RedisFacts, Path | None]:
    """What a Redis says of itself, and its directory if that may be on this machine.

    `replicas`: how many must have a change. Of a Cluster it is the worst that any master says. A Sentinel is
    asked for its master alone. Without `url` it is the embedded one, at `socket`. Raises ConfigError,
    StoreUnavailable.
    """
    if url is not None:
        masters: Masters = connect(url)
        where, local = place(url), is_local(url)
    elif socket is not None:
        masters, where, local = connect_socket(socket), "embedded", True
    else:
        raise ValueError("neither a URL nor a socket")
    try:
        try:
            report = await check_server(masters, Durability(durability), where, replicas)
        except StoreSetupError as error:
            return RedisFacts(str(error), refused=True), None
        try:
            each = [one.redis for one in await masters.each()]
            found = [await _facts(redis, report.description, now) for redis in each]
            return replace(_worst(found), replicas_wanted=replicas), await _directory(
                each[0]
            ) if local else None
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
    finally:
        await masters.aclose()


async def _facts(redis: Redis, description: str, now: Callable[[], float]) -> RedisFacts:
    info: dict[str, Any] = await redis.info()
    before = now()
    seconds, micros = await redis.time()
    # Half of the way there and back is as near as one can say.
    ahead = seconds + micros / 1e6 - (before + now()) / 2
    return RedisFacts(
        judgement=description,
        refused=False,
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        machine_memory=int(info.get("total_system_memory", 0)),
        aof_write_failed=info.get("aof_last_write_status", "ok") != "ok",
        aof_rewrite_failed=info.get("aof_last_bgrewrite_status", "ok") != "ok",
        snapshot_failed=info.get("rdb_last_bgsave_status", "ok") != "ok",
        replicas=(online := _online(info)),
        replicas_least=online,
        ahead=ahead,
    )


def _online(info: Mapping[str, Any]) -> int:
    """Replicas that follow; one that has yet to read all that there is does not."""
    each = (info.get(f"slave{number}") for number in range(int(info.get("connected_slaves", 0))))
    return sum(isinstance(told, dict) and told.get("state") == "online" for told in each)


def _worst(found: Sequence[RedisFacts]) -> RedisFacts:
    """The facts of several masters as if they were one: the fullest, and what is wrong with any."""
    fullest = max(found, key=lambda each: each.used_memory / (each.max_memory or each.machine_memory or 1))
    return replace(
        fullest,
        aof_write_failed=any(each.aof_write_failed for each in found),
        aof_rewrite_failed=any(each.aof_rewrite_failed for each in found),
        snapshot_failed=any(each.snapshot_failed for each in found),
        replicas=sum(each.replicas for each in found),
        replicas_least=min(each.replicas_least for each in found),
        ahead=max((each.ahead for each in found), key=abs),
    )


async def _directory(redis: Redis) -> Path | None:
    try:
        found = (await redis.config_get("dir")).get("dir")
    except ResponseError:
        return None
    return Path(found) if found else None
