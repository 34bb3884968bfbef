"""What a command line is made of: the options of all commands, and a way to add commands to it.

Each module of commands has `register(top, command)`; it calls `command(top, "name", run, "what it does")`
and adds its arguments to the parser that comes back, or opens a group with `command.group`.
"""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from sidecar import options
from sidecar.config import Settings

Run = Callable[[argparse.Namespace, Settings], str]
"""A command: what it returns is printed. Beside its own arguments it finds `json`, `loader` and `loaded`."""


class NotWell(Exception):
    """Ends a command that did its work and found something wrong: its text is printed, the exit code is 1."""


def one_line(text: str) -> str:
    """`text` with every run of white space, line ends included, made a single space."""
    return " ".join(text.split())


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of ours."""

    def __init__(self, **kwargs: Any) -> None:
        # Abbreviations would change their meaning with every new option.
        super().__init__(**kwargs | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line on stderr."""
        self.exit(2, f"sidecar: {one_line(message)} (see `{self.prog} --help`)\n")


def global_options(*, shown: bool) -> Parser:
    """The options of every command; only the main help and that of `serve` show them."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("options of all commands")

    def add(flag: str, text: str, **rest: Any) -> None:
        # No defaults here: those of a sub-command would hide what was given before its name.
        group.add_argument(flag, help=text.replace("%", "%%") if shown else argparse.SUPPRESS, **rest)

    add("--json", "print JSON, for scripts", action="store_true")
    for option in (options.CONFIG, *options.OPTIONS):
        default = f" (default: {option.default})" if option.default else ""
        add(option.flag, option.help + default, metavar=option.metavar, dest=option.name)
    return parser


class Commands:
    """Adds commands and groups of them; each takes the options of all commands, too."""

    def __init__(self) -> None:
        self._hidden = [global_options(shown=False)]
        self._shown = [global_options(shown=True)]

    def __call__(
        self, group: Any, name: str, run: Run, text: str, *, all_options: bool = False
    ) -> argparse.ArgumentParser:
        """A command of `group`; with `all_options` its help lists those of all commands."""
        made: argparse.ArgumentParser = group.add_parser(
            name,
            help=text,
            description=text,
            parents=self._shown if all_options else self._hidden,
            epilog=None if all_options else "`sidecar --help` lists the options of all commands.",
        )
        made.set_defaults(run=run)
        return made

    def group(self, top: Any, name: str, text: str) -> Any:
        """A group of commands, to be given to `register` or to a call as `group`."""
        made = top.add_parser(name, help=text, description=text, parents=self._hidden)
        return made.add_subparsers(metavar="COMMAND", required=True)
