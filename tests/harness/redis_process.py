"""A redis-server of an operator's own, as safe as the sidecar wants it, on a Unix socket."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sidecar.adapters.redis_embedded import server_executable
from tests.harness.daemon import Daemon

_START_SECONDS = 15.0


class RedisProcess(Daemon):
    """A running Redis: `async with RedisProcess(folder) as redis: redis.url`.

    May be killed and started again on the data that it has.
    """

    _stop_signal = signal.SIGTERM

    def __init__(
        self,
        directory: Path,
        executable: Path | None = None,
        *,
        appendonly: bool = True,
        appendfsync: str = "always",
        under: Sequence[str] = (),
        start_seconds: float = _START_SECONDS,
        options: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`executable`: another one than the sidecar embeds; `start_seconds`: for what is much to read.

        `under`: a command that runs it as its own process, such as `strace -D`. `options` go before those
        that are ours; what is put there later holds from the next start on.
        """
        super().__init__(directory)
        self.executable = executable or server_executable()
        self.appendonly = appendonly
        self._appendfsync = appendfsync
        self._under = under
        self.options = dict(options)
        self._start_seconds = start_seconds

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """For the setting `redis.url`."""
        return f"unix://{self.socket}"

    @property
    def aof(self) -> Path:
        """The file that each change is appended to."""
        found = [*self.directory.glob("appendonlydir/*.incr.aof"), *self.directory.glob("appendonly.aof")]
        return max(found, key=lambda path: path.stat().st_mtime_ns)

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": self._appendfsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            **self.options,
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        program, *before = *self._under, str(self.executable)
        await self._launch(Path(program), [*before, *arguments])

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        # redis-py's own tries would go on for seconds after the server has ended.
        client = Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        async with asyncio.timeout(self._start_seconds), client:
            while process.returncode is None:
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.01)
                else:
                    return
        raise AssertionError(f"redis-server ended with {process.returncode}:\n{self.log_tail()}")
