"""In which order a mailbox is handed over: a wallet that is woken has seconds, and the money goes first."""

from collections import Counter
from collections.abc import Iterable, Sequence

from sidecar.core.bounded import Bounded
from sidecar.core.mailbox import Letter, Queue

_NODES = 10_000


class Turns:
    """How often each letter was handed over, as far as it is known: gone with the process, and bounded.

    A letter stays in its mailbox until the node has shown life for half a minute after it, and phones
    are often given less. What they got on earlier connections must not hold up what is new.
    """

    def __init__(self) -> None:
        self._times: Bounded[bytes, Counter[int | bytes]] = Bounded(_NODES)

    def handed_over(self, node: bytes, name: int | bytes) -> None:
        """A letter of that name (its number, or its key while it has none) went out to its node."""
        times = self._times.get(node)
        if times is None:
            self._times[node] = times = Counter()
        times[name] += 1

    def again(self, node: bytes, name: int | bytes) -> bool:
        """Whether a letter went out before, as far as it is known."""
        return name in self._times.get(node, ())

    def kept(self, node: bytes, key: bytes, number: int) -> None:
        """A letter that may have been handed over from memory has a number now."""
        times = self._times.get(node, Counter())
        if key in times:
            times[number] += times.pop(key)

    def forget(self, node: bytes, names: Iterable[int | bytes]) -> None:
        """Letters that the node surely got: of one that stays connected nothing else would let go of them."""
        times = self._times.get(node, Counter())
        for name in names:
            times.pop(name, None)

    def ordered(
        self, node: bytes, letters: Iterable[tuple[int | bytes, Letter]]
    ) -> Sequence[tuple[int | bytes, Letter]]:
        """All letters that wait for a node, by their names: those that went out least often go first.

        Among those the messages, for one of them may be a held_htlc_available; and among those the newest,
        for its payer is still there. The oldest may have been handed over by a process before this one.
        """
        letters = list(letters)
        known = self._times.pop(node, Counter())
        # What has left the mailbox is forgotten.
        times = Counter({name: known[name] for name, _ in letters if name in known})
        if times:
            self._times[node] = times
        newest_first = reversed(letters)
        return sorted(newest_first, key=lambda each: (times[each[0]], each[1].queue is Queue.REQUESTS))
