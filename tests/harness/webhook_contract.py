"""What every ports.WebhookStore keeps to: one set of tests, run over each one there is.

A subclass called Test… gives the fixture `webhooks`: a store without any.
"""

import asyncio
import secrets
from dataclasses import replace

import pytest

from sidecar.core.errors import NoSuchWebhook, TooManyWebhooks
from sidecar.core.webhooks import ONION_MESSAGE_INCOMING, Delivery, Webhook, WebhookSet, WebhookState
from sidecar.ports import WebhookStore
from tests.harness.store_contract import a_node

MOST = 10
WORN = WebhookState(announced=True, failures=7, paused_until=1_800_000_000, paused=False)

NAMES = ["", "a" * 64, "zzz", "Ä📱\u202e", "a:b:0:0", "\r\n\0\x1b[31m", "\ufeff", "'; DROP"]
"""App names as strangers may choose them."""


def a_webhook(app_name: str = "wallet", url: str | None = None, *, at: int = 1_700_000_000) -> Webhook:
    """A new webhook with a URL of its own if none is given."""
    return Webhook(app_name, url or f"https://push.example/{secrets.token_hex(8)}?a=b:c", registered_at=at)


def a_delivery(number: int = 0, app_name: str = "wallet") -> Delivery:
    """A delivery; `number` tells it from others."""
    return Delivery(1_700_000_000_000 + number, app_name, ONION_MESSAGE_INCOMING, "ok", tries=1)


