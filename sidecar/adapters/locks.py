"""Locks on files, which end with the process that holds them, however it ends."""

import fcntl
import os
from pathlib import Path


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
