"""Wallets register their webhooks over LSPS5."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import sidecar.lsps
from sidecar.core.errors import (
    BadWebhook,
    LndUnavailable,
)
from sidecar.core.limits import Rate
from sidecar.lsps import MAX_AT_ONCE, MAX_WAITING, PEER_RATE
from tests.harness.lsps_world import (
    TOKEN,
    URL,
    Lsps,
    node,
    request,
)

# --- peers --------------------------------------------------------------------------------------


async def test_a_wallet_registers_lists_and_removes_its_webhooks() -> None:
    """The four methods, one after the other, each with the result of the bLIPs."""
    async with Lsps() as lsps:
        wallet, other = lsps.wallet(), lsps.wallet()
        assert await lsps.call(wallet, "lsps0.list_protocols") == {"protocols": [5]}
        assert await lsps.set(wallet, "b") == {"num_webhooks": 1, "max_webhooks": 10, "no_change": False}
        assert await lsps.set(wallet, "a") == {"num_webhooks": 2, "max_webhooks": 10, "no_change": False}
        assert await lsps.set(wallet, "a") == {"num_webhooks": 2, "max_webhooks": 10, "no_change": True}
        assert await lsps.set(wallet, "a", URL + "2") == {
            "num_webhooks": 2,
            "max_webhooks": 10,
            "no_change": False,
        }
        assert await lsps.call(wallet, "lsps5.list_webhooks") == {"app_names": ["a", "b"], "max_webhooks": 10}
        assert await lsps.call(other, "lsps5.list_webhooks") == {"app_names": [], "max_webhooks": 10}
        assert await lsps.call(wallet, "lsps5.remove_webhook", {"app_name": "a"}) == {}
        assert await lsps.call(wallet, "lsps5.list_webhooks") == {"app_names": ["b"], "max_webhooks": 10}
        assert lsps.counters["lsps.received"] == lsps.counters["lsps.answered"] == 9


async def test_only_the_webhook_that_is_new_or_changed_is_announced() -> None:
    """Where `no_change` is true, nothing is sent; else webhook_registered, "and only to that webhook"."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        for name, url in (("a", URL), ("b", URL), ("a", URL), ("b", URL + "2")):
            await lsps.set(wallet, name, url)
        assert lsps.announced.made == [(wallet, "a"), (wallet, "b"), (wallet, "b")]
        assert [webhook.url for webhook in await lsps.store.webhooks(wallet)] == [URL, URL + "2"]
        assert {webhook.registered_at for webhook in await lsps.store.webhooks(wallet)} == {
            lsps.clock.ms // 1000
        }


async def test_a_webhook_is_kept_before_the_answer_is_sent() -> None:
    """It "MUST persist the given webhook [...] before responding to this call", and before announcing it."""
    async with Lsps() as lsps:
        wallet, other = lsps.wallet(), lsps.wallet()
        lsps.store.ready.clear()
        lsps.transport.arrive(wallet, request("lsps5.set_webhook", {"app_name": "a", "webhook": URL}))
        await lsps.store.asked.wait()
        # Another's request comes later and is answered: so the first had its time.
        lsps.transport.arrive(other, request("lsps0.list_protocols"))
        await lsps.transport.answered[other].wait()
        assert wallet not in lsps.transport.sent
        assert lsps.announced.made == []
        lsps.store.ready.set()
        await lsps.settled()
        assert lsps.transport.sent[wallet][0]["result"]["num_webhooks"] == 1
        assert lsps.announced.made == [(wallet, "a")]


