"""`sidecar doctor` as a whole: the machine, the running server, the way out, and what is printed."""

import argparse
import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from sidecar import __version__, doctor
from sidecar.adapters import doctor_lnd, doctor_machine
from sidecar.adapters.admin_client import socket_target
from sidecar.adapters.guard import DialRules
from sidecar.cli import doctor_commands
from sidecar.cli.command_line import NotWell
from sidecar.config import Settings, load
from sidecar.core import keys
from sidecar.core.diagnosis import EGRESS_ADVICE, Finding, Level, failure, info, ok, warning
from sidecar.core.errors import ConfigError
from sidecar.core.webhooks import Delivery
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.doctor_world import TellingLnd
from tests.harness.push_service import Certificate, PushService, garbage
from tests.harness.shell import STATUS, Served, telling

NODE = keys.public_key(b"\x01" * 32)
LOOPBACK = ("lsps5.private_networks", "127.0.0.0/8")


def settings(datadir: Path, *flags: tuple[str, str]) -> Settings:
    """Settings with a data directory, and without an LND."""
    given = {"datadir": str(datadir), "lnd.tlspath": str(datadir / "none"), "lnd.host": "127.0.0.1:1"}
    return load(given | dict(flags), {})


async def look(datadir: Path, *flags: tuple[str, str], **more: Any) -> dict[str, Finding]:
    """All findings by name; the last one of a name."""
    return {each.name: each for each in await doctor.examine(settings(datadir, *flags), **more)}


def saw(finding: Finding, level: Level, seen: str, advice: str = "") -> None:
    """Check one line."""
    assert finding.level is level, finding
    assert seen in finding.seen
    assert advice in finding.advice


# --- files and disks --------------------------------------------------------------------------------


async def test_a_macaroon_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    """And one that is not there a failure."""
    macaroon = tmp_path / "sidecar.macaroon"
    flag = ("lnd.macaroonpath", str(macaroon))
    saw((await look(tmp_path, flag))["files"], Level.FAILURE, "No such file", "chown")
    macaroon.write_bytes(b"m")
    macaroon.chmod(0o604)
    saw((await look(tmp_path, flag))["files"], Level.WARNING, "every user", f"chmod o-rwx {macaroon}")
    macaroon.chmod(0o640)
    assert (await look(tmp_path, flag))["files"].level is Level.OK


async def test_other_secrets_are_looked_at_too(tmp_path: Path) -> None:
    """The files that hold Redis's URL, the admin token and key; none of what they hold is shown."""
    (tmp_path / "secret").write_text("redis://:hunter2@127.0.0.1:1")
    (tmp_path / "secret").chmod(0o604)
    (tmp_path / "m").write_bytes(b"m")
    (tmp_path / "m").chmod(0o600)
    found = await look(
        tmp_path,
        ("redis.urlfile", str(tmp_path / "secret")),
        ("lnd.macaroonpath", str(tmp_path / "m")),
    )
    saw(found["files"], Level.WARNING, "redis.urlfile")
    assert "hunter2" not in str(found)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "sidecar.toml").write_text('redis.url = "redis://:hunter2@127.0.0.1:1"')
    (tmp_path / "sidecar.toml").chmod(0o644)
    with_password = settings(tmp_path, ("redis.url", "redis://:hunter2@127.0.0.1:1"))
    assert ("with a Redis password,", tmp_path / "sidecar.toml") in doctor._secrets(with_password)
    missing = await look(tmp_path / "new", ("redis.urlfile", str(tmp_path / "none")))
    saw(missing["redis"], Level.FAILURE, f"redis.urlfile: {tmp_path / 'none'} can't be read", "setting")
    without = settings(tmp_path, ("redis.url", "redis://127.0.0.1:1"))
    assert [what for what, _ in doctor._secrets(without)] == ["the macaroon"]


async def test_the_data_directory_is_looked_at(tmp_path: Path) -> None:
    """There or not yet, its owner's or everybody's, or no directory at all."""
    assert (await look(tmp_path / "new"))["datadir"].level is Level.INFO
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    saw((await look(open_to_all))["datadir"], Level.WARNING, "every user", f"chmod 700 {open_to_all}")
    open_to_all.chmod(0o700)
    assert (await look(open_to_all))["datadir"].level is Level.OK
    (tmp_path / "file").touch()
    saw(doctor._machine(settings(tmp_path / "open"))[1], Level.OK, "open")
    assert doctor_machine.look_into(tmp_path / "file").error == "not a directory"


