"""The admin service: which node a client is, how it is notified, what waits for it."""

import grpc
import pytest

from sidecar.core.mailbox import MailUse
from sidecar.core.model import BoundBy, TimestampForm
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.admin_world import NODE, OTHER_NODE, Refusal, Running
from tests.harness.store_contract import an_invoice, until

# --- nodes --------------------------------------------------------------------------------------

BAD_NODE_IDS = pytest.mark.parametrize(
    "node_id",
    [
        NODE.hex()[:-2],
        NODE.hex()[:-1],
        NODE.hex() + "00",
        NODE.hex()[:-2] + "0g",
        "04" + NODE.hex()[2:],
        "02" + "ff" * 32,
        "02" + "00" * 32,
        "alice",
        "\x1b[2J",
        "\u0660\u0662",
    ],
)


async def test_a_client_can_be_added_with_its_node(running: Running) -> None:
    """The operator's word: kept, shown, and known at once to those who wake it; capitals are as good."""
    client = (await running.add_node("alice", NODE.hex().upper())).client
    assert (client.node_id, client.bound_by) == (NODE.hex(), "operator")
    kept = await running.store.find_client("alice")
    assert (kept.node_id, kept.bound_by) == (NODE, BoundBy.OPERATOR)
    assert running.bindings.client_of(NODE) == kept.client_id
    assert (await running.show()).client == client


async def test_without_a_node_none_is_known(running: Running) -> None:
    """It is learnt later."""
    client = (await running.add()).client
    assert (client.node_id, client.bound_by) == ("", "")
    assert not running.bindings.items()


@BAD_NODE_IDS
async def test_a_bad_node_id_is_refused(running: Running, node_id: str) -> None:
    """Of a wrong length, no hex, or no point: nothing is added or changed, and the text says what to give."""
    expected = "is no node id: give the 66 hex digits of the wallet's public key"
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-node-id") as refused:
        await running.add_node("alice", node_id)
    assert refused.text.endswith(expected)
    assert refused.text.isprintable()
    assert list(await running.store.list_clients()) == []
    added = (await running.add_node("alice", NODE.hex())).client
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-node-id") as refused:
        await running.rebind("alice", node_id)
    assert refused.text.endswith(expected)
    assert (await running.show()).client == added
    assert running.bindings.client_of(NODE) is not None


async def test_a_node_is_one_client_at_most(running: Running) -> None:
    """The second is refused with the first one's name, is not added, and changes nothing."""
    alice = (await running.add_node("alice", NODE.hex())).client
    with Refusal(grpc.StatusCode.ALREADY_EXISTS, "node-taken") as refused:
        await running.add_node("bob", NODE.hex())
    assert "client alice" in refused.text
    await running.add_node("bob", OTHER_NODE.hex())
    with Refusal(grpc.StatusCode.ALREADY_EXISTS, "node-taken"):
        await running.rebind("bob", NODE.hex())
    assert (await running.show("bob")).client.node_id == OTHER_NODE.hex()
    assert running.bindings.client_of(NODE) == bytes.fromhex(alice.client_id)
    assert running.bindings.client_of(OTHER_NODE) is not None


async def test_rebinding_replaces_the_node(running: Running) -> None:
    """Whoever had said it before; the old node is nobody's from then on."""
    client_id = bytes.fromhex((await running.add()).client.client_id)
    await running.bindings.learn(client_id, NODE)
    learnt = (await running.show()).client
    assert (learnt.node_id, learnt.bound_by) == (NODE.hex(), "learnt")
    rebound = await running.rebind("alice", OTHER_NODE.hex())
    assert (rebound.node_id, rebound.bound_by) == (OTHER_NODE.hex(), "operator")
    assert rebound == (await running.show()).client
    assert dict(running.bindings.items()) == {OTHER_NODE: client_id}
    await running.add_node("bob", NODE.hex())


