"""The picture of the demo: what is drawn of a recording, when each line appears, and when none is drawn."""

import re
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.demo.picture import (
    CELL_WIDTH,
    COLOURS,
    COLUMNS,
    DIM,
    MARGIN,
    PLAIN,
    WHOLE,
    Line,
    delays,
    draw,
    main,
)
from tests.demo.teller import Teller

SVG = "{http://www.w3.org/2000/svg}"
PROMPT = "make demo LND=native"
LINES = [
    Line(0.01, "  0.01 s     +11.9 ms  LND      is up, node 02c91d295563aa25…"),
    Line(0.70, f"  0.70 s    +689.7 ms  sidecar  ready: node {'02c9' * 40}"),
    Line(0.70, '  0.70 s      +0.0 ms  wallet   says <a> & "b" ]]> it\'s {c}'),
    Line(0.71, ""),
    Line(60.0, "    built in a minute"),
]


def rows(picture: str) -> list[str]:
    """What a terminal would show, from top to bottom, without its empty rows: each text in its column."""
    drawn: dict[str, str] = {}
    for text in ET.fromstring(picture).iter(f"{SVG}text"):
        column = round((float(text.attrib["x"]) - MARGIN) / CELL_WIDTH)
        drawn[text.attrib["y"]] = drawn.get(text.attrib["y"], "").ljust(column) + (text.text or "")
    return list(drawn.values())


def colours(picture: str) -> dict[str, str]:
    """The colour of each piece of text."""
    return {text.text or "": text.attrib["fill"] for text in ET.fromstring(picture).iter(f"{SVG}text")}


def run(out: Path, code: str, *options: str) -> int:
    """Record what a line of Python prints."""
    return main([str(out), *options, "--", sys.executable, "-c", code])


def test_a_picture_is_well_formed_xml_with_the_prompt_and_all_text_in_its_place() -> None:
    """Spaces, `<`, `&` and braces stay themselves; a line that is too long goes on below, in its column."""
    near, long, special, _, plain = (line.text for line in LINES)
    assert rows(draw(PROMPT, LINES)) == [
        f"$ {PROMPT}",
        near,
        long[:COLUMNS],
        " " * long.index("ready") + long[COLUMNS:],
        special,
        plain,
    ]


def test_a_picture_of_the_same_recording_is_the_same() -> None:
    """Nothing in it is random: a new picture differs only where the run did."""
    assert draw(PROMPT, LINES) == draw(PROMPT, list(LINES))


def test_a_picture_refers_to_nothing_outside_and_runs_nothing() -> None:
    """The SVG namespace is its only URL; there is no script, no link, no font or image to fetch."""
    picture = draw(PROMPT, LINES)
    assert re.findall(r"\w+://[^\"]+", picture) == ["http://www.w3.org/2000/svg"]
    tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(picture).iter()}
    assert tags == {"svg", "title", "style", "rect", "circle", "text", "g"}
    assert not re.search(r"@import|@font-face|url\(|href", picture)


def test_all_is_inside_the_window_and_no_text_holds_spaces_that_would_be_lost() -> None:
    """The longest row fits between the margins; renderers make one space of several."""
    root = ET.fromstring(draw(PROMPT, LINES))
    texts = list(root.iter(f"{SVG}text"))
    assert min(float(text.attrib["x"]) for text in texts) == MARGIN
    right = max(float(text.attrib["x"]) + float(text.attrib["textLength"]) for text in texts)
    assert right == pytest.approx(int(root.attrib["width"]) - MARGIN, abs=1)
    assert max(int(text.attrib["y"]) for text in texts) < int(root.attrib["height"])
    assert all(text.text == " ".join((text.text or "").split()) for text in texts)


