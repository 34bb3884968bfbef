"""The view of `sidecar top`: what stands where, what is left out, and that it always fits."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sidecar.cli.digest import Frame
from sidecar.cli.top import share, view
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.told import STARTED_MS, a_client, a_sample, a_status

TITLES = ("Messages", "Latencies", "Dropped and refused", "Wake-ups", "Clients", "Last problems")
BUSY = {
    "received": 300,
    "dropped.rate-limited": 30,
    "dropped.bad-context": 1,
    "sent.static_invoice": 50,
    "sent.offer_paths": 3,
    "stored": 3,
    "kept.invoice_request": 20,
    "unsent.static_invoice.peer-not-connected": 2,
    "mail.kept": 20,
    "mail.dropped.pushed-out": 2,
    "wake.sent.lsps5.onion_message_incoming": 4,
    "wake.failed.timeout": 1,
    "refused.requests": 7,
    "bound": 3,
    "lsps.received": 2,
    "lsps.answered": 2,
}


def seconds(name: str, count: int = 100) -> admin_pb2.Seconds:
    """A histogram of `count` things that took 1 to 2 ms."""
    return admin_pb2.Seconds(name=name, count=count, bounds=[0.001, 0.002], buckets=[0, count, 0])


def busy(clients: int = 12) -> Frame:
    """A server that has much to say, after ten seconds of the same."""
    status = a_status(
        {slug: 2 * count for slug, count in BUSY.items()},
        seconds=[
            seconds(name) for name in ("lnd.GetInfo", "message.invoice_request", "store.read", "webhook")
        ],
        problems=[
            admin_pb2.Problem(at_ms=STARTED_MS + 1_000, reason="lnd-unavailable", text="LND does not answer")
        ],
        clients=clients,
    )
    many = [a_client(f"client-{number}", number) for number in range(clients)]
    return Frame(a_sample(10, status, *many), a_sample(0, a_status(BUSY), *many))


def drawn(frame: Frame, width: int = 80, height: int | None = None, age: float = 0.0) -> list[str]:
    """The lines of a terminal."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(view(frame, age, width, height))
    return out.getvalue().splitlines()


def line_of(lines: list[str], words: str) -> str:
    """The one line that holds the words, however far they are from each other."""
    pattern = re.compile(r"\s+".join(map(re.escape, words.split(" "))))
    (found,) = (line for line in lines if pattern.search(line))
    return found


# --- what is shown ------------------------------------------------------------------------------


def test_a_row_has_its_rate_and_its_total() -> None:
    """50 more in 10 s are 5.0 a second."""
    row = line_of(drawn(busy()), "static_invoice       sent")
    assert row.split()[:4] == ["static_invoice", "sent", "5.0", "100"]


def test_the_head_tells_what_the_server_stands_on() -> None:
    """Version, network, node, LND, its stream, Redis, and since when it is up."""
    first, second, third = drawn(busy())[:3]
    assert first.split("  ")[:3] == ["sidecar 0.1.0", "regtest", "node 02ababababababab…"]
    assert first.rstrip().endswith("up 10 s")
    assert second.startswith("LND 0.21.2-beta native  stream up  0 queued")
    assert second.rstrip().endswith("Redis 6.2.14 (embedded, AOF always)")
    assert third.startswith("clients 12  slots 66")


def test_the_head_tells_who_leads_where_this_one_does_not() -> None:
    """Of one that leads nothing is said: nearly all do."""

    def first(role: str = "", leader: str = "") -> str:
        return drawn(Frame(a_sample(0, a_status(role=role, leader=leader))), 120)[0]

    assert "  stands by: left leads" in first("stands by", "left")
    assert "  stands by: which one leads is not known yet" in first("stands by")
    assert "left" not in first("leads", "left")
    assert "stands" not in first()


def test_the_head_agrees_with_the_clients_below() -> None:
    """The server's own sums may be some seconds old: nobody shall see 0 slots above a client with 3."""
    clients = [a_client("alice", 3, bytes_used=1_000), a_client("bob", 2, bytes_used=2_000)]
    status = a_status(clients=9, slots_used=0, bytes_used=0)
    assert drawn(Frame(a_sample(0, status, *clients)))[2].startswith("clients 2  slots 5  kept 3.0 kB")


@pytest.mark.parametrize("width", [100, 120])
def test_where_there_is_room_no_name_is_shortened(width: int) -> None:
    """Neither the longest of LND's calls nor of our messages; how often comes last, where it has room too."""
    names = ("message.offer_paths_request", "message.serve_static_invoice", "lnd.DeriveSharedKey")
    status = a_status({"sent.static_invoice_persisted": 1}, seconds=[seconds(name) for name in names])
    text = "\n".join(drawn(Frame(a_sample(0, status)), width))
    shown = [name.removeprefix("message.") for name in names]
    assert all(f" {name} " in text for name in (*shown, "sent"))
    assert "…" not in "\n".join(text.splitlines()[3:])
    assert ("COUNT" in text) is (width == 120)


def test_a_stream_that_is_down_is_seen_at_once() -> None:
    """In capitals, for terminals without colours, and however long Redis is described."""
    status = a_status(redis="Redis 7.2.4 at redis.example.com:6379 (AOF everysec, WAITAOF, durability none)")
    status.stream_up = False
    assert "stream DOWN: LND is away  0 queued" in drawn(Frame(a_sample(0, status)))[1]


def test_a_server_that_went_away_is_told_of_and_what_it_said_stays() -> None:
    """With how old that is."""
    gone = Frame(busy().now, trouble="no server is running")
    lines = drawn(gone, age=65)
    assert lines[3].startswith("no server is running (what is seen is 1 min 5 s old; asked again")
    assert "static_invoice" in "\n".join(lines)


