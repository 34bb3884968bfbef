"""What the records of an export must say: those of a store on a real Redis, each changed in turn."""

import time
from dataclasses import replace

import pytest

from sidecar.adapters import backup_check
from sidecar.adapters.backup_check import ExportCheck
from sidecar.adapters.redis_backup import RedisBackup
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.backup import Record
from sidecar.core.errors import BadExport
from tests.adapters.conftest import NODE
from tests.harness.backup_scene import backup_of, exported, furnish


@pytest.fixture
def backup(store: RedisStore) -> RedisBackup:
    """Of the store on each server."""
    return backup_of(store, NODE)


async def checked(records: list[Record]) -> None:
    """What an import does before it writes. Raises BadExport."""
    check = ExportCheck()
    for record in records:
        check.record(record)
    check.finish()


def with_field(record: Record, field: bytes, value: bytes) -> Record:
    """A hash with one field set anew."""
    items = list(record.items)
    items[items.index(field) + 1] = value
    return replace(record, items=tuple(items))


def edits(record: Record) -> list[Record]:
    """The record with words that it can't have: each must be refused."""
    wrong = [
        replace(record, key=record.key + ":more"),
        replace(record, type="list" if record.type == "hash" else "hash", items=record.items * 2),
        replace(record, expires_at_ms=7 if record.expires_at_ms is None else None),
    ]
    if record.key in ("names", "nodes", "webhooks", "mail") or record.key.endswith(":index"):
        wrong.append(replace(record, items=(*record.items[:-1], b"7.")))
    elif record.type == "hash" and record.key.endswith("}"):
        wrong += [with_field(record, b"state", b"asleep"), with_field(record, b"name", b"another")]
    elif record.type == "string":
        wrong += [replace(record, items=(packed,)) for packed in (record.items[0][:-1], b"1:1:ldk:0:", b"7.")]
    if record.expires_at_ms is not None and record.type != "list":
        wrong.append(replace(record, expires_at_ms=record.expires_at_ms + 1))
    return wrong


async def test_records_that_do_not_fit_each_other_are_refused(store: RedisStore, backup: RedisBackup) -> None:
    """Each record changed in ways that our scripts could not have left, left out, doubled, or put first."""
    await furnish(store)
    records = await exported(backup)
    await checked(records)
    tried = 0
    for position, record in enumerate(records):
        for wrong in edits(record):
            tried += 1
            with pytest.raises(BadExport):
                await checked([*records[:position], wrong, *records[position + 1 :]])
        if record.type == "hash":
            with pytest.raises(BadExport):
                await checked([*records[:position], record, record, *records[position + 1 :]])
    assert tried > 3 * len(records)


@pytest.mark.parametrize("key", ["names", "{client}", ":mail", ":mail:index", "webhooks", ":webhooks"])
async def test_a_record_that_others_need_must_be_there(
    store: RedisStore, backup: RedisBackup, key: str
) -> None:
    """A client without its name would live on unseen, a letter without its entry would never go."""
    await furnish(store)
    records = await exported(backup)
    names = [record.key if record.key in ("names", "webhooks") else record.key[22:] for record in records]
    wanted = "" if key == "{client}" else key
    positions = [
        position
        for position, record in enumerate(records)
        if names[position] == wanted or record.key.endswith(f"}}{key}")
    ]
    assert positions
    with pytest.raises(BadExport):
        await checked([*records[: positions[0]], *records[positions[0] + 1 :]])


