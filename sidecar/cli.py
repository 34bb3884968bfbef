"""The `sidecar` command line: options, sub-commands, and one line for whatever goes wrong.

Errors go to stderr and say what to do; the exit code is 1, or 2 when the command line itself can't
be read.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sidecar import __version__, commands, config, options, webhook_commands
from sidecar.core.errors import SidecarError

Run = Callable[[argparse.Namespace, config.Settings], str]
"""A command: what it returns is printed."""

# --- the command line ---------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of ours."""

    def __init__(self, **kwargs: Any) -> None:
        # Abbreviations would change their meaning with every new option.
        super().__init__(**kwargs | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sidecar: {_one_line(message)} (see `{self.prog} --help`)\n")


def _global_options(shown: bool) -> _Parser:
    """The options of every command; only the main help and that of `serve` show them."""
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("options of all commands")

    def add(flag: str, text: str, **rest: Any) -> None:
        # No defaults here: those of a sub-command would hide what was given before its name.
        group.add_argument(flag, help=text.replace("%", "%%") if shown else argparse.SUPPRESS, **rest)

    add("--json", "print JSON, for scripts", action="store_true")
    for option in (options.CONFIG, *options.OPTIONS):
        default = f" (default: {option.default})" if option.default else ""
        add(option.flag, option.help + default, metavar=option.metavar, dest=option.name)
    return parser


def _add_webhook_commands(top: Any, command: Callable[..., _Parser], quiet: Sequence[_Parser]) -> None:
    text = "where clients are notified"
    webhook = top.add_parser("webhook", help=text, description=text, parents=quiet)
    hooks = webhook.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        ("add", webhook_commands.add, "register a webhook for a client that can't by itself"),
        ("list", webhook_commands.list_webhooks, "a client's webhooks and last notifications"),
        ("test", webhook_commands.test, "notify a client now, and tell what came of it"),
        ("pause", webhook_commands.pause, "stop using a webhook"),
        ("resume", webhook_commands.resume, "use a paused webhook again"),
        ("remove", webhook_commands.remove, "forget a webhook"),
    ):
        made = command(hooks, name, run, text)
        made.add_argument("client", metavar="CLIENT", help="a name, a client id, or a node id")
        if name == "test":
            made.add_argument("app", metavar="APP", nargs="?", help="the webhook's name (default: all)")
        elif name != "list":
            made.add_argument("app", metavar="APP", help="the webhook's name")
        if name == "add":
            made.add_argument("url", metavar="URL", help="https://…; - reads it from standard input")


def _parser() -> _Parser:
    parser = _Parser(
        prog="sidecar",
        description="A bLIP 66 static invoice server beside LND.",
        parents=[_global_options(shown=True)],
        epilog="Each option can be an environment variable too: --lnd.host is SIDECAR_LND_HOST.",
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    quiet = [_global_options(shown=False)]
    top = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(group: Any, name: str, run: Run, text: str, parents: Sequence[_Parser] = quiet) -> _Parser:
        epilog = "`sidecar --help` lists the options of all commands." if parents is quiet else None
        made: _Parser = group.add_parser(
            name, help=text, description=text, parents=list(parents), epilog=epilog
        )
        made.set_defaults(run=run)
        return made

    command(top, "serve", commands.serve, "run the server", [_global_options(shown=True)])
    text = "let clients in, look at them, put them out"
    client = top.add_parser("client", help=text, description=text, parents=quiet)
    clients = client.add_subparsers(metavar="COMMAND", required=True)
    added = command(clients, "add", commands.add, "let a client in, and print its request paths")
    added.add_argument("name", metavar="NAME")
    added.add_argument("--ttl", metavar="TIME", help=options.CLIENT_TTL.help)
    added.add_argument("--slots", metavar="N", help=options.CLIENT_SLOTS.help)
    added.add_argument("--bytes", metavar="N", help=options.CLIENT_BYTES.help)
    command(clients, "list", commands.list_clients, "all clients")
    for name, run, text in (
        ("show", commands.show, "one client: when its slots end, what it uses, its request paths"),
        ("rotate", commands.rotate, "new request paths; the old ones are answered no more, offers stay good"),
        ("revoke", commands.revoke, "serve nothing for the client any more; its record stays"),
        ("remove", commands.remove, "forget the client and everything kept for it"),
    ):
        command(clients, name, run, text).add_argument("name", metavar="NAME", help="a name or a client id")
    added.add_argument(
        "--node-id", metavar="ID", help="the wallet's node id (default: learnt from the wallet)"
    )
    added.add_argument("--timestamps", metavar="FORM", help=options.TIMESTAMPS.help)
    text = "say which node a client is; without --node-id it is learnt anew"
    rebound = command(clients, "rebind", commands.rebind, text)
    rebound.add_argument("name", metavar="NAME", help="a name or a client id")
    rebound.add_argument("--node-id", metavar="ID", help="the wallet's node id")
    text = "how a client's notifications are dated"
    dated = command(clients, "timestamps", commands.timestamps, text)
    dated.add_argument("name", metavar="NAME", help="a name or a client id")
    dated.add_argument("form", metavar="FORM", help="offset, z, or default: as the server's setting says")
    _add_webhook_commands(top, command, quiet)
    command(top, "status", commands.status, "what the running server stands on, and what it did")
    text = "the macaroon that the sidecar needs, as lncli bakes it"
    baked = command(top, "macaroon-permissions", commands.macaroon_permissions, text)
    baked.add_argument(
        "--lnd.version", choices=("0.21", "0.20"), help="for one kind of LND; 0.20 stands for all before 0.21"
    )
    return parser


# --- what can go wrong --------------------------------------------------------------------------


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors in a task group's."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _complain(error: BaseException, debug: bool) -> int:
    """One line for an error, whatever it is; returns the exit code."""
    leaves = list(_leaves(error))
    known = [each for each in leaves if isinstance(each, SidecarError)]
    if any(isinstance(each, KeyboardInterrupt) for each in leaves):
        return 130
    if known:
        text = str(known[0]) or known[0].reason
    else:
        if debug:
            traceback.print_exception(error)
        last = traceback.extract_tb(leaves[0].__traceback__)[-1:]
        where = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in last)
        hint = "" if debug else "; `--loglevel debug` shows all"
        text = f"a fault of the sidecar's own{where}: {leaves[0]!r}; please report it{hint}"
    sys.stderr.write(f"sidecar: {_one_line(text)}\n")
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (the process's own by default); returns the exit code."""
    debug = False
    try:
        try:
            args = _parser().parse_args(argv, argparse.Namespace(json=False))
            names = [option.name for option in (options.CONFIG, *options.OPTIONS)]
            settings = config.load({name: vars(args)[name] for name in names if name in vars(args)})
            debug = settings.loglevel == "debug"
            text = args.run(args, settings)
            if isinstance(sys.stdout, io.TextIOWrapper):
                # Names that wallets chose may have letters that this terminal has not.
                sys.stdout.reconfigure(errors="backslashreplace")
            sys.stdout.write(f"{text}\n" if text else "")
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be told from a fault
    except BrokenPipeError:
        # The reader has seen enough. Python would complain at exit when it flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001 - one line for all
        return _complain(error, debug)
    return 0
