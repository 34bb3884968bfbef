"""The `sidecar client` commands and their arguments; commands.py says what they do."""

import argparse
from typing import Any

from sidecar import options
from sidecar.cli import commands
from sidecar.cli.command_line import Commands

_WHICH = "a name or a client id"


def register(top: Any, command: Commands) -> None:
    """Add the group to the command line."""
    clients = command.group(top, "client", "let clients in, look at them, put them out")
    added = command(clients, "add", commands.add, "let a client in, and print its request paths")
    added.add_argument("name", metavar="NAME")
    _add_limits(added)
    added.add_argument(
        "--node-id", metavar="ID", help="the wallet's node id (default: learnt from the wallet)"
    )
    timestamps = options.TIMESTAMPS
    added.add_argument("--timestamps", metavar=timestamps.metavar, help=timestamps.help)
    command(clients, "list", commands.list_clients, "all clients")
    for name, run, text in (
        ("show", commands.show, "one client: when its slots end, what it uses, its request paths"),
        ("mailbox", commands.mailbox, "what waits for the client, without what it says"),
        ("rotate", commands.rotate, "new request paths; the old ones are answered no more, offers stay good"),
        ("pause", commands.pause, "serve nothing for the client for now; all that it has stays"),
        ("resume", commands.resume, "serve a paused client again"),
        ("revoke", commands.revoke, "serve nothing for the client any more; its record stays"),
        ("remove", commands.remove, "forget the client and everything kept for it"),
    ):
        command(clients, name, run, text).add_argument("name", metavar="NAME", help=_WHICH)
    _add_changes(clients, command)


def _add_changes(clients: Any, command: Commands) -> None:
    updated = command(clients, "update", commands.update, "change a client's own limits")
    updated.add_argument("name", metavar="NAME", help=_WHICH)
    _add_limits(updated)
    names = ", ".join(commands.LIMITS)
    text = f"a limit that shall follow the server's setting again, given once for each: {names}"
    updated.add_argument("--reset", metavar="LIMIT", action="append", help=text)
    text = "say which node a client is; without --node-id it is learnt anew"
    rebound = command(clients, "rebind", commands.rebind, text)
    rebound.add_argument("name", metavar="NAME", help=_WHICH)
    rebound.add_argument("--node-id", metavar="ID", help="the wallet's node id")
    dated = command(clients, "timestamps", commands.timestamps, "how a client's notifications are dated")
    dated.add_argument("name", metavar="NAME", help=_WHICH)
    dated.add_argument("form", metavar="FORM", help="offset, z, or default: as the server's setting says")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for flag, (_, option) in commands.LIMITS.items():
        parser.add_argument(f"--{flag}", metavar=option.metavar, help=option.help)
