"""Push services for the benchmark, in a process of their own: one that works, and three kinds of dead ones.

`python -m tests.bench.wake_push DIRECTORY` says its ports in one line of JSON. For each line that it is
given it says what came since: the number of each notification, and when, by the system's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.harness.push_service import Notification, PushService, hang

DOMAIN = "push.test"
CA_FILE = "push-ca.pem"
_STOP_SECONDS = 10.0


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


async def _serve(directory: Path) -> None:
    ca = trustme.CA()
    refusing, speechless = _held(listens=False), _held(listens=True)
    async with _Service(directory, ca) as living, _Service(directory, ca) as mute:
        mute.behaviour = hang
        ports = {
            "living": living.port,
            "refuses": refusing.getsockname()[1],
            "never answers": mute.port,
            "TLS hangs": speechless.getsockname()[1],
        }
        print(json.dumps(ports), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(living.arrivals.seen), flush=True)
            living.arrivals.seen.clear()


@dataclass(frozen=True, slots=True)
class PushProcess:
    """The process, seen from outside."""

    ports: dict[str, int]
    ca_file: Path
    _process: asyncio.subprocess.Process

    async def arrived(self) -> dict[int, float]:
        """What the living service got since it was asked last: number → when."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return dict(json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def push_process(directory: Path) -> AsyncIterator[PushProcess]:
    """Start it, and end it by closing its input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.wake_push", str(directory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports = json.loads(await process.stdout.readline())
        yield PushProcess(ports, directory / CA_FILE, process)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