def test_lines_appear_one_after_the_other_within_the_whole() -> None:
    """The delays rise even where lines came at once, long pauses are cut, and no recording lasts too long."""
    moments = delays(LINES)
    assert moments == pytest.approx([0.2, 0.89, 1.09, 1.29, 3.29])
    many = delays([Line(3.0 * second, "…") for second in range(100)])
    assert many == sorted(set(many))
    assert many[-1] == pytest.approx(WHOLE)
    assert delays([]) == []
    drawn = re.findall(r'<g class="line" style="animation-delay: ([\d.]+)s">', draw(PROMPT, LINES))
    assert [float(delay) for delay in drawn] == pytest.approx(moments, abs=0.001)


def test_lines_are_hidden_by_their_animation_alone_and_by_none_if_motion_is_unwanted() -> None:
    """A renderer that animates nothing, and a reader who wants no motion, have all lines at once."""
    picture = draw(PROMPT, LINES)
    assert picture.count("opacity") == 1
    assert "@keyframes wait { from { opacity: 0 } }" in picture
    assert ".line { animation: wait 1ms backwards }" in picture
    assert "@media (prefers-reduced-motion: reduce) { .line { animation: none } }" in picture


@pytest.mark.parametrize("who", COLOURS)
def test_a_step_of_the_demo_has_dim_times_and_the_colour_of_who_it_is(
    who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's own lines are understood: if their form changes, so must the picture's."""
    Teller().say(who, "does a thing")
    drawn = colours(draw(PROMPT, [Line(0.0, capsys.readouterr().out.rstrip())]))
    assert {drawn[text] for text in drawn if text.endswith((" s", " ms"))} == {DIM}
    assert (drawn[who], drawn["does a thing"]) == (COLOURS[who], PLAIN)


def test_a_command_that_ends_well_is_shown_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lines go to stdout as they are, stderr's too; a terminal's colours are not drawn."""
    out = tmp_path / "new" / "out.svg"
    code = r"import sys; print('\x1b[32mone\x1b[0m\x07', flush=True); print('two …', file=sys.stderr)"
    assert run(out, code, "--prompt", PROMPT) == 0
    assert capsys.readouterr().out == "\x1b[32mone\x1b[0m\x07\ntwo …\n"
    assert rows(out.read_text(encoding="utf-8")) == [f"$ {PROMPT}", "one", "two …"]


def test_a_command_is_run_without_a_shell_and_is_its_own_prompt(tmp_path: Path) -> None:
    """What follows the first `--` is the command to the letter, with any `--` of its own."""
    out = tmp_path / "out.svg"
    assert main([str(out), "--", "echo", "--", "$HOME; *"]) == 0
    assert rows(out.read_text(encoding="utf-8")) == ["$ echo -- '$HOME; *'", "-- $HOME; *"]


def test_without_a_command_nothing_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is said, as for any wrong call: exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "out.svg")])
    assert ended.value.code == 2
    assert "the command stands after --" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("code", "ends_with"),
    [("print('half'); raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 15)", 143)],
)
def test_a_command_that_fails_gives_its_exit_code_and_no_picture(
    tmp_path: Path, code: str, ends_with: int
) -> None:
    """A picture that is there stays as it was; a signal is told as shells tell it."""
    out = tmp_path / "out.svg"
    out.write_text("before")
    assert run(out, code) == ends_with
    assert out.read_text() == "before"


@pytest.mark.parametrize("place", [Path.home(), Path(tempfile.gettempdir()), Path.cwd()])
@pytest.mark.parametrize("in_prompt", [False, True])
def test_a_path_of_this_machine_gets_into_no_picture(tmp_path: Path, place: Path, in_prompt: bool) -> None:
    """The program ends with a message that names the path and the line."""
    out = tmp_path / "out.svg"
    said = f"reads {place}/tls.cert"
    prompt, line = (said, "ready") if in_prompt else (PROMPT, said)
    with pytest.raises(SystemExit, match=re.escape(f"{place} is a path of this machine")) as ended:
        run(out, f"print({line!r})", "--prompt", prompt)
    assert said in str(ended.value)
    assert not out.exists()
