"""The tree of settings: what each means, what it may be, and its default.

`settings.lnd.host` is `--lnd.host`, `SIDECAR_LND_HOST` and `lnd.host = "…"` in TOML. Every value comes in
as text and is read by its type here; a default is text as well, and read in the same way. Where values
come from is the matter of config.py.
"""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer, PlainValidator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sidecar import parsing
from sidecar.core.errors import ConfigError
from sidecar.core.model import (
    MAX_A_MINUTE,
    MAX_BURST,
    MAX_BYTES,
    MAX_LETTERS,
    MAX_RATE,
    MAX_REPLICAS,
    MAX_SLOTS,
    MAX_TTL,
    MIN_PATHS_LIFETIME,
    MIN_TTL,
    Durability,
    Limits,
    TimestampForm,
)
from sidecar.parsing import DAY, HOUR, IPNetwork

NETWORKS = ("mainnet", "testnet", "testnet4", "signet", "regtest", "simnet")
HIDDEN = "(hidden)"
"""What is shown in place of a secret."""

_MACAROON = "~/.lnd/data/chain/bitcoin/{network}/admin.macaroon"
_SECRET_FILE_SIZE = 65_536


# --- types: each shows its values as texts that it reads back ------------------------------------


def _show(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple | frozenset):
        return ",".join(str(each) for each in (value if isinstance(value, tuple) else sorted(value)))
    return str(value)


def _show_secret_url(url: str | None) -> str:
    return "embedded" if url is None else HIDDEN


def _form(text: str) -> TimestampForm:
    return TimestampForm(parsing.choice(*(form.value for form in TimestampForm))(text))


_SHOWN = PlainSerializer(_show)
_SECONDS = PlainSerializer(parsing.format_duration)
_AnyFile = Annotated[Path, PlainValidator(parsing.path), _SHOWN]
_MaybeFile = Annotated[Path | None, PlainValidator(parsing.optional(parsing.path)), _SHOWN]
_MaybeAddress = Annotated[str | None, PlainValidator(parsing.optional(parsing.address())), _SHOWN]
_Bytes = Annotated[int, PlainValidator(parsing.integer(1, MAX_BYTES))]
_Burst = Annotated[int, PlainValidator(parsing.integer(1, MAX_BURST))]
_Rate = Annotated[float, PlainValidator(parsing.rate(MAX_RATE))]
_AMinute = Annotated[int, PlainValidator(parsing.integer(1, MAX_A_MINUTE))]


def _setting(default: str, metavar: str, text: str, *, reloadable: bool = False, secret: bool = False) -> Any:
    """A setting's default as text, the name of its values, and what it means.

    A `reloadable` one can change while the server runs; a `secret` one is never shown.
    """
    extra: dict[str, JsonValue] = {"metavar": metavar, "reloadable": reloadable, "secret": secret}
    return Field(default, description=text, json_schema_extra=extra, repr=not secret)


# --- the groups ---------------------------------------------------------------------------------


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


class LndSettings(_Group):
    """How LND is reached; `wait` in seconds."""

    host: Annotated[str, PlainValidator(parsing.address(10009))] = _setting(
        "127.0.0.1:10009", "HOST:PORT", "LND's gRPC server"
    )
    tlspath: _AnyFile = _setting("~/.lnd/tls.cert", "FILE", "LND's TLS certificate")
    macaroonpath: _AnyFile = _setting(_MACAROON, "FILE", "the macaroon (see macaroon-permissions)")
    wait: Annotated[int, PlainValidator(parsing.duration(0, 365 * DAY)), _SECONDS] = _setting(
        "0s",
        "TIME",
        "how long the server waits at its start for lnd.tlspath and lnd.macaroonpath to be there",
    )


class RedisSettings(_Group):
    """Where invoices are kept; `url` is None for the embedded server in the data directory."""

    url: Annotated[
        str | None,
        PlainValidator(lambda text: None if text == "embedded" else parsing.redis_url(text)),
        PlainSerializer(_show_secret_url),
    ] = _setting(
        "embedded",
        "URL",
        "URL of a Redis, a Sentinel or a Cluster (docs/operations.md), or embedded: a server of our own",
        secret=True,
    )
    urlfile: _MaybeFile = _setting(
        "", "FILE", "a file that holds the URL, for it may have a password; instead of redis.url"
    )
    passwordfile: _MaybeFile = _setting(
        "", "FILE", "a file that holds the password for the URL, which has none then"
    )
    durability: Annotated[str, PlainValidator(parsing.choice(*(each.value for each in Durability)))] = (
        _setting(
            "strict",
            "LEVEL",
            "strict: on disk before anything is acknowledged; everysec, none: accept to lose invoices",
        )
    )
    replicas: Annotated[int, PlainValidator(parsing.integer(0, MAX_REPLICAS))] = _setting(
        "0",
        "N",
        "replicas that must have a change before anything is acknowledged: with 0 a failover may lose the"
        " last changes",
    )

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if self.urlfile is not None and "url" in self.model_fields_set:
            raise ValueError("redis.urlfile: either it or redis.url, not both")
        if self.passwordfile is not None and self.url is None and self.urlfile is None:
            raise ValueError("redis.passwordfile: redis.url as well, or redis.urlfile")
        if self.replicas and self.url is None and self.urlfile is None:
            raise ValueError(
                "redis.replicas: redis.url as well, or redis.urlfile: the embedded one has no replicas"
            )
        return self

    def read_url(self) -> str | None:
        """The URL, with what `urlfile` and `passwordfile` hold now; None for the embedded server.

        Raises ConfigError.
        """
        url = self.url
        if self.urlfile is not None:
            try:
                url = parsing.redis_url(_read_secret("redis.urlfile", self.urlfile).strip())
            except ValueError:
                # What the file holds is a secret.
                raise ConfigError(
                    f"redis.urlfile: what {self.urlfile} holds is not allowed:"
                    f" give one line, {parsing.REDIS_FORMS}"
                ) from None
        if url is None or self.passwordfile is None:
            return url
        password = _read_secret("redis.passwordfile", self.passwordfile).strip("\r\n")
        try:
            return parsing.with_password(url, password)
        except ValueError as error:
            raise ConfigError(f"redis.passwordfile: {self.passwordfile} can't be used: {error}") from None