async def test_the_eleventh_webhook_is_refused_and_nothing_changes() -> None:
    """too_many_webhooks with `max_webhooks`; a name that is there may still be given a new URL."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        for number in range(10):
            assert (await lsps.set(wallet, f"app {number}"))["num_webhooks"] == number + 1
        error = await lsps.set(wallet, "app 10")
        assert (error["code"], error["data"]) == (503, {"max_webhooks": 10})
        assert (await lsps.set(wallet, "app 3", URL + "2"))["no_change"] is False
        assert len(lsps.announced.made) == 11
        assert lsps.store.names(wallet) == [f"app {number}" for number in range(10)]
        assert lsps.counters["lsps.refused.503"] == 1


@pytest.mark.parametrize(
    ("name", "url", "code"),
    [
        ("a" * 64, "https://h.example/" + "a" * 1006, None),
        ("é" * 32, URL, None),
        ("", URL, None),
        ("a" * 65, URL, 500),
        ("é" * 32 + "a", URL, 500),
        ("\n" * 33, URL, 500),
        ("a", "https://h.example/" + "a" * 1007, 500),
        ("a", "no URL", 501),
        ("a", "https://user@push.example.org/", 501),
        ("a", "https://push.example.org:0/", 501),
        ("a", "https://push.example.org:65536/", 501),
        ("a", "https://push.example.org/\r\nx-lsps5-signature: a", 501),
        ("a", "http://push.example.org/", 502),
        ("a", "https://push.example.org:80/", 502),
    ],
)
async def test_limits_are_kept_at_their_edges(name: str, url: str, code: int | None) -> None:
    """64 and 65 bytes, 1,024 and 1,025 characters, and what is no https URL, by their codes."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        answer = await lsps.set(wallet, name, url)
        assert answer.get("code") == code
        assert lsps.store.names(wallet) == ([name] if code is None else [])
        assert len(lsps.announced.made) == (code is None)


async def test_a_name_is_measured_as_it_was_written() -> None:
    r"""Eleven letters written as `\u0061` are 66 bytes, and ten are 60."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        for count, kept in ((11, False), (10, True)):
            payload = request("lsps5.set_webhook", {"app_name": "NAME", "webhook": URL})
            answer = await lsps.ask(wallet, payload.replace(b"NAME", b"\\u0061" * count))
            assert ("result" in answer) == kept
        assert lsps.store.names(wallet) == ["a" * 10]


async def test_a_stranger_may_ask_for_protocols_and_nothing_else() -> None:
    """Neither channel nor client: LDK's code 1003, and nothing is kept."""
    async with Lsps() as lsps:
        stranger = node()
        assert await lsps.call(stranger, "lsps0.list_protocols") == {"protocols": [5]}
        assert (await lsps.set(stranger, "a"))["code"] == 1003
        assert (await lsps.set(stranger, "a", "no URL"))["code"] == 1003
        assert (await lsps.call(stranger, "lsps5.list_webhooks"))["app_names"] == []
        assert (await lsps.call(stranger, "lsps5.remove_webhook", {"app_name": "a"}))["code"] == 1003
        assert lsps.store.names(stranger) == []
        assert lsps.announced.made == []
        assert lsps.counters["lsps.refused.1003"] == 3


async def test_a_complaint_about_an_answer_is_met_with_silence() -> None:
    """LDK says "parse error" of an answer that it can't read; we say nothing to that."""
    async with Lsps() as lsps:
        peer = lsps.wallet()
        complaint = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error","data":null}}'
        lsps.transport.arrive(peer, complaint)
        await lsps.settled()
        assert not lsps.transport.sent.get(peer)
        assert lsps.counters["dropped.lsps-refused"] == 1


