"""In which order a mailbox is handed over: a wallet that is woken has seconds, and the money goes first."""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Sequence

from sidecar.core.mailbox import Letter, Queue

MOST = 100_000
"""Letters that are remembered, of all nodes together: 13 MB, or 55 where each is another node's."""


class Turns:
    """How often each letter was handed over, as far as it is known: gone with the process, and bounded.

    A letter stays in its mailbox until the node has shown life for half a minute after it, and phones
    are often given less. What they got on earlier connections must not hold up what is new. Beyond `most`
    letters the node that was handed something longest ago is forgotten.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._times: OrderedDict[bytes, Counter[Hashable]] = OrderedDict()
        self._letters = 0

    def handed_over(self, node: bytes, name: Hashable) -> None:
        """A letter of that name (its place on disk, or its key while it has none) went out to its node."""
        times = self._times.setdefault(node, Counter())
        self._times.move_to_end(node)
        self._letters += name not in times
        times[name] += 1
        while self._letters > self._most:
            self._letters -= len(self._times.popitem(last=False)[1])

    def again(self, node: bytes, name: Hashable) -> bool:
        """Whether a letter went out before, as far as it is known."""
        return name in self._times.get(node, ())

    def kept(self, node: bytes, key: bytes, place: Hashable) -> None:
        """A letter that may have been handed over from memory is on disk now."""
        times = self._times.get(node, Counter())
        if key in times:
            self._letters -= place in times
            times[place] += times.pop(key)

    def forget(self, node: bytes, names: Iterable[Hashable]) -> None:
        """Letters that the node surely got: of one that stays connected nothing else would let go of them."""
        times = self._times.get(node, Counter())
        for name in names:
            self._letters -= times.pop(name, 0) > 0
        if not times:
            self._times.pop(node, None)

    def ordered(
        self, node: bytes, letters: Iterable[tuple[Hashable, Letter]]
    ) -> Sequence[tuple[Hashable, Letter]]:
        """All letters that wait for a node, by their names: those that went out least often go first.

        Among those the messages, for one of them may be a held_htlc_available; and among those the newest,
        for its payer is still there. The oldest may have been handed over by a process before this one.
        """
        letters = list(letters)
        known = self._times.pop(node, Counter())
        # What has left the mailbox is forgotten.
        times = Counter({name: known[name] for name, _ in letters if name in known})
        self._letters += len(times) - len(known)
        if times:
            self._times[node] = times
        newest_first = reversed(letters)
        return sorted(newest_first, key=lambda each: (times[each[0]], each[1].queue is Queue.REQUESTS))
