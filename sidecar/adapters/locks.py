"""Locks on files, which end with the process that holds them, however it ends."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

_HOLDER = re.compile(rb"[0-9a-f]{32}")


def locked(path: Path) -> int:
    """An open file descriptor that holds the lock, for this user alone to open.

    Raises BlockingIOError when another holds it, OSError when the file can't be opened.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


@contextlib.contextmanager
def succeed(path: Path, holder: str) -> Iterator[str]:
    """Leave a holder (16 bytes in hex) in a file, and be given the one that was left there; '' for none.

    The one before is dead: the file is locked while this lasts. '' too where that can't be known: another
    holds the lock, or the file can't be used.
    """
    try:
        lock = locked(path)
    except OSError:
        yield ""
        return
    try:
        yield _exchanged(lock, holder.encode())
    finally:
        os.close(lock)


def _exchanged(file: int, holder: bytes) -> str:
    before = os.pread(file, len(holder) + 1, 0)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, holder, 0)
    except OSError:
        return ""
    return before.decode() if _HOLDER.fullmatch(before) else ""
