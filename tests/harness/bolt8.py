"""A Lightning peer for tests: BOLT 8's encrypted transport, and as much of BOLT 1 as a peer needs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import Self, TypeVar

from sidecar.core import keys
from tests.harness.link import LinkClosed
from tests.harness.noise import ACT_ONE, ACT_THREE, ACT_TWO, TAG, CipherState, Handshake, HandshakeError

_T = TypeVar("_T")

_TIMEOUT = 10.0

WARNING, INIT, ERROR, PING, PONG, ONION_MESSAGE = 1, 16, 17, 18, 19, 513
_FIRST_CUSTOM = 32768
_GOSSIP = range(256, 266)
# data_loss_protect, gossip_queries, var_onion_optin, static_remotekey, payment_secret,
# onion_messages and channel_type: what LND demands of a peer, and bit 39 (BOLT 9).
FEATURES = frozenset({1, 7, 9, 12, 14, 39, 45})


class Bolt8Link:
    """An open connection between us and a peer: `tests.harness.link.Link`, over TCP."""

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        ciphers: tuple[CipherState, CipherState],
        node_id: bytes,
        remote_node_id: bytes,
    ) -> None:
        """Made by `connect` and `Listener.accept`; `ciphers` are for sending and for receiving."""
        self.node_id = node_id
        self.remote_node_id = remote_node_id
        self.remote_features: frozenset[int] = frozenset()
        self._reader, self._writer = streams
        self._sender, self._receiver = ciphers
        self._onions: asyncio.Queue[tuple[bytes, bytes] | None] = asyncio.Queue()
        self._customs: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._why = "closed by ourselves"
        self._pump: asyncio.Task[None] | None = None

    async def send_onion(self, path_key: bytes, onion: bytes) -> None:
        """Send an onion message (BOLT 4: path_key, u16 length, onion packet)."""
        await self.send(ONION_MESSAGE, path_key + len(onion).to_bytes(2, "big") + onion)

    async def receive_onion(self) -> tuple[bytes, bytes]:
        """The next onion message's (path_key, onion). Raises LinkClosed."""
        return await self._take(self._onions)

    async def send_custom(self, type_: int, data: bytes) -> None:
        """Send a message of a custom type."""
        await self.send(type_, data)

    async def receive_custom(self) -> tuple[int, bytes]:
        """The next custom message's (type, data). Raises LinkClosed."""
        return await self._take(self._customs)

    async def send(self, type_: int, data: bytes) -> None:
        """Send any message. Raises LinkClosed."""
        if self._writer.is_closing():
            raise LinkClosed(self._why)
        # Encrypting takes a nonce: it and the write must not be parted by an await.
        self._writer.write(self._sender.encrypt(type_.to_bytes(2, "big") + data))
        try:
            await self._writer.drain()
        except OSError as error:
            raise LinkClosed(str(error)) from error

    async def close(self) -> None:
        """Hang up; may be called again."""
        self._writer.close()
        self.freeze()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        self._end()

    def freeze(self) -> None:
        """Read and answer nothing any more, and keep the socket open: a phone that was suspended."""
        if self._pump is not None:
            self._pump.cancel()

    async def wait_closed(self) -> None:
        """Until the other side has hung up."""
        if self._pump is not None:
            await asyncio.wait({self._pump})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self, features: Iterable[int]) -> None:
        """Exchange `init`, which each side sends first (BOLT 1, "The `init` Message")."""
        flags = _feature_bytes(features)
        await self.send(INIT, b"\0\0" + len(flags).to_bytes(2, "big") + flags)
        type_, data = await self._read()
        if type_ != INIT:
            raise LinkClosed(f"message {type_} where init was due")
        self.remote_features = _read_init(data)
        self._pump = asyncio.create_task(self._receive_all())

    async def _take(self, queue: asyncio.Queue[_T | None]) -> _T:
        item = await queue.get()
        if item is None:
            queue.put_nowait(None)
            raise LinkClosed(self._why)
        return item

    async def _read(self) -> tuple[int, bytes]:
        try:
            length = self._receiver.decrypt(await self._reader.readexactly(2 + TAG))
            sealed = await self._reader.readexactly(int.from_bytes(length, "big") + TAG)
        except asyncio.IncompleteReadError:
            raise LinkClosed("the peer hung up") from None
        except OSError as error:
            raise LinkClosed(str(error)) from error
        message = self._receiver.decrypt(sealed)
        return int.from_bytes(message[:2], "big"), message[2:]

    async def _receive_all(self) -> None:
        try:
            while True:
                await self._receive(*await self._read())
        except LinkClosed as error:
            self._why = str(error)
            self._writer.close()
            self._end()

    async def _receive(self, type_: int, data: bytes) -> None:
        if type_ == ONION_MESSAGE:
            length = int.from_bytes(data[33:35], "big")
            self._onions.put_nowait((data[:33], data[35 : 35 + length]))
        elif type_ == PING:
            # BOLT 1: a ping that asks for 65,532 bytes or more wants no answer.
            wanted = int.from_bytes(data[:2], "big")
            if wanted < 65532:
                await self.send(PONG, wanted.to_bytes(2, "big") + bytes(wanted))
        elif type_ == ERROR:
            raise LinkClosed(f"error: {data[34:].decode(errors='replace')}")
        elif type_ >= _FIRST_CUSTOM:
            self._customs.put_nowait((type_, data))
        elif type_ % 2 == 0 and type_ not in _GOSSIP:
            raise LinkClosed(f"unknown even message {type_}")

    def _end(self) -> None:
        self._onions.put_nowait(None)
        self._customs.put_nowait(None)


