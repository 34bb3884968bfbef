"""What Prometheus is shown: counters by family and label, vitals, and the seconds of real calls."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import sidecar
from sidecar.adapters import lnd_calls as calls
from sidecar.adapters import pushes, vitals
from sidecar.adapters.lnd import Lnd
from sidecar.adapters.metrics import Facts, SidecarCollector, new_registry
from sidecar.adapters.monitoring import Monitoring
from sidecar.adapters.notifications import SIGNER_AWAY, STORE_AWAY, counted
from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_setup import open_store
from sidecar.adapters.redis_store import RedisStore
from sidecar.adapters.vitals import Census, Condition, Vitals
from sidecar.core.errors import NotLeading, PeerNotConnected, Replayed, StoreUnavailable
from sidecar.core.model import Client, Usage
from sidecar.core.webhooks import ONION_MESSAGE_INCOMING, WEBHOOK_REGISTERED
from sidecar.rpc import lightning_pb2 as ln
from sidecar.timings import Timed, Timings
from tests.adapters.conftest import NODE, SAFE, Servers
from tests.harness.notifying import ALICE, NO, Notifying
from tests.harness.push_service import OK, PushService
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.store_contract import a_client

LABELS = {
    *("type", "outcome", "reason", "event", "method", "limit", "code", "slug", "state", "kind", "call"),
    *("version", "lnd_version", "mode", "network", "le"),
}
"""All labels there are: none says who somebody is."""


def registry_of(counters: Mapping[str, int], timings: Timings | None = None) -> CollectorRegistry:
    """A registry over these counters."""
    return new_registry(SidecarCollector(lambda: Facts({"version": "1"}, counters)), timings or Timings())


def series(registry: CollectorRegistry) -> dict[str, float]:
    """Each series of ours, as it is written, with its value."""
    lines = generate_latest(registry).decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if line.startswith("sidecar_")]
    return {name: float(value) for name, _, value in pairs}


def seconds(timings: Timings) -> dict[str, int]:
    """How often each thing was timed."""
    return {part.name: part.count for part in timings.snapshot()}


# --- counters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "shown"),
    [
        ("received", "sidecar_messages_received_total"),
        ("dropped.bad-onion", 'sidecar_messages_dropped_total{reason="bad-onion"}'),
        ("stored", "sidecar_invoices_stored_total"),
        ("sent.static_invoice", "sidecar_invoices_served_total"),
        (
            "sent.static_invoice",
            'sidecar_messages_out_total{outcome="sent",reason="",type="static_invoice"}',
        ),
        ("kept.message", 'sidecar_messages_out_total{outcome="kept",reason="",type="message"}'),
        ("forwarded", 'sidecar_messages_out_total{outcome="forwarded",reason="",type="message"}'),
        (
            "unsent.offer_paths.no-route",
            'sidecar_messages_out_total{outcome="unsent",reason="no-route",type="offer_paths"}',
        ),
        ("refused.stores", 'sidecar_quota_refusals_total{limit="stores"}'),
        ("mail.arrived", 'sidecar_mail_total{event="arrived"}'),
        ("mail.dropped.pushed-out", 'sidecar_mail_dropped_total{reason="pushed-out"}'),
        ("mail.undelivered.lnd-denied", 'sidecar_mail_undelivered_total{reason="lnd-denied"}'),
        (f"wake.sent.{WEBHOOK_REGISTERED}", f'sidecar_webhook_sent_total{{method="{WEBHOOK_REGISTERED}"}}'),
        ("wake.failed.status-5xx", 'sidecar_webhook_failed_total{reason="status-5xx"}'),
        ("wake.retried.tls", 'sidecar_webhook_retried_total{reason="tls"}'),
        ("wake.dropped.stale", 'sidecar_webhook_dropped_total{reason="stale"}'),
        ("wake.forgotten", "sidecar_webhook_forgotten_total"),
        ("lsps.answered", 'sidecar_lsps_total{event="answered"}'),
        ("lsps.refused.1003", 'sidecar_lsps_refused_total{code="1003"}'),
        ("bound", "sidecar_nodes_bound_total"),
        ("unbound.node-taken", 'sidecar_nodes_unbound_total{reason="node-taken"}'),
        ("something.new", 'sidecar_other_total{slug="something.new"}'),
    ],
)
def test_each_counter_has_its_place(slug: str, shown: str) -> None:
    """A family by its first words, labels by the rest; what is new is not lost either."""
    before, after = (series(registry_of(counters)) for counters in ({}, {slug: 7}))
    assert after[shown] == 7
    assert sum(after.values()) - sum(before.values()) == (14 if slug == "sent.static_invoice" else 7)


def test_nothing_that_the_code_counts_is_without_a_place() -> None:
    """Every slug in the source, with made-up parts: none is left over."""
    sources = [path.read_text() for path in Path(sidecar.__file__).parent.rglob("*.py")]
    written = {slug for text in sources for slug in re.findall(r'counters\[f?"([^"]+)"\]', text)}
    # What becomes of a letter or of a message, in service.py.
    slugs = {re.sub(r"\{[^}]*\(?[^}]*\}", "x", slug) for slug in written if not slug.startswith("{")}
    assert {"received", "dropped.x", "unsent.x.x", "wake.sent.x", "mail.kept"} <= slugs
    shown = series(registry_of(dict.fromkeys(slugs, 1)))
    assert [name for name in shown if name.startswith("sidecar_other_total")] == []


def test_what_is_alerted_on_stands_at_nought_from_the_start() -> None:
    """rate() and increase() see nothing of a series that begins with its first event."""
    shown = series(registry_of({}))
    for reason in ("queue-full", "store-unavailable", "lnd-unavailable", "timeout", "internal-error"):
        assert shown[f'sidecar_messages_dropped_total{{reason="{reason}"}}'] == 0
    assert shown[f'sidecar_webhook_sent_total{{method="{ONION_MESSAGE_INCOMING}"}}'] == 0
    assert shown['sidecar_message_seconds_count{outcome="done",type="invoice_request"}'] == 0


def test_what_a_takeover_counts_stands_at_nought_from_the_start() -> None:
    """It comes in one burst, which rate() would miss."""
    shown = series(registry_of({}))
    for reason in (NotLeading.reason, Replayed.reason, "standby-full"):
        assert shown[f'sidecar_messages_dropped_total{{reason="{reason}"}}'] == 0


def test_each_way_in_which_a_post_fails_stands_at_nought_from_the_start() -> None:
    """Else the first of each kind would be missing in what is alerted on."""
    slugs = re.findall(r', "([a-z-]+)"\)', inspect.getsource(pushes._slug))
    assert {"timeout", "tls", "bad-answer"} <= set(slugs)
    shown = series(registry_of({}))
    others = (pushes.ADDRESS_REFUSED, pushes.BAD_URL, SIGNER_AWAY, STORE_AWAY)
    for slug in (*slugs, *others, counted("status-404"), counted("status-503")):
        assert shown[f'sidecar_webhook_failed_total{{reason="{slug}"}}'] == 0


def test_no_label_says_who_somebody_is() -> None:
    """All labels are in a short list, and the histograms' values are as few as the calls of LND."""
    timings = Timings()
    timings.observe(Timed.LND, 1, "GetInfo")
    counters = dict.fromkeys(("unsent.lsps.timeout", "lsps.refused.1", "unbound.x", "another"), 1)
    shown = series(registry_of(counters, timings))
    assert {label for name in shown for label in re.findall(r'(\w+)="', name)} <= LABELS