async def test_a_full_disk_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the directory that would hold the embedded Redis; a Redis elsewhere has its own."""
    usage = shutil.disk_usage(tmp_path)._replace(free=50 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage if path.exists() else None)
    saw((await look(tmp_path / "a" / "b"))["disk"], Level.FAILURE, "50.0 MB", "make room")
    assert "disk" not in await look(tmp_path, ("redis.url", "redis://127.0.0.1:1"))


# --- the running server -----------------------------------------------------------------------------


async def test_a_server_that_does_not_run_is_a_warning(tmp_path: Path) -> None:
    """With how to start it."""
    saw((await look(tmp_path))["server"], Level.WARNING, "not running", "sidecar serve")


async def test_a_server_that_hangs_ends_the_look(tmp_path: Path) -> None:
    """Within its time: something listens there and never speaks."""
    datadir = tmp_path / "d"
    datadir.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(datadir / "admin.sock"))
        silent.listen()
        async with asyncio.timeout(5):
            found = await look(datadir, deadline=0.3)
    saw(found["server"], Level.FAILURE, "no answer within 0.3 s", "look at its log")


async def test_a_running_server_is_asked(served: Served) -> None:
    """Its version, its stream, what it lost."""
    found = await look(served.datadir)
    saw(found["server"], Level.OK if STATUS.version == __version__ else Level.WARNING, "running")
    saw(found["server.stream"], Level.OK, "arrive")
    saw(found["server.losses"], Level.OK, "no message")
    saw(found["webhooks"], Level.INFO, "none is registered")
    # It keeps the embedded Redis running: that one is not there is a fault then.
    saw(found["redis"], Level.FAILURE, "though the server runs", "redis.log")
    counters = {"dropped.queue-full": 3, "received": 9}
    status = replace(STATUS, version="0.0.9", stream_up=False, counters=counters)
    served.service._status = telling(status)
    found = await look(served.datadir)
    saw(found["server"], Level.WARNING, "version 0.0.9", "restart")
    saw(found["server.stream"], Level.FAILURE, "no onion messages")
    saw(found["server.losses"], Level.WARNING, "queue-full: 3", "sidecar top")


async def test_a_server_that_stands_by_names_who_leads(served: Served) -> None:
    """What it says of itself; it answers all that the doctor asks."""
    served.leader = "left"
    served.service._status = telling(replace(STATUS, leads=False, leader="left"))
    found = await look(served.datadir)
    saw(found["server.role"], Level.OK, "stands by: left leads")
    saw(found["webhooks"], Level.INFO, "none is registered")


async def test_the_last_notification_of_each_webhook_counts(served: Served) -> None:
    """Older ones do not, nor those of webhooks that are gone; neither host nor URL is shown."""
    async with grpc.aio.insecure_channel(socket_target(served.path)) as channel:
        admin, hooks = admin_pb2_grpc.AdminStub(channel), admin_pb2_grpc.WebhooksStub(channel)
        await admin.AddClient(admin_pb2.AddClientRequest(name="alice", node_id=NODE.hex()))
        await admin.AddClient(admin_pb2.AddClientRequest(name="bob"))
        url = "https://push.example.com/?token=hunter2"
        for app in ("one", "two"):
            await hooks.AddWebhook(admin_pb2.AddWebhookRequest(client="alice", app_name=app, url=url))
    for app, outcome in (("one", "timeout"), ("one", "ok"), ("two", "no-such-host"), ("gone", "tls")):
        await served.hooks.log_delivery(NODE, Delivery(1, app, "lsps5.onion_message_incoming", outcome, 1))
    found = (await look(served.datadir))["webhooks"]
    saw(found, Level.WARNING, "", "--egress")
    assert found.seen == "last notifications that did not arrive: no-such-host (1)"
    assert "example" not in str(found)
    assert "hunter2" not in str(found)


async def test_messages_that_arrived_prove_how_lnd_is_set_up(served: Served, tmp_path: Path) -> None:
    """In custom mode none comes without its line in lnd.conf."""
    served.service._status = telling(replace(STATUS, counters={"received": 4}))
    async with TellingLnd(tmp_path / "lnd", "custom") as lnd:
        found = await look(
            served.datadir,
            ("lnd.host", lnd.host),
            ("lnd.tlspath", str(lnd.tls_path)),
            ("lnd.macaroonpath", str(lnd.macaroon_path)),
        )
    saw(found["lnd.custom-message"], Level.OK, "4 messages")


# --- the way out ------------------------------------------------------------------------------------


@pytest.fixture
async def push(tmp_path: Path) -> AsyncIterator[PushService]:
    """A push service."""
    async with PushService(tmp_path) as running:
        yield running


def allowing(push: PushService) -> list[tuple[str, str]]:
    """The settings under which it may be told."""
    return [LOOPBACK, ("lsps5.ports", str(push.port)), ("lsps5.cafile", str(push.ca_file))]


async def test_a_push_service_that_answers_is_ok(push: PushService, tmp_path: Path) -> None:
    """Just TLS is spoken: nothing is asked of it."""
    found = await look(tmp_path, *allowing(push), egress=("localhost", push.port))
    saw(found["egress"], Level.OK, f"localhost:{push.port} answers")
    assert push.count() == 0
    assert "egress" not in await look(tmp_path)


@pytest.mark.parametrize(
    ("left_out", "host", "slug"),
    [
        (0, "localhost", "address-refused"),
        (1, "localhost", "port-refused"),
        (2, "localhost", "certificate"),
        (None, "127.0.0.2", "connect"),
        (None, "no.such.host.invalid", "no-such-host"),
    ],
)
async def test_a_way_that_is_closed_is_named(
    push: PushService, tmp_path: Path, left_out: int | None, host: str, slug: str
) -> None:
    """By the rules of webhooks, and by what happens."""
    flags = [flag for number, flag in enumerate(allowing(push)) if number != left_out]
    found = await look(tmp_path, *flags, egress=(host, push.port))
    saw(found["egress"], Level.FAILURE, slug, EGRESS_ADVICE[slug])


async def test_a_certificate_of_another_name_is_bad(tmp_path: Path) -> None:
    """As it is for a webhook."""
    async with PushService(tmp_path, certificate=Certificate.WRONG_NAME) as push:
        found = await look(tmp_path, *allowing(push), egress=("localhost", push.port))
    saw(found["egress"], Level.FAILURE, "certificate")


async def test_what_speaks_no_tls_or_nothing_is_named(tmp_path: Path) -> None:
    """Each with its slug."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await garbage(writer)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for behaviour, slug in ((plain, "tls"), (silent, "timeout")):
        server = await asyncio.start_server(behaviour, "127.0.0.1")
        async with server:
            port = server.sockets[0].getsockname()[1]
            rule = ("lsps5.ports", str(port))
            found = await look(tmp_path, LOOPBACK, rule, egress=("127.0.0.1", port), deadline=0.3)
        saw(found["egress"], Level.FAILURE, slug)


