"""The sidecar's settings: read once from all their sources, checked, and frozen.

A setting is looked for on the command line, then in the environment, in the file that `--config`
names, in `sidecar.toml` in the data directory, and last comes its default (options.py).
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sidecar import options
from sidecar.core.errors import ConfigError
from sidecar.core.mailbox import MailLimits
from sidecar.core.model import Quota, TimestampForm
from sidecar.options import CONFIG, OPTIONS, IPNetwork, Option

T = TypeVar("T")

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
class Lsps5Settings:
    """How clients are woken; `cooldown` in seconds."""

    timestamps: TimestampForm
    cooldown: int
    max_webhooks: int
    ports: frozenset[int]
    private_networks: tuple[IPNetwork, ...]
    cafile: Path | None


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
    mail: MailLimits
    mail_total_bytes: int
    lsps5: Lsps5Settings
    loglevel: str


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
    datadir = sources.get(options.DATADIR)
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
    network = get(options.NETWORK)
    macaroon = sources.find(options.LND_MACAROONPATH)
    return Settings(
        datadir=datadir,
        network=network,
        lnd=LndSettings(
            host=get(options.LND_HOST),
            tlspath=get(options.LND_TLSPATH),
            macaroonpath=macaroon or options.default_macaroon(network),
        ),
        redis=RedisSettings(url=get(options.REDIS_URL), durability=get(options.REDIS_DURABILITY)),
        quota=Quota(
            slots=get(options.CLIENT_SLOTS), bytes=get(options.CLIENT_BYTES), ttl=get(options.CLIENT_TTL)
        ),
        paths_lifetime=get(options.PATHS_LIFETIME),
        limits=LimitSettings(
            offer_rate=get(options.OFFER_RATE),
            offer_burst=get(options.OFFER_BURST),
            client_rate=get(options.CLIENT_RATE),
            client_burst=get(options.CLIENT_BURST),
            stores_per_minute=get(options.STORES),
            offer_paths_per_minute=get(options.OFFER_PATHS),
        ),
        mail=MailLimits(
            letters=get(options.MAIL_LETTERS), bytes=get(options.MAIL_BYTES), ttl=get(options.MAIL_TTL)
        ),
        mail_total_bytes=get(options.MAIL_TOTAL),
        lsps5=Lsps5Settings(
            timestamps=get(options.TIMESTAMPS),
            cooldown=get(options.COOLDOWN),
            max_webhooks=get(options.MAX_WEBHOOKS),
            ports=get(options.WEBHOOK_PORTS),
            private_networks=get(options.WEBHOOK_NETWORKS),
            cafile=get(options.WEBHOOK_CA),
        ),
        loglevel=get(options.LOGLEVEL),
    )
