"""What `sidecar doctor` looks at on its own machine: files, disks, the way out to push services."""

import asyncio
import contextlib
import os
import shutil
import ssl
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socket import SOCK_STREAM
from typing import TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

from sidecar.adapters.guard import AddressRefused, DialRules, Guard, Lookups
from sidecar.core.diagnosis import DirectoryFact, FileFact
from sidecar.core.errors import ConfigError

T = TypeVar("T")


async def in_background(function: Callable[[], T]) -> T:
    """What a function that blocks returns or raises; it may be left behind without keeping the process."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

    def run() -> None:
        result, failed = None, None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failed)

    # Of asyncio's own threads the process would wait for each at its end.
    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await answer


# --- files ----------------------------------------------------------------------------------------


def look_at(files: Iterable[tuple[str, Path]]) -> list[FileFact]:
    """Whether files that hold secrets can be read, and by whom; each with what it is."""
    return [_file(what, path) for what, path in files]


def _file(what: str, path: Path) -> FileFact:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            file.read(1)
    except OSError as error:
        return FileFact(what, str(path), error=error.strerror or type(error).__name__)
    return FileFact(what, str(path), others_read=bool(mode & stat.S_IROTH))


def look_into(datadir: Path) -> DirectoryFact:
    """Whether the data directory is there, can be written to, and is its owner's alone."""
    try:
        found = datadir.stat()
    except FileNotFoundError:
        parent = _existing(datadir)
        writable = os.access(parent, os.W_OK | os.X_OK)
        return DirectoryFact(str(datadir), there=False, error=None if writable else "can't be made")
    except OSError as error:
        return DirectoryFact(str(datadir), there=False, error=error.strerror or type(error).__name__)
    if not stat.S_ISDIR(found.st_mode):
        return DirectoryFact(str(datadir), there=True, error="not a directory")
    if not os.access(datadir, os.W_OK | os.X_OK):
        return DirectoryFact(str(datadir), there=True, error="no permission to write")
    return DirectoryFact(
        str(datadir), there=True, others_enter=bool(found.st_mode & (stat.S_IROTH | stat.S_IWOTH))
    )


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def free_space(path: Path) -> int:
    """Bytes that are free where a path is, or would be made. Raises OSError."""
    return shutil.disk_usage(_existing(path)).free


# --- the way out ----------------------------------------------------------------------------------


async def reach(
    host: str,
    port: int,
    rules: DialRules,
    ca_file: Path | None,
    resolver: AbstractResolver | None = None,
) -> str | None:
    """Connect by TLS as a webhook would be, and hang up; the slug of what went wrong, or None.

    Raises ConfigError for a CA that can't be used.
    """
    if port not in rules.ports:
        return "port-refused"
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError:  # an SSLError is one too
            raise ConfigError(f"lsps5.cafile: {ca_file} is no file of certificates") from None
    try:
        found = await (resolver or Lookups()).resolve(host, port)
    except OSError:
        return "no-such-host"
    slug = "no-such-host"
    for address in found:
        tried = await _dial(address, host, Guard(rules), context)
        if tried is None:
            return None
        slug = tried
    return slug


async def _dial(address: ResolveResult, name: str, guard: Guard, context: ssl.SSLContext) -> str | None:
    where = (address["host"], address["port"])
    try:
        socket = guard.socket((address["family"], SOCK_STREAM, address["proto"], "", where))
    except AddressRefused:
        return "address-refused"
    with socket:
        try:
            await asyncio.get_running_loop().sock_connect(socket, where)
            _, writer = await asyncio.open_connection(sock=socket, ssl=context, server_hostname=name)
        except ssl.SSLCertVerificationError:
            return "certificate"
        except (ssl.SSLError, ConnectionResetError):
            return "tls"
        except OSError:
            return "connect"
        writer.transport.abort()
    return None
