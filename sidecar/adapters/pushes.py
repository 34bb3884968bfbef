"""One POST to a push service: guarded, bounded, and with nothing believed of the answer but its status."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from sidecar.adapters.guard import DialRules, Guard, GuardedConnector, Lookups
from sidecar.core.errors import ConfigError, NotNotified

ADDRESS_REFUSED: Final = "address-refused"
BAD_URL: Final = "bad-url"
NEVER_AGAIN: Final = frozenset({ADDRESS_REFUSED, BAD_URL})
"""Outcomes that another try would not change."""

MAX_HEADERS = 64


@dataclass(frozen=True, slots=True)
class PushLimits:
    """Seconds: for the name and the connection; for one address; for the whole of it."""

    connect: float = 5.0
    address: float = 3.0
    total: float = 10.0


class Pushes:
    """Sends POSTs over HTTPS, each on a connection of its own."""

    def __init__(
        self,
        rules: DialRules,
        limits: PushLimits,
        ca_file: Path | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`ca_file`: one more CA, for a push service of the operator's own. Raises ConfigError."""
        self._rules = rules
        self._timeout = aiohttp.ClientTimeout(
            total=limits.total, connect=limits.connect, sock_connect=limits.address
        )
        self._context = _trusting(ca_file)
        self._resolver = resolver or Lookups()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> None:
        """Return when the answer was 200. Raises NotNotified, whose text and slug tell nothing of the URL."""
        target = _target(url)
        guard = Guard(self._rules)
        try:
            status = await self._status(target, guard, headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            slug = _slug(error, guard)
            raise NotNotified(slug, f"{type(error).__name__} ({slug})") from None
        # "The LSP MUST consider a `200 OK` response a success, and MUST ignore the rest of the response,
        # including HTTP headers and the response body." (bLIP 55)
        if status != 200:
            raise NotNotified(f"status-{status}", f"answered {status}")

    async def _status(self, target: URL, guard: Guard, headers: dict[str, str], body: bytes) -> int:
        async with (
            aiohttp.ClientSession(
                connector=GuardedConnector(guard, self._context, self._resolver),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "static-invoice-sidecar", "connection": "close"},
                trust_env=False,
                auto_decompress=False,
                max_headers=MAX_HEADERS,
            ) as session,
            # "The LSP SHOULD NOT follow any redirection responses." (bLIP 55)
            session.post(target, data=body, headers=headers, allow_redirects=False) as response,
        ):
            # Closing a response whose body was not read ends the connection.
            return response.status


def _target(url: str) -> URL:
    """The URL as it was registered, to the byte. Raises NotNotified."""
    try:
        # encoded: it is not ours to put in another form; a push service may compare it.
        target = URL(url, encoded=True)
        port = target.port
    except ValueError:
        raise NotNotified(BAD_URL, "not a URL") from None
    host = target.raw_host or "%"
    plain = url.isascii() and url.isprintable() and " " not in url
    if target.scheme != "https" or not port or "%" in host or not plain:
        raise NotNotified(BAD_URL, "not an https URL")
    return target


def _slug(error: Exception, guard: Guard) -> str:
    """Why a POST failed, in a word for logs and counters."""
    if guard.refused and not guard.dialled:
        return ADDRESS_REFUSED
    # Some of aiohttp's errors are of several of these kinds: the order matters.
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        (TimeoutError, "timeout"),
        (aiohttp.InvalidURL, BAD_URL),
        (aiohttp.ClientConnectorDNSError, "no-such-host"),
        ((aiohttp.ClientConnectorCertificateError, ssl.CertificateError), "certificate"),
        ((aiohttp.ClientSSLError, ssl.SSLError), "tls"),
        (aiohttp.ClientConnectorError, "connect"),
        ((aiohttp.ClientConnectionError, ConnectionError), "reset"),
        (OSError, "connect"),
    )
    return next((slug for kind, slug in kinds if isinstance(error, kind)), "bad-answer")


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """The system's CAs, and one more."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # an SSLError is one too
            raise ConfigError(f"the CA of the push service, {ca_file}, can't be used: {error}") from None
    return context
