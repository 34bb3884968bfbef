"""The walk's terminal does what a terminal does, and its transcript tells of no machine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.walk.terminal import Machine, Terminal, Transcript


@pytest.fixture
def transcript(tmp_path: Path) -> Transcript:
    """It hides where the home is."""
    return Transcript({str(tmp_path): "~"})


@pytest.fixture
async def terminal(tmp_path: Path, transcript: Transcript) -> AsyncIterator[Terminal]:
    """In a home with nothing in it."""
    machine = Machine(tmp_path, {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    async with Terminal(machine, transcript, tmp_path) as opened:
        yield opened


async def test_what_a_command_sets_holds_for_the_next_one(terminal: Terminal) -> None:
    """As an environment that was activated does."""
    await terminal.run("mkdir a; cd a; export WHO=me")
    assert await terminal.run("echo $WHO in ${PWD##*/}") == "me in a\n"


async def test_a_command_that_fails_ends_the_walk_with_what_it_said(terminal: Terminal) -> None:
    """Standard error is shown as well, and the commands after it still run."""
    with pytest.raises(AssertionError, match=r"(?s)\$ no-such-command\n.*not found"):
        await terminal.run("no-such-command")
    assert await terminal.run("echo on") == "on\n"


async def test_a_command_does_not_read_what_is_typed_next(terminal: Terminal) -> None:
    """It has a standard input of its own: none, or the file that it names."""
    assert not await terminal.run("cat")
    await terminal.run("echo told > said.txt")
    assert await terminal.run("cat < said.txt") == "told\n"


async def test_a_server_keeps_the_terminal_until_sigterm(terminal: Terminal, transcript: Transcript) -> None:
    """What it prints meanwhile is shown at its end, with its exit code."""
    script = "trap 'echo bye; exit 3' TERM; printf 'up\\nmore\\n'; while :; do sleep 0.05; done"
    assert await terminal.serve(f'bash -c "{script}"', "up") == "up\n"
    assert await terminal.terminate() == 3
    assert transcript.text.splitlines()[-6:-2] == ["$ kill -TERM …", "more", "bye", "exit code 3"]


async def test_a_terminal_that_is_closed_leaves_nothing_running(
    tmp_path: Path, transcript: Transcript
) -> None:
    """What runs in it is asked to end."""
    script = "trap 'echo ended > end.txt; exit' TERM; echo up; while :; do sleep 0.05; done"
    async with Terminal(Machine(tmp_path, {"PATH": "/usr/bin:/bin"}), transcript, tmp_path) as opened:
        await opened.serve(f'bash -c "{script}"', "up")
    assert (tmp_path / "end.txt").read_text() == "ended\n"
    with pytest.raises(AssertionError, match="the terminal was closed"):
        await opened.run("true")


async def test_a_transcript_names_no_place_of_this_machine(
    terminal: Terminal, transcript: Transcript, tmp_path: Path
) -> None:
    """And of pip's output it has the result alone."""
    await terminal.run("pwd")
    assert transcript.text.startswith("$ pwd\n~\n# 0.")
    (tmp_path / "pip").write_text("#!/bin/sh\necho Looking somewhere\necho Successfully installed all\n")
    await terminal.run("chmod +x pip; PATH=$PWD:$PATH")
    await terminal.run("pip install .")
    assert "$ pip install .\nSuccessfully installed all\n# " in transcript.text
    assert "somewhere" not in transcript.text
