"""The options of the sidecar: one table drives the command line, the environment and TOML files.

`lnd.host` is `--lnd.host`, `SIDECAR_LND_HOST` and `lnd.host = "…"` in TOML.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from sidecar.core.errors import ConfigError
from sidecar.core.model import (
    MAX_BYTES,
    MAX_SLOTS,
    MAX_TTL,
    MIN_PATHS_LIFETIME,
    MIN_TTL,
    Durability,
    TimestampForm,
)

T = TypeVar("T")

MINUTE, HOUR, DAY = 60, 3_600, 86_400
NETWORKS = ("mainnet", "testnet", "testnet4", "signet", "regtest", "simnet")
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


# --- parsers: text to value, or ValueError with what is allowed ----------------------------------


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text.lower()

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # The length is checked first: int() refuses thousands of digits with an error of its own.
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _rate(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not 0 < float(text) <= 1_000_000:
        raise ValueError("a number above 0 and up to 1000000, a second")
    return float(text)


_UNITS = {"": 1, "s": 1, "m": MINUTE, "h": HOUR, "d": DAY}


def _duration(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,12})([smhd]?)", text)
        seconds = int(match[1]) * _UNITS[match[2]] if match else 0
        if match is None or not low <= seconds <= high:
            bounds = f"from {format_duration(low)} to {format_duration(high)}"
            raise ValueError(f"a duration {bounds}, such as 30d, 12h, 90m, 45s or plain seconds")
        return seconds

    return parse


def format_duration(seconds: int) -> str:
    """`seconds` in the largest unit that divides it, as the options take it: 2592000 is 30d."""
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _path(text: str) -> Path:
    try:
        if text and "\0" not in text:
            return Path(text).expanduser().absolute()
    except RuntimeError:  # ~user of nobody here
        pass
    raise ValueError("a path")


def _address(text: str) -> str:
    wanted = "host:port, such as 127.0.0.1:10009 or [::1]:10009"
    if not re.fullmatch(r"[^\s/@?#]+", text):
        raise ValueError(wanted)
    try:
        parts = urlsplit(f"//{text}")
        port = 10009 if parts.port is None else parts.port
    except ValueError:
        raise ValueError(wanted) from None
    host = parts.hostname
    if not host or port == 0 or parts.netloc.endswith(":"):
        raise ValueError(wanted)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _redis_url(text: str) -> str | None:
    if text == "embedded":
        return None
    # A typo must not be taken for the embedded server: that would hide the invoices kept elsewhere.
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises when it is no number
        whole = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname)
    except ValueError:
        whole = False
    if not whole or parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("redis://HOST…, rediss://HOST…, unix:///PATH, or `embedded`")
    return text


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _ports(text: str) -> frozenset[int]:
    try:
        ports = frozenset(_integer(1, 65_535)(word) for word in _words(text))
    except ValueError:
        ports = frozenset()
    if not ports:
        raise ValueError("port numbers with commas between, such as 443,8443")
    return ports


def _networks(text: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(ipaddress.ip_network(word) for word in _words(text))
    except ValueError:
        raise ValueError("networks with commas between, such as 10.0.0.0/8,fd00::/8") from None


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One setting: its name in all sources, how its text is read, its default (as text), its help.

    A `secret` value is never shown in an error.
    """

    name: str
    parse: Callable[[str], T]
    default: str
    help: str
    metavar: str
    secret: bool = False

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """The option in the environment."""
        return "SIDECAR_" + self.name.upper().replace(".", "_")

    def read(self, text: str, source: str) -> T:
        """The value that `text` means. Raises ConfigError that names the option, `source` and rule."""
        try:
            return self.parse(text)
        except ValueError as error:
            shown = "the value" if self.secret else repr(text)
            raise ConfigError(f"{self.name}: {shown} from {source} is not allowed: give {error}") from None


_MACAROON = "~/.lnd/data/chain/bitcoin/{network}/admin.macaroon"


def default_macaroon(network: str | None) -> Path:
    """Where LND's own macaroon of a network is."""
    return _path(_MACAROON.format(network=network or "mainnet"))


