"""Which node is which client: said by the operator, or learnt from a wallet that speaks for itself."""

import asyncio
from collections import Counter
from collections.abc import Collection

import structlog

from sidecar.core.bounded import Bounded
from sidecar.core.errors import BoundOtherwise, NodeTaken
from sidecar.core.model import BoundBy, Client
from sidecar.ports import Store

log = structlog.get_logger(__name__)

_COMPLAINTS = 1_000


class Bindings:
    """All bindings in memory: each message that LND forwards is looked up here, with Redis away as well."""

    def __init__(self, store: Store, counters: Counter[str]) -> None:
        self._store = store
        self._counters = counters
        self._clients: dict[bytes, bytes] = {}
        self._nodes: dict[bytes, bytes] = {}
        self._reading = asyncio.Lock()
        self._touched: set[bytes] = set()
        self._complained: Bounded[tuple[bytes, bytes], None] = Bounded(_COMPLAINTS)

    async def refresh(self) -> None:
        """Read all of them: another sidecar may have made some. Raises StoreUnavailable."""
        async with self._reading:
            self._touched = set()
            clients = dict(await self._store.bindings())
            nodes = {client_id: node_id for node_id, client_id in clients.items()}
            # What was read before a change of our own would undo it here.
            for client_id in self._touched:
                _remove(client_id, clients, nodes)
                if (node_id := self._nodes.get(client_id)) is not None:
                    clients[node_id], nodes[client_id] = client_id, node_id
            self._clients, self._nodes = clients, nodes

    def client_of(self, node_id: bytes) -> bytes | None:
        """The client_id of a node, if it is bound to one that is not revoked; it may be paused."""
        return self._clients.get(node_id)

    def node_of(self, client_id: bytes) -> bytes | None:
        """The node of a client, where it is known."""
        return self._nodes.get(client_id)

    def items(self) -> Collection[tuple[bytes, bytes]]:
        """(node id, client_id) of all."""
        return self._clients.items()

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Bind a client, for good. Raises NodeTaken, NoSuchClient, BoundOtherwise, StoreUnavailable."""
        client = await self._store.bind(client_id, node_id, by)
        self.forget(client_id)
        self.add(client)
        if client.node_id is not None:
            log.info("client bound", client=client.name, node=client.node_id.hex(), by=by.value)
        return client

    async def learn(self, client_id: bytes, node_id: bytes) -> None:
        """A wallet has shown that it is this node. Raises StoreUnavailable, NoSuchClient.

        What is known already is not replaced: that is said in the log, once, and left to the operator.
        """
        if self._clients.get(node_id) == client_id:
            return
        try:
            await self.bind(client_id, node_id, BoundBy.LEARNT)
        except (BoundOtherwise, NodeTaken) as error:
            self._counters[f"unbound.{error.reason}"] += 1
            if (client_id, node_id) not in self._complained:
                self._complained[client_id, node_id] = None
                log.warning(
                    "a client seems to be another node than it is bound to: if its wallet has moved, "
                    "`sidecar client rebind` lets it be learnt anew",
                    client_id=client_id.hex(),
                    error=str(error),
                )
            return
        self._counters["bound"] += 1

    def add(self, client: Client) -> None:
        """A client that was made with a node of its own."""
        self._touched.add(client.client_id)
        if client.node_id is not None:
            self._clients[client.node_id] = client.client_id
            self._nodes[client.client_id] = client.node_id

    def forget(self, client_id: bytes) -> None:
        """A client is not served any more, or its node is not known any more."""
        self._touched.add(client_id)
        _remove(client_id, self._clients, self._nodes)


def _remove(client_id: bytes, clients: dict[bytes, bytes], nodes: dict[bytes, bytes]) -> None:
    node_id = nodes.pop(client_id, None)
    if node_id is not None and clients.get(node_id) == client_id:
        del clients[node_id]
