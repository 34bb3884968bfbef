"""The command line, and whatever can go wrong: one line that says what to do."""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar import __version__, cli, config
from sidecar.adapters.admin_client import admin_socket_path
from sidecar.cli import commands
from sidecar.core import keys
from sidecar.core.errors import LndSetupError, LndUnavailable
from sidecar.core.model import Quota
from sidecar.rpc.sidecar.v1 import admin_pb2_grpc
from tests.harness.shell import ROOT, Served, Shell

# --- the command line ---------------------------------------------------------------------------


async def test_options_stand_before_or_after_the_command(served: Served) -> None:
    """And come from the environment as well."""
    here, elsewhere = str(served.datadir), str(served.home / "elsewhere")
    for args in (
        ("--json", "--datadir", here, "client", "list"),
        ("client", "--json", "--datadir", here, "list"),
        ("client", "list", f"--datadir={here}", "--json"),
        ("--datadir", elsewhere, "client", "list", "--json", "--datadir", here),
    ):
        result = await served.run(*args, SIDECAR_DATADIR=elsewhere)
        assert result.json() == {"clients": []}


def test_a_command_that_needs_no_library_loads_none() -> None:
    """They take their time: what asks LND, Redis or the server, or draws, loads what it needs by itself."""
    heavy = "{'aiohttp', 'cryptography', 'grpc', 'redis', 'rich', 'structlog'}"
    program = f"import sys, sidecar.cli; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_reset_is_told_of_with_the_names_that_it_takes(shell: Shell) -> None:
    """All of them: a limit that is not named would be reset by nobody."""
    text = re.sub(r"\s+", "", (await shell.run("client", "update", "--help")).text())
    assert f"foreach:{','.join(commands.LIMITS)}`sidecar" in text


async def test_the_version_is_the_packages(shell: Shell) -> None:
    """`sidecar --version`."""
    assert (await shell.run("--version")).text() == f"sidecar {__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        *(
            [],
            ["serve"],
            ["client"],
            ["client", "add"],
            ["client", "update"],
            ["webhook"],
            ["webhook", "add"],
        ),
        *(["status"], ["top"], ["doctor"], ["export"], ["import"], ["dry-run"], ["config"]),
        ["macaroon-permissions"],
    ],
)
async def test_every_command_has_help(shell: Shell, command: list[str]) -> None:
    """The main help and that of `serve` list all options; the others stay short."""
    text = (await shell.run(*command, "--help")).text()
    assert ("--redis.url" in text) is (command in ([], ["serve"]))
    if not command:
        commands = ("serve", "client", "webhook", "status", "top", "doctor", "export", "import", "dry-run")
        assert all(f"    {each} " in text for each in (*commands, "config"))
        assert "macaroon-permissions" in text


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["client"],
        ["client", "add"],
        ["client", "add", "a", "b"],
        ["clint"],
        ["client", "lst"],
        ["status", "--jsn"],
        ["client", "list", "--datad", "x"],
        ["status", "--datadir"],
        ["macaroon-permissions", "--lnd.version", "0.19"],
        ["client", "show", "--name\nalice"],
        ["client", "rebind"],
        ["client", "rebind", "alice", "02ab"],
        ["client", "timestamps", "alice"],
        ["client", "update"],
        ["client", "update", "alice", "--reset"],
        ["client", "pause"],
        ["client", "resume", "alice", "bob"],
        ["client", "mailbox"],
        ["config", "show"],
        ["webhook"],
        ["webhook", "add", "alice", "app"],
        ["webhook", "list"],
        ["webhook", "list", "alice", "app"],
        ["webhook", "pause", "alice"],
    ],
)
async def test_a_wrong_command_line_is_one_line_and_exit_2(shell: Shell, args: list[str]) -> None:
    """It says what is wrong and where help is; options can't be abbreviated."""
    assert re.search(r"\(see `sidecar( [a-z-]+)* --help`\)$", (await shell.run(*args)).refusal(2))


