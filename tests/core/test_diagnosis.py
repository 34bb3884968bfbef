"""What `sidecar doctor` makes of facts: each rule at its edges."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.core import diagnosis, diagnosis_lnd, diagnosis_server
from sidecar.core.diagnosis import DirectoryFact, FileFact, Finding, Level, RedisFacts
from sidecar.core.diagnosis_lnd import Line, ReachFacts, Wallet
from sidecar.core.diagnosis_server import Answer, ServerFacts
from sidecar.core.model import Role

OK, INFO, WARNING, FAILURE = Level.OK, Level.INFO, Level.WARNING, Level.FAILURE
DAY = 86_400
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("levels", "worst"),
    [
        ([], OK),
        ([OK, INFO], OK),
        ([OK, WARNING, INFO], WARNING),
        ([WARNING, FAILURE, OK], FAILURE),
    ],
)
def test_the_worst_level_counts(levels: list[Level], worst: Level) -> None:
    """What can't be seen from here is no fault."""
    assert diagnosis.worst(Finding("", level, "") for level in levels) is worst


# --- the machine ------------------------------------------------------------------------------------


def test_a_secret_that_everybody_can_read_is_a_warning() -> None:
    """One that can't be read is a failure; each is named."""
    good = FileFact("the macaroon", "/m")
    assert [each.level for each in diagnosis.files([good])] == [OK]
    found = diagnosis.files([good, replace(good, path="/n", others_read=True), replace(good, error="gone")])
    assert [(each.level, each.name) for each in found] == [(FAILURE, "files"), (WARNING, "files")]
    assert "the macaroon /m can't be read (gone)" in found[0].seen
    assert found[1].advice == "run `chmod o-rwx /n`"


@pytest.mark.parametrize(
    ("fact", "level"),
    [
        (DirectoryFact("/d", there=True), OK),
        (DirectoryFact("/d", there=False), INFO),
        (DirectoryFact("/d", there=True, others_enter=True), WARNING),
        (DirectoryFact("/d", there=True, error="no permission to write"), FAILURE),
    ],
)
def test_the_data_directory_is_its_owners(fact: DirectoryFact, level: Level) -> None:
    """And one that is not there yet is made at the start."""
    assert diagnosis.directory(fact).level is level


@pytest.mark.parametrize(
    ("free", "level"),
    [((1 << 30), OK), ((1 << 30) - 1, WARNING), (100 << 20, WARNING), ((100 << 20) - 1, FAILURE)],
)
def test_a_full_disk_is_told_before_it_is_full(free: int, level: Level) -> None:
    """A warning below 1 GB, a failure below 100 MB."""
    assert diagnosis.disk("Redis", free).level is level


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (0, OK),
        (600, OK),
        (601, WARNING),
        (7_200, WARNING),
        (7_201, FAILURE),
        (-7_200, OK),
        (-7_201, WARNING),
    ],
)
def test_the_clock_is_held_against_the_best_block(ahead: int, level: Level) -> None:
    """No node takes a block that is two hours ahead: then it is this clock that is behind."""
    assert diagnosis.clock_by_block(int(NOW) + ahead, NOW).level is level


@pytest.mark.parametrize(("ahead", "level"), [(0, OK), (2, OK), (-2, OK), (2.1, WARNING), (-2.1, WARNING)])
def test_the_clock_is_held_against_rediss(ahead: float, level: Level) -> None:
    """Two seconds are let be."""
    assert diagnosis.clock_by_redis(ahead).level is level


def test_a_clock_of_rediss_is_said_to_be_ahead_or_behind() -> None:
    """As it is."""
    assert "3 seconds ahead of" in diagnosis.clock_by_redis(3).seen
    assert "5 minutes behind" in diagnosis.clock_by_redis(-300).seen


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1_023, "1023 bytes"), (1_536, "1.5 kB"), (3 << 20, "3.0 MB"), (5 << 30, "5.0 GB")],
)
def test_a_size_is_said_in_one_unit(count: int, words: str) -> None:
    """The largest that fits."""
    assert diagnosis.size(count) == words


# --- Redis ------------------------------------------------------------------------------------------

