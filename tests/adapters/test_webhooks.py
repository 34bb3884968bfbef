"""The notifier over real HTTPS: what is sent when, to whom, how often it is tried, and what is remembered."""

from __future__ import annotations

import pytest

from sidecar.core.model import TimestampForm
from sidecar.core.webhooks import (
    ONION_MESSAGE_INCOMING,
    WebhookState,
    signed_text,
    timestamp,
)
from tests.harness.notifying import ALICE, BOB, INCOMING, NO, REGISTERED, Notifying, method_of, methods
from tests.harness.push_service import PushService, answer, in_turn

# --- what is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", list(TimestampForm))
async def test_a_notification_is_as_blip_55_says(
    notifying: Notifying, service: PushService, form: TimestampForm
) -> None:
    """A POST of the exact body, dated in the node's form, and signed with that very date and body."""
    notifying.forms[ALICE] = form
    await notifying.register(service.url("/wake?token=secret"))
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    came = await service.next()
    at = timestamp(notifying.clock.now_ms(), form)
    assert (came.verb, came.path) == ("POST", "/wake?token=secret")
    assert came.body == b'{"jsonrpc":"2.0","method":"lsps5.onion_message_incoming","params":{}}'
    assert came.headers["content-type"] == "application/json"
    assert came.headers["x-lsps5-timestamp"] == at
    assert came.headers["x-lsps5-signature"] == "signature-1"
    assert notifying.signer.signed == [signed_text(at, came.body)]
    await notifying.quiet()
    assert await notifying.log() == [("app", INCOMING, "ok", 1)]
    assert notifying.counters == {"wake.sent.lsps5.onion_message_incoming": 1}


async def test_all_webhooks_of_a_node_are_told_and_no_other_nodes(
    notifying: Notifying, service: PushService
) -> None:
    """bLIP 55: "MUST use **all** `webhook`s that were registered"."""
    for app_name in ("one", "two", "three"):
        await notifying.register(service.url(f"/{app_name}"), ALICE, app_name)
    await notifying.register(service.url("/bob"), BOB)
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    assert {(await service.next()).path for _ in range(3)} == {"/one", "/two", "/three"}
    await notifying.quiet()
    assert service.count() == 0


async def test_no_two_posts_have_the_same_signature(notifying: Notifying, service: PushService) -> None:
    """LDK's validator takes a signature it has seen for a replay: each POST, each try, is dated anew."""
    service.behaviour = NO
    for app_name in ("one", "two"):
        await notifying.register(service.url(), ALICE, app_name)
    await notifying.register(service.url(), BOB)
    for node_id in (ALICE, BOB):
        notifying.bell.notify(node_id, ONION_MESSAGE_INCOMING)
    came = [await service.next() for _ in range(9)]
    assert len({request.headers["x-lsps5-timestamp"] for request in came}) == 9
    notifying.clock.pass_seconds(-3_600)
    await notifying.bell.test(BOB, None)
    assert (await service.next()).headers["x-lsps5-timestamp"] == timestamp(
        notifying.clock.now_ms(), TimestampForm.OFFSET
    )


# --- webhook_registered first ---------------------------------------------------------------------


async def test_a_new_webhook_alone_gets_webhook_registered(
    notifying: Notifying, service: PushService
) -> None:
    """bLIP 55: "Only the newly-registered webhook is contacted for this notification"; and once."""
    await notifying.register(service.url("/old"), ALICE, "old")
    await notifying.register(service.url("/new"), ALICE, "new", announced=False)
    notifying.bell.announce(ALICE, "new")
    came = await service.next()
    assert (came.path, method_of(came.body)) == ("/new", REGISTERED)
    await notifying.quiet()
    assert await notifying.state(ALICE, "new") == WebhookState(announced=True)
    notifying.bell.announce(ALICE, "new")
    notifying.bell.announce(ALICE, "absent")
    await notifying.quiet()
    assert service.count() == 0


async def test_webhook_registered_is_sent_before_anything_else(
    notifying: Notifying, service: PushService
) -> None:
    """bLIP 55: "MUST send this notification to this webhook before sending any other notifications"."""
    await notifying.register(service.url(), announced=False)
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    notifying.bell.announce(ALICE, "app")
    assert await methods(service, 2) == [REGISTERED, INCOMING]
    await notifying.quiet()
    assert await notifying.log() == [("app", REGISTERED, "ok", 1), ("app", INCOMING, "ok", 1)]
    assert service.count() == 0


async def test_without_webhook_registered_nothing_else_is_sent(
    notifying: Notifying, service: PushService
) -> None:
    """It failed in all its tries: the other notification waits for a time when it arrives."""
    service.behaviour = NO
    await notifying.register(service.url(), announced=False)
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    assert await methods(service, 3) == [REGISTERED] * 3
    await notifying.quiet()
    assert await notifying.log() == [("app", REGISTERED, "status-503", 3)]
    service.behaviour = in_turn(NO, answer(200))
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    assert await methods(service, 3) == [REGISTERED, REGISTERED, INCOMING]
    await notifying.quiet()
    assert (await notifying.log())[1:] == [("app", REGISTERED, "ok", 2), ("app", INCOMING, "ok", 1)]


