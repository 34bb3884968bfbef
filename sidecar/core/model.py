"""What is kept for a client: plain records that the core decides on and a store keeps.

Times are seconds since the epoch; where a name says `_ms`, milliseconds.
"""

import functools
import re
from dataclasses import dataclass, field, fields, replace
from enum import Enum

CLIENT_ID_SIZE = 10
"""Bytes of a client_id: random, and never used again."""

CLIENT_ID_HEX = re.compile(rf"[0-9a-fA-F]{{{2 * CLIENT_ID_SIZE}}}")
"""A client_id as the operator may type it; no name looks so."""

TAG_NONCE_SIZE = 6
"""Random bytes of an offer tag."""

MIN_PATHS_LIFETIME = 90 * 86_400
"""Seconds. LDK's wallets refuse offer_paths that expire sooner."""

# What any client's quota may be at most; the TTL in seconds, the rate a second.
MAX_SLOTS = 1_000
MAX_BYTES = 1 << 30
MIN_TTL, MAX_TTL = 60, 3_650 * 86_400
MAX_RATE, MAX_BURST = 1_000_000, 10_000
MAX_A_MINUTE = 100_000
MAX_LETTERS = 10_000
MAX_REPLICAS = 10


class Role(Enum):
    """What a server does among those beside one LND."""

    LEADS = "leads"
    STANDS_BY = "stands by"


class Family(Enum):
    """Which type numbers and framing a client speaks bLIP 66 in."""

    BLIP66 = "blip66"
    LDK = "ldk"


class ClientState(Enum):
    """Whether a client is served."""

    ACTIVE = "active"
    PAUSED = "paused"
    """Not for now: all that it has stays, and its slots' time runs on."""
    REVOKED = "revoked"


class BoundBy(Enum):
    """Who said which node a client is."""

    OPERATOR = "operator"
    LEARNT = "learnt"


class TimestampForm(Enum):
    """How a notification is dated (LSPS5): `….395+00:00`, as LDK's validator does, or `….395Z`."""

    OFFSET = "offset"
    Z = "z"


class Durability(Enum):
    """What the operator asks of Redis before a change is acknowledged (adapters/redis_setup.py)."""

    STRICT = "strict"
    EVERYSEC = "everysec"
    NONE = "none"


@dataclass(frozen=True, slots=True, order=True)
class OfferTag:
    """Names one issue of offer paths; a newer one of the same slot replaces it."""

    issued_at_ms: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Quota:
    """A client's own limits; None where the server's settings hold. What each is: see Limits."""

    slots: int | None = None
    bytes: int | None = None
    ttl: int | None = None
    requests_per_second: float | None = None
    requests_burst: int | None = None
    stores_per_minute: int | None = None
    offer_paths_per_minute: int | None = None
    mailbox_letters: int | None = None
    mailbox_bytes: int | None = None

    def own(self) -> dict[str, float]:
        """What is set, by the field's name; whole numbers stay whole."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in values if value is not None}


@dataclass(frozen=True, slots=True)
class Limits:
    """All that limits one client.

    Invoice slots; bytes stored in them; seconds that an invoice is kept at most; invoice requests for
    all its offers, and how many of them at once; serve_static_invoice and offer_paths_request; and
    what each of its two mailbox queues holds.
    """

    slots: int
    bytes: int
    ttl: int
    requests_per_second: float
    requests_burst: int
    stores_per_minute: int
    offer_paths_per_minute: int
    mailbox_letters: int
    mailbox_bytes: int

    @classmethod
    def of(cls, quota: Quota) -> "Limits":
        """The limits of a quota in which every field is set. Raises ValueError when one is not."""
        own = quota.own()
        if missing := {each.name for each in fields(cls)} - own.keys():
            raise ValueError(f"no limit for {', '.join(sorted(missing))}")
        return cls(**own)  # type: ignore[arg-type]  # the fields of both have the same types

    @functools.lru_cache(maxsize=1_024)  # noqa: B019 - asked for each message, of a few settings
    def under(self, quota: Quota) -> "Limits":
        """What holds for a client with this quota, these being the server's settings."""
        return replace(self, **quota.own())  # type: ignore[arg-type]  # likewise


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a client is served: its own limits, and whether it is for now."""

    quota: Quota
    paused: bool


@dataclass(frozen=True, slots=True)
class Client:
    """An often-offline recipient that the operator lets in; `quota` holds what is its own.

    `generation` counts its request paths: `rotate` makes the older ones silent. `node_id` (33 bytes) is
    the wallet's own, where it is known; `timestamps` is None where the server's default holds.
    """

    client_id: bytes
    name: str
    state: ClientState
    generation: int
    quota: Quota
    created_at: int
    node_id: bytes | None = None
    bound_by: BoundBy | None = None
    timestamps: TimestampForm | None = None


@dataclass(frozen=True, slots=True)
class SlotMark:
    """What a slot remembers after its invoice is gone: replays must not bring an old one back.

    `created_at` is the last stored invoice's, bounded by our own clock.
    """

    tag: OfferTag
    created_at: int


@dataclass(frozen=True, slots=True)
class StoredInvoice:
    """A static invoice with the path over which requests for it are forwarded.

    `forward_path` starts at the first node behind our own LND (encoded, BOLT 4 blinded_path).
    """

    slot: int
    tag: OfferTag
    invoice: bytes
    forward_path: bytes
    family: Family
    created_at: int
    stored_at: int
    expires_at: int

    @property
    def size(self) -> int:
        """Bytes that count against the client's quota."""
        return len(self.invoice) + len(self.forward_path)


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that is known for one message: the client, and the slot that the message is about.

    `stood_ms`: for how long the slot has been what it is, by the store's clock; 0 where nobody can tell.
    """

    client: Client | None
    mark: SlotMark | None
    invoice: StoredInvoice | None
    stood_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a client uses of its limits, or may use."""

    slots: int
    bytes: int


MOST_USAGE = Usage(slots=MAX_SLOTS, bytes=MAX_BYTES)
"""What no client may go beyond."""
