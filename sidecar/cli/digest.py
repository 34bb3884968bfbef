"""What a running server's answers mean for people: counts by kind, quantiles, rates. No I/O, no clock."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.core.model import Role

if TYPE_CHECKING:
    from sidecar.rpc.sidecar.v1 import admin_pb2

WINDOW = 10.0
"""Seconds over which a rate is taken."""

ONION, MAILBOX, WAKES, LIMITS, OTHER = "onion message", "mailbox", "wake-up", "limit", "other"
"""What is counted beside the messages that have a name of their own."""

# --- counters -----------------------------------------------------------------------------------

# A counter that is one word → whose it is, and what came of it.
_WORDS = {
    "received": (ONION, "received"),
    "passed": (ONION, "passed"),
    "forwarded": (ONION, "forwarded"),
    "stored": ("serve_static_invoice", "stored"),
    "bound": ("node", "bound"),
}
# A counter `outcome.message[.reason]`.
_OUTCOMES = {"sent", "kept", "lost", "unsent"}
# A counter `area.outcome[.detail]`.
_AREAS = {"mail": MAILBOX, "wake": WAKES, "lsps": "lsps5"}
# A counter `outcome.detail`, where the first word says whose it is.
_DETAILS = {
    "dropped": (ONION, "dropped"),
    "refused": (LIMITS, "refused"),
    "unbound": ("node", "unbound"),
}

_ORDER = (
    ONION,
    "offer_paths",
    "serve_static_invoice",
    "static_invoice_persisted",
    "static_invoice",
    "invoice_error",
    "invoice_error_ldk",
    "invoice_request",
    "message",
    MAILBOX,
    WAKES,
    "lsps5",
    "node",
    LIMITS,
)
"""The subjects in the order of an invoice's life; what is not named here comes last."""

_BAD = {"dropped", "lost", "unsent", "undelivered", "refused", "failed"}


@dataclass(frozen=True, slots=True)
class Count:
    """A counter, read: of what, what came of it, why or which, and how often."""

    slug: str
    subject: str
    outcome: str
    detail: str
    total: int

    @property
    def bad(self) -> bool:
        """Whether something was not done."""
        return self.outcome in _BAD


def read_counter(slug: str, total: int) -> Count:
    """What a counter of the server says; one that is not known is a subject `other` with its slug."""
    head, _, rest = slug.partition(".")
    middle, _, last = rest.partition(".")
    if not rest and head in _WORDS:
        return Count(slug, *_WORDS[head], "", total)
    if rest and head in _DETAILS:
        return Count(slug, *_DETAILS[head], rest, total)
    if rest and head in _OUTCOMES:
        return Count(slug, middle, head, last, total)
    if rest and head in _AREAS:
        return Count(slug, _AREAS[head], middle, last, total)
    return Count(slug, OTHER, slug, "", total)


def read_counters(counters: Mapping[str, int]) -> list[Count]:
    """All that ever counted, in the order of an invoice's life."""

    def place(count: Count) -> tuple[int, str, bool, str, str]:
        known = _ORDER.index(count.subject) if count.subject in _ORDER else len(_ORDER)
        # What came in is first of all, whatever the alphabet says.
        return (known, count.subject, count.outcome != "received", count.outcome, count.detail)

    return sorted((read_counter(slug, total) for slug, total in counters.items() if total), key=place)


def summed(counts: Iterable[Count]) -> dict[str, dict[str, list[Count]]]:
    """Counts by subject and then by outcome, in their order."""
    found: dict[str, dict[str, list[Count]]] = {}
    for count in counts:
        found.setdefault(count.subject, {}).setdefault(count.outcome, []).append(count)
    return found


# --- how long things took -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quantile:
    """A time in seconds that a share of all did not exceed; `beyond` when it is more than that."""

    seconds: float
    beyond: bool = False

    def __str__(self) -> str:
        return f"{'>' if self.beyond else ''}{duration(self.seconds)}"


def quantile(entry: "admin_pb2.Seconds", share: float) -> Quantile | None:
    """The quantile of a histogram, taken as evenly spread within a bucket; None when nothing was seen.

    Its bounds are the upper ones in seconds, its buckets how many fell into each, one more than bounds: of
    the last one no more is known than that it is above all bounds. A single time is known: it is the sum.
    """
    bounds, buckets, seen = entry.bounds, entry.buckets, sum(entry.buckets)
    if not seen or not bounds or len(buckets) != len(bounds) + 1:
        return None
    if seen == 1 and entry.sum:
        return Quantile(entry.sum)
    wanted, below, lower = share * seen, 0, 0.0
    for bound, count in zip(bounds, buckets, strict=False):
        if count and below + count >= wanted:
            return Quantile(lower + (bound - lower) * (wanted - below) / count)
        below, lower = below + count, bound
    return Quantile(bounds[-1], beyond=True)


