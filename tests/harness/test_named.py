"""A machine whose DNS a test answers: what names mean, and what fails while nobody answers."""

import socket
from pathlib import Path

import pytest

from tests.harness import named


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that this process asks now."""
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    named.answer(tmp_path / "names")
    return tmp_path / "names"


def looked_up(name: str) -> str:
    """The address of a name."""
    return str(socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)[0][4][0])


def test_a_name_means_what_the_file_says_at_that_time(names: Path) -> None:
    """Known, moved, unknown; and addresses are what they are."""
    names.write_text("a.test 127.0.0.1\n")
    assert looked_up("a.test") == "127.0.0.1"
    names.write_text("a.test 127.0.0.2\n")
    assert (looked_up("a.test"), looked_up("127.0.0.3")) == ("127.0.0.2", "127.0.0.3")
    with pytest.raises(socket.gaierror) as unknown:
        looked_up("b.test")
    assert unknown.value.errno == socket.EAI_NONAME


def test_without_the_file_no_name_is_found_for_now(names: Path) -> None:
    """As with a DNS server that does not answer."""
    assert not names.exists()
    with pytest.raises(socket.gaierror) as down:
        looked_up("a.test")
    assert down.value.errno == socket.EAI_AGAIN
    assert looked_up("127.0.0.1") == "127.0.0.1"
