"""A push service: a real HTTPS server on loopback with a CA of its own, which can misbehave in many ways."""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import trustme

from tests.harness.running import Running

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What the service does once it has read a request; the connection is closed when it returns."""


class Certificate(Enum):
    """Which certificate the service shows."""

    GOOD = "of its CA, for its names"
    OTHER_CA = "of a CA that nobody was told of"
    WRONG_NAME = "of its CA, for another name"


@dataclass(frozen=True, slots=True)
class Notification:
    """One request as it came; header names in lower case, as sent without their order."""

    verb: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, *headers: str, body: bytes = b"") -> Behaviour:
    """Answer so, with headers such as `location: https://…`."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} So", *headers, f"content-length: {len(body)}"]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One after the other, one each request; the last one stays."""
    left = list(behaviours)

    async def behave(writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(writer)

    return behave


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await writer.wait_closed()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Answer one byte at a time, one in each tenth of a second."""
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def drip_body(writer: asyncio.StreamWriter) -> None:
    """Answer 200 at once, and its body one byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


async def endless_body(writer: asyncio.StreamWriter) -> None:
    """Answer 200 with 10 GB."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
    await _pour(writer, b"x" * 65_536)


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    """Answer 200 with headers that have no end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await _pour(writer, b"x-more: more\r\n" * 4_096)


async def endless_continue(writer: asyncio.StreamWriter) -> None:
    """Promise an answer without end."""
    await _pour(writer, b"HTTP/1.1 100 Continue\r\n\r\n" * 2_048)


async def _pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


async def garbage(writer: asyncio.StreamWriter) -> None:
    """Answer what is no HTTP."""
    writer.write(b"\x00\xff" * 100 + b"\r\n\r\n")
    await writer.drain()


async def hang_up(_: asyncio.StreamWriter) -> None:
    """Close without an answer."""


async def reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    socket = writer.get_extra_info("socket")
    # A socket that does not linger is reset when it is closed with something unread or unsent.
    socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


OK = answer(200)


class PushService(Running):
    """`async with PushService(directory) as service:`; listens on a free port of 127.0.0.1.

    `ca_file` is made in `directory`; `behaviour` may be changed at any time. `connections` counts who came,
    `open` who is there.
    """

    def __init__(
        self,
        directory: Path,
        behaviour: Behaviour = OK,
        certificate: Certificate = Certificate.GOOD,
        ca: trustme.CA | None = None,
    ) -> None:
        """Services that share a `ca` are all believed by whoever was given one's `ca_file`."""
        self.behaviour = behaviour
        self.port = 0
        self.connections = self.open = self.most_open = 0
        self._received: asyncio.Queue[Notification] = asyncio.Queue()
        self._ca = ca or trustme.CA()
        self.ca_file = directory / "push-ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        names = ["push.elsewhere.test"] if certificate is Certificate.WRONG_NAME else _NAMES
        issuer = trustme.CA() if certificate is Certificate.OTHER_CA else self._ca
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(*names).configure_cert(self._context)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, path: str = "/wake?token=secret", host: str = "127.0.0.1") -> str:
        """Where it is to be told."""
        return f"https://{host}:{self.port}{path}"

    async def next(self, timeout: float = 5) -> Notification:
        """The next notification, in the order in which they came. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            return await self._received.get()

    def forget(self) -> None:
        """What came so far: nobody will ask for it."""
        while not self._received.empty():
            self._received.get_nowait()

    def count(self) -> int:
        """How many came that were not asked for with `next` yet."""
        return self._received.qsize()

    async def start(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._context, limit=16_384
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Hang up on everybody, and listen no more."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            self._received.put_nowait(await _request(reader))
            await self.behaviour(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side has hung up
        finally:
            self.open -= 1
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                writer.close()


_NAMES = ["127.0.0.1", "localhost", *(f"{name}.push.test" for name in "abcd")]


async def _request(reader: asyncio.StreamReader) -> Notification:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n").split("\r\n")
    verb, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Notification(verb, path, headers, body)