class WebhookContract:
    """The rules; each test gets an empty `webhooks`."""

    # --- registering --------------------------------------------------------------------------------

    async def test_webhooks_come_back_by_name(self, webhooks: WebhookStore) -> None:
        """Whatever an app calls itself, its webhook is there to the character."""
        node = a_node()
        put = [a_webhook(name) for name in NAMES]
        for number, webhook in enumerate(put, 1):
            assert await webhooks.set_webhook(node, webhook, MOST) == WebhookSet(number, no_change=False)
        assert list(await webhooks.webhooks(node)) == sorted(put, key=lambda each: each.app_name)
        assert await webhooks.webhook_nodes() == {node: None}

    async def test_nodes_are_apart(self, webhooks: WebhookStore) -> None:
        """A node's webhooks and deliveries are its own, under the same name too."""
        one, other = a_node(), a_node()
        first, second = a_webhook(), a_webhook()
        await webhooks.set_webhook(one, first, 1)
        await webhooks.set_webhook(other, second, 1)
        await webhooks.log_delivery(one, a_delivery())
        await webhooks.forget_webhooks(other)
        assert list(await webhooks.webhooks(one)) == [first]
        assert list(await webhooks.webhooks(other)) == []
        assert list(await webhooks.deliveries(one)) == [a_delivery()]
        assert await webhooks.webhook_nodes() == {one: None}

    async def test_one_more_than_there_may_be_is_refused(self, webhooks: WebhookStore) -> None:
        """With nothing changed; a webhook that is there can still be set anew."""
        node = a_node()
        put = [a_webhook(str(number)) for number in range(3)]
        for webhook in put:
            await webhooks.set_webhook(node, webhook, 3)
        await webhooks.mark_unneeded(node, 5)
        with pytest.raises(TooManyWebhooks):
            await webhooks.set_webhook(node, a_webhook("3"), 3)
        assert list(await webhooks.webhooks(node)) == put
        assert await webhooks.webhook_nodes() == {node: 5}
        new = a_webhook("1")
        assert await webhooks.set_webhook(node, new, 3) == WebhookSet(3, no_change=False)
        assert list(await webhooks.webhooks(node)) == [put[0], new, put[2]]

    async def test_of_many_at_once_no_more_than_allowed_are_set(self, webhooks: WebhookStore) -> None:
        """Counting and inserting is one step."""
        node = a_node()
        results = await asyncio.gather(
            *(webhooks.set_webhook(node, a_webhook(str(number)), 4) for number in range(12)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, TooManyWebhooks) for each in results) == 8
        assert len(await webhooks.webhooks(node)) == 4

    async def test_the_same_url_again_changes_nothing(self, webhooks: WebhookStore) -> None:
        """It is no change, and keeps its state, but for failures and the pause that they brought."""
        node, webhook = a_node(), a_webhook()
        await webhooks.set_webhook(node, webhook, 1)
        await webhooks.note_state(node, webhook, WORN)
        await webhooks.pause_webhook(node, webhook.app_name, paused=True)
        again = replace(webhook, registered_at=webhook.registered_at + 99)
        assert await webhooks.set_webhook(node, again, 1) == WebhookSet(1, no_change=True)
        state = WebhookState(announced=True, failures=0, paused_until=0, paused=True)
        assert list(await webhooks.webhooks(node)) == [replace(webhook, state=state)]

    async def test_another_url_starts_anew(self, webhooks: WebhookStore) -> None:
        """It is another webhook, of which nothing is known, whatever the caller thinks."""
        node, old = a_node(), a_webhook()
        await webhooks.set_webhook(node, replace(old, state=WORN), 1)
        assert list(await webhooks.webhooks(node)) == [old]
        await webhooks.note_state(node, old, WORN)
        await webhooks.pause_webhook(node, old.app_name, paused=True)
        new = a_webhook(old.app_name, at=old.registered_at + 1)
        assert await webhooks.set_webhook(node, new, 1) == WebhookSet(1, no_change=False)
        assert list(await webhooks.webhooks(node)) == [new]

    async def test_a_removed_webhook_is_gone(self, webhooks: WebhookStore) -> None:
        """Once; with its last webhook a node is no node with webhooks."""
        node = a_node()
        kept = a_webhook("kept")
        await webhooks.set_webhook(node, kept, MOST)
        await webhooks.set_webhook(node, a_webhook("gone"), MOST)
        await webhooks.remove_webhook(node, "gone")
        with pytest.raises(NoSuchWebhook):
            await webhooks.remove_webhook(node, "gone")
        assert list(await webhooks.webhooks(node)) == [kept]
        await webhooks.remove_webhook(node, "kept")
        assert await webhooks.webhook_nodes() == {}

    # --- how it fares -------------------------------------------------------------------------------

    async def test_state_is_noted_for_the_webhook_that_it_is_of(self, webhooks: WebhookStore) -> None:
        """A webhook that was replaced or removed meanwhile is not touched."""
        node, old, new = a_node(), a_webhook(), a_webhook()
        await webhooks.note_state(node, old, WORN)
        assert list(await webhooks.webhooks(node)) == []
        await webhooks.set_webhook(node, old, MOST)
        await webhooks.note_state(node, old, WORN)
        assert list(await webhooks.webhooks(node)) == [replace(old, state=WORN)]
        await webhooks.set_webhook(node, new, MOST)
        await webhooks.note_state(node, old, WORN)
        assert list(await webhooks.webhooks(node)) == [new]

    async def test_only_the_operator_ends_the_operators_pause(self, webhooks: WebhookStore) -> None:
        """A note from a delivery under way neither lifts a pause nor brings it back."""
        node, webhook = a_node(), a_webhook()
        await webhooks.set_webhook(node, webhook, MOST)
        await webhooks.pause_webhook(node, webhook.app_name, paused=True)
        await webhooks.note_state(node, webhook, WORN)
        (found,) = await webhooks.webhooks(node)
        assert found.state == replace(WORN, paused=True)
        await webhooks.pause_webhook(node, webhook.app_name, paused=False)
        await webhooks.note_state(node, webhook, replace(WORN, paused=True))
        (found,) = await webhooks.webhooks(node)
        assert found.state == WORN

    async def test_resuming_forgets_failures(self, webhooks: WebhookStore) -> None:
        """Pausing keeps them; a webhook that is not there can be neither."""
        node, webhook = a_node(), a_webhook()
        await webhooks.set_webhook(node, webhook, MOST)
        await webhooks.note_state(node, webhook, WORN)
        await webhooks.pause_webhook(node, webhook.app_name, paused=True)
        (found,) = await webhooks.webhooks(node)
        assert found.state == replace(WORN, paused=True)
        await webhooks.pause_webhook(node, webhook.app_name, paused=False)
        (found,) = await webhooks.webhooks(node)
        assert found.state == WebhookState(announced=True)
        for paused in (True, False):
            with pytest.raises(NoSuchWebhook):
                await webhooks.pause_webhook(node, "another", paused=paused)

    # --- deliveries ---------------------------------------------------------------------------------

    async def test_the_last_fifty_deliveries_are_remembered(self, webhooks: WebhookStore) -> None:
        """Newest first, for as many as there are and no more than 50."""
        node = a_node()
        assert list(await webhooks.deliveries(node)) == []
        logged = [a_delivery(number, NAMES[number % len(NAMES)]) for number in range(53)]
        for count, delivery in enumerate(logged, 1):
            await webhooks.log_delivery(node, delivery)
            if count in (1, 50):
                assert list(await webhooks.deliveries(node)) == logged[count - 1 :: -1]
        assert list(await webhooks.deliveries(node)) == logged[:2:-1]

    async def test_deliveries_outlive_their_webhook(self, webhooks: WebhookStore) -> None:
        """They do not make a node one with webhooks; forgetting takes them along."""
        node = a_node()
        await webhooks.set_webhook(node, a_webhook(), MOST)
        await webhooks.log_delivery(node, a_delivery())
        await webhooks.remove_webhook(node, "wallet")
        assert list(await webhooks.deliveries(node)) == [a_delivery()]
        assert await webhooks.webhook_nodes() == {}
        await webhooks.forget_webhooks(node)
        assert list(await webhooks.deliveries(node)) == []

    # --- nodes that are not needed any more -----------------------------------------------------------

    async def test_it_is_remembered_since_when_nothing_speaks_for_a_node(
        self, webhooks: WebhookStore
    ) -> None:
        """Until something does; registering does too, whether it changes a webhook or not."""
        node, webhook = a_node(), a_webhook()
        await webhooks.set_webhook(node, webhook, MOST)
        for since in (1_700_000_000, None, 1_700_000_001):
            await webhooks.mark_unneeded(node, since)
            assert await webhooks.webhook_nodes() == {node: since}
        for again in (webhook, a_webhook()):
            await webhooks.mark_unneeded(node, 1_700_000_002)
            await webhooks.set_webhook(node, again, MOST)
            assert await webhooks.webhook_nodes() == {node: None}

    async def test_a_node_without_webhooks_is_not_marked(self, webhooks: WebhookStore) -> None:
        """There is nothing to keep or to forget."""
        await webhooks.mark_unneeded(a_node(), 1_700_000_000)
        assert await webhooks.webhook_nodes() == {}

    async def test_forgetting_leaves_nothing(self, webhooks: WebhookStore) -> None:
        """Neither webhooks nor deliveries nor the node; twice is fine."""
        node = a_node()
        await webhooks.set_webhook(node, a_webhook(), MOST)
        await webhooks.log_delivery(node, a_delivery())
        for _ in range(2):
            await webhooks.forget_webhooks(node)
            assert list(await webhooks.webhooks(node)) == []
            assert list(await webhooks.deliveries(node)) == []
            assert await webhooks.webhook_nodes() == {}
        with pytest.raises(NoSuchWebhook):
            await webhooks.remove_webhook(node, "wallet")
