"""The sidecar with bounded dicts that are full at once: `python -m tests.harness.narrowed ARGUMENTS…`.

It is `python -m sidecar ARGUMENTS…`, and whatever strangers can fill holds a hundredth of what it would: it
lets go of something all the time, and what it does not let go of shows within a minute.
"""

import runpy
import sys
from typing import Any

from sidecar.core.bounded import Bounded
from tests.harness.sidecar_process import SidecarProcess

SHARE = 100


def narrow() -> None:
    """Let every Bounded that is made from now on hold less."""
    wide = Bounded.__init__

    def narrowed(self: Bounded[Any, Any], most: int) -> None:
        wide(self, max(1, most // SHARE))

    Bounded.__init__ = narrowed  # type: ignore[method-assign]


class NarrowedProcess(SidecarProcess):
    """`sidecar serve`, narrowed."""

    def _sidecar(self) -> tuple[str, ...]:
        return (sys.executable, "-m", __name__)


if __name__ == "__main__":
    narrow()
    runpy.run_module("sidecar", run_name="__main__", alter_sys=True)