def test_gauges_show_the_moment() -> None:
    """Booleans as 1 and 0; ready is both."""
    census = Census({"active": 2, "paused": 1}, slots=3, bytes=900, slots_allowed=30, bytes_allowed=9_000)
    facts = Facts(
        {"version": "1.2", "mode": "native"},
        leads=True,
        stream_up=True,
        redis_up=False,
        queued=4,
        queue_size=1_000,
        census=census,
        mail_letters=5,
        mail_bytes=600,
        mail_bytes_allowed=7_000,
    )
    shown = series(new_registry(SidecarCollector(lambda: facts), Timings()))
    wanted = {
        'sidecar_build_info{mode="native",version="1.2"}': 1,
        "sidecar_leads": 1,
        "sidecar_stream_up": 1,
        "sidecar_redis_up": 0,
        "sidecar_ready": 0,
        "sidecar_queue_messages": 4,
        "sidecar_queue_size": 1_000,
        'sidecar_clients{state="active"}': 2,
        'sidecar_clients{state="paused"}': 1,
        "sidecar_slots_used": 3,
        "sidecar_slots_allowed": 30,
        "sidecar_bytes_used": 900,
        "sidecar_bytes_allowed": 9_000,
        "sidecar_mail_letters": 5,
        "sidecar_mail_bytes": 600,
        "sidecar_mail_bytes_allowed": 7_000,
    }
    assert {name: shown[name] for name in wanted} == wanted
    assert series(registry_of({}))["sidecar_leads"] == 0


