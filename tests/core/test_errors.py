"""The tree of errors: one reason each, and drawn as it is."""

from __future__ import annotations

import re

from sidecar.core import errors
from sidecar.core.errors import SidecarError


def tree() -> list[type[SidecarError]]:
    """Every error of the core."""
    found: list[type[SidecarError]] = [SidecarError]
    for error in found:
        found.extend(sub for sub in error.__subclasses__() if sub.__module__ == errors.__name__)
    return found


def test_every_error_has_a_reason_of_its_own() -> None:
    """What is dropped is counted by reason: no two errors share a slug, and each is a slug."""
    reasons = [error.reason for error in tree()]
    assert len(reasons) == len(set(reasons)) > 40
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", reason) for reason in reasons)


def test_every_error_stands_in_the_drawing() -> None:
    """The tree at the top of errors.py names every class of it, and no other."""
    assert errors.__doc__ is not None
    drawing = errors.__doc__.partition("`reason`")[0]
    drawn = re.findall(r"\b(?!SidecarError)(?:[A-Z][a-z]+)+\b", re.sub("  {3,}[a-z].*", "", drawing))
    names = {error.__name__ for error in tree()} - {"SidecarError"}
    assert names == set(drawn) - {"Every"}
