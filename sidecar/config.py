"""Where settings come from: all sources, looked at in order, checked, and frozen.

A setting is looked for on the command line, then in the environment, in the file that `--config`
names, in `sidecar.toml` in the data directory, and last comes its default (settings.py).
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, InitSettingsSource

from sidecar.core.errors import ConfigError
from sidecar.options import CONFIG, DATADIR, OPTIONS, PREFIX, Option, find
from sidecar.settings import LimitSettings, Lsps5Settings, RedisSettings, Settings

__all__ = [
    "CONFIG_FILE",
    "LimitSettings",
    "Loaded",
    "Loader",
    "Lsps5Settings",
    "Origin",
    "RedisSettings",
    "Settings",
    "changes",
    "load",
    "shown",
]

CONFIG_FILE = "sidecar.toml"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value came from; `place` is the flag, the variable or the file's path."""

    kind: str
    """flag, env, file or default"""
    place: str = ""

    def __str__(self) -> str:
        kind = {"flag": "the flag", "env": "the environment variable", "file": "the file"}.get(self.kind)
        return f"{kind} {self.place}" if kind else "the defaults"

    @property
    def short(self) -> str:
        """In as few words as a table has room for: `env SIDECAR_LND_HOST`."""
        return f"{self.kind} {self.place}".rstrip()


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each came from (by name; the defaults are left out), and the files that were read."""

    settings: Settings
    origins: Mapping[str, Origin]
    files: tuple[Path, ...]

    def origin(self, name: str) -> Origin:
        """Where the setting of that name comes from."""
        return self.origins.get(name, DEFAULT)


# --- trees and flat tables ----------------------------------------------------------------------


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _tree(values: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, text in values.items():
        group, _, rest = name.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[rest] = text
    return tree


def shown(settings: Settings) -> dict[str, str]:
    """Every setting by its name, as a text that reads back; secrets are hidden."""
    return {name: str(value) for name, value in _flat(settings.model_dump())}


def changes(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """The names of what differs: those that can change at run time, and those that need a restart."""

    def value(settings: Settings, option: Option[Any]) -> object:
        found: object = settings
        for part in option.name.split("."):
            found = getattr(found, part)
        return found

    differ = [option for option in OPTIONS if value(old, option) != value(new, option)]
    return (
        [option.name for option in differ if option.reloadable],
        [option.name for option in differ if not option.reloadable],
    )


# --- sources ------------------------------------------------------------------------------------


class _Environment(EnvSettingsSource):
    """The variables of our settings, out of any environment."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        # The library folds cases, and takes SIDECAR_LND_PORT, which Kubernetes sets for a service of
        # that name, for a setting. An empty variable is how compose files pass one that nobody gave.
        known = (option.variable for option in OPTIONS)
        self._ours = {name.lower(): variables[name] for name in known if variables.get(name)}
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._ours


# What others set under our prefix: Kubernetes for services whose names begin with `sidecar`, and the tests.
_FOREIGN = re.compile(
    r"SIDECAR_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_.*)"
    r"|SIDECAR_(VECTORS.*|NO_SKIPS|CACHE)"
)
_NEAR = 0.8


def _nearest(name: str, known: Iterable[str], least: float) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=least)), None)


def _check_variables(environ: Mapping[str, str]) -> None:
    """Raises ConfigError for a variable that is nearly one of ours: a typo must not pass for a default."""
    ours = [option.variable.removeprefix(PREFIX) for option in (*OPTIONS, CONFIG)]
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX)
        if not text or name in ours or name == variable or _FOREIGN.fullmatch(variable):
            continue
        if near := _nearest(name, ours, _NEAR):
            raise ConfigError(f"{variable!r}: unknown environment variable: did you mean {PREFIX}{near}?")