@pytest.mark.parametrize(
    "key",
    [
        "",
        "probe",
        "import",
        "{00}",
        "{" + "0" * 19 + "G}",
        "x{" + "0" * 20 + "}",
        "{" + "0" * 20 + "}:more",
        "*",
    ],
)
async def test_a_key_that_we_do_not_have_is_refused(key: str) -> None:
    """Whatever is in force after an import is what a sidecar of this version knows."""
    with pytest.raises(BadExport):
        await checked([Record(key, "hash", (b"a", b"b"))])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (b"name", b"al ice\n", "is no name"),
        (b"name", b"00" * 10, "is no name"),
        (b"slots", b"1000000000", "slots: 1000000000 is not allowed"),
        (b"requests_per_second", b"nan", "a rate of nan"),
        (b"0", b"+1:2:3:4:5:nonce", "entry is not ours"),
        (b"00", b"1:2:3:4:5:nonce", "a slot 00"),
    ],
)
async def test_a_client_that_could_not_have_been_added_is_refused(
    field: bytes, value: bytes, said: str
) -> None:
    """A name that could be an id, a limit that is none, a slot that the scripts would refuse for ever."""
    fields = {b"name": b"alice", b"state": b"active", b"generation": b"1", b"created_at": b"1"}
    fields[field] = value
    hex_id = "00" * 10
    records = [
        Record(f"{{{hex_id}}}", "hash", tuple(item for pair in fields.items() for item in pair)),
        Record("names", "hash", (fields[b"name"], hex_id.encode())),
    ]
    with pytest.raises(BadExport, match=said):
        await checked(records)
    fields = fields | {b"name": b"alice"}
    if field != b"name":
        del fields[field]
    records[0] = Record(records[0].key, "hash", tuple(item for pair in fields.items() for item in pair))
    records[1] = Record("names", "hash", (b"alice", hex_id.encode()))
    await checked(records)


def test_more_than_a_client_can_have_is_not_even_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export of any length takes memory for one client alone."""
    monkeypatch.setattr(backup_check, "MAX_ITEMS", 100)
    check = ExportCheck()
    part = Record("{" + "00" * 10 + "}:mail", "hash", (b"1", b"") * 10, 7)
    for _ in range(5):
        check.record(part)
    with pytest.raises(BadExport, match=f"holds more of {'00' * 10} than there can be"):
        check.record(part)


def test_the_parts_of_a_client_are_put_together_in_a_time_that_grows_with_them() -> None:
    """Not with their square: a long file would keep a thread busy for hours."""

    def seconds(parts: int) -> float:
        check, start = ExportCheck(), time.process_time()
        for number in range(parts):
            check.record(Record("{" + "00" * 10 + "}:mail", "hash", (b"%d" % number, b""), 7))
        return time.process_time() - start

    assert seconds(32_000) < 20 * max(seconds(4_000), 0.01)


async def test_two_clients_of_one_name_or_node_are_refused(store: RedisStore, backup: RedisBackup) -> None:
    """One of them would be lost in the index."""
    furnished = await furnish(store)
    records = await exported(backup)
    node = furnished.alice.node_id
    assert node is not None
    client = [record for record in records if record.key.startswith(f"{{{furnished.alice.client_id.hex()}}}")]
    other = "ff" * 10

    def twin(record: Record, name: bytes) -> Record:
        return replace(with_field(record, b"name", name), key=f"{{{other}}}")

    for name, extra, said in (
        (b"alice", [], "its name is given twice"),
        (
            b"twin",
            [Record("nodes", "hash", (node.hex().encode(), other.encode()))],
            "its node is bound twice",
        ),
    ):
        added = [twin(client[0], name), Record("names", "hash", (name, other.encode())), *extra]
        clients = [record for record in records if "webhooks" not in record.key and "deliv" not in record.key]
        with pytest.raises(BadExport, match=said):
            await checked([*clients, *added])


async def test_a_mailbox_holds_what_its_index_says_and_no_number_to_come(
    store: RedisStore, backup: RedisBackup
) -> None:
    """A letter without an entry would never go; one with a number to come would be overwritten."""
    await furnish(store)
    records = await exported(backup)
    box = next(position for position, record in enumerate(records) if record.key.endswith("}:mail"))
    owner = records[box].key.removesuffix(":mail")
    more = replace(records[box], items=(*records[box].items, b"999", bytes(66)))
    with pytest.raises(BadExport, match="a letter is not in the index"):
        await checked([*records[:box], more, *records[box + 1 :]])
    client = next(position for position, record in enumerate(records) if record.key == owner)
    fewer = with_field(records[client], b"mail", b"1")
    with pytest.raises(BadExport, match="number is beyond its client's"):
        await checked([*records[:client], fewer, *records[client + 1 :]])
