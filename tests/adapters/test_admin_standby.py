"""What a server that stands by answers of all that can be asked of it, by both doors; and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sidecar.adapters.admin_client import socket_target
from sidecar.adapters.admin_server import start_admin
from sidecar.adapters.admin_status import reason_in
from sidecar.adapters.admin_tcp import TcpAddress
from sidecar.core.errors import BadToken, StandsBy
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.adapters.test_audit import audited
from tests.harness.admin_tcp import TOKEN, bearer
from tests.harness.admin_world import Refusal
from tests.harness.certificates import self_signed
from tests.harness.shell import Served

LOOKS = {
    "Admin.ListClients",
    "Admin.ShowClient",
    "Admin.ListMail",
    "Admin.DryRun",
    "Admin.GetStatus",
    "Admin.Diagnose",
    "Webhooks.ListWebhooks",
    "Backup.Export",
}
CHANGES = {
    "Admin.AddClient",
    "Admin.RotateClient",
    "Admin.UpdateClient",
    "Admin.PauseClient",
    "Admin.ResumeClient",
    "Admin.RevokeClient",
    "Admin.RemoveClient",
    "Admin.RebindClient",
    "Admin.SetTimestamps",
    "Webhooks.AddWebhook",
    "Webhooks.TestWebhooks",
    "Webhooks.PauseWebhook",
    "Webhooks.RemoveWebhook",
    "Backup.Import",
}
"""All methods there are: whoever adds one says here which it is; admin_standby.py knows those that look."""


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """All of the proto's services, by service and method."""
    for service in admin_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield f"{service.name}.{method.name}", method


def test_of_every_method_it_is_said_whether_it_changes_something() -> None:
    """A new one is in one of the two lists above, or this fails."""
    assert {name for name, _ in methods()} == LOOKS | CHANGES
    assert not LOOKS & CHANGES


# --- a server whose every method is there -----------------------------------------------------------


def _behaviour(name: str, method: MethodDescriptor, called: list[str]) -> Any:
    """It answers with nothing, and notes that it was reached."""
    answer = GetMessageClass(method.output_type)

    async def one(_self: object, request: Any, _context: object) -> Message:
        if method.client_streaming:
            _ = [each async for each in request]
        called.append(name)
        return answer()

    async def many(_self: object, _request: object, _context: object) -> AsyncIterator[Message]:
        called.append(name)
        yield answer()

    return many if method.server_streaming else one


def _servicer(service: str, called: list[str]) -> Any:
    """Of a service, with all its methods, whatever they will be."""
    found = {
        name.split(".")[1]: (name, method) for name, method in methods() if name.startswith(f"{service}.")
    }
    members = {short: _behaviour(name, method, called) for short, (name, method) in found.items()}
    return type(service, (getattr(admin_pb2_grpc, f"{service}Servicer"),), members)()


@dataclass
class World:
    """A running server with both doors; `leader` is who leads, where it does not."""

    socket: Path
    tcp: TcpAddress
    leader: str | None = "left-7c9f"
    called: list[str] = field(default_factory=list)
    address: str = ""

    @asynccontextmanager
    async def channel(self, door: str) -> AsyncIterator[grpc.aio.Channel]:
        """To one of its doors."""
        if door == "socket":
            channel = grpc.aio.insecure_channel(socket_target(self.socket))
        else:
            credentials = grpc.ssl_channel_credentials(self.tcp.tlscert.read_bytes())
            channel = grpc.aio.secure_channel(self.address, credentials)
        async with channel:
            yield channel


