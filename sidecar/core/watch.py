"""Whether a node got what was handed to it: a connection that stands says nothing about that.

LND's "sent successfully" means written to a socket. A suspended phone keeps its connection for
minutes, and all that shows life is that bytes come from it. Times are milliseconds, on a clock
that nobody sets: a step forward would prove what was never read, and after a step back nobody
would be found asleep.
"""

from collections.abc import Hashable

from sidecar.core.model import MAX_LETTERS

PROOF_AFTER_MS = 30_000
"""Bytes that come this long after a letter was sent can't have been under way before: they prove life."""

SILENT_AFTER_MS = 20_000
"""A node that was sent something and gives no sign for so long is asleep: LDK pings every 10 s."""

MOST_SENT = 2 * MAX_LETTERS
"""Letters that may lack proof: as many as a mailbox may hold. What a flood has pushed out of a mailbox needs
none; of what is still there the oldest is handed over once more on the next connection."""


class Watch:
    """What was sent to one node over its present connection, until the node proves that it lives.

    Letters go by their places on disk, or by their keys while they have none.
    """

    def __init__(self) -> None:
        self._sent: dict[Hashable, int] = {}
        self._bytes: int | None = None
        self._looked_at = 0
        self.alive_at_ms = 0
        """When the node last gave a sign, as far as it was seen."""
        self._told_at = -1

    def sent(self, name: Hashable, now_ms: int) -> None:
        """A letter was handed over."""
        self._sent[name] = now_ms
        if len(self._sent) > MOST_SENT:
            del self._sent[next(iter(self._sent))]

    def kept(self, key: bytes, place: Hashable) -> None:
        """A letter that was handed over from memory is on disk now."""
        if (at := self._sent.pop(key, None)) is not None:
            self._sent[place] = at

    def __contains__(self, name: Hashable) -> bool:
        """Whether a letter was handed over on this connection."""
        return name in self._sent

    def __len__(self) -> int:
        """How many letters lack proof."""
        return len(self._sent)

    def heard(self, now_ms: int) -> list[Hashable]:
        """Something came from the node just now; the letters that it surely got are forgotten."""
        self.alive_at_ms = now_ms
        return self._proven(now_ms)

    def looked(self, bytes_recv: int, now_ms: int) -> list[Hashable]:
        """The count of bytes from the node as it stands; the letters that it surely got are forgotten."""
        before, since = self._bytes, self._looked_at
        self._bytes, self._looked_at = bytes_recv, now_ms
        if before is None or bytes_recv <= before:
            return []
        self.alive_at_ms = now_ms
        # The bytes came at some time after the last look; it is only sure that they came after that.
        return self._proven(since)

    def _proven(self, alive_at: int) -> list[Hashable]:
        proven = [name for name, at in self._sent.items() if at <= alive_at - PROOF_AFTER_MS]
        for name in proven:
            del self._sent[name]
        return proven

    def silent(self, now_ms: int) -> bool:
        """Whether letters wait for proof, and the node has given no sign for too long."""
        # Asked for each letter: all that wait for proof are looked at only where it matters.
        if not self._sent or now_ms - self.alive_at_ms < SILENT_AFTER_MS:
            return False
        return now_ms - min(self._sent.values()) >= SILENT_AFTER_MS

    def newly_silent(self, now_ms: int) -> bool:
        """Whether it is silent, and this was not asked before since it last gave a sign."""
        news = self.silent(now_ms) and self._told_at < self.alive_at_ms
        if news:
            self._told_at = self.alive_at_ms
        return news

    def unheard(self) -> bool:
        """Whether a letter was sent and no sign of life has come since."""
        return any(at >= self.alive_at_ms for at in self._sent.values())
