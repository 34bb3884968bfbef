"""The sidecar with bounded dicts that are full at once: `python -m tests.harness.narrowed FOLDER ARGUMENTS…`.

It is `python -m sidecar ARGUMENTS…`, and whatever strangers can fill holds a hundredth of what it would: it
lets go of something all the time, and what it does not let go of shows within a minute. How much is in use
it writes into the folder, into a file by its pid, each half second.
"""

import os
import runpy
import sys
import threading
import time
from pathlib import Path
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


def tell(file: Path) -> None:
    """Write how many blocks of memory Python has given out, again and again, as a line of one length."""

    def again_and_again() -> None:
        with file.open("wb", buffering=0) as out:
            while True:
                os.pwrite(out.fileno(), b"%12d" % sys.getallocatedblocks(), 0)
                time.sleep(0.5)

    threading.Thread(target=again_and_again, daemon=True).start()


class NarrowedProcess(SidecarProcess):
    """`sidecar serve`, narrowed."""

    def _sidecar(self) -> tuple[str, ...]:
        return (sys.executable, "-m", __name__, str(self.datadir.parent))

    def in_use(self) -> int:
        """Blocks of memory that it uses, half a second ago at most: an object is one or a few."""
        return int((self.datadir.parent / f"in-use.{self.pid}").read_bytes())


if __name__ == "__main__":
    narrow()
    tell(Path(sys.argv.pop(1)) / f"in-use.{os.getpid()}")
    runpy.run_module("sidecar", run_name="__main__", alter_sys=True)
