"""Clients and invoices in Redis: ports.Store.

Each change is one Lua script on one client's keys, so that a quota is checked and used in
one step. A change is acknowledged only after it is on disk: either the server fsyncs before
it answers (`appendfsync always`), or WAITAOF goes out right behind the script, on the same
connection: from another connection, or inside Lua, WAITAOF returns at once.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from sidecar.adapters.redis_records import (
    Keys,
    client_fields,
    to_client,
    to_client_id,
    to_index,
    to_invoice,
    to_mark,
)
from sidecar.core.errors import (
    ClientRevoked,
    NameTaken,
    NoSuchClient,
    QuotaExceeded,
    SidecarError,
    SlotOutOfRange,
    StaleInvoice,
    StaleOffer,
    StoreUnavailable,
    UnknownClient,
)
from sidecar.core.model import CLIENT_ID_HEX, Client, Loaded, StoredInvoice, Usage

Argument: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[Argument, ...]

FSYNC_TIMEOUT_MS = 4_000
"""How long WAITAOF may wait; below the socket's timeout, so that the answer still comes."""

BATCH = 256
"""Clients or slots that are read in one pipeline."""

REFUSALS: Mapping[str, type[SidecarError]] = {
    error.reason: error
    for error in (
        UnknownClient,
        ClientRevoked,
        SlotOutOfRange,
        QuotaExceeded,
        StaleOffer,
        StaleInvoice,
        NameTaken,
        NoSuchClient,
    )
}
"""What the scripts answer instead of `ok`, by slug."""


