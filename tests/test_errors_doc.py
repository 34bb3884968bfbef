"""docs/errors.md tells of every error, and of none that does not exist."""

import re
from pathlib import Path

from sidecar.adapters.admin_status import INTERNAL, code_of
from sidecar.core.errors import SidecarError
from tests.core.test_errors import tree

TABLE = Path(__file__).parents[1] / "docs" / "errors.md"

NOT_CALLS = "—"


def rows() -> list[list[str]]:
    """The cells of every row: slug, code, meaning, remedy."""
    found = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| (.+?) \| (.+?) \|$", TABLE.read_text(), re.MULTILINE)
    return [list(each) for each in found]


def test_every_slug_is_told_once_and_no_other() -> None:
    """Those of the tree, and the one for a fault of the server's own."""
    told = [slug for slug, *_ in rows()]
    assert sorted(told) == sorted({error.reason for error in tree()} | {INTERNAL})


def test_the_codes_are_those_of_the_admin_api() -> None:
    """An error with a code of its own shows it; one without may come as INTERNAL, or from no call."""
    codes = {slug: code for slug, code, *_ in rows()}
    for error in tree():
        code = code_of(error).name
        assert codes[error.reason] in ({code} if code != "INTERNAL" else {code, NOT_CALLS}), error
    assert codes[SidecarError.reason] == codes[INTERNAL] == "INTERNAL"
