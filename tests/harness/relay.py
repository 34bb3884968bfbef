"""A way between a peer and LND on which a test decides what arrives, and when."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from tests.harness.running import Running

HOST = "127.0.0.1"
WAIT_SECONDS = 30.0
_CHUNK = 65_536
_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time at all: closing sends RST."""


class Relay(Running):
    """Listens on `port`, and passes on what comes there to `target_port`, and what comes back.

    "Up" is from the side that connects (a wallet, a payer) to LND, "down" from LND to it. Each can be
    held: it is read, so that the sender notices nothing, and kept in order until `release()`. The end
    of a connection is part of what its side sends: it is held too, and passed on after the bytes.
    A reset is passed on as an end, so that nothing is lost which was sent before it. A slow reader
    slows nobody down: what it has not taken yet is kept here.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        """The same each time that it is started."""
        self._up, self._down = _Valve(), _Valve()
        self._open: set[_Connection] = set()
        self._silent: set[_Connection] = set()
        self._listener: socket.socket | None = None

    async def start(self) -> None:
        """Listen."""
        listener = socket.create_server((HOST, self.port), backlog=socket.SOMAXCONN)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept_waiting)

    async def stop(self) -> None:
        """End all connections, and listen no more."""
        if self._listener is not None:
            _close(self._listener)
            self._listener = None
        await asyncio.gather(*(self._end(each) for each in self._open | self._silent))

    def hold_up(self) -> None:
        """Keep back from now on what the connecting sides send; on connections to come as well."""
        self._up.hold()

    def hold_down(self) -> None:
        """Keep back from now on what LND sends; on connections to come as well."""
        self._down.hold()

    def release(self) -> None:
        """Let both directions flow again; what was kept goes first."""
        self._up.release()
        self._down.release()

    def release_down(self) -> None:
        """Let flow again what LND sends; what was kept goes first."""
        self._down.release()

    @property
    def held_up(self) -> int:
        """Bytes for LND that are kept now."""
        return sum(len(each.up.kept) for each in self._open)

    @property
    def held_down(self) -> int:
        """Bytes from LND that are kept now."""
        return sum(len(each.down.kept) for each in self._open)

    async def until_held_up(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Wait until at least so many bytes for LND are kept. Raises AssertionError."""
        await _until_held(self._up, lambda: self.held_up, count, timeout, "for LND")

    async def until_held_down(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Wait until at least so many bytes from LND are kept. Raises AssertionError."""
        await _until_held(self._down, lambda: self.held_down, count, timeout, "from LND")

    def silence(self) -> None:
        """Take the network away from all connections that stand now, as from a phone out of reach.

        Nothing more is read from either side or written to it, what was kept is lost, and none is
        closed, whatever its ends do. Connections made later are as ever.
        """
        self._accept_waiting()
        for connection in self._open:
            connection.task.cancel()
        self._silent |= self._open
        self._open.clear()

    def cut(self) -> None:
        """Reset all connections, silent ones too; what was kept is lost."""
        self._accept_waiting()
        for connection in self._open | self._silent:
            connection.task.cancel()
            connection.abort()
        self._open.clear()
        self._silent.clear()

    def _accept_waiting(self) -> None:
        """Take in all who have connected: for them the connection stands, whether we have looked or not."""
        if self._listener is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                peer, _ = self._listener.accept()
                self._take(_Connection(peer, self.target_port, self._up, self._down))

    def _take(self, connection: _Connection) -> None:
        self._open.add(connection)
        connection.task.add_done_callback(lambda _: self._open.discard(connection))

    async def _end(self, connection: _Connection) -> None:
        connection.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connection.task
        connection.close()
        self._open.discard(connection)
        self._silent.discard(connection)


class _Valve:
    """Whether the bytes of one direction flow; tells who waits of each change, of what is kept too."""

    def __init__(self) -> None:
        self.holding = False
        self._changed = asyncio.Event()

    def hold(self) -> None:
        self.holding = True

    def release(self) -> None:
        self.holding = False
        self.tell()

    def tell(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            # Whoever waits already is woken by the next set() all the same.
            self._changed.clear()
            await self._changed.wait()


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, valve: _Valve) -> None:
        self.kept = bytearray()
        self._source, self._sink, self._valve = source, sink, valve
        self._ended = False
        self._broken = False

    async def read(self) -> None:
        """Keep what the source sends, until it ends."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._source, _CHUNK):
                if not self._broken:
                    self.kept += data
                    self._valve.tell()
                # While there is more, sock_recv does not wait: the others must have their turn.
                await asyncio.sleep(0)
        self._ended = True
        self._valve.tell()

    async def write(self) -> None:
        """Pass on what is kept whenever the valve lets it, and in the end that it has ended."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                await self._valve.until(lambda: not self._valve.holding and (bool(self.kept) or self._ended))
                if not self.kept:
                    break
                data, self.kept = self.kept, bytearray()
                await loop.sock_sendall(self._sink, data)
            self._sink.shutdown(socket.SHUT_WR)
        # The sink may be gone before the source has ended: what still comes is for nobody.
        self._broken = True
        self.kept.clear()


class _Connection:
    """A peer's connection with ours to LND; lives from its making."""

    def __init__(self, peer: socket.socket, port: int, up: _Valve, down: _Valve) -> None:
        self._peer, self._lnd = peer, socket.socket()
        for each in (self._peer, self._lnd):
            each.setblocking(False)
            # What is passed on in small pieces must not wait for acknowledgements.
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.up, self.down = _Pipe(self._peer, self._lnd, up), _Pipe(self._lnd, self._peer, down)
        self.task = asyncio.create_task(self._run(port))

    def close(self) -> None:
        """Close both sides; may be called again."""
        _close(self._peer)
        _close(self._lnd)

    def abort(self) -> None:
        """Reset both sides."""
        for each in (self._peer, self._lnd):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()

    async def _run(self, port: int) -> None:
        # Cancelled when silence falls: only an end of its own closes it.
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_connect(self._lnd, (HOST, port))
            # gather, not a TaskGroup: when it is cancelled, what it waits for is cancelled at once.
            await asyncio.gather(self.up.read(), self.up.write(), self.down.read(), self.down.write())
        self.close()


def _close(sock: socket.socket) -> None:
    if sock.fileno() >= 0:
        # Forgotten before it is closed: the next socket may get the same number.
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.remove_writer(sock)
    sock.close()


async def _until_held(valve: _Valve, held: Callable[[], int], count: int, timeout: float, whose: str) -> None:
    try:
        async with asyncio.timeout(timeout):
            await valve.until(lambda: held() >= count)
    except TimeoutError:
        raise AssertionError(f"{held()} of {count} bytes {whose} are held after {timeout} s") from None
