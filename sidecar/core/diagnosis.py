"""What `sidecar doctor` makes of what it saw: facts to findings (docs/doctor.md).

The rules about LND are in diagnosis_lnd, those about the running server in diagnosis_server.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is. INFO: it can't be seen from here, and is nothing to complain of."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: which check it is (a slug), what was seen, and what to do about it."""

    name: str
    level: Level
    seen: str
    advice: str = ""


def ok(name: str, seen: str) -> Finding:
    """All is well."""
    return Finding(name, Level.OK, seen)


def info(name: str, seen: str, advice: str = "") -> Finding:
    """Nothing is known to be wrong; `advice` says how to look."""
    return Finding(name, Level.INFO, seen, advice)


def warning(name: str, seen: str, advice: str) -> Finding:
    """It works, and not as well as it could, or not for long."""
    return Finding(name, Level.WARNING, seen, advice)


def failure(name: str, seen: str, advice: str) -> Finding:
    """The sidecar can't do its work like this."""
    return Finding(name, Level.FAILURE, seen, advice)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of all: OK, WARNING or FAILURE."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.FAILURE, Level.WARNING) if level in levels), Level.OK)


# --- the machine ----------------------------------------------------------------------------------

DISK_LOW, DISK_FULL = 1 << 30, 100 << 20
"""Free bytes below which there is a warning, and a failure."""

CLOCK_BEHIND_BLOCK = 7_200
"""Seconds that a block may be ahead of the right time: no node takes it with more."""

CLOCK_SLACK = 600
"""Seconds that an honest miner's block may be ahead, as far as is seen."""

BLOCK_OLD = 7_200
"""Seconds without a block after which something is wrong: once in 160,000 blocks it is chance."""

REDIS_SKEW = 2.0
"""Seconds that Redis's clock may be off."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file that must be readable, and by whom else it is. `error` is why it can't be read."""

    what: str
    path: str
    error: str | None = None
    others_read: bool = False


def files(facts: Sequence[FileFact]) -> list[Finding]:
    """Secrets that can't be read, or that everybody on this machine can."""
    name = "files"
    found = [
        failure(
            name,
            f"{fact.what} {fact.path} can't be read ({fact.error})",
            "name the right file in the settings, or let this user read it (chown, chmod)",
        )
        for fact in facts
        if fact.error is not None
    ]
    found += [
        warning(name, f"{fact.what} {fact.path} can be read by every user", f"run `chmod o-rwx {fact.path}`")
        for fact in facts
        if fact.error is None and fact.others_read
    ]
    count = f"{len(facts)} file{'' if len(facts) == 1 else 's'}"
    return found or [ok(name, f"secrets are readable, and not by everybody: {count}")]


@dataclass(frozen=True, slots=True)
class DirectoryFact:
    """The data directory. `error` is why it can't be used."""

    path: str
    there: bool
    error: str | None = None
    others_enter: bool = False


def directory(fact: DirectoryFact) -> Finding:
    """Whether the data directory can be used, and by its owner alone."""
    name = "datadir"
    if fact.error is not None:
        advice = "run this as the user that runs `sidecar serve`, or set --datadir"
        return failure(name, f"{fact.path} can't be used ({fact.error})", advice)
    if not fact.there:
        return info(name, f"{fact.path} is not there yet: `sidecar serve` makes it")
    if fact.others_enter:
        return warning(name, f"every user may look into {fact.path}", f"run `chmod 700 {fact.path}`")
    return ok(name, f"{fact.path}, for its owner")


def disk(what: str, free: int) -> Finding:
    """Room for what Redis writes; `free` in bytes."""
    seen = f"{size(free)} free for {what}"
    advice = "make room there: when it is full, Redis refuses each invoice and message"
    if free < DISK_FULL:
        return failure("disk", seen, advice)
    return warning("disk", seen, advice) if free < DISK_LOW else ok("disk", seen)


def size(count: int) -> str:
    """Bytes in the unit that a person would use."""
    for unit, one in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} bytes"


def clock_by_block(block_time: int, now: float) -> Finding:
    """The machine's clock against LND's best block; both in seconds since the epoch."""
    name = "clock"
    ahead = block_time - now
    set_it = "let NTP set this machine's clock (`timedatectl set-ntp true`)"
    if ahead > CLOCK_BEHIND_BLOCK:
        return failure(name, f"this clock is {lasting(ahead)} behind LND's best block", set_it)
    if ahead > CLOCK_SLACK:
        return warning(name, f"this clock is {lasting(ahead)} behind LND's best block", set_it)
    if -ahead > BLOCK_OLD:
        return warning(
            name,
            f"LND's best block is {lasting(-ahead)} old",
            f"look whether LND's chain backend is synced, or {set_it}",
        )
    return ok(name, "agrees with LND's best block")


