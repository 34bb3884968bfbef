"""ports.WebhookStore in memory, for tests that need no Redis: it keeps webhook_contract.py too."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sidecar.core.errors import NoSuchWebhook, StoreUnavailable, TooManyWebhooks
from sidecar.core.webhooks import Delivery, Webhook, WebhookSet, WebhookState


class MemoryWebhooks:
    """Webhooks for as long as the process lives; deliveries are not forgotten by their age.

    While `away` is true every method raises StoreUnavailable, as a Redis that is down does.
    """

    def __init__(self) -> None:
        self.away = False
        self._webhooks: dict[bytes, dict[str, Webhook]] = {}
        self._unneeded: dict[bytes, int | None] = {}
        self._deliveries: defaultdict[bytes, deque[Delivery]] = defaultdict(lambda: deque(maxlen=50))

    async def set_webhook(self, node_id: bytes, webhook: Webhook, most: int) -> WebhookSet:
        """Insert a webhook or replace the one of its name, or refuse it with nothing changed."""
        self._answer()
        there = self._webhooks.get(node_id, {})
        old = there.get(webhook.app_name)
        if old is None and len(there) >= most:
            raise TooManyWebhooks(f"{len(there)} of {most}")
        no_change = old is not None and old.url == webhook.url
        if old is not None and no_change:
            kept = replace(old, state=replace(old.state, failures=0, paused_until=0))
        else:
            kept = replace(webhook, state=WebhookState())
        there[webhook.app_name] = kept
        self._webhooks[node_id] = there
        self._unneeded[node_id] = None
        return WebhookSet(count=len(there), no_change=no_change)

    async def webhooks(self, node_id: bytes) -> Sequence[Webhook]:
        """A node's webhooks by name."""
        self._answer()
        there = self._webhooks.get(node_id, {})
        return [there[app_name] for app_name in sorted(there)]

    async def remove_webhook(self, node_id: bytes, app_name: str) -> None:
        """Forget a webhook."""
        there = self._with(node_id, app_name)
        del there[app_name]
        if not there:
            del self._webhooks[node_id], self._unneeded[node_id]

    async def note_state(self, node_id: bytes, webhook: Webhook, state: WebhookState) -> None:
        """Remember how a webhook fares, if it is still there with that URL."""
        self._answer()
        there = self._webhooks.get(node_id, {})
        old = there.get(webhook.app_name)
        if old is not None and old.url == webhook.url:
            there[webhook.app_name] = replace(old, state=replace(state, paused=old.state.paused))

    async def pause_webhook(self, node_id: bytes, app_name: str, *, paused: bool) -> None:
        """Stop using a webhook, or use it again."""
        there = self._with(node_id, app_name)
        state = replace(there[app_name].state, paused=paused)
        if not paused:
            state = replace(state, failures=0, paused_until=0)
        there[app_name] = replace(there[app_name], state=state)

    async def log_delivery(self, node_id: bytes, delivery: Delivery) -> None:
        """Remember what became of a notification."""
        self._answer()
        self._deliveries[node_id].appendleft(delivery)

    async def deliveries(self, node_id: bytes) -> Sequence[Delivery]:
        """What became of a node's last notifications, newest first."""
        self._answer()
        return list(self._deliveries.get(node_id, ()))

    async def webhook_nodes(self) -> Mapping[bytes, int | None]:
        """Every node with webhooks, and since when nothing has spoken for keeping them."""
        self._answer()
        return dict(self._unneeded)

    async def mark_unneeded(self, node_id: bytes, since: int | None) -> None:
        """Remember since when nothing speaks for keeping a node's webhooks."""
        self._answer()
        if node_id in self._unneeded:
            self._unneeded[node_id] = since

    async def forget_webhooks(self, node_id: bytes) -> None:
        """Forget a node's webhooks and deliveries."""
        self._answer()
        for records in (self._webhooks, self._unneeded, self._deliveries):
            records.pop(node_id, None)

    def _with(self, node_id: bytes, app_name: str) -> dict[str, Webhook]:
        """The node's webhooks, of which `app_name` is one. Raises NoSuchWebhook."""
        self._answer()
        there = self._webhooks.get(node_id, {})
        if app_name not in there:
            raise NoSuchWebhook(f"there is no webhook {app_name!r}")
        return there

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")
