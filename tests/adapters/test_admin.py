"""The admin service over a real Unix socket: its answers and its refusals."""

import math
from dataclasses import replace
from typing import Any

import grpc
import pytest

from sidecar.adapters.admin_records import quota_message
from sidecar.allowances import Limit
from sidecar.core.errors import LndUnavailable, SidecarError
from sidecar.core.mailbox import Queue
from sidecar.core.model import Quota
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.admin_world import NODE, STATUS, Refusal, Running
from tests.harness.allowed import DEFAULTS as DEFAULT_SETTINGS
from tests.harness.allowed import LIMITS
from tests.harness.mail_contract import ALICE, BOB, PLENTY, ROOM, a_letter
from tests.harness.shell import telling
from tests.harness.store_contract import an_invoice, until

# --- clients ------------------------------------------------------------------------------------


async def test_an_added_client_is_kept_and_gets_paths(running: Running) -> None:
    """The answer holds the whole client, and the paths for its first generation."""
    added = await running.add()
    client = added.client
    kept = await running.store.find_client("alice")
    assert kept.client_id.hex() == client.client_id
    assert (client.name, client.generation) == ("alice", 1)
    assert client.state == admin_pb2.CLIENT_STATE_ACTIVE
    assert (client.quota, client.limits) == (admin_pb2.Quota(), quota_message(LIMITS))
    assert added.paths == b"\x00\x01" + kept.client_id + b"\x01"
    assert kept.quota == Quota()


async def test_client_ids_are_never_the_same(running: Running) -> None:
    """Not even for the same name, after its first owner is gone."""
    seen = set()
    for _ in range(5):
        seen.add((await running.add()).client.client_id)
        await running.stub.RemoveClient(admin_pb2.RemoveClientRequest(name="alice"))
    assert len(seen) == 5


async def test_a_limit_that_is_given_is_the_clients_own(running: Running) -> None:
    """And all others follow the settings."""
    added = (await running.add(slots=3)).client
    assert added.quota == admin_pb2.Quota(slots=3)
    assert added.limits == quota_message(replace(LIMITS, slots=3))
    assert (await running.store.find_client("alice")).quota == Quota(slots=3)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 64, "ab" * 9, "ab" * 11, "g" * 20, "..", "-h"])
async def test_a_good_name_is_taken(running: Running, name: str) -> None:
    """1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`."""
    assert (await running.add(name)).client.name == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a/b", "a\n", "älice", "a\0", "{a}", "0" * 20, "deadBEEF0123456789ab"]
)
async def test_a_bad_name_is_refused(running: Running, name: str) -> None:
    """As is a name that could be a client's id: nobody could tell whom `remove` means."""
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-name") as refused:
        await running.add(name)
    assert "\n" not in refused.text
    assert list(await running.store.list_clients()) == []


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("slots", [0, 1_001]),
        ("bytes", [0, (1 << 30) + 1]),
        ("ttl_seconds", [0, 59, 1 << 40]),
        ("requests_per_second", [0.0, -1.0, 1_000_000.5, math.nan, math.inf]),
        ("requests_burst", [0, 10_001]),
        ("stores_per_minute", [0, 100_001]),
        ("offer_paths_per_minute", [0, 100_001]),
        ("mailbox_letters", [0, 10_001]),
        ("mailbox_bytes", [0, (1 << 30) + 1]),
    ],
)
async def test_a_limit_out_of_bounds_is_refused(running: Running, field: str, values: list[float]) -> None:
    """With the field and its bounds in the text, and nothing changed; 0 is no word for the default."""
    await running.add()
    for value in values:
        with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config") as refused:
            await running.add("bob", **{field: value})
        assert refused.text.startswith(field.removesuffix("_seconds"))
        with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config"):
            await running.update({field: value})
    ((client, _),) = await running.store.list_clients()
    assert (client.name, client.quota) == ("alice", Quota())


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("slots", [1, 1_000]),
        ("bytes", [1, 1 << 30]),
        ("ttl_seconds", [60, 3_650 * 86_400]),
        ("requests_per_second", [0.001, 1_000_000.0]),
        ("requests_burst", [1, 10_000]),
        ("stores_per_minute", [1, 100_000]),
        ("offer_paths_per_minute", [1, 100_000]),
        ("mailbox_letters", [1, 10_000]),
        ("mailbox_bytes", [1, 1 << 30]),
    ],
)
async def test_a_limit_at_its_bound_is_taken(running: Running, field: str, values: list[float]) -> None:
    """As far as the settings go, and no less."""
    await running.add()
    for value in values:
        updated = await running.update({field: value})
        assert getattr(updated.quota, field) == getattr(updated.limits, field) == value


