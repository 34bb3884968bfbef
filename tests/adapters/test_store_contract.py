"""The stores that tests use in Redis's place keep the same contracts."""

import asyncio
from dataclasses import replace

import pytest

from sidecar.core.errors import StoreUnavailable
from sidecar.core.model import Loaded, Usage
from sidecar.ports import MailStore, Store, WebhookStore
from tests.harness.binding_contract import BindingContract
from tests.harness.mail_contract import PLENTY, ROOM, MailContract, a_letter
from tests.harness.memory_store import MemoryStore
from tests.harness.memory_webhooks import MemoryWebhooks
from tests.harness.store_contract import StoreContract, a_client, a_node, an_invoice
from tests.harness.webhook_contract import MOST, WebhookContract, a_webhook


class TestMemoryStore(StoreContract):
    """ports.Store in memory."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty one."""
        return MemoryStore()


class TestMemoryBindings(BindingContract):
    """The nodes of its clients."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty one."""
        return MemoryStore()


class TestMemoryMail(MailContract):
    """ports.MailStore in memory: the same object."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        """An empty one."""
        return MemoryStore()

    @pytest.fixture
    def mailbox(self, store: MemoryStore) -> MailStore:
        """The mail of its clients."""
        return store


class TestMemoryWebhooks(WebhookContract):
    """ports.WebhookStore in memory."""

    @pytest.fixture
    def webhooks(self) -> WebhookStore:
        """An empty one."""
        return MemoryWebhooks()


async def test_marks_of_the_memory_store_end_by_its_clock() -> None:
    """A mark is gone after its end, which no test can wait for on a real clock."""
    now = 1_700_000_000.0
    store, client = MemoryStore(lambda: now), a_client()
    await store.add_client(client)
    invoice = replace(an_invoice(), stored_at=int(now), expires_at=int(now) + 10)
    await store.save(client.client_id, invoice, int(now) + 20)
    now += 15
    assert (await store.load(client.client_id, 0)).mark is not None
    now += 10
    assert await store.load(client.client_id, 0) == Loaded(client, None, None)


async def test_a_memory_store_that_is_away_says_so() -> None:
    """It fails as a Redis that is down does, and goes on when it is back."""
    store = MemoryStore()
    store.away = True
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(store.list_clients(), 1)
    with pytest.raises(StoreUnavailable):
        await store.keep(bytes(10), a_letter(), PLENTY, ROOM)
    webhooks = MemoryWebhooks()
    webhooks.away = True
    with pytest.raises(StoreUnavailable):
        await webhooks.set_webhook(a_node(), a_webhook(), MOST)
    store.away = False
    client = a_client()
    await store.add_client(client)
    assert list(await store.list_clients()) == [(client, Usage(0, 0))]
