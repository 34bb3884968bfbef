"""What a program says line by line, as events that a test can wait for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Test = Callable[[Event], bool]

WAIT_SECONDS = 30.0
"""Far more than anything takes: on a busy machine an LND needs 10 s to start."""


class Events:
    """JSON objects, one a line, each with its name in `ev`: kept in order, and waited for.

    Each wait looks at all of them from `since` on (an index, taken with `mark()`), so nothing is
    missed that came before the wait began. What does not come in time is an AssertionError with the
    last events and the end of the program's log.
    """

    def __init__(self, name: str, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self.events: list[Event] = []
        self._came = asyncio.Condition()
        self._ended = False

    def mark(self) -> int:
        """The place in `events` where what comes from now on begins: for `since`."""
        return len(self.events)

    async def until(
        self, test: Test, timeout: float = WAIT_SECONDS, *, since: int = 0, count: int = 1, what: str = ""
    ) -> list[Event]:
        """Wait for `count` events that pass the test, and give all that do."""

        def found() -> list[Event]:
            return [event for event in self.events[since:] if test(event)]

        def done() -> bool:
            return self._ended or len(found()) >= count

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._came:
                await self._came.wait_for(done)
        if len(events := found()) < count:
            raise AssertionError(self._missed(what or "what was waited for", len(events), count, timeout))
        return events

    async def named(
        self, name: str, timeout: float = WAIT_SECONDS, *, since: int = 0, count: int = 1, **fields: Any
    ) -> Event:
        """The last of the first `count` events of that name whose fields are as given."""

        def test(event: Event) -> bool:
            return event["ev"] == name and all(event.get(key) == value for key, value in fields.items())

        what = " ".join([name, *(f"{key}={value}" for key, value in fields.items())])
        return (await self.until(test, timeout, since=since, count=count, what=what))[count - 1]

    async def got(
        self, message: str, timeout: float = WAIT_SECONDS, *, since: int = 0, count: int = 1, **fields: Any
    ) -> Event:
        """The `count`-th message of that name that came in."""
        return await self.named("got", timeout, since=since, count=count, msg=message, **fields)

    async def sent(
        self, message: str, timeout: float = WAIT_SECONDS, *, since: int = 0, count: int = 1, **fields: Any
    ) -> Event:
        """The `count`-th message of that name that it handed out to be sent."""
        return await self.named("sends", timeout, since=since, count=count, msg=message, **fields)

    async def event(
        self, name: str, timeout: float = WAIT_SECONDS, *, since: int = 0, count: int = 1, **fields: Any
    ) -> Event:
        """The `count`-th of LDK's own events of that name (`PaymentFailed`, …)."""
        return await self.named("event", timeout, since=since, count=count, event=name, **fields)

    def seen(self, name: str, *, since: int = 0, **fields: Any) -> list[Event]:
        """The events of that name so far, without waiting."""
        return [
            event
            for event in self.events[since:]
            if event["ev"] == name and all(event.get(key) == value for key, value in fields.items())
        ]

    def read(self, stream: asyncio.StreamReader) -> Coroutine[Any, Any, None]:
        """Take in the program's lines until it ends."""
        # At once, not when the task first runs: a wait that begins before would take it for gone.
        self._ended = False
        return self._read(stream)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            async with self._came:
                self.events.append(json.loads(line))
                self._came.notify_all()
        async with self._came:
            self._ended = True
            self._came.notify_all()

    def _missed(self, what: str, found: int, count: int, timeout: float) -> str:
        why = "the process ended" if self._ended else f"after {timeout} s"
        return f"{self.name}: {what}: {found} of {count}, {why}\n{self.tail()}"

    def tail(self) -> str:
        """The last events and the end of the log, for a message."""
        last = "\n".join(f"  {json.dumps(event)[:400]}" for event in self.events[-12:])
        log = self.log_path.read_bytes()[-3000:].decode(errors="replace") if self.log_path.exists() else ""
        return f"last events:\n{last}\nend of {self.log_path.name}:\n{log}"
