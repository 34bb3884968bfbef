"""Coming to a store: what is refused, why, and what the operator is told to do."""

from pathlib import Path

import pytest
from redis.asyncio.connection import SSLConnection

from sidecar.adapters.redis_connect import connect, place
from sidecar.adapters.redis_masters import OneMaster
from sidecar.adapters.redis_setup import ServerFacts, judge
from sidecar.core.errors import ConfigError, StoreSetupError, StoreUnavailable
from sidecar.core.model import Durability, Usage
from tests.adapters.conftest import SAFE, Open, Server, Servers, cluster_options
from tests.harness.ports import free_port
from tests.harness.store_contract import a_client

SECRET = "s3cret-word"


def url_of(server: Server) -> str:
    """The server's URL."""
    return f"unix://{server.socket}"


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@host",
        f"redis://:{SECRET}/x@host:6379",
        f"redis://:{SECRET}@host:port",
        f"redis://:{SECRET}@host?db=first",
        f"redis://:{SECRET}@host?decode_responses=true",
        f"redis://:{SECRET}@host?protocol=3",
        f"unix://:{SECRET}@",
        "",
        "localhost:6379",
    ],
)
def test_a_url_that_can_not_be_used_is_a_config_error(url: str) -> None:
    """Wrong scheme, port or option: one clear line, and never the password in it."""
    with pytest.raises(ConfigError, match=r"redis\.url") as refusal:
        connect(url)
    assert SECRET not in str(refusal.value)
    assert SECRET not in str(refusal.value.__cause__)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        (f"redis://u:{SECRET}@host", "at host:6379"),
        (f"rediss://:{SECRET}@host:7000/2", "at host:7000"),
        ("redis://[::1]:7000", "at [::1]:7000"),
        (f"unix://:{SECRET}@/run/redis.sock?db=1", "at /run/redis.sock"),
    ],
)
def test_a_place_says_where_and_no_more(url: str, where: str) -> None:
    """Logs name a Redis without user, password and options."""
    connect(url)
    assert place(url) == where


def test_rediss_means_tls() -> None:
    """Over rediss:// nothing goes in the clear."""
    one = connect("rediss://host")
    assert isinstance(one, OneMaster)
    assert issubclass(one.redis.connection_pool.connection_class, SSLConnection)


# --- what is safe ---------------------------------------------------------------------------------


def facts(**changes: object) -> ServerFacts:
    """A safe 6.2 server, but for `changes`."""
    known: dict[str, object] = {
        "name": "redis",
        "version": "6.2.14",
        "role": "master",
        "cluster": False,
        "aof": True,
        "appendfsync": "always",
        "skips_fsync_on_rewrite": False,
        "eviction": "noeviction",
    }
    return ServerFacts(**(known | changes))  # type: ignore[arg-type]


SAFE_ENOUGH = [
    ({}, "strict", "redis 6.2.14 at here (AOF always)", False),
    ({"version": "7.2.0"}, "strict", "redis 7.2.0 at here (AOF always)", True),
    (
        {"version": "8.2.3", "appendfsync": "everysec"},
        "strict",
        "redis 8.2.3 at here (AOF everysec, WAITAOF)",
        True,
    ),
    ({"version": "8.2.3", "appendfsync": None}, "strict", "redis 8.2.3 at here (AOF, WAITAOF)", True),
    ({"version": "10.0.1", "name": "valkey"}, "strict", "valkey 10.0.1 at here (AOF always)", True),
    (
        {"appendfsync": "everysec"},
        "everysec",
        "redis 6.2.14 at here (AOF everysec, durability everysec)",
        False,
    ),
    ({"version": "8.2.3"}, "everysec", "redis 8.2.3 at here (AOF always, durability everysec)", False),
    ({"aof": False}, "none", "redis 6.2.14 at here (no AOF, durability none)", False),
    ({"eviction": "allkeys-lru"}, "none", "redis 6.2.14 at here (AOF always, durability none)", False),
]


@pytest.mark.parametrize(("changes", "durability", "description", "waitaof"), SAFE_ENOUGH)
def test_a_server_that_keeps_what_was_asked_is_taken(
    changes: dict[str, object], durability: str, description: str, *, waitaof: bool
) -> None:
    """Strict changes wait for WAITAOF wherever there is one; the ready line says how they are kept."""
    report = judge(facts(**changes), Durability(durability), "at here")
    assert (report.description, report.waitaof) == (description, waitaof)


TOO_WEAK = [
    ({"appendfsync": "everysec"}, "strict", "CONFIG SET appendfsync always.*--redis.durability everysec"),
    ({"appendfsync": "no"}, "strict", "CONFIG SET appendfsync always"),
    ({"version": "7.0.15", "appendfsync": "everysec"}, "strict", "CONFIG SET appendfsync always"),
    ({"version": "8.2.3", "appendfsync": "no"}, "strict", "CONFIG SET appendfsync always"),
    ({"appendfsync": None, "skips_fsync_on_rewrite": None}, "strict", "CONFIG GET"),
    ({"skips_fsync_on_rewrite": True}, "strict", "CONFIG SET no-appendfsync-on-rewrite no"),
    ({"aof": False}, "strict", "CONFIG SET appendonly yes.*--redis.durability none"),
    ({"aof": False}, "everysec", "CONFIG SET appendonly yes.*--redis.durability none"),
    (
        {"eviction": "allkeys-lru"},
        "strict",
        "CONFIG SET maxmemory-policy noeviction.*--redis.durability none",
    ),
    ({"eviction": "volatile-ttl"}, "everysec", "CONFIG SET maxmemory-policy noeviction"),
    ({"version": "6.0.16"}, "none", "too old"),
    ({"version": "5.0.9"}, "none", "too old"),
    ({"role": "slave"}, "none", "primary"),
    ({"cluster": True}, "none", "Cluster"),
]


