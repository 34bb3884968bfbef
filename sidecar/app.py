"""`sidecar serve`: the server's life from its settings to its end."""

import asyncio
import contextlib
import signal
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type

from sidecar import __version__, config, logs
from sidecar.adapters.lnd import Lnd, backoff
from sidecar.adapters.monitoring import Monitoring
from sidecar.adapters.redis_setup import open_store
from sidecar.adapters.redis_store import RedisStore
from sidecar.assembly import Sidecar
from sidecar.config import Loaded, Loader, Settings
from sidecar.core.errors import ConfigError, StoreUnavailable
from sidecar.meeting import Meeting, wait_for_files
from sidecar.timings import Timings

log = structlog.get_logger(__name__)

FINISH_SECONDS = 7.5
"""For what is in hand when the server is told to stop; what is left is closed in the two seconds after."""

CLOSE_SECONDS = 1.0
"""For closing all. What hangs then is cut short."""

CUT_SECONDS = 0.2
"""For each closing that comes after one that was cut short."""

LOOK_EVERY = 2.0
"""Seconds between looks at the settings' files."""


async def serve(loaded: Loaded, loader: Loader) -> None:
    """Run the sidecar until SIGTERM or SIGINT; SIGHUP, or another file, brings other settings.

    Raises OperatorError for what only the operator can mend.
    """
    logs.setup(loaded.settings.loglevel, loaded.settings.logformat)
    await Life(loaded, loader).live()


class Life:
    """One run of the server."""

    def __init__(self, loaded: Loaded, loader: Loader) -> None:
        """`loader` reads the settings anew, from where `loaded` came from."""
        self._loaded = loaded
        self._loader = loader
        self._sidecar: Sidecar | None = None
        self._stopping, self._asked_to_reload = asyncio.Event(), asyncio.Event()

    async def live(self) -> None:
        """To the end. Raises OperatorError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload.set)
        running = asyncio.create_task(self._run())
        reloading = asyncio.create_task(self._keep_settings())
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await self._finish(running)
            await _close(running)
        for task in (stop, reloading):
            task.cancel()
        await asyncio.gather(stop, reloading, return_exceptions=True)
        try:
            await running
        except asyncio.CancelledError:
            log.info("stopped")

    async def _finish(self, running: asyncio.Task[None]) -> None:
        log.info("stopping")
        if self._sidecar is not None:
            finishing = asyncio.create_task(self._sidecar.finish())
            # What runs may end with an error meanwhile: then there is nothing to finish.
            await asyncio.wait(
                {finishing, running}, timeout=FINISH_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not finishing.done() and not running.done():
                log.warning("not all that was in hand could be finished")
            finishing.cancel()
            await asyncio.gather(finishing, return_exceptions=True)

    async def _run(self) -> None:
        settings = self._loaded.settings
        async with AsyncExitStack() as stack:
            monitoring = Monitoring(__version__)
            stack.push_async_callback(monitoring.close)
            if settings.http.listen is not None:
                await monitoring.listen(settings.http.listen)
            files = settings.lnd.tlspath, settings.lnd.macaroonpath
            await wait_for_files(*files, settings.lnd.wait)
            lnd = Lnd(settings.lnd.host, *files, monitoring.timings)
            stack.push_async_callback(lnd.aclose)
            meeting = Meeting(lnd, settings.network)
            met = await meeting.first()
            store = await _open_store(settings, met[0].node_id, monitoring.timings)
            stack.push_async_callback(store.close)
            self._sidecar = Sidecar(settings, lnd, met, store, meeting=meeting, monitoring=monitoring)
            # They may have been read anew while LND was away. What needs a restart stays as it was: LND
            # and Redis were met with it.
            self._sidecar.reload(self._loaded.settings)
            await self._sidecar.run()

    # --- settings that change -----------------------------------------------------------------------

    def _files(self) -> Mapping[Path, object]:
        # The one in the data directory may come later.
        return _stamps({*self._loaded.files, self._loaded.settings.datadir / config.CONFIG_FILE})

    async def _keep_settings(self) -> None:
        seen = self._files()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._asked_to_reload.wait()
            now = self._files()
            if self._asked_to_reload.is_set() or now != seen:
                self._asked_to_reload.clear()
                self._reload()
            # As they were before they were read: what is written meanwhile is news.
            seen = now

    def _reload(self) -> None:
        try:
            loaded = self._loader.load()
        except ConfigError as error:
            log.warning("the settings can't be read anew: the old ones hold", error=str(error))
            return
        except Exception:
            # A fault of ours, or of a disk: the next change may be read again.
            log.exception("the settings can't be read anew: the old ones hold")
            return
        taken, waiting = config.changes(self._loaded.settings, loaded.settings)
        self._loaded = loaded
        logs.set_level(loaded.settings.loglevel)
        if self._sidecar is not None:
            self._sidecar.reload(loaded.settings)
        log.info("settings read anew", changed=", ".join(taken) or "nothing")
        if waiting:
            log.warning("these settings hold after a restart", settings=", ".join(waiting))


async def _close(running: asyncio.Task[None]) -> None:
    """End what runs, and with it close all that it has opened, whatever hangs."""
    patience = CLOSE_SECONDS
    running.cancel()
    while not (await asyncio.wait({running}, timeout=patience))[0]:
        # It ends the closing that hangs; those that come after it have their turn.
        log.warning("something does not close in time: it is cut short")
        running.cancel()
        patience = CUT_SECONDS


def _stamps(files: Iterable[Path]) -> Mapping[Path, tuple[int, int, int] | None]:
    """What tells a file from its next version, whether it is written or replaced."""

    def stamp(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    return {path: stamp(path) for path in files}


async def _open_store(settings: Settings, node_id: bytes, timings: Timings) -> RedisStore:
    said = False
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(StoreUnavailable), wait=backoff()):
        with attempt:
            try:
                redis = settings.redis
                return await open_store(
                    redis.read_url(),
                    settings.datadir,
                    node_id,
                    redis.durability,
                    timings,
                    replicas=redis.replicas,
                )
            except StoreUnavailable as error:
                if not said:
                    log.warning("waiting for Redis", error=str(error))
                    said = True
                raise
    raise AssertionError("tenacity tries until it succeeds")
