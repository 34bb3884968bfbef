"""What `sidecar doctor` makes of the running server: what it says of itself, and what it counted."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from sidecar.core.diagnosis import Finding, failure, info, ok, warning
from sidecar.core.model import Role

QUEUE_HIGH = 500
"""Onion messages in the queue above which they come faster than they are handled; it holds 1,000."""


class Answer(Enum):
    """How the server's admin socket was met."""

    RUNNING = "running"
    ABSENT = "absent"
    DENIED = "denied"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the running server told. `text` says why it told nothing, `advice` what to do about that.

    `role` is the value of a model.Role, or empty of an older server; `leader` the name of the one that leads,
    empty while it is not known. `outcomes` counts what became of each webhook's last notification, by slug;
    `resting` the webhooks that failed so often that they are let be for now.
    """

    answer: Answer
    text: str = ""
    advice: str = ""
    version: str = ""
    role: str = ""
    leader: str = ""
    stream_up: bool = False
    queued: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    webhooks: int = 0
    resting: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)


def server(facts: ServerFacts, own_version: str | None) -> list[Finding]:
    """All lines about the running server; `own_version` is this command's, None where it looks at itself."""
    if facts.answer is Answer.ABSENT:
        return [warning("server", "not running", "start it with `sidecar serve`, or name its --datadir")]
    if facts.answer is not Answer.RUNNING:
        return [failure("server", facts.text, facts.advice or "look at its log, and restart it")]
    about = [] if own_version is None else [_version(facts.version, own_version)]
    return [*about, *_role(facts), _stream(facts), *_losses(facts), webhooks(facts)]


def _version(running: str, own: str) -> Finding:
    if running != own:
        return warning(
            "server",
            f"running, version {running}; this command is {own}",
            "restart the server, so that it is the version that is installed",
        )
    return ok("server", f"running, version {own}")


# --- one that is elsewhere, and looks at itself -----------------------------------------------------


def elsewhere(place: str, version: str, own_version: str) -> Finding:
    """A server at `place` (host:port) that has told its findings: they follow this line."""
    seen = f"{place} (admin.address) answers, version {version}"
    if version != own_version:
        advice = "let both be of the same version: what either does not know is not looked at"
        return warning("server", f"{seen}; this command is {own_version}", advice)
    return ok("server", f"{seen}; what follows is what it sees")


def too_old(place: str, version: str, own_version: str) -> Finding:
    """A server that is there, and can't look at itself."""
    return failure(
        "server",
        f"{place} (admin.address) is of version {version}, which can't look at itself; "
        f"this command is {own_version}",
        "upgrade that server, or run `sidecar doctor` without admin.address on its machine",
    )


def unreached(place: str, text: str, advice: str) -> Finding:
    """A server that could not be asked. It can't be told from here whether it is down, or out of reach."""
    seen = text if place in text else f"{place}: {text}"
    return failure("server", seen, advice or _UNREACHED)


_UNREACHED = "look whether it runs with admin.listen and whether a firewall is in between, and at its log"


# --- what it does -----------------------------------------------------------------------------------


def _role(facts: ServerFacts) -> list[Finding]:
    name = "server.role"
    if not facts.role:
        return []
    if facts.role == Role.LEADS.value:
        return [ok(name, f"it leads, as {facts.leader}" if facts.leader else "it leads")]
    if facts.leader:
        return [ok(name, f"it stands by: {facts.leader} leads, and takes changes")]
    return [
        warning(
            name,
            "it stands by, and knows of no other that leads",
            "one leads once LND streams to it and Redis keeps its changes: see the lines about both here",
        )
    ]


def _stream(facts: ServerFacts) -> Finding:
    name = "server.stream"
    if not facts.stream_up:
        return failure(
            name,
            "LND streams no onion messages to it",
            "see the lines about LND here, and the server's log",
        )
    if facts.queued > QUEUE_HIGH:
        return warning(
            name,
            f"{facts.queued} onion messages wait to be handled",
            "they come faster than Redis and LND take them: see `sidecar top`; at 1000 they are lost",
        )
    return ok(name, "onion messages arrive")


