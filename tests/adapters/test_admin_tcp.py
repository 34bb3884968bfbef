"""The admin server over TCP: TLS always, a token in every call, and files that may change."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sidecar.adapters import admin_server
from sidecar.adapters.admin_client import socket_target
from sidecar.adapters.admin_remote import RemoteAdminClient
from sidecar.adapters.admin_server import start_admin
from sidecar.adapters.admin_status import reason_in
from sidecar.adapters.admin_token import read_token
from sidecar.core.errors import AdminDenied, BadToken, ConfigError, ServerNotRunning
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.admin_tcp import TOKEN, TcpWorld, bearer, stand_in

SERVING, NOT_SERVING = 1, 2


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[TcpWorld]:
    """A running server."""
    async with TcpWorld(tmp_path) as world:
        yield world


async def version(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> str:
    """Ask for the status."""
    stub = admin_pb2_grpc.AdminStub(channel)
    return (await stub.GetStatus(admin_pb2.GetStatusRequest(), metadata=metadata, timeout=10)).version


async def health(channel: grpc.aio.Channel, service: str = "", *metadata: tuple[str, str]) -> int:
    """Ask how a service is."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return int((await stub.Check(request, metadata=metadata, timeout=10)).status)


def denied(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> None:
    """The status of a call without the token."""
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_in(caught.value) == "bad-token"


# --- the token ----------------------------------------------------------------------------------


async def test_a_call_with_the_token_is_answered(world: TcpWorld) -> None:
    """`authorization: Bearer <token>`."""
    async with world.channel() as channel:
        assert await version(channel, *bearer()) == "1.2.3"


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        bearer(""),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "0"),
        (("authorization", TOKEN),),
        (("authorization", f"Basic {TOKEN}"),),
        (*bearer("f" * 64), *bearer()),
    ],
)
async def test_a_call_without_the_token_is_unauthenticated(world: TcpWorld, metadata: Any) -> None:
    """Missing, cut, too long, or as something else; of two, the first counts."""
    async with world.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await version(channel, *metadata)
        denied(caught)


