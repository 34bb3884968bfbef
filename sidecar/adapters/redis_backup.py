"""All records of one LND node, out of Redis and into another one: by key, whatever Redis's version.

An export is taken while the server runs. All that belongs to one client is read in one step, and
so is all of one wallet's webhooks; two clients may be read a moment apart, and one that is added
meanwhile is in the export or not.

An import is written aside, where nothing reads it, and put in force in one step. What a crash
leaves aside is never served, and the next import clears it away. In a Cluster there is no such step:
the indexes are put in force first, then client after client, wallet after wallet.
"""

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from sidecar.adapters.backup_check import SHARED, ExportCheck, owner_of
from sidecar.adapters.redis_link import BATCH, RedisLink, Script
from sidecar.adapters.redis_masters import Argument, Command
from sidecar.adapters.redis_records import FENCE, Keys, to_client_id, to_letter_entries, to_node_id
from sidecar.adapters.redis_slots import to_index
from sidecar.core.backup import Record
from sidecar.core.errors import BadExport, StoreNotEmpty, StoreUnavailable

FINISH_IMPORT = Script("finish_import")
PUT_IN_FORCE = Script("put_in_force")

BATCH_BYTES = 1 << 20
"""Bytes that are written in one pipeline."""

MINUTE_MS = 60_000

_WRITTEN_BY = {"hash": "HSET", "list": "RPUSH", "string": "SET"}


@dataclass(slots=True)
class Restored:
    """How much an import has brought; what had expired is not counted."""

    clients: int = 0
    invoices: int = 0
    letters: int = 0
    webhooks: int = 0


