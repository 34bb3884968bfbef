"""The `sidecar` command line: options, sub-commands, and one line for whatever goes wrong.

Errors go to stderr and say what to do; the exit code is 1, or 2 when the command line itself can't
be read. It is 1 as well when a command printed, as it was asked to, that something is not well.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidecar import __version__, options
from sidecar.cli import (
    backup_commands,
    client_arguments,
    commands,
    config_commands,
    doctor_commands,
    status_commands,
    webhook_commands,
)
from sidecar.cli.command_line import Commands, NotWell, Parser, global_options, one_line
from sidecar.cli.printing import plain_letters
from sidecar.config import Loader
from sidecar.core.errors import ConfigError, OperatorError, SidecarError

# --- the command line ---------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(
        prog="sidecar",
        description="A bLIP 66 static invoice server beside LND.",
        parents=[global_options(shown=True)],
        epilog="Each option can be an environment variable too: --lnd.host is SIDECAR_LND_HOST.",
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    top = parser.add_subparsers(metavar="COMMAND", required=True)
    command = Commands()
    command(top, "serve", commands.serve, "run the server", all_options=True)
    for module in (
        client_arguments,
        webhook_commands,
        status_commands,
        doctor_commands,
        backup_commands,
        config_commands,
    ):
        module.register(top, command)
    text = "the macaroon that the sidecar needs, as lncli bakes it"
    baked = command(top, "macaroon-permissions", commands.macaroon_permissions, text)
    baked.add_argument(
        "--lnd.version", choices=("0.21", "0.20"), help="for one kind of LND; 0.20 stands for all before 0.21"
    )
    return parser


# --- what can go wrong --------------------------------------------------------------------------


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
    sys.stderr.write(f"sidecar: {one_line(text)}\n")
    return 1


def _load(args: argparse.Namespace) -> None:
    """Add the settings to the arguments of a command. Raises ConfigError, NotWell."""
    names = [option.name for option in (options.CONFIG, *options.OPTIONS)]
    args.loader = Loader({name: vars(args)[name] for name in names if name in vars(args)})
    try:
        args.loaded = args.loader.load()
    except ConfigError as error:
        if "unreadable" not in args:
            raise
        args.unreadable(args, error)  # what `doctor` is asked to find


def _leave_stdout() -> None:
    # What is left in its buffer goes nowhere: Python would complain at exit when it flushes once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(text: str) -> None:
    """Write all of it. Raises BrokenPipeError, OperatorError."""
    try:
        sys.stdout.write(f"{text}\n" if text else "")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _leave_stdout()
        raise OperatorError(f"the output can't be written: {error.strerror or error}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (the process's own by default); returns the exit code."""
    debug, code = False, 0
    try:
        try:
            if isinstance(sys.stdout, io.TextIOWrapper):
                # Names that wallets chose may have letters that this terminal has not, and so may our own.
                sys.stdout.reconfigure(errors=plain_letters())
            args = _parser().parse_args(argv, argparse.Namespace(json=False))
            try:
                _load(args)
                debug = args.loaded.settings.loglevel == "debug"
                text = args.run(args, args.loaded.settings)
            except NotWell as told:
                text, code = str(told), 1
            _print(text)
        finally:
            _print("")  # help, too: here a closed pipe can still be told from a fault
    except BrokenPipeError:
        _leave_stdout()  # the reader has seen enough
        return 1
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001 - one line for all
        return _complain(error, debug)
    return code
