"""What the log says of admin calls: who changed what, and what came of it."""

import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.adapters import admin_tcp, audit
from sidecar.adapters.admin_client import socket_target
from sidecar.adapters.admin_server import start_admin
from sidecar.adapters.admin_status import reason_in
from sidecar.core.errors import BadExport, NoSuchClient
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.admin_tcp import TOKEN, TcpWorld, bearer, stand_in


@pytest.fixture
async def world(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[TcpWorld]:
    """A running server, whose log is read at debug."""
    caplog.set_level(logging.DEBUG)
    async with TcpWorld(tmp_path) as world:
        yield world


@pytest.fixture
async def local(world: TcpWorld) -> AsyncIterator[admin_pb2_grpc.AdminStub]:
    """Its socket."""
    async with grpc.aio.insecure_channel(socket_target(world.folder / "admin.sock")) as channel:
        yield admin_pb2_grpc.AdminStub(channel)


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The audit events so far, without what all events have."""
    found = [each.msg for each in caplog.records if isinstance(each.msg, dict)]
    common = ("event", "logger", "timestamp")
    return [
        {key: value for key, value in each.items() if key not in common}
        for each in found
        if each["event"] == "audit"
    ]


async def remove(stub: Any, name: str, **options: Any) -> None:
    """A call that changes something."""
    await stub.RemoveClient(admin_pb2.RemoveClientRequest(name=name), **options)


async def test_a_change_is_one_event_at_info(
    local: admin_pb2_grpc.AdminStub, caplog: pytest.LogCaptureFixture
) -> None:
    """The call, the client as the caller named it, what came of it, and by which door."""
    await remove(local, "alice")
    expected = {"call": "Admin.RemoveClient", "client": "alice", "outcome": "ok", "by": "socket"}
    assert audited(caplog) == [expected | {"level": "info"}]


async def test_a_read_is_one_event_at_debug(local: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks changes nothing."""
    await local.GetStatus(admin_pb2.GetStatusRequest())
    expected = {"call": "Admin.GetStatus", "outcome": "ok", "by": "socket", "level": "debug"}
    assert audited(caplog) == [expected]


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (NoSuchClient("no alice"), (grpc.StatusCode.NOT_FOUND, "no-such-client")),
        (RuntimeError("inside"), (grpc.StatusCode.INTERNAL, "internal")),
    ],
)
async def test_a_failed_change_has_its_reason(
    world: TcpWorld, local: Any, caplog: pytest.LogCaptureFixture, error: Exception, ended: Any
) -> None:
    """The same slug as the caller gets."""
    world.service.error = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await remove(local, "alice")
    assert (caught.value.code(), reason_in(caught.value)) == ended
    assert [each["outcome"] for each in audited(caplog)] == [ended[1]]