class Script:
    """A Lua script of ours, called by its hash; Redis forgets scripts when it restarts."""

    def __init__(self, name: str) -> None:
        self.name = name
        source = resources.files("sidecar.adapters").joinpath("lua", f"{name}.lua")
        self.text = source.read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def by_hash(self, keys: Sequence[str], args: Sequence[Argument]) -> Command:
        """The call for a Redis that knows the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def by_text(self, keys: Sequence[str], args: Sequence[Argument]) -> Command:
        """The call that also teaches it."""
        return ("EVAL", self.text, len(keys), *keys, *args)


SAVE = Script("save")
ADD_CLIENT = Script("add_client")
TAKE_NAME = Script("take_name")
DROP_NAME = Script("drop_name")
ROTATE = Script("rotate")
REVOKE = Script("revoke")
DROP_INVOICES = Script("drop_invoices")


class RedisStore:
    """ports.Store over one Redis server.

    Every method raises StoreUnavailable when Redis does not answer in time, or can't do
    what it should: the text says what. No change is tried again in here: one whose answer was
    lost may have happened or not, and its sender repeats it.
    """

    def __init__(
        self,
        redis: Redis,
        node_id: bytes,
        *,
        waitaof: bool,
        writers: int = 16,
        description: str = "redis",
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Serve `node_id`'s records over a client from `redis_setup.connect`.

        `waitaof`: each change waits for WAITAOF (see `redis_setup.check_server`).
        `writers`: changes at once. With `appendfsync everysec` each holds its connection
        for up to a second, and must leave connections for reading.
        `on_close`: what `close` does after it closed the connections.
        """
        self.description = description
        self._redis = redis
        self._keys = Keys(node_id)
        self._waitaof = waitaof
        self._writers = asyncio.Semaphore(writers)
        self._on_close = on_close

    async def close(self) -> None:
        """Close the connections, then stop the embedded server if there is one."""
        await self._redis.aclose()
        if self._on_close is not None:
            await self._on_close()

    # --- one message ----------------------------------------------------------------------------

    async def load(self, client_id: bytes, slot: int) -> Loaded:
        """The client and one slot of it as they were at one moment, in one round trip."""
        keys = self._keys
        client, mark, invoice = await self._read(
            ("HGETALL", keys.client(client_id)),
            ("HGETALL", keys.mark(client_id, slot)),
            ("HGETALL", keys.slot(client_id, slot)),
            atomic=True,
        )
        return Loaded(
            client=to_client(client_id, client) if client else None,
            mark=to_mark(mark) if mark else None,
            invoice=to_invoice(slot, invoice) if invoice else None,
        )

    async def save(self, client_id: bytes, invoice: StoredInvoice, mark_until: int) -> Usage:
        """Put an invoice into its slot, replacing what was there; return once it is on disk.

        It goes at `invoice.expires_at` by Redis's clock; the slot's mark stays until
        `mark_until` (seconds since the epoch) at least, never shorter than an earlier call
        asked for. Raises UnknownClient, ClientRevoked, SlotOutOfRange, QuotaExceeded,
        StaleOffer, StaleInvoice (with nothing changed), StoreUnavailable.
        """
        keys = self._keys
        reply = await self._change(
            SAVE,
            [
                keys.client(client_id),
                keys.index(client_id),
                keys.slot(client_id, invoice.slot),
                keys.mark(client_id, invoice.slot),
            ],
            [
                *(invoice.slot, invoice.tag.issued_at_ms, invoice.tag.nonce),
                *(invoice.created_at, invoice.stored_at, invoice.expires_at, mark_until),
                *(invoice.invoice, invoice.forward_path, invoice.family.value),
            ],
            f"client {client_id.hex()} slot {invoice.slot}",
        )
        return Usage(slots=int(reply[0]), bytes=int(reply[1]))

    # --- clients --------------------------------------------------------------------------------

    async def add_client(self, client: Client) -> None:
        """Keep a new client; return once it is on disk. Raises NameTaken, StoreUnavailable.

        The record comes first and its name second: the names are in another Cluster slot,
        so there is no doing both at once. A crash between them leaves a record that nobody
        was ever told the id of. A name whose client is gone (a crash within `remove_client`)
        is free.
        """
        key, what = self._keys.client(client.client_id), f"client {client.name}"
        await self._change(ADD_CLIENT, [key], client_fields(client), what)
        try:
            await self._take_name(client)
        except NameTaken:
            await self._change_command("DEL", key)
            raise NameTaken(f"there is a client {client.name} already") from None

    async def _take_name(self, client: Client) -> None:
        what, new_id = f"client {client.name}", client.client_id.hex()
        (holder,) = await self._read(("HGET", self._keys.names, client.name))
        expected = b""
        if holder is not None and await self._client(to_client_id(holder)) is None:
            expected = holder
        await self._change(TAKE_NAME, [self._keys.names], [client.name, new_id, expected], what)

    async def list_clients(self) -> Sequence[tuple[Client, Usage]]:
        """All clients with their use, by name. Raises StoreUnavailable."""
        (names,) = await self._read(("HGETALL", self._keys.names))
        ids = [to_client_id(names[name]) for name in sorted(names)]
        found: list[tuple[Client, Usage]] = []
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            now, *records = await self._read(
                ("TIME",),
                *(("HGETALL", self._keys.client(client_id)) for client_id in batch),
                *(("HGETALL", self._keys.index(client_id)) for client_id in batch),
            )
            for client_id, client, index in zip(
                batch, records[: len(batch)], records[len(batch) :], strict=True
            ):
                if client:
                    usage = to_index(index).usage(int(now[0]))
                    found.append((to_client(client_id, client), usage))
        return found

    async def find_client(self, name_or_id: str) -> Client:
        """One client by name, or by the hex of its id. Raises NoSuchClient, StoreUnavailable."""
        (held,) = await self._read(("HGET", self._keys.names, name_or_id))
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
        slots = await self._used_slots(client_id)
        found = []
        for start in range(0, len(slots), BATCH):
            batch = slots[start : start + BATCH]
            records = await self._read(*(("HGETALL", self._keys.slot(client_id, slot)) for slot in batch))
            for slot, record in zip(batch, records, strict=True):
                if record:
                    found.append(to_invoice(slot, record))
        return found

    async def rotate_client(self, client_id: bytes) -> Client:
        """Raise the generation of the client's request paths. Raises NoSuchClient, StoreUnavailable."""
        return await self._changed_client(ROTATE, client_id)

    async def revoke_client(self, client_id: bytes) -> Client:
        """Mark the client revoked and drop its invoices. Raises NoSuchClient, StoreUnavailable.

        The slots' marks stay. A crash in between leaves invoices that a revoked client's
        state keeps from being served; revoking again drops them.
        """
        client = await self._changed_client(REVOKE, client_id)
        slots = await self._used_slots(client_id)
        if slots:
            keys = [self._keys.client(client_id), self._keys.index(client_id)]
            keys += [self._keys.slot(client_id, slot) for slot in slots]
            await self._change(DROP_INVOICES, keys, slots, client.name)
        return client

    async def remove_client(self, client_id: bytes) -> None:
        """Forget the client and all that is its own. Raises NoSuchClient, StoreUnavailable.

        Revoked first, so that no slot appears between reading which there are and deleting
        them. The name goes last: a name that points nowhere is free, a client without its
        name would live on unseen.
        """
        keys = self._keys
        client = await self._changed_client(REVOKE, client_id)
        doomed = [keys.client(client_id), keys.index(client_id)]
        for slot in await self._used_slots(client_id):
            doomed += [keys.slot(client_id, slot), keys.mark(client_id, slot)]
        await self._change_command("DEL", *doomed)
        await self._change(DROP_NAME, [keys.names], [client.name, client_id.hex()], client.name)

    async def _client(self, client_id: bytes) -> Client | None:
        (record,) = await self._read(("HGETALL", self._keys.client(client_id)))
        return to_client(client_id, record) if record else None

    async def _changed_client(self, script: Script, client_id: bytes) -> Client:
        key = self._keys.client(client_id)
        (flat,) = await self._change(script, [key], [], f"client {client_id.hex()}")
        return to_client(client_id, dict(zip(flat[::2], flat[1::2], strict=True)))

    async def _used_slots(self, client_id: bytes) -> list[int]:
        (index,) = await self._read(("HGETALL", self._keys.index(client_id)))
        return sorted(to_index(index).slots)

    # --- how Redis is spoken to -----------------------------------------------------------------

    async def probe(self) -> None:
        """Prove that a change is kept as it is promised: make one. Raises StoreUnavailable."""
        await self._change_command("SET", self._keys.probe, "1", "EX", "60")

    async def _read(self, *commands: Command, atomic: bool = False) -> list[Any]:
        try:
            replies = await self._send(commands, atomic=atomic)
        except StoreUnavailable as error:
            # A pooled connection that Redis closed may show it only when it is used. Reading
            # once more does no harm, and the payer who asked would not ask again.
            if not isinstance(error.__cause__, RedisConnectionError):
                raise
            replies = await self._send(commands, atomic=atomic)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise unavailable(reply) from reply
        return replies

    async def _change(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument], what: str
    ) -> list[Any]:
        """Run a script, durably. Returns what it says behind `ok`; `what` names it in errors."""
        try:
            reply: list[Any] = await self._durably(script.by_hash(keys, args))
        except NoScriptError:
            reply = await self._durably(script.by_text(keys, args))
        slug: str = reply[0].decode()
        if slug == "ok":
            return reply[1:]
        raise REFUSALS[slug](f"{what}: {slug.replace('-', ' ')}")

    async def _change_command(self, *command: Argument) -> None:
        await self._durably(command)

    async def _durably(self, command: Command) -> Any:
        """Send a change and wait until it is on disk. Raises NoScriptError, StoreUnavailable."""
        commands: list[Command] = [command]
        if self._waitaof:
            commands.append(("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS))
        async with self._writers:
            reply, *fsynced = await self._send(commands)
        if isinstance(reply, NoScriptError):
            raise reply
        for answer in (reply, *fsynced):
            if isinstance(answer, RedisError):
                raise unavailable(answer) from answer
        if fsynced and int(fsynced[0][0]) < 1:
            raise StoreUnavailable(f"Redis did not get a change onto its disk within {FSYNC_TIMEOUT_MS} ms")
        return reply

    async def _send(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """One round trip on one connection; errors that Redis answers with are in the list."""
        try:
            async with self._redis.pipeline(transaction=atomic) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise unavailable(error) from error


def unavailable(error: Exception) -> StoreUnavailable:
    """What any error of Redis is to the service: something that may pass."""
    return StoreUnavailable(f"Redis: {error or type(error).__name__}")
