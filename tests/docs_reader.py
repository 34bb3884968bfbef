"""What the Markdown files say that can be held against the code; each `bad_…` lists what does not hold."""

import argparse
import ast
import io
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import sidecar
from sidecar.adapters.metrics import Facts, SidecarCollector, new_registry
from sidecar.cli import program
from sidecar.core import lsps5, webhooks
from sidecar.core.errors import ConfigError
from sidecar.options import CONFIG, OPTIONS
from sidecar.timings import Timings

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sidecar.__file__).parent
DOCUMENTS = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))

# --- Markdown ---------------------------------------------------------------------------------------

_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# After a blank line: what goes on with a list's item is no code.
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}[^\n]*\n|\n(?= {4}))+")
_SPAN = re.compile(r"`([^`]+)`")


def prose(text: str) -> str:
    """A document without its code blocks."""
    return _INDENTED.sub("\n", _FENCED.sub("\n", text))


def spans(text: str) -> list[str]:
    """All `code` in a document's prose, each on one line, as a reader sees it."""
    return [" ".join(span.split()).replace(r"\|", "|") for span in _SPAN.findall(prose(text))]


def code_lines(text: str) -> list[str]:
    """The lines of all code blocks; one that goes on behind a backslash is one line."""
    without = _FENCED.sub("\n", text)
    blocks = [*_FENCED.findall(text), *_INDENTED.findall(without)]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def rows(text: str) -> Iterator[tuple[str, str]]:
    """Each row of each table: the table's first heading, and the row's first cell."""
    heading = None
    for line in text.splitlines():
        if not line.startswith("|"):
            heading = None
            continue
        cell = re.split(r"(?<!\\)\|", line)[1].strip()
        if heading is None:
            heading = cell
        elif cell.strip("-: "):
            yield heading, cell


def bad_tables(text: str) -> list[str]:
    """First lines of tables that have no second line of dashes: they are shown as they are written."""
    lines = ["", *prose(text).splitlines(), ""]
    return [
        line
        for before, line, after in zip(lines, lines[1:], lines[2:], strict=False)
        if line.startswith("|") and not before.startswith("|") and not re.fullmatch(r"[|: -]+", after)
    ]


# --- links ------------------------------------------------------------------------------------------

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"\]\[([^\]]+)\]")
_DEFINITION = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What the part behind `#` of a link into this document may be."""
    headings = re.findall(r"^#{1,6} (.+)$", _FENCED.sub("\n", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def bad_links(document: Path, text: str) -> list[str]:
    """Links that lead nowhere in this repository, and names of links that are not defined."""
    plain = _SPAN.sub("code", prose(text))
    defined = dict(_DEFINITION.findall(plain))
    missing = [name for name in _REFERENCE.findall(plain) if name not in defined]
    return missing + [
        target for target in (*_LINK.findall(plain), *defined.values()) if not _leads(document, text, target)
    ]


def _leads(document: Path, text: str, target: str) -> bool:
    link = urlsplit(target)
    if link.scheme:
        return link.scheme == "https"
    path = (document.parent / link.path).resolve() if link.path else document
    if link.path and not (path.exists() and path.is_relative_to(ROOT)):
        return False
    return not link.fragment or link.fragment in anchors(path.read_text() if link.path else text)


# --- commands ---------------------------------------------------------------------------------------

# Words in a document's commands that stand for something that has to have a form.
_PLACEHOLDERS = {"SLOT": "0", "HOST:PORT": "a.example:1"}
_SHELL = re.compile(r" (?:[|<>]|&&|#) .*")


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """All `sidecar …` in a document, and whether it is said with all that it needs."""
    for line in code_lines(text):
        command = _SHELL.sub("", f"{line.removeprefix('$ ')} ")
        if command.startswith("sidecar "):
            yield command, True
    whole = {span for _, cell in rows(text) for span in spans(cell)}
    for span in spans(text):
        if span.startswith("sidecar "):
            yield span, span in whole and "…" not in span
        # Behind another one the first word is left out.
        elif re.match(r"(client|webhook) [a-z…]", span):
            yield f"sidecar {span}", span in whole and "…" not in span


def readings(command: str) -> list[list[str]]:
    """The command lines that a command in a document stands for: `a|b` is two, `[--x 1]` is given."""
    text = re.sub(r"\$\([^)]*\)", "made", command.replace("[:PORT]", ""))
    words = shlex.split(re.sub(r" *\| *", "|", re.sub(r"[\[\]]", "", text).replace("…", "")))
    return [
        [_PLACEHOLDERS.get(word, word) for word in chosen]
        for chosen in itertools.product(*(word.split("|") for word in words[1:]))
    ]


_parser = cache(program._parser)


def refusal(argv: list[str]) -> str:
    """What the command says against its arguments, or against a setting's value; empty when it takes them."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            args = _parser().parse_args(argv, argparse.Namespace())
        for option in OPTIONS:
            if option.name in args:
                option.read(vars(args)[option.name], "the document")
    except SystemExit as end:
        return said.getvalue() if end.code else ""
    except ConfigError as error:
        return str(error)
    return ""


