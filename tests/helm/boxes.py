"""Containers without a container engine: a root filesystem of layers, and one process tree in it.

The kernel does what it does for an engine: namespaces for mounts and processes, overlayfs for layers, an
unprivileged user without capabilities. The layers lie over this machine's own system files.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What engines set where an image sets none."""

_SYSTEM = frozenset({"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc"})
"""What a box sees of this machine: its programs and libraries, no homes and no one's files."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

_SETTING_UP = "setting-up"
"""What the shell that makes a box calls itself: its command may be a shell too."""


class BoxError(Exception):
    """A command in a box failed; the text has what it printed last."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or directory of this machine that a box sees at `target`."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class User:
    """Whose rights a program has; none of root's, whoever it is."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary groups: fsGroup."""


ROOT: User | None = None
"""The builder's user: root as it is."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where a program runs: made for one program, or for several one after another."""

    layers: tuple[Path, ...]
    """Directories that lie over each other and over this machine's system, the topmost first."""
    changes: Path
    """A directory for what is written to the root filesystem, a layer itself later."""
    env: Mapping[str, str] = field(default_factory=dict)
    user: User | None = ROOT
    workdir: str = "/"
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    """Nothing may be written but where `mounts` let it."""
    network: Path | None = None
    """A file that stands for a network namespace; None is this machine's own network."""

    def argv(self, command: Sequence[str]) -> list[str]:
        """What to run to have this command as process 1 of the box.

        It ends with the command's exit code, and the command ends with it.
        """
        enter = [] if self.network is None else [_tool("nsenter"), f"--net={self.network}"]
        unshare = [_tool("unshare"), "--mount", "--pid", "--fork", "--kill-child=SIGKILL"]
        return [*enter, *unshare, "/bin/sh", "-euc", self._script(command), _SETTING_UP]

    def inside(self, pid: int, command: Sequence[str]) -> list[str]:
        """What to run to have a further command in the box whose process 1 is `pid` here: `kubectl exec`."""
        enter = [_tool("nsenter"), f"--target={pid}", "--mount", "--pid", "--net", "--root", "--wd"]
        return [*enter, *self._as_user(command)]

    def run(self, command: Sequence[str]) -> str:
        """Run a command to its end; what it printed to stdout. Raises BoxError."""
        done = subprocess.run(
            self.argv(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BoxError(
                f"{shlex.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
            )
        return done.stdout

    def _script(self, command: Sequence[str]) -> str:
        # The layers lie in this machine's file system themselves, and overlayfs takes no layer that is in
        # another: an overlay of its own makes another file system of it.
        root, work, system = (self._made(name) for name in ("root", "work", "system"))
        nothing = f"upperdir={self._made('nothing')},workdir={self._made('nothing-work')}"
        lower = ":".join(map(str, (*self.layers, system)))
        self.changes.mkdir(parents=True, exist_ok=True)
        lines = [
            _overlay("/", nothing, system),
            _overlay(lower, f"upperdir={self.changes},workdir={work}", root),
            *_devices(root),
            *(line for mount in self.mounts for line in _bind(root, mount)),
            *([_shell("mount", "-o", "remount,ro", root)] if self.read_only else []),
            f"exec {_shell(_tool('chroot'), root, *self._as_user(command))}",
        ]
        return "\n".join(lines)

    def _made(self, name: str) -> Path:
        """A directory beside `changes`: overlayfs wants its own on the same disk."""
        folder = self.changes.with_name(f"{self.changes.name}.box") / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _as_user(self, command: Sequence[str]) -> list[str]:
        variables = [f"{name}={value}" for name, value in ({"PATH": PATH} | dict(self.env)).items()]
        bare = [_tool("env"), "-i", f"--chdir={self.workdir}", *variables, *command]
        if self.user is None:
            return bare
        groups = ",".join(map(str, self.user.groups))
        return [
            _tool("setpriv"),
            f"--reuid={self.user.uid}",
            f"--regid={self.user.gid}",
            f"--groups={groups}" if groups else "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--no-new-privs",
            *bare,
        ]


def is_setting_up(pid: int) -> bool:
    """Whether process 1 of a box is still on its way to the command. Raises OSError when it has ended."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    own = (_tool("chroot"), _tool("setpriv"), _tool("env"), _tool("unshare"))
    return not words[0] or words[3:4] == [_SETTING_UP.encode()] or words[0].decode() in own


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BoxError(f"containers are made with util-linux' programs: {name} is not on the PATH")
    return found


def _shell(*words: object) -> str:
    return shlex.join(map(str, words))


def _overlay(lower: str, upper: str, place: Path) -> str:
    return _shell("mount", "-t", "overlay", "-o", f"lowerdir={lower},{upper}", "overlay", place)


def _devices(root: Path) -> list[str]:
    lines = [
        _shell("mount", "-t", "proc", "proc", root / "proc"),
        _shell("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "dev"),
        _shell("ln", "-s", "/proc/self/fd", root / "dev" / "fd"),
    ]
    for name in _DEVICES:
        lines += [_shell("touch", root / "dev" / name)]
        lines += [_shell("mount", "--bind", f"/dev/{name}", root / "dev" / name)]
    return lines


def _bind(root: Path, mount: Mount) -> list[str]:
    target = root / mount.target.lstrip("/")
    point = (
        [_shell("mkdir", "-p", target)]
        if mount.source.is_dir()
        else [_shell("mkdir", "-p", target.parent), _shell("touch", target)]
    )
    lines = [*point, _shell("mount", "--bind", mount.source, target)]
    if mount.read_only:
        lines.append(_shell("mount", "-o", "remount,bind,ro", target))
    return lines


# --- what all boxes stand on --------------------------------------------------------------------


def base(folder: Path, python: Path | None = None) -> Path:
    """A layer that makes of this machine what an official image is: a system, nobody's files, no users.

    `python`: the prefix of an interpreter, which lies in /usr/local as in the official images of
    Python: with pip, without the standard library's tests and without bytecode.
    """
    folder.mkdir(parents=True)
    hidden = {entry.name for entry in Path("/").iterdir()} - _SYSTEM
    for name in hidden | {"dev", "proc", "sys", "tmp", "var", "usr/local"}:
        if not Path("/", name).is_symlink():
            _empty(folder / name)
    (folder / "tmp").chmod(0o1777)
    (folder / "root").chmod(0o700)
    for name in ("var/lib", "var/log", "var/mail", "var/tmp", "run", "usr/local/bin", "etc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "var/tmp").chmod(0o1777)
    _users(folder / "etc")
    if python is not None:
        _install_python(python, folder)
    return folder


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # What lies below does not shine through.
    os.setxattr(folder, "trusted.overlay.opaque", b"y")


def _users(etc: Path) -> None:
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for name, lines in (("shadow", "root:*:1::::::\nnobody:*:1::::::\n"), ("gshadow", "root:*::\n")):
        (etc / name).write_text(lines)
        (etc / name).chmod(0o640)


def _install_python(prefix: Path, layer: Path) -> None:
    local = layer / "usr" / "local"
    (library,) = (path for path in (prefix / "lib").glob("python3.*") if (path / "os.py").is_file())
    version = library.name
    left_out = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "site-packages", "config-*")
    shutil.copytree(library, local / "lib" / version, symlinks=True, ignore=left_out)
    for path in (library / "site-packages").glob("pip*"):
        target = local / "lib" / version / "site-packages" / path.name
        shutil.copytree(path, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (prefix / "lib").glob("libpython3*"):
        shutil.copy2(path, local / "lib" / path.name, follow_symlinks=False)
    shutil.copy2(prefix / "bin" / version, local / "bin" / version)
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to(version)
    # So that the interpreter finds its library there.
    Box((), layer).run(["/sbin/ldconfig"])


@functools.cache
def why_not() -> str | None:
    """Why there can be no boxes on this machine; None when there can."""
    if os.geteuid():
        return "containers are made by root alone"
    with tempfile.TemporaryDirectory(prefix="box-") as scratch:
        try:
            layer = base(Path(scratch, "base"))
            Box((layer,), Path(scratch, "changes"), user=User(65532, 65532)).run(["true"])
        except (BoxError, OSError) as error:
            return f"this machine does not let containers be made: {error}"
    return None
