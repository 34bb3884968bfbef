"""Webhooks that fail, that are paused, replaced, removed or tested, and what the logs say of them."""

from __future__ import annotations

import logging

import pytest

from sidecar.core.errors import NoSuchWebhook, StoreUnavailable
from sidecar.core.webhooks import (
    ONION_MESSAGE_INCOMING,
    Webhook,
    WebhookState,
)
from tests.harness.notifying import ALICE, BOB, INCOMING, NO, REGISTERED, Notifying, brief, methods
from tests.harness.push_service import PushService, answer

# --- pauses ---------------------------------------------------------------------------------------


async def test_a_webhook_that_keeps_failing_is_paused_and_then_tried_with_one(
    notifying: Notifying, service: PushService
) -> None:
    """Ten in a row, then an hour of nothing; then one: it fails, another hour; it arrives, all is well."""
    await notifying.register(service.url(), state=WebhookState(announced=True, failures=8))
    service.behaviour = NO

    async def wake() -> int:
        before = service.connections
        notifying.bell.connected(ALICE)
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        return service.connections - before

    assert await wake() == 3
    assert await notifying.state() == WebhookState(announced=True, failures=9)
    assert await wake() == 3
    until = notifying.clock.now_ms() // 1000 + 3_600
    assert await notifying.state() == WebhookState(announced=True, failures=10, paused_until=until)
    assert await wake() == 0
    assert notifying.counters["wake.dropped.paused"] == 1
    notifying.clock.pass_seconds(3_600)
    assert await wake() == 3
    assert await wake() == 0
    notifying.clock.pass_seconds(3_600)
    service.behaviour = answer(200)
    assert await wake() == 1
    assert await notifying.state() == WebhookState(announced=True)
    assert await wake() == 1


async def test_a_clock_that_is_set_back_does_not_lengthen_a_pause(
    notifying: Notifying, service: PushService
) -> None:
    """The end of a pause is a date: one that is further away than any pause is was set by another clock."""
    until = notifying.clock.now_ms() // 1000 + 3_600
    await notifying.register(
        service.url(), state=WebhookState(announced=True, failures=10, paused_until=until)
    )
    notifying.clock.step_seconds(-86_400)
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    assert service.connections == 1
    assert await notifying.state() == WebhookState(announced=True)


async def test_the_operators_pause_holds_until_the_operator_ends_it(
    notifying: Notifying, service: PushService
) -> None:
    """Nothing is sent, webhook_registered neither; and then all is as before."""
    await notifying.register(service.url(), announced=False)
    await notifying.store.pause_webhook(ALICE, "app", paused=True)
    notifying.bell.announce(ALICE, "app")
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    assert service.connections == 0
    await notifying.store.pause_webhook(ALICE, "app", paused=False)
    notifying.bell.connected(ALICE)
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    assert await methods(service, 2) == [REGISTERED, INCOMING]


async def test_a_webhook_that_was_replaced_or_removed_gets_no_more_tries(
    notifying: Notifying, service: PushService
) -> None:
    """What the next try goes by is what is in the store then."""
    service.behaviour = NO
    await notifying.register(service.url("/old"))

    async def replace() -> None:
        await notifying.store.set_webhook(ALICE, Webhook("app", service.url("/new"), 0), 10)

    async def remove() -> None:
        await notifying.store.remove_webhook(ALICE, "app")

    for count, change in enumerate((replace, remove), 1):
        notifying.during_pause = change
        notifying.bell.connected(ALICE)
        notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
        await notifying.quiet()
        assert notifying.counters["wake.dropped.removed"] == count
        assert service.connections == count


# --- the operator's test --------------------------------------------------------------------------


async def test_the_operators_test_is_one_try_now_whatever_the_pauses(
    notifying: Notifying, service: PushService
) -> None:
    """It tells how it went, and the log of deliveries does too."""
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await notifying.quiet()
    paused = WebhookState(announced=True, failures=12, paused_until=1 << 40)
    await notifying.register(service.url("/a"), app_name="a", state=paused)
    await notifying.store.pause_webhook(ALICE, "a", paused=True)
    await notifying.register(service.url("/b"), app_name="b", announced=False)
    service.behaviour = NO
    results = await notifying.bell.test(ALICE, None)
    assert [brief(result) for result in results] == [
        ("a", INCOMING, "status-503", 1),
        ("b", REGISTERED, "status-503", 1),
    ]
    assert (await notifying.state(app_name="a")).failures == 12
    service.behaviour = answer(200)
    assert [brief(result) for result in await notifying.bell.test(ALICE, "a")] == [("a", INCOMING, "ok", 1)]
    assert await notifying.state(app_name="a") == WebhookState(announced=True, paused=True)
    assert len(await notifying.log()) == 3
    for node_id, app_name in ((ALICE, "c"), (BOB, None)):
        with pytest.raises(NoSuchWebhook):
            await notifying.bell.test(node_id, app_name)
    notifying.signer.away = True
    assert [brief(result) for result in await notifying.bell.test(ALICE, "a")] == [
        ("a", INCOMING, "signer-away", 1)
    ]
    notifying.store.away = True
    with pytest.raises(StoreUnavailable):
        await notifying.bell.test(ALICE, None)


# --- logs -----------------------------------------------------------------------------------------


async def test_no_log_line_holds_a_urls_secret_part(
    notifying: Notifying, service: PushService, caplog: pytest.LogCaptureFixture
) -> None:
    """Node, app and host are named; names that would act on a terminal are escaped."""
    caplog.set_level(logging.DEBUG)
    await notifying.register(service.url("/path-secret?token=secret", "a.push.test"), app_name="a\x1b[2J\nb")
    notifying.bell.notify(ALICE, ONION_MESSAGE_INCOMING)
    await service.next()
    await notifying.quiet()
    service.behaviour = NO
    await notifying.bell.test(ALICE, None)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sidecar")]
    assert len(lines) == 2
    for line in lines:
        assert ALICE.hex() in line
        assert f"a.push.test:{service.port}" in line
        assert "\x1b" not in line
        assert "\n" not in line
    assert "secret" not in caplog.text
