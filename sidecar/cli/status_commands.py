"""`sidecar status` and `sidecar top`: what the running server stands on, and what it does."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.cli import digest
from sidecar.cli.commands import connect
from sidecar.cli.digest import OTHER, Count
from sidecar.cli.printing import as_json, fields, table, utc
from sidecar.config import Settings
from sidecar.core.webhooks import printable

if TYPE_CHECKING:
    from sidecar.rpc.sidecar.v1 import admin_pb2

LEAST_INTERVAL, MOST_INTERVAL = 0.2, 3_600.0
"""Seconds between two looks of `sidecar top`."""

UNBOUND = 120
"""Columns of `sidecar top` where there is no terminal."""

_FACTS = ("version", "node_id", "lnd_version", "mode", "network", "redis", "durability", "stream_up")
_LEASE = ("role", "leader")
_TOTALS = ("started_at_ms", "clients", "slots_used", "bytes_used", "queued")
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def register(top: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add both commands to those of the command line; `command` makes one of a group."""
    command(top, "status", status, "what the running server stands on, and what it did")
    made = command(top, "top", watch, "a live view of the running server")
    made.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="time between two looks (default: 1)",
    )
    made.add_argument("--once", action="store_true", help="print what is seen now, and end")


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not LEAST_INTERVAL <= seconds <= MOST_INTERVAL:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed: give seconds from {LEAST_INTERVAL} to {MOST_INTERVAL:.0f}"
        )
    return seconds


# --- status -----------------------------------------------------------------------------------------


def status(args: argparse.Namespace, settings: Settings) -> str:
    """What the running server stands on, and what it did."""
    with connect(settings) as server:
        answer = server.status()
    return as_json(_status_json(answer)) if args.json else _status_text(answer, time.time_ns() // 1_000_000)


def _status_json(answer: "admin_pb2.GetStatusResponse") -> dict[str, Any]:
    return {
        **{name: getattr(answer, name) for name in (*_FACTS, *_LEASE, *_TOTALS)},
        "mailbox": {"messages": answer.mail_letters, "bytes": answer.mail_bytes},
        "counters": dict(sorted(answer.counters.items())),
        "seconds": [_seconds_json(each) for each in answer.seconds],
        "problems": [
            {name: getattr(each, name) for name in ("at_ms", "reason", "text")} for each in answer.problems
        ],
    }


def _seconds_json(entry: "admin_pb2.Seconds") -> dict[str, Any]:
    shares = {name: digest.quantile(entry, share) for name, share in _SHARES.items()}
    return {
        "name": entry.name,
        "count": entry.count,
        "sum": entry.sum,
        "bounds": list(entry.bounds),
        "buckets": list(entry.buckets),
        **{name: found.seconds if found else None for name, found in shares.items()},
    }


def _status_text(answer: "admin_pb2.GetStatusResponse", now_ms: int) -> str:
    started = answer.started_at_ms
    pairs: list[tuple[str, object]] = [
        *((name.replace("_", " "), getattr(answer, name)) for name in _FACTS[:-1]),
        *([("role", printable(digest.role(answer)))] if answer.role else []),
        ("onion messages", "arriving" if answer.stream_up else "not arriving: LND is away"),
        ("waiting in line", f"{answer.queued} onion messages"),
        (
            "up since",
            f"{utc(started // 1000)} ({digest.lasted((now_ms - started) / 1000)})"
            if started
            else "not known",
        ),
        ("clients", f"{answer.clients}, with {answer.slots_used} slots and {answer.bytes_used} bytes in use"),
        ("mailboxes", f"{answer.mail_letters} messages, {answer.mail_bytes} bytes"),
    ]
    parts = [fields(pairs)]
    if counts := digest.read_counters(answer.counters):
        parts.append(f"since the start:\n{fields(_done(digest.summed(counts)))}")
    if took := [_took(each) for each in answer.seconds if each.count]:
        parts.append(table(("TOOK", "COUNT", *(name.upper() for name in _SHARES)), took))
    if answer.problems:
        rows = [
            (utc(each.at_ms // 1000), printable(each.reason), printable(each.text))
            for each in answer.problems
        ]
        parts.append(table(("PROBLEM AT", "REASON", "TEXT"), rows))
    return "\n\n".join(parts)


def _done(sums: Mapping[str, Mapping[str, Sequence[Count]]]) -> list[tuple[str, object]]:
    """A line for each subject: its outcomes, with their details behind them."""
    lines: list[tuple[str, object]] = []
    for subject, outcomes in sums.items():
        if subject == OTHER:
            lines.extend((printable(slug), each[0].total) for slug, each in outcomes.items())
            continue
        words = []
        for outcome, counts in outcomes.items():
            details = ", ".join(f"{count.detail} {count.total}" for count in counts if count.detail)
            total = sum(count.total for count in counts)
            words.append(f"{outcome} {total}{f' ({details})' if details else ''}")
        lines.append((printable(subject), printable(", ".join(words))))
    return lines


def _took(entry: "admin_pb2.Seconds") -> tuple[object, ...]:
    found = [digest.quantile(entry, share) for share in _SHARES.values()]
    return (printable(entry.name), entry.count, *(str(each) if each else "–" for each in found))


# --- top --------------------------------------------------------------------------------------------


def watch(args: argparse.Namespace, settings: Settings) -> str:
    """A live view; one frame of it where the output is no terminal, and the status for --json."""
    if args.json:
        return status(args, settings)
    # Loaded here: most commands draw nothing.
    from rich.console import Console  # noqa: PLC0415

    from sidecar.cli import live  # noqa: PLC0415
    from sidecar.cli.top import view  # noqa: PLC0415

    terminal = sys.stdout.isatty()
    # A file or a pipe has no edge: it gets the view that shortens nothing. COLUMNS is what its reader wishes.
    console = Console(width=None if terminal or "COLUMNS" in os.environ else UNBOUND)
    if not args.once and terminal and not console.is_dumb_terminal:
        live.run(lambda: connect(settings), args.interval, console)
        return ""
    with connect(settings) as server:
        frame = digest.History().add(live.ask(server))
    with console.capture() as drawn:
        console.print(view(frame, 0, console.width))
    return "\n".join(line.rstrip() for line in drawn.get().splitlines())