@pytest.mark.parametrize(("changes", "durability", "advice"), TOO_WEAK)
def test_a_server_that_would_lose_invoices_is_refused(
    changes: dict[str, object], durability: str, advice: str
) -> None:
    """The refusal says what to set, or what to accept by name."""
    with pytest.raises(StoreSetupError, match=advice):
        judge(facts(**changes), Durability(durability), "at here")


@pytest.mark.parametrize(
    ("kind", "options", "durability", "outcome"),
    [
        ("old_redis", SAFE, "strict", "(AOF always)"),
        ("new_redis", SAFE, "strict", "(AOF always)"),
        ("new_redis", ("--appendonly", "yes"), "strict", "(AOF everysec, WAITAOF)"),
        ("old_redis", ("--appendonly", "yes"), "everysec", "(AOF everysec, durability everysec)"),
        ("old_redis", (), "none", "(no AOF, durability none)"),
        ("old_redis", ("--appendonly", "yes"), "strict", StoreSetupError),
        ("old_redis", (), "everysec", StoreSetupError),
        ("new_redis", (), "strict", StoreSetupError),
        ("new_redis", ("--appendonly", "yes", "--appendfsync", "no"), "strict", StoreSetupError),
        ("new_redis", (*SAFE, "--maxmemory-policy", "volatile-lru"), "everysec", StoreSetupError),
        ("old_redis", (*SAFE, "--maxmemory-policy", "allkeys-lru"), "strict", StoreSetupError),
        ("old_redis", (*SAFE, "--replicaof", "127.0.0.1", "1"), "strict", StoreSetupError),
        ("old_redis", (*SAFE, "--maxmemory", "1"), "strict", StoreSetupError),
    ],
)
async def test_real_servers_are_judged_by_what_they_say(
    *,
    kind: str,
    options: tuple[str, ...],
    durability: str,
    outcome: str | type[StoreSetupError],
    request: pytest.FixtureRequest,
    servers: Servers,
    opened: Open,
) -> None:
    """Of each real server its version, AOF, fsync, eviction, role and mode are read right."""
    server = servers.start(request.getfixturevalue(kind), *options)
    if isinstance(outcome, str):
        store = await opened(url_of(server), durability=durability)
        assert store.description.endswith(f" at {server.socket} {outcome}")
        client = a_client()
        await store.add_client(client)
        assert list(await store.list_clients()) == [(client, Usage(0, 0))]
    else:
        with pytest.raises(outcome, match=r"(?i)redis"):
            await opened(url_of(server), durability=durability)


async def test_a_cluster_node_is_refused(old_redis: Path, servers: Servers, opened: Open) -> None:
    """Of a cluster's keys one node holds a part: most changes would fail."""
    server = servers.start(old_redis, *SAFE, *cluster_options())
    with pytest.raises(StoreSetupError, match="Cluster"):
        await opened(url_of(server))


@pytest.mark.parametrize(
    ("kind", "rights", "outcome"),
    [
        ("new_redis", "+@all -config", "(AOF, WAITAOF)"),
        ("old_redis", "+@all -config", "CONFIG GET"),
        ("new_redis", "+@all -waitaof", "(?i)waitaof"),
        ("old_redis", "+@all -info", "info"),
        ("old_redis", "+@all -set", "can't keep"),
    ],
)
async def test_a_user_with_few_rights_gets_by_or_is_told(
    *, kind: str, rights: str, outcome: str, request: pytest.FixtureRequest, servers: Servers, opened: Open
) -> None:
    """Managed services forbid CONFIG; what can't be known without it must be proved by WAITAOF."""
    server = servers.start(request.getfixturevalue(kind), *SAFE)
    server.command("ACL", "SETUSER", "sidecar", "on", f">{SECRET}", "~*", *rights.split())
    url = f"unix://sidecar:{SECRET}@{server.socket}"
    if outcome.startswith("(AOF"):
        assert (await opened(url)).description.endswith(outcome)
    else:
        with pytest.raises(StoreSetupError, match=outcome):
            await opened(url)


# --- reaching it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", ":wrong@", "nobody:wrong@"])
async def test_a_wrong_password_is_a_set_up_error(
    given: str, old_redis: Path, servers: Servers, opened: Open
) -> None:
    """No password, a wrong one, or a wrong user: the operator must mend it, and is told where."""
    server = servers.start(old_redis, *SAFE, "--protected-mode", "no")
    server.command("CONFIG", "SET", "requirepass", SECRET)
    with pytest.raises(StoreSetupError, match=r"password of redis\.url"):
        await opened(f"unix://{given}{server.socket}")
    store = await opened(f"unix://:{SECRET}@{server.socket}")
    assert SECRET not in store.description


async def test_tcp_works_as_a_socket_does(old_redis: Path, servers: Servers, opened: Open) -> None:
    """redis:// with host, port and database."""
    port = free_port()
    servers.start(old_redis, *SAFE, "--port", str(port))
    store = await opened(f"redis://127.0.0.1:{port}/1")
    assert store.description == f"redis 6.2.14 at 127.0.0.1:{port} (AOF always)"


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1"])
async def test_a_redis_that_is_not_there_is_unavailable(url: str, opened: Open) -> None:
    """At the start too: the app tries again."""
    with pytest.raises(StoreUnavailable):
        await opened(url)


async def test_an_unknown_durability_is_a_config_error(opened: Open) -> None:
    """Only the three names."""
    with pytest.raises(ConfigError, match="strict, everysec or none"):
        await opened(durability="maybe")