_RESTART = "look at the server's log, and report it"
_STORE = "see the lines about Redis here"
_LND = "see the lines about LND here"
_LOSSES: Mapping[str, str] = {
    "queue-full": "they came faster than Redis and LND take them: see `sidecar top`",
    "store-unavailable": _STORE,
    "lnd-unavailable": _LND,
    "timeout": f"{_STORE}, and those about LND",
    "memory-full": f"Redis was away for long: {_STORE}",
    "mailbox-full": "raise mailbox.letters, mailbox.bytes or mailbox.total_bytes",
    "pushed-out": "raise mailbox.letters or mailbox.bytes",
    "internal-error": _RESTART,
}
"""What to do about messages that were lost without a fault of their sender, by reason."""

_LOST_AT = ("dropped.", "mail.dropped.")


def _losses(facts: ServerFacts) -> list[Finding]:
    lost: Counter[str] = Counter()
    for slug, count in facts.counters.items():
        for start in _LOST_AT:
            if slug.startswith(start) and (reason := slug.removeprefix(start)) in _LOSSES:
                lost[reason] += count
    found = [
        warning("server.losses", f"{reason}: {count} messages lost since its start", _LOSSES[reason])
        for reason, count in sorted(lost.items())
        if count
    ]
    return found or [ok("server.losses", "no message was lost since its start, as far as it knows")]


# --- webhooks -------------------------------------------------------------------------------------

_HOOKS: Mapping[str, str] = {
    "no-such-host": "their names are not found: try `sidecar doctor --egress HOST`, or the app has moved",
    "connect": "let the firewall pass HTTPS to the Internet: try `sidecar doctor --egress HOST`",
    "timeout": "let the firewall pass HTTPS to the Internet: try `sidecar doctor --egress HOST`",
    "certificate": "their certificates are bad, or this machine lacks CAs: set lsps5.cafile for your own",
    "tls": "what listens there speaks no TLS: look for a proxy between",
    "reset": "they hang up: look for a proxy or firewall between",
    "address-refused": "they are not public: for a push service of your own set lsps5.private_networks",
    "bad-url": "have the wallet register another URL, or run `sidecar webhook add`",
    "bad-answer": "what answers there speaks no HTTP",
    "status-3xx": "redirects are not followed: have the wallet register where they lead",
    "status-4xx": "the push service refuses them: have the app's maker look, or the wallet registers anew",
    "status-5xx": "the push service is broken for now: have the app's maker look",
    "signer-away": "LND did not sign them: see the lines about LND here",
}
_OTHER = "see `sidecar webhook list CLIENT`, and try `sidecar webhook test CLIENT`"


def grouped(slug: str) -> str:
    """A slug with one word for all statuses of a kind."""
    return f"{slug[:8]}xx" if slug.startswith("status-") else slug


def webhooks(facts: ServerFacts) -> Finding:
    """What became of notifications: the last of each webhook, and all that were counted."""
    name = "webhooks"
    outcomes: Counter[str] = Counter()
    for slug, count in facts.outcomes.items():
        outcomes[grouped(slug)] += count
    bad = {slug: count for slug, count in outcomes.items() if slug != "ok"}
    if bad:
        slugs = sorted(bad, key=lambda slug: (-bad[slug], slug))
        said = ", ".join(f"{slug} ({bad[slug]})" for slug in slugs)
        resting = f"; {facts.resting} rest for an hour" if facts.resting else ""
        advice = f"{slugs[0]}: {_HOOKS.get(slugs[0], _OTHER)}"
        return warning(name, f"last notifications that did not arrive: {said}{resting}", advice)
    start = "wake.failed."
    failed = {slug.removeprefix(start): n for slug, n in facts.counters.items() if slug.startswith(start)}
    if failed and not outcomes:
        slug = max(failed, key=lambda each: failed[each])
        seen = f"{sum(failed.values())} notifications since the start did not arrive, most for: {slug}"
        return warning(name, seen, _HOOKS.get(slug, _OTHER))
    if outcomes:
        return ok(name, f"the last notification of {outcomes['ok']} webhooks arrived")
    if facts.webhooks:
        return info(name, f"{facts.webhooks} registered, none was told anything yet", _OTHER)
    return info(name, "none is registered yet: wallets do it by LSPS5, or `sidecar webhook add` does")
