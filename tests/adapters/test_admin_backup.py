"""The admin service for backups and dry runs, on a real Unix socket over a real Redis."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator

import grpc
import pytest

from sidecar.adapters.admin_client import socket_target
from sidecar.core.backup import ExportWriter, Header, Record
from sidecar.core.errors import BadExport, OperatorError, StoreNotEmpty, StoreUnavailable
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.adapters.conftest import NODE
from tests.harness.admin_world import Refusal
from tests.harness.backup_kit import Kit, an_offer
from tests.harness.backup_scene import exported, furnish
from tests.harness.store_contract import DAY, a_client, a_node, an_invoice, until
from tests.harness.webhook_contract import MOST, a_webhook

# --- export and import ------------------------------------------------------------------------------


async def test_an_export_that_is_imported_is_exported_again_byte_for_byte(kit: Kit) -> None:
    """Over the socket, in parts; what runs is told once that it has something new."""
    furnished = await furnish(kit.store)
    data = await kit.export()
    assert len(data) > 100_000 or data.count(b"\n") > 20
    kit.flush()
    done = await kit.import_(data)
    expected = furnished.expected
    assert (done.clients, done.invoices) == (expected.clients, expected.invoices)
    assert (done.letters, done.webhooks) == (expected.letters, expected.webhooks)
    assert kit.imported == 1
    assert await kit.export() == data


async def test_parts_have_64_kb_at_most_and_any_size_is_taken(kit: Kit) -> None:
    """gRPC's own limit on a message is never met, however long a line is."""
    client = a_client(size=1 << 30)
    await kit.store.add_client(client)
    for slot in range(4):
        await kit.store.save(client.client_id, an_invoice(slot, size=200_000), until())
    parts = await kit.ask(lambda admin: list(admin.export()))
    assert max(map(len, parts)) == 64 * 1024
    data = b"".join(parts)
    kit.flush()
    assert (await kit.import_(data, size=7_001)).invoices == 4
    assert await kit.export() == data


async def test_an_empty_store_is_exported_and_imported(kit: Kit) -> None:
    """A header and a last line; what it imports is nothing, and may be followed by another import."""
    data = await kit.export()
    assert data.count(b"\n") == 2
    assert await kit.import_(data) == admin_pb2.ImportResponse()


async def test_a_damaged_export_is_refused_and_nothing_is_written(kit: Kit) -> None:
    """One byte, a cut, two lines swapped, nothing at all: said at once, with Redis as it was."""
    await furnish(kit.store)
    data = await kit.export()
    kit.flush()
    lines = data.splitlines(keepends=True)
    middle = len(data) // 2
    for wrong in (
        data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        data[:middle],
        b"".join(lines[:-1]),
        b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]),
        data + b"\n",
        data + data,
        b"",
        b"\x00" * 300_000,
        b"x" * 9_000_000,
    ):
        with pytest.raises(BadExport):
            await kit.import_(wrong)
        assert kit.keys() == 0
    assert kit.imported == 0
    assert list(kit.spool.iterdir()) == []
    assert (await kit.import_(data)).clients == 4


async def test_an_export_that_is_whole_and_says_what_can_not_be_is_refused(kit: Kit) -> None:
    """Its hash is right, for it was made by hand: the last client has no name."""
    writer = ExportWriter()
    lines = [writer.header(Header(NODE, "regtest", "1.2.3", 0))]
    lines += writer.record(Record(f"{{{'00' * 10}}}", "hash", (b"name", b"alice")))
    with pytest.raises(BadExport, match=f"records of {'00' * 10} can't be used"):
        await kit.import_(b"".join([*lines, writer.end()]))
    assert kit.keys() == 0


async def test_another_nodes_export_is_refused(kit: Kit) -> None:
    """Its paths hang on LND's key: both ids are named, shortened, and so is the seed; another chain's too."""
    await furnish(kit.store)
    data = await kit.export()
    kit.flush()
    node = a_node()
    for service, said in (
        (
            kit.backup(node_id=node),
            f"of LND node {NODE.hex()[:16]}…, and this LND is {node.hex()[:16]}…: .*seed",
        ),
        (kit.backup(network="mainnet"), "the export is of regtest, and this LND is on mainnet"),
    ):

        async def parts() -> AsyncIterator[admin_pb2.ImportRequest]:
            yield admin_pb2.ImportRequest(part=data)

        with pytest.raises(BadExport, match=said):
            await service.Import(parts(), None)  # type: ignore[arg-type]
        assert kit.keys() == 0


async def test_an_import_into_a_store_that_holds_something_is_refused(kit: Kit) -> None:
    """FAILED_PRECONDITION, with what is there; over the wire as the API says it."""
    await furnish(kit.store)
    data, before = await kit.export(), kit.keys()
    with pytest.raises(StoreNotEmpty, match="4 clients, webhooks of 2 wallets"):
        await kit.import_(data)
    assert kit.keys() == before
    async with grpc.aio.insecure_channel(socket_target(kit.path)) as channel:
        stub = admin_pb2_grpc.BackupStub(channel)

        async def parts() -> AsyncIterator[admin_pb2.ImportRequest]:
            yield admin_pb2.ImportRequest(part=b"no export")

        with Refusal(grpc.StatusCode.FAILED_PRECONDITION, "store-not-empty"):
            await stub.Import(parts())
        kit.flush()
        with Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad-export"):
            await stub.Import(parts())


