"""Push services for the benchmark, in a process of their own: a good one, and three kinds of dead ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from tests.bench.children import Child, serve
from tests.harness.push_service import Notification, PushService, hang

DOMAIN = "push.test"
CA_FILE = "push-ca.pem"


class _Arrivals(asyncio.Queue[Notification]):
    """What came, by the number in its path; nobody takes it out one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float]] = []

    def put_nowait(self, item: Notification) -> None:
        """Note it."""
        self.seen.append((int(item.path.removeprefix("/")), time.monotonic()))


class _Service(PushService):
    """One for any name of the domain."""

    def __init__(self, directory: Path, ca: trustme.CA) -> None:
        super().__init__(directory, ca=ca)
        self._received = self.arrivals = _Arrivals()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(f"*.{DOMAIN}").configure_cert(self._context)


def _held(*, listens: bool) -> socket.socket:
    """A port that refuses; or one whose connections stand, and where nobody ever speaks."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    if listens:
        made.listen(4_096)
    return made


class _Pushes:
    """All of them, started when it is told where their files go."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._arrivals = _Arrivals()

    async def start(self, told: dict[str, Any]) -> dict[str, Any]:
        """`directory`; says the port of each."""
        ca, directory = trustme.CA(), Path(told["directory"])
        living, mute = [
            await self._stack.enter_async_context(_Service(directory, ca)) for _ in ("living", "mute")
        ]
        mute.behaviour = hang
        self._arrivals = living.arrivals
        refusing, speechless = (
            self._stack.enter_context(_held(listens=listens)) for listens in (False, True)
        )
        return {
            "living": living.port,
            "refuses": refusing.getsockname()[1],
            "never answers": mute.port,
            "TLS hangs": speechless.getsockname()[1],
        }

    async def arrived(self, _: dict[str, Any]) -> dict[str, Any]:
        """The number of each notification that came since, and when, by the system's monotonic clock."""
        seen, self._arrivals.seen = self._arrivals.seen, []
        return {"seen": seen}


@dataclass(frozen=True, slots=True)
class PushProcess:
    """The process, seen from outside."""

    ports: dict[str, int]
    ca_file: Path
    _child: Child

    async def arrived(self) -> dict[int, float]:
        """What the living service got since it was asked last: number → when."""
        return dict((await self._child.ask("arrived"))["seen"])


@asynccontextmanager
async def push_process(directory: Path) -> AsyncIterator[PushProcess]:
    """Start it, and end it."""
    async with Child("tests.bench.wake_push") as child:
        ports = await child.ask("start", directory=str(directory))
        yield PushProcess(ports, directory / CA_FILE, child)


async def main() -> None:
    """Serve until stdin is closed."""
    async with AsyncExitStack() as stack:
        pushes = _Pushes(stack)
        await serve({"start": pushes.start, "arrived": pushes.arrived})


if __name__ == "__main__":
    asyncio.run(main())
