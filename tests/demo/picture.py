"""`make picture`: a run of a command as an animated picture of a terminal (SVG), for the README.

The lines are those of a real run, with the command's stderr among them. Each appears after a delay that
follows the moment at which it came; where nothing is animated, all of them are there from the start.
A command that is to be recorded must flush its lines: it writes to a pipe.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from xml.sax.saxutils import escape

COLUMNS = 130
"""Longer lines are folded: a README scales a wider picture down until nobody can read it."""
LEAST_PAUSE, MOST_PAUSE, WHOLE = 0.2, 2.0, 12.0
"""Seconds. Most of the demo passes in milliseconds, and nobody watches a node start: a pause is brought into
these bounds, and all of them are shortened alike if together they are longer than the whole may last."""
CELL_WIDTH, CELL_HEIGHT, MARGIN, BAR = 8.4, 20, 18, 36
"""Pixels. Most monospace glyphs are 0.6 em wide; `textLength` puts all others into the same columns."""

PLAIN, DIM = "#e6edf3", "#8b949e"
COLOURS = {
    "town": "#8b949e",
    "btcd": "#ff7b72",
    "operator": "#ff9bce",
    "LND": "#ffa657",
    "sidecar": "#7ee787",
    "wallet": "#79c0ff",
    "payer": "#d2a8ff",
    "push": "#e3d26f",
    "done": "#56d4dd",
}
STEP = re.compile(r"(?P<times> *\d+\.\d\d s +[+-]\d+\.\d ms +)(?P<who>\S+ +)(?P<what>.*)")
"""A line of the demo's `Teller`; other lines are drawn plain."""
UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[@-~]|[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
"""A terminal's colours, and what XML does not allow."""
SINGLE_SPACED = re.compile(r"\S+( \S+)*")
"""What is drawn as one text: renderers make one space of several, whatever `xml:space` says."""

# Only fonts that the reader's system has, so that nothing is fetched; not all renderers know the short form
# of the two properties. A line is hidden only while it waits.
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}"
 viewBox="0 0 {width} {height}">
<title>{title}</title>
<style>
text {{
  font-size: 14px;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace
}}
.line {{ animation: wait 1ms backwards }}
@keyframes wait {{ from {{ opacity: 0 }} }}
@media (prefers-reduced-motion: reduce) {{ .line {{ animation: none }} }}
</style>
<rect x="0.5" y="0.5" width="{inner_width}" height="{inner_height}" rx="8" fill="#0d1117" stroke="#30363d"/>
<circle cx="20" cy="18" r="6" fill="#ff5f57"/>
<circle cx="40" cy="18" r="6" fill="#febc2e"/>
<circle cx="60" cy="18" r="6" fill="#28c840"/>
{drawn}
</svg>
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output, and the seconds from the start to the moment it came."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one colour, and the column at which it begins."""

    column: int
    colour: str
    text: str


def record(command: Sequence[str]) -> tuple[int, list[Line]]:
    """Run the command, and show its lines as they come. Returns its exit code (as in a shell) and them."""
    lines = []
    start = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            lines.append(Line(time.monotonic() - start, UNPRINTABLE.sub("", text.expandtabs()).rstrip()))
            print(text, end="", flush=True)
    code = process.returncode
    return (code if code >= 0 else 128 - code), lines


def private_places() -> set[str]:
    """The directories that tell of this machine: home, temporary files, the working directory."""
    places = {Path.home(), Path(tempfile.gettempdir()), Path.cwd(), Path(os.environ.get("PWD", "/"))}
    return {str(path) for place in places for path in (place, place.resolve())} - {"/"}


def check_private(texts: Sequence[str], places: set[str]) -> None:
    """End the program with a message if one of the places is named in a text."""
    for text in texts:
        for place in sorted(places, reverse=True):  # the longest first
            if place in text:
                sys.exit(f"no picture is drawn: {place} is a path of this machine, in the line {text!r}")


def delays(lines: Sequence[Line]) -> list[float]:
    """The seconds after which each line appears; they rise from line to line."""
    moments = [0.0, *(line.at for line in lines)]
    pauses = [min(max(after - before, LEAST_PAUSE), MOST_PAUSE) for before, after in pairwise(moments)]
    scale = WHOLE / max(WHOLE, sum(pauses))
    return [scale * moment for moment in accumulate(pauses)]


def rows_of(text: str) -> Iterator[list[Piece]]:
    """The rows that a line takes; what is folded keeps its column."""
    step = STEP.fullmatch(text)
    times, who, what = step.group("times", "who", "what") if step else ("", "", text)
    column = len(times + who)
    row = [Piece(0, DIM, times), Piece(len(times), COLOURS.get(who.rstrip(), PLAIN), who)]
    for start in range(0, len(what) or 1, COLUMNS - column):
        yield [*row, Piece(column, PLAIN, what[start : start + COLUMNS - column])]
        row = []


def draw_row(row: int, pieces: Sequence[Piece]) -> Iterator[str]:
    """The text elements of a row."""
    y = BAR + MARGIN + row * CELL_HEIGHT
    for piece in pieces:
        for words in SINGLE_SPACED.finditer(piece.text):
            x = MARGIN + (piece.column + words.start()) * CELL_WIDTH
            place = f'x="{x:.1f}" y="{y}" textLength="{len(words[0]) * CELL_WIDTH:.1f}"'
            yield f'<text {place} fill="{piece.colour}">{escape(words[0])}</text>'


def draw(prompt: str, lines: Sequence[Line]) -> str:
    """The picture of a terminal in which `prompt` was entered, and wrote these lines."""
    drawn = [*draw_row(0, [Piece(0, DIM, "$"), Piece(2, PLAIN, prompt)])]
    rows, columns = 1, len(prompt) + 2
    for line, delay in zip(lines, delays(lines), strict=True):
        drawn.append(f'<g class="line" style="animation-delay: {delay:.3f}s">')
        for pieces in rows_of(line.text):
            drawn += draw_row(rows, pieces)
            columns = max(columns, pieces[-1].column + len(pieces[-1].text))
            rows += 1
        drawn.append("</g>")
    width = round(2 * MARGIN + columns * CELL_WIDTH)
    height = BAR + MARGIN + rows * CELL_HEIGHT
    return FRAME.format(
        width=width,
        height=height,
        inner_width=width - 1,
        inner_height=height - 1,
        title=escape(prompt),
        drawn="\n".join(drawn),
    )


def main(arguments: Sequence[str]) -> int:
    """Record, and write the picture if the command went well. The exit code is the command's."""
    # Cut by hand, since argparse takes a second `--` away, which is the command's.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[end + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, usage="python -m tests.demo.picture OUT.svg [--prompt PROMPT] -- COMMAND…"
    )
    parser.add_argument("out", type=Path, metavar="OUT.svg")
    parser.add_argument("--prompt", help="what is shown as entered (default: the command)")
    options = parser.parse_args(arguments[:end])
    if not command:
        parser.error("what is to be recorded? The command stands after --")
    prompt = options.prompt or shlex.join(command)
    code, lines = record(command)
    if code == 0:
        check_private([prompt, *(line.text for line in lines)], private_places())
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(draw(prompt, lines), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
