"""What `sidecar export`, `import` and `dry-run` do and print: a real admin server over a real Redis."""

import argparse
import asyncio
import contextlib
import json
import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.adapters.admin_client import AdminClient
from sidecar.cli import backup_commands
from sidecar.core.errors import BadExport, OperatorError
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.adapters.conftest import NODE
from tests.harness.backup_kit import Kit, an_offer
from tests.harness.backup_scene import furnish

# --- export and import ------------------------------------------------------------------------------


async def test_the_file_is_whole_private_and_never_in_the_way(kit: Kit) -> None:
    """Mode 0600; a second export replaces it only when it is told to; `-` is standard output."""
    await furnish(kit.store)
    data = await kit.export()
    file = kit.shell.home / "all.export"
    said = (await kit.shell.run("export", str(file))).text()
    records = data.count(b"\n") - 2
    assert said.startswith(f"{file} holds all that is kept: {records} records, {len(data)} bytes.")
    assert file.read_bytes() == data
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = (await kit.shell.run("export", str(file))).refusal()
    assert refused == f"{file} is there already: name another file, or give --force to replace it"
    file.write_bytes(b"older")
    forced = (await kit.shell.run("export", "--force", str(file), "--json")).json()
    assert forced == {"file": str(file), "records": records, "bytes": len(data)}
    assert file.read_bytes() == data
    assert (await kit.shell.run("export", "-")).text().encode() == data
    assert [each.name for each in kit.shell.home.iterdir() if "export" in each.name] == ["all.export"]


async def test_import_takes_a_file_or_standard_input(kit: Kit) -> None:
    """And says what it has brought."""
    await furnish(kit.store)
    data = await kit.export()
    file = kit.shell.home / "all.export"
    file.write_bytes(data)
    kit.flush()
    assert (await kit.shell.run("import", str(file))).text() == (
        "imported 4 clients with 3 invoices, 3 messages in their mailboxes, and 3 webhooks; what had expired "
        "was left out\n"
    )
    kit.flush()
    piped = await kit.shell.run("import", "-", "--json", stdin=data)
    assert piped.json() == {"clients": 4, "invoices": 3, "letters": 3, "webhooks": 3}
    again = (await kit.shell.run("import", str(file))).refusal()
    assert again.startswith("something is kept here already (4 clients")


