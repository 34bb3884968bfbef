"""What a client has in its slots: packed, and read back, by us and by the scripts."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.adapters.redis_records import unpacked
from sidecar.adapters.redis_slots import (
    MOST_BYTES,
    SlotEntry,
    packed_invoice,
    to_index,
    to_invoice,
    to_slot_entry,
)
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import StoreUnavailable
from sidecar.core.model import (
    BoundBy,
    ClientState,
    Family,
    OfferTag,
    Quota,
    SlotMark,
    StoredInvoice,
    TimestampForm,
)
from tests.adapters.conftest import Server
from tests.harness.store_contract import a_bound_client, a_client, an_invoice, until

TIMES = st.integers(min_value=0, max_value=1 << 40)
TAGS = st.builds(OfferTag, issued_at_ms=TIMES, nonce=st.binary(min_size=6, max_size=6))


def entry_of(invoice: StoredInvoice) -> SlotEntry:
    """What its client's record would say of it."""
    return SlotEntry(invoice.size, invoice.expires_at, 0, SlotMark(invoice.tag, 0))


def saved(invoice: StoredInvoice) -> bytes:
    """What save.lua makes of it."""
    return b"1800000000000:" + packed_invoice(invoice)


@given(
    st.builds(
        StoredInvoice,
        slot=st.just(7),
        tag=TAGS,
        invoice=st.binary(),
        forward_path=st.binary(),
        family=st.sampled_from(Family),
        created_at=TIMES,
        stored_at=TIMES,
        expires_at=TIMES,
    )
)
def test_an_invoice_is_both_its_parts(invoice: StoredInvoice) -> None:
    """What is not in its entry is in the slot, whatever the bytes look like."""
    assert to_invoice(7, entry_of(invoice), saved(invoice)) == invoice


@given(TAGS, TIMES, TIMES, TIMES, TIMES)
def test_an_entry_is_its_line(
    tag: OfferTag, size: int, expires_at: int, mark_until: int, created: int
) -> None:
    """Colons in a nonce end nothing; fields of the client's own are words, and no slots."""
    line = f"{size}:{expires_at}:{mark_until}:{tag.issued_at_ms}:{created}:".encode() + tag.nonce
    entry = SlotEntry(size, expires_at, mark_until, SlotMark(tag, created))
    assert to_slot_entry(line) == entry
    assert to_index({b"name": b"alice", b"3": line, b"mail": b"4"}).slots == {3: entry}


def test_a_slot_that_is_not_its_entrys_is_not_read() -> None:
    """Sizes must agree, a path must fit in, and not a bit may have changed."""
    invoice = an_invoice()
    entry, packed = entry_of(invoice), saved(invoice)
    head, body = packed.rsplit(b":", 1)[0], zlib.compress(invoice.forward_path + invoice.invoice)
    changed = bytearray(packed)
    changed[-1] ^= 1
    for other, slot in (
        (replace(entry, size=entry.size - 1), packed),
        (replace(entry, size=entry.size + 1), packed),
        (entry, packed[:-1]),
        (entry, bytes(changed)),
        (entry, b"1:1:1:ldk:%d:" % (entry.size + 1) + body),
        (entry, b"1:1:1:ldk:-1:" + body),
        (entry, head.replace(invoice.family.value.encode(), b"icq") + b":" + body),
        (entry, b"junk"),
        (entry, packed_invoice(invoice)),
        (entry, b"now" + packed),
    ):
        with pytest.raises(StoreUnavailable, match="can't be read"):
            to_invoice(0, other, slot)


@pytest.mark.parametrize("size", [b"+5", b"-5", b" 5", b"1_0", b"", b"5.0", b"5\n", b"1" * 16])
def test_an_entry_that_the_scripts_would_not_take_is_not_read(size: bytes) -> None:
    """What Python takes for a number is more than what Lua's patterns do: one of both would count it."""
    rest = b":2:3:4:5:nonce\n"
    assert to_slot_entry(b"5" + rest).mark.tag.nonce == b"nonce\n"
    with pytest.raises(StoreUnavailable, match="can't be read"):
        to_slot_entry(size + rest)


def test_a_slot_has_one_name() -> None:
    """The scripts count `07` beside `7`: it is not ours."""
    line = b"1:2:3:4:5:nonce"
    assert list(to_index({b"0": line, b"10": line}).slots) == [0, 10]
    for name in (b"07", b"00"):
        with pytest.raises(StoreUnavailable, match="can't be read"):
            to_index({name: line})


def test_what_claims_to_be_large_is_not_unpacked_at_all() -> None:
    """Nor may the entry itself say that there are gigabytes: more than a message brings is not ours."""
    for size, said in ((MOST_BYTES, "has 2 bytes"), (MOST_BYTES + 1, f"counts {MOST_BYTES + 1} bytes")):
        entry = SlotEntry(size, 0, 0, SlotMark(OfferTag(0, b""), 0))
        with pytest.raises(StoreUnavailable, match=said):
            to_invoice(0, entry, b"1:1:1:ldk:0:" + zlib.compress(b"ab"))


def test_what_claims_to_be_small_is_not_unpacked_beyond_that() -> None:
    """An import may hold anything: a few bytes that would become a gigabyte are refused by their size."""
    entry = SlotEntry(1_000, 0, 0, SlotMark(OfferTag(0, b""), 0))
    with pytest.raises(StoreUnavailable, match="1001 bytes or more"):
        to_invoice(0, entry, b"1:1:1:ldk:0:" + zlib.compress(bytes(1 << 20)))


@given(st.lists(st.none() | st.binary()))
def test_a_reply_in_one_is_its_values(values: list[bytes | None]) -> None:
    """None, empty, and any bytes."""
    sizes = " ".join(str(-1 if value is None else len(value)) for value in values)
    assert unpacked(sizes.encode() + b"\n" + b"".join(value or b"" for value in values)) == values


async def test_a_load_brings_all_of_a_client(store: RedisStore) -> None:
    """With all limits of its own and all that is known of it: the script names each field."""
    every = Quota(*(number + 1 for number in range(9)))
    own = replace(a_bound_client(), quota=replace(every, requests_per_second=0.5), generation=3)
    other = replace(a_bound_client("bob"), bound_by=BoundBy.LEARNT, state=ClientState.PAUSED)
    for client in (own, other):
        await store.add_client(client)
        timed = await store.set_timestamps(client.client_id, TimestampForm.Z)
        assert timed == replace(client, timestamps=TimestampForm.Z)
        assert (await store.load(client.client_id, 0)).client == timed


async def test_a_client_and_its_slots_are_kept_packed(store: RedisStore, server: Server) -> None:
    """A hash with one long value takes several times as much memory: none of a client's is long."""
    client = a_bound_client()
    await store.add_client(client)
    for slot in range(4):
        await store.save(client.client_id, an_invoice(slot, size=900), until())
    key = store._keys.client(client.client_id)
    assert server.command("OBJECT", "ENCODING", key) in (b"ziplist", b"listpack")


async def test_a_client_with_many_slots_is_loaded_as_fast(store: RedisStore, server: Server) -> None:
    """Only the slot that was asked for leaves Redis."""
    client = a_client(slots=200, size=1 << 20)
    await store.add_client(client)
    for slot in range(150):
        await store.save(client.client_id, an_invoice(slot), until())
    before = server.command("INFO", "stats")
    loaded = await store.load(client.client_id, 77)
    after = server.command("INFO", "stats")
    assert loaded.invoice is not None
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    # INFO's own answer is in it too.
    sent = after["total_net_output_bytes"] - before["total_net_output_bytes"]
    assert sent < loaded.invoice.size + 10_000
