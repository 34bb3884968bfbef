"""docs/scaling.md: its bounds are the code's, and its arithmetic is right."""

from __future__ import annotations

import re

import pytest

from sidecar import (
    again,
    allowances,
    bindings,
    courier,
    deliveries,
    lsps,
    pending,
    problems,
    service,
    standby,
)
from sidecar.adapters import (
    admin_backup,
    admin_server,
    graph,
    guard,
    http_server,
    peers,
    redis_connect,
    redis_setup,
    redis_slots,
    redis_webhooks,
    streams,
    webhooks,
)
from sidecar.core import mailbox, onion, turns, watch
from sidecar.peeler import MOST_DATA
from sidecar.settings import Settings
from tests.docs_reader import ROOT

TEXT = (ROOT / "docs" / "scaling.md").read_text()
_POSTS = webhooks.WebhookSettings()
BOUNDS = {
    "onion messages that wait": (streams.QUEUE_SIZE,),
    "onion messages in work": (service.MAX_AT_ONCE, service.MESSAGE_TIMEOUT),
    "messages that are held": (standby.HELD_BYTES >> 20,),
    "slots as they were": (again.SLOTS,),
    "marks of": (standby.MOST_MARKS,),
    "LSPS messages that wait": (peers._MESSAGES,),
    "LSPS peers in work": (lsps.MAX_AT_ONCE, lsps.MAX_WAITING),
    "changes of connections": (peers._EVENTS,),
    "letters handed over on one": (watch.MOST_SENT,),
    "letters that were handed over before": (turns.MOST,),
    "paths that were looked into": (MOST_DATA, 20_000),
    "refusals by client": (allowances._COUNTED, bindings._COMPLAINTS),
    "letters in memory": (pending.MEMORY_BYTES >> 20,),
    "mailboxes that are handed over": (deliveries.AT_ONCE,),
    "mailboxes' sizes": (mailbox._GONE,),
    "wake-ups that wait": (_POSTS.queue, _POSTS.host_queue),
    "POSTs under way": (guard.ANSWER_ROOM >> 10, _POSTS.concurrency, _POSTS.slow),
    "names that are looked up": (guard.MAX_LOOKUPS, guard.MAX_LOOKUPS_A_NAME),
    "channels of others": (graph._EDGES, graph._MISSES, graph._NEIGHBOURS),
    "long answers": (graph._LONG_ANSWERS,),
    "Redis connections": (redis_connect.MAX_CONNECTIONS, redis_setup.WRITERS, round(redis_connect.TIMEOUT)),
    "admin connections": (admin_server.MAX_CONNECTIONS, admin_server.MAX_CALLS, admin_server.IDLE),
    "one admin message": (admin_backup.PART >> 10,),
    "probes' connections": (http_server.MAX_CONNECTIONS, http_server.MAX_LINE, http_server.MAX_HEADERS),
    "problems in": (problems.MOST,),
    "one onion message": (onion.LARGE_PACKET, courier.MAX_HOPS),
    "a stored invoice": (redis_slots.MOST_BYTES >> 20,),
    "In Redis": (redis_webhooks.DELIVERIES,),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_every_bound_is_the_codes(what: str) -> None:
    """In the row that begins so, as a number of its own."""
    (row,) = re.findall(rf"^(?:\| )?{re.escape(what)}.*(?:\n[^|\n].*)*", TEXT, re.MULTILINE)
    for bound in BOUNDS[what]:
        assert re.search(rf"(?<!\d)(?<!\d,){bound:,}(?!,?\d)", row), (bound, row)


def _of(heading: str) -> tuple[float, float]:
    """The figures of a row for 10⁵ and 10⁶ wallets."""
    (row,) = (line for line in TEXT.splitlines() if line.startswith(f"| {heading}"))
    few, many = (float(re.findall(r"[\d,.]+", cell)[-1].replace(",", "")) for cell in row.split("|")[2:4])
    return few, many


def test_the_arithmetic_is_right() -> None:
    """From the assumptions that the text makes, for 10⁵ and 10⁶ wallets."""
    small, large = onion.SMALL_PACKET + 37, onion.LARGE_PACKET + 37
    assert f"{small:,} bytes" in TEXT
    assert f"{large:,}" in TEXT
    assert f"{5_120_000 // 8 // small} small messages" in TEXT
    assert f"{5_120_000 // 8 // large} large" in TEXT
    total_gb = Settings().mailbox.total_bytes / 1e9
    assert f"{total_gb:.2f} GB" in TEXT
    for place, wallets in enumerate((10**5, 10**6)):
        online, payments = wallets / 20, wallets * 5 / 86_400
        renewals = online / 7_200
        letters = wallets / 86_400 * (onion.LARGE_PACKET + onion.SMALL_PACKET + 2 * 99)
        worked_out = {
            "online at once": online,
            "renewals in": renewals,
            "payments in": payments,
            "messages in": renewals + 4 * payments,
            "bits in": 8e-6 * (renewals * large + payments * (2 * large + 2 * small)),
            "LND |": 1e-3 * (payments * (7.2 + 3 * 6.1) + renewals * 7.2),
            "the sidecar (3.5": 1e-3 * (3.5 * (renewals + 4 * payments) + 2 * payments),
            "wake-ups in": payments,
            "changes in Redis": renewals + 2 * payments,
            "connections of payers": 20 * payments,
            "invoices in Redis": 2_196 * wallets / 1e9,
            "letters, where": letters * 3_600 / 1e9,
            "written to it": (letters + renewals * 1_930) * 86_400 / 1e9,
        }
        for heading, figure in worked_out.items():
            assert _of(heading)[place] == pytest.approx(figure, rel=0.12), (heading, wallets, figure)
