"""Small things that journeys assert."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.harness.node import Node

SILENCE = 1.0
"""Seconds without an answer that count as silence; an answer takes milliseconds."""


async def met_with_silence(node: Node) -> None:
    """Nothing comes for a while."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SILENCE):
            await node.link.receive_onion()


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 30) -> None:
    """Ask again until it holds, for what gives no event."""
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110 - another process's state: there is no event
            await asyncio.sleep(0.05)