async def test_limits_are_changed_one_by_one(running: Running) -> None:
    """What is set joins what was set, what is reset follows the settings again, at once and for good."""
    await running.add(slots=3)
    updated = await running.update({"requests_per_second": 0.5, "mailbox_letters": 7})
    assert updated.quota == admin_pb2.Quota(slots=3, requests_per_second=0.5, mailbox_letters=7)
    updated = await running.update({"stores_per_minute": 2}, ["slots", "requests_per_second"])
    assert updated.quota == admin_pb2.Quota(mailbox_letters=7, stores_per_minute=2)
    own = replace(LIMITS, mailbox_letters=7, stores_per_minute=2)
    assert updated.limits == quota_message(own)
    assert (await running.show()).client == updated
    client = await running.store.find_client("alice")
    assert running.allowances.limits_of(client.client_id) == own


async def test_other_settings_hold_for_all_that_is_not_a_clients_own(running: Running) -> None:
    """They are shown as they are now, for old clients too."""
    await running.add(bytes=999)
    running.allowances.set_defaults(replace(DEFAULT_SETTINGS, client=replace(LIMITS, slots=4, bytes=5)))
    limits = (await running.show()).client.limits
    assert (limits.slots, limits.bytes) == (4, 999)


@pytest.mark.parametrize(
    ("reset", "text"),
    [(["mail"], "'mail' is no limit"), (["ttl"], "'ttl' is no"), (["slots"], "slots can't be")],
)
async def test_what_can_not_be_reset_is_refused(running: Running, reset: list[str], text: str) -> None:
    """A name that is no limit's, or one that is set in the same call; nothing is changed."""
    await running.add()
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config") as refused:
        await running.update({"slots": 3}, reset)
    assert text in refused.text
    assert (await running.store.find_client("alice")).quota == Quota()


async def test_a_client_is_paused_and_resumed(running: Running) -> None:
    """All that it has stays, its paths too; both may be said twice."""
    before = await running.add()
    client = await running.store.find_client("alice")
    await running.store.save(client.client_id, an_invoice(), until())
    for _ in range(2):
        paused = await running.pause()
        assert (paused.state, paused.slots_used) == (admin_pb2.CLIENT_STATE_PAUSED, 1)
        assert running.allowances.is_paused(client.client_id)
    shown = await running.show()
    assert (shown.client, shown.paths) == (paused, before.paths)
    for _ in range(2):
        assert (await running.resume()).state == admin_pb2.CLIENT_STATE_ACTIVE
        assert not running.allowances.is_paused(client.client_id)


async def test_a_revoked_client_is_neither_paused_nor_resumed_nor_changed(running: Running) -> None:
    """There is no way back from being revoked but removing it."""
    await running.add()
    await running.stub.RevokeClient(admin_pb2.RevokeClientRequest(name="alice"))
    for call in (running.pause, running.resume, lambda: running.update({"slots": 3})):
        with Refusal(grpc.StatusCode.FAILED_PRECONDITION, "client-revoked") as refused:
            await call()
        assert "sidecar client remove alice" in refused.text
    assert (await running.show()).client.state == admin_pb2.CLIENT_STATE_REVOKED


