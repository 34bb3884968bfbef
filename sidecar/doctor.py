"""What a doctor does: look at everything side by side, each within its time, and judge it.

A look that fails is a finding like any other. `sidecar doctor` does it in a process of its own, and the
server does it when it is asked to look at itself.
"""

import asyncio
import re
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from sidecar import __version__, parsing
from sidecar.adapters import doctor_lnd, doctor_machine, doctor_redis
from sidecar.adapters.admin_client import AdminClient
from sidecar.adapters.doctor_lnd import LndFacts
from sidecar.adapters.doctor_machine import in_background
from sidecar.adapters.guard import DialRules
from sidecar.adapters.redis_connect import place
from sidecar.adapters.redis_embedded import server_executable
from sidecar.config import CONFIG_FILE, Settings
from sidecar.core import bolt12, diagnosis, diagnosis_lnd, diagnosis_server
from sidecar.core.diagnosis import Finding, RedisFacts, failure, info
from sidecar.core.diagnosis_lnd import Line
from sidecar.core.diagnosis_server import Answer, ServerFacts
from sidecar.core.errors import (
    AdminDenied,
    ConfigError,
    OperatorError,
    ServerNotRunning,
    SidecarError,
    StoreSetupError,
    StoreUnavailable,
)
from sidecar.core.webhooks import printable

T = TypeVar("T")

DEADLINE = 5.0
"""Seconds that one look may take."""

WHOLE = 25.0
"""Seconds within which a server looks at itself, those included in which it looks for others."""

MOST_CLIENTS = 200
"""Clients whose webhooks are looked at."""

_host = parsing.endpoint(443)


async def examine(
    settings: Settings,
    egress: tuple[str, int] | None = None,
    *,
    version: str | None = __version__,
    deadline: float = DEADLINE,
    now: Callable[[], float] = time.time,
) -> list[Finding]:
    """All findings, in the order in which they are shown; `egress` is a host and port to connect to.

    The running server should be of `version`; None: it is the one that looks. `deadline` in seconds, `now`
    gives seconds since the epoch. It raises nothing that is not a bug here.
    """
    lnd, server, redis, machine, way_out = await asyncio.gather(
        # Twice: first how it is reached, then what it is.
        _look("lnd", _lnd(settings, deadline), 2 * deadline + 1),
        _look("server", in_background(lambda: _ask_server(settings, now())), deadline),
        _look("redis", _redis(settings, now), deadline),
        _look("datadir", in_background(lambda: _machine(settings)), deadline),
        _look("egress", _egress(settings, egress, deadline), deadline + 1),
    )
    if isinstance(server, Finding):
        server = ServerFacts(Answer.SILENT, f"it does not answer ({server.seen})")
    return [
        *(machine if isinstance(machine, list) else [machine]),
        *([lnd] if isinstance(lnd, Finding) else _judge_lnd(lnd, settings, server, now())),
        *([redis] if isinstance(redis, Finding) else _judge_redis(redis, settings, server)),
        *diagnosis_server.server(server, version),
        *([way_out] if isinstance(way_out, Finding) else []),
    ]


async def _look(name: str, gathering: Awaitable[T], deadline: float) -> T | Finding:
    """What a look brought, or the finding that it failed."""
    try:
        async with asyncio.timeout(deadline):
            return await gathering
    except TimeoutError:
        return failure(name, f"no answer within {deadline:g} s", "look whether it is up, and at its log")
    except ConfigError as error:
        return failure(name, str(error), "change that setting")
    except SidecarError as error:
        seen, _, advice = str(error).partition(": ")
        return failure(name, seen, advice or "see its log")
    except Exception as error:  # noqa: BLE001 - what breaks here must not hide what else is found
        # Not the error's own text: who knows what it holds.
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return failure(name, f"this look broke: {type(error).__name__} at {where}", "please report it")


# --- the machine ------------------------------------------------------------------------------------


def _machine(settings: Settings) -> list[Finding]:
    found = diagnosis.files(doctor_machine.look_at(_secrets(settings)))
    directory = doctor_machine.look_into(settings.datadir)
    found.append(diagnosis.directory(directory))
    if _is_embedded(settings) and directory.error is None:
        free = doctor_machine.free_space(settings.datadir)
        found.append(diagnosis.disk("the embedded Redis, in the data directory", free))
    return found


def _secrets(settings: Settings) -> list[tuple[str, Path]]:
    """The files that hold secrets, each with what it is."""
    admin = settings.admin
    own = settings.datadir / CONFIG_FILE
    # Not urlsplit: it knows nothing of several hosts.
    with_password = re.search(r"://[^/?#]*:[^/?#]*@|[?&]sentinel_password=", settings.redis.url or "")
    files = [
        ("the macaroon", settings.lnd.macaroonpath),
        ("redis.urlfile", settings.redis.urlfile),
        ("redis.passwordfile", settings.redis.passwordfile),
        ("admin.tlskey", admin.tlskey),
        ("admin.tokenfile", admin.tokenfile),
        ("with a Redis password,", own if with_password and own.exists() else None),
    ]
    return [(what, path) for what, path in files if path is not None]


async def _egress(settings: Settings, wanted: tuple[str, int] | None, deadline: float) -> Finding | None:
    if wanted is None:
        return None
    lsps5 = settings.lsps5
    rules = DialRules(lsps5.private_networks, lsps5.ports)
    try:
        async with asyncio.timeout(deadline):
            slug = await doctor_machine.reach(*wanted, rules, lsps5.cafile)
    except TimeoutError:
        slug = "timeout"
    return diagnosis.egress(f"{wanted[0]}:{wanted[1]}", slug)


# --- LND --------------------------------------------------------------------------------------------


