"""The store that tests use in Redis's place keeps the same contract."""

import asyncio
from dataclasses import replace

import pytest

from sidecar.core.errors import StoreUnavailable
from sidecar.core.model import Loaded, Usage
from sidecar.ports import Store
from tests.harness.memory_store import MemoryStore
from tests.harness.store_contract import StoreContract, a_client, an_invoice


class TestMemoryStore(StoreContract):
    """ports.Store in memory."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty one."""
        return MemoryStore()


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
    store.away = False
    client = a_client()
    await store.add_client(client)
    assert list(await store.list_clients()) == [(client, Usage(0, 0))]