async def test_what_was_refused_is_shown_by_limit(running: Running) -> None:
    """In the list as well; a client that is gone leaves nothing behind."""
    added = await running.add()
    client_id = bytes.fromhex(added.client.client_id)
    running.allowances.refuse(client_id, Limit.STORES, 2)
    running.allowances.refuse(client_id, Limit.PAUSED)
    expected = {"stores": 2, "paused": 1}
    assert dict((await running.show()).client.refused) == expected
    (listed,) = (await running.stub.ListClients(admin_pb2.ListClientsRequest())).clients
    assert dict(listed.refused) == expected
    await running.stub.RemoveClient(admin_pb2.RemoveClientRequest(name="alice"))
    assert running.allowances.refusals(client_id) == {}


async def test_what_waits_for_a_client_is_listed(running: Running) -> None:
    """Oldest first: number, queue, bytes, since when, and who brought it; not what it says."""
    added = await running.add()
    client_id = bytes.fromhex(added.client.client_id)
    letters = [a_letter(ALICE), a_letter(BOB, queue=Queue.REQUESTS)]
    numbers = [(await running.store.keep(client_id, each, PLENTY, ROOM)).number for each in letters]
    listed = (await running.stub.ListMail(admin_pb2.ListMailRequest(name="alice"))).letters
    assert list(listed) == [
        admin_pb2.MailLetter(
            number=number,
            queue=letter.queue.value,
            bytes=letter.size,
            kept_at_ms=letter.kept_at_ms,
            sender=letter.sender.hex(),
        )
        for number, letter in zip(numbers, letters, strict=True)
    ]


async def test_the_same_name_twice_is_refused(running: Running) -> None:
    """The first client stays as it was."""
    first = await running.add()
    with Refusal(grpc.StatusCode.ALREADY_EXISTS, "name-taken") as refused:
        await running.add()
    assert "there is a client alice already" in refused.text
    assert (await running.show()).client == first.client


async def test_a_client_without_paths_is_not_kept(running: Running) -> None:
    """When LND is away the name stays free for another try."""
    running.issuer.error = LndUnavailable("LND does not answer")
    with Refusal(grpc.StatusCode.UNAVAILABLE, "lnd-unavailable"):
        await running.add()
    running.issuer.error = None
    await running.add()


async def test_clients_are_listed_with_their_use(running: Running) -> None:
    """By name, with slots and bytes used."""
    for name in ("bob", "alice"):
        await running.add(name)
    bob = await running.store.find_client("bob")
    await running.store.save(bob.client_id, an_invoice(1, size=700), until())
    listed = (await running.stub.ListClients(admin_pb2.ListClientsRequest())).clients
    assert [(each.name, each.slots_used, each.bytes_used) for each in listed] == [
        ("alice", 0, 0),
        ("bob", 1, 700),
    ]


async def test_show_tells_when_each_slot_ends(running: Running) -> None:
    """By name or by id: slots in order, use of the quota, and the paths once more."""
    added = await running.add()
    client_id = bytes.fromhex(added.client.client_id)
    invoices = [an_invoice(slot, size=600 + slot) for slot in (0, 4)]
    for invoice in reversed(invoices):
        await running.store.save(client_id, invoice, until())
    shown = await running.show()
    assert shown == await running.show(added.client.client_id)
    assert shown.paths == added.paths
    assert (shown.client.slots_used, shown.client.bytes_used) == (2, 1_204)
    assert list(shown.slots) == [
        admin_pb2.Slot(
            slot=invoice.slot,
            expires_at=invoice.expires_at,
            invoice_created_at=invoice.created_at,
            stored_at=invoice.stored_at,
            bytes=invoice.size,
            family="ldk",
        )
        for invoice in invoices
    ]


async def test_rotating_gives_new_paths(running: Running) -> None:
    """The generation rises, and the paths are those of the new one."""
    await running.add()
    rotated = await running.stub.RotateClient(admin_pb2.RotateClientRequest(name="alice"))
    assert rotated.client.generation == 2
    assert rotated.paths.endswith(b"\x02")
    assert (await running.show()).paths == rotated.paths