async def call(channel: grpc.aio.Channel, name: str, token: str = TOKEN) -> None:
    """Call a method with nothing in its request, to the end of its answer."""
    service, short = name.split(".")
    method = dict(methods())[name]
    stub = getattr(getattr(admin_pb2_grpc, f"{service}Stub")(channel), short)
    request: Any = GetMessageClass(method.input_type)()
    calling = stub(iter([request]) if method.client_streaming else request, metadata=bearer(token))
    if method.server_streaming:
        assert len([each async for each in calling]) == 1
    else:
        await calling


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One that stands by."""
    key, certificate = self_signed()
    files = {"cert": certificate, "key": key, "token": TOKEN.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tcp = TcpAddress("127.0.0.1:0", *(tmp_path / name for name in files))
    world = World(tmp_path / "admin.sock", tcp)
    server = await start_admin(
        _servicer("Admin", world.called),
        world.socket,
        _servicer("Webhooks", world.called),
        backup=_servicer("Backup", world.called),
        tcp=tcp,
        standing_by=lambda: world.leader,
    )
    world.address = server.address
    yield world
    await server.stop()


doors = pytest.mark.parametrize("door", ["socket", "tcp"])


# --- the rule ---------------------------------------------------------------------------------------


@doors
@pytest.mark.parametrize("name", sorted(LOOKS))
async def test_it_answers_whoever_only_looks(world: World, door: str, name: str) -> None:
    """What is kept is in Redis, and this server's own state is asked of no other."""
    async with world.channel(door) as channel:
        await call(channel, name)
    assert world.called == [name]


@doors
@pytest.mark.parametrize("name", sorted(CHANGES))
async def test_it_refuses_every_change_and_says_who_leads(world: World, door: str, name: str) -> None:
    """Before anything of it is done."""
    async with world.channel(door) as channel:
        with Refusal(grpc.StatusCode.FAILED_PRECONDITION, StandsBy.reason) as refusal:
            await call(channel, name)
    assert world.called == []
    assert "left-7c9f leads, ask that one (in Kubernetes: kubectl exec left-7c9f …)" in refusal.text


@pytest.mark.parametrize("name", sorted(LOOKS | CHANGES))
async def test_one_that_leads_does_all(world: World, name: str) -> None:
    """From the moment on in which it does, and until it does no more."""
    async with world.channel("socket") as channel:
        world.leader = None
        await call(channel, name)
        assert world.called == [name]
        world.leader = "right"
        if name in CHANGES:
            with Refusal(grpc.StatusCode.FAILED_PRECONDITION, StandsBy.reason):
                await call(channel, name)


async def test_a_name_that_would_act_on_a_terminal_is_escaped(world: World) -> None:
    """It is another server's, and comes out of Redis."""
    world.leader = "a\x1b[2Jb"
    async with world.channel("socket") as channel:
        with Refusal(grpc.StatusCode.FAILED_PRECONDITION, StandsBy.reason) as refusal:
            await call(channel, "Admin.RemoveClient")
    assert "\x1b" not in refusal.text
    assert "a\\x1b[2Jb leads" in refusal.text


async def test_a_stranger_hears_nothing_of_it(world: World) -> None:
    """The token is looked at first."""
    async with world.channel("tcp") as channel:
        with Refusal(grpc.StatusCode.UNAUTHENTICATED, BadToken.reason) as refusal:
            await call(channel, "Admin.RemoveClient", "wrong" * 10)
    assert "left" not in refusal.text


@doors
async def test_a_probe_finds_it_well(world: World, door: str) -> None:
    """Health is no call of ours, and is the same for one that stands by."""
    async with world.channel(door) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=""))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@doors
async def test_the_refusal_is_in_the_audit(world: World, door: str, caplog: pytest.LogCaptureFixture) -> None:
    """As those for any other reason: one event at info, with the slug."""
    caplog.set_level(logging.INFO)
    async with world.channel(door) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, "Backup.Import")
    assert reason_in(caught.value) == StandsBy.reason
    (event,) = audited(caplog)
    assert (event["call"], event["outcome"], event["by"]) == ("Backup.Import", "stands-by", door)
    assert event["level"] == "info"


# --- as an operator meets it ------------------------------------------------------------------------


async def test_the_command_shows_it_as_any_refusal(tmp_path: Path) -> None:
    """One line that says whom to ask; what only looks works."""
    served = Served(tmp_path)
    served.leader = "left"
    server = await served.start()
    try:
        refused = await served.run("client", "add", "alice")
        listed = await served.run("client", "list", "--json")
    finally:
        await server.stop()
    assert refused.refusal() == (
        "this sidecar stands by: left leads, ask that one (in Kubernetes: kubectl exec left …)"
    )
    assert listed.json() == {"clients": []}