def bad_commands(text: str) -> list[str]:
    """Commands that the command's own parser refuses; what is just mentioned may lack values."""
    return [
        f"{' '.join(argv)}: {said}"
        for command, whole in commands(text)
        for argv in readings(command)
        if (said := refusal(argv)) and not (not whole and _begins(argv, said))
    ]


def _begins(argv: list[str], said: str) -> bool:
    """Whether something may follow that makes it a command."""
    # argparse stops at the first thing that lacks: only with all of them it looks at what is too much.
    return "required: COMMAND" in said or not all(refusal([*argv, *["1"] * more]) for more in range(1, 5))


def all_commands() -> set[tuple[str, ...]]:
    """The words of every command."""

    def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
        for group in groups:
            for name, below in group.choices.items():
                yield from leaves(below, (*words, name))
        if not groups:
            yield words

    return set(leaves(_parser(), ()))


def commands_missing(texts: Iterable[str]) -> list[str]:
    """Commands that no document names."""
    told = [argv for text in texts for command, _ in commands(text) for argv in readings(command)]
    return [
        " ".join(words) for words in all_commands() if words not in {tuple(t[: len(words)]) for t in told}
    ]


# --- settings ---------------------------------------------------------------------------------------

_NAMES = {option.name for option in OPTIONS}
_GROUPS = {name.partition(".")[0] for name in _NAMES if "." in name}
_FILES = {
    "cert",
    "conf",
    "crt",
    "export",
    "json",
    "key",
    "macaroon",
    "md",
    "proto",
    "py",
    "sh",
    "sock",
    "svg",
}
_FILES |= {"export", "service", "test", "token", "toml", "txt", "yaml"}
# bLIP 55's, of which not all are the sidecar's.
_METHODS = {lsps5.SET_WEBHOOK, lsps5.LIST_WEBHOOKS, lsps5.REMOVE_WEBHOOK, "lsps5.payment_incoming"}
_METHODS |= {webhooks.WEBHOOK_REGISTERED, webhooks.ONION_MESSAGE_INCOMING, "lsps5.expiry_soon"}
_OF_TESTS = {"SIDECAR_VECTORS"}
_OF_ANY_GROUP = re.compile(
    rf"(?<![\w./@-])(?:--)?(?:{'|'.join(sorted(_GROUPS))})\.(?:[a-z0-9_]+|\*)(?![\w/-])"
)
_DOTTED = re.compile(r"([a-z0-9]+)\.([a-z0-9_]+|\*)")


def is_file(name: str) -> bool:
    """Whether it looks like a file's name, and not like a setting's."""
    return name.rpartition(".")[2] in _FILES


