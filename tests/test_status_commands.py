"""`sidecar status` and `sidecar top`: what they print, and that the view outlives its server."""

import argparse
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.adapters.admin_client import AdminClient
from sidecar.cli import status_commands
from sidecar.cli.live import Watch
from sidecar.core.errors import OperatorError, ServerNotRunning
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.told import STARTED_MS, Told, a_client, a_status

ROOT = Path(__file__).parents[1]
COUNTERS = {
    "received": 9,
    "dropped.bad-context": 2,
    "dropped.rate-limited": 1,
    "sent.static_invoice": 4,
    "wake.sent.lsps5.onion_message_incoming": 2,
    "new": 5,
}
TOOK = admin_pb2.Seconds(name="store.read", count=10, sum=0.015, bounds=[0.001, 0.002], buckets=[0, 10, 0])
PROBLEM = admin_pb2.Problem(at_ms=STARTED_MS, reason="lnd-unavailable", text="LND does not\nanswer")


def run(argv: list[str], datadir: Path) -> str:
    """A command as the command line runs it, on the server of a data directory."""
    parser = argparse.ArgumentParser()
    top = parser.add_subparsers(required=True)

    def command(group: Any, name: str, run: object, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = group.add_parser(name, help=text)
        made.add_argument("--json", action="store_true")
        made.set_defaults(run=run)
        return made

    status_commands.register(top, command)
    args = parser.parse_args(argv)
    text: str = args.run(args, SimpleNamespace(datadir=datadir))
    return text


@pytest.fixture(autouse=True)
def _connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """These commands need of all settings just where the server is; a runner's width is not theirs."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(status_commands, "connect", lambda settings: AdminClient(settings.datadir))


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """A server with a client."""
    server = Told(a_client("alice", 3))
    with server.serving(tmp_path):
        yield server


# --- status -------------------------------------------------------------------------------------


def test_status_is_one_screen_of_what_the_server_stands_on_and_did(told: Told, tmp_path: Path) -> None:
    """Each subject in a line: what came of it, and why."""
    told.status = a_status(
        COUNTERS,
        clients=2,
        slots_used=3,
        bytes_used=5_000,
        mail_letters=4,
        seconds=[TOOK],
        problems=[PROBLEM],
    )
    text = run(["status"], tmp_path)
    for line in (
        r"lnd version +0\.21\.2-beta",
        r"onion messages +arriving",
        r"up since +2023-11-14T22:13:20Z \(\d+ d \d+ h\)",
        r"clients +2, with 3 slots and 5000 bytes in use",
        r"mailboxes +4 messages, 0 bytes",
        r"onion message +received 9, dropped 3 \(bad-context 2, rate-limited 1\)",
        r"static_invoice +sent 4",
        r"wake-up +sent 2 \(lsps5.onion_message_incoming 2\)",
        r"new +5",
        r"store.read +10 +1\.5 ms +1\.9 ms +2\.0 ms",
        r"2023-11-14T22:13:20Z +lnd-unavailable +LND does not\\nanswer",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line
    assert len(text.splitlines()) <= 30


def test_status_of_a_server_that_says_little_is_short(told: Told, tmp_path: Path) -> None:
    """No empty tables; what is not known is said so."""
    told.status = admin_pb2.GetStatusResponse()
    text = run(["status"], tmp_path)
    assert "not arriving: LND is away" in text
    assert re.search(r"^up since +not known$", text, re.MULTILINE)
    assert len(text.splitlines()) == 12


@pytest.mark.parametrize(
    ("role", "leader", "line"),
    [
        ("leads", "left", "leads, as left"),
        ("leads", "", "leads"),
        ("stands by", "left", "stands by: left leads"),
        ("stands by", "", "stands by: which one leads is not known yet"),
        ("stands by", "a\x1bb", r"stands by: a\\x1bb leads"),
    ],
)
def test_status_tells_who_leads(told: Told, tmp_path: Path, role: str, leader: str, line: str) -> None:
    """Of several sidecars beside one LND; for scripts as two words."""
    told.status = a_status(role=role, leader=leader)
    assert re.search(f"^role +{line}$", run(["status"], tmp_path), re.MULTILINE)
    found = json.loads(run(["status", "--json"], tmp_path))
    assert (found["role"], found["leader"]) == (role, leader)


def test_status_for_scripts_has_all_that_there_is(told: Told, tmp_path: Path) -> None:
    """The keys that it always had, and the new ones."""
    told.status = a_status(
        COUNTERS, queued=1, seconds=[TOOK, admin_pb2.Seconds(name="x")], problems=[PROBLEM]
    )
    found = json.loads(run(["status", "--json"], tmp_path))
    assert found["counters"] == COUNTERS
    assert {name: found[name] for name in ("version", "node_id", "lnd_version", "mode", "network")} == {
        "version": "0.1.0",
        "node_id": "02" + "ab" * 32,
        "lnd_version": "0.21.2-beta",
        "mode": "native",
        "network": "regtest",
    }
    assert (found["redis"], found["durability"]) == ("Redis 6.2.14 (embedded, AOF always)", "strict")
    assert (found["stream_up"], found["started_at_ms"], found["queued"]) == (True, STARTED_MS, 1)
    assert (found["clients"], found["slots_used"], found["bytes_used"]) == (0, 0, 0)
    assert found["mailbox"] == {"messages": 0, "bytes": 0}
    timed, empty = found["seconds"]
    assert (timed["name"], timed["count"], timed["sum"]) == ("store.read", 10, 0.015)
    assert (timed["bounds"], timed["buckets"]) == ([0.001, 0.002], [0, 10, 0])
    assert timed["p50"] == pytest.approx(0.0015)
    assert (empty["p50"], empty["p99"]) == (None, None)
    assert found["problems"] == [
        {"at_ms": STARTED_MS, "reason": "lnd-unavailable", "text": "LND does not\nanswer"}
    ]


# --- top, one frame -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--once"]])
def test_where_there_is_no_terminal_top_prints_one_frame(
    told: Told, tmp_path: Path, options: list[str]
) -> None:
    """Plain text, all of it, without what a terminal would need."""
    told.clients = [a_client(f"client-{number}") for number in range(60)]
    told.status = a_status({"sent.static_invoice_persisted": 1}, seconds=[TOOK])
    text = run(["top", *options], tmp_path)
    assert "client-59" in text
    assert " static_invoice_persisted " in f" {text}".replace("\n", " ")
    assert "Last problems" in text
    assert "\x1b" not in text
    assert told.asked == 1


def test_top_for_scripts_is_the_status(told: Told, tmp_path: Path) -> None:
    """JSON is no picture."""
    assert json.loads(run(["top", "--json"], tmp_path)) == json.loads(run(["status", "--json"], tmp_path))
    assert told.asked == 2


@pytest.mark.parametrize("argv", [["status"], ["top"], ["top", "--once"]])
def test_without_a_server_both_say_how_to_start_it(tmp_path: Path, argv: list[str]) -> None:
    """At the start, where another data directory may be meant."""
    with pytest.raises(ServerNotRunning, match="sidecar serve"):
        run(argv, tmp_path)


@pytest.mark.parametrize("text", ["0", "0.1", "-1", "nan", "inf", "often", "3601"])
def test_an_interval_out_of_reason_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is allowed."""
    with pytest.raises(SystemExit):
        run(["top", "--interval", text], tmp_path)
    assert "give seconds from 0.2 to 3600" in capsys.readouterr().err


# --- top, asking again and again ----------------------------------------------------------------


def until_frame(watch: Watch, good: bool) -> str:
    """Wait until the server's answer is, or is not, there; the trouble that the frame tells of."""
    ticking = threading.Event()
    for _ in range(1_000):
        if bool(watch.frame.trouble) != good:
            return watch.frame.trouble
        ticking.wait(0.02)
    raise AssertionError(watch.frame)


def look_on(watch: Watch) -> None:
    """Ask for frames, for 20 s at most."""
    ticking = threading.Event()
    for _ in range(1_000):
        assert watch.frame
        ticking.wait(0.02)


def test_the_view_goes_on_while_its_server_is_away(tmp_path: Path) -> None:
    """It says so, keeps what it saw, and shows the server again when it is back."""
    told = Told(a_client("alice"))
    with contextlib.ExitStack() as stack:
        with told.serving(tmp_path):
            watch = stack.enter_context(Watch(lambda: AdminClient(tmp_path), 0.02))
            assert [each.name for each in watch.frame.now.clients] == ["alice"]
        assert "server" in until_frame(watch, good=False)
        assert [each.name for each in watch.frame.now.clients] == ["alice"]
        told.clients.append(a_client("bob"))
        told.status = a_status(started_at_ms=STARTED_MS + 5)
        with told.serving(tmp_path):
            until_frame(watch, good=True)
            assert [each.name for each in watch.frame.now.clients] == ["alice", "bob"]
            assert watch.frame.now.status.started_at_ms == STARTED_MS + 5


def test_a_slow_server_is_asked_by_one_call_at_a_time(told: Told, tmp_path: Path) -> None:
    """However long it takes, no second call waits behind the first; and nobody waits for it at the end."""
    with Watch(lambda: AdminClient(tmp_path), 0.01) as watch:
        told.wait_for_calls(3)
        told.answering.clear()
        told.wait_for_calls(told.asked + 1)
        asked = told.asked
        threading.Event().wait(0.2)  # many intervals: what must not happen has no event
        assert told.asked == asked
    assert not watch._thread.is_alive()
    told.answering.set()
    assert told.most_at_once == 1


def test_a_fault_of_ours_is_raised_and_not_drawn_over(tmp_path: Path) -> None:
    """A thread that died in silence would leave an old view on the screen for ever."""
    told = Told()
    failing = threading.Event()

    def connect() -> AdminClient:
        if failing.is_set():
            raise ZeroDivisionError
        return AdminClient(tmp_path)

    with contextlib.ExitStack() as stack:
        with told.serving(tmp_path):
            watch = stack.enter_context(Watch(connect, 0.01))
            failing.set()
        with pytest.raises(ZeroDivisionError):
            look_on(watch)


def test_the_first_answer_must_come(tmp_path: Path) -> None:
    """Opening raises what is wrong, as any command does."""
    with pytest.raises(OperatorError), Watch(lambda: AdminClient(tmp_path), 1):
        pass


# --- top, on a terminal -------------------------------------------------------------------------

SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}
ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """`sidecar top` on a terminal of its own; `seen` is all that it has drawn."""

    def __init__(self, datadir: Path, encoding: str = "utf-8") -> None:
        self._ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self._ours, (30, 100))
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", f"--datadir={datadir}", "top", "--interval=0.2"],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=subprocess.PIPE,
            env={
                "PATH": os.defpath,
                "PYTHONPATH": str(ROOT),
                "HOME": str(datadir),
                "TERM": "xterm-256color",
                "PYTHONIOENCODING": encoding,
            },
            start_new_session=True,
            # A shell's jobs in the background ignore it, and so would this one.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread here holds a lock
        )

    def until(self, words: bytes) -> None:
        """Read until something was drawn after what was read before."""
        start = len(self.seen)
        while words not in self.seen[start:]:
            self.seen += os.read(self._ours, 65_536)

    def press(self, keys: bytes) -> None:
        """Type, without Enter."""
        os.write(self._ours, keys)

    def ended(self) -> int:
        """Wait for the end, reading what is drawn until then; the exit code. Nothing is on stderr."""
        reader = threading.Thread(target=self._drain)
        reader.start()
        _, err = self.process.communicate(timeout=20)
        os.close(self.theirs)
        reader.join(20)
        os.close(self._ours)
        assert err == b""
        return self.process.returncode

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while part := os.read(self._ours, 65_536):
                self.seen += part