LND_HOST = Option("lnd.host", _address, "127.0.0.1:10009", "LND's gRPC server", "HOST:PORT")
LND_TLSPATH = Option("lnd.tlspath", _path, "~/.lnd/tls.cert", "LND's TLS certificate", "FILE")
LND_MACAROONPATH = Option(
    "lnd.macaroonpath", _path, _MACAROON, "the macaroon (see macaroon-permissions)", "FILE"
)
NETWORK = Option(
    "network",
    lambda text: _choice(*NETWORKS)(text) if text else None,
    "",
    f"{', '.join(NETWORKS)}; a running LND must agree (default: what LND says)",
    "NAME",
)
REDIS_URL = Option(
    "redis.url",
    _redis_url,
    "embedded",
    "redis://, rediss:// or unix:// URL, or embedded: a server of our own in the data directory",
    "URL",
    secret=True,
)
REDIS_DURABILITY = Option(
    "redis.durability",
    _choice(*(level.value for level in Durability)),
    "strict",
    "strict: on disk before anything is acknowledged; everysec, none: accept to lose invoices",
    "LEVEL",
)
DATADIR = Option("datadir", _path, "~/.static-invoice-sidecar", "the sidecar's data directory", "DIR")
CLIENT_TTL = Option(
    "client.ttl", _duration(MIN_TTL, MAX_TTL), "365d", "longest time that an invoice is kept", "TIME"
)
CLIENT_SLOTS = Option("client.slots", _integer(1, MAX_SLOTS), "10", "invoice slots of a client", "N")
CLIENT_BYTES = Option("client.bytes", _integer(1, MAX_BYTES), "131072", "bytes kept for a client", "N")
PATHS_LIFETIME = Option(
    "paths.lifetime",
    _duration(MIN_PATHS_LIFETIME, 3_650 * DAY),
    "365d",
    "how long offer paths are good",
    "TIME",
)
OFFER_RATE = Option("limits.offer_rate", _rate, "10", "invoice requests a second of an offer", "N")
OFFER_BURST = Option("limits.offer_burst", _integer(1, 10_000), "5", "burst of an offer", "N")
CLIENT_RATE = Option("limits.client_rate", _rate, "50", "invoice requests a second of a client", "N")
CLIENT_BURST = Option("limits.client_burst", _integer(1, 10_000), "50", "burst of a client", "N")
STORES = Option(
    "limits.stores_per_minute", _integer(1, 100_000), "60", "invoices stored a minute of a client", "N"
)
OFFER_PATHS = Option(
    "limits.offer_paths_per_minute",
    _integer(1, 100_000),
    "60",
    "offer_paths_request answered a minute of a client",
    "N",
)
MAIL_LETTERS = Option(
    "mailbox.letters", _integer(1, 10_000), "200", "onion messages kept in each of a client's two queues", "N"
)
MAIL_BYTES = Option(
    "mailbox.bytes", _integer(1, MAX_BYTES), "4194304", "bytes in each of a client's two queues", "N"
)
MAIL_TTL = Option(
    "mailbox.ttl", _duration(HOUR, 90 * DAY), "7d", "how long an onion message waits for its client", "TIME"
)
MAIL_TOTAL = Option(
    "mailbox.total_bytes", _integer(1, 1 << 40), "536870912", "bytes in all mailboxes, approximately", "N"
)
TIMESTAMPS = Option(
    "lsps5.timestamps",
    lambda text: TimestampForm(_choice(*(form.value for form in TimestampForm))(text)),
    "offset",
    "how notifications are dated: offset (…+00:00, which LDK's validator accepts) or z (…Z, bLIP 55's own)",
    "FORM",
)
COOLDOWN = Option(
    "lsps5.cooldown", _duration(1, DAY), "2m", "time between two wake-ups of a client that is away", "TIME"
)
MAX_WEBHOOKS = Option("lsps5.max_webhooks", _integer(1, 100), "10", "webhooks of one client", "N")
WEBHOOK_PORTS = Option("lsps5.ports", _ports, "443", "ports that webhooks may name", "PORTS")
WEBHOOK_NETWORKS = Option(
    "lsps5.private_networks",
    _networks,
    "",
    "private networks where webhooks may be, for a push service of your own (default: none)",
    "NETWORKS",
)
WEBHOOK_CA = Option(
    "lsps5.cafile",
    lambda text: _path(text) if text else None,
    "",
    "certificates of a CA of your own that webhooks may have (default: just the system's)",
    "FILE",
)
LOGLEVEL = Option(
    "loglevel", _choice("debug", "info", "warning", "error"), "info", "debug, info, warning or error", "LEVEL"
)
CONFIG = Option("config", _path, "", "a TOML file of these options", "FILE")

OPTIONS: tuple[Option[Any], ...] = (
    LND_HOST,
    LND_TLSPATH,
    LND_MACAROONPATH,
    NETWORK,
    REDIS_URL,
    REDIS_DURABILITY,
    DATADIR,
    CLIENT_TTL,
    CLIENT_SLOTS,
    CLIENT_BYTES,
    PATHS_LIFETIME,
    OFFER_RATE,
    OFFER_BURST,
    CLIENT_RATE,
    CLIENT_BURST,
    STORES,
    OFFER_PATHS,
    MAIL_LETTERS,
    MAIL_BYTES,
    MAIL_TTL,
    MAIL_TOTAL,
    TIMESTAMPS,
    COOLDOWN,
    MAX_WEBHOOKS,
    WEBHOOK_PORTS,
    WEBHOOK_NETWORKS,
    WEBHOOK_CA,
    LOGLEVEL,
)
"""Every option, in the order of the help; `CONFIG` stands apart, for no file can hold it."""
