"""What a Redis says that makes no sense: a typed error, and never one command's answer for another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from sidecar.adapters.redis_cluster import ClusterMasters
from sidecar.adapters.redis_connect import connect
from sidecar.adapters.redis_masters import Masters, OneMaster, unavailable
from sidecar.core.errors import BadRecord, StoreUnavailable

Answers = Callable[[int, bytes], bytes]
"""What is answered on the connection of that number to what came."""


def always(said: bytes) -> Answers:
    """The same to everything."""
    return lambda _connection, _asked: said


@asynccontextmanager
async def saying(answers: Answers, scheme: str = "redis") -> AsyncIterator[Masters]:
    """A client of a server that answers just so."""
    connections = 0
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        writers.append(writer)
        while asked := await reader.read(65_536):
            writer.write(answers(mine, asked))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    masters = connect(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield masters
    finally:
        await masters.aclose()
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


NONSENSE = [
    b"-MOVED 3\r\n",
    b"-MOVED x 127.0.0.1:1\r\n",
    b"-ASK 3 127.0.0.1\r\n",
    b"-ASK\r\n",
    b":five\r\n",
    b"$-7x\r\n",
    b"?\r\n",
    b"*1\r\n" * 5_000 + b":1\r\n",
    b":5\r\n",
]


@pytest.mark.parametrize("said", NONSENSE, ids=lambda said: repr(said[:20]))
async def test_an_answer_without_sense_is_unavailable_and_mixes_nothing_up(said: bytes) -> None:
    """What follows on that connection is not read any more: it could be taken for another's answer."""

    def answers(connection: int, _asked: bytes) -> bytes:
        return said + b"$6\r\nanother\r\n"[:12] if connection == 1 else b"$4\r\nmine\r\n"

    async with saying(answers) as masters:
        with pytest.raises(StoreUnavailable):
            await masters.send([("HGETALL", "a"), ("GET", "b")])
        assert await masters.send([("GET", "c")]) == [b"mine"]


SLOTS = [
    b":7\r\n",
    b"*1\r\n*1\r\n:5\r\n",
    b"*1\r\n*2\r\n:0\r\n:16383\r\n",
    b"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$0\r\n\r\n:1\r\n",
    b"*1\r\n*3\r\n:9\r\n:3\r\n*2\r\n$0\r\n\r\n:1\r\n",
    b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\n\xff\r\n:1\r\n",
    b"*1\r\n*3\r\n$1\r\na\r\n:1\r\n*2\r\n:1\r\n:1\r\n",
    b"$-1\r\n",
]


@pytest.mark.parametrize("said", SLOTS, ids=lambda said: repr(said[:40]))
async def test_slots_without_sense_are_unavailable(said: bytes) -> None:
    """A node that tells who has which slot in no form that there is has told nothing."""
    async with saying(always(said), "redis+cluster") as masters:
        for call in (masters.send([("GET", "a")]), masters.each(), masters.probe_keys("p")):
            with pytest.raises(StoreUnavailable):
                await call


@pytest.mark.parametrize(
    "where", [b"x 127.0.0.1:1", b"3 127.0.0.1", b"3 127.0.0.1:99999", b"3 \xff:1", b"3 a b:1"]
)
async def test_a_redirection_that_leads_nowhere_is_unavailable(where: bytes) -> None:
    """Of a Cluster; it is not followed for ever, and ends no task with an error of no kind."""

    def answers(_connection: int, asked: bytes) -> bytes:
        if b"SLOTS" in asked:
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % port
        return b"-MOVED " + where + b"\r\n"

    async with saying(answers, "redis+cluster") as masters:
        assert isinstance(masters, ClusterMasters)
        port = masters._seeds[0][1]
        with pytest.raises(StoreUnavailable):
            await masters.send([("GET", "a")])


async def test_an_answer_of_a_wrong_type_is_of_one_record() -> None:
    """Not of the whole store: only whoever it is of goes without."""
    for text in (
        b"WRONGTYPE Operation against a key",
        b"ERR user_script:3: attempt to compare nil with number",
    ):
        async with saying(always(b"-" + text + b"\r\n")) as masters:
            assert isinstance(masters, OneMaster)
            (reply,) = await masters.send([("GET", "a")])
            assert type(unavailable(reply)) is BadRecord
    for other in (
        "MISCONF Redis is configured to save",
        "OOM command not allowed",
        "READONLY You can't write",
    ):
        async with saying(always(f"-{other}\r\n".encode())) as masters:
            (reply,) = await masters.send([("GET", "a")])
            assert type(unavailable(reply)) is StoreUnavailable