# --- tries ----------------------------------------------------------------------------------------


async def test_three_tries_with_jittered_pauses_and_then_it_is_left(
    notifying: Notifying, service: PushService
) -> None:
    """About three tries; the second pause is about four times the first, each off by up to a half."""
    service.behaviour = NO
    await notifying.register(service.url())
    pauses = set[float]()
    for _ in range(3):
        notifying.pauses.clear()
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await methods(service, 3)
        await notifying.quiet()
        first, second = notifying.pauses
        assert 0.005 <= first <= 0.015
        assert 0.02 <= second <= 0.06
        pauses |= {first, second}
    assert len(pauses) == 6
    assert await notifying.log() == [("app", INCOMING, "status-503", 3)] * 3
    assert notifying.counters == {"wake.failed.status-5xx": 3, "wake.retried.status-5xx": 6}


async def test_by_default_all_tries_end_within_about_a_minute() -> None:
    """A wake-up is stale after minutes: three tries of 10 s, and the longest pauses between them."""
    from sidecar.adapters.webhooks import WebhookSettings

    settings = WebhookSettings()
    pauses = sum(settings.wait * 4**number * 1.5 for number in range(settings.tries - 1))
    assert pauses + settings.tries * settings.limits.total <= 60


async def test_a_try_that_arrives_is_the_last(notifying: Notifying, service: PushService) -> None:
    """And what failed before is forgotten."""
    service.behaviour = in_turn(NO, answer(200))
    await notifying.register(service.url(), state=WebhookState(announced=True, failures=7))
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await methods(service, 2)
    await notifying.quiet()
    assert await notifying.log() == [("app", INCOMING, "ok", 2)]
    assert await notifying.state() == WebhookState(announced=True)


async def test_a_refused_address_is_not_tried_again(notifying: Notifying, service: PushService) -> None:
    """It would be refused again; it counts as a failure, and is told by a word of its own."""
    notifying.zone.names["a.push.test"] = ("10.0.0.1",)
    await notifying.register(service.url(host="a.push.test"))
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    assert await notifying.log() == [("app", INCOMING, "address-refused", 1)]
    assert (await notifying.state()).failures == 1


async def test_a_name_that_is_rebound_between_tries_is_refused_then(
    notifying: Notifying, service: PushService
) -> None:
    """Each try asks for the addresses anew and checks them."""
    service.behaviour = NO
    await notifying.register(service.url(host="a.push.test"))
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)

    async def rebind() -> None:
        notifying.zone.names["a.push.test"] = ("169.254.169.254",)

    notifying.during_pause = rebind
    await notifying.quiet()
    assert await notifying.log() == [("app", INCOMING, "address-refused", 2)]
    assert service.connections == 1


async def test_away_signer_and_store_are_waited_for_within_the_tries(
    notifying: Notifying, service: PushService
) -> None:
    """Neither is the webhook's fault, and neither ends the notifier."""
    await notifying.register(service.url())
    notifying.signer.away = True
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    assert await notifying.log() == [("app", INCOMING, "signer-away", 3)]
    assert (await notifying.state()).failures == 0
    notifying.signer.away, notifying.signer.denied = False, True
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    assert await notifying.log() == [("app", INCOMING, "signer-away", 3)] * 2
    notifying.signer.denied, notifying.store.away = False, True
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    assert notifying.counters["wake.failed.store-away"] == 1

    async def come_back() -> None:
        notifying.store.away = notifying.signer.away = False

    notifying.during_pause = come_back
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    assert await methods(service, 1) == [INCOMING]
    notifying.signer.away = True
    notifying.bell.connected(ALICE)
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    assert await methods(service, 1) == [INCOMING]


async def test_a_store_that_is_away_when_a_notification_is_dated_is_waited_for(
    notifying: Notifying, service: PushService
) -> None:
    """The node's form of dates is in the store too."""
    await notifying.register(service.url())
    notifying.forms_away = True

    async def come_back() -> None:
        notifying.forms_away = False

    notifying.during_pause = come_back
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await service.next()
    await notifying.quiet()
    assert await notifying.log() == [("app", INCOMING, "ok", 2)]
    assert notifying.counters["wake.retried.store-away"] == 1


async def test_a_fault_of_ours_ends_one_notification_only(
    notifying: Notifying, service: PushService, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and reported, without what its text may hold."""
    await notifying.register(service.url())
    await notifying.register(service.url(), BOB)

    async def fail(*_: object) -> None:
        raise RuntimeError("token=secret")

    notifications = notifying.bell._notifications
    post, notifications.post = notifications.post, fail  # type: ignore[method-assign,assignment]
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    notifications.post = post  # type: ignore[method-assign]
    webhooks, notifications.webhooks = notifications.webhooks, fail  # type: ignore[method-assign,assignment]
    notifying.bell.notify(BOB, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    notifications.webhooks = webhooks  # type: ignore[method-assign]
    notifying.bell.connected(BOB)
    notifying.bell.notify(BOB, ONION_MESSAGE_INCOMING)
    await service.next()
    assert notifying.counters["wake.failed.internal-error"] == 2
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
