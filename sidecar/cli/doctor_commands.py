"""`sidecar doctor`: what is well, what is not, and what to do about it (docs/doctor.md)."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sidecar import parsing
from sidecar.cli.command_line import NotWell
from sidecar.cli.printing import as_json
from sidecar.config import Settings
from sidecar.core.diagnosis import Finding, Level, failure, worst
from sidecar.core.errors import ConfigError

_STYLES = {Level.OK: "green", Level.INFO: "cyan", Level.WARNING: "yellow", Level.FAILURE: "bold red"}
# A file or a pipe gets one line for each: for grep.
_NO_WRAP = 10_000


def register(top: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to those of the command line; `command` makes one of a group.

    `unreadable` takes the place of its run when the settings can't be read.
    """
    text = "look at LND, Redis, the server and this machine: what is wrong, and what to do"
    made = command(top, "doctor", run, text)
    made.add_argument(
        "--egress",
        metavar="HOST[:PORT]",
        type=_host,
        help="connect by TLS to a push service, as a webhook would be",
    )
    made.set_defaults(unreadable=unreadable)


def _host(text: str) -> tuple[str, int]:
    try:
        return parsing.endpoint(443)(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give {error}") from None


def run(args: argparse.Namespace, settings: Settings) -> str:
    """All findings. Raises NotWell when one of them is a failure."""
    # Before gRPC is loaded: what it would write on stderr we say in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from sidecar.cli.doctor import look  # noqa: PLC0415 - after the line above

    return _tell(args, look(settings, args.egress))


def unreadable(args: argparse.Namespace, error: ConfigError) -> NoReturn:
    """Say that the settings can't be read, the one finding then. Raises NotWell."""
    raise NotWell(_text(args, [failure("settings", str(error), "see `sidecar --help`")]))


def _tell(args: argparse.Namespace, findings: Sequence[Finding]) -> str:
    if worst(findings) is Level.FAILURE:
        raise NotWell(_text(args, findings))
    return _text(args, findings)


def _text(args: argparse.Namespace, findings: Sequence[Finding]) -> str:
    return as_json(_json(findings)) if args.json else _shown(findings)


def _json(findings: Sequence[Finding]) -> dict[str, object]:
    checks = [
        {"name": each.name, "level": each.level.value, "seen": each.seen, "advice": each.advice}
        for each in findings
    ]
    return {"checks": checks, "worst": worst(findings).value}


def _shown(findings: Sequence[Finding]) -> str:
    """A screen of lines; with colours on a terminal."""
    # Here, for it takes its time, and all other commands load this module.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=None if terminal else _NO_WRAP,
        highlight=False,
        emoji=False,
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    for each in findings:
        style = _STYLES[each.level]
        grid.add_row(Text(each.level.value, style), each.name, Text(each.seen))
        if each.advice:
            grid.add_row("", "", Text(f"-> {each.advice}", "bold" if each.level is Level.FAILURE else ""))
    with console.capture() as captured:
        console.print(grid)
        console.print(Text(f"\n{_summary(findings)}"))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _summary(findings: Sequence[Finding]) -> str:
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    bad = [
        f"{counts[level]} {level.value}{'' if counts[level] == 1 else 's'}"
        for level in (Level.FAILURE, Level.WARNING)
        if counts[level]
    ]
    return ", ".join(bad) if bad else "all is well"