# --- what can go wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", [["status"], ["client", "list"], ["client", "add", "alice"], ["webhook", "list", "alice"]]
)
async def test_no_server_running(shell: Shell, args: list[str]) -> None:
    """No socket: the line says how to start a server, and where one was looked for."""
    said = (await shell.run(*args)).refusal()
    assert said.startswith(f"no server is running on {shell.datadir}: start it with `sidecar serve`")


async def test_a_killed_server_is_not_running(shell: Shell) -> None:
    """A socket file that nobody listens on is no server."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(shell.make_socket_path()))
    assert "no server is running" in (await shell.run("status")).refusal()


async def test_another_users_server_is_denied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says who may: the server's own user."""
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)  # noqa: PTH101
        monkeypatch.setenv("HOME", home)
        served = Served(Path(home))
        server = await served.start()
        for closed in (served.path, served.datadir):
            served.datadir.chmod(0o755 if closed is served.path else 0o700)
            with as_a_stranger(closed):
                assert cli.main(["status"]) == 1
            said = capsys.readouterr().err
            assert "may not be " in said
            assert said.endswith("by this user: run this as the user that runs `sidecar serve`\n")
        await server.stop(None)


@contextmanager
def as_a_stranger(closed: Path) -> Iterator[None]:
    """Be a user to whom `closed` is closed; root, who may open all, becomes nobody for the while."""
    if os.geteuid() != 0:
        closed.chmod(0)
    else:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        closed.chmod(0o700)


async def test_the_same_client_twice(served: Served) -> None:
    """The line names the client and the way on."""
    await served.run("client", "add", "alice")
    said = (await served.run("client", "add", "alice", "--json")).refusal()
    assert said == (
        "there is a client alice already: choose another name, or see it with `sidecar client show alice`"
    )


@pytest.mark.parametrize(
    "args",
    [
        *(["client", command, "bob"] for command in ("show", "rotate", "revoke", "remove", "rebind")),
        ["client", "timestamps", "bob", "z"],
        ["webhook", "list", "bob"],
    ],
    ids=lambda args: args[1],
)
async def test_no_such_client(served: Served, args: list[str]) -> None:
    """The line names the client and the way on."""
    said = (await served.run(*args)).refusal()
    assert said == "there is no client 'bob': `sidecar client list` shows all"


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "0" * 20, "a\nb", "älice"])
async def test_a_bad_name(served: Served, name: str) -> None:
    """The line says what a name is."""
    assert "is no name: " in (await served.run("client", "add", name)).refusal()


@pytest.mark.parametrize("command", ["add", "show"])
async def test_a_name_that_is_no_text(served: Served, command: str) -> None:
    """A shell can pass any bytes."""
    said = (await served.run("client", command, b"\xff\xfe")).refusal()
    assert said == r"'\udcff\udcfe' is no text in UTF-8"


@pytest.mark.parametrize("node_id", ["02ab", "02" + "ff" * 32, "alice", b"\xff"])
async def test_a_bad_node_id(served: Served, node_id: str | bytes) -> None:
    """For a new client and for one that is there; nothing changes."""
    said = (await served.run("client", "add", "alice", "--node-id", node_id)).refusal()
    assert re.search(r"is no (node id: give the 66 hex digits|text in UTF-8)", said)
    assert (await served.run("client", "list", "--json")).json() == {"clients": []}


async def test_an_empty_node_id_is_no_wish_to_forget_it(served: Served) -> None:
    """A script whose variable is not set must not unbind a client."""
    node_id = keys.public_key(b"\x01" * 32).hex()
    await served.run("client", "add", "alice", "--node-id", node_id)
    for args in (("rebind", "alice"), ("add", "bob")):
        said = (await served.run("client", *args, "--node-id", "")).refusal()
        assert said == "--node-id is empty: give the 66 hex digits of the wallet's public key"
    clients = (await served.run("client", "list", "--json")).json()["clients"]
    assert [(each["name"], each["node_id"]) for each in clients] == [("alice", node_id)]