def _read_file(path: Path) -> dict[str, str]:
    """The options in a TOML file, as text. Raises ConfigError, OSError."""
    # The library's own source passes over a file that is not there, or is a directory, in silence.
    try:
        table = tomllib.loads(path.read_bytes().decode())
        given = dict(_flat(table))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config: the file {path} is no TOML: {error}") from None
    except (ValueError, RecursionError):
        # Python reads no number of thousands of digits, and nothing that is nested hundreds of times.
        raise ConfigError(f"config: the file {path} holds what is no option of ours") from None
    options = {option.name: option for option in OPTIONS}
    values = {}
    for name, value in given.items():
        if name not in options:
            near = _nearest(name, options, 0.6)
            hint = f"did you mean {near}?" if near else f"allowed are {', '.join(options)}"
            raise ConfigError(f"{name!r}: unknown option in the file {path}: {hint}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            found = "something else" if options[name].secret else repr(value)
            raise ConfigError(f"{name}: the file {path} must give one text or number, not {found}")
        values[name] = _written(value)
    return values


def _written(value: str | float) -> str:
    try:
        return str(value)
    except ValueError:  # thousands of digits, which can be written in hex
        return "a number of thousands of digits"


class Loader:
    """Reads the settings of one command line and environment; files are read anew each time."""

    def __init__(self, flags: Mapping[str, str], environ: Mapping[str, str] | None = None) -> None:
        """`flags`: option name to text; `environ`: the process's own by default."""
        self._flags = dict(flags)
        self._environ = dict(os.environ if environ is None else environ)

    def load(self) -> Loaded:
        """The settings as all sources give them now.

        Raises ConfigError: one line that names the option, where it was set, and what is allowed.
        """
        _check_variables(self._environ)
        files = self._files()
        given = {name: text for name, text in self._flags.items() if name != CONFIG.name}
        sources = (
            InitSettingsSource(Settings, _tree(given)),
            _Environment(self._environ),
            *(InitSettingsSource(Settings, _tree(values)) for values in files.values()),
        )
        texts: dict[str, tuple[str, Origin]] = {}
        places: list[str | Path] = ["flag", "env", *files]
        for place, source in zip(places, sources, strict=True):
            for name, text in _flat(source()):
                texts.setdefault(name, (str(text), _origin(place, name)))
        try:
            settings = Settings(sources)
        except ValidationError as error:
            _refuse(error, texts)
        return Loaded(settings, {name: origin for name, (_, origin) in texts.items()}, tuple(files))

    def _early(self, option: Option[Path], files: Mapping[Path, Mapping[str, str]]) -> Path | None:
        """A path that says where to go on looking."""
        layers: list[tuple[str | Path, str | None]] = [
            ("flag", self._flags.get(option.name)),
            ("env", self._environ.get(option.variable) or None),
            *((path, values.get(option.name)) for path, values in files.items()),
        ]
        for place, text in layers:
            if text is not None:
                return option.read(text, str(_origin(place, option.name)))
        return None

    def _files(self) -> dict[Path, dict[str, str]]:
        """The files that are there, first one wins, and what they give. Raises ConfigError."""
        files = {}
        named = self._early(CONFIG, {})
        if named is not None:
            try:
                files[named] = _read_file(named)
            except OSError as error:
                raise ConfigError(f"config: the file {named} can't be read: {error.strerror}") from None
        datadir = self._early(DATADIR, files) or DATADIR.read(DATADIR.default, str(DEFAULT))
        own = datadir / CONFIG_FILE
        try:
            values = _read_file(own)
        except FileNotFoundError:
            return files
        except PermissionError:
            raise ConfigError(
                f"datadir: {own} may not be read by this user: run this as the user that runs `sidecar serve`"
            ) from None
        except OSError as error:
            raise ConfigError(f"datadir: {datadir} is of no use: {error.strerror}") from None
        if DATADIR.name in values:
            raise ConfigError(
                f"datadir: the file {own} lies in the data directory and can't name another one"
            )
        return files | {own: values}


def _origin(place: str | Path, name: str) -> Origin:
    if isinstance(place, Path):
        return Origin("file", str(place))
    option = CONFIG if name == CONFIG.name else find(name)
    return Origin(place, option.flag if place == "flag" else option.variable)


def _refuse(error: ValidationError, texts: Mapping[str, tuple[str, Origin]]) -> NoReturn:
    """Say the first thing that is wrong in our own words: the library's take many lines.

    Raises ConfigError.
    """
    first = error.errors(include_url=False)[0]
    name, rule = ".".join(str(part) for part in first["loc"]), str(first["ctx"]["error"])
    if all(option.name != name for option in OPTIONS):
        # A rule that a whole group breaks says itself which setting asks for more.
        name, _, rule = rule.partition(": ")
    # A default is refused where there is no home directory for it.
    text, origin = texts.get(name, (find(name).default, DEFAULT))
    raise find(name).refusal(text, str(origin), rule) from None


def load(flags: Mapping[str, str], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from `flags` (option name to text), `environ` (the process's own by default) and files.

    Raises ConfigError: one line that names the option, where it was set, and what is allowed.
    """
    return Loader(flags, environ).load().settings
