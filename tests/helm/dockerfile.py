"""Carries out a Dockerfile without a container engine: `tests.helm.boxes` is its builder.

What it does not know, it refuses. The image that FROM names is not fetched: each stage stands on this
machine's system and the Python that runs the tests, laid out as the official images lay it out.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.helm.boxes import PATH, Box, User, base


class DockerfileError(Exception):
    """A line that is wrong, or that is not known here."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a build gives: layers, and what is known of how to run it."""

    layers: tuple[Path, ...]
    """The topmost first, over this machine's system."""
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: User | None = None
    """None: root."""
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    stop_signal: str = "SIGTERM"


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction."""

    word: str
    """In capitals."""
    rest: str
    number: int
    """Of its first line in the file."""


def read(text: str) -> Iterator[Line]:
    """The instructions of a Dockerfile: comments left out, lines that go on put together."""
    start, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#") or (not parts and not line.strip()):
            continue
        start = start if parts else number
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            word, _, rest = "".join(parts).strip().partition(" ")
            yield Line(word.upper(), rest.strip(), start)
            parts = []
    if parts:
        raise DockerfileError(f"line {start}: it does not end")


class Build:
    """One build: `Build(context, folder).image()`; all of it stays in the folder."""

    def __init__(self, context: Path, folder: Path, arguments: Mapping[str, str] | None = None) -> None:
        """`context`: the directory with Dockerfile and .dockerignore. `arguments`: `--build-arg`."""
        self._folder = folder
        self._arguments = arguments or {}
        self._file = (context / "Dockerfile").read_text()
        self._context = folder / "context"
        _send(context, self._context)
        self._base = base(folder / "base", Path(sys.base_prefix))
        self._known: dict[str, str] = {}
        """What variables stand for now: ARG and ENV."""
        self._outer: dict[str, str] = {}
        """The ARGs before the first FROM, which a stage sees when it names them again."""
        self._stages: dict[str, Path] = {}
        self._layer = folder
        self._image: Image | None = None

    def image(self) -> Image:
        """Carry it out. Raises DockerfileError, and BoxError when a RUN fails."""
        for line in read(self._file):
            step = getattr(self, f"_{line.word.lower()}", None)
            if step is None or line.word == line.word.lower():
                raise DockerfileError(f"line {line.number}: {line.word} is not known here")
            if self._image is None and line.word not in ("ARG", "FROM"):
                raise DockerfileError(f"line {line.number}: {line.word} before FROM")
            step(line)
        return self._now

    @property
    def _now(self) -> Image:
        if self._image is None:
            raise DockerfileError("there is no FROM")
        return self._image

    # --- the instructions ------------------------------------------------------------------------

    def _arg(self, line: Line) -> None:
        name, given, default = line.rest.partition("=")
        value = self._arguments.get(name)
        if value is None:
            value = self._filled(shlex.split(default)[0] if given and default else default)
            value = value if given else self._outer.get(name, "")
        self._known[name] = value
        if self._image is None:
            self._outer[name] = value

    def _from(self, line: Line) -> None:
        # An image's name is made of the ARGs before the first FROM alone.
        self._known = dict(self._outer)
        words = self._filled(line.rest).split()
        name = words[2] if len(words) == 3 and words[1].upper() == "AS" else str(len(self._stages))
        if len(words) not in (1, 3) or "/" not in words[0] or words[0] in self._stages:
            raise DockerfileError(f"line {line.number}: FROM a registry's image, alone or with a name")
        self._layer = self._folder / f"stage-{name}"
        self._layer.mkdir()
        self._stages[name] = self._layer
        self._known = {}
        self._image = Image((self._layer, self._base))

    def _label(self, line: Line) -> None:
        self._image = replace(self._now, labels={**self._now.labels, **self._pairs(line)})

    def _env(self, line: Line) -> None:
        pairs = self._pairs(line)
        self._known |= pairs
        self._image = replace(self._now, env={**self._now.env, **pairs})

    def _workdir(self, line: Line) -> None:
        workdir = os.path.normpath(f"{self._now.workdir}/{self._filled(line.rest)}")
        workdir = self._filled(line.rest) if self._filled(line.rest).startswith("/") else workdir
        self._image = replace(self._now, workdir=workdir)
        # Docker makes it, as root, where it is not there.
        Box((self._base,), self._layer).run(["mkdir", "-p", workdir])

    def _user(self, line: Line) -> None:
        numbers = re.fullmatch(r"(\d+):(\d+)", self._filled(line.rest))
        if numbers is None:
            # Kubernetes' runAsNonRoot can't tell who a name is.
            raise DockerfileError(f"line {line.number}: USER takes two numbers")
        self._image = replace(self._now, user=User(int(numbers[1]), int(numbers[2])))

    def _copy(self, line: Line) -> None:
        words = shlex.split(self._filled(line.rest))
        flags = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        origin = self._context
        for flag in flags:
            if not flag.startswith("--from=") or flag.removeprefix("--from=") not in self._stages:
                raise DockerfileError(f"line {line.number}: {flag} is not known here")
            origin = self._stages[flag.removeprefix("--from=")]
        for source in sources:
            self._copy_one(origin / source.lstrip("/"), target, line)

    def _copy_one(self, source: Path, target: str, line: Line) -> None:
        absolute = target if target.startswith("/") else f"{self._now.workdir}/{target}"
        place = Path(f"{self._layer}/{absolute}")
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        elif source.is_file():
            place = place / source.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
        else:
            raise DockerfileError(f"line {line.number}: there is no {source.name} to copy")

    def _run(self, line: Line) -> None:
        if line.rest.startswith(("-", "[")):
            raise DockerfileError(f"line {line.number}: RUN takes a line for the shell")
        box = Box(
            (self._base,),
            self._layer,
            env={"HOME": "/root", **_told(), **self._known, **self._now.env},
            user=self._now.user,
            workdir=self._now.workdir,
        )
        box.run(["/bin/sh", "-c", line.rest])

    def _expose(self, line: Line) -> None:
        self._image = replace(self._now, ports=tuple(int(word) for word in self._filled(line.rest).split()))

    def _stopsignal(self, line: Line) -> None:
        self._image = replace(self._now, stop_signal=line.rest)

    def _healthcheck(self, line: Line) -> None:
        _, found, command = line.rest.partition("CMD ")
        if not found:
            raise DockerfileError(f"line {line.number}: HEALTHCHECK takes a CMD")
        self._image = replace(self._now, healthcheck=_words(command, line))

    def _entrypoint(self, line: Line) -> None:
        self._image = replace(self._now, entrypoint=_words(line.rest, line))

    def _cmd(self, line: Line) -> None:
        self._image = replace(self._now, command=_words(line.rest, line))

    # --- their words -----------------------------------------------------------------------------

    def _filled(self, text: str) -> str:
        """With variables replaced, as Docker does it outside of RUN and of commands."""
        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: self._known.get(m[1] or m[2], ""), text)

    def _pairs(self, line: Line) -> dict[str, str]:
        pairs = [word.partition("=") for word in shlex.split(line.rest)]
        if not all(equals for _, equals, _ in pairs):
            raise DockerfileError(f"line {line.number}: {line.word} takes NAME=VALUE")
        return {name: self._filled(value) for name, _, value in pairs}


def _words(text: str, line: Line) -> tuple[str, ...]:
    """A command in the form that needs no shell: JSON."""
    try:
        words = json.loads(text)
    except ValueError:
        raise DockerfileError(f"line {line.number}: {line.word} takes a list of words") from None
    return tuple(words)


def _told() -> dict[str, str]:
    """How this machine reaches package registries: Docker has `--build-arg` for that."""
    wanted = re.compile(r"PIP_\w+|(https?|no)_proxy|\w+_CA_BUNDLE|SSL_CERT_\w+", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if wanted.fullmatch(name)}


# --- what the builder gets to see ---------------------------------------------------------------


def _send(context: Path, target: Path) -> None:
    """Copy what .dockerignore does not leave out, as `docker build` sends it to the builder."""
    rules = [
        line.strip()
        for line in (context / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    target.mkdir(parents=True)
    for path in _sent(context, Path(), rules):
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(context / path, place)


def _sent(context: Path, folder: Path, rules: Sequence[str]) -> Iterator[Path]:
    for entry in sorted((context / folder).iterdir()):
        path = folder / entry.name
        if _ignored(path, rules):
            # Rules that let something in again name the first part of a path here: no need to look deeper.
            continue
        if entry.is_dir():
            yield from _sent(context, path, rules)
        else:
            yield path


def _ignored(path: Path, rules: Sequence[str]) -> bool:
    """Whether .dockerignore leaves a path out: the last rule that fits it, or a directory above it, wins."""
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        names = [str(path), *map(str, path.parents)][:-1]
        # "**/x" is an x at any depth, the first included.
        fits = any(
            fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
            if not pattern.startswith("**/")
            else fnmatch.fnmatchcase(Path(name).name, pattern.removeprefix("**/"))
            for name in names
        )
        ignored = (not rule.startswith("!")) if fits else ignored
    return ignored
