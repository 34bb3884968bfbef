"""The admin service over a real Unix socket: its answers and its refusals."""

from typing import Any

import grpc
import pytest

from sidecar.core.errors import LndUnavailable, SidecarError
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.admin_world import DEFAULTS, NODE, STATUS, Refusal, Running
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
    assert client.quota == admin_pb2.Quota(slots=10, bytes=131_072, ttl_seconds=31_536_000)
    assert added.paths == b"\x00\x01" + kept.client_id + b"\x01"
    assert kept.quota == DEFAULTS


async def test_client_ids_are_never_the_same(running: Running) -> None:
    """Not even for the same name, after its first owner is gone."""
    seen = set()
    for _ in range(5):
        seen.add((await running.add()).client.client_id)
        await running.stub.RemoveClient(admin_pb2.RemoveClientRequest(name="alice"))
    assert len(seen) == 5


async def test_a_quota_field_of_0_takes_the_default(running: Running) -> None:
    """And one that is given is kept."""
    added = await running.add(slots=3)
    assert added.client.quota == admin_pb2.Quota(slots=3, bytes=131_072, ttl_seconds=31_536_000)


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
    "quota", [{"slots": 1_001}, {"bytes": (1 << 30) + 1}, {"ttl_seconds": 59}, {"ttl_seconds": 1 << 40}]
)
async def test_a_quota_out_of_bounds_is_refused(running: Running, quota: dict[str, int]) -> None:
    """With the field and its bounds in the text."""
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config") as refused:
        await running.add("alice", **quota)
    assert refused.text.startswith(next(iter(quota)).removesuffix("_seconds"))
    assert list(await running.store.list_clients()) == []


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