def test_a_server_that_answers_slowly_is_told_of() -> None:
    """An old answer is never shown as if it were new."""
    assert "slow" not in "\n".join(drawn(busy(), age=1))
    assert "the server is slow to answer (what is seen is 8 s old" in drawn(busy(), age=8)[3]


def test_every_section_says_when_it_has_nothing() -> None:
    """A server of an hour ago, without clients: no empty table, no fault."""
    text = "\n".join(drawn(Frame(a_sample())))
    assert all(title in text for title in TITLES)
    for words in ("none yet", "nothing timed yet", "nothing", "no clients yet"):
        assert words in text
    assert drawn(Frame(a_sample(0, admin_pb2.GetStatusResponse())))


def test_without_an_earlier_answer_rates_are_not_told_as_zero() -> None:
    """Nothing can be said of them."""
    row = line_of(drawn(Frame(busy().now)), "static_invoice       sent")
    assert row.split()[:4] == ["static_invoice", "sent", "–", "100"]


def test_a_client_is_shown_with_its_use_and_its_limits() -> None:
    """And with what limits have refused of it."""
    alice = a_client("alice", 3, bytes_used=65_536, mail_letters=7, refused={"slots": 1, "requests": 20})
    row = line_of(drawn(Frame(a_sample(0, None, alice)), 120), "alice")
    assert row.split() == [
        *("alice", "active", "50%", "3/10", "65.5", "kB/131.1", "kB", "7", "requests", "20,", "slots", "1")
    ]


@pytest.mark.parametrize(
    ("state", "word"), [(1, "active"), (2, "revoked"), (3, "paused"), (0, "unknown"), (9, "unknown")]
)
def test_a_clients_state_is_a_word(state: int, word: str) -> None:
    """Also one that this version does not know."""
    client = admin_pb2.Client(name="alice")
    client.state = state  # type: ignore[assignment]
    assert line_of(drawn(Frame(a_sample(0, None, client))), "alice").split()[1] == word


def test_what_acts_on_a_terminal_is_escaped() -> None:
    """Names and texts are data: no escape sequence, no line break, and no markup of the drawing library."""
    evil = a_client("x\x1b[2Jy\n[bold]z\u202e")
    status = a_status(
        {"dropped.\x1b[31mred": 1, "wake.failed.\x07": 1, "odd\x07": 1},
        seconds=[seconds("\x1b]0;t")],
        problems=[admin_pb2.Problem(at_ms=1, reason="a\x1bb", text="c\r[red]d")],
        redis="R\x1b[0m",
    )
    text = "\n".join(drawn(Frame(a_sample(0, status, evil), trouble="t\x1b"), 200))
    assert not set(text) & set("\x1b\r\x07\u202e")
    for words in (r"x\x1b[2Jy\n[bold]z\u202e", r"c\r[red]d", r"dropped \x1b[31mred"):
        assert words in text


# --- what fits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["", "no server is running"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 30), (100, 40), (200, 60)])
def test_it_fits_the_terminal_with_every_title(width: int, height: int, trouble: str) -> None:
    """From 80 × 24 on: nothing is folded, and nothing falls off the end."""
    frame = Frame(busy(50).now, busy(50).before, trouble)
    lines = drawn(frame, width, height)
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    assert all(title in text for title in TITLES)
    assert "lnd-unavailable" in text


def test_more_room_shows_more_clients_the_fullest_first() -> None:
    """And the title says how many are not seen."""
    few, more = drawn(busy(), 80, 24), drawn(busy(), 80, 50)
    title = line_of(few, "Clients 4 of 12")
    assert few[few.index(title) + 2].startswith("client-11 ")
    assert " of 12" not in "\n".join(more)
    assert "client-0 " in "\n".join(more)


def test_without_a_height_all_is_shown() -> None:
    """As `--once` prints it."""
    lines = drawn(busy(100))
    assert sum(line.startswith("client-") for line in lines) == 100
    assert not any("of 1" in line for line in lines)


def test_where_room_is_short_what_happens_now_stays() -> None:
    """What counted long ago goes first; what stays keeps its order."""
    frame = busy()
    frame.now.status.counters["lsps.received"] = 1_000_000
    frame.now.status.counters["lsps.answered"] = BUSY["lsps.answered"]
    lines = drawn(frame, 80, 24)
    rows = ("onion message received", "static_invoice sent", "lsps5 received")
    places = [lines.index(line_of(lines, words)) for words in rows]
    assert places == sorted(places)
    assert "answered" not in "\n".join(lines)


def test_of_each_kind_of_what_is_timed_one_is_seen() -> None:
    """LND has many calls: they don't push out what payers wait for."""
    frame = busy()
    frame.now.status.seconds.extend(seconds(f"lnd.Call{number}", 1_000) for number in range(20))
    text = "\n".join(drawn(frame, 80, 24))
    assert all(name in text for name in (" invoice_request ", " store.read ", " webhook ", " lnd.Call"))


@given(st.integers(-3, 60), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_lines_are_shared_evenly_and_none_is_given_away(room: int, needs: list[int]) -> None:
    """Nobody gets more than it needs, nothing is left over that is needed, and none is far behind."""
    given_ = share(room, needs)
    assert all(0 <= got <= need for got, need in zip(given_, needs, strict=True))
    assert sum(given_) == max(0, min(room, sum(needs)))
    short = [got for got, need in zip(given_, needs, strict=True) if got < need]
    assert all(got <= least + 1 for got in short for least in short)