class RedisBackup:
    """Exports and imports over the connections of a store. Every method raises StoreUnavailable.

    Memory: the ids of all clients and wallets, and all that is kept for one of them.
    """

    def __init__(self, link: RedisLink, node_id: bytes) -> None:
        """`node_id`: LND's, 33 bytes, as RedisStore has it."""
        self._link = link
        self._keys = Keys(node_id)
        self._prefix = self._keys.prefix
        self._aside = f"{self._prefix}import:"
        self._aside_keys = f"{self._prefix}import"

    # --- out --------------------------------------------------------------------------------------

    async def export(self) -> AsyncIterator[Record]:
        """All records, client by client, then wallet by wallet, each in the order of their ids.

        Raises StoreUnavailable also for what could not be imported again.
        """
        check = ExportCheck()
        try:
            for client_id, name in sorted((await self._clients()).items()):
                for record in await self._client(client_id, name):
                    check.record(record)
                    yield record
            for wallet in await self._wallets():
                for record in await self._wallet(wallet):
                    check.record(record)
                    yield record
            check.finish()
        except (BadExport, KeyError, ValueError) as error:
            raise StoreUnavailable(f"Redis holds what can't be exported: {error}") from error

    async def _clients(self) -> Mapping[bytes, bytes]:
        """The names of all clients, by id; a record without a name is what a crash left."""
        found: dict[bytes, bytes] = {}
        async for part in self._link.scan(self._keys.names):
            found |= {to_client_id(client_id): name for name, client_id in part.items()}
        return found

    async def _wallets(self) -> Sequence[bytes]:
        """The node ids of all wallets with webhooks, or with deliveries to such as are gone."""
        found: set[bytes] = set()
        async for part in self._link.scan(self._keys.webhook_nodes):
            found |= {to_node_id(node) for node in part}
        async for key in self._scan("{*}:deliveries"):
            found.add(bytes.fromhex(owner_of(key)[0]))
        return sorted(found)

    async def _scan(self, pattern: str) -> AsyncIterator[str]:
        """Keys behind the prefix; some may come twice."""
        async for key in self._link.scan_keys(self._prefix + pattern):
            yield self._behind_prefix(key)

    async def _client(self, client_id: bytes, name: bytes) -> list[Record]:
        """All of one client, as it was at one moment; nothing when it is gone."""
        keys, hex_id = self._keys, client_id.hex()
        while True:
            (before,) = await self._link.read(("HGETALL", keys.client(client_id)))
            node, slots = before.get(b"node_id"), sorted(to_index(before).slots)
            client, named, bound, use, letters, entries, *invoices = await self._link.read(
                ("HGETALL", keys.client(client_id)),
                ("HGET", keys.names, name),
                ("HGET", keys.nodes, (node or b"").hex()),
                ("HGET", keys.mail_uses, hex_id),
                ("HGETALL", keys.mail(client_id)),
                ("HGETALL", keys.mail_index(client_id)),
                *(("GET", keys.slot(client_id, slot)) for slot in slots),
                atomic=True,
            )
            # What was asked for must be all that there is: else something came in between.
            index = to_index(client).slots
            if client.get(b"node_id") == node and index.keys() <= set(slots):
                break
        if not client or named != hex_id.encode():
            return []
        # Another Redis has a lease of its own.
        client.pop(FENCE, None)
        owned = [self._hash(keys.client(client_id), client), Record("names", "hash", (name, named))]
        if node and bound == named:
            owned.append(Record("nodes", "hash", (node.hex().encode(), named)))
        for slot, invoice in zip(slots, invoices, strict=True):
            if invoice is not None:
                key, ends = self._behind_prefix(keys.slot(client_id, slot)), index[slot].expires_at * 1_000
                owned.append(Record(key, "string", (invoice,), ends))
        owned += self._mail(client_id, letters, entries)
        if use is not None:
            owned.append(Record("mail", "hash", (named, use)))
        return [record for record in owned if record.items]

    def _mail(
        self, client_id: bytes, letters: Mapping[bytes, bytes], entries: Mapping[bytes, bytes]
    ) -> list[Record]:
        # Both keys end at one time, and may do so just between the two that were read.
        index = {number: entry for number, entry in entries.items() if number in letters}
        if not index:
            return []
        ends = max(entry.ends_ms for entry in to_letter_entries(index))
        return [
            self._hash(self._keys.mail_index(client_id), index, ends),
            self._hash(self._keys.mail(client_id), {number: letters[number] for number in index}, ends),
        ]

    async def _wallet(self, wallet: bytes) -> list[Record]:
        """All of one wallet's webhooks, as it was at one moment."""
        keys = self._keys
        now, webhooks, since, deliveries, left_ms = await self._link.read(
            ("TIME",),
            ("HGETALL", keys.webhooks(wallet)),
            ("HGET", keys.webhook_nodes, wallet.hex()),
            ("LRANGE", keys.deliveries(wallet), 0, -1),
            ("PTTL", keys.deliveries(wallet)),
            atomic=True,
        )
        owned: list[Record] = []
        if webhooks and since is not None:
            owned.append(self._hash(keys.webhooks(wallet), webhooks))
            owned.append(Record("webhooks", "hash", (wallet.hex().encode(), since)))
        if deliveries and left_ms > 0:
            # Redis before 7 tells no moment, just what is left: to the minute it is always the same.
            ends = round((_milliseconds(now) + left_ms) / MINUTE_MS) * MINUTE_MS
            key = self._behind_prefix(keys.deliveries(wallet))
            owned.append(Record(key, "list", tuple(deliveries), ends))
        return owned

    def _hash(self, key: str, fields: Mapping[bytes, bytes], ends_ms: int | None = None) -> Record:
        items = tuple(item for field in sorted(fields) for item in (field, fields[field]))
        return Record(self._behind_prefix(key), "hash", items, ends_ms)

    def _behind_prefix(self, key: str) -> str:
        return key.removeprefix(self._prefix)

    # --- in ---------------------------------------------------------------------------------------

    async def check_empty(self) -> None:
        """Raise StoreNotEmpty, which says what is there, unless the node has no records."""
        others = 0
        async for key in self._scan("*"):
            if key.partition(":")[0] not in ("probe", "import", "lease"):
                others += 1
        if others:
            clients, wallets = await self._link.read(
                ("HLEN", self._keys.names), ("HLEN", self._keys.webhook_nodes)
            )
            raise StoreNotEmpty(
                f"something is kept here already ({clients} clients, webhooks of {wallets} wallets, {others} "
                "keys in all), and an import does not mix: start the sidecar on an empty Redis, or on a new "
                "data directory, and import there"
            )

    async def restore(self, records: AsyncIterable[Record]) -> Restored:
        """Write records that ExportCheck has passed; return once all are in force, and on disk.

        What has expired by Redis's clock is left out. Raises StoreNotEmpty, with nothing changed, also
        when something was kept here meanwhile.
        """
        await self.check_empty()
        await self._clear()
        try:
            (now,) = await self._link.read(("TIME",))
            restored = await self._write_aside(records, _milliseconds(now))
            if await (self._finish_by_slots() if self._link.clustered else self._finish()):
                raise StoreNotEmpty("something was kept here during the import: nothing was imported")
        except BaseException:
            with contextlib.suppress(StoreUnavailable):
                await self._clear()
            raise
        return restored

    async def _finish(self) -> bool:
        """Put all in force; True when something is there already, and nothing was changed."""
        args: list[Argument] = [self._prefix, self._aside]
        (there,) = await self._link.change(FINISH_IMPORT, [self._aside_keys], args, "import")
        return bool(there)

    async def _finish_by_slots(self) -> bool:
        """The same in a Cluster: what breaks off here leaves a part in force."""
        (names,) = await self._link.read(("SMEMBERS", self._aside_keys))
        owned: dict[str, list[str]] = {}
        for name in sorted(name.decode() for name in names):
            owned.setdefault(name.partition("}")[0], []).append(name)
        # An index that points to nobody yet does no harm; a client that is in no index would be unseen.
        groups = sorted(owned.values(), key=lambda group: group[0] not in SHARED)
        begun = False
        try:
            for group in groups:
                keys = [key for name in group for key in (self._aside_key(name), self._prefix + name)]
                (there,) = await self._link.change(PUT_IN_FORCE, keys, [], "import", durable=False)
                if there and not begun:
                    return True
                if there:
                    raise StoreUnavailable("something else was kept meanwhile")
                begun = True
            # Not each by itself: what is written before a change that is on disk is there too.
            await self._link.probe(self._keys.probe)
            await self._link.change_command("DEL", self._aside_keys)
        except StoreUnavailable as error:
            # Also of the first: a change whose answer was lost may have been made.
            raise StoreUnavailable(
                f"the import may be in force in part: delete the keys {self._prefix}*, and import again"
                f" ({error})"
            ) from error
        return False

    def _aside_key(self, name: str) -> str:
        """Where a key is written first: in the Cluster slot of the key itself, so that it can be renamed."""
        return f"{self._aside}{name}" if "{" in name else f"{self._aside}{{{self._prefix}{name}}}"

    async def _write_aside(self, records: AsyncIterable[Record], now_ms: int) -> Restored:
        restored = Restored()
        names: list[str] = []
        commands: list[Command] = []
        size, mail_gone = 0, False
        async for record in records:
            gone = record.expires_at_ms is not None and record.expires_at_ms <= now_ms
            if record.key.endswith(":mail"):
                mail_gone = gone
            if gone or (record.key == "mail" and mail_gone):
                continue
            _count(record, now_ms, restored)
            names.append(record.key)
            commands += self._writing(record)
            size += sum(map(len, record.items))
            if len(commands) >= BATCH or size >= BATCH_BYTES:
                await self._write(names, commands)
                names, commands, size = [], [], 0
        if commands:
            await self._write(names, commands)
        return restored

    async def _write(self, names: Sequence[str], commands: Sequence[Command]) -> None:
        # Their names first: what a crash leaves is found again.
        await self._link.change_command("SADD", self._aside_keys, *names, durable=False)
        await self._link.change_many(*commands)

    def _writing(self, record: Record) -> list[Command]:
        key = self._aside_key(record.key)
        commands: list[Command] = [(_WRITTEN_BY[record.type], key, *record.items)]
        if record.expires_at_ms is not None:
            commands.append(("PEXPIREAT", key, record.expires_at_ms))
        return commands

    async def _clear(self) -> None:
        """Remove what an import that was not finished has left aside."""
        while names := (await self._link.read(("SRANDMEMBER", self._aside_keys, BATCH)))[0]:
            await self._link.change_many(*(("UNLINK", self._aside_key(name.decode())) for name in names))
            await self._link.change_command("SREM", self._aside_keys, *names, durable=False)


def _milliseconds(time: Sequence[bytes]) -> int:
    """What Redis answers to TIME."""
    return int(time[0]) * 1_000 + int(time[1]) // 1_000


def _count(record: Record, now_ms: int, restored: Restored) -> None:
    if record.key in SHARED:
        return
    rest = owner_of(record.key)[1]
    if rest == "":
        restored.clients += 1
    elif rest == ":webhooks":
        restored.webhooks += len(record.items) // 2
    elif rest == ":mail:index":
        fields = dict(zip(record.items[::2], record.items[1::2], strict=True))
        restored.letters += sum(entry.ends_ms > now_ms for entry in to_letter_entries(fields))
    elif rest[1:].isdigit():
        restored.invoices += 1
