"""What the service needs from the world, as Protocols: adapters fulfil them, tests may too."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.core.mailbox import Kept, Letter, LetterNote, MailLimits, MailUse
from sidecar.core.model import (
    MOST_USAGE,
    BoundBy,
    Client,
    Loaded,
    Quota,
    StoredInvoice,
    Terms,
    TimestampForm,
    Usage,
)
from sidecar.core.webhooks import Delivery, Webhook, WebhookSet, WebhookState


@dataclass(frozen=True, slots=True)
class Received:
    """One onion message as LND handed it over.

    Only these four can be trusted: LND leaves the rest of an update empty when
    it forwards. `encrypted_recipient_data` (of LND's own hop) is None in custom
    mode, where LND does not open the onion.

    `heard_ms`: when it came, by the steady clock, where it was held by a sidecar that stood by; None: just
    now. `again`: the one that led then may have answered it.
    """

    peer: bytes
    path_key: bytes
    onion: bytes
    encrypted_recipient_data: bytes | None
    heard_ms: int | None = None
    again: bool = False


class NodeKey(Protocol):
    """A node's static key, in process or behind a signer."""

    async def ecdh(self, point: bytes) -> bytes:
        """SHA256 of the compressed product of our secret and `point` (33 bytes): BOLT 4's ECDH.

        Raises BadPoint, ForbiddenPoint, LndUnavailable.
        """


class OnionTransport(Protocol):
    """Onion messages in and out of LND."""

    @property
    def forwards_for_others(self) -> bool:
        """Whether we, not LND, forward what is addressed to other nodes (custom mode)."""

    def receive(self) -> AsyncIterator[Received]:
        """Every onion message that reaches LND, for as long as the iterator is read.

        It lives through restarts of LND; it ends only by cancellation.
        """

    async def send(self, peer: bytes, path_key: bytes, onion: bytes) -> None:
        """Hand an onion message to a connected peer. Raises PeerNotConnected, LndUnavailable."""


@dataclass(frozen=True, slots=True)
class PeersNow:
    """All peers that LND is connected to; what was known of them before may be wrong."""

    nodes: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class PeerChange:
    """A peer came, or went. One that is said to come twice has a new connection."""

    node_id: bytes
    online: bool


class Peers(Protocol):
    """LND's connections."""

    def receive(self) -> AsyncIterator[PeersNow | PeerChange]:
        """PeersNow first, and after each restart of LND; then every change."""

    async def bytes_received(self) -> Mapping[bytes, int]:
        """Bytes from each connected peer on its present connection. Raises LndUnavailable."""


class LspsTransport(Protocol):
    """LSPS messages in and out of LND: the payloads of custom messages 37913."""

    def receive(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """(peer, payload) of each message that reaches LND."""

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Hand up to 65,533 bytes to a connected peer. Raises PeerNotConnected, LndUnavailable."""


class Graph(Protocol):
    """What LND knows of channels and peers."""

    async def next_node(self, scid: int) -> bytes:
        """The node at the other end of our channel `scid` (or alias). Raises UnknownScid."""

    async def node_of(self, scid: int, direction: int) -> bytes:
        """The node that a sciddir names (0: node_id_1, 1: node_id_2). Raises UnknownScid."""

    async def relays_to(self, node_id: bytes) -> Sequence[bytes]:
        """Connected channel peers that speak onion messages and have a channel with `node_id`."""

    async def has_channel(self, node_id: bytes) -> bool:
        """Whether LND has a channel with the node. Raises LndUnavailable."""

    async def is_announced(self, node_id: bytes) -> bool:
        """Whether the node has announced itself to the network. Raises LndUnavailable."""

    async def dial(self, node_id: bytes) -> None:
        """Connect to a node at its announced address, within a budget. Raises NoRoute."""


class Store(Protocol):
    """Clients and invoices, kept as durably as the operator asked for.

    Every method raises StoreUnavailable when the store does not answer in time.
    """

    async def load(self, client_id: bytes, slot: int) -> Loaded:
        """The client and one slot of it, in one round trip."""

    async def save(
        self, client_id: bytes, invoice: StoredInvoice, mark_until: int, most: Usage = MOST_USAGE
    ) -> Usage:
        """Put an invoice into its slot, replacing what was there; return once it is on disk.

        The slot's mark is kept until `mark_until` at least. `most` holds where the client has no
        limit of its own. Raises UnknownClient, ClientRevoked, ClientPaused, SlotOutOfRange,
        QuotaExceeded, StaleOffer, StaleInvoice.
        """

    async def add_client(self, client: Client) -> None:
        """Keep a new client, bound to its node if it has one. Raises NameTaken, NodeTaken."""

    async def list_clients(self) -> Sequence[tuple[Client, Usage]]:
        """All clients with their use, by name."""

    async def find_client(self, name_or_id: str) -> Client:
        """One client by name, or by the hex of its id. Raises NoSuchClient."""

    async def invoices(self, client_id: bytes) -> Sequence[StoredInvoice]:
        """A client's stored invoices by slot."""

    async def terms(self) -> Mapping[bytes, Terms]:
        """The terms of every client that has limits of its own or is paused, by its id."""

    async def update_quota(self, client_id: bytes, changes: Quota, reset: Collection[str] = ()) -> Client:
        """Change a client's own limits: set those of `changes`, and drop the fields named in `reset`.

        Raises NoSuchClient, ClientRevoked.
        """

    async def pause_client(self, client_id: bytes, *, paused: bool) -> Client:
        """Serve a client no more for now, or again. Raises NoSuchClient, ClientRevoked."""

    async def rotate_client(self, client_id: bytes) -> Client:
        """Raise the generation of the client's request paths. Raises NoSuchClient."""

    async def revoke_client(self, client_id: bytes) -> Client:
        """Mark the client revoked, drop its invoices and mail, free its node. Raises NoSuchClient."""

    async def remove_client(self, client_id: bytes) -> None:
        """Forget the client and all that is its own. Raises NoSuchClient."""

    async def bindings(self) -> Mapping[bytes, bytes]:
        """The client_id of each node that is bound to a client that is not revoked, by node id."""

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Say which node a client is; None: not known (any more).

        The operator's word replaces whatever was there. What is learnt fills only a gap: raises
        BoundOtherwise when the client has another node already. Raises NodeTaken when the node is
        another client's, NoSuchClient (also for a revoked one).
        """

    async def set_timestamps(self, client_id: bytes, form: TimestampForm | None) -> Client:
        """Choose how the client's notifications are dated. Raises NoSuchClient."""


class MailStore(Protocol):
    """Mailboxes, as durable as invoices. Every method raises StoreUnavailable."""

    async def keep(self, client_id: bytes, letter: Letter, limits: MailLimits, room: int) -> Kept:
        """Put a letter last in its queue; return once it is on disk.

        Past the limits of its queue (the client's own, else `limits`), or past `room` more bytes, the
        oldest letters of the heaviest sender in that queue are dropped, the new letter counted among
        them. Letters older than the TTL are gone. Raises UnknownClient, ClientRevoked, ClientPaused,
        and MailboxFull when the letter itself is what would be dropped (nothing is changed then).
        """

    async def mail(self, client_id: bytes) -> Sequence[tuple[int, Letter]]:
        """All letters of a client with their numbers, in the order in which they were kept."""

    async def mail_list(self, client_id: bytes) -> Sequence[LetterNote]:
        """What waits for a client, in that order, without what it says."""

    async def drop_mail(self, client_id: bytes, numbers: Sequence[int]) -> MailUse:
        """Forget letters that arrived; numbers that are not there are let be."""

    async def mail_uses(self) -> Mapping[bytes, MailUse]:
        """What each client's mailbox held when it was last touched: approximate."""


class WebhookStore(Protocol):
    """Webhooks by node id. Every method raises StoreUnavailable."""

    async def set_webhook(self, node_id: bytes, webhook: Webhook, most: int) -> WebhookSet:
        """Insert a webhook or replace the one of its name; return once it is on disk.

        One with the same URL keeps its state, but for a pause that failures brought. Raises
        TooManyWebhooks with nothing changed when a new one would be more than `most`.
        """

    async def webhooks(self, node_id: bytes) -> Sequence[Webhook]:
        """A node's webhooks by name."""

    async def remove_webhook(self, node_id: bytes, app_name: str) -> None:
        """Forget a webhook. Raises NoSuchWebhook."""

    async def note_state(self, node_id: bytes, webhook: Webhook, state: WebhookState) -> None:
        """Remember how a webhook fares, if it is still there with that URL; `paused` is let be."""

    async def pause_webhook(self, node_id: bytes, app_name: str, *, paused: bool) -> None:
        """Stop using a webhook, or use it again (which forgets its failures). Raises NoSuchWebhook."""

    async def log_delivery(self, node_id: bytes, delivery: Delivery) -> None:
        """Remember what became of a notification; the last 50 are kept for 30 days."""

    async def deliveries(self, node_id: bytes) -> Sequence[Delivery]:
        """What became of a node's last notifications, newest first."""

    async def webhook_nodes(self) -> Mapping[bytes, int | None]:
        """Every node with webhooks, and since when (seconds) nothing has spoken for keeping them."""

    async def mark_unneeded(self, node_id: bytes, since: int | None) -> None:
        """Remember since when nothing speaks for keeping a node's webhooks; None: something does."""

    async def forget_webhooks(self, node_id: bytes) -> None:
        """Forget a node's webhooks and deliveries."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a sidecar says of itself when it asks to lead, or to lead on.

    `holder` is this process's own, 16 bytes in hex; `name` is for people. `hears`: LND streams to it.
    `done` tells which messages it has dealt with lately in each stream, by the stream's name: 8 bytes of
    each (standby.py).
    """

    holder: str
    name: str
    hears: bool
    done: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Grant:
    """What the store says of the lease: who leads (nobody: `name` is empty), and what that one has done.

    `fence` rises each time another one leads: a change of an earlier one is refused. Who begins to lead
    is given the `done` of the one before; `released`: that one has dealt with nothing else, or nobody led.
    """

    ours: bool
    name: str
    fence: int
    done: Mapping[str, bytes]
    released: bool = False


class LeaseStore(Protocol):
    """The lease on one LND's records. Every method raises StoreUnavailable."""

    async def take(self, claim: Claim, ms: int) -> Grant:
        """Lead for `ms` milliseconds from now by the store's clock, if nobody else does.

        One whose claim says that it hears nothing begins to lead never, and gives way to one that hears.
        """

    async def release(self, claim: Claim, *, drained: bool) -> bool:
        """Lead no more, with all of `done`; whether it led: nothing is changed where another one does.

        `drained`: it has dealt with nothing else.
        """


class MessageSigner(Protocol):
    """LND's own signature over a text."""

    async def sign_message(self, text: bytes) -> str:
        """The zbase32 form of LND's signature of a text (LSPS0.ln_signature). Raises LndUnavailable."""


class Notifier(Protocol):
    """Tells the webhooks of a node; never waits for them."""

    def notify(self, node_id: bytes, method: str) -> None:
        """Tell all webhooks of a node, unless the cooldown of this method holds it back."""

    def announce(self, node_id: bytes, app_name: str) -> None:
        """Send webhook_registered to this one webhook."""

    def connected(self, node_id: bytes) -> None:
        """The node is here: end its cooldowns, and drop what still waits to be sent to it."""


class Clock(Protocol):
    """Time, as an argument."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, for what is dated: the machine's clock may be set at any time."""

    def steady_ms(self) -> int:
        """Milliseconds on a clock that nobody sets, for how long something lasts in this process."""
