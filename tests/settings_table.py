"""The README's table of settings, made from the settings: `python -m tests.settings_table` writes it."""

from pathlib import Path

from sidecar.options import OPTIONS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- settings: made by `make settings` -->", "<!-- end of settings -->"


def settings_table() -> str:
    """A row for each setting, in Markdown: name, default, meaning, whether it can change at run time."""
    rows = ["| setting | default | | at run time |", "|---|---|---|---|"]
    for option in OPTIONS:
        default = f"`{option.default}`" if option.default else ""
        meaning = option.help.replace("|", r"\|")
        rows.append(f"| `{option.name}` | {default} | {meaning} | {'yes' if option.reloadable else ''} |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """`text` with the table between its two markers. Raises ValueError when they are not both there once."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after:
        raise ValueError(f"the text must have {BEGIN} and {END} once, in this order")
    return f"{before}{BEGIN}\n{settings_table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