async def connect(
    host: str, port: int, remote_node_id: bytes, secret: bytes, features: Iterable[int] = FEATURES
) -> Bolt8Link:
    """Dial a node; the link is ready to use. Raises HandshakeError, LinkClosed, OSError."""
    async with asyncio.timeout(_TIMEOUT):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            handshake = Handshake(secret, remote_node_id)
            writer.write(handshake.write_act_one())
            handshake.read_act_two(await _read_act(reader, ACT_TWO))
            act, sender, receiver = handshake.write_act_three()
            writer.write(act)
            link = Bolt8Link((reader, writer), (sender, receiver), keys.public_key(secret), remote_node_id)
            await link.start(features)
        except BaseException:
            writer.close()
            raise
    return link


class Listener:
    """A peer that can be dialled: `async with await listen(secret) as listener: ...`."""

    def __init__(self, secret: bytes, features: Iterable[int]) -> None:
        """Made by `listen`."""
        self.node_id = keys.public_key(secret)
        self.port = 0
        self._secret = secret
        self._features = frozenset(features)
        self._links: asyncio.Queue[Bolt8Link] = asyncio.Queue()
        self._open: list[Bolt8Link] = []
        self._server: asyncio.Server | None = None

    async def accept(self) -> Bolt8Link:
        """The next peer that dialled us and knew our node id; waits."""
        return await self._links.get()

    async def start(self, host: str, port: int) -> None:
        """Listen; called by `listen`."""
        self._server = await asyncio.start_server(self._answer, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and hang up on all who had dialled."""
        if self._server is not None:
            self._server.close()
        for link in self._open:
            await link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                handshake = Handshake(self._secret, self.node_id)
                handshake.read_act_one(await _read_act(reader, ACT_ONE))
                writer.write(handshake.write_act_two())
                remote, sender, receiver = handshake.read_act_three(await _read_act(reader, ACT_THREE))
                link = Bolt8Link((reader, writer), (sender, receiver), self.node_id, remote)
                await link.start(self._features)
        except (OSError, TimeoutError):
            # BOLT 8: whoever does not know our key gets no further message.
            writer.close()
            return
        self._open.append(link)
        self._links.put_nowait(link)


async def listen(
    secret: bytes, host: str = "127.0.0.1", port: int = 0, features: Iterable[int] = FEATURES
) -> Listener:
    """Wait for peers on a free port, or on `port`."""
    listener = Listener(secret, features)
    await listener.start(host, port)
    return listener


async def _read_act(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise HandshakeError("hung up during the handshake") from None


def _feature_bytes(features: Iterable[int]) -> bytes:
    flags = 0
    for bit in features:
        flags |= 1 << bit
    return flags.to_bytes((flags.bit_length() + 7) // 8, "big")


def _read_init(data: bytes) -> frozenset[int]:
    """Both feature fields of an `init`, OR-ed (BOLT 1)."""
    globals_end = 2 + int.from_bytes(data[:2], "big")
    end = globals_end + 2 + int.from_bytes(data[globals_end : globals_end + 2], "big")
    flags = int.from_bytes(data[2:globals_end], "big") | int.from_bytes(data[globals_end + 2 : end], "big")
    return frozenset(bit for bit in range(flags.bit_length()) if flags >> bit & 1)