def test_the_process_is_shown_too_and_nothing_twice() -> None:
    """The library's own metrics; when a histogram began says nothing that the process does not."""
    text = generate_latest(registry_of({})).decode()
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text


# --- vitals -------------------------------------------------------------------------------------


class Watched:
    """A store that may be away; it writes down how often it is asked."""

    def __init__(self, clients: Sequence[tuple[Client, Usage]] = ()) -> None:
        self.away = self.stuck = False
        self.clients = clients
        self.probes = 0

    async def probe(self) -> None:
        """As RedisStore."""
        self.probes += 1
        if self.stuck:
            await asyncio.Event().wait()
        if self.away:
            raise StoreUnavailable("away")

    async def each_client(self) -> AsyncIterator[tuple[Client, Usage]]:
        """As RedisStore."""
        if self.away:
            raise StoreUnavailable("away")
        for each in self.clients:
            yield each


async def test_it_is_ready_when_lnd_streams_and_redis_keeps_changes() -> None:
    """Each condition says which it is, and holds for itself."""
    store, up = Watched(), [False]
    looked = Vitals(store, stream_up=lambda: up[0], allowed=lambda _: (0, 0))
    assert looked.conditions() == (
        Condition(holds=False, text="LND does not stream onion messages"),
        Condition(holds=False, text="Redis does not keep changes"),
    )
    await looked.look()
    assert [each.holds for each in looked.conditions()] == [False, True]
    up[0] = True
    assert looked.ready
    store.away = True
    await looked.look()
    assert [each.holds for each in looked.conditions()] == [True, False]
    assert not looked.ready


async def test_a_redis_that_does_not_answer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: readiness does not wait for it."""
    monkeypatch.setattr(vitals, "PATIENCE", 0.01)
    store = Watched()
    looked = Vitals(store, stream_up=lambda: True, allowed=lambda _: (0, 0))
    await looked.look()
    assert looked.redis_up
    store.stuck = True
    await looked.look()
    assert not looked.redis_up


async def test_asking_costs_the_store_nothing() -> None:
    """Conditions are those of the last look, however often they are asked for."""
    store = Watched()
    looked = Vitals(store, stream_up=lambda: True, allowed=lambda _: (0, 0))
    await looked.look()
    for _ in range(100):
        assert looked.ready
    assert store.probes == 1


async def test_who_asks_for_a_status_gets_a_fresh_count_that_costs_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not more than once a second, and not where it takes long: then the background's has to do."""
    store = Watched()
    looked = Vitals(store, stream_up=lambda: True, allowed=lambda _: (0, 0))
    await looked.recount()
    store.clients = [(a_client(), Usage(slots=1, bytes=2))]
    await looked.recount()
    assert not looked.census.clients
    monkeypatch.setattr(vitals, "FRESH", 0)
    monkeypatch.setattr(vitals, "QUICK", -1)
    await looked.recount()
    assert not looked.census.clients
    monkeypatch.setattr(vitals, "QUICK", 1)
    await looked.recount()
    assert looked.census.clients == {"active": 1}


async def test_before_lnd_is_met_it_lives_and_is_not_ready() -> None:
    """Probes are answered from the start, and the alerts' metrics are there."""
    monitoring = Monitoring("1.2")
    assert [each.holds for each in monitoring._http.conditions()] == [False]
    shown = series(monitoring._http.registry)
    assert (shown["sidecar_ready"], shown["sidecar_stream_up"]) == (0, 0)
    looked = Vitals(Watched(), stream_up=lambda: True, allowed=lambda _: (0, 0))
    await looked.look()
    monitoring.follow(looked, lambda: Facts({}, stream_up=True, redis_up=True))
    assert [each.holds for each in monitoring._http.conditions()] == [True, True]
    assert series(monitoring._http.registry)["sidecar_ready"] == 1


# --- real parts ---------------------------------------------------------------------------------


async def test_a_real_redis_is_seen_to_go_away(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore]
) -> None:
    """Its end is seen by the next look; what was counted before stands."""
    server = servers.start(old_redis, *SAFE)
    looked = Vitals(store_on(server), stream_up=lambda: True, allowed=lambda _: (10, 1_000))
    await looked.look()
    await looked.count()
    assert looked.ready
    server.stop()
    await looked.look()
    await looked.count()
    assert not looked.redis_up
    assert looked.census == Census()