async def test_who_has_webhooks_may_take_them_back_without_a_channel() -> None:
    """The channel is closed: it lists and removes what it has, sets nothing, and then is a stranger."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        await lsps.set(wallet, "a")
        lsps.known.clear()
        assert (await lsps.set(wallet, "b"))["code"] == 1003
        assert (await lsps.call(wallet, "lsps5.list_webhooks"))["app_names"] == ["a"]
        assert (await lsps.call(wallet, "lsps5.remove_webhook", {"app_name": "b"}))["code"] == 1010
        assert await lsps.call(wallet, "lsps5.remove_webhook", {"app_name": "a"}) == {}
        assert (await lsps.call(wallet, "lsps5.remove_webhook", {"app_name": "a"}))["code"] == 1003


async def test_a_name_that_is_not_there_is_not_found() -> None:
    """app_name_not_found; another node's webhook of that name is not this one's."""
    async with Lsps() as lsps:
        wallet, other = lsps.wallet(), lsps.wallet()
        await lsps.set(other, "a")
        for name in ("a", "x" * 10_000, ""):
            error = await lsps.call(wallet, "lsps5.remove_webhook", {"app_name": name})
            assert error == {"code": 1010, "message": "app_name_not_found"}
        assert lsps.store.names(other) == ["a"]


@pytest.mark.parametrize("payload", [b"", b"{}", b"[" * 10_000, b"\xff", b'{"id":5}', b"[]", b"\0"])
async def test_rubbish_is_answered_with_a_parse_error_and_the_service_lives(payload: bytes) -> None:
    """Each message of rubbish gets -32700 with an id of null, and the next request its answer."""
    async with Lsps() as lsps:
        peer = node()
        answer = await lsps.ask(peer, payload)
        assert (answer["id"], answer["error"]["code"]) == (None, -32700)
        assert await lsps.call(peer, "lsps0.list_protocols") == {"protocols": [5]}
        assert lsps.counters["lsps.refused.-32700"] == 1


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("lsps5.payment_incoming", {}, -32601),
        ("lsps5.set_webhook", {"app_name": "a", "webhook": URL, "urgent": True}, -32602),
        ("lsps5.set_webhook", {"app_name": "a"}, -32602),
        ("lsps5.set_webhook", {"app_name": "a", "webhook": 5}, -32602),
        ("lsps5.list_webhooks", {"app_name": "a"}, -32602),
    ],
)
async def test_a_wrong_call_is_told_what_is_wrong(method: str, params: dict[str, Any], code: int) -> None:
    """Unknown methods and params by their codes, with the id of the request; nothing is kept."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        assert (await lsps.call(wallet, method, params))["code"] == code
        assert lsps.store.names(wallet) == []


async def test_what_is_away_is_an_internal_error_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Redis or LND is away: -32603, one line in the log until a request goes through, and no crash."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        lsps.store.away = True
        for _ in range(3):
            assert (await lsps.set(wallet, "a"))["code"] == -32603
        assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 1
        lsps.store.away = False
        lsps.lnd_error = LndUnavailable("LND is away")
        assert (await lsps.set(wallet, "a"))["code"] == -32603
        lsps.lnd_error = None
        assert (await lsps.set(wallet, "a"))["num_webhooks"] == 1
        lsps.store.away = True
        assert (await lsps.set(wallet, "a"))["code"] == -32603
        assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 2


async def test_a_fault_of_ours_is_an_internal_error_too() -> None:
    """One message that finds a bug stops neither the service nor its sender's next request."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        lsps.lnd_error = ZeroDivisionError("a fault")
        assert (await lsps.set(wallet, "a"))["code"] == -32603
        assert lsps.counters["dropped.internal-error"] == 1
        lsps.lnd_error = None
        assert (await lsps.set(wallet, "a"))["num_webhooks"] == 1


async def test_a_store_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has its time, and then its sender hears that it failed; the next one is served."""
    monkeypatch.setattr(sidecar.lsps, "REQUEST_TIMEOUT", 0.05)
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        lsps.store.ready.clear()
        assert (await lsps.set(wallet, "a"))["code"] == -32603
        lsps.store.ready.set()
        assert (await lsps.set(wallet, "a"))["num_webhooks"] == 1


