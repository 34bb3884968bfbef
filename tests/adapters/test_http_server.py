"""/healthz, /readyz and /metrics over real sockets: what is answered, and what is not."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from sidecar.adapters import http_server
from sidecar.adapters.http_server import MAX_CONNECTIONS, HttpServer
from sidecar.adapters.vitals import Condition
from sidecar.core.errors import ConfigError
from tests.harness.ports import free_port

UP, DOWN = Condition(holds=True, text="Redis keeps changes"), Condition(holds=False, text="LND is away")


class Running:
    """A server and its port."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.server = HttpServer(lambda: (UP,), self.registry)
        self.port = 0

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
        """The status, the body and the headers of an answer, their names in small letters."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.request(method, url) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, await answer.text(), headers

    async def say(self, data: bytes) -> str:
        """All that comes back for these bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        return answer.decode()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A server on a port of the system's choice."""
    running = Running()
    running.port = await running.server.start("127.0.0.1", 0)
    yield running
    await running.server.close()


async def test_healthz_says_ok_whatever_is_away(running: Running) -> None:
    """A restart of the sidecar would bring neither LND nor Redis back."""
    running.server.conditions = lambda: (DOWN, DOWN)
    assert (await running.ask("/healthz"))[:2] == (200, "ok\n")


async def test_readyz_names_each_condition_and_follows_them(running: Running) -> None:
    """200 while all hold, 503 with what does not."""
    assert (await running.ask("/readyz"))[:2] == (200, "ok: Redis keeps changes\n")
    running.server.conditions = lambda: (UP, DOWN)
    assert (await running.ask("/readyz"))[:2] == (503, "ok: Redis keeps changes\nnot ok: LND is away\n")


async def test_metrics_are_in_prometheus_own_format(running: Running) -> None:
    """Text, with a content type that says which."""
    Counter("seen", "Things.", registry=running.registry).inc(3)
    status, text, headers = await running.ask("/metrics")
    assert status == 200
    assert "seen_total 3.0\n" in text
    assert headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_head_is_get_without_its_body(running: Running, path: str) -> None:
    """Probes may ask so."""
    status, text, headers = await running.ask(path, "HEAD")
    assert (status, text) == (200, "")
    assert headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/nothing"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_nothing_can_be_changed(running: Running, method: str, path: str) -> None:
    """Other methods are refused, wherever they go."""
    status, _, headers = await running.ask(path, method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/../metrics2", "/debug", "/static/x"])
async def test_nothing_else_is_served(running: Running, path: str) -> None:
    """Three pages, and no more."""
    assert (await running.ask(path))[0] == 404


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish\r\n\r\n",
        b"GET /" + b"x" * 4_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nbig: " + b"x" * 4_000 + b"\r\n\r\n",
    ],
    ids=["no-http", "long-path", "many-headers", "long-header"],
)
async def test_rubbish_gets_few_words_and_no_log_line(
    running: Running, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """No traceback, nothing of what was sent, and no version of anything."""
    with caplog.at_level(logging.INFO):
        answer = await running.say(data)
    assert " 400 " in answer.splitlines()[0]
    assert answer.endswith("\r\n\r\nbad request\n")
    assert "aiohttp" not in answer.lower()
    assert caplog.records == []


async def test_no_answer_names_a_version(running: Running) -> None:
    """Neither Python's nor aiohttp's."""
    for path, method in (("/healthz", "GET"), ("/nothing", "GET"), ("/metrics", "POST")):
        assert (await running.ask(path, method))[2]["server"] == "static-invoice-sidecar"


async def test_a_fault_of_ours_is_one_short_answer(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the traceback, the caller has not; the next request is served."""

    def broken() -> tuple[Condition, ...]:
        raise RuntimeError("secret")

    running.server.conditions = broken
    assert (await running.ask("/readyz"))[:2] == (500, "internal error\n")
    assert "secret" in caplog.text
    assert (await running.ask("/healthz"))[0] == 200


async def test_connections_that_say_nothing_keep_nobody_out(running: Running) -> None:
    """One more than the most: the one that has been there longest makes room, and no other."""
    idle = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(MAX_CONNECTIONS)]
    assert (await running.ask("/healthz"))[0] == 200
    async with asyncio.timeout(5):
        assert await idle[0][0].read() == b""
    assert not any(reader.at_eof() for reader, _ in idle[1:])
    reader, writer = idle[1]
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    for _, writer in idle:
        writer.close()


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["first", "second"])
async def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """However often another byte of it comes; on a connection that has asked before as well."""
    monkeypatch.setattr(http_server, "KEEP_ALIVE", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(first + b"GET /healthz HTTP/1.1\r\na: ")

    async def drip() -> None:
        while True:
            writer.write(b"b")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(3):
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).count(b"HTTP/1.1 ") == bool(first)
    dripping.cancel()
    writer.close()


async def test_a_taken_port_is_the_operators_matter(running: Running) -> None:
    """The error names the setting, the address and what to do."""
    with pytest.raises(
        ConfigError, match=r"^http\.listen: 127\.0\.0\.1:\d+ .*in use.*a port that nobody uses$"
    ):
        await HttpServer(lambda: (), CollectorRegistry()).start("127.0.0.1", running.port)


async def test_an_address_of_another_machine_is_too() -> None:
    """TEST-NET-1 (RFC 5737) is nobody's."""
    with pytest.raises(ConfigError, match=r"^http\.listen: 192\.0\.2\.1:\d+ .*an address of this machine"):
        await HttpServer(lambda: (), CollectorRegistry()).start("192.0.2.1", free_port())


async def test_a_closed_server_answers_nobody_and_leaves_its_port(running: Running) -> None:
    """Another may listen there at once."""
    await running.server.close()
    with pytest.raises(aiohttp.ClientError):
        await running.ask("/healthz")
    assert await running.server.start("127.0.0.1", running.port) == running.port
