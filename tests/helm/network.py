"""A network of its own for a test: loopback and nothing else, in which the chart's ports are free.

All pods of a test share it. What the test itself runs stays outside, and reaches it through `forwarded`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tests.harness.running import Running

HOST = "127.0.0.1"

_T = TypeVar("_T")
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_SET_FLAGS, _UP = 0x8914, 1  # SIOCSIFFLAGS, IFF_UP
_OWN = "/proc/thread-self/ns/net"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Network(Running):
    """`async with Network() as network: ...`; it is there for as long as somebody has it open."""

    def __init__(self) -> None:
        self._file = -1
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def path(self) -> Path:
        """What stands for it in `nsenter --net`."""
        return Path(f"/proc/{os.getpid()}/fd/{self._file}")

    async def start(self) -> None:
        """Make it. Raises OSError."""
        self._file = await asyncio.to_thread(_in_a_thread, _made)

    async def stop(self) -> None:
        """Hang up, and let go of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        os.close(self._file)

    def socket(self) -> socket.socket:
        """A TCP socket in it: a socket stays where it was made, whoever uses it."""
        own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self._file)
            try:
                made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            finally:
                _enter(own)
        finally:
            os.close(own)
        made.setblocking(False)
        return made

    async def connect(self, port: int) -> Streams:
        """A connection to a port in it. Raises OSError."""
        made = self.socket()
        try:
            await asyncio.get_running_loop().sock_connect(made, (HOST, port))
            return await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise

    @contextlib.asynccontextmanager
    async def forwarded(self, port: int) -> AsyncIterator[int]:
        """A port outside that leads to one inside, as `kubectl port-forward` makes it."""
        server = await asyncio.start_server(self._passing(lambda: self.connect(port)), HOST, 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    @contextlib.asynccontextmanager
    async def offered(self, port: int, outside: int) -> AsyncIterator[None]:
        """A port inside that leads to one outside: what is no pod."""
        made = self.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        passing = self._passing(lambda: asyncio.open_connection(HOST, outside))
        async with await asyncio.start_server(passing, sock=made):
            yield

    def _passing(
        self, dial: Callable[[], Awaitable[Streams]]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_pass_on((reader, writer), dial))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return come


async def _pass_on(near: Streams, dial: Callable[[], Awaitable[Streams]]) -> None:
    with contextlib.closing(near[1]), contextlib.suppress(OSError):
        far = await dial()
        with contextlib.closing(far[1]):
            ways = (_pump(near[0], far[1]), _pump(far[0], near[1]))
            await asyncio.gather(*ways)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _made() -> int:
    _call("unshare", _NEW_NETWORK)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _enter(file: int) -> None:
    _call("setns", file, _NEW_NETWORK)


def _call(name: str, *arguments: int) -> None:
    # Of this thread alone. Python has both calls of its own from 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _in_a_thread(work: Callable[[], _T]) -> _T:
    """What `work` gives, done in a thread that ends with it: one of a pool would stay in the new network."""
    results: list[_T] = []
    errors: list[OSError] = []

    def do() -> None:
        try:
            results.append(work())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
