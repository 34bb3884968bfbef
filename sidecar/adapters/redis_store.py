"""Clients and invoices in Redis: ports.Store.

Each change is one Lua script on one client's keys, so that a quota is checked and used in
one step. Which name and which node is whose stands in Cluster slots of their own: there
a change is several, in an order in which a crash between two of them blocks nobody.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sidecar.adapters.redis_acks import Acks
from sidecar.adapters.redis_backup import RedisBackup
from sidecar.adapters.redis_lease import RedisLease
from sidecar.adapters.redis_link import BATCH, RedisLink, Script
from sidecar.adapters.redis_listing import RedisListing
from sidecar.adapters.redis_mail import RedisMail
from sidecar.adapters.redis_masters import Argument, Masters
from sidecar.adapters.redis_records import Keys, client_fields, quota_fields, to_client, to_client_id
from sidecar.adapters.redis_slots import packed_invoice, to_index, to_loaded
from sidecar.adapters.redis_webhooks import RedisWebhooks
from sidecar.core.errors import (
    BoundOtherwise,
    NameTaken,
    NodeTaken,
    NoSuchClient,
    NotLeading,
)
from sidecar.core.model import (
    CLIENT_ID_HEX,
    MOST_USAGE,
    BoundBy,
    Client,
    ClientState,
    Loaded,
    Quota,
    StoredInvoice,
    Terms,
    TimestampForm,
    Usage,
)
from sidecar.timings import Timings

LOAD = Script("load")
SAVE = Script("save")
ADD_CLIENT = Script("add_client")
TAKE_ENTRY = Script("take_entry")
DROP_ENTRY = Script("drop_entry")
BIND = Script("bind")
SET_TIMESTAMPS = Script("set_timestamps")
CHANGE_CLIENT = Script("change_client")
ROTATE = Script("rotate")
REVOKE = Script("revoke")
DROP_INVOICES = Script("drop_invoices")


class RedisStore:
    """ports.Store over one Redis, or a Cluster.

    `mail`, `webhooks` and `lease` are ports.MailStore, ports.WebhookStore and ports.LeaseStore on the same
    connections.
    Every method raises StoreUnavailable when Redis does not answer in time, or can't do
    what it should: the text says what. No change is tried again in here: one whose answer was
    lost may have happened or not, and its sender repeats it.
    """

    def __init__(
        self,
        masters: Masters,
        node_id: bytes,
        *,
        waitaof: bool,
        replicas: int = 0,
        writers: int = 16,
        description: str = "redis",
        timings: Timings | None = None,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Serve `node_id`'s records over a client from `redis_connect.connect`.

        `waitaof`: each change waits for WAITAOF (see `redis_setup.check_server`); `replicas`: how many
        must have it as well, on their disks where it waits for WAITAOF.
        `writers`: changes at once. With `appendfsync everysec` each holds its connection
        for up to a second, and must leave connections for reading.
        `on_close`: what `close` does after it closed the connections.
        """
        self.description = description
        acks = Acks(waitaof, replicas)
        self._link = RedisLink(masters, acks=acks, writers=writers, timings=timings)
        self._keys = Keys(node_id)
        self._on_close = on_close
        self._listing = RedisListing(self._link, self._keys)
        self.mail = RedisMail(self._link, self._keys)
        self.webhooks = RedisWebhooks(self._link, self._keys)
        self.backup = RedisBackup(self._link, node_id)
        self.lease = RedisLease(self._link, self._keys)

    def fence_by(self, fence: Callable[[], Awaitable[int]]) -> None:
        """Let only the one that leads change what wallets leave; `fence` as lease.Lease.confirmed."""
        self._link.fence = fence

    async def close(self) -> None:
        """Close the connections, then stop the embedded server if there is one."""
        try:
            await self._link.aclose()
        finally:
            if self._on_close is not None:
                await self._on_close()

    # --- one message ----------------------------------------------------------------------------

    async def load(self, client_id: bytes, slot: int) -> Loaded:
        """The client and one slot of it as they were at one moment, in one round trip."""
        keys = self._keys
        reply = await self._link.ask(LOAD, [keys.client(client_id), keys.slot(client_id, slot)], [slot])
        return to_loaded(client_id, slot, reply)

    async def save(
        self, client_id: bytes, invoice: StoredInvoice, mark_until: int, most: Usage = MOST_USAGE
    ) -> Usage:
        """Put an invoice into its slot, replacing what was there; return once it is on disk.

        It goes at `invoice.expires_at` by Redis's clock; the slot's mark stays until
        `mark_until` (seconds since the epoch) at least, never shorter than an earlier call
        asked for. `most` holds where the client's record has no limit of its own. Raises
        UnknownClient, ClientRevoked, ClientPaused, SlotOutOfRange, QuotaExceeded, StaleOffer,
        StaleInvoice, NotLeading (with nothing changed), StoreUnavailable.
        """
        keys, fence = self._keys, await self._link.fence()
        reply = await self._link.change(
            SAVE,
            [keys.client(client_id), keys.slot(client_id, invoice.slot)],
            [
                *(invoice.slot, invoice.tag.issued_at_ms, invoice.tag.nonce),
                *(invoice.created_at, invoice.stored_at, invoice.expires_at, mark_until),
                *(packed_invoice(invoice), invoice.size, most.slots, most.bytes, fence),
            ],
            f"client {client_id.hex()} slot {invoice.slot}",
        )
        return Usage(slots=int(reply[0]), bytes=int(reply[1]))

    # --- clients --------------------------------------------------------------------------------

    async def add_client(self, client: Client) -> None:
        """Keep a new client; return once it is on disk. Raises NameTaken, NodeTaken, StoreUnavailable.

        The record comes first, its name second and its node last. A crash after the first
        leaves a record that nobody was ever told the id of, a crash after the second a client
        whose node is not known. A name whose client is gone (a crash within `remove_client`)
        is free.
        """
        key, what = self._keys.client(client.client_id), f"client {client.name}"
        unbound = replace(client, node_id=None, bound_by=None)
        await self._link.change(ADD_CLIENT, [key], client_fields(unbound), what)
        try:
            await self._take_name(client)
        except NameTaken:
            await self._link.change_command("DEL", key)
            raise NameTaken(f"there is a client {client.name} already") from None
        if client.node_id is not None:
            try:
                await self.bind(client.client_id, client.node_id, client.bound_by or BoundBy.OPERATOR)
            except NodeTaken:
                await self._link.change_command("DEL", key)
                await self._drop_entry(self._keys.names, client.name, client.client_id)
                raise

    async def _take_name(self, client: Client) -> None:
        keys, new_id = self._keys, client.client_id.hex()
        (holder,) = await self._link.read(("HGET", keys.names, client.name))
        expected = b""
        if holder is not None and await self._client(to_client_id(holder)) is None:
            expected = holder
        args: list[Argument] = [client.name, new_id, expected, NameTaken.reason]
        await self._link.change(TAKE_ENTRY, [keys.names], args, f"client {client.name}")

    async def _drop_entry(self, index: str, entry: str, client_id: bytes, *, durable: bool = True) -> None:
        args = [entry, client_id.hex()]
        await self._link.change(DROP_ENTRY, [index], args, entry, durable=durable)

    async def list_clients(self) -> Sequence[tuple[Client, Usage]]:
        """All clients with their use, by name; without those whose records can't be read.

        Raises StoreUnavailable.
        """
        (names,) = await self._link.read(("HGETALL", self._keys.names))
        ids = self._ids(names[name] for name in sorted(names))
        found: list[tuple[Client, Usage]] = []
        for start in range(0, len(ids), BATCH):
            found += await self._used(ids[start : start + BATCH])
        return found

    async def each_client(self) -> AsyncIterator[tuple[Client, Usage]]:
        """All clients with their use, in no order and a few of them in memory at a time.

        One that is added or removed meanwhile is in it or not, and while very many are removed one may come
        twice: whoever counts them counts again soon. Raises StoreUnavailable.
        """
        async for part in self._link.scan(self._keys.names):
            ids = self._ids(part.values())
            for start in range(0, len(ids), BATCH):
                for each in await self._used(ids[start : start + BATCH]):
                    yield each

    async def _used(self, ids: Sequence[bytes]) -> list[tuple[Client, Usage]]:
        """Those of these clients that there are, with their use."""
        now, *records = await self._link.read(
            ("TIME",), *(("HGETALL", self._keys.client(client_id)) for client_id in ids)
        )
        found = []
        for client_id, record in zip(ids, records, strict=True):
            with self._link.passing_over(client_id):
                if record:
                    usage = to_index(record).usage(int(now[0]))
                    found.append((to_client(client_id, record), usage))
        return found

    def _ids(self, holders: Iterable[bytes]) -> list[bytes]:
        found = []
        for holder in holders:
            with self._link.passing_over(holder):
                found.append(to_client_id(holder))
        return found

    async def find_client(self, name_or_id: str) -> Client:
        """One client by name, or by the hex of its id. Raises NoSuchClient, StoreUnavailable."""
        (held,) = await self._link.read(("HGET", self._keys.names, name_or_id))
        candidates = [to_client_id(held)] if held is not None else []
        if CLIENT_ID_HEX.fullmatch(name_or_id):
            candidates.append(bytes.fromhex(name_or_id))
        for client_id in candidates:
            client = await self._client(client_id)
            if client is not None:
                return client
        raise NoSuchClient(f"there is no client {name_or_id}")

    async def invoices(self, client_id: bytes) -> Sequence[StoredInvoice]:
        """A client's stored invoices by slot; none for a client that is not there."""
        found: list[StoredInvoice] = []
        for slot in await self._used_slots(client_id):
            loaded = await self.load(client_id, slot)
            if loaded.invoice is not None:
                found.append(loaded.invoice)
        return found

    async def terms(self) -> Mapping[bytes, Terms]:
        """The terms of every client that has limits of its own or is paused. Raises StoreUnavailable."""
        return await self._listing.terms()

    async def update_quota(self, client_id: bytes, changes: Quota, reset: Collection[str] = ()) -> Client:
        """Set a client's own limits, and drop those named in `reset`, in one step.

        Raises NoSuchClient, ClientRevoked, StoreUnavailable.
        """
        dropped = [part for name in reset for part in (name, "")]
        return await self._changed_client(CHANGE_CLIENT, client_id, *dropped, *quota_fields(changes))

    async def pause_client(self, client_id: bytes, *, paused: bool) -> Client:
        """Serve a client no more for now, or again; nothing of it is deleted.

        Raises NoSuchClient, ClientRevoked, StoreUnavailable.
        """
        state = ClientState.PAUSED if paused else ClientState.ACTIVE
        return await self._changed_client(CHANGE_CLIENT, client_id, "state", state.value)

    async def rotate_client(self, client_id: bytes) -> Client:
        """Raise the generation of the client's request paths. Raises NoSuchClient, StoreUnavailable."""
        return await self._changed_client(ROTATE, client_id)

    async def revoke_client(self, client_id: bytes) -> Client:
        """Mark the client revoked, drop its invoices and mail, free its node. Raises NoSuchClient.

        The slots' marks stay, and the record still tells the node. A crash in between leaves
        invoices that a revoked client's state keeps from being served, and a node that another
        client may take all the same; revoking again drops them. Raises StoreUnavailable.
        """
        async with self._link.lock(client_id):
            client = await self._changed_client(REVOKE, client_id)
            slots = await self._used_slots(client_id)
            if slots:
                keys = [self._keys.client(client_id)]
                keys += [self._keys.slot(client_id, slot) for slot in slots]
                await self._link.change(DROP_INVOICES, keys, slots, client.name)
            await self.mail.forget(client_id)
            await self._free_node(client_id, client.node_id)
            return client

    async def remove_client(self, client_id: bytes) -> None:
        """Forget the client and all that is its own. Raises NoSuchClient, StoreUnavailable.

        Revoked first, so that nothing appears between reading what there is and deleting it.
        The name goes last: a name that points nowhere is free, a client without its name would
        live on unseen. Webhooks are the node's, not the client's: they stay.
        """
        keys = self._keys
        async with self._link.lock(client_id):
            client = await self._changed_client(REVOKE, client_id)
            await self.mail.forget(client_id)
            await self._free_node(client_id, client.node_id)
            slots = [keys.slot(client_id, slot) for slot in await self._used_slots(client_id)]
            await self._link.change_command("DEL", keys.client(client_id), *slots)
            await self._drop_entry(keys.names, client.name, client_id)

    async def set_timestamps(self, client_id: bytes, form: TimestampForm | None) -> Client:
        """Choose how the client's notifications are dated. Raises NoSuchClient, StoreUnavailable."""
        return await self._changed_client(SET_TIMESTAMPS, client_id, "" if form is None else form.value)

    async def _client(self, client_id: bytes) -> Client | None:
        (record,) = await self._link.read(("HGETALL", self._keys.client(client_id)))
        return to_client(client_id, record) if record else None

    async def _changed_client(self, script: Script, client_id: bytes, *args: Argument) -> Client:
        key = self._keys.client(client_id)
        (flat,) = await self._link.change(script, [key], args, f"client {client_id.hex()}")
        return _flat_client(client_id, flat)

    async def _used_slots(self, client_id: bytes) -> list[int]:
        (record,) = await self._link.read(("HGETALL", self._keys.client(client_id)))
        return sorted(to_index(record).slots)

    # --- nodes ----------------------------------------------------------------------------------

    async def bindings(self) -> Mapping[bytes, bytes]:
        """The client_id of each node that is bound to a client that is not revoked, by node id."""
        return await self._listing.bindings()

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Say which node a client is; None: not known. Returns once it is on disk.

        The index of nodes comes first, the client's record second: a crash between them leaves
        an entry that the record does not bear out, which counts for nothing. Raises
        BoundOtherwise and NotLeading (for what is learnt), NodeTaken, NoSuchClient, StoreUnavailable.
        """
        fence = await self._link.fence() if by is BoundBy.LEARNT else 0
        async with self._link.lock(client_id):
            client = await self._client(client_id)
            if client is None or client.state is ClientState.REVOKED:
                raise NoSuchClient(f"there is no client {client_id.hex()} that is served")
            if by is BoundBy.LEARNT and client.node_id is not None:
                if client.node_id != node_id:
                    raise BoundOtherwise(f"client {client.name} is another node")
                return client
            if node_id is None:
                return await self._write_node(client_id, None, by, fence)
            # Always behind the client's lock, so that no two wait for each other.
            async with self._link.lock(node_id):
                await self._take_node(client_id, node_id)
                try:
                    return await self._write_node(client_id, node_id, by, fence)
                except (NoSuchClient, BoundOtherwise, NotLeading):
                    await self._free_node(client_id, node_id)
                    raise

    async def _take_node(self, client_id: bytes, node_id: bytes) -> None:
        (held,) = await self._link.read(("HGET", self._keys.nodes, node_id.hex()))
        expected = b""
        if held is not None and (holder := to_client_id(held)) != client_id:
            other = await self._client(holder)
            if other is not None and other.state is not ClientState.REVOKED and other.node_id == node_id:
                raise NodeTaken(
                    f"{node_id.hex()} is the node of client {other.name} already:"
                    " rebind, revoke or remove that one first"
                )
            expected = held
        args: list[Argument] = [node_id.hex(), client_id.hex(), expected, NodeTaken.reason]
        await self._link.change(TAKE_ENTRY, [self._keys.nodes], args, f"node {node_id.hex()}")

    async def _write_node(self, client_id: bytes, node_id: bytes | None, by: BoundBy, fence: int) -> Client:
        new = b"" if node_id is None else node_id
        key, what = self._keys.client(client_id), f"client {client_id.hex()}"
        before, flat = await self._link.change(BIND, [key], [new, by.value, fence], what)
        if before not in (b"", new):
            await self._free_node(client_id, before)
        return _flat_client(client_id, flat)

    async def _free_node(self, client_id: bytes, node_id: bytes | None) -> None:
        # Not durable: an entry that comes back after a crash counts for nothing.
        if node_id is not None:
            await self._drop_entry(self._keys.nodes, node_id.hex(), client_id, durable=False)

    # --- the connection itself ------------------------------------------------------------------

    async def probe(self) -> None:
        """Prove that changes are kept as it is promised: make one on each master. Raises StoreUnavailable."""
        await self._link.probe(self._keys.probe)


def _flat_client(client_id: bytes, flat: Sequence[bytes]) -> Client:
    """A client from HGETALL's answer as a script hands it on."""
    return to_client(client_id, dict(zip(flat[::2], flat[1::2], strict=True)))