async def test_a_redis_that_may_not_be_written_is_not_up(
    servers: Servers, old_redis: Path, store_on: Callable[..., RedisStore]
) -> None:
    """A replica answers every PING, and keeps nothing."""
    server = servers.start(old_redis, *SAFE)
    looked = Vitals(store_on(server), stream_up=lambda: True, allowed=lambda _: (0, 0))
    await looked.look()
    assert looked.redis_up
    server.command("REPLICAOF", "127.0.0.1", "1")
    await looked.look()
    assert not looked.redis_up


async def test_reads_and_changes_of_redis_are_timed(servers: Servers, old_redis: Path) -> None:
    """Apart: changes wait for the disk."""
    server = servers.start(old_redis, *SAFE)
    timings = Timings()
    store = RedisStore(connect_socket(server.socket), NODE, waitaof=False, timings=timings)
    await store.probe()
    await store.list_clients()
    assert seconds(timings) == {"store.change": 1, "store.read": 1}
    server.stop()
    with pytest.raises(StoreUnavailable):
        await store.probe()
    await store.close()
    shown = series(registry_of({}, timings))
    assert shown['sidecar_store_seconds_count{kind="change",outcome="failed"}'] == 1


async def test_the_embedded_redis_is_timed_too(tmp_path: Path) -> None:
    """open_store hands its timings on."""
    timings = Timings()
    store = await open_store(None, tmp_path / "data", NODE, "strict", timings)
    try:
        before = seconds(timings)["store.change"]
        await store.probe()
        assert seconds(timings)["store.change"] == before + 1
    finally:
        await store.close()


async def test_calls_of_lnd_are_timed_by_name_and_outcome(tmp_path: Path) -> None:
    """An error that LND answers with is a failed call."""
    timings = Timings()
    async with SimulatedLnd(tmp_path / "lnd") as sim:
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path, timings)
        await lnd.call(calls.GET_INFO, ln.GetInfoRequest())
        request = ln.SendCustomMessageRequest(peer=NODE, type=40_001, data=b"x")
        with pytest.raises(PeerNotConnected):
            await lnd.call(calls.SEND_CUSTOM, request, failed=PeerNotConnected)
        await lnd.aclose()
    shown = series(registry_of({}, timings))
    assert shown['sidecar_lnd_call_seconds_count{call="GetInfo",outcome="done"}'] == 1
    assert shown['sidecar_lnd_call_seconds_count{call="SendCustomMessage",outcome="failed"}'] == 1


async def test_from_the_first_wake_up_to_the_connection_is_timed(
    notifying: Notifying, service: PushService
) -> None:
    """A second wake-up changes nothing, a second connection neither; webhook_registered wakes nobody."""
    await notifying.register(service.url(), announced=False)
    for _ in range(2):  # the first time webhook_registered goes ahead
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await service.next()
        await notifying.quiet()
        notifying.clock.ms += 130_000
    await notifying.quiet()
    for _ in range(2):
        notifying.bell.connected(ALICE)
    (connect,) = [part for part in notifying.timings.snapshot() if part.name == "connect"]
    assert (connect.count, connect.total) == (1, 260)
    assert seconds(notifying.timings)["webhook"] == 3


async def test_a_wallet_may_come_before_its_push_service_answers(
    notifying: Notifying, service: PushService
) -> None:
    """The time begins when the POST goes out: else that wallet's next visit would count as an answer."""
    await notifying.register(service.url())

    async def wakes_first(writer: asyncio.StreamWriter) -> None:
        notifying.clock.ms += 2_000
        notifying.bell.connected(ALICE)
        await OK(writer)

    service.behaviour = wakes_first
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await service.next()
    await notifying.quiet()
    notifying.clock.ms += 1_000_000
    notifying.bell.connected(ALICE)
    (connect,) = [part for part in notifying.timings.snapshot() if part.name == "connect"]
    assert (connect.count, connect.total) == (1, 2)


async def test_a_wake_up_that_failed_wakes_nobody(notifying: Notifying, service: PushService) -> None:
    """A node that comes by itself later has not answered it."""
    service.behaviour = NO
    await notifying.register(service.url())
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    notifying.bell.connected(ALICE)
    assert seconds(notifying.timings) == {"webhook": 3}
    shown = series(registry_of({}, notifying.timings))
    assert shown['sidecar_webhook_post_seconds_count{outcome="failed"}'] == 3