async def test_a_node_that_is_another_clients(served: Served) -> None:
    """The line names that client."""
    node_id = keys.public_key(b"\x01" * 32).hex()
    await served.run("client", "add", "alice", "--node-id", node_id)
    assert "client alice" in (await served.run("client", "add", "bob", "--node-id", node_id)).refusal()
    await served.run("client", "add", "bob")
    assert "client alice" in (await served.run("client", "rebind", "bob", "--node-id", node_id)).refusal()


async def test_a_wrong_form_of_timestamps(served: Served) -> None:
    """The line says which there are."""
    expected = "timestamps: 'utc' is not allowed: give offset, z or default"
    assert (await served.run("client", "add", "alice", "--timestamps", "utc")).refusal() == expected
    await served.run("client", "add", "alice")
    assert (await served.run("client", "timestamps", "alice", "utc")).refusal() == expected


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--slots", "0"),
        ("--slots", "1001"),
        ("--slots", "ten"),
        ("--bytes", "0"),
        ("--bytes", "99999999999999999999"),
        ("--ttl", "59"),
        ("--ttl", "1y"),
    ],
)
async def test_a_wrong_quota(served: Served, flag: str, value: str) -> None:
    """The line names the flag and what is allowed."""
    said = (await served.run("client", "add", "alice", flag, value)).refusal()
    assert f"'{value}' from the flag {flag} is not allowed: give " in said


async def test_a_wrong_setting(shell: Shell) -> None:
    """For every command, before it does anything."""
    said = (await shell.run("status", SIDECAR_CLIENT_SLOTS="0")).refusal()
    assert said.startswith("client.slots: '0' from the environment variable SIDECAR_CLIENT_SLOTS")
    assert (await shell.run("serve", "--config", "/no/such.toml")).refusal().startswith("config: ")
    assert "did you mean SIDECAR_LND_HOST?" in (await shell.run("config", SIDECAR_LND_HOTS="x")).refusal()


async def test_the_doctor_tells_of_a_wrong_setting_as_a_finding(shell: Shell) -> None:
    """It is asked what is wrong: that the settings can't be read is its answer."""
    result = await shell.run("doctor", "--json", SIDECAR_CLIENT_SLOTS="0")
    assert (result.code, result.err) == (1, "")
    (check,) = json.loads(result.out)["checks"]
    assert check["seen"].startswith("client.slots: '0' from the environment variable SIDECAR_CLIENT_SLOTS")


async def test_a_server_whose_store_or_lnd_is_away(served: Served) -> None:
    """The line says what is away."""
    served.store.away = True
    assert (await served.run("client", "list")).refusal() == "the store is away"
    served.issuer.error = LndUnavailable("LND is locked: unlock it")
    assert (await served.run("client", "add", "alice")).refusal() == "LND is locked: unlock it"


async def test_a_fault_inside_the_server(served: Served) -> None:
    """Its text stays in the server's log."""
    served.issuer.error = ValueError("inner secret")
    assert (await served.run("client", "add", "alice")).refusal() == (
        "the server failed inside; its log says why"
    )


async def test_a_server_of_another_version(served: Served) -> None:
    """One that lacks a call says so: restart it."""
    served.service = admin_pb2_grpc.AdminServicer()  # type: ignore[assignment,abstract]
    served.datadir = served.home / "old"
    served.path = admin_socket_path(served.datadir)
    server = await served.start()
    said = (await served.run("status", "--datadir", str(served.datadir))).refusal()
    assert said == "the running server is of another version: restart it"
    await server.stop(None)


async def test_a_server_that_hangs_up(shell: Shell) -> None:
    """Something else on the socket is one line, too."""
    path = shell.make_socket_path()
    other = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)
    assert "look at its log" in (await shell.run("status")).refusal()
    other.close()


async def test_a_reader_that_has_seen_enough_is_no_fault(served: Served) -> None:
    """`sidecar client list | head -0` prints nothing about pipes."""
    for args in (["client", "list"], ["--help"]):
        read, write = os.pipe()
        os.close(read)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", *args),
            stdout=write,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(served.home), "PYTHONPATH": str(ROOT)},
        )
        os.close(write)
        assert (await process.communicate())[1] == b""