REDIS = RedisFacts("redis 7.2 at here (AOF always)", refused=False, used_memory=10 << 20)


def levels(findings: list[Finding]) -> dict[str, Level]:
    """Each line's level."""
    return {each.name: each.level for each in findings}


def test_a_good_redis_is_good() -> None:
    """All its lines; replicas do no harm."""
    found = diagnosis.redis(replace(REDIS, replicas=2))
    assert set(levels(found).values()) == {OK}
    assert [each.name for each in found] == ["redis", "redis.memory", "redis.persistence", "clock.redis"]
    assert "2 replicas" in found[0].seen


def test_a_redis_that_is_refused_is_a_failure() -> None:
    """Its refusal is split into what was seen and what to do."""
    (found,) = diagnosis.redis(RedisFacts("redis 7 at h:6379 may evict: run `CONFIG SET …`", refused=True))
    assert found == Finding("redis", FAILURE, "redis 7 at h:6379 may evict", "run `CONFIG SET …`")


@pytest.mark.parametrize(
    ("used", "most", "machine", "level"),
    [
        (79, 100, 1, OK),
        (80, 100, 1, WARNING),
        (94, 100, 1_000, WARNING),
        (95, 100, 1_000, FAILURE),
        (95, 0, 100, FAILURE),
        (80, 0, 100, WARNING),
        (79, 0, 100, OK),
        (79, 0, 0, OK),
    ],
)
def test_memory_that_runs_out_is_told_before(used: int, most: int, machine: int, level: Level) -> None:
    """Of maxmemory, or of the machine where there is none."""
    facts = replace(REDIS, used_memory=used, max_memory=most, machine_memory=machine)
    found = diagnosis.redis(facts)[1]
    assert found.level is level
    if level is not OK:
        assert ("maxmemory" in found.advice) == (most > 0)


@pytest.mark.parametrize(
    ("name", "level"),
    [("aof_write_failed", FAILURE), ("snapshot_failed", FAILURE), ("aof_rewrite_failed", WARNING)],
)
def test_writes_that_fail_are_told(name: str, level: Level) -> None:
    """With where to look."""
    changed: dict[str, Any] = {name: True}
    found = diagnosis.redis(replace(REDIS, **changed))[2]
    assert found.level is level
    assert "CONFIG GET dir" in found.advice


# --- egress -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", diagnosis.EGRESS_ADVICE)
def test_each_way_to_fail_has_its_advice(slug: str) -> None:
    """A connection that stands has none."""
    found = diagnosis.egress("push.example.com:443", slug)
    assert (found.level, found.advice) == (FAILURE, diagnosis.EGRESS_ADVICE[slug])
    assert diagnosis.egress("push.example.com:443", None).level is OK


# --- LND --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [line for line in Line if line is not Line.GOOD])
def test_each_way_not_to_reach_lnd_has_its_advice(line: Line) -> None:
    """And is the only line."""
    (found,) = diagnosis_lnd.reach(ReachFacts("h:10009", line), NOW)
    assert found.level is FAILURE
    assert found.seen.startswith("h:10009: ")
    assert found.advice


@pytest.mark.parametrize("wallet", [wallet for wallet in Wallet if wallet is not Wallet.ACTIVE])
def test_each_state_but_active_is_a_failure(wallet: Wallet) -> None:
    """With what to do."""
    found = diagnosis_lnd.reach(ReachFacts("h:10009", Line.GOOD, wallet), NOW)[-1]
    assert found.level is FAILURE
    assert found.advice


@pytest.mark.parametrize(("days", "level"), [(14, OK), (13.9, WARNING)])
def test_a_certificate_is_told_two_weeks_before_it_ends(days: float, level: Level) -> None:
    """Not known is no line."""
    ends = int(NOW + days * DAY)
    facts = ReachFacts("h:10009", Line.GOOD, Wallet.ACTIVE, ends)
    assert levels(diagnosis_lnd.reach(facts, NOW)) == {"lnd": OK, "lnd.certificate": level}
    assert levels(diagnosis_lnd.reach(replace(facts, certificate_ends=0), NOW)) == {"lnd": OK}


