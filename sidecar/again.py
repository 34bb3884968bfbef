"""What the sidecar that led before may have answered: nobody gets another answer than that one's.

A message that was held while another one led, and that nobody has told of, is answered (`again`, as
standby.py says): most of them nobody has answered, and a payer asks only twice. To get the same answer
twice does no harm. But an invoice may have been replaced in between, or a client revoked: then the second
answer would be another one.
"""

from dataclasses import dataclass

from sidecar.core.bounded import Bounded
from sidecar.core.context import OfferContext
from sidecar.core.errors import Replayed
from sidecar.core.model import Loaded
from sidecar.ports import Clock, Received

LATER_MS = 250
"""How much later LND's message may reach one sidecar than another."""

SLOTS = 500
"""Slots of which is known what was in them before; of the others just when they changed."""


@dataclass(frozen=True, slots=True)
class _Was:
    """`since_ms`: by the steady clock."""

    loaded: Loaded
    since_ms: int


class Again:
    """The slots as they were when this sidecar began to lead, while it answers what was held."""

    def __init__(self, clock: Clock, in_work: float) -> None:
        """`in_work`: seconds for which a message may be: so long after one that was held another may be."""
        self._clock = clock
        self._in_work_ms = round(in_work * 1_000)
        self._was: Bounded[tuple[bytes, int], _Was] = Bounded(SLOTS)
        self._until_ms = 0

    def check_alike(self, received: Received) -> None:
        """For what is answered otherwise each time. Raises Replayed."""
        if received.again:
            raise Replayed("what the sidecar that led before may have answered, in another way")

    def as_it_was(self, received: Received, context: OfferContext, loaded: Loaded) -> Loaded:
        """A slot that was `loaded` just now for a request: as the one that led before may have seen it.

        Raises Replayed where it has changed since the request came.
        """
        if not received.again or received.heard_ms is None:
            return loaded
        was = self._first(received, context, loaded)
        if was.since_ms > received.heard_ms - LATER_MS:
            raise Replayed("a request that may have been answered with what was there before")
        return was.loaded

    def changes(self, received: Received, context: OfferContext, loaded: Loaded) -> None:
        """A slot that was `loaded` just now is about to be changed: the one before never saw that."""
        if received.again or self._clock.steady_ms() < self._until_ms:
            self._first(received, context, loaded)
        else:
            self._was.clear()

    def _first(self, received: Received, context: OfferContext, loaded: Loaded) -> _Was:
        now_ms = self._clock.steady_ms()
        if received.again:
            self._until_ms = now_ms + self._in_work_ms
        return self._was.setdefault((context.client_id, context.slot), _Was(loaded, now_ms - loaded.stood_ms))
