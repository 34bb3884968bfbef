"""A server that answers late: what it says passes through here."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from tests.harness.running import Running


class Late(Running):
    """Listens at `socket`, and passes on to the Unix socket `target`; what comes back waits `seconds`.

    `seconds` may be changed at any time. Nothing overtakes anything.
    """

    def __init__(self, socket: Path, target: Path) -> None:
        self.socket, self._target = socket, target
        self.seconds = 0.0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """For the setting `redis.url`."""
        return f"unix://{self.socket}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._take, self.socket)

    async def stop(self) -> None:
        """Hang up on all."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):
            answers, questions = await asyncio.open_unix_connection(self._target)
            try:
                await asyncio.gather(self._pass_on(reader, questions), self._pass_on_late(answers, writer))
            finally:
                questions.close()
                writer.close()

    @staticmethod
    async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def _pass_on_late(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, data = await late.get()
                await asyncio.sleep(due - loop.time())
                sink.write(data)
                await sink.drain()

        writing = asyncio.create_task(write())
        try:
            while data := await source.read(65_536):
                late.put_nowait((loop.time() + self.seconds, data))
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        sink.close()
