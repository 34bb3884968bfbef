"""A relay with plain TCP ends on both sides: what its own tests speak through."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.harness.relay import HOST, Relay
from tests.harness.running import Running

TIMEOUT = 10
"""Seconds within which what is passed on must have come."""
NOTHING = 0.3
"""Seconds without a byte that count as nothing; what is passed on takes milliseconds."""

Way = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send; ready when the sockets have taken it. Raises TimeoutError."""
        self.writer.write(data)
        async with asyncio.timeout(TIMEOUT):
            await self.writer.drain()

    async def receive(self, count: int) -> bytes:
        """The next so many bytes."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """All until the other side ends. Raises ConnectionResetError."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.read()

    async def gets_nothing(self) -> None:
        """Neither a byte nor an end comes for a while."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(NOTHING):
                await self.reader.read(1)

    def reset(self) -> None:
        """End with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Target(Running):
    """Stands where LND would, and hands out what connects to it."""

    def __init__(self) -> None:
        self.port = 0
        self._came: asyncio.Queue[End] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._ends: list[End] = []

    async def start(self) -> None:
        """Listen; on the same port each time."""
        self._server = await asyncio.start_server(self._take, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and hang up."""
        assert self._server is not None
        self._server.close()
        for end in self._ends:
            end.writer.transport.abort()
        await self._server.wait_closed()

    async def end(self) -> End:
        """The next that connects; waits."""
        async with asyncio.timeout(TIMEOUT):
            return await self._came.get()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(End(reader, writer))
        self._came.put_nowait(self._ends[-1])


class Line:
    """A relay with a target behind it."""

    def __init__(self, relay: Relay, target: Target) -> None:
        self.relay, self.target = relay, target
        self._dialled: list[End] = []

    async def dial(self) -> End:
        """Connect to the relay."""
        end = End(*await asyncio.open_connection(HOST, self.relay.port))
        self._dialled.append(end)
        return end

    async def pair(self, way: Way = "up") -> tuple[End, End]:
        """A connection through the relay: who speaks that way, and who hears."""
        wallet, lnd = await self.dial(), await self.target.end()
        return (wallet, lnd) if way == "up" else (lnd, wallet)

    def hold(self, way: Way) -> None:
        """Keep back what goes that way."""
        getattr(self.relay, f"hold_{way}")()

    def held(self, way: Way) -> int:
        """Bytes kept that way."""
        count: int = getattr(self.relay, f"held_{way}")
        return count

    async def until_held(self, way: Way, *arguments: float) -> None:
        """Wait for bytes that are kept that way."""
        await getattr(self.relay, f"until_held_{way}")(*arguments)

    def hang_up(self) -> None:
        """Close what was dialled."""
        for end in self._dialled:
            end.writer.transport.abort()
