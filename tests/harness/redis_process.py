"""A redis-server of an operator's own, as safe as the sidecar wants it, on a Unix socket."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from redis.asyncio import Redis
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
        start_seconds: float = _START_SECONDS,
    ) -> None:
        """`executable`: another one than the sidecar embeds; `start_seconds`: for what is much to read."""
        super().__init__(directory)
        self._executable = executable or server_executable()
        self.appendonly = appendonly
        self._start_seconds = start_seconds

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """For the setting `redis.url`."""
        return f"unix://{self.socket}"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        await self._launch(self._executable, arguments)

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(self._start_seconds), Redis(unix_socket_path=str(self.socket)) as client:
            while process.returncode is None:
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.01)
                else:
                    return
        raise AssertionError(f"redis-server ended with {process.returncode}:\n{self.log_tail()}")
