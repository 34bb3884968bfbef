"""What README.md tells a stranger to type, and to write into `lnd.conf`."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

_HEADING = re.compile(r"(#+) (.+)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OLDER_LND = "**LND 0.20 and earlier**"


def section(text: str, title: str) -> str:
    """All below the heading of this title, with what is below its subheadings. Raises AssertionError."""
    found: list[str] = []
    depth = 0
    fenced = False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = None if fenced else _HEADING.fullmatch(line.rstrip())
        if heading and depth and len(heading[1]) <= depth:
            break
        if depth:
            found.append(line)
        elif heading and heading[2] == title:
            depth = len(heading[1])
    assert depth, f"README has no heading {title!r}"
    return "".join(found)


def steps(text: str, title: str) -> list[str]:
    """The titles of the numbered subheadings: "1. …", "2. …"."""
    return re.findall(r"^### (\d+\. .+)$", section(text, title), re.MULTILINE)


def commands(text: str) -> list[str]:
    """Each command after a `$ ` in the ```console blocks, as typed: it may go over several lines."""
    lines = [
        line for language, body in _BLOCK.findall(text) if language == "console" for line in body.splitlines()
    ]
    found: list[str] = []
    for number, line in enumerate(lines):
        if line.startswith("$ "):
            found.append(line.removeprefix("$ "))
        elif number and lines[number - 1].endswith("\\"):
            found[-1] += "\n" + line
    return found


def lnd_conf(text: str) -> dict[str, str]:
    """The `lnd.conf` of LND 0.21 and of 0.20, as the ```ini blocks for each give them, one after another."""
    newer, found, older = text.partition(_OLDER_LND)
    assert found, f"README does not say any more what is for {_OLDER_LND}"
    return {
        version: "".join(body for language, body in _BLOCK.findall(part) if language == "ini")
        for version, part in (("0.21", newer), ("0.20", older))
    }


def table_commands(text: str) -> Iterator[str]:
    """Each command of a table's first column, written out: `a b|c N` is `a b N` and `a c N`."""
    for cell in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE):
        for span in re.findall(r"`([^`]+)`", cell):
            command = span.replace("\\|", "|").removeprefix("sidecar ")
            words, options = _split(command)
            for word in words[-1].split("|"):
                yield " ".join(["sidecar", *words[:-1], word, *options])


def _split(command: str) -> tuple[list[str], list[str]]:
    """The words of the command itself, and what follows them: arguments in capitals, options, dots."""
    words = command.split()
    count = next((at for at, word in enumerate(words) if not re.fullmatch(r"[a-z|-]+", word)), len(words))
    return words[:count], words[count:]
