"""What the service needs from the world, as Protocols: adapters fulfil them, tests may too."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.core.model import Client, Loaded, StoredInvoice, Usage


@dataclass(frozen=True, slots=True)
class Received:
    """One onion message as LND handed it over.

    Only these four can be trusted: LND leaves the rest of an update empty when
    it forwards. `encrypted_recipient_data` (of LND's own hop) is None in custom
    mode, where LND does not open the onion.
    """

    peer: bytes
    path_key: bytes
    onion: bytes
    encrypted_recipient_data: bytes | None


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


class Graph(Protocol):
    """What LND knows of channels and peers."""

    async def next_node(self, scid: int) -> bytes:
        """The node at the other end of our channel `scid` (or alias). Raises UnknownScid."""

    async def node_of(self, scid: int, direction: int) -> bytes:
        """The node that a sciddir names (0: node_id_1, 1: node_id_2). Raises UnknownScid."""

    async def relays_to(self, node_id: bytes) -> Sequence[bytes]:
        """Connected channel peers that speak onion messages and have a channel with `node_id`."""

    async def dial(self, node_id: bytes) -> None:
        """Connect to a node at its announced address, within a budget. Raises NoRoute."""


class Store(Protocol):
    """Clients and invoices, kept as durably as the operator asked for.

    Every method raises StoreUnavailable when the store does not answer in time.
    """

    async def load(self, client_id: bytes, slot: int) -> Loaded:
        """The client and one slot of it, in one round trip."""

    async def save(self, client_id: bytes, invoice: StoredInvoice, mark_until: int) -> Usage:
        """Put an invoice into its slot, replacing what was there; return once it is on disk.

        The slot's mark is kept until `mark_until` at least. Raises UnknownClient,
        ClientRevoked, SlotOutOfRange, QuotaExceeded, StaleOffer, StaleInvoice.
        """

    async def add_client(self, client: Client) -> None:
        """Keep a new client. Raises NameTaken."""

    async def list_clients(self) -> Sequence[tuple[Client, Usage]]:
        """All clients with their use, by name."""

    async def find_client(self, name_or_id: str) -> Client:
        """One client by name, or by the hex of its id. Raises NoSuchClient."""

    async def invoices(self, client_id: bytes) -> Sequence[StoredInvoice]:
        """A client's stored invoices by slot."""

    async def rotate_client(self, client_id: bytes) -> Client:
        """Raise the generation of the client's request paths. Raises NoSuchClient."""

    async def revoke_client(self, client_id: bytes) -> Client:
        """Mark the client revoked and drop its invoices. Raises NoSuchClient."""

    async def remove_client(self, client_id: bytes) -> None:
        """Forget the client and all that is its own. Raises NoSuchClient."""


class Clock(Protocol):
    """Time, as an argument."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