def clock_by_redis(ahead: float) -> Finding:
    """The machine's clock against Redis's, which is `ahead` seconds ahead."""
    name = "clock.redis"
    if abs(ahead) > REDIS_SKEW:
        which = "ahead of" if ahead > 0 else "behind"
        return warning(
            name,
            f"Redis's clock is {lasting(abs(ahead))} {which} this one",
            "let NTP set the clocks of both machines: invoices would leave the store too early or too late",
        )
    return ok(name, "agrees with Redis's")


def lasting(seconds: float) -> str:
    """A length of time in the unit that a person would use."""
    for unit, one in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * one:
            return f"{seconds / one:.0f} {unit}"
    return f"{seconds:.0f} seconds"


# --- the way to push services -----------------------------------------------------------------------

EGRESS_ADVICE = {
    "no-such-host": "let this machine resolve names: look at /etc/resolv.conf and the firewall (port 53)",
    "address-refused": "it is not public: for a push service of your own set lsps5.private_networks",
    "port-refused": "add the port to lsps5.ports",
    "connect": "let the firewall pass connections from this machine to it",
    "timeout": "let the firewall pass connections from this machine to it",
    "certificate": "install the system's CA certificates (ca-certificates), or name your own in lsps5.cafile",
    "tls": "what listens there speaks no TLS: look at the port, and for a proxy between",
}
"""What to do about each way in which a connection to a push service can fail, by slug."""


def egress(host: str, slug: str | None) -> Finding:
    """A connection by TLS to a host that the operator named; `slug` says why there was none."""
    if slug is None:
        return ok("egress", f"{host} answers, with a good certificate")
    return failure("egress", f"no TLS connection to {host}: {slug}", EGRESS_ADVICE[slug])


# --- Redis ----------------------------------------------------------------------------------------

MEMORY_HIGH, MEMORY_FULL = 80, 95
"""Per cent of the memory that Redis may have."""


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a running Redis says of itself.

    `judgement` is how it is called, or why it is refused; `refused` tells which. Bytes for memory.
    `replicas` follow in all, and `replicas_least` that master of a Cluster that has fewest; a change must
    have reached `replicas_wanted`.
    """

    judgement: str
    refused: bool
    used_memory: int = 0
    max_memory: int = 0
    machine_memory: int = 0
    aof_write_failed: bool = False
    aof_rewrite_failed: bool = False
    snapshot_failed: bool = False
    replicas: int = 0
    replicas_least: int = 0
    replicas_wanted: int = 0
    ahead: float = 0.0


def redis(facts: RedisFacts) -> list[Finding]:
    """What Redis is, what it can hold, and whether it writes."""
    if facts.refused:
        seen, _, advice = facts.judgement.partition(": ")
        return [failure("redis", seen, advice or "see redis.url in the settings")]
    replicas = f", {facts.replicas} replicas" if facts.replicas else ""
    return [
        ok("redis", facts.judgement + replicas),
        *_replicas(facts),
        _memory(facts),
        _persistence(facts),
        clock_by_redis(facts.ahead),
    ]


def _replicas(facts: RedisFacts) -> list[Finding]:
    name, there, wanted = "redis.replicas", facts.replicas_least, facts.replicas_wanted
    if not wanted:
        return []
    if there < wanted:
        advice = "start them and look at their logs (`INFO replication`), or lower redis.replicas"
        return [
            failure(name, f"{there} of the {wanted} that must have each change follow: none is taken", advice)
        ]
    return [ok(name, f"{there} follow, {wanted} must have each change")]


def _memory(facts: RedisFacts) -> Finding:
    name = "redis.memory"
    bound = facts.max_memory or facts.machine_memory
    if not bound:
        return ok(name, f"{size(facts.used_memory)} used")
    share = 100 * facts.used_memory // bound
    of = "maxmemory" if facts.max_memory else "the machine's memory"
    seen = f"{size(facts.used_memory)} used, {share} % of {of}"
    if share < MEMORY_HIGH:
        return ok(name, seen)
    advice = (
        "raise it: `CONFIG SET maxmemory SIZE`, and in redis.conf too"
        if facts.max_memory
        else "give the machine more memory, or lower client.bytes and mailbox.total_bytes"
    )
    return failure(name, seen, advice) if share >= MEMORY_FULL else warning(name, seen, advice)


def _persistence(facts: RedisFacts) -> Finding:
    name = "redis.persistence"
    look = "look at Redis's log and at the disk that its `dir` is on (`CONFIG GET dir`)"
    if facts.aof_write_failed:
        return failure(name, "the last write to the append-only file failed: changes are refused", look)
    if facts.snapshot_failed:
        # With stop-writes-on-bgsave-error, which is on by default, it refuses changes from then on.
        advice = f'{look}; or run `CONFIG SET save ""`: the append-only file is enough'
        return failure(name, "the last snapshot (RDB) failed: changes may be refused", advice)
    if facts.aof_rewrite_failed:
        return warning(name, "the last rewrite of the append-only file failed: it grows without end", look)
    return ok(name, "the last writes went well")
