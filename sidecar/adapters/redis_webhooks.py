"""Webhooks in Redis: ports.WebhookStore."""

from collections.abc import Mapping, Sequence

from sidecar.adapters.redis_link import RedisLink, Script
from sidecar.adapters.redis_masters import Argument
from sidecar.adapters.redis_records import (
    Keys,
    packed_delivery,
    to_delivery,
    to_node_id,
    to_unneeded_since,
    to_webhook,
)
from sidecar.core.webhooks import Delivery, Webhook, WebhookSet, WebhookState

SET_WEBHOOK = Script("set_webhook")
REMOVE_WEBHOOK = Script("remove_webhook")
PAUSE_WEBHOOK = Script("pause_webhook")
NOTE_WEBHOOK = Script("note_webhook")
MARK_UNNEEDED = Script("mark_unneeded")

DELIVERIES = 50
"""How many of a node's deliveries are remembered."""

DELIVERIES_FOR = 30 * 86_400
"""Seconds that they are remembered after the last of them."""


class RedisWebhooks:
    """ports.WebhookStore over one Redis, or a Cluster.

    A wallet's webhooks are in one Cluster slot, the index of wallets with webhooks in another.
    The index is written first and cleared last, so that no webhook is forgotten in it: after
    a crash it may name a wallet that has none.
    """

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def set_webhook(self, node_id: bytes, webhook: Webhook, most: int) -> WebhookSet:
        """Insert a webhook or replace the one of its name; return once it is on disk.

        A new one starts with a state of its own. One with the same URL keeps its state and its
        `registered_at`, without failures and the pause that they brought. Either speaks for keeping
        the node's webhooks. Raises TooManyWebhooks and NotLeading (with nothing changed), StoreUnavailable.
        """
        await self._link.fence()
        keys, node = self._keys, node_id.hex()
        async with self._link.lock(node_id):
            (unneeded,) = await self._link.read(("HGET", keys.webhook_nodes, node))
            if unneeded is None:
                await self._link.change_command("HSETNX", keys.webhook_nodes, node, "")
            args: list[Argument] = [webhook.app_name.encode(), webhook.url, webhook.registered_at, most]
            count, no_change = await self._link.change(
                SET_WEBHOOK, [keys.webhooks(node_id)], args, f"node {node}"
            )
            if unneeded:
                await self._link.change_command("HSET", keys.webhook_nodes, node, "")
            return WebhookSet(count=int(count), no_change=bool(no_change))

    async def webhooks(self, node_id: bytes) -> Sequence[Webhook]:
        """A node's webhooks by name. Raises StoreUnavailable."""
        (record,) = await self._link.read(("HGETALL", self._keys.webhooks(node_id)))
        return [to_webhook(app_name, record[app_name]) for app_name in sorted(record)]

    async def remove_webhook(self, node_id: bytes, app_name: str) -> None:
        """Forget a webhook; return once that is on disk.

        Raises NoSuchWebhook, NotLeading, StoreUnavailable.
        """
        await self._link.fence()
        async with self._link.lock(node_id):
            (left,) = await self._on_webhook(REMOVE_WEBHOOK, node_id, app_name)
            if int(left) == 0:
                await self._link.change_command("HDEL", self._keys.webhook_nodes, node_id.hex())

    async def note_state(self, node_id: bytes, webhook: Webhook, state: WebhookState) -> None:
        """Remember how a webhook fares, if it is still there with that URL; `paused` is let be.

        Not durable: after a crash of Redis it fares as it did a moment earlier.
        """
        args: list[Argument] = [webhook.url, int(state.announced), state.failures, state.paused_until]
        await self._on_webhook(NOTE_WEBHOOK, node_id, webhook.app_name, *args, durable=False)

    async def pause_webhook(self, node_id: bytes, app_name: str, *, paused: bool) -> None:
        """Stop using a webhook, or use it again. Raises NoSuchWebhook, StoreUnavailable."""
        await self._on_webhook(PAUSE_WEBHOOK, node_id, app_name, int(paused))

    async def log_delivery(self, node_id: bytes, delivery: Delivery) -> None:
        """Remember what became of a notification; not durable. Raises StoreUnavailable."""
        key = self._keys.deliveries(node_id)
        await self._link.change_together(
            ("LPUSH", key, packed_delivery(delivery).encode()),
            ("LTRIM", key, 0, DELIVERIES - 1),
            ("EXPIRE", key, DELIVERIES_FOR),
        )

    async def deliveries(self, node_id: bytes) -> Sequence[Delivery]:
        """What became of a node's last notifications, newest first. Raises StoreUnavailable."""
        (found,) = await self._link.read(("LRANGE", self._keys.deliveries(node_id), 0, -1))
        return [to_delivery(packed) for packed in found]

    async def webhook_nodes(self) -> Mapping[bytes, int | None]:
        """Every node with webhooks, and since when (seconds) nothing has spoken for keeping them."""
        found: dict[bytes, int | None] = {}
        async for part in self._link.scan(self._keys.webhook_nodes):
            for node, since in part.items():
                with self._link.passing_over(node):
                    found[to_node_id(node)] = to_unneeded_since(since)
        return found

    async def mark_unneeded(self, node_id: bytes, since: int | None) -> None:
        """Remember since when nothing speaks for keeping a node's webhooks; None: something does.

        Not durable: what a crash of Redis undoes is found out again. Raises NotLeading, StoreUnavailable.
        """
        await self._link.fence()
        args: list[Argument] = [node_id.hex(), "" if since is None else since]
        await self._link.change(
            MARK_UNNEEDED, [self._keys.webhook_nodes], args, f"node {node_id.hex()}", durable=False
        )

    async def forget_webhooks(self, node_id: bytes) -> None:
        """Forget a node's webhooks and deliveries. Raises NotLeading, StoreUnavailable."""
        await self._link.fence()
        keys = self._keys
        async with self._link.lock(node_id):
            await self._link.change_command("DEL", keys.webhooks(node_id), keys.deliveries(node_id))
            await self._link.change_command("HDEL", keys.webhook_nodes, node_id.hex())

    async def _on_webhook(
        self, script: Script, node_id: bytes, app_name: str, *args: Argument, durable: bool = True
    ) -> list[int]:
        # repr: the name may hold control characters, and the text is for an operator's terminal.
        what = f"webhook {app_name!r} of node {node_id.hex()}"
        keys = [self._keys.webhooks(node_id)]
        return await self._link.change(script, keys, [app_name.encode(), *args], what, durable=durable)
