"""From redis.url to a client: a single server, the master that Sentinel names, or a Cluster."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sidecar.adapters.redis_cluster import ClusterMasters
from sidecar.adapters.redis_masters import Masters, OneMaster
from sidecar.adapters.redis_sentinel import connect_sentinel
from sidecar.adapters.redis_writing import writing
from sidecar.core.errors import ConfigError

MAX_CONNECTIONS = 128
"""Connections to a server at most; they are opened as they are needed. Past it, callers queue."""

TIMEOUT = 5.0
"""Seconds for a connection from the pool, for connecting, and for an answer."""

TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)
SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
URL_OPTIONS = {
    "": TLS_OPTIONS | {"db"},
    "sentinel": TLS_OPTIONS | SENTINEL_OPTIONS,
    "cluster": TLS_OPTIONS,
}
"""What may follow `?`, by kind. Anything else would change how the store talks to Redis."""

FORMS = (
    "redis://[USER:PASSWORD@]HOST[:PORT][/DB], unix:///PATH,"
    " redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST…]/MASTER[/DB] or"
    " redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST…], with rediss for TLS;"
    " special characters of a password are percent-encoded"
)

_SEVERAL = re.compile(
    r"(?P<base>rediss?)\+(?P<kind>sentinel|cluster)://(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]+)"
    r"(?:/(?P<master>[^/?#]+)?(?:/(?P<db>[0-9]{1,9}))?)?(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class _Several:
    """A URL with several hosts. `first`: the same as redis-py would read it, for its first host alone."""

    kind: str
    hosts: Sequence[tuple[str, int]]
    master: str
    query: str
    first: str


def connect(url: str) -> Masters:
    """A client for a URL of one of the FORMS; nothing is sent yet. Raises ConfigError."""
    try:
        several = _read_several(url)
        kind = several.kind if several else ""
        allowed = URL_OPTIONS[kind]
        query = several.query if several else urlsplit(url).query
        if not set(parse_qs(query, keep_blank_values=True)) <= allowed:
            raise ConfigError(f"redis.url: only {', '.join(sorted(allowed))} may follow `?` of this URL")
        if several is None:
            return _connect_one(url)
        return _connect_sentinel(several, place(url)) if kind == "sentinel" else _connect_cluster(several)
    except (ValueError, TypeError, RedisError, OSError):
        # Not the cause's own text: of a password with a stray `/` or `@` it shows a part.
        raise ConfigError(f"redis.url: {FORMS}") from None


def connect_socket(path: Path) -> OneMaster:
    """A client for a Unix socket; nothing is sent yet."""
    pool = BlockingConnectionPool(
        connection_class=writing(UnixDomainSocketConnection), path=str(path), **_pool_options()
    )
    return OneMaster(Redis.from_pool(pool), f"at {path}")


def place(url: str) -> str:
    """Where a URL leads, as it may stand in a log: without user, password and options."""
    several = _read_several(url)
    if several is not None:
        hosts = ",".join(host_port(*each) for each in several.hosts)
        return f"at {several.master} of Sentinel {hosts}" if several.kind == "sentinel" else f"at {hosts}"
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"at {parts.path}"
    return f"at {host_port(parts.hostname or 'localhost', parts.port or 6379)}"


def is_local(url: str) -> bool:
    """Whether it is one server on this machine."""
    if _read_several(url) is not None:
        return False
    parts = urlsplit(url)
    return parts.scheme == "unix" or parts.hostname in ("127.0.0.1", "::1", "localhost")


def host_port(host: str, port: int) -> str:
    """Both together, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read_several(url: str) -> _Several | None:
    """A URL of a Sentinel or a Cluster; None for any other scheme. Raises ValueError."""
    if "+" not in url.partition("://")[0]:
        return None
    match = _SEVERAL.fullmatch(url)
    if match is None:
        raise ValueError("neither Sentinel nor Cluster")
    kind, master, database = match["kind"], unquote(match["master"] or ""), match["db"]
    if (kind == "sentinel") != bool(master) or (kind == "cluster" and database):
        raise ValueError("a Sentinel needs a master's name, and a Cluster has neither that nor databases")
    texts = match["hosts"].split(",")
    hosts = []
    for text in texts:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.port == 0 or text.endswith(":"):
            raise ValueError("it leads nowhere")
        hosts.append((parts.hostname, parts.port or _DEFAULT_PORTS[kind]))
    query = match["query"] or ""
    first = f"{match['base']}://{match['user'] or ''}{texts[0]}/{database or 0}?{query}"
    return _Several(kind, hosts, master, query, first)


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


def _connect_one(url: str) -> OneMaster:
    parts = urlsplit(url)
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("it leads nowhere")
    pool = BlockingConnectionPool.from_url(url, **_pool_options())
    pool.connection_class = writing(pool.connection_class)
    pool.connection_class(**pool.connection_kwargs)  # reads all options, without connecting
    return OneMaster(Redis.from_pool(pool), place(url))


def _connect_sentinel(several: _Several, where: str) -> OneMaster:
    found: dict[str, Any] = {**parse_url(several.first)}
    tls = found.pop("connection_class", None) is SSLConnection
    del found["host"]
    found.pop("port", None)
    own = {name: found.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    asked = {
        **{name: value for name, value in found.items() if name in TLS_OPTIONS},
        **own,
        "ssl": tls,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
    }
    options = _pool_options() | found
    return connect_sentinel(
        several.hosts, several.master, where, tls=tls, options=options, sentinel_options=asked
    )


def _connect_cluster(several: _Several) -> ClusterMasters:
    found: dict[str, Any] = {**parse_url(several.first)}
    options = _pool_options() | found
    options["connection_class"] = writing(options.get("connection_class", Connection))

    def connect_node(host: str, port: int) -> OneMaster:
        pool = BlockingConnectionPool(**options | {"host": host, "port": port})
        pool.connection_class(**pool.connection_kwargs)  # reads all options, without connecting
        return OneMaster(Redis.from_pool(pool), f"at {host_port(host, port)}")

    connect_node(*several.hosts[0])
    return ClusterMasters(several.hosts, connect_node)