def test_only_the_protocol_options_of_an_lnd_conf_are_read() -> None:
    """Comments, sections and secrets are left where they are; an option may be there twice."""
    text = """
        [Application Options]
        rpcuser=me
        bitcoind.rpcpass=protocol.secret=1
        ; protocol.no-onion-messages=true
        # protocol.no-onion-messages=true
        protocol.custom-init=39
        protocol.custom-init = 729
        protocol.onion-msg-relay-all
        protocol.zero-conf="true"
    """
    assert diagnosis_lnd.read_conf(text) == {
        "protocol.custom-init": ["39", "729"],
        "protocol.onion-msg-relay-all": ["true"],
        "protocol.zero-conf": ["true"],
    }


def test_messages_that_arrived_prove_custom_mode() -> None:
    """Whatever lnd.conf says: options may be flags too."""
    facts = diagnosis_lnd.NodeFacts(
        version="0.20.3",
        native=False,
        network="mainnet",
        node_id="02",
        synced_to_chain=True,
        synced_to_graph=True,
        best_block=0,
        features=frozenset({39}),
        addresses=0,
        public=0,
        hidden=0,
    )
    found = diagnosis_lnd.by_hand(facts, {}, 1)
    assert levels(found)["lnd.custom-message"] is OK
    assert levels(diagnosis_lnd.by_hand(facts, {}, 0))["lnd.custom-message"] is FAILURE


@pytest.mark.parametrize(
    ("burst", "kbps", "level"),
    [
        ("524288", None, OK),
        ("524287", None, WARNING),
        ("0", "0", OK),
        ("0", None, WARNING),
        ("x", "0", WARNING),
    ],
)
def test_the_burst_must_hold_a_wallets_invoices(burst: str, kbps: str | None, level: Level) -> None:
    """Both at 0 is no limit at all."""
    conf = {"protocol.onion-msg-peer-burst-bytes": [burst]}
    if kbps is not None:
        conf["protocol.onion-msg-peer-kbps"] = [kbps]
    facts = diagnosis_lnd.NodeFacts("0.21", True, "", "", True, True, 0, frozenset(), 0, 0, 0)
    assert levels(diagnosis_lnd.by_hand(facts, conf, 0))["lnd.burst"] is level


# --- the running server -----------------------------------------------------------------------------

RUNNING = ServerFacts(Answer.RUNNING, version="1", stream_up=True)


def server(facts: ServerFacts) -> dict[str, Finding]:
    """Its lines, by name."""
    return {each.name: each for each in diagnosis_server.server(facts, "1")}


@pytest.mark.parametrize(
    ("answer", "level", "advice"),
    [
        (Answer.ABSENT, WARNING, "sidecar serve"),
        (Answer.DENIED, FAILURE, "its log"),
        (Answer.SILENT, FAILURE, "restart it"),
    ],
)
def test_a_server_that_tells_nothing_has_one_line(answer: Answer, level: Level, advice: str) -> None:
    """One that does not run is no failure: perhaps nobody has started it yet."""
    found = server(ServerFacts(answer, "why"))
    assert list(found) == ["server"]
    assert found["server"].level is level
    assert advice in found["server"].advice


@pytest.mark.parametrize(
    ("role", "leader", "level", "seen"),
    [
        (Role.LEADS, "left", OK, "it leads, as left"),
        (Role.LEADS, "", OK, "it leads"),
        (Role.STANDS_BY, "left", OK, "it stands by: left leads, and takes changes"),
        (Role.STANDS_BY, "", WARNING, "it stands by, and knows of no other that leads"),
    ],
)
def test_who_leads_is_told(role: Role, leader: str, level: Level, seen: str) -> None:
    """Of several sidecars beside one LND; that nobody does is worth a word."""
    found = server(replace(RUNNING, role=role.value, leader=leader))["server.role"]
    assert (found.level, found.seen) == (level, seen)
    assert bool(found.advice) is (level is WARNING)


def test_of_a_server_that_knows_no_roles_nothing_is_told() -> None:
    """It is of an earlier version, and serves."""
    assert "server.role" not in server(RUNNING)


def test_what_a_refusal_says_to_do_is_the_advice() -> None:
    """A token that is lacking is no matter of users, nor of the server's log."""
    found = server(ServerFacts(Answer.DENIED, "this call needs the token", "give the file"))["server"]
    assert (found.seen, found.advice) == ("this call needs the token", "give the file")