def _read_secret(name: str, path: Path) -> str:
    """The text of the file that the setting `name` names. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(_SECRET_FILE_SIZE).decode()
    except OSError as error:
        raise ConfigError(f"{name}: {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: what {path} holds is not allowed: give one line of text") from None


class ClientSettings(_Group):
    """Quotas of clients without their own; `ttl` in seconds."""

    ttl: Annotated[int, PlainValidator(parsing.duration(MIN_TTL, MAX_TTL)), _SECONDS] = _setting(
        "365d", "TIME", "longest time that an invoice is kept", reloadable=True
    )
    slots: Annotated[int, PlainValidator(parsing.integer(1, MAX_SLOTS))] = _setting(
        "10", "N", "invoice slots of a client", reloadable=True
    )
    bytes: _Bytes = _setting("131072", "N", "bytes kept for a client", reloadable=True)


class PathsSettings(_Group):
    """Offer paths; `lifetime` in seconds."""

    lifetime: Annotated[int, PlainValidator(parsing.duration(MIN_PATHS_LIFETIME, 3_650 * DAY)), _SECONDS] = (
        _setting("365d", "TIME", "how long offer paths are good; at least 90d, or LDK's wallets refuse them")
    )


class LimitSettings(_Group):
    """Limits on what is answered: rates and their bursts in messages a second, others a minute."""

    offer_rate: _Rate = _setting("10", "N", "invoice requests a second of an offer", reloadable=True)
    offer_burst: _Burst = _setting("5", "N", "burst of an offer", reloadable=True)
    client_rate: _Rate = _setting(
        "50", "N", "invoice requests a second of all offers of a client", reloadable=True
    )
    client_burst: _Burst = _setting("50", "N", "burst of a client", reloadable=True)
    stores_per_minute: _AMinute = _setting("60", "N", "invoices stored a minute of a client", reloadable=True)
    offer_paths_per_minute: _AMinute = _setting(
        "60", "N", "offer_paths_request answered a minute of a client", reloadable=True
    )


class MailboxSettings(_Group):
    """What waits for clients that are away; `ttl` in seconds."""

    letters: Annotated[int, PlainValidator(parsing.integer(1, MAX_LETTERS))] = _setting(
        "200",
        "N",
        "onion messages kept in each of a client's two queues (requests that we forward; all else)",
        reloadable=True,
    )
    bytes: _Bytes = _setting("4194304", "N", "bytes in each of a client's two queues", reloadable=True)
    ttl: Annotated[int, PlainValidator(parsing.duration(HOUR, 90 * DAY)), _SECONDS] = _setting(
        "7d", "TIME", "how long an onion message waits for its client: as long as an LDK payer does"
    )
    total_bytes: Annotated[int, PlainValidator(parsing.integer(1, 1 << 40))] = _setting(
        "536870912", "N", "bytes in all mailboxes, approximately"
    )


class Lsps5Settings(_Group):
    """How clients are woken; `cooldown` in seconds."""

    timestamps: Annotated[TimestampForm, PlainValidator(_form), _SHOWN] = _setting(
        "offset",
        "FORM",
        "how notifications are dated: offset (…+00:00, which LDK's validator accepts)"
        " or z (…Z, bLIP 55's own)",
    )
    cooldown: Annotated[int, PlainValidator(parsing.duration(1, DAY)), _SECONDS] = _setting(
        "2m", "TIME", "time between two wake-ups of a client that is away"
    )
    max_webhooks: Annotated[int, PlainValidator(parsing.integer(1, 100))] = _setting(
        "10", "N", "webhooks of one client"
    )
    ports: Annotated[frozenset[int], PlainValidator(parsing.ports), _SHOWN] = _setting(
        "443", "PORTS", "ports that webhooks may name"
    )
    private_networks: Annotated[tuple[IPNetwork, ...], PlainValidator(parsing.networks), _SHOWN] = _setting(
        "",
        "NETWORKS",
        "private networks where webhooks may be, for a push service of your own (default: none)",
    )
    cafile: _MaybeFile = _setting(
        "",
        "FILE",
        "certificates of a CA of your own that webhooks may have (default: just the system's)",
    )


class LeaseSettings(_Group):
    """Which of several sidecars beside one LND leads; `time` in seconds."""

    time: Annotated[int, PlainValidator(parsing.duration(2, 60)), _SECONDS] = _setting(
        "5s",
        "TIME",
        "how long a sidecar that says nothing any more is believed to lead: then one that stands by takes"
        " over",
    )
    name: Annotated[str, PlainValidator(parsing.line(64))] = _setting(
        "", "NAME", "what this sidecar is called in messages (default: the machine's name)"
    )


class AdminSettings(_Group):
    """How the `sidecar` command and the server find each other beside the socket in the data directory."""

    listen: _MaybeAddress = _setting(
        "", "HOST:PORT", "where the server takes admin calls over TLS (default: on its Unix socket only)"
    )
    tlscert: _MaybeFile = _setting("", "FILE", "the certificate of admin.listen")
    tlskey: _MaybeFile = _setting("", "FILE", "the private key of admin.tlscert")
    tokenfile: _MaybeFile = _setting(
        "", "FILE", "the token that admin.listen asks for, and that the command shows to admin.address"
    )
    address: _MaybeAddress = _setting(
        "", "HOST:PORT", "the server that the command asks (default: by the Unix socket)"
    )
    cafile: _MaybeFile = _setting(
        "", "FILE", "the certificate of admin.address, or its CA's (default: the system's CAs)"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        needs = {"listen": ("tlscert", "tlskey", "tokenfile"), "address": ("tokenfile",)}
        for name, needed in needs.items():
            if getattr(self, name) is not None and None in [getattr(self, each) for each in needed]:
                wanted = " and ".join(f"admin.{each}" for each in needed)
                raise ValueError(f"admin.{name}: {wanted} as well")
        return self


class HttpSettings(_Group):
    """What orchestrators and Prometheus ask."""

    listen: _MaybeAddress = _setting(
        "", "HOST:PORT", "where /healthz, /readyz and /metrics are served, over plain HTTP (default: off)"
    )


# --- the tree -----------------------------------------------------------------------------------


class Settings(BaseSettings):
    """All settings, checked and frozen. `network` is None when LND's own is taken."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        env_prefix="SIDECAR_",
        # The first `_` ends the group's name; those after it are the setting's own.
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        # Lists are read by our own types: 443,8443 and not JSON.
        enable_decoding=False,
    )

    lnd: LndSettings = Field(default_factory=LndSettings)
    network: Annotated[str | None, PlainValidator(parsing.optional(parsing.choice(*NETWORKS))), _SHOWN] = (
        _setting("", "NAME", f"{', '.join(NETWORKS)}; a running LND must agree (default: what LND says)")
    )
    redis: RedisSettings = Field(default_factory=RedisSettings)
    datadir: _AnyFile = _setting(
        "~/.static-invoice-sidecar", "DIR", "the sidecar's data directory: admin socket, embedded Redis"
    )
    client: ClientSettings = Field(default_factory=ClientSettings)
    paths: PathsSettings = Field(default_factory=PathsSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    mailbox: MailboxSettings = Field(default_factory=MailboxSettings)
    lsps5: Lsps5Settings = Field(default_factory=Lsps5Settings)
    lease: LeaseSettings = Field(default_factory=LeaseSettings)
    admin: AdminSettings = Field(default_factory=AdminSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    loglevel: Annotated[str, PlainValidator(parsing.choice("debug", "info", "warning", "error"))] = _setting(
        "info", "LEVEL", "debug, info, warning or error", reloadable=True
    )
    logformat: Annotated[str, PlainValidator(parsing.choice("console", "json"))] = _setting(
        "console", "FORM", "console: lines for people; json: one JSON object a line"
    )

    def __init__(self, sources: tuple[PydanticBaseSettingsSource, ...] = ()) -> None:
        """`sources`: where to look, first one wins; nothing else is read. Raises ValidationError."""
        super().__init__(_build_sources=(sources, {}))

    @model_validator(mode="before")
    @classmethod
    def _macaroon_by_network(cls, values: dict[str, Any]) -> dict[str, Any]:
        # LND keeps macaroons by network. A network that is none is refused by its own field.
        network = str(values.get("network", "")).lower()
        path = _MACAROON.format(network=network if network in NETWORKS else NETWORKS[0])
        return values | {"lnd": {"macaroonpath": path} | values.get("lnd", {})}

    @property
    def client_limits(self) -> Limits:
        """All that limits a client which has no limits of its own."""
        return Limits(
            slots=self.client.slots,
            bytes=self.client.bytes,
            ttl=self.client.ttl,
            requests_per_second=self.limits.client_rate,
            requests_burst=self.limits.client_burst,
            stores_per_minute=self.limits.stores_per_minute,
            offer_paths_per_minute=self.limits.offer_paths_per_minute,
            mailbox_letters=self.mailbox.letters,
            mailbox_bytes=self.mailbox.bytes,
        )
