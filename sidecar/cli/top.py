"""`sidecar top`: the view. From what a server said to something that rich can draw; no I/O, no clock."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sidecar.cli import digest
from sidecar.cli.digest import LIMITS, ONION, WAKES, Count, Frame
from sidecar.core.model import Role
from sidecar.core.webhooks import printable

if TYPE_CHECKING:
    from sidecar.rpc.sidecar.v1 import admin_pb2

NARROW, WIDE, WIDEST = 80, 100, 120
"""Columns: what a terminal has at least, from where columns stand apart, from where all of them are there."""

LATE = 5.0
"""Seconds after which an answer is said to be old."""

STATES = {1: "active", 2: "revoked", 3: "paused"}
"""The words for admin_pb2.ClientState."""

_TIMED = ("message", "connect", "webhook", "store", "lnd")
"""The kinds of what is timed, as payers and wallets feel them: from the whole to its parts."""

_TITLE, _DIM, _GOOD, _POOR, _BAD = "bold cyan", "dim", "green", "yellow", "bold red"

_LEAST = {" /S": 4, " TOTAL": 6}
_MOST = {"NAME": 24}
"""Columns of a terminal, by heading."""

Row = Sequence[Text]


@dataclass(frozen=True, slots=True)
class _Section:
    """A titled table; a column is its heading, whose place says to which side it is set."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    nothing: str
    """What stands where no row is."""
    stretched: int = 0
    """The column that takes the room, and gives it up."""
    heading: bool = True
    weights: Sequence[float] | None = None
    """Which rows stay where there is no room for all: the heaviest, in their order. None: the first."""

    @property
    def needs(self) -> int:
        """Lines for all rows."""
        return max(1, len(self.rows))

    def _chosen(self, lines: int) -> list[Row]:
        if self.weights is None:
            return list(self.rows[:lines])
        heaviest = sorted(range(len(self.rows)), key=self.weights.__getitem__, reverse=True)
        return [self.rows[place] for place in sorted(heaviest[:lines])]

    def drawn(self, lines: int, gap: int) -> RenderableType:
        """The title, the headings, and as many rows as there are lines for; `gap` between two columns."""
        shown = self._chosen(lines)
        few = f"  {len(shown)} of {len(self.rows)}" if len(shown) < len(self.rows) else ""
        rule = Rule(Text(f"{self.title}{few}", _TITLE), align="left", style=_DIM)
        if not shown:
            blank = [Text()] if self.heading else []
            return Group(rule, Text(self.nothing, _DIM), *blank)
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, gap, 0, 0), header_style=_DIM)
        table.show_header = self.heading
        for number, column in enumerate(self.columns):
            table.add_column(
                column.strip(),
                justify="right" if column.startswith(" ") else "left",
                ratio=1 if number == self.stretched else None,
                # Sections that stand above each other have these in the same place.
                min_width=_LEAST.get(column),
                max_width=_MOST.get(column),
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in shown:
            table.add_row(*row)
        return Group(rule, table)


# --- the head ---------------------------------------------------------------------------------------


def _spread(left: Text, right: Text) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(left, right)
    return grid


def _head(frame: Frame, age: float, hint: str) -> list[RenderableType]:
    """Three lines about the server, and one more when it does not answer."""
    status = frame.now.status
    node = f"{status.node_id[:16]}…" if len(status.node_id) > 16 else status.node_id
    first = Text.assemble(
        ("sidecar ", "bold"),
        (printable(status.version), "bold"),
        f"  {printable(status.network)}  node {node}",
        # Of one that leads, as nearly all do, nothing is said.
        ("" if status.role in ("", Role.LEADS.value) else f"  {printable(digest.role(status))}", _POOR),
    )
    up = ""
    if status.started_at_ms:
        up = f"up {digest.lasted((frame.now.at_ms - status.started_at_ms) / 1000 + age)}"
    second = Text.assemble(
        f"LND {printable(status.lnd_version)} {printable(status.mode)}  ",
        ("stream up", _GOOD) if status.stream_up else ("stream DOWN: LND is away", _BAD),
        (f"  {status.queued:,} queued", _POOR if status.queued else _DIM),
    )
    third = Text.assemble(
        # Added up here: the server counts them now and then, and the clients are on the same screen.
        f"clients {len(frame.now.clients):,}  slots {sum(each.slots_used for each in frame.now.clients):,}  ",
        f"kept {decimal(sum(each.bytes_used for each in frame.now.clients))}  ",
        f"mailbox {status.mail_letters:,} letters, {decimal(status.mail_bytes)}",
    )
    lines: list[RenderableType] = [
        _spread(first, Text(up)),
        _spread(second, Text(printable(status.redis))),
        _spread(third, Text(hint, _DIM)),
    ]
    if frame.trouble or age > LATE:
        why = printable(frame.trouble) or "the server is slow to answer"
        seen = f"what is seen is {digest.lasted(age)} old; asked again and again"
        lines.append(Text(f"{why} ({seen})", _BAD, no_wrap=True, overflow="ellipsis"))
    return lines


# --- what was counted -------------------------------------------------------------------------------


def _rate(frame: Frame, counts: Iterable[Count]) -> Text:
    rates = [frame.rate(count.slug) for count in counts]
    known = [rate for rate in rates if rate is not None]
    if not known:
        return Text("–", _DIM)
    rate = sum(known)
    return Text("0", _DIM) if rate == 0 else Text(f"{rate:.1f}" if rate < 99.95 else f"{rate:,.0f}")


def _total(counts: Iterable[Count]) -> Text:
    return Text(f"{sum(count.total for count in counts):,}")


def _messages(frame: Frame, counts: Sequence[Count]) -> _Section:
    groups = [
        (subject, outcome, each)
        for subject, outcomes in digest.summed(counts).items()
        for outcome, each in outcomes.items()
    ]
    return _Section(
        "Messages",
        ("TYPE", "OUTCOME", " /S", " TOTAL"),
        [
            (Text(printable(subject)), Text(printable(outcome)), _rate(frame, each), _total(each))
            for subject, outcome, each in groups
        ],
        "none yet",
        # What happens now is seen before what has happened often.
        weights=[
            sum((frame.rate(count.slug) or 0) * 1e9 + count.total for count in each) for _, _, each in groups
        ],
    )


def _undone(frame: Frame, counts: Sequence[Count]) -> _Section:
    rows = []
    for count in sorted(counts, key=lambda each: (-(frame.rate(each.slug) or 0), -each.total, each.slug)):
        # What arrived and what a limit refused need no subject: both words are used of nothing else.
        whose = "" if count.subject in (ONION, LIMITS) else f"{printable(count.subject)} "
        what = Text.assemble(f"{whose}{count.outcome} ", (printable(count.detail), _POOR))
        rows.append((what, _rate(frame, [count]), _total([count])))
    return _Section("Dropped and refused", ("WHAT", " /S", " TOTAL"), rows, "nothing", heading=False)


def _wakes(frame: Frame, counts: Sequence[Count]) -> _Section:
    rows = [
        (
            Text(
                printable(f"{count.outcome} {count.detail.removeprefix('lsps5.')}"),
                _POOR if count.bad else "",
            ),
            _rate(frame, [count]),
            _total([count]),
        )
        for count in counts
    ]
    return _Section("Wake-ups", ("OUTCOME", " /S", " TOTAL"), rows, "none yet", heading=False)


def _took(entry: "admin_pb2.Seconds", share: float) -> Text:
    found = digest.quantile(entry, share)
    if found is None:
        return Text("–", _DIM)
    return Text(str(found), _POOR if found.beyond else "")


def _latencies(frame: Frame, wide: bool) -> _Section:
    seen: Counter[int] = Counter()
    rows, weights = [], []
    for kind, entry in sorted(
        ((_kind(each), each) for each in frame.now.status.seconds if each.count),
        key=lambda each: (each[0], -each[1].count, each[1].name),
    ):
        # Where room is short, one of each kind: its most frequent.
        weights.append(-(len(_TIMED) + 1) * seen[kind] - kind)
        seen[kind] += 1
        took = (_took(entry, share) for share in (0.5, 0.95, 0.99))
        count = [Text(f"{entry.count:,}", _DIM)] if wide else []
        rows.append((Text(printable(entry.name.removeprefix("message."))), *took, *count))
    columns = ("TOOK", " P50", " P95", " P99", *((" COUNT",) if wide else ()))
    return _Section("Latencies", columns, rows, "nothing timed yet", weights=weights)


def _kind(entry: "admin_pb2.Seconds") -> int:
    first = entry.name.partition(".")[0]
    return _TIMED.index(first) if first in _TIMED else len(_TIMED)


# --- who and what -----------------------------------------------------------------------------------


def _of(used: str, limit: str) -> str:
    return f"{used}/{limit}" if limit else used


def _client(client: "admin_pb2.Client") -> Row:
    slots, size = digest.holds(client, "slots"), digest.holds(client, "bytes")
    full = digest.fullness(client)
    state = STATES.get(client.state, "unknown")
    refused = ", ".join(
        f"{printable(limit)} {count:,}"
        for limit, count in sorted(client.refused.items(), key=lambda each: (-each[1], each[0]))
        if count
    )
    return (
        Text(printable(client.name)),
        Text(state, "" if client.state == 1 else _POOR),
        Text(f"{full:.0%}", _BAD if full >= 1 else _POOR if full >= 0.8 else _DIM),
        Text(_of(str(client.slots_used), str(slots or ""))),
        Text(_of(decimal(client.bytes_used), decimal(size) if size else "")),
        Text(f"{client.mail_letters:,}", "" if client.mail_letters else _DIM),
        Text(refused or "–", _POOR if refused else _DIM),
    )


def _clients(frame: Frame) -> _Section:
    return _Section(
        "Clients",
        ("NAME", "STATE", " FULL", " SLOTS", " BYTES", " MAIL", "REFUSED"),
        [_client(each) for each in digest.by_use(frame)],
        "no clients yet: `sidecar client add NAME` lets one in",
        stretched=6,
    )


def _problems(frame: Frame, age: float) -> _Section:
    rows = [
        (
            Text(f"{digest.lasted((frame.now.at_ms - each.at_ms) / 1000 + age)} ago", _DIM),
            Text(printable(each.reason), _POOR),
            Text(printable(each.text)),
        )
        for each in frame.now.status.problems
    ]
    return _Section("Last problems", ("WHEN", "REASON", "TEXT"), rows, "none", stretched=2, heading=False)


# --- all of it --------------------------------------------------------------------------------------


def share(room: int, needs: Sequence[int]) -> list[int]:
    """How many lines each gets of `room`: as even as their needs allow, the first ones first."""
    given = [0] * len(needs)
    while room > 0 and given != list(needs):
        for place, need in enumerate(needs):
            if given[place] < need and room > 0:
                given[place] += 1
                room -= 1
    return given


def _beside(left: RenderableType, right: RenderableType, width: int) -> Table:
    # Names on the left are longer, times on the right are more.
    first = (width - 2) * 11 // 20
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=first)
    grid.add_column(width=width - 2 - first)
    grid.add_row(left, right)
    return grid


