"""The whole sidecar does what a few dictionaries say that it should; here with its records in memory."""

import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.harness.memory_store import MemoryStore
from tests.harness.model_machine import Machine


class MemoryMachine(Machine):
    """On a MemoryStore, whose clock is moved on."""

    async def open_store(self) -> MemoryStore:
        """An empty one."""
        self.ahead = 0
        return MemoryStore(self.store_now)

    async def pass_store_time(self, seconds: int) -> None:
        """At once."""
        self.ahead += seconds

    def store_now(self) -> float:
        """The machine's clock, and what it was moved on by."""
        return time.time() + self.ahead


def test_the_sidecar_does_what_its_model_does() -> None:
    """Who gets what, what is kept and what is counted: the same after every step."""
    run_state_machine_as_test(
        MemoryMachine,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            derandomize=True,
        ),
    )
