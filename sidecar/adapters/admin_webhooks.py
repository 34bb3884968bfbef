"""The admin service for webhooks: what `sidecar webhook …` asks of a running server."""

# ruff: noqa: N802, ARG002 - gRPC names the methods, and says what they are given

import re
from collections.abc import Sequence
from typing import Protocol

from sidecar.adapters.admin import find_client, read_node_id
from sidecar.adapters.audit import Context
from sidecar.core import webhooks
from sidecar.core.errors import ClientRevoked, NodeUnknown, NoSuchWebhook, TooManyWebhooks
from sidecar.core.model import ClientState
from sidecar.core.webhooks import Delivery, Webhook, WebhookSet
from sidecar.ports import Store, WebhookStore
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc

_NODE_ID = re.compile(r"[0-9a-fA-F]{66}")


class Registrar(Protocol):
    """Registers webhooks by the rules of LSPS5."""

    async def register(self, node_id: bytes, app_name: str, url: str) -> WebhookSet:
        """As lsps5.set_webhook does. Raises BadWebhook, TooManyWebhooks, StoreUnavailable."""

    async def unregister(self, node_id: bytes, app_name: str) -> None:
        """As lsps5.remove_webhook does. Raises NoSuchWebhook, StoreUnavailable."""


class Tester(Protocol):
    """Notifies on the operator's word."""

    async def test(self, node_id: bytes, app_name: str | None) -> Sequence[Delivery]:
        """One try for each webhook of a node, or for one of them."""


def _webhook(webhook: Webhook) -> admin_pb2.Webhook:
    state = webhook.state
    return admin_pb2.Webhook(
        app_name=webhook.app_name,
        host=webhooks.host_of(webhook.url),
        registered_at=webhook.registered_at,
        announced=state.announced,
        failures=state.failures,
        paused_until=state.paused_until,
        paused=state.paused,
    )


def _delivery(delivery: Delivery) -> admin_pb2.Delivery:
    return admin_pb2.Delivery(
        at_ms=delivery.at_ms,
        app_name=delivery.app_name,
        method=delivery.method,
        outcome=delivery.outcome,
        tries=delivery.tries,
    )


def _no_such_webhook(client: str) -> NoSuchWebhook:
    return NoSuchWebhook(f"{client} has no such webhook: `sidecar webhook list {client}` shows all")


class WebhooksService(admin_pb2_grpc.WebhooksServicer):
    """Webhooks of clients, by the hand of the operator or of an app's backend."""

    def __init__(self, store: Store, hooks: WebhookStore, registrar: Registrar, tester: Tester) -> None:
        self._store = store
        self._hooks = hooks
        self._registrar = registrar
        self._tester = tester

    async def AddWebhook(
        self, request: admin_pb2.AddWebhookRequest, context: Context
    ) -> admin_pb2.AddWebhookResponse:
        """Register a webhook as the client itself would; webhook_registered goes to it."""
        node_id = await self._node(request.client)
        try:
            done = await self._registrar.register(node_id, request.app_name, request.url)
        except TooManyWebhooks:
            raise TooManyWebhooks(
                f"{request.client} has as many webhooks as it may have: remove one with "
                "`sidecar webhook remove`, or raise lsps5.max_webhooks"
            ) from None
        return admin_pb2.AddWebhookResponse(count=done.count, no_change=done.no_change)

    async def ListWebhooks(
        self, request: admin_pb2.ListWebhooksRequest, context: Context
    ) -> admin_pb2.ListWebhooksResponse:
        """A node's webhooks, and what became of the last notifications."""
        node_id = await self._node(request.client)
        return admin_pb2.ListWebhooksResponse(
            node_id=node_id.hex(),
            webhooks=[_webhook(each) for each in await self._hooks.webhooks(node_id)],
            deliveries=[_delivery(each) for each in await self._hooks.deliveries(node_id)],
        )

    async def TestWebhooks(
        self, request: admin_pb2.TestWebhooksRequest, context: Context
    ) -> admin_pb2.TestWebhooksResponse:
        """Notify now, and tell what came of it."""
        node_id = await self._node(request.client)
        there = {each.app_name for each in await self._hooks.webhooks(node_id)}
        if not there or (request.app_name and request.app_name not in there):
            raise _no_such_webhook(request.client)
        done = await self._tester.test(node_id, request.app_name or None)
        return admin_pb2.TestWebhooksResponse(deliveries=[_delivery(each) for each in done])

    async def PauseWebhook(
        self, request: admin_pb2.PauseWebhookRequest, context: Context
    ) -> admin_pb2.PauseWebhookResponse:
        """Stop using a webhook, or use it again."""
        node_id = await self._node(request.client)
        try:
            await self._hooks.pause_webhook(node_id, request.app_name, paused=request.paused)
        except NoSuchWebhook:
            raise _no_such_webhook(request.client) from None
        return admin_pb2.PauseWebhookResponse()

    async def RemoveWebhook(
        self, request: admin_pb2.RemoveWebhookRequest, context: Context
    ) -> admin_pb2.RemoveWebhookResponse:
        """Forget a webhook."""
        node_id = await self._node(request.client)
        try:
            await self._registrar.unregister(node_id, request.app_name)
        except NoSuchWebhook:
            raise _no_such_webhook(request.client) from None
        return admin_pb2.RemoveWebhookResponse()

    async def _node(self, name: str) -> bytes:
        """The node that a client is. Raises NoSuchClient, NodeUnknown, BadNodeId, StoreUnavailable."""
        if _NODE_ID.fullmatch(name):
            return read_node_id(name)
        client = await find_client(self._store, name)
        if client.state is ClientState.REVOKED:
            # Its node may be another client's by now.
            raise ClientRevoked(f"client {client.name} is revoked: name its node by the node's own id")
        if client.node_id is None:
            raise NodeUnknown(
                f"the node of client {client.name} is not known yet: it is learnt when its wallet leaves an "
                f"invoice, or give it with `sidecar client rebind {client.name} --node-id ID`"
            )
        return client.node_id