async def test_over_tcp_the_peer_is_named(world: TcpWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Its address and port; of one without the token as well, and never the token."""
    async with world.channel() as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        await remove(stub, "alice", metadata=bearer())
        with pytest.raises(grpc.aio.AioRpcError):
            await remove(stub, "alice", metadata=bearer("wrong" * 10))
    done, refused = audited(caplog)
    assert (done["by"], done["outcome"], done["level"]) == ("tcp", "ok", "info")
    assert done["peer"].startswith("127.0.0.1:")
    assert (refused["call"], refused["outcome"]) == ("Admin.RemoveClient", "bad-token")
    assert (refused["peer"], refused["level"]) == (done["peer"], "warning")
    assert TOKEN not in caplog.text
    assert "wrongwrong" not in caplog.text


async def test_a_stranger_does_not_fill_the_log(
    world: TcpWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many lines, and then one a second, which says how many calls had none."""
    now = [0]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    most = int(admin_tcp.REFUSALS_LOGGED.burst)
    async with world.channel() as channel:
        stub = admin_pb2_grpc.AdminStub(channel)

        async def refused() -> None:
            with pytest.raises(grpc.aio.AioRpcError):
                await remove(stub, "alice")

        for _ in range(most + 3):
            await refused()
        assert len(audited(caplog)) == most
        now[0] += 1_000_000_000
        await refused()
        await remove(stub, "alice", metadata=bearer())
    *_, last, done = audited(caplog)
    assert (last["unlogged"], done["outcome"]) == (3, "ok")
    assert len(audited(caplog)) == most + 2


def test_a_peer_with_ipv6_is_named_as_people_write_it() -> None:
    """gRPC escapes the brackets."""

    class Context:
        def peer(self) -> str:
            return "ipv6:%5B::1%5D:50051"

    assert audit.who("tcp", Context()) == {"by": "tcp", "peer": "[::1]:50051"}  # type: ignore[arg-type]


async def test_a_text_that_is_no_unicode_is_sent_all_the_same(
    world: TcpWorld, local: admin_pb2_grpc.AdminStub
) -> None:
    """A file may quote half of a surrogate pair; the reason must not be lost for it."""
    world.service.error = BadExport("the export is of \ud800")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await remove(local, "alice")
    assert (reason_in(caught.value), caught.value.details()) == ("bad-export", "the export is of ?")


async def test_a_long_name_is_cut_in_the_log_and_in_the_error(
    world: TcpWorld, local: admin_pb2_grpc.AdminStub, caplog: pytest.LogCaptureFixture
) -> None:
    """Else an error's text would not fit into the trailing metadata, and the caller would get another."""
    world.service.error = NoSuchClient("there is no client " + "é" * 100_000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await remove(local, "a" * 100_000)
    assert reason_in(caught.value) == "no-such-client"
    assert len((caught.value.details() or "").encode()) in (999, 1_000)
    assert [len(each["client"]) for each in audited(caplog)] == [66]


class _Backup(admin_pb2_grpc.BackupServicer):
    """Streams: a part and then an error, or takes parts until one is wrong."""

    async def Export(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.ExportResponse]:  # noqa: N802, ARG002
        """One part, and the end."""
        yield admin_pb2.ExportResponse(part=b"one")
        raise BadExport("cut off")

    async def Import(self, request_iterator: Any, context: Any) -> admin_pb2.ImportResponse:  # noqa: N802, ARG002
        """Counts the parts."""
        parts = [each.part async for each in request_iterator]
        if b"bad" in parts:
            raise BadExport("bad part")
        return admin_pb2.ImportResponse(clients=len(parts))


async def test_streams_are_turned_and_audited_as_calls_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is one event; an export is told too, for it hands out all that is kept."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "admin.sock"
    server = await start_admin(stand_in(), path, backup=_Backup())
    async with grpc.aio.insecure_channel(socket_target(path)) as channel:
        stub: Any = admin_pb2_grpc.BackupStub(channel)

        def parts(*each: bytes) -> list[admin_pb2.ImportRequest]:
            return [admin_pb2.ImportRequest(part=part) for part in each]

        assert (await stub.Import(iter(parts(b"a", b"b")))).clients == 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Import(iter(parts(b"bad")))
        assert (caught.value.code(), reason_in(caught.value)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad-export",
        )
        exported = aiter(stub.Export(admin_pb2.ExportRequest()))
        assert (await anext(exported)).part == b"one"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(exported)
        assert reason_in(caught.value) == "bad-export"
    await server.stop()
    assert [(each["call"], each["outcome"]) for each in audited(caplog)] == [
        ("Backup.Import", "ok"),
        ("Backup.Import", "bad-export"),
        ("Backup.Export", "bad-export"),
    ]


async def test_what_is_not_there_is_unimplemented(local: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A method that a server does not have yet is no fault of it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await local.ListMail(admin_pb2.ListMailRequest(name="alice"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert audited(caplog) == []


def test_the_reads_are_methods_that_exist() -> None:
    """All others count as changes: one that is added is audited until somebody says otherwise."""
    services = admin_pb2.DESCRIPTOR.services_by_name.values()
    methods = {f"{service.name}.{method.name}" for service in services for method in service.methods}
    assert methods > audit.READS
