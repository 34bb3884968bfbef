"""README.md says of the command what is so, as far as that can be seen without an LND."""

import pytest

from tests.harness.lnd_process import _FLAGS, VERSIONS, Kind
from tests.harness.shell import Shell
from tests.walk import readme

TEXT = readme.README.read_text()
RUN_IT = readme.section(TEXT, "Run it beside your LND")


def test_a_section_ends_at_the_next_heading_of_its_rank_or_above() -> None:
    """A comment in a block of code is no heading."""
    text = "# A\n## B\nb\n### C\n```\n## x\n```\nc\n## D\nd\n"
    assert readme.section(text, "B") == "b\n### C\n```\n## x\n```\nc\n"
    assert readme.section(text, "D") == "d\n"
    with pytest.raises(AssertionError, match="no heading 'E'"):
        readme.section(text, "E")


def test_commands_are_what_follows_a_dollar_in_console_blocks() -> None:
    """Over several lines where they end in a backslash; what a command prints is none."""
    text = "```console\n$ a \\\n    b\nprinted\n$ c\n```\n\n```sh\n$ no\n```\n"
    assert readme.commands(text) == ["a \\\n    b", "c"]


def test_a_tables_commands_are_written_out() -> None:
    """One for each word between bars; the command's name may be left out after the first."""
    text = "| `sidecar client list`, `client a\\|b NAME` | what it does |\n| `sidecar top [--x 1]` | |\n"
    assert list(readme.table_commands(text)) == [
        "sidecar client list",
        "sidecar client a NAME",
        "sidecar client b NAME",
        "sidecar top [--x 1]",
    ]


async def test_the_macaroon_is_baked_as_the_command_says(shell: Shell) -> None:
    """The recipe in README is what `sidecar macaroon-permissions` prints for LND 0.21."""
    (recipe,) = [each for each in readme.commands(RUN_IT) if each.startswith("lncli bakemacaroon")]
    told = await shell.run("macaroon-permissions", "--lnd.version", "0.21")
    assert " ".join(recipe.replace("\\\n", " ").split()) in told.out.splitlines()


@pytest.mark.parametrize("kind", VERSIONS)
def test_the_tests_lnds_are_set_up_as_the_readme_says(kind: Kind) -> None:
    """What all other tests give their LNDs stands in README for operators."""
    lines = readme.lnd_conf(RUN_IT)[VERSIONS[kind]].splitlines()
    for flag in _FLAGS[kind]:
        option = flag.removeprefix("--")
        assert (option if "=" in option else f"{option}=true") in lines
