"""What a server's answers mean: counters by kind, quantiles, rates, who uses most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli import digest
from sidecar.cli.digest import Frame, History, Quantile
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.told import a_client, a_sample, a_status


@pytest.mark.parametrize(
    ("slug", "subject", "outcome", "detail"),
    [
        ("received", "onion message", "received", ""),
        ("passed", "onion message", "passed", ""),
        ("stored", "serve_static_invoice", "stored", ""),
        ("bound", "node", "bound", ""),
        ("unbound.announced", "node", "unbound", "announced"),
        ("dropped.rate-limited", "onion message", "dropped", "rate-limited"),
        ("sent.static_invoice", "static_invoice", "sent", ""),
        ("kept.invoice_request", "invoice_request", "kept", ""),
        ("unsent.static_invoice.no-route", "static_invoice", "unsent", "no-route"),
        ("mail.dropped.pushed-out", "mailbox", "dropped", "pushed-out"),
        ("mail.delivered", "mailbox", "delivered", ""),
        ("wake.sent.lsps5.onion_message_incoming", "wake-up", "sent", "lsps5.onion_message_incoming"),
        ("wake.failed.status-5xx", "wake-up", "failed", "status-5xx"),
        ("lsps.refused.1003", "lsps5", "refused", "1003"),
        ("refused.requests", "limit", "refused", "requests"),
        ("something.new", "other", "something.new", ""),
        ("sent", "other", "sent", ""),
        ("received.more", "other", "received.more", ""),
    ],
)
def test_a_counter_is_read_as_what_was_done_with_what(
    slug: str, subject: str, outcome: str, detail: str
) -> None:
    """Every family of slugs; one that nobody knows yet is shown as it is."""
    read = digest.read_counter(slug, 3)
    assert (read.subject, read.outcome, read.detail, read.total) == (subject, outcome, detail, 3)


def test_counters_stand_in_the_order_of_an_invoices_life() -> None:
    """What came in is first, what is not known is last, and what never happened is left out."""
    counts = digest.read_counters(
        {"new": 1, "wake.sent.x": 1, "sent.static_invoice": 2, "passed": 0, "received": 9, "dropped.a": 1}
    )
    assert [count.slug for count in counts] == [
        "received",
        "dropped.a",
        "sent.static_invoice",
        "wake.sent.x",
        "new",
    ]


# --- quantiles ----------------------------------------------------------------------------------

BOUNDS = (1.0, 2.0, 4.0)


def timed(*buckets: int, total: float = 0.0) -> admin_pb2.Seconds:
    """How many took up to 1, 2, 4 s, and longer."""
    return admin_pb2.Seconds(bounds=BOUNDS, buckets=buckets, sum=total)


def test_a_quantile_is_taken_as_evenly_spread_in_its_bucket() -> None:
    """Of ten between 1 and 2 s half took at most 1.5 s."""
    assert digest.quantile(timed(0, 10, 0, 0), 0.5) == Quantile(1.5)
    assert digest.quantile(timed(5, 0, 5, 0), 0.75) == Quantile(3.0)


def test_beyond_the_last_bound_no_time_is_made_up() -> None:
    """It is more than the last bound, and shown so."""
    found = digest.quantile(timed(1, 0, 0, 9), 0.95)
    assert (found, str(found)) == (Quantile(4.0, beyond=True), ">4.0 s")


def test_a_single_time_is_known_and_not_guessed() -> None:
    """Each of its quantiles is what it took, beyond the last bound as well."""
    assert [digest.quantile(timed(0, 1, 0, 0, total=1.2), share) for share in (0.5, 0.99)] == [
        Quantile(1.2),
        Quantile(1.2),
    ]
    assert digest.quantile(timed(0, 0, 0, 1, total=9.0), 0.5) == Quantile(9.0)


@pytest.mark.parametrize(
    ("bounds", "buckets"), [(BOUNDS, (0, 0, 0, 0)), ((), (5,)), (BOUNDS, (1, 2)), ((), ())]
)
def test_of_nothing_there_is_no_quantile(bounds: tuple[float, ...], buckets: tuple[int, ...]) -> None:
    """Nothing was seen, or the server's buckets make no sense."""
    assert digest.quantile(admin_pb2.Seconds(bounds=bounds, buckets=buckets), 0.5) is None


