"""What is read of all clients at once, at the start and ever again: who is which node, on what terms."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TypeAlias

from sidecar.adapters.redis_link import RedisLink, Script
from sidecar.adapters.redis_masters import Argument
from sidecar.adapters.redis_records import QUOTA_FIELDS, Keys, to_client_id, to_node_id, to_terms, unpacked
from sidecar.core.model import ClientState, Quota, Terms

SCAN_CLIENTS = Script("scan_clients")

AT_ONCE = 256
"""Entries of an index in one step: less than two milliseconds of Redis's time."""

_USUAL = Terms(Quota(), paused=False)
_BOUND_STATES = frozenset(state.value.encode() for state in ClientState if state is not ClientState.REVOKED)

Entry: TypeAlias = tuple[bytes, bytes, Sequence[bytes | None]]
"""An entry of an index, the client id (hex) that it points to, and what was asked for of that client."""


class RedisListing:
    """All clients over one Redis, or a Cluster. Every method raises StoreUnavailable.

    One Redis looks through the clients by itself, and tells only of those that have what is asked for: a
    million clients are read in seconds. The masters of a Cluster are asked for every client.
    """

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def terms(self) -> Mapping[bytes, Terms]:
        """The terms of every client that has limits of its own or is paused."""
        found: dict[bytes, Terms] = {}
        async for part in self._entries(self._keys.names, ("state", *QUOTA_FIELDS)):
            for _, holder, (state, *values) in part:
                # What can't be read stops its own client, when it is loaded, and not all others here.
                with self._link.passing_over(holder):
                    client_id = to_client_id(holder)
                    if state is not None and (terms := to_terms(state, values)) != _USUAL:
                        found[client_id] = terms
        return found

    async def bindings(self) -> Mapping[bytes, bytes]:
        """The client_id of each node that is bound to a client that is not revoked, by node id.

        An entry of the index that the client's record does not bear out (see RedisStore.bind) is none.
        """
        found: dict[bytes, bytes] = {}
        async for part in self._entries(self._keys.nodes, ("state", "node_id")):
            for node, holder, (state, bound_to) in part:
                with self._link.passing_over(node):
                    node_id, client_id = to_node_id(node), to_client_id(holder)
                    if state in _BOUND_STATES and bound_to == node_id:
                        found[node_id] = client_id
        return found

    async def _entries(self, index: str, fields: Sequence[str]) -> AsyncIterator[Iterator[Entry]]:
        """The entries of an index, in parts; `fields` begin with `state`. Some may come twice.

        Those whose client is active, and has none of the other fields, may be left out.
        """
        if self._link.clustered:
            async for part in self._link.scan(index):
                clients: dict[bytes, bytes] = {}
                for entry, holder in part.items():
                    with self._link.passing_over(entry):
                        clients[entry] = to_client_id(holder)
                keys = [self._keys.client(client_id) for client_id in clients.values()]
                records = await self._link.read(*(("HMGET", key, *fields) for key in keys))
                yield zip(clients, (part[entry] for entry in clients), records, strict=True)
            return
        cursor, width = b"0", len(fields) + 2
        while True:
            args: list[Argument] = [self._keys.prefix, cursor, AT_ONCE, *fields]
            cursor, packed = await self._link.ask(SCAN_CLIENTS, [index], args)
            values = unpacked(packed)
            yield _rows(values, width)
            if int(cursor) == 0:
                return


def _rows(values: Sequence[bytes | None], width: int) -> Iterator[Entry]:
    for start in range(0, len(values), width):
        # An entry and what it points to are always there.
        yield values[start] or b"", values[start + 1] or b"", values[start + 2 : start + width]
