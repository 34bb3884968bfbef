"""The picture of `sidecar top`: what is in it, that nothing outside is, and that it is of a real server."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sidecar.cli.digest import Frame
from tests.demo import top_picture
from tests.harness.told import a_client, a_sample, a_status

SVG = "{http://www.w3.org/2000/svg}"
TITLES = ("Messages", "Latencies", "Dropped and refused", "Wake-ups", "Clients", "Last problems")
PICTURE = Path(__file__).parents[2] / "docs" / "top.svg"


def texts(picture: str) -> list[str]:
    """All that is written in it, from top to bottom."""
    written = (each.text or "" for each in ET.fromstring(picture).iter(f"{SVG}text"))
    return [text.replace("\xa0", " ") for text in written]


def check(picture: str) -> None:
    """Valid XML with every title; no URL but SVG's own name, no font, script, link or image from outside."""
    written = texts(picture)
    assert all(title in written for title in TITLES), written
    assert re.findall(r"\w+://[^\"]+", picture) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"@import|@font-face|href|url\((?!#)", picture)
    tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "style", "defs", "clipPath", "rect", "circle", "text", "g"}
    # A reader that drops such spaces would move what stands beside them.
    assert all(text == text.strip(" ") for text in written)


def test_a_picture_is_valid_xml_with_all_titles_and_needs_nothing_from_outside() -> None:
    """Names are escaped as XML wants it."""
    frame = Frame(a_sample(0, a_status({"received": 3}), a_client("<a&b>")))
    picture = top_picture.draw(frame)
    check(picture)
    assert "<a&b>" in texts(picture)


def test_no_picture_shows_a_path_of_this_machine() -> None:
    """As the demo's own."""
    with pytest.raises(SystemExit, match="path of this machine"):
        top_picture.draw(Frame(a_sample(0, a_status(redis=f"redis at {Path.cwd()}/redis.sock"))))


def test_the_picture_of_the_readme_is_one_of_these() -> None:
    """It was made by the script, and holds what a view holds."""
    check(PICTURE.read_text(encoding="utf-8"))


@pytest.mark.slow
async def test_a_frame_is_of_a_server_at_work() -> None:
    """Served, kept, woken, and limited: rates and totals of a real server."""
    frame = await top_picture.frame()
    counters = frame.now.status.counters
    for slug in (
        "sent.static_invoice",
        "kept.invoice_request",
        "mail.sent",
        "dropped.rate-limited",
        "wake.sent.lsps5.onion_message_incoming",
    ):
        assert counters[slug] > 0, slug
    assert (frame.rate("sent.static_invoice") or 0) > 0
    assert {each.name: each.slots_used for each in frame.now.clients} == top_picture.CLIENTS
    check(top_picture.draw(frame))
