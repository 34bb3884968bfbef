"""Records as they stand in Redis, to text and back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.adapters.redis_records import (
    LetterEntry,
    client_fields,
    packed_delivery,
    packed_letter,
    to_client,
    to_delivery,
    to_letter,
    to_letter_entries,
    to_webhook,
)
from sidecar.core.errors import StoreUnavailable
from sidecar.core.mailbox import Letter, Queue
from sidecar.core.model import BoundBy, Client, ClientState, Quota, TimestampForm
from sidecar.core.webhooks import Delivery
from tests.harness.store_contract import a_bound_client, a_client

NODES = st.binary(min_size=33, max_size=33)
TIMES = st.integers(min_value=0, max_value=1 << 48)
U32 = st.integers(0, 2**32 - 1)
SLUGS = st.text("abcdefghijklmnopqrstuvwxyz-._0123456789", min_size=1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]))


def record_of(client: Client) -> dict[bytes, bytes]:
    """What HGETALL would answer."""
    fields = [each if isinstance(each, bytes) else str(each).encode() for each in client_fields(client)]
    return dict(zip(fields[::2], fields[1::2], strict=True))


@given(
    st.builds(
        Letter,
        queue=st.sampled_from(Queue),
        to=NODES,
        path_key=NODES,
        onion=st.binary(),
        sender=NODES,
        key=st.binary(),
        kept_at_ms=TIMES,
    )
)
def test_a_letter_is_both_its_parts(letter: Letter) -> None:
    """What is not in the index is in the packed letter, and nothing is lost between them."""
    index = ":".join(
        (
            *(letter.queue.value, letter.sender.hex(), str(letter.size)),
            *(str(letter.kept_at_ms), "99", letter.key.hex()),
        )
    )
    (entry,) = to_letter_entries({b"7": index.encode()})
    assert (entry.number, entry.ends_ms) == (7, 99)
    assert to_letter(entry, packed_letter(letter)) == letter


@pytest.mark.parametrize("packed", [b"", bytes(65), bytes(67)])
def test_a_letter_that_is_not_its_entrys_is_not_read(packed: bytes) -> None:
    """Their sizes must agree."""
    entry = LetterEntry(1, Queue.MESSAGES, b"", 99, 0, 0, b"")
    assert to_letter(entry, bytes(66)).onion == b""
    with pytest.raises(StoreUnavailable, match="can't be read"):
        to_letter(entry, packed)


@given(st.builds(Delivery, at_ms=TIMES, app_name=NAMES, method=SLUGS, outcome=SLUGS, tries=U32))
def test_a_delivery_is_its_line(delivery: Delivery) -> None:
    """Whatever the app is called."""
    assert to_delivery(packed_delivery(delivery).encode()) == delivery


@given(NAMES, NAMES)
def test_a_webhook_is_its_name_and_line(app_name: str, url: str) -> None:
    """Colons in a URL end nothing."""
    webhook = to_webhook(app_name.encode(), b"1:2:3:0:4:" + url.encode())
    assert (webhook.app_name, webhook.url, webhook.registered_at) == (app_name, url, 4)
    assert (webhook.state.announced, webhook.state.failures) == (True, 2)
    assert (webhook.state.paused_until, webhook.state.paused) == (3, False)


@pytest.mark.parametrize("form", [None, *TimestampForm])
@pytest.mark.parametrize("by", BoundBy)
def test_a_client_is_its_record(form: TimestampForm | None, by: BoundBy) -> None:
    """With its node or without, and with all limits of its own or none."""
    every = Quota(*(number + 1 for number in range(9)))
    own = replace(a_client(), quota=replace(every, requests_per_second=1e-07), state=ClientState.PAUSED)
    none = replace(a_client(), quota=Quota())
    for client in (a_client(), own, none, replace(a_bound_client(), bound_by=by, timestamps=form)):
        assert to_client(client.client_id, record_of(client)) == client


def test_a_client_of_an_earlier_version_is_read() -> None:
    """A record from before nodes were known has no such field, and a client without a node writes none."""
    client = a_client()
    record = record_of(client)
    assert set(record) == {b"name", b"state", b"generation", b"slots", b"bytes", b"ttl", b"created_at"}
    found = to_client(client.client_id, record)
    assert (found.node_id, found.bound_by, found.timestamps) == (None, None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [(b"node_id", b"02"), (b"node_id", b"me"), (b"bound_by", b"god"), (b"timestamps", b"")],
)
def test_a_clients_node_that_we_did_not_write_is_not_read(field: bytes, value: bytes) -> None:
    """A node id has 33 bytes, and words are those that we know."""
    client = a_bound_client()
    with pytest.raises(StoreUnavailable, match="can't be read"):
        to_client(client.client_id, record_of(client) | {field: value})