async def test_what_does_not_exist_is_no_different_without_the_token(world: TcpWorld) -> None:
    """A stranger can't learn which methods there are; who has the token can."""
    async with world.channel() as channel:
        call: Any = channel.unary_unary("/sidecar.v1.Admin/NoSuchMethod")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        denied(caught)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=bearer())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "method",
    ["sidecar.v1.Admin/ShowClient", "grpc.health.v1.Health/Watch", "sidecar.v1.Admin/NoSuchMethod"],
)
async def test_what_a_stranger_sends_is_neither_waited_for_nor_read(
    world: TcpWorld, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """A message that never comes, or is none: the same answer as ever, and no fault in the log."""
    async with world.channel() as channel:
        broken: Any = channel.unary_unary(f"/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await broken(b"\xff\xff", timeout=10)
        denied(caught)
        silent: Any = channel.stream_stream(f"/{method}")(timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await silent.read()
        denied(caught)
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


async def test_calls_at_once_over_one_connection_have_an_end(world: TcpWorld) -> None:
    """One more waits; another connection does not."""
    async with world.channel() as channel, world.channel() as other:
        check: Any = channel.stream_unary("/grpc.health.v1.Health/Check")
        one_more: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        held = [check() for _ in range(admin_server.MAX_CALLS)]
        for call in held:
            await call.wait_for_connection()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one_more(b"", timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await version(other, *bearer()) == "1.2.3"


async def test_the_socket_needs_no_token(world: TcpWorld) -> None:
    """Who can open it may do everything, as ever."""
    async with grpc.aio.insecure_channel(socket_target(world.folder / "admin.sock")) as channel:
        assert await version(channel) == "1.2.3"


async def test_a_changed_token_holds_at_once(world: TcpWorld) -> None:
    """The old one is worth nothing from then on; without a good file nobody gets in, and the log says why."""
    other = "f" * 40
    async with world.channel() as channel:
        await version(channel, *bearer())
        world.tcp.tokenfile.write_text(other)
        assert await version(channel, *bearer(other)) == "1.2.3"
        for content, given in ((other, TOKEN), ("short", "short"), ("", "")):
            world.tcp.tokenfile.write_text(content)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await version(channel, *bearer(given))
            denied(caught)


@pytest.mark.parametrize(
    ("content", "mode", "match"),
    [
        ("x" * 31, 0o600, "at least 32"),
        ("", 0o600, "holds 0 characters"),
        ("x" * 40 + "\n" + "y" * 40, 0o600, "more than one word"),
        ("ä" * 40, 0o600, "more than one word"),
        ("x" * 40, 0o620, "others may write"),
        ("x" * 40, 0o602, "others may write"),
    ],
)
def test_a_bad_token_file_is_refused(tmp_path: Path, content: str, mode: int, match: str) -> None:
    """Short, empty, not one word, or open to others' writing; its content is not shown."""
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=match) as caught:
        read_token(path)
    assert "xxx" not in str(caught.value)


def test_a_token_file_that_others_may_read_is_taken(tmp_path: Path) -> None:
    """Secrets that Kubernetes mounts are; white space around the token is not part of it."""
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\n\n")
    path.chmod(0o444)
    assert read_token(path) == TOKEN


# --- TLS ----------------------------------------------------------------------------------------


async def test_a_call_without_tls_gets_nowhere(world: TcpWorld) -> None:
    """Not even with the token."""
    async with grpc.aio.insecure_channel(world.server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await version(channel, *bearer())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_changed_certificate_is_shown_without_a_restart(world: TcpWorld) -> None:
    """New connections get the new one."""
    first = world.tcp.tlscert.read_bytes()
    async with world.channel(first) as channel:
        await version(channel, *bearer())
    world.renew()
    async with world.channel() as channel:
        assert await version(channel, *bearer()) == "1.2.3"
    async with world.channel(first) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await version(channel, *bearer())


async def test_half_of_a_new_pair_changes_nothing(world: TcpWorld, caplog: pytest.LogCaptureFixture) -> None:
    """The key of another certificate, or rubbish: the server goes on with what it had, and says so once."""
    first = world.tcp.tlscert.read_bytes()
    world.renew()
    world.tcp.tlscert.write_bytes(first)
    for content in (world.tcp.tlskey.read_bytes(), b"rubbish"):
        world.tcp.tlskey.write_bytes(content)
        async with world.channel(first) as channel:
            assert await version(channel, *bearer()) == "1.2.3"
    assert len([each for each in caplog.records if "goes on with the certificate" in each.getMessage()]) == 1


@pytest.mark.parametrize(
    ("spoilt", "content", "match"),
    [
        ("tlscert", None, r"admin\.tlscert: .* can't be read"),
        ("tlskey", None, r"admin\.tlskey: .* can't be read"),
        ("tlskey", b"rubbish", "are no certificate and its unencrypted key"),
        ("tokenfile", None, r"admin\.tokenfile: .* can't be read"),
    ],
)
async def test_bad_files_keep_the_server_from_starting(
    tmp_path: Path, spoilt: str, content: bytes | None, match: str
) -> None:
    """The error names the setting; the data directory is given free again."""
    world = TcpWorld(tmp_path)
    path: Path = getattr(world.tcp, spoilt)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=match):
        await start_admin(stand_in(), tmp_path / "admin.sock", tcp=world.tcp)
    await (await start_admin(stand_in(), tmp_path / "admin.sock")).stop()


async def test_a_port_in_use_is_refused(world: TcpWorld, tmp_path: Path) -> None:
    """gRPC would share it with the other server otherwise, and each would get half of the calls."""
    taken = replace(world.tcp, listen=world.server.address)
    with pytest.raises(ConfigError, match=r"admin\.listen: .* can't be listened on"):
        await start_admin(stand_in(), tmp_path / "other" / "admin.sock", tcp=taken)


# --- health and reflection ----------------------------------------------------------------------


async def test_health_needs_no_token(world: TcpWorld) -> None:
    """Probes have none. The server and its services are well while it answers."""
    async with world.channel() as channel:
        for name in ("", "sidecar.v1.Admin"):
            assert await health(channel, name) == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel, "sidecar.v1.Backup")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stranger_who_asks_for_health_in_no_message_is_told_so(
    world: TcpWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a traceback in the log for each."""
    async with world.channel() as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(b"\xff\xff", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


async def test_health_is_not_watched_without_the_token(world: TcpWorld) -> None:
    """A watch stays open: strangers could hold any number of them."""
    async with world.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)))
        denied(caught)


async def test_ready_follows_what_the_server_stands_on(
    world: TcpWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NOT_SERVING until it is told otherwise, and again when that ends; the server itself stays well."""
    monkeypatch.setattr(admin_server, "READY_EVERY", 0.01)
    async with world.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = aiter(
            stub.Watch(health_pb2.HealthCheckRequest(service="ready"), metadata=bearer(), timeout=20)
        )
        seen = [(await anext(watch)).status]
        for world.well in (True, False):
            seen.append((await anext(watch)).status)
        assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
        assert await health(channel, "") == SERVING


async def test_reflection_shows_all_services_to_who_has_the_token(world: TcpWorld) -> None:
    """`grpcurl list` works."""

    async def listed(*metadata: tuple[str, str]) -> list[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = await anext(aiter(stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=10)))
        return [each.name for each in answer.list_services_response.service]

    async with world.channel() as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        assert await listed(*bearer()) == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "sidecar.v1.Admin",
        ]
        # It may be refused before it has sent anything.
        assert await stub.ServerReflectionInfo(timeout=10).code() is grpc.StatusCode.UNAUTHENTICATED


# --- the caller's side --------------------------------------------------------------------------


def remote(world: TcpWorld, **other: Any) -> RemoteAdminClient:
    """A client with all that it needs, or with something else."""
    given: dict[str, Any] = {
        "address": world.server.address,
        "cafile": world.tcp.tlscert,
        "tokenfile": world.tcp.tokenfile,
    }
    return RemoteAdminClient(**given | other)


async def test_a_remote_client_asks_as_one_on_the_socket_does(world: TcpWorld) -> None:
    """The same calls, the same errors."""

    def ask() -> str:
        with remote(world) as client:
            return client.status().version

    assert await asyncio.to_thread(ask) == "1.2.3"


async def test_a_remote_client_with_a_wrong_token_is_told(world: TcpWorld, tmp_path: Path) -> None:
    """As BadToken."""
    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 64)

    def ask() -> None:
        with remote(world, tokenfile=wrong) as client:
            client.status()

    with pytest.raises(BadToken, match="needs the server's token"):
        await asyncio.to_thread(ask)


async def test_a_remote_client_trusts_only_the_given_certificate(world: TcpWorld) -> None:
    """Not another's, nor what no CA of the system has signed."""
    given = world.folder / "given.cert"
    given.write_bytes(world.tcp.tlscert.read_bytes())
    world.renew()
    for cafile in (given, None):
        with pytest.raises(AdminDenied, match="can't prove that it is the one"):
            await asyncio.to_thread(remote, world, cafile=cafile)


async def test_a_remote_client_says_when_nobody_answers(world: TcpWorld) -> None:
    """Nothing listens, or what listens speaks no TLS."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        free = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ServerNotRunning, match=f"no server answers at {free}"):
        await asyncio.to_thread(remote, world, address=free)

    async def shout(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with plain:
        address = f"127.0.0.1:{plain.sockets[0].getsockname()[1]}"
        with pytest.raises(AdminDenied, match="speaks no TLS"):
            await asyncio.to_thread(remote, world, address=address)


@pytest.mark.parametrize(("content", "match"), [(None, "can't be read"), (b"rubbish", "no certificate")])
async def test_a_bad_ca_file_is_named(world: TcpWorld, content: bytes | None, match: str) -> None:
    """Before anything is connected."""
    path = world.folder / "ca"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"admin\.cafile: .*{match}"):
        await asyncio.to_thread(remote, world, cafile=path)


async def test_connections_of_strangers_are_bounded_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may connect may hold a connection without a token: so many at once, and not for long."""
    assert (admin_server.MAX_CONNECTIONS, admin_server.IDLE) == (100, 60)
    few = {"grpc.max_allowed_incoming_connections": 3, "grpc.max_connection_idle_ms": 1_000}
    assert few.keys() <= dict(admin_server._OPTIONS).keys()
    monkeypatch.setattr(admin_server, "_OPTIONS", tuple((dict(admin_server._OPTIONS) | few).items()))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.set_alpn_protocols(["h2"])
    async with TcpWorld(tmp_path) as world, asyncio.timeout(20):
        host, _, port = world.server.address.rpartition(":")
        held = [await asyncio.open_connection(host, int(port), ssl=trusting) for _ in range(3)]
        for _, writer in held:
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection(host, int(port), ssl=trusting)
        for reader, writer in held:
            with contextlib.suppress(OSError):
                await reader.read()  # until it is hung up
            writer.close()
        async with world.channel() as channel:
            await version(channel, *bearer())