def bad_settings(text: str, others: frozenset[str] = frozenset()) -> list[str]:
    """Names of settings, variables and flags that are none, nor one of `others`."""
    known = others | _NAMES | {f"{group}.*" for group in _GROUPS} | _METHODS | doctor_lines() | _flags()
    known |= {option.variable for option in OPTIONS} | _OF_TESTS
    # What looks like a setting: wherever it is when its group exists, else as `code`.
    named = {*_OF_ANY_GROUP.findall(text), *(span for span in spans(text) if _DOTTED.fullmatch(span))}
    named = {name for name in named if not is_file(name)}
    # SIDECAR_… stands for all of them.
    named |= {*re.findall(r"\bSIDECAR_\w+", text)}
    flags = (word for span in spans(text) if span.startswith("--") for word in re.split("[ =]", span))
    return sorted((named | {flag for flag in flags if flag.startswith("--")}) - known)


@cache
def _flags() -> frozenset[str]:
    """The flags of all commands together."""

    def of(parser: argparse.ArgumentParser) -> Iterator[str]:
        for action in parser._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    yield from of(below)

    return frozenset(of(_parser())) | {CONFIG.flag}


# --- metrics ----------------------------------------------------------------------------------------


@cache
def _metrics() -> frozenset[str]:
    """The names under which Prometheus keeps what is exported; a histogram's own name as well."""
    found = list(new_registry(SidecarCollector(lambda: Facts({})), Timings()).collect())
    ends = {"counter": ("_total",), "histogram": ("", "_bucket", "_sum", "_count"), "info": ("_info",)}
    return frozenset(family.name + end for family in found for end in ends.get(family.type, ("",)))


def bad_metrics(text: str) -> list[str]:
    """Names that look like metrics and are not exported."""
    return [name for name in re.findall(r"\bsidecar_[a-z_]+", text) if name not in _metrics()]


# --- the doctor -------------------------------------------------------------------------------------

_DOCTORS = (
    PACKAGE / "doctor.py",
    *sorted((PACKAGE / "core").glob("diagnosis*.py")),
    *sorted((PACKAGE / "cli").glob("doctor*.py")),
)
_SAYS = {"Finding", "ok", "info", "warning", "failure", "_unseen", "_look"}


@cache
def doctor_lines() -> frozenset[str]:
    """The names of all lines that `sidecar doctor` may print."""
    return frozenset(name for path in _DOCTORS for name in lines_of(ast.parse(path.read_text())))


def lines_of(tree: ast.Module) -> Iterator[str]:
    """The names of lines in a module: the first argument of what makes one, or what `name` is set to."""
    for node in ast.walk(tree):
        first: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SAYS:
            first = node.args[0]
        elif isinstance(node, ast.Assign):
            target, first = node.targets[0], node.value
            # `name, line = "lnd.burst", …`
            if isinstance(target, ast.Tuple) and isinstance(first, ast.Tuple):
                target, first = target.elts[0], first.elts[0]
            if not (isinstance(target, ast.Name) and target.id == "name"):
                continue
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def bad_doctor(text: str) -> list[str]:
    """Lines of the doctor that a document has not, and lines in its tables that the doctor has not."""
    told = {span for heading, cell in rows(text) if heading == "line" for span in spans(cell)}
    return sorted((doctor_lines() - set(spans(text))) | (told - doctor_lines()))


# --- the modules ------------------------------------------------------------------------------------


def modules() -> set[str]:
    """Every module that was written by hand, as a path in the package without its ending."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    found = {path.parent if path.name == "__init__" else path for path in paths if path.parts[0] != "rpc"}
    return {path.as_posix() for path in found} - {".", "core", "adapters"}


def bad_modules(text: str) -> list[str]:
    """Modules that a document's map lacks, and those that are named in it and are not there."""
    said = set(re.findall(r"[\w/]+\.py\b", text)) - {"tests/core/test_imports.py"}
    mapped = {f"{folder}{name}" for folder, names in _map(text) for name in names}
    there = modules()
    wrong = {name for name in said if not any(f"/{each}.py".endswith(f"/{name}") for each in there)}
    return sorted((mapped ^ there) | wrong)


def _map(text: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of the tables whose first heading is a folder: the folder, and the modules of one row."""
    for heading, cell in rows(text):
        folder = heading.strip("`")
        if folder.startswith("sidecar/"):
            yield folder.removeprefix("sidecar/"), spans(cell)