async def test_a_peers_requests_are_answered_in_their_order() -> None:
    """What a peer sets first is not what is kept, however the store is delayed."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        lsps.store.ready.clear()
        for number in range(10):
            params = {"app_name": "a", "webhook": f"{URL}{number}"}
            lsps.transport.arrive(wallet, request("lsps5.set_webhook", params, str(number)))
        lsps.store.ready.set()
        await lsps.settled()
        assert [answer["id"] for answer in lsps.transport.sent[wallet]] == list("0123456789")
        assert [webhook.url for webhook in await lsps.store.webhooks(wallet)] == [f"{URL}9"]


async def test_a_flooding_peer_is_dropped_and_no_other() -> None:
    """Twenty at once and one a second; what is more is dropped and counted, for that peer alone."""
    async with Lsps() as lsps:
        flooder, wallet = lsps.wallet(), lsps.wallet()
        for _ in range(100):
            lsps.transport.arrive(flooder, b"{")
        assert await lsps.call(wallet, "lsps0.list_protocols") == {"protocols": [5]}
        assert len(lsps.transport.sent[flooder]) == PEER_RATE.burst == 20
        assert lsps.counters["dropped.rate-limited"] == 80
        lsps.clock.pass_seconds(3)
        for _ in range(10):
            lsps.transport.arrive(flooder, b"{")
        await lsps.settled()
        assert len(lsps.transport.sent[flooder]) == 23


async def test_a_peer_keeps_a_bounded_number_of_requests_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is in work, twenty may wait, whatever the rate would let in."""
    monkeypatch.setattr(sidecar.lsps, "PEER_RATE", Rate(per_second=1_000, burst=1_000))
    async with Lsps() as lsps:
        wallet, other = lsps.wallet(), lsps.wallet()
        lsps.store.ready.clear()
        set_webhook = request("lsps5.set_webhook", {"app_name": "a", "webhook": URL})
        lsps.transport.arrive(wallet, set_webhook)
        await lsps.store.asked.wait()
        for _ in range(49):
            lsps.transport.arrive(wallet, set_webhook)
        lsps.transport.arrive(other, request("lsps0.list_protocols"))
        await lsps.transport.answered[other].wait()
        lsps.store.ready.set()
        await lsps.settled()
        assert len(lsps.transport.sent[wallet]) == 1 + MAX_WAITING
        assert lsps.counters["dropped.rate-limited"] == 50 - 1 - MAX_WAITING


async def test_peers_that_take_no_answers_keep_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many deaf peers as there are places: each is given up in time, and others are answered."""
    monkeypatch.setattr(sidecar.lsps, "SEND_TIMEOUT", 0.05)
    async with Lsps() as lsps:
        for _ in range(MAX_AT_ONCE):
            deaf = node()
            lsps.transport.deaf.add(deaf)
            for _ in range(5):
                lsps.transport.arrive(deaf, request("lsps0.list_protocols"))
        assert await lsps.call(lsps.wallet(), "lsps0.list_protocols") == {"protocols": [5]}
        assert lsps.counters["unsent.lsps.timeout"] == MAX_AT_ONCE
        assert lsps.counters["dropped.not-taken"] == 4 * MAX_AT_ONCE


async def test_a_peer_that_went_away_is_registered_all_the_same() -> None:
    """bLIP 50: an answer that can't be delivered is "no differently from successfully delivering"."""
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        lsps.transport.gone.add(wallet)
        lsps.transport.arrive(wallet, request("lsps5.set_webhook", {"app_name": "a", "webhook": URL}))
        await lsps.settled()
        assert lsps.store.names(wallet) == ["a"]
        assert lsps.announced.made == [(wallet, "a")]
        assert lsps.counters["unsent.lsps.peer-not-connected"] == 1
        lsps.transport.gone.clear()
        assert (await lsps.set(wallet, "a"))["no_change"] is True


async def test_no_log_holds_a_url_or_a_raw_name(caplog: pytest.LogCaptureFixture) -> None:
    """URLs hold tokens, and names may hold what acts on a terminal: neither is logged as it is."""
    caplog.set_level(logging.DEBUG)
    async with Lsps() as lsps:
        wallet = lsps.wallet()
        for url in (URL, f"http://h/{TOKEN}", f"https://u@h/{TOKEN}", f"https://h:1/{TOKEN}", TOKEN):
            answer = await lsps.set(wallet, "evil\x1b[2J\nname", url)
            assert TOKEN not in str(answer)
        await lsps.call(wallet, "lsps5.remove_webhook", {"app_name": "evil\x1b[2J\nname"})
        await lsps.ask(wallet, f'{{"{TOKEN}'.encode())
        with pytest.raises(BadWebhook) as caught:
            await lsps.service.register(wallet, "a", f"http://h/{TOKEN}")
        assert TOKEN not in str(caught.value)
    text = "\n".join(record.getMessage() for record in caplog.records)
    said = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    shown = [(each.get("app"), each.get("host")) for each in said]
    assert ("evil\\x1b[2J\\nname", "push.example.org") in shown
    assert TOKEN not in text
    assert "\x1b" not in text
