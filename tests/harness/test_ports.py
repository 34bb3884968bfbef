"""A port that is given stays its server's until that listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ports
from tests.harness.ports import BLOCK, BLOCKS, BUS, FIRST, free_port, free_ports

PATH = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_ports_given_one_after_the_other_differ() -> None:
    """Though nobody listens on any of them yet."""
    assert len(set(free_ports(40))) == 40


def test_no_outgoing_connection_takes_one() -> None:
    """They lie below those that Linux gives out by itself, unless told otherwise; so does the bus's."""
    assert max(free_ports(BLOCK)) < FIRST + BLOCK * BLOCKS <= 32_768 - BUS


def test_processes_at_the_same_time_get_other_ones() -> None:
    """Each has a block of its own for as long as it runs."""
    code = f"from tests.harness.ports import free_ports; print(*free_ports({BLOCK}))"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, env=PATH, capture_output=True, text=True, check=True)
    theirs = {int(port) for port in other.stdout.split()}
    assert theirs.isdisjoint(free_ports(BLOCK // 2))


@pytest.mark.parametrize("above", [0, BUS])
def test_one_that_is_taken_is_not_given(above: int) -> None:
    """Nor where only the bus's is."""
    port = free_port(bus=True)
    with socket.create_server(("127.0.0.1", port + above)):
        given = [free_port(bus=True) for _ in range(BLOCK)]
    assert port not in given
    assert port in [free_port(bus=True) for _ in range(BLOCK)]


def test_without_a_free_one_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than look for ever."""
    monkeypatch.setattr(ports, "_is_free", lambda _: False)
    with pytest.raises(AssertionError, match="none of this process's ports is free"):
        free_port()
