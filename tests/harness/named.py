"""The sidecar on a machine whose DNS a test answers: `python -m tests.harness.named FILE ARGUMENTS…`.

It is `python -m sidecar ARGUMENTS…`, with the names that FILE has, as lines of a name and its address. While
there is no FILE, no DNS server answers. What does not ask Python's `socket` module is as ever: gRPC.
"""

import ipaddress
import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def answer(path: Path) -> None:
    """Let this process ask that file from now on."""
    true: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(host: bytes | str | None, *arguments: Any, **named: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        return true(text if text is None or _is_address(text) else _look_up(path, text), *arguments, **named)

    socket.getaddrinfo = getaddrinfo


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _look_up(path: Path, name: str) -> str:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from None
    for line in lines:
        found, address = line.split()
        if found == name:
            return address
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def main() -> None:
    """Take the first argument, and be the sidecar with the others."""
    answer(Path(sys.argv.pop(1)))
    runpy.run_module("sidecar", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
