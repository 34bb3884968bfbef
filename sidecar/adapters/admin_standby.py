"""What a server that stands by does with admin calls: it answers those that only look, and refuses the rest.

The one that leads knows letters that are not on disk yet, and has limits and queues in memory: a change that
was made beside it would be seen there late, or be undone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sidecar.adapters.audit import READS, AroundOurs, Context
from sidecar.core.errors import StandsBy
from sidecar.core.webhooks import printable

StandingBy = Callable[[], str | None]
"""The name of the one that leads; None while this server does, or nobody is known to."""

ALLOWED = READS | {"Backup.Export"}
"""Calls that a server that stands by answers. All others are for the one that leads."""


class StandbyGuard(AroundOurs):
    """Raises StandsBy in calls that change something, while the server stands by."""

    def __init__(self, standing_by: StandingBy) -> None:
        self._standing_by = standing_by

    @asynccontextmanager
    async def around(self, call: str, request: Any, context: Context) -> AsyncIterator[None]:  # noqa: ARG002
        """One call."""
        leader = self._standing_by()
        if leader is not None and call not in ALLOWED:
            raise StandsBy(refusal(leader))
        yield


def refusal(leader: str) -> str:
    """What the caller of a change is told."""
    name = printable(leader)
    return f"this sidecar stands by: {name} leads, ask that one (in Kubernetes: kubectl exec {name} …)"
