"""The log as it comes out: one event a line, for people and for machines, without secrets."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar import logs

ROOT = Path(__file__).parents[1]

SETUP = "import logging, structlog\nfrom sidecar import logs\nlogs.setup({level!r}, {form!r})\n"
OURS = "log = structlog.get_logger('sidecar.app')\n"
THEIRS = "log = logging.getLogger('redis')\n"


def logged(code: str, form: str = "console", level: str = "info") -> str:
    """What a program that logs writes on stderr; nothing on stdout."""
    program = SETUP.format(level=level, form=form) + code
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return done.stderr


def events(code: str, level: str = "info") -> list[dict[str, Any]]:
    """The same as JSON."""
    return [json.loads(line) for line in logged(code, "json", level).splitlines()]


STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def test_an_event_is_a_line_for_people() -> None:
    """Time in UTC with milliseconds, level, logger, words, then keys and values; no colour in a file."""
    said = logged(OURS + "log.info('client added', client='alice', slots=3, text='a b')")
    assert re.fullmatch(
        STAMP + r" \[info     \] sidecar\.app: client added client=alice slots=3 text='a b'\n", said
    )


def test_an_event_is_an_object_for_machines() -> None:
    """The same, by key."""
    (event,) = events(OURS + "log.warning('client added', client='alice', slots=3)")
    assert re.fullmatch(STAMP, event.pop("timestamp"))
    assert event == {
        "event": "client added",
        "level": "warning",
        "logger": "sidecar.app",
        "client": "alice",
        "slots": 3,
    }


def test_the_log_of_libraries_has_the_same_form() -> None:
    """Python's logging goes through the same handler, its arguments filled in."""
    said = logged(THEIRS + "log.warning('lost %s', 'it')")
    assert re.fullmatch(STAMP + r" \[warning  \] redis: lost it\n", said)
    (event,) = events(THEIRS + "log.warning('lost %s', 'it')")
    assert (event["event"], event["logger"], event["level"]) == ("lost it", "redis", "warning")


@pytest.mark.parametrize("source", [OURS, THEIRS])
def test_a_fault_is_one_event_with_its_traceback(source: str) -> None:
    """As text: one field in JSON. What the variables held is not shown."""
    fault = "try:\n    hidden = 'hunter2' + ''\n    1 / 0\nexcept Exception:\n    log.exception('a fault')"
    (event,) = events(source + fault)
    assert (event["event"], event["level"]) == ("a fault", "error")
    assert event["exception"].startswith("Traceback (most recent call last):")
    assert event["exception"].endswith("ZeroDivisionError: division by zero")
    said = logged(source + fault)
    assert said.count(": a fault\n    Traceback (most recent call last):\n") == 1
    assert "hunter2" not in said + str(event)


@pytest.mark.parametrize("source", [OURS, THEIRS])
def test_what_is_below_the_level_is_not_said(source: str) -> None:
    """And a change of the level holds at once, for both kinds."""
    code = "log.info('one')\nlogs.set_level('info')\nlog.info('two')\nlog.debug('three')"
    assert [each["event"] for each in events(source + code, level="warning")] == ["two"]


def test_nobody_makes_up_a_line_or_speaks_to_the_terminal() -> None:
    """Line ends and escapes in words and values do not come out as such."""
    evil = "'x\\nready: y\\x1b[2J'"
    said = logged(f"{OURS}log.info({evil}, key={evil}, bare='\\x1b[2J')\n{THEIRS}log.error({evil})")
    assert len(said.splitlines()) == 2
    assert "\x1b" not in said
    assert len(events(f"{OURS}log.info({evil}, key={evil})")) == 1


def test_a_traceback_makes_up_no_line_either() -> None:
    """What an error quotes stands farther in than any event, and speaks to no terminal."""
    evil = "try:\n    raise ValueError('x\\n2026-01-01 [info] ready\\x1b[2J')\nexcept ValueError:\n"
    said = logged(OURS + evil + "    log.exception('a fault')")
    assert re.fullmatch(STAMP + r" .*: a fault", said.splitlines()[0])
    assert all(line.startswith("    ") for line in said.splitlines()[1:])
    assert "[info] ready" in said
    assert "\x1b" not in said


SECRETS = ("url", "redis_url", "macaroon", "admin-token", "invoice", "preimage", "PASSWORD", "authorization")


@pytest.mark.parametrize("key", SECRETS)
def test_what_is_named_like_a_secret_is_masked(key: str) -> None:
    """A last guard: the key stays, so that the mistake is seen."""
    assert logs.mask_secrets(None, "info", {"event": "x", key: "hunter2"}) == {"event": "x", key: "***"}
    (event,) = events(f"{OURS}log.info('x', **{{{key!r}: b'hunter2'}})")
    assert event[key] == "***"


@pytest.mark.parametrize(
    ("key", "value"), [("invoice_slot", 3), ("node", "02ab"), ("event", "a url is bad"), ("urlish", "x")]
)
def test_what_is_no_secret_is_shown(key: str, value: object) -> None:
    """Numbers say nothing, and a key is judged by whole words."""
    assert logs.mask_secrets(None, "info", {key: value}) == {key: value}


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_it_wants_none(no_color: str, coloured: bool) -> None:
    """As https://no-color.org/ says."""
    main, other = pty.openpty()
    program = SETUP.format(level="info", form="console") + OURS + "log.info('hello')"
    environ = {**os.environ, "NO_COLOR": no_color}
    try:
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stderr=other, env=environ, check=True, timeout=60
        )
        said = os.read(main, 10_000).decode()
    finally:
        os.close(main)
        os.close(other)
    assert "hello" in said
    assert ("\x1b[" in said) is coloured


def test_routed_events_reach_python_loggings_handlers(caplog: pytest.LogCaptureFixture) -> None:
    """So that whatever is set up there, as pytest does, sees them."""
    caplog.set_level(logging.INFO)
    import structlog

    structlog.get_logger("sidecar.test").info("hello", key=1)
    (record,) = caplog.records
    assert isinstance(record.msg, dict)
    assert (record.name, record.msg["event"], record.msg["key"]) == ("sidecar.test", "hello", 1)
