"""The sidecar's settings: read once from all their sources, checked, and frozen.

A setting is looked for on the command line, then in the environment, in the file that `--config`
names, in `sidecar.toml` in the data directory, and last comes its default. One table, `OPTIONS`,
drives all of them: `lnd.host` is `--lnd.host`, `SIDECAR_LND_HOST` and `lnd.host = "…"` in TOML.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from sidecar.core.errors import ConfigError
from sidecar.core.model import MAX_BYTES, MAX_SLOTS, MAX_TTL, MIN_PATHS_LIFETIME, MIN_TTL, Durability, Quota

T = TypeVar("T")

MINUTE, HOUR, DAY = 60, 3_600, 86_400
NETWORKS = ("mainnet", "testnet", "testnet4", "signet", "regtest", "simnet")
CONFIG_FILE = "sidecar.toml"


@dataclass(frozen=True, slots=True)
class LndSettings:
    """How LND is reached; `host` is host:port of its gRPC server."""

    host: str
    tlspath: Path
    macaroonpath: Path


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where invoices are kept. No `url` means the embedded server in the data directory."""

    url: str | None = field(repr=False)  # may hold a password
    durability: str


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Limits on what is answered: rates and their bursts in messages a second, others a minute."""

    offer_rate: float
    offer_burst: int
    client_rate: float
    client_burst: int
    stores_per_minute: int
    offer_paths_per_minute: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. `network` is None when LND's own is taken; `paths_lifetime` is in seconds."""

    datadir: Path
    network: str | None
    lnd: LndSettings
    redis: RedisSettings
    quota: Quota
    paths_lifetime: int
    limits: LimitSettings
    loglevel: str


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
    LOGLEVEL,
)
"""Every option, in the order of the help; `CONFIG` stands apart, for no file can hold it."""


# --- sources ------------------------------------------------------------------------------------


class _Sources:
    """The layers that an option is looked up in, first one wins."""

    def __init__(self, flags: Mapping[str, str], environ: Mapping[str, str]) -> None:
        # Unknown SIDECAR_… variables are let be: Kubernetes sets some for a service called `sidecar`.
        # An empty one counts as not set, which is how compose files pass a variable nobody gave.
        self._layers: list[tuple[Callable[[Option[Any]], str], Mapping[str, str]]] = [
            (lambda option: f"the flag {option.flag}", flags),
            (
                lambda option: f"the environment variable {option.variable}",
                {o.name: environ[o.variable] for o in (*OPTIONS, CONFIG) if environ.get(o.variable)},
            ),
        ]

    def add_file(self, path: Path, values: Mapping[str, str]) -> None:
        self._layers.append((lambda _option: f"the file {path}", values))

    def find(self, option: Option[T]) -> T | None:
        for source, values in self._layers:
            if option.name in values:
                return option.read(values[option.name], source(option))
        return None

    def get(self, option: Option[T]) -> T:
        # None is also what `embedded` and an empty network mean: those are the defaults of their options.
        found = self.find(option)
        return option.read(option.default, "the defaults") if found is None else found


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _read_file(path: Path) -> dict[str, str]:
    """The options in a TOML file, as text. Raises ConfigError, OSError."""
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config: the file {path} is no TOML: {error}") from None
    names = [option.name for option in OPTIONS]
    values = {}
    for name, value in _flat(table):
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"allowed are {', '.join(names)}"
            raise ConfigError(f"{name!r}: unknown option in the file {path}: {hint}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(f"{name}: the file {path} must give one text or number, not {value!r}")
        values[name] = str(value)
    return values


def _add_files(sources: _Sources) -> Path:
    """Add the layers that come from files; returns the data directory. Raises ConfigError."""
    named = sources.find(CONFIG)
    if named is not None:
        try:
            sources.add_file(named, _read_file(named))
        except OSError as error:
            raise ConfigError(f"config: the file {named} can't be read: {error.strerror}") from None
    datadir = sources.get(DATADIR)
    own = datadir / CONFIG_FILE
    try:
        values = _read_file(own)
    except FileNotFoundError:
        return datadir
    except PermissionError:
        raise ConfigError(
            f"datadir: {own} may not be read by this user: run this as the user that runs `sidecar serve`"
        ) from None
    except OSError as error:
        raise ConfigError(f"datadir: {datadir} is of no use: {error.strerror}") from None
    if "datadir" in values:
        raise ConfigError(f"datadir: the file {own} lies in the data directory and can't name another one")
    sources.add_file(own, values)
    return datadir


def load(flags: Mapping[str, str], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from `flags` (option name to text), `environ` (the process's own by default) and files.

    Raises ConfigError: one line that names the option, where it was set, and what is allowed.
    """
    sources = _Sources(flags, os.environ if environ is None else environ)
    datadir = _add_files(sources)
    get = sources.get
    network = get(NETWORK)
    macaroon = sources.find(LND_MACAROONPATH)
    return Settings(
        datadir=datadir,
        network=network,
        lnd=LndSettings(
            host=get(LND_HOST),
            tlspath=get(LND_TLSPATH),
            macaroonpath=macaroon or _path(_MACAROON.format(network=network or "mainnet")),
        ),
        redis=RedisSettings(url=get(REDIS_URL), durability=get(REDIS_DURABILITY)),
        quota=Quota(slots=get(CLIENT_SLOTS), bytes=get(CLIENT_BYTES), ttl=get(CLIENT_TTL)),
        paths_lifetime=get(PATHS_LIFETIME),
        limits=LimitSettings(
            offer_rate=get(OFFER_RATE),
            offer_burst=get(OFFER_BURST),
            client_rate=get(CLIENT_RATE),
            client_burst=get(CLIENT_BURST),
            stores_per_minute=get(STORES),
            offer_paths_per_minute=get(OFFER_PATHS),
        ),
        loglevel=get(LOGLEVEL),
    )