async def _lnd(settings: Settings, deadline: float) -> LndFacts:
    lnd = settings.lnd
    return await doctor_lnd.examine(lnd.host, lnd.tlspath, lnd.macaroonpath, deadline)


def _judge_lnd(facts: LndFacts, settings: Settings, server: ServerFacts, now: float) -> list[Finding]:
    found = diagnosis_lnd.reach(facts.reach, now)
    if facts.reach.line is Line.REFUSED:
        found += diagnosis_lnd.left_over(facts.conf)
    if facts.macaroon is not None:
        found += diagnosis_lnd.macaroon(facts.macaroon)
    if facts.node is not None:
        found += diagnosis_lnd.node(facts.node, settings.network, tuple(bolt12.CHAINS))
        found += diagnosis_lnd.by_hand(facts.node, facts.conf, server.counters.get("received", 0))
    if facts.peers is not None:
        found += diagnosis_lnd.peers(facts.peers)
    if facts.node is not None and facts.node.best_block:
        found.append(diagnosis.clock_by_block(facts.node.best_block, now))
    return found


# --- Redis ------------------------------------------------------------------------------------------


async def _redis(settings: Settings, now: Callable[[], float]) -> tuple[RedisFacts, int | None] | str:
    """What Redis says and the free bytes of its disk; or why it can't be asked."""
    url = settings.redis.read_url()
    socket = None if url is not None else doctor_redis.embedded_socket(settings.datadir)
    if url is None and socket is None:
        return "the embedded one is not running"
    try:
        facts, directory = await doctor_redis.examine(
            url, socket, settings.redis.durability, now, replicas=settings.redis.replicas
        )
    except StoreUnavailable as error:
        if url is None:
            return "the embedded one is not running"
        return f"Redis {place(url)} does not answer ({str(error).removeprefix('Redis: ')})"
    if url is None or directory is None:
        return facts, None
    try:
        return facts, await in_background(lambda: doctor_machine.free_space(directory))
    except OSError:
        return facts, None


def _is_embedded(settings: Settings) -> bool:
    return settings.redis.url is None and settings.redis.urlfile is None


def _judge_redis(
    found: tuple[RedisFacts, int | None] | str, settings: Settings, server: ServerFacts
) -> list[Finding]:
    if not isinstance(found, str):
        facts, free = found
        disk = [] if free is None else [diagnosis.disk("Redis, in its `dir`", free)]
        return [*diagnosis.redis(facts), *disk]
    if not _is_embedded(settings):
        advice = "start it, or set redis.url to where it is; the sidecar waits for it"
        return [failure("redis", found, advice)]
    if server.answer is Answer.RUNNING:
        log = settings.datadir / "redis" / "redis.log"
        return [failure("redis", f"{found}, though the server runs", f"see {log}")]
    try:
        server_executable()
    except StoreSetupError as error:
        seen, _, advice = str(error).partition(": ")
        return [failure("redis", seen, advice)]
    return [info("redis", f"{found}: it is started by `sidecar serve`")]


# --- the running server -----------------------------------------------------------------------------


def _ask_server(settings: Settings, now: float) -> ServerFacts:
    """What the running server of the data directory tells; it blocks."""

    def untold(answer: Answer, error: OperatorError) -> ServerFacts:
        if isinstance(error, ConfigError):
            return ServerFacts(answer, str(error), "change that setting")
        seen, _, advice = str(error).partition(": ")
        return ServerFacts(answer, seen, advice)

    try:
        with AdminClient(settings.datadir) as server:
            status = server.status()
            clients = [each.client_id for each in server.clients().clients if each.node_id]
            answers = [server.webhooks(client) for client in clients[:MOST_CLIENTS]]
    except ServerNotRunning as error:
        return untold(Answer.ABSENT, error)
    except (AdminDenied, ConfigError) as error:
        return untold(Answer.DENIED, error)
    except OperatorError as error:
        return ServerFacts(Answer.SILENT, str(error))
    webhooks = [webhook for answer in answers for webhook in answer.webhooks]
    outcomes: Counter[str] = Counter()
    for answer in answers:
        there = {webhook.app_name for webhook in answer.webhooks}
        # The newest come first: the last one put in is the oldest, so turn them round.
        last = {each.app_name: each.outcome for each in reversed(answer.deliveries)}
        outcomes.update(outcome for app, outcome in last.items() if app in there)
    return ServerFacts(
        Answer.RUNNING,
        version=status.version,
        role=status.role,
        leader=printable(status.leader),
        stream_up=status.stream_up,
        queued=status.queued,
        counters=dict(status.counters),
        webhooks=len(webhooks),
        resting=sum(webhook.paused_until > now for webhook in webhooks),
        outcomes=outcomes,
    )


# --- a server's own ---------------------------------------------------------------------------------


class SelfLook:
    """A server's look at what it stands on, as its own settings say. One at a time, others wait."""

    def __init__(self, settings: Settings, whole: float = WHOLE) -> None:
        """`whole`: seconds in which a caller has its findings, or hears that there was no time for them."""
        self._settings = settings
        self._whole = whole
        self._looking = asyncio.Lock()

    async def findings(self, egress: str) -> list[Finding]:
        """All that is found; `egress` is HOST[:PORT], or empty. Raises ConfigError for what is no host."""
        try:
            host = _host(egress) if egress else None
        except ValueError as error:
            raise ConfigError(f"egress: {egress!r} is not allowed: give {error}") from None
        try:
            async with asyncio.timeout(self._whole), self._looking:
                return await examine(self._settings, host, version=None)
        except TimeoutError:
            seen = "it has had no time to look at itself: others asked for that before"
            return [failure("server", seen, "ask again in a minute")]
