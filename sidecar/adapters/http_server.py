"""/healthz, /readyz and /metrics over HTTP: for probes and for Prometheus, and for nothing else."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from sidecar.adapters.vitals import Condition
from sidecar.core.errors import ConfigError

log = structlog.get_logger(__name__)

MAX_LINE = 2_048
"""Bytes of a request line, and of one header."""

MAX_HEADERS = 64
MAX_CONNECTIONS = 100
"""One more, and the one that has been there longest is closed."""

KEEP_ALIVE = 75.0
"""Seconds within which a connection must bring a whole request, the next one too: longer than the pauses
between two scrapes."""

_GRACE = 1.0
_SERVER = "static-invoice-sidecar"

Page = Callable[[], web.Response]


class _Protocol(web.RequestHandler):
    """aiohttp's, whose own answers to what is no HTTP would name versions and log a traceback."""

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - as aiohttp calls it
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes what was sent
    ) -> web.StreamResponse:
        """An answer of a few words; what is no fault of ours is met without a log line."""
        if status >= 500:
            log.error("an HTTP request caused a fault in the sidecar; please report it", exc_info=exc)
        answer = _answer("bad request\n" if status < 500 else "internal error\n", status)
        answer.force_close()
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(
            self,
            loop=asyncio.get_running_loop(),
            # None turns it off, says aiohttp's runner; the type here does not know.
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=KEEP_ALIVE,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            lingering_time=0,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > MAX_CONNECTIONS:
            # Not the new one: a stranger who holds all of them would keep every probe out.
            self.connections[0].force_close()


def _why(error: OSError) -> str:
    # asyncio puts the address into its text once more; a name that can't be resolved has no errno.
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or type(error).__name__


def _answer(text: str | bytes, status: int = 200, content_type: str = "text/plain") -> web.Response:
    body = text.encode() if isinstance(text, str) else text
    headers = {"server": _SERVER, "content-type": content_type, "cache-control": "no-store"}
    return web.Response(body=body, status=status, headers=headers)


def _healthz() -> web.Response:
    # Whoever gets this far has shown that the event loop lives. LND and Redis may be away: a restart
    # of the sidecar would not bring them back.
    return _answer("ok\n")


def _readyz(conditions: Sequence[Condition]) -> web.Response:
    lines = [f"{'ok' if each.holds else 'not ok'}: {each.text}\n" for each in conditions]
    return _answer("".join(lines), 200 if all(each.holds for each in conditions) else 503)


def _metrics(registry: CollectorRegistry) -> web.Response:
    answer = _answer(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
    answer.enable_compression()
    return answer


class HttpServer:
    """The three pages. `close` it in the end."""

    def __init__(self, conditions: Callable[[], Sequence[Condition]], registry: CollectorRegistry) -> None:
        """`conditions`, which may be replaced, must all hold for /readyz to say 200."""
        self.conditions = conditions
        self.registry = registry
        self._pages: Mapping[str, Page] = {
            "/healthz": _healthz,
            "/readyz": lambda: _readyz(self.conditions()),
            "/metrics": lambda: _metrics(self.registry),
        }
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses for 0. Raises ConfigError."""
        self._runner = web.ServerRunner(_Server(self._handle), shutdown_timeout=_GRACE)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.close()
            raise ConfigError(
                f"http.listen: {host}:{port} can't be listened on ({_why(error)}): "
                "name an address of this machine and a port that nobody uses"
            ) from None
        bound: tuple[str, int] = self._runner.addresses[0]
        return bound[1]

    async def close(self) -> None:
        """Answer nobody any more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            answer = _answer("GET or HEAD\n", 405)
            answer.headers["allow"] = "GET, HEAD"
            return answer
        page = self._pages.get(request.path)
        return _answer("there is nothing here\n", 404) if page is None else page()