def view(frame: Frame, age: float, width: int, height: int | None = None, hint: str = "") -> RenderableType:
    """The whole screen of `width` columns and at most `height` lines (None: all that there is to show).

    `age` is how many seconds ago the last answer came, `hint` a word on the keys.
    """
    counts = digest.read_counters(frame.now.status.counters)
    head = _head(frame, age, hint)
    done = [each for each in counts if not each.bad and each.subject != WAKES]
    undone = [each for each in counts if each.bad and each.subject != WAKES]
    pairs = [
        (_messages(frame, done), _latencies(frame, width >= WIDEST)),
        (_undone(frame, undone), _wakes(frame, [each for each in counts if each.subject == WAKES])),
    ]
    lone = [_clients(frame), _problems(frame, age)]
    needs = [*(max(left.needs, right.needs) for left, right in pairs), *(each.needs for each in lone)]
    titles = sum(1 + each.heading for each in (*(left for left, _ in pairs), *lone))
    gap = 2 if width >= WIDE else 1
    lines = needs if height is None else share(height - len(head) - titles, needs)
    return Group(
        *head,
        *(
            _beside(left.drawn(given, gap), right.drawn(given, gap), width)
            for (left, right), given in zip(pairs, lines[:2], strict=True)
        ),
        *(each.drawn(given, gap) for each, given in zip(lone, lines[2:], strict=True)),
    )
