"""The settings as a flat table: what the command line, the help and error texts need of each.

The table is read off the tree in settings.py: `lnd.host` is `--lnd.host`, `SIDECAR_LND_HOST` and
`lnd.host = "…"` in TOML.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, PlainValidator

from sidecar import parsing
from sidecar.core.errors import ConfigError
from sidecar.parsing import DAY, HOUR, MINUTE, format_duration
from sidecar.settings import Settings

__all__ = ["CONFIG", "DAY", "HOUR", "MINUTE", "OPTIONS", "PREFIX", "Option", "find", "format_duration"]

T = TypeVar("T")

PREFIX = "SIDECAR_"


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One setting: its name in all sources, how its text is read, its default (as text), its help.

    A `reloadable` one can change while the server runs. A `secret` value is never shown in an error.
    """

    name: str
    parse: Callable[[str], T]
    default: str
    help: str
    metavar: str
    reloadable: bool = False
    secret: bool = False

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """The option in the environment."""
        return PREFIX + self.name.upper().replace(".", "_")

    def read(self, text: str, source: str) -> T:
        """The value that `text` means. Raises ConfigError that names the option, `source` and rule."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise self.refusal(text, source, error) from None

    def refusal(self, text: str, source: str, rule: object) -> ConfigError:
        """The error for a `text` from `source` that breaks a rule; `rule` says what is allowed."""
        shown = "the value" if self.secret else repr(text)
        return ConfigError(f"{self.name}: {shown} from {source} is not allowed: give {rule}")


def _options(model: type[BaseModel], prefix: str = "") -> Iterator[Option[Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _options(field.annotation, f"{prefix}{name}.")
            continue
        extra: Any = field.json_schema_extra
        reader: Any = next(each for each in field.metadata if isinstance(each, PlainValidator))
        yield Option(prefix + name, reader.func, field.default, field.description or "", **extra)


OPTIONS: tuple[Option[Any], ...] = tuple(_options(Settings))
"""Every option, in the order of the help; `CONFIG` stands apart, for no file can hold it."""

CONFIG: Option[Path] = Option("config", parsing.path, "", "a TOML file of these options", "FILE")


def find(name: str) -> Option[Any]:
    """The option of that name. Raises StopIteration for a name that is none."""
    return next(each for each in OPTIONS if each.name == name)


DATADIR: Option[Path] = find("datadir")

# What a client may have of its own, in other words than the server's default.
CLIENT_TTL: Option[int] = find("client.ttl")
CLIENT_SLOTS: Option[int] = find("client.slots")
CLIENT_BYTES: Option[int] = find("client.bytes")
CLIENT_RATE: Option[float] = find("limits.client_rate")
CLIENT_BURST: Option[int] = find("limits.client_burst")
STORES: Option[int] = find("limits.stores_per_minute")
OFFER_PATHS: Option[int] = find("limits.offer_paths_per_minute")
MAIL_LETTERS: Option[int] = find("mailbox.letters")
MAIL_BYTES: Option[int] = find("mailbox.bytes")
TIMESTAMPS: Option[Any] = find("lsps5.timestamps")