async def test_a_revoked_client_has_no_paths_and_gets_none(running: Running) -> None:
    """Its paths are met with silence: handing them out would mislead."""
    await running.add()
    revoked = await running.stub.RevokeClient(admin_pb2.RevokeClientRequest(name="alice"))
    assert revoked.client.state == admin_pb2.CLIENT_STATE_REVOKED
    shown = await running.show()
    assert (shown.client, shown.paths) == (revoked.client, b"")
    with Refusal(grpc.StatusCode.FAILED_PRECONDITION, "client-revoked") as refused:
        await running.stub.RotateClient(admin_pb2.RotateClientRequest(name="alice"))
    assert "sidecar client remove alice" in refused.text
    assert (await running.show()).client.generation == 1


async def test_calls_for_nobody_are_refused(running: Running) -> None:
    """Each call that names a client says that there is none of that name."""
    stub, calls = running.stub, admin_pb2
    each: tuple[tuple[Any, Any], ...] = (
        (stub.ShowClient, calls.ShowClientRequest(name="bob")),
        (stub.RotateClient, calls.RotateClientRequest(name="bob")),
        (stub.RevokeClient, calls.RevokeClientRequest(name="bob")),
        (stub.RemoveClient, calls.RemoveClientRequest(name="bob")),
        (stub.RebindClient, calls.RebindClientRequest(name="bob", node_id=NODE.hex())),
        (stub.RebindClient, calls.RebindClientRequest(name="bob")),
        (stub.UpdateClient, calls.UpdateClientRequest(name="bob")),
        (stub.PauseClient, calls.PauseClientRequest(name="bob")),
        (stub.ResumeClient, calls.ResumeClientRequest(name="bob")),
        (stub.ListMail, calls.ListMailRequest(name="bob")),
        (stub.SetTimestamps, calls.SetTimestampsRequest(name="bob", timestamps="z")),
    )
    for call, request in each:
        with Refusal(grpc.StatusCode.NOT_FOUND, "no-such-client") as refused:
            await call(request)
        assert "no client 'bob'" in refused.text


async def test_status_is_what_the_server_says(running: Running) -> None:
    """Field by field."""
    status = await running.stub.GetStatus(admin_pb2.GetStatusRequest())
    for name in ("version", "node_id", "lnd_version", "mode", "network", "redis", "durability", "stream_up"):
        assert getattr(status, name) == getattr(STATUS, name)
    assert dict(status.counters) == STATUS.counters
    assert (status.role, status.leader) == ("leads", "")


async def test_status_of_one_that_stands_by_names_who_leads(running: Running) -> None:
    """So that whoever asks finds that one."""
    running.service._status = telling(replace(STATUS, leads=False, leader="left"))
    status = await running.stub.GetStatus(admin_pb2.GetStatusRequest())
    assert (status.role, status.leader) == ("stands by", "left")


# --- errors -------------------------------------------------------------------------------------


async def test_a_store_that_is_away_is_unavailable(running: Running) -> None:
    """Which passes: the same call works when it is back."""
    running.store.away = True
    with Refusal(grpc.StatusCode.UNAVAILABLE, "store-unavailable"):
        await running.add()
    running.store.away = False
    await running.add()


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (RuntimeError("secret inside"), "internal", "the server failed inside; its log says why"),
        (SidecarError("odd"), "error", "odd"),
    ],
)
async def test_a_fault_is_internal_and_logged(
    running: Running, caplog: pytest.LogCaptureFixture, error: Exception, reason: str, text: str
) -> None:
    """The caller gets a plain text, the log the cause."""
    running.issuer.error = error
    with Refusal(grpc.StatusCode.INTERNAL, reason) as refused:
        await running.add()
    assert refused.text == text
    assert str(error) in caplog.text