@given(st.lists(st.integers(0, 1_000), min_size=4, max_size=4).filter(any))
def test_a_higher_quantile_is_never_less(buckets: list[int]) -> None:
    """And each is within the bounds."""
    found = [digest.quantile(timed(*buckets), share) for share in (0.01, 0.5, 0.95, 0.99, 1)]
    times = [each.seconds for each in found if each]
    assert len(times) == 5
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= BOUNDS[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.000_34, "340 µs"),
        (0.000_999_9, "1.0 ms"),
        (0.001_23, "1.2 ms"),
        (0.066, "66 ms"),
        (0.999_9, "1.0 s"),
        (8.06, "8.1 s"),
        (119, "119 s"),
        (720, "12 min"),
        (9_000, "2.5 h"),
    ],
)
def test_a_duration_has_few_digits_and_its_unit(seconds: float, text: str) -> None:
    """Short enough for a column."""
    assert digest.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (4.9, "4 s"), (60, "1 min 0 s"), (3_725, "1 h 2 min"), (90_000, "1 d 1 h")],
)
def test_a_time_that_goes_on_is_told_in_two_units(seconds: float, text: str) -> None:
    """A clock that was set back makes it nothing, not less."""
    assert digest.lasted(seconds) == text


# --- rates --------------------------------------------------------------------------------------


def test_a_rate_is_over_the_last_ten_seconds() -> None:
    """What was before does not count any more."""
    history = History()
    for second in range(31):
        # 100 a second at first, 2 a second for the last 15 seconds.
        count = 100 * min(second, 15) + 2 * max(0, second - 15)
        frame = history.add(a_sample(second, a_status({"received": count})))
    assert frame.before is not None
    assert frame.now.at - frame.before.at == digest.WINDOW
    assert frame.rate("received") == 2
    assert frame.rate("never") == 0


def test_of_one_answer_there_is_no_rate() -> None:
    """None, not 0."""
    assert History().add(a_sample(0, a_status({"received": 5}))).rate("received") is None


@pytest.mark.parametrize(
    "again", [a_status({"received": 1}), a_status({"received": 500}, started_at_ms=1_800_000_000_000)]
)
def test_a_server_that_was_started_anew_has_no_past(again: admin_pb2.GetStatusResponse) -> None:
    """It counts from 0: a rate would be less than nothing, or of two servers."""
    history = History()
    history.add(a_sample(0, a_status({"received": 400})))
    assert history.add(a_sample(1, again)).rate("received") is None


# --- clients ------------------------------------------------------------------------------------


def test_clients_stand_by_who_is_refused_now_then_by_who_is_fullest() -> None:
    """Then by what was refused before, then by name."""
    before = (
        a_client("flooded", refused={"requests": 4}),
        a_client("refused-once", 5, refused={"slots": 9}),
    )
    now = (
        a_client("b-idle"),
        a_client("a-idle"),
        a_client("half", 5),
        a_client("refused-once", 5, refused={"slots": 9}),
        a_client("full", bytes_used=131_072),
        a_client("flooded", refused={"requests": 6}),
        a_client("new", 1, refused={"requests": 3}),
    )
    frame = Frame(a_sample(5, None, *now), a_sample(0, None, *before))
    names = [each.name for each in digest.by_use(frame)]
    assert names == ["flooded", "full", "refused-once", "half", "new", "a-idle", "b-idle"]


def test_fullness_is_that_of_the_fullest_limit() -> None:
    """Slots, bytes, or the mailbox, whose limit is that of one of two queues."""
    assert digest.fullness(a_client("a", 3)) == pytest.approx(0.3)
    assert digest.fullness(a_client("a", 3, mail_letters=400)) == 1
    assert digest.fullness(a_client("a", 3, mail_bytes=4_194_304)) == pytest.approx(0.5)


def test_a_limit_that_the_server_does_not_say_is_taken_from_the_clients_own() -> None:
    """And where neither is there, nothing is full."""
    client = admin_pb2.Client(slots_used=2, quota=admin_pb2.Quota(slots=4))
    assert (digest.holds(client, "slots"), digest.fullness(client)) == (4, 0.5)
    assert digest.fullness(admin_pb2.Client(slots_used=2)) == 0