async def test_two_imports_at_once_are_refused(kit: Kit) -> None:
    """The second, and the first goes on."""
    data = await kit.export()
    service, go, started = kit.backup(), asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[admin_pb2.ImportRequest]:
        started.set()
        await go.wait()
        yield admin_pb2.ImportRequest(part=data)

    first = asyncio.create_task(service.Import(slow(), None))  # type: ignore[arg-type]
    await started.wait()
    with pytest.raises(OperatorError, match="an import is at work already"):
        await service.Import(slow(), None)  # type: ignore[arg-type]
    go.set()
    await first


async def test_an_import_is_good_when_what_runs_can_not_be_told(kit: Kit) -> None:
    """It is on disk, and is read again anyway."""

    async def away() -> None:
        raise StoreUnavailable("just now")

    data = await kit.export()
    service = kit.backup()
    service._imported = away

    async def parts() -> AsyncIterator[admin_pb2.ImportRequest]:
        yield admin_pb2.ImportRequest(part=data)

    assert await service.Import(parts(), None) == admin_pb2.ImportResponse()  # type: ignore[arg-type]


async def test_a_data_directory_that_takes_no_file_is_said(kit: Kit) -> None:
    """The export lies there until it is checked."""
    kit.spool.rmdir()
    with pytest.raises(OperatorError, match=r"can't be kept in the data directory.*able to write there"):
        await kit.import_(b"")


async def test_a_data_directory_without_room_is_said(kit: Kit) -> None:
    """In the middle of a part as well, whose rest is tried once more when the file is closed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def parts() -> AsyncIterator[admin_pb2.ImportRequest]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        while True:
            yield admin_pb2.ImportRequest(part=b"x" * 700)

    try:
        with pytest.raises(OperatorError, match=r"can't be kept in the data directory.*make room there"):
            await kit.backup().Import(parts(), None)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(kit.spool.iterdir()) == []
    assert await kit.import_(await kit.export()) == admin_pb2.ImportResponse()


async def test_an_export_of_what_can_not_be_imported_ends_with_an_error(kit: Kit) -> None:
    """Not with a file that looks whole."""
    client = (await furnish(kit.store)).alice
    kit.server.command("HSET", f"sis:{NODE.hex()[:16]}:{{{client.client_id.hex()}}}", "state", "asleep")
    with pytest.raises(OperatorError, match="can't be exported"):
        await kit.export()


async def test_nothing_of_an_export_is_in_the_log(kit: Kit, capfd: pytest.CaptureFixture[str]) -> None:
    """No webhook, and no name: it says how much was imported."""
    secret = f"tok{os.urandom(8).hex()}"
    await kit.store.webhooks.set_webhook(a_node(), a_webhook(url=f"https://push.example/{secret}"), MOST)
    data = await kit.export()
    kit.flush()
    await kit.import_(data)
    kit.flush()
    with pytest.raises(BadExport):
        await kit.import_(data[:-9])
    out, err = capfd.readouterr()
    assert secret not in out + err


# --- dry-run ----------------------------------------------------------------------------------------


async def test_a_dry_run_tells_what_a_payer_would_get(kit: Kit) -> None:
    """The invoice itself, its times, its offer as the wallet shows it; the offer's own path was walked."""
    kept = await an_offer(kit)
    run = await kit.ask(lambda client: client.dry_run("alice", 0))
    assert (run.outcome, run.reason, run.forwarded_to_wallet) == ("static_invoice", "", True)
    assert run.invoice == kept.invoice
    assert run.offer == kept.wallet.offer_string(kept.offer_records)
    assert run.expires_at == run.invoice_created_at + 10 * DAY
    assert run.invoice_expires_at == run.invoice_created_at + 14 * DAY
    assert kit.walked == [kept.offer.paths[0]]


async def test_a_dry_run_changes_nothing(kit: Kit) -> None:
    """Not a byte of Redis."""
    await an_offer(kit)
    before = await exported(kit.records)
    await kit.ask(lambda client: client.dry_run("alice", 0))
    assert await exported(kit.records) == before


async def test_an_empty_slot_and_an_unknown_client_are_not_found(kit: Kit) -> None:
    """NOT_FOUND, by reasons that a script can tell apart."""
    await an_offer(kit)
    async with grpc.aio.insecure_channel(socket_target(kit.path)) as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        for name, slot, reason in (("alice", 1, "no-such-invoice"), ("bob", 0, "no-such-client")):
            with Refusal(grpc.StatusCode.NOT_FOUND, reason):
                await stub.DryRun(admin_pb2.DryRunRequest(name=name, slot=slot))
