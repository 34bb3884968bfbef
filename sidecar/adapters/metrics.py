"""What Prometheus is shown: the server's counters by family and label, and how it fares now.

docs/monitoring.md lists all of it. Labels hold slugs and names of our own, never who a client is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.adapters.vitals import Census
from sidecar.timings import Timings


@dataclass(frozen=True, slots=True)
class Facts:
    """How the server fares at one moment: as it is by default before it has met LND and Redis.

    `about` says which it is: version, lnd_version, mode, network.
    """

    about: Mapping[str, str]
    counters: Mapping[str, int] = field(default_factory=dict)
    leads: bool = False
    stream_up: bool = False
    redis_up: bool = False
    queued: int = 0
    queue_size: int = 0
    census: Census = field(default_factory=Census)
    mail_letters: int = 0
    mail_bytes: int = 0
    mail_bytes_allowed: int = 0


# --- counters -----------------------------------------------------------------------------------

_OUT = "sidecar_messages_out"
_FAMILIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "sidecar_messages_received": ("Onion messages that LND streamed to us.", ()),
    "sidecar_messages_dropped": ("Messages that were not served, by reason.", ("reason",)),
    _OUT: (
        "Onion messages that went out, were kept for a wallet, lost or not sent, by type.",
        ("type", "outcome", "reason"),
    ),
    "sidecar_invoices_served": ("Static invoices that payers were sent.", ()),
    "sidecar_invoices_stored": ("Static invoices that wallets left.", ()),
    "sidecar_quota_refusals": ("Messages that a client's limit refused, by limit.", ("limit",)),
    "sidecar_mail": ("Letters of all mailboxes, by what became of them.", ("event",)),
    "sidecar_mail_dropped": ("Letters that were not kept, or not any longer, by reason.", ("reason",)),
    "sidecar_mail_undelivered": ("Deliveries of a mailbox that were broken off, by reason.", ("reason",)),
    "sidecar_webhook_sent": ("Notifications that a webhook took, by method.", ("method",)),
    "sidecar_webhook_failed": ("Notifications that no try brought to a webhook, by reason.", ("reason",)),
    "sidecar_webhook_retried": ("Tries that failed and were followed by another, by reason.", ("reason",)),
    "sidecar_webhook_dropped": ("Notifications that were not tried (any more), by reason.", ("reason",)),
    "sidecar_webhook_forgotten": ("Notes on a webhook that Redis did not take.", ()),
    "sidecar_lsps": ("LSPS messages, by what became of them.", ("event",)),
    "sidecar_lsps_refused": ("LSPS requests that were answered with an error, by its code.", ("code",)),
    "sidecar_nodes_bound": ("Wallets whose node was learnt.", ()),
    "sidecar_nodes_unbound": ("Wallets whose node was not learnt, by reason.", ("reason",)),
    "sidecar_other": ("What is counted and has no place above, by slug.", ("slug",)),
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """Slugs that begin with `prefix` go to a family; what follows it are the labels that are not fixed."""

    prefix: str
    family: str
    fixed: Mapping[str, str] = field(default_factory=dict)

    def labels(self, slug: str) -> dict[str, str] | None:
        """The labels of a slug, or None when it is none of this rule's."""
        free = [name for name in _FAMILIES[self.family][1] if name not in self.fixed]
        if not free:
            return dict(self.fixed) if slug == self.prefix else None
        if not slug.startswith(self.prefix):
            return None
        # The last label takes the rest: a method of LSPS5 has a dot in it.
        parts = slug[len(self.prefix) :].split(".", len(free) - 1)
        return dict(zip(free, parts, strict=True)) | dict(self.fixed) if len(parts) == len(free) else None


def _out(outcome: str) -> _Rule:
    return _Rule(f"{outcome}.", _OUT, {"outcome": outcome, "reason": ""})


_RULES = (
    _Rule("received", "sidecar_messages_received"),
    _Rule("dropped.", "sidecar_messages_dropped"),
    *(_out(outcome) for outcome in ("sent", "kept", "lost")),
    _Rule("unsent.", _OUT, {"outcome": "unsent"}),
    # What is for other nodes is a message to us, whatever it holds.
    *(_Rule(it, _OUT, {"type": "message", "outcome": it, "reason": ""}) for it in ("passed", "forwarded")),
    _Rule("stored", "sidecar_invoices_stored"),
    _Rule("refused.", "sidecar_quota_refusals"),
    _Rule("mail.dropped.", "sidecar_mail_dropped"),
    _Rule("mail.undelivered.", "sidecar_mail_undelivered"),
    _Rule("mail.", "sidecar_mail"),
    _Rule("wake.sent.", "sidecar_webhook_sent"),
    _Rule("wake.failed.", "sidecar_webhook_failed"),
    _Rule("wake.retried.", "sidecar_webhook_retried"),
    _Rule("wake.dropped.", "sidecar_webhook_dropped"),
    _Rule("wake.forgotten", "sidecar_webhook_forgotten"),
    _Rule("lsps.refused.", "sidecar_lsps_refused"),
    _Rule("lsps.", "sidecar_lsps"),
    _Rule("bound", "sidecar_nodes_bound"),
    _Rule("unbound.", "sidecar_nodes_unbound"),
    _Rule("", "sidecar_other"),
)