def duration(seconds: float) -> str:
    """A time that something took, in three digits or fewer: `340 µs`, `1.2 ms`, `8.1 s`, `12 min`."""
    for unit, size, most in (
        ("µs", 1e-6, 1e-3),
        ("ms", 1e-3, 1.0),
        ("s", 1.0, 120.0),
        ("min", 60.0, 7_200.0),
    ):
        # Rounded up to the next unit it would have a digit too many.
        if seconds < most * 0.9995:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"
    return f"{seconds / 3_600:.1f} h"


def lasted(seconds: float) -> str:
    """A time that goes on, in its two largest units: `3 d 4 h`, `12 min 5 s`."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


# --- who leads -------------------------------------------------------------------------------------


def role(status: "admin_pb2.GetStatusResponse") -> str:
    """What a server does among those beside one LND, in a few words; an older one does not say."""
    if status.role == Role.LEADS.value:
        return f"{status.role}, as {status.leader}" if status.leader else status.role
    who = f"{status.leader} leads" if status.leader else "which one leads is not known yet"
    return f"{status.role}: {who}" if status.role else ""


# --- answers over time ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server said: at `at` on a clock that only goes forward, in seconds, and at `at_ms` of the day.

    `at_ms` is since the epoch.
    """

    at: float
    at_ms: int
    status: "admin_pb2.GetStatusResponse"
    clients: "Sequence[admin_pb2.Client]"


def refusals(client: "admin_pb2.Client") -> int:
    """What limits refused of a client since the server's start."""
    return sum(client.refused.values())


@dataclass(frozen=True, slots=True)
class Frame:
    """All that a view shows: the last answer, one of WINDOW seconds before, and what is wrong now.

    `trouble` is why the last call failed; empty when it went well.
    """

    now: Sample
    before: Sample | None = None
    trouble: str = ""

    def rate(self, slug: str) -> float | None:
        """A counter's growth a second; None while there is nothing to compare with."""
        if self.before is None:
            return None
        grown = self.now.status.counters.get(slug, 0) - self.before.status.counters.get(slug, 0)
        return grown / (self.now.at - self.before.at)

    def pressed(self) -> set[str]:
        """The ids of the clients of whom limits have refused something just now."""
        before = {each.client_id: refusals(each) for each in self.before.clients} if self.before else {}
        return {
            each.client_id
            for each in self.now.clients
            if refusals(each) > before.get(each.client_id, refusals(each))
        }


class History:
    """The answers of the last seconds, as much as rates need."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> Frame:
        """Take the newest answer. A server that was started anew counts from 0: the past is forgotten."""
        if self._samples and _is_another(self._samples[-1].status, sample.status):
            self._samples.clear()
        self._samples.append(sample)
        while len(self._samples) > 1 and self._samples[1].at <= sample.at - WINDOW:
            self._samples.popleft()
        before = self._samples[0]
        return Frame(sample, before if before.at < sample.at else None)


def _is_another(before: "admin_pb2.GetStatusResponse", now: "admin_pb2.GetStatusResponse") -> bool:
    if before.started_at_ms != now.started_at_ms:
        return True
    return any(now.counters.get(slug, 0) < count for slug, count in before.counters.items())


# --- clients --------------------------------------------------------------------------------------


def holds(client: "admin_pb2.Client", field: str) -> int:
    """A limit of a client as it holds now; 0 when the server does not say."""
    for quota in (client.limits, client.quota):
        if quota.HasField(field):  # type: ignore[arg-type]  # the caller names a field of Quota
            return int(getattr(quota, field))
    return 0


def fullness(client: "admin_pb2.Client") -> float:
    """The largest share of a limit on what is kept that a client uses; 1 and more is full."""
    uses = (
        (client.slots_used, holds(client, "slots")),
        (client.bytes_used, holds(client, "bytes")),
        # Either limit is that of one of two queues; how they share is not told.
        (client.mail_letters, 2 * holds(client, "mailbox_letters")),
        (client.mail_bytes, 2 * holds(client, "mailbox_bytes")),
    )
    return max(used / limit if limit else 0.0 for used, limit in uses)


def by_use(frame: Frame) -> "list[admin_pb2.Client]":
    """The clients: who is being refused something now, then the fullest, then the most refused, by name."""
    pressed = frame.pressed()
    return sorted(
        frame.now.clients,
        key=lambda each: (each.client_id not in pressed, -fullness(each), -refusals(each), each.name),
    )