def test_a_server_elsewhere_that_tells_nothing_is_a_failure() -> None:
    """It may be out of reach: starting one here would not help. The line says which it is, once."""
    for text in ("no answer", "no answer from 192.0.2.1:443"):
        found = diagnosis_server.unreached("192.0.2.1:443", text, "")
        assert found.level is FAILURE
        assert found.seen.count("192.0.2.1:443") == 1
        assert "admin.listen" in found.advice
    assert diagnosis_server.unreached("192.0.2.1:443", "no token", "give the file").advice == "give the file"


@pytest.mark.parametrize(("version", "level"), [("1", OK), ("0.9", WARNING)])
def test_of_a_server_elsewhere_address_and_version_are_shown(version: str, level: Level) -> None:
    """Of the same version as this command or not."""
    found = diagnosis_server.elsewhere("192.0.2.1:443", version, "1")
    assert found.level is level
    assert found.seen.startswith(f"192.0.2.1:443 (admin.address) answers, version {version}")


def test_a_server_that_looks_at_itself_does_not_tell_its_version() -> None:
    """Whoever asked knows it, and compares it."""
    names = [each.name for each in diagnosis_server.server(RUNNING, None)]
    assert names == ["server.stream", "server.losses", "webhooks"]
    # What keeps it from answering is told all the same.
    assert [each.name for each in diagnosis_server.server(ServerFacts(Answer.SILENT), None)] == ["server"]


def test_a_good_server_is_good() -> None:
    """What its limits and its senders' faults cost is no loss."""
    counters = {"dropped.rate-limited": 5, "dropped.bad-context": 9, "received": 20}
    found = server(replace(RUNNING, counters=counters, outcomes={"ok": 3}))
    assert {each.level for each in found.values()} == {OK}
    assert "3 webhooks" in found["webhooks"].seen


def test_another_version_a_dead_stream_and_a_long_queue_are_told() -> None:
    """Each on its line."""
    assert server(replace(RUNNING, version="0.9"))["server"].level is WARNING
    assert server(replace(RUNNING, stream_up=False))["server.stream"].level is FAILURE
    assert server(replace(RUNNING, queued=501))["server.stream"].level is WARNING
    assert server(replace(RUNNING, queued=500))["server.stream"].level is OK


@pytest.mark.parametrize(
    ("slug", "reason"),
    [
        ("dropped.queue-full", "queue-full"),
        ("dropped.store-unavailable", "store-unavailable"),
        ("mail.dropped.pushed-out", "pushed-out"),
        ("mail.dropped.memory-full", "memory-full"),
        ("dropped.internal-error", "internal-error"),
    ],
)
def test_messages_that_were_lost_are_told_by_reason(slug: str, reason: str) -> None:
    """With what to do about it."""
    found = server(replace(RUNNING, counters={slug: 7}))["server.losses"]
    assert (found.level, found.seen) == (WARNING, f"{reason}: 7 messages lost since its start")
    assert found.advice


def test_notifications_that_do_not_arrive_are_told_by_the_commonest_reason() -> None:
    """Statuses of a kind are one reason."""
    outcomes = {"ok": 9, "timeout": 2, "status-404": 2, "status-410": 1}
    found = server(replace(RUNNING, outcomes=outcomes, resting=1))["webhooks"]
    assert found.level is WARNING
    assert "status-4xx (3), timeout (2); 1 rest" in found.seen
    assert found.advice.startswith("status-4xx: ")


def test_counts_stand_in_where_no_delivery_is_on_record() -> None:
    """They tell of all since the start."""
    found = server(replace(RUNNING, counters={"wake.failed.no-such-host": 4, "wake.failed.tls": 1}))
    assert "5 notifications" in found["webhooks"].seen
    assert "names" in found["webhooks"].advice


def test_webhooks_that_were_never_used_are_no_fault() -> None:
    """And none at all is neither."""
    assert server(replace(RUNNING, webhooks=2))["webhooks"].level is INFO
    assert server(RUNNING)["webhooks"].level is INFO
