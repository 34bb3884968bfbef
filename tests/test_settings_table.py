"""The README's table of settings says what the settings are."""

import pytest

from sidecar import options
from tests.settings_table import BEGIN, END, README, settings_table, with_table


def test_the_readme_has_the_table_as_it_is_made() -> None:
    """`make settings` brings it up to date."""
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "the README's table is old: run `make settings`"


def test_every_setting_is_in_the_table_once() -> None:
    """With its default, what it means, and whether it can change at run time."""
    rows = settings_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [option.name for option in options.OPTIONS]
    for row, option in zip(rows, options.OPTIONS, strict=True):
        assert option.help
        assert option.help in row
        assert option.default in row
        assert row.endswith("| yes |") is option.reloadable


def test_only_what_is_between_the_markers_is_replaced() -> None:
    """Whatever was there; the text around it stays."""
    assert with_table(f"a\n{BEGIN}\nold\n{END}\nz") == f"a\n{BEGIN}\n{settings_table()}\n{END}\nz"


@pytest.mark.parametrize(
    "text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"], ids=["none", "one", "order", "twice"]
)
def test_a_text_without_its_markers_is_refused(text: str) -> None:
    """Rather than be given a second table, or none."""
    with pytest.raises(ValueError, match="once, in this order"):
        with_table(text)
