"""How the demo's stories are told: a step a line, with its time."""

import re
import textwrap
import time

from tests.demo.picture import COLUMNS

LONG_ID = re.compile(r"\b(0[23][0-9a-f]{14})[0-9a-f]{50}\b")
"""A node id in full: half a line, of which nobody compares more than the beginning."""


class Teller:
    """Prints each step with its time."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def say(self, who: str, what: str) -> None:
        """Seconds since the start, milliseconds since the last step, who, what; folded if it is long."""
        now = time.monotonic()
        took = (now - self._last) * 1000
        self._last = now
        head = f"{now - self._start:6.2f} s  {took:+8.1f} ms  {who:<8} "
        # Here and not by the terminal or the picture, which cut words in two.
        told = textwrap.wrap(LONG_ID.sub(r"\1…", what), COLUMNS - len(head), break_on_hyphens=False)
        print(head + f"\n{'':{len(head)}}".join(told), flush=True)