@pytest.fixture
def commands(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Commands in this process: `commands("export", file=…)`."""
    monkeypatch.setattr(backup_commands, "connect", lambda _: AdminClient(kit.shell.datadir))

    def run(name: str, **args: object) -> Any:
        given: dict[str, object] = {"json": False, "force": False} | args
        return asyncio.to_thread(getattr(backup_commands, name), argparse.Namespace(**given), None)

    return run


@pytest.mark.parametrize("name", ["missing/all.export", "directory"])
async def test_a_file_that_can_not_be_used_is_one_line(
    kit: Kit, commands: Callable[..., Any], name: str
) -> None:
    """It is named, and why."""
    (kit.shell.home / "directory").mkdir()
    path = kit.shell.home / name
    with pytest.raises(OperatorError, match=f"{name} (can't be written|is there already)"):
        await commands("export", file=str(path))
    with pytest.raises(BadExport, match=f"{name} can't be read"):
        await commands("import_", file=str(path))


async def test_standard_output_that_finds_no_room_is_one_line(
    kit: Kit, commands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no fault of ours; a reader that has seen enough is none at all."""
    await furnish(kit.store)
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(OperatorError, match=r"can't be written: No space left"):
            await commands("export", file="-")
        with contextlib.suppress(OSError):
            full.close()
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        with pytest.raises(BrokenPipeError):
            await commands("export", file="-")
        with contextlib.suppress(OSError):
            closed.close()


async def test_a_file_that_comes_meanwhile_is_not_replaced(kit: Kit, commands: Callable[..., Any]) -> None:
    """Between the first look and the end of the export."""
    file = kit.shell.home / "all.export"
    export = kit.records.export

    async def with_a_guest() -> Any:
        file.write_bytes(b"mine")
        async for record in export():
            yield record

    kit.records.export = with_a_guest  # type: ignore[method-assign]
    with pytest.raises(OperatorError, match="is there already"):
        await commands("export", file=str(file))
    assert file.read_bytes() == b"mine"
    assert [each.name for each in kit.shell.home.glob(".*.export*")] == []


async def test_an_export_that_breaks_off_leaves_no_file(kit: Kit, commands: Callable[..., Any]) -> None:
    """Nor the one that was there changed."""
    client = (await furnish(kit.store)).alice
    kit.server.command("HSET", f"sis:{NODE.hex()[:16]}:{{{client.client_id.hex()}}}", "state", "asleep")
    file = kit.shell.home / "all.export"
    file.write_bytes(b"older")
    with pytest.raises(OperatorError, match="can't be exported"):
        await commands("export", file=str(file), force=True)
    assert file.read_bytes() == b"older"
    assert [each.name for each in kit.shell.home.iterdir() if ".export" in each.name] == ["all.export"]


async def test_an_export_that_is_not_whole_is_refused_by_the_command(
    kit: Kit, commands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the stream ended, without its last line or with more: the file does not get its name."""
    await furnish(kit.store)
    data = await kit.export()
    file = kit.shell.home / "all.export"
    last = data[:-1].rindex(b"\n") + 1
    for wrong in (data[:last], data[:-1], data + b"x", b""):
        monkeypatch.setattr(AdminClient, "export", lambda _, wrong=wrong: iter([wrong[:700], wrong[700:]]))
        with pytest.raises(BadExport):
            await commands("export", file=str(file))
        assert not file.exists()
    monkeypatch.setattr(AdminClient, "export", lambda _: iter([data[:700], data[700:]]))
    await commands("export", file=str(file))


# --- dry-run ----------------------------------------------------------------------------------------


async def test_the_command_says_it_for_people_and_for_scripts(kit: Kit) -> None:
    """One field a line, or JSON."""
    kept = await an_offer(kit)
    text = (await kit.shell.run("dry-run", "alice", "0")).text()
    assert "outcome      a payer gets the invoice\n" in text
    assert "wallet       gets the request too\n" in text
    assert f"offer        {kept.wallet.offer_string(kept.offer_records)}\n" in text
    assert "amount       the payer chooses\n" in text
    assert "(in 9 days)" in text or "(in 10 days)" in text
    found = (await kit.shell.run("dry-run", "alice", "0", "--json")).json()
    assert found["outcome"] == "static_invoice"
    assert found["invoice_bytes"] == len(kept.invoice)
    assert json.dumps(found).count(kept.invoice.hex()) == 0
    refused = (await kit.shell.run("dry-run", "alice", "65536")).refusal(2)
    assert "'65536' is no slot: give 0 to 65535" in refused


async def test_the_command_says_why_there_is_no_answer(kit: Kit, commands: Callable[..., Any]) -> None:
    """Here the offer's paths lead elsewhere."""
    await an_offer(kit)
    kit.opened = None
    text = await commands("dry_run", client="alice", slot=0)
    assert "outcome      a payer gets no answer\n" in text
    assert "(wrong-offer-paths)\n" in text
    assert "wallet       does not hear of it\n" in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"amount_msat": 5_000}, "amount       5000 msat"),
        ({"offer": "lno1", "description": "a\x1b[2J\u202eb"}, r"description  a\x1b[2J\u202eb"),
        (
            {"outcome": "static_invoice", "reason": "bad-signature"},
            "a payer gets the invoice, and refuses it",
        ),
        ({"outcome": "invoice_error", "reason": "r"}, "a payer is told that it is not served"),
        ({"invoice_expires_at": 1 << 62}, "expires      never"),
        ({}, "offer        can't be read"),
    ],
    ids=str,
)
async def test_what_wallets_chose_is_printed_safely(
    commands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], said: str
) -> None:
    """Amounts, words with control characters, times beyond all calendars."""
    answer = admin_pb2.DryRunResponse(**fields)
    monkeypatch.setattr(AdminClient, "dry_run", lambda *_: answer)
    assert said in await commands("dry_run", client="alice", slot=0)
