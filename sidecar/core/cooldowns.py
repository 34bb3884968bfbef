"""Cooldowns: how often one thing is told to one node, and what waits for the end of a cooldown."""

from dataclasses import dataclass

from sidecar.core.bounded import Bounded


@dataclass(slots=True)
class _Cooldown:
    since_ms: int
    lifted: bool = False


class Cooldowns:
    """A cooldown for each node and method; times are milliseconds, and an argument.

    "An LSP implementation must avoid sending multiple LSPS5 notifications of the same `method`
    (other than `lsps5.webhook_registered`) close in time, as long as the client has not connected
    to it." (bLIP 55)

    What is held back is not lost: it is due once, when the cooldown ends. Beyond `most` nodes the one
    that was told longest ago is forgotten, and with it what waits.
    """

    def __init__(self, length_ms: int, most: int = 10_000) -> None:
        self._length_ms, self._most = length_ms, most
        self._nodes: Bounded[bytes, dict[str, _Cooldown]] = Bounded(most)
        # What waits, by the order of asking: the cooldowns of it end in about that order too.
        self._waiting: dict[tuple[bytes, str], _Cooldown] = {}
        self._lost = 0

    def ask(self, node_id: bytes, method: str, now_ms: int) -> bool:
        """Whether a node may be told now, which opens a cooldown; else it is due when that one ends."""
        cooldown = self._nodes.get(node_id, {}).get(method)
        if cooldown is None or cooldown.lifted or self._over(cooldown, now_ms):
            self._open(node_id, method, now_ms)
            return True
        self._waiting[node_id, method] = cooldown
        return False

    def due(self, now_ms: int) -> list[tuple[bytes, str]]:
        """What waited for a cooldown that is over by now; each opens the next one."""
        due = [key for key, cooldown in self._waiting.items() if self._over(cooldown, now_ms)]
        for node_id, method in due:
            self._open(node_id, method, now_ms)
        return due

    def lift(self, node_id: bytes, method: str) -> None:
        """The node could not be told: whoever asks next may try. What waits keeps its time."""
        cooldown = self._nodes.get(node_id, {}).get(method)
        if cooldown is not None:
            cooldown.lifted = True

    def lift_all(self, node_id: bytes) -> None:
        """The node can be told in a new way: as `lift`, for all that it was told."""
        for cooldown in self._nodes.get(node_id, {}).values():
            cooldown.lifted = True

    def end(self, node_id: bytes) -> None:
        """The node is here: its cooldowns are over, and nothing waits for it any more.

        "The timeout should be reset once the client comes online and then goes offline." (bLIP 55)
        """
        for method in self._nodes.pop(node_id, {}):
            self._waiting.pop((node_id, method), None)

    def take_lost(self) -> int:
        """How much that waited was forgotten, since this was asked last."""
        lost, self._lost = self._lost, 0
        return lost

    def _open(self, node_id: bytes, method: str, now_ms: int) -> None:
        methods = self._nodes.get(node_id, {})
        methods[method] = _Cooldown(now_ms)
        self._waiting.pop((node_id, method), None)
        if node_id not in self._nodes and len(self._nodes) >= self._most:
            waiting = len(self._waiting)
            self.end(next(iter(self._nodes)))
            self._lost += waiting - len(self._waiting)
        self._nodes[node_id] = methods

    def _over(self, cooldown: _Cooldown, now_ms: int) -> bool:
        # abs: a clock that was stepped must not keep a cooldown for long.
        return abs(now_ms - cooldown.since_ms) >= self._length_ms