_SERVED = "sent.static_invoice"

_FROM_THE_START = (
    *("received", "stored", "passed", "forwarded", "bound"),
    *(f"sent.{what}" for what in ("offer_paths", "static_invoice", "static_invoice_persisted")),
    *(f"{outcome}.{what}" for outcome in ("sent", "kept", "lost") for what in ("invoice_request", "message")),
    *(
        f"dropped.{reason}"
        for reason in ("queue-full", "rate-limited", "store-unavailable", "lnd-unavailable")
    ),
    *(f"dropped.{reason}" for reason in ("timeout", "internal-error", "bad-context", "client-paused")),
    *(f"dropped.{reason}" for reason in ("not-leading", "replayed", "standby-full")),
    *(f"refused.{limit}" for limit in ("requests", "offer-requests", "stores", "offer-paths")),
    *(f"refused.{limit}" for limit in ("slots", "bytes", "mailbox", "paused")),
    *(f"mail.{event}" for event in ("kept", "sent", "delivered", "arrived", "in-memory")),
    *(f"mail.dropped.{reason}" for reason in ("pushed-out", "memory-full", "mailbox-full")),
    *(f"wake.sent.lsps5.{method}" for method in ("webhook_registered", "onion_message_incoming")),
    *(f"wake.failed.{slug}" for slug in ("timeout", "connect", "certificate", "status-4xx", "status-5xx")),
    *(f"wake.failed.{slug}" for slug in ("no-such-host", "tls", "reset", "bad-answer", "address-refused")),
    *(f"wake.failed.{slug}" for slug in ("bad-url", "store-away", "signer-away", "internal-error")),
    *(f"wake.dropped.{slug}" for slug in ("queue-full", "host-busy", "cooldowns-full", "paused", "stale")),
    *("wake.retried.timeout", "wake.forgotten", "lsps.received", "lsps.answered"),
)
"""Slugs that are shown as 0 before they are counted: rate() sees nothing of a series that begins with 1."""


def _place(slug: str) -> tuple[str, tuple[str, ...]]:
    """The family of a slug and the values of its labels, in the family's order."""
    for rule in _RULES:
        if (labels := rule.labels(slug)) is not None:
            return rule.family, tuple(labels[name] for name in _FAMILIES[rule.family][1])
    raise AssertionError("the last rule takes all")


def _counters(counters: Mapping[str, int]) -> Iterator[Metric]:
    counted = dict.fromkeys(_FROM_THE_START, 0) | dict(counters)
    families = {
        name: CounterMetricFamily(name, what, labels=labels) for name, (what, labels) in _FAMILIES.items()
    }
    for slug, count in sorted(counted.items()):
        name, labels = _place(slug)
        families[name].add_metric(labels, count)
    families["sidecar_invoices_served"].add_metric((), counted[_SERVED])
    yield from families.values()


# --- how it is now ------------------------------------------------------------------------------


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sidecar_{name}", what, value=value)


def _gauges(facts: Facts) -> Iterator[Metric]:
    yield InfoMetricFamily("sidecar_build", "Which sidecar this is, and beside which LND.", dict(facts.about))
    yield _gauge("leads", "Whether this sidecar leads; one that stands by waits to take over.", facts.leads)
    yield _gauge("stream_up", "Whether LND streams onion messages to us.", facts.stream_up)
    yield _gauge("redis_up", "Whether Redis kept a change when it was last asked to.", facts.redis_up)
    yield _gauge("ready", "Whether /readyz says so.", facts.stream_up and facts.redis_up)
    yield _gauge("queue_messages", "Onion messages streamed by LND and not taken yet.", facts.queued)
    yield _gauge("queue_size", "How many of them there may be.", facts.queue_size)
    clients = GaugeMetricFamily("sidecar_clients", "Clients, by state.", labels=("state",))
    for state, count in sorted(({"active": 0} | dict(facts.census.clients)).items()):
        clients.add_metric((state,), count)
    yield clients
    census = facts.census
    yield _gauge("slots_used", "Invoice slots in use, of all clients.", census.slots)
    yield _gauge("slots_allowed", "Invoice slots that all clients may use.", census.slots_allowed)
    yield _gauge("bytes_used", "Bytes of stored invoices and forward paths.", census.bytes)
    yield _gauge("bytes_allowed", "Bytes that all clients may use.", census.bytes_allowed)
    yield _gauge("mail_letters", "Letters that wait in all mailboxes; approximate.", facts.mail_letters)
    yield _gauge("mail_bytes", "Bytes of them; approximate.", facts.mail_bytes)
    yield _gauge("mail_bytes_allowed", "Bytes that all mailboxes may hold.", facts.mail_bytes_allowed)


class SidecarCollector(Collector):
    """The server's counters and gauges. `facts`, which may be replaced, is asked at each scrape."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self.facts = facts

    def collect(self) -> Iterator[Metric]:
        """All families, with those that hold nothing yet."""
        facts = self.facts()
        yield from _gauges(facts)
        yield from _counters(facts.counters)


def new_registry(collector: SidecarCollector, timings: Timings) -> CollectorRegistry:
    """All that /metrics shows: the server's own, how long things take, and the process."""
    # When each histogram began is when the server was started.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    registry.register(timings)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
