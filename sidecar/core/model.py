"""What is kept for a client: plain records that the core decides on and a store keeps.

Times are seconds since the epoch; where a name says `_ms`, milliseconds.
"""

import re
from dataclasses import dataclass
from enum import Enum

CLIENT_ID_SIZE = 10
"""Bytes of a client_id: random, and never used again."""

CLIENT_ID_HEX = re.compile(rf"[0-9a-fA-F]{{{2 * CLIENT_ID_SIZE}}}")
"""A client_id as the operator may type it; no name looks so."""

TAG_NONCE_SIZE = 6
"""Random bytes of an offer tag."""

MIN_PATHS_LIFETIME = 90 * 86_400
"""Seconds. LDK's wallets refuse offer_paths that expire sooner."""

# What any client's quota may be at most; the TTL in seconds.
MAX_SLOTS = 1_000
MAX_BYTES = 1 << 30
MIN_TTL, MAX_TTL = 60, 3_650 * 86_400


class Family(Enum):
    """Which type numbers and framing a client speaks bLIP 66 in."""

    BLIP66 = "blip66"
    LDK = "ldk"


class ClientState(Enum):
    """Whether a client is served."""

    ACTIVE = "active"
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
    """A client's limits: invoice slots, stored bytes, and how long an invoice is kept at most."""

    slots: int
    bytes: int
    ttl: int


@dataclass(frozen=True, slots=True)
class Client:
    """An often-offline recipient that the operator lets in.

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
    """All that is known for one message: the client, and the slot that the message is about."""

    client: Client | None
    mark: SlotMark | None
    invoice: StoredInvoice | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a client uses of its quota."""

    slots: int
    bytes: int