@pytest.mark.parametrize("args", [["config"], ["--help"]])
async def test_output_that_finds_no_room_is_one_line(shell: Shell, args: list[str]) -> None:
    """A full disk is no fault of ours."""
    full = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", *args),
        stdout=full,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(shell.home), "PYTHONPATH": str(ROOT)},
    )
    os.close(full)
    _, err = await process.communicate()
    assert (process.returncode, err) == (
        1,
        b"sidecar: the output can't be written: No space left on device\n",
    )


async def test_ctrl_c_is_exit_130(shell: Shell) -> None:
    """While a command waits for a server: no traceback, no line."""
    asked = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        # The first connection only looks whether somebody is there, and says nothing.
        while await reader.read(1_024):
            asked.set()

    silent = await asyncio.start_unix_server(listen, shell.make_socket_path())
    # A shell's jobs in the background ignore Ctrl-C, and so would what these tests start there.
    heed = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", heed, "-m", "sidecar", "status"),
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(shell.home), "PYTHONPATH": str(ROOT)},
    )
    await asked.wait()
    # Until gRPC has begun the call and waits for its answer: nothing tells that.
    await asyncio.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (130, b"")
    silent.close()


def test_every_limit_of_a_client_has_its_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a new client and for one that is there; `--reset` takes their names."""
    seen = []

    def run(args: argparse.Namespace, _settings: config.Settings) -> str:
        seen.append((commands._quota(args), getattr(args, "reset", None)))
        return ""

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(commands, "add", run)
    monkeypatch.setattr(commands, "update", run)
    given = [
        *("--slots=1", "--bytes=2", "--ttl=3h", "--rate=4.5", "--burst=5", "--stores=6", "--offer-paths=7"),
        *("--mail-letters=8", "--mail-bytes=9"),
    ]
    quota = Quota(1, 2, 3 * 3_600, 4.5, 5, 6, 7, 8, 9)
    assert cli.main(["client", "add", "alice", *given]) == 0
    assert cli.main(["client", "update", "alice", *given]) == 0
    assert cli.main(["client", "update", "alice", "--reset", "slots", "--reset=mail-bytes"]) == 0
    assert seen == [(quota, None), (quota, None), (Quota(), ["slots", "mail-bytes"])]


# --- serve --------------------------------------------------------------------------------------


def served_by(serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *args: str) -> int:
    """The exit code of `sidecar serve` with `serve` in the server's place."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "sidecar.app", types.SimpleNamespace(serve=serve))
    return cli.main(["serve", *args])


def test_serve_gets_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of them, checked."""
    seen = []

    async def serve(loaded: config.Loaded, loader: config.Loader) -> None:
        assert loader.load() == loaded
        seen.append(loaded.settings)

    assert served_by(serve, monkeypatch, tmp_path, "--lnd.host", "lnd:1", "--network=regtest") == 0
    assert (seen[0].lnd.host, seen[0].network) == ("lnd:1", "regtest")


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "from a task group"])
def test_what_the_operator_must_mend_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], grouped: bool
) -> None:
    """Wherever in the server it came up."""

    async def fail() -> None:
        raise LndSetupError("feature bit 39 is missing:\n  add it")

    async def serve(_loaded: config.Loaded, _loader: config.Loader) -> None:
        if not grouped:
            await fail()
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    assert served_by(serve, monkeypatch, tmp_path) == 1
    assert capsys.readouterr() == ("", "sidecar: feature bit 39 is missing: add it\n")


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_fault_of_our_own_is_one_line_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    """With the place, to be reported; the traceback only on request."""

    async def serve(_loaded: config.Loaded, _loader: config.Loader) -> None:
        raise KeyError("oops")

    assert served_by(serve, monkeypatch, tmp_path, "--loglevel", level) == 1
    err = capsys.readouterr().err
    assert re.search(r"sidecar: a fault of the sidecar's own at test_cli\.py:\d+: KeyError\('oops'\)", err)
    assert ("Traceback" in err) is (level == "debug")