async def test_a_ca_that_can_not_be_used_is_said(tmp_path: Path) -> None:
    """It is the setting that is wrong."""
    with pytest.raises(ConfigError, match=r"lsps5\.cafile"):
        await doctor_machine.reach("localhost", 443, DialRules(), tmp_path / "none")


# --- a look that breaks -------------------------------------------------------------------------------


async def test_a_look_that_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are seen all the same, and the error's own text is not."""

    async def broken(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(doctor_lnd, "examine", broken)
    found = await look(tmp_path)
    saw(found["lnd"], Level.FAILURE, "RuntimeError at test_doctor.py", "report")
    assert "server" in found
    assert "hunter2" not in str(found)


async def test_a_look_in_the_background_may_fail_and_be_left_behind() -> None:
    """What it raises is raised; who does not wait for it is not held up."""

    def fails() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await doctor_machine.in_background(fails)
    assert await doctor_machine.in_background(lambda: 7) == 7
    # One that never ends must not keep the process from ending.
    left = threading.Event()
    waiting = asyncio.create_task(doctor_machine.in_background(left.wait))
    await asyncio.sleep(0)
    kinds = [each.daemon for each in threading.enumerate() if each.name == "doctor"]
    waiting.cancel()
    left.set()
    # The one before may not have ended yet: it is no hindrance either.
    assert kinds
    assert all(kinds)


# --- what is printed ----------------------------------------------------------------------------------

FINDINGS = [
    ok("lnd", "answers"),
    info("lnd.burst", "can't be seen", "run grep"),
    warning("server", "not [running] :smile:", "start it"),
]


def command(*argv: str) -> argparse.Namespace:
    """The command line, as the program makes it."""
    parser = argparse.ArgumentParser()
    top = parser.add_subparsers()

    def make(group: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = group.add_parser(name, help=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true")
        return made

    doctor_commands.register(top, make)
    return parser.parse_args(["doctor", *argv])


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found, to be changed."""
    findings = list(FINDINGS)

    async def examine(*_: object) -> list[Finding]:
        return findings

    monkeypatch.setattr(doctor, "examine", examine)
    monkeypatch.setattr("sidecar.logs.setup", lambda *_: None)  # the tests' own log stays
    return findings


def run(tmp_path: Path, *argv: str) -> str:
    """What a run returns, to be printed."""
    args = command(*argv)
    text: str = args.run(args, settings(tmp_path))
    return text


def test_findings_are_lines_and_advice(found: list[Finding], tmp_path: Path) -> None:
    """Without colours where there is no terminal; warnings are no failure of the command."""
    assert run(tmp_path).splitlines() == [
        "ok       lnd        answers",
        "info     lnd.burst  can't be seen",
        "                    -> run grep",
        "warning  server     not [running] :smile:",
        "                    -> start it",
        "",
        "1 warning",
    ]
    found[:] = [ok("lnd", "x" * 300)]
    assert run(tmp_path).splitlines() == [f"ok  lnd  {'x' * 300}", "", "all is well"]


def test_a_failure_ends_with_1(found: list[Finding], tmp_path: Path) -> None:
    """Printed all the same, as text and as JSON."""
    found.append(failure("redis", "away", "start it"))
    said = []
    for argv in ((), ("--json",)):
        with pytest.raises(NotWell) as told:
            run(tmp_path, *argv)
        said.append(str(told.value))
    text, printed = said
    assert "failure  redis" in text
    assert text.splitlines()[-1] == "1 failure, 1 warning"
    assert json.loads(printed)["worst"] == "failure"


LOOK = """
import structlog
from sidecar import doctor
from sidecar.cli.doctor import look
from sidecar.config import load
async def examine(*_):
    structlog.get_logger("sidecar.adapters.x").warning("Redis is away")
    structlog.get_logger("sidecar.adapters.x").info("asked")
    return ["a finding"]
doctor.examine = examine
print(look(load({}, {}), None))
"""


def test_what_is_logged_meanwhile_is_not_among_the_findings(tmp_path: Path) -> None:
    """Stdout is for them alone; warnings go to stderr, and less than that nowhere."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['a finding']\n"
    assert "Redis is away" in done.stderr
    assert "asked" not in done.stderr


def test_json_is_for_scripts(found: list[Finding], tmp_path: Path) -> None:
    """All four fields of each check, and the worst level."""
    said = json.loads(run(tmp_path, "--json"))
    assert said["worst"] == "warning"
    assert said["checks"][1] == {
        "name": "lnd.burst",
        "level": "info",
        "seen": "can't be seen",
        "advice": "run grep",
    }
    assert len(said["checks"]) == len(found)


def test_a_terminal_gets_colours(
    found: list[Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else does."""
    assert "\x1b[" not in run(tmp_path)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in run(tmp_path)
    assert found


def test_settings_that_can_not_be_read_are_the_one_finding() -> None:
    """In the form that was asked for."""
    args = command("--json")
    with pytest.raises(NotWell) as told:
        args.unreadable(args, ConfigError("lnd.host: 'x' is not allowed"))
    (check,) = json.loads(str(told.value))["checks"]
    assert (check["name"], check["level"]) == ("settings", "failure")
    assert "lnd.host" in check["seen"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("push.example.com", ("push.example.com", 443)),
        ("push.example.com:8443", ("push.example.com", 8443)),
        ("[::1]", ("::1", 443)),
        ("[::1]:8443", ("::1", 8443)),
    ],
)
def test_a_host_may_have_a_port(text: str, expected: tuple[str, int]) -> None:
    """HTTPS's is the default."""
    assert command("--egress", text).egress == expected


@pytest.mark.parametrize("text", ["", ":443", "host:", "host:0", "host:65536", "host:x", "https://host"])
def test_what_is_no_host_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line, before anything is asked."""
    with pytest.raises(SystemExit):
        command("--egress", text)
    assert "host:port" in capsys.readouterr().err