def echoing(terminal: Terminal) -> bool:
    """Whether what is typed is echoed and read by lines, as a shell expects to find it."""
    flags: int = termios.tcgetattr(terminal.theirs)[3]
    return bool(flags & termios.ECHO) and bool(flags & termios.ICANON)


@pytest.mark.parametrize(("how", "code"), [("q", 0), ("Q", 0), ("Ctrl-C", 0), ("SIGTERM", 143)])
def test_on_a_terminal_it_is_live_until_it_is_ended(told: Told, tmp_path: Path, how: str, code: int) -> None:
    """New answers are drawn; at the end the terminal is as it was, and all went well."""
    terminal = Terminal(tmp_path)
    terminal.until(b"alice")
    assert ENTER in terminal.seen
    assert not echoing(terminal)
    told.clients.append(a_client("bob"))
    terminal.until(b"bob")
    terminal.press(b"x")  # means nothing
    terminal.until(b"q ends")
    if how in SIGNALS:
        terminal.process.send_signal(SIGNALS[how])
    else:
        terminal.press(how.encode())
    assert terminal.process.wait(20) == code
    assert echoing(terminal)
    assert terminal.ended() == code
    assert terminal.seen.rindex(LEAVE) > terminal.seen.rindex(b"alice")
    assert SHOW_CURSOR in terminal.seen


def test_a_terminal_that_lacks_our_letters_gets_plain_ones(told: Told, tmp_path: Path) -> None:
    """As wide as they are, so that columns stay columns: nothing is escaped, and nothing fails."""
    told.status = a_status(seconds=[TOOK])
    terminal = Terminal(tmp_path, encoding="ascii")
    terminal.until(b"q ends")
    terminal.press(b"q")
    assert terminal.ended() == 0
    assert b"node 02ababababababab~ " in terminal.seen
    assert b"\\u" not in terminal.seen


def test_q_ends_it_while_the_server_does_not_answer(told: Told, tmp_path: Path) -> None:
    """The keyboard waits for no call."""
    terminal = Terminal(tmp_path)
    terminal.until(b"alice")
    told.answering.clear()
    told.wait_for_calls(told.asked + 1)
    terminal.press(b"q")
    assert terminal.ended() == 0
    told.answering.set()