async def test_rebinding_to_nothing_lets_the_node_be_learnt_anew(running: Running) -> None:
    """For a wallet that moved: the next one that shows itself is it."""
    client_id = bytes.fromhex((await running.add_node("alice", NODE.hex())).client.client_id)
    forgotten = await running.rebind("alice")
    assert (forgotten.node_id, forgotten.bound_by) == ("", "")
    assert not running.bindings.items()
    await running.bindings.learn(client_id, OTHER_NODE)
    assert (await running.show()).client.node_id == OTHER_NODE.hex()


async def test_rebinding_tells_what_the_client_uses(running: Running) -> None:
    """As show does."""
    client_id = bytes.fromhex((await running.add()).client.client_id)
    await running.store.save(client_id, an_invoice(1, size=700), until())
    running.mail[client_id] = MailUse(letters=2, bytes=3_000, newest_ms=1)
    for client in (await running.rebind("alice", NODE.hex()), await running.set_timestamps("z")):
        assert (client.slots_used, client.bytes_used) == (1, 700)
        assert (client.mail_letters, client.mail_bytes) == (2, 3_000)


@pytest.mark.parametrize("node_id", [OTHER_NODE.hex(), ""])
async def test_a_revoked_client_is_not_rebound(running: Running, node_id: str) -> None:
    """Nothing is kept for it: its node is free for another."""
    await running.add_node("alice", NODE.hex())
    await running.stub.RevokeClient(admin_pb2.RevokeClientRequest(name="alice"))
    with Refusal(grpc.StatusCode.FAILED_PRECONDITION, "client-revoked") as refused:
        await running.rebind("alice", node_id)
    assert refused.text == "client alice is revoked: nothing is kept for it"
    assert not running.bindings.items()
    await running.add_node("bob", NODE.hex())


async def test_a_removed_clients_node_is_free(running: Running) -> None:
    """And nobody is woken for it."""
    await running.add_node("alice", NODE.hex())
    await running.stub.RemoveClient(admin_pb2.RemoveClientRequest(name="alice"))
    assert not running.bindings.items()
    await running.add_node("bob", NODE.hex())


# --- timestamps and mail ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "form"),
    [("offset", TimestampForm.OFFSET), ("z", TimestampForm.Z), ("", None), ("default", None)],
)
async def test_each_form_of_timestamps_can_be_chosen(
    running: Running, text: str, form: TimestampForm | None
) -> None:
    """When a client is added and later; none means as the server's setting says."""
    shown = "" if form is None else form.value
    added = await running.stub.AddClient(admin_pb2.AddClientRequest(name="bob", timestamps=text))
    assert added.client.timestamps == shown
    assert (await running.store.find_client("bob")).timestamps is form
    await running.add()
    await running.set_timestamps("z")
    assert (await running.set_timestamps(text)).timestamps == shown
    assert (await running.store.find_client("alice")).timestamps is form
    assert (await running.show()).client.timestamps == shown


@pytest.mark.parametrize("text", ["Z", "utc", "offset ", "\x1b[2J"])
async def test_another_form_of_timestamps_is_refused(running: Running, text: str) -> None:
    """With those that there are; nothing is added or changed."""
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config") as refused:
        await running.stub.AddClient(admin_pb2.AddClientRequest(name="alice", timestamps=text))
    assert refused.text == f"timestamps: {text!r} is not allowed: give offset, z or default"
    assert list(await running.store.list_clients()) == []
    await running.add()
    await running.set_timestamps("z")
    with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-config"):
        await running.set_timestamps(text)
    assert (await running.show()).client.timestamps == "z"


async def test_clients_are_listed_with_node_mail_and_timestamps(running: Running) -> None:
    """What waits is each one's own."""
    await running.add_node("bob", NODE.hex())
    await running.add()
    await running.set_timestamps("z", "bob")
    bob = await running.store.find_client("bob")
    running.mail[bob.client_id] = MailUse(letters=3, bytes=4_000, newest_ms=1)
    listed = (await running.stub.ListClients(admin_pb2.ListClientsRequest())).clients
    assert [
        (each.name, each.node_id, each.bound_by, each.timestamps, each.mail_letters, each.mail_bytes)
        for each in listed
    ] == [("alice", "", "", "", 0, 0), ("bob", NODE.hex(), "operator", "z", 3, 4_000)]
    assert (await running.show("bob")).client == listed[1]
