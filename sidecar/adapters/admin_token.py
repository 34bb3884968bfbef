"""The token that each admin call over TCP brings, and that server and caller each read from a file."""

import stat
from pathlib import Path

from sidecar.core.errors import ConfigError

MIN_TOKEN = 32
"""Characters that a token has at least: `openssl rand -hex 32` makes 64."""

_TOKEN_HELP = "make one with `openssl rand -hex 32`"  # noqa: S105 - a hint, no token


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it. Raises ConfigError.

    Others may be able to read the file, as with secrets that Kubernetes mounts, but not to write it.
    """
    try:
        writable = path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        token = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"admin.tokenfile: {path} can't be read: {error.strerror}") from None
    if writable:
        raise ConfigError(f"admin.tokenfile: others may write {path}: `chmod go-w {path}`")
    if len(token) < MIN_TOKEN:
        raise ConfigError(
            f"admin.tokenfile: {path} holds {len(token)} characters, and a token has at least "
            f"{MIN_TOKEN}: {_TOKEN_HELP}"
        )
    if not all(0x21 <= byte <= 0x7E for byte in token):
        raise ConfigError(f"admin.tokenfile: {path} holds more than one word of ASCII: {_TOKEN_HELP}")
    return token.decode("ascii")
