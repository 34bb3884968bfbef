"""LDK's LSPS5 itself, with a real LND and no sidecar: what its client asks, and makes of answers.

All that is wrong here with LDK 0.2.7 and 0.3.0-rc3 is what the sidecar lives with; when LDK changes, a test
says so. The two differ in the URLs that they take, and in nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness.asserting import until
from tests.harness.beside import LNDS
from tests.harness.ldk import LdkPeer
from tests.harness.ldk_lsps5 import (
    AnswerDropped,
    LdkLsps5,
    Listed,
    LspByHand,
    LspsError,
    Registered,
    as_lsp,
)
from tests.harness.lnd_process import LndProcess
from tests.ldk.build import VERSIONS

pytestmark = [pytest.mark.ldk, pytest.mark.asyncio(loop_scope="module")]

NOTIFICATION = '{"jsonrpc":"2.0","method":"lsps5.onion_message_incoming","params":{}}'
APP, URL = 'My App ü"x', "https://push.example.org/hook?l=1234567890&c=best"
PARSE_ERROR = '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error","data":null}}'
RESULTS: dict[str, Any] = {
    "list_protocols": {"protocols": [2, 5]},
    "set_webhook": {"num_webhooks": 2, "max_webhooks": 10, "no_change": True},
    "list_webhooks": {"app_names": [APP, "other"], "max_webhooks": 10},
    "remove_webhook": {},
}

ADVERTISED = ("--protocol.custom-init=729", "--protocol.custom-nodeann=729")
"""bLIP 50: `option_supports_lsps`, in the handshake and in gossip."""

Request = dict[str, Any]


class Client:
    """A wallet that is connected to the LSP, and its four requests with arguments that do."""

    def __init__(self, wallet: LdkLsps5, lsp: LspByHand) -> None:
        self.wallet = wallet
        self.lsp = lsp
        node_id = lsp.lnd.node_id
        self._ask: dict[str, Callable[[], Awaitable[Any]]] = {
            "list_protocols": lambda: wallet.list_protocols(node_id),
            "set_webhook": lambda: wallet.set_webhook(node_id, APP, URL),
            "list_webhooks": lambda: wallet.list_webhooks(node_id),
            "remove_webhook": lambda: wallet.remove_webhook(node_id, APP),
        }

    async def connect(self) -> dict[str, Any]:
        """Connect to the LSP."""
        return await self.wallet.connect(self.lsp.lnd.node_id, self.lsp.lnd.p2p_port)

    async def reconnect(self) -> None:
        """End the connection and make a new one."""

        async def gone() -> bool:
            return not await self.lsp.has(self.wallet.node_id)

        await self.wallet.disconnect(self.lsp.lnd.node_id)
        await until(gone)
        await self.connect()

    async def ask(self, method: str, answer: Callable[[Request], str]) -> tuple[str, Any]:
        """Ask one thing and have it answered: the text that LDK sent, and what it makes of the answer."""
        outcome = asyncio.ensure_future(self._ask[method]())
        text = await self.lsp.next(self.wallet.node_id)
        await self.lsp.send(self.wallet.node_id, answer(json.loads(text)))
        try:
            return text, await outcome
        except (LspsError, AnswerDropped) as error:
            return text, error

    async def registers(self, app_name: str, url: str) -> str:
        """Have a webhook registered: the URL that comes to the LSP, or the name of LDK's own error."""
        outcome = asyncio.ensure_future(self.wallet.set_webhook(self.lsp.lnd.node_id, app_name, url))
        coming = asyncio.ensure_future(self.lsp.next(self.wallet.node_id))
        try:
            await asyncio.wait((outcome, coming), return_when=asyncio.FIRST_COMPLETED)
            if outcome.done():
                with pytest.raises(LspsError) as failed:
                    outcome.result()
                assert not failed.value.sent
                return failed.value.name
            request = json.loads(await coming)
        finally:
            coming.cancel()
        assert request["params"].keys() == {"app_name", "webhook"}
        assert request["params"]["app_name"] == app_name
        await self.lsp.send(self.wallet.node_id, result("set_webhook")(request))
        assert await outcome == Registered(2, 10, no_change=True)
        return str(request["params"]["webhook"])

    async def is_ignoring(self) -> bool:
        """Whether even a good answer of the LSP's is not looked at any more."""
        _, outcome = await self.ask("remove_webhook", result("remove_webhook"))
        return isinstance(outcome, AnswerDropped) and str(outcome).startswith("Ignoring message from peer")


@pytest_asyncio.fixture(loop_scope="module", params=VERSIONS)
async def client(
    request: pytest.FixtureRequest, shared_lnd: LndProcess, tmp_path: Path
) -> AsyncIterator[Client]:
    """A wallet of each LDK that is connected to LND, which answers as the test wants it."""
    async with as_lsp(shared_lnd) as lsp, LdkLsps5(request.param, tmp_path / "wallet") as wallet:
        client = Client(wallet, lsp)
        await client.connect()
        yield client


def result(method: str) -> Callable[[Request], str]:
    """A good answer."""
    return lambda request: json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": RESULTS[method]})


def error(code: int, **more: Any) -> Callable[[Request], str]:
    """An error."""
    body = {"code": code, "message": "no", **more}
    return lambda request: json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": body})


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_client_is_the_wallet_of_its_seed(tmp_path: Path, version: str) -> None:
    """With the same seed it is the node that the peer of the same LDK is."""
    async with LdkLsps5(version, tmp_path / "one") as wallet:
        seed, node_id = wallet.seed, wallet.node_id
    async with LdkPeer(version, tmp_path / "other", seed=seed) as peer:
        assert peer.node_id == node_id


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_client_is_a_whole_wallet(tmp_path: Path, version: str) -> None:
    """LSPS takes nothing away from the peer: it gets its paths and its offer, and a payer the invoice."""
    async with (
        LdkPeer(version, tmp_path / "server", listen=True) as server,
        LdkPeer(version, tmp_path / "payer") as payer,
        LdkLsps5(version, tmp_path / "wallet") as wallet,
    ):
        offer = await wallet.set_up(await server.recipient(b"alice"), server.node_id, server.port)
        await payer.connect(server.node_id, server.port)
        await payer.pay(offer)
        await payer.got("static_invoice")
        await wallet.got("held_htlc_available")


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("lsps0.list_protocols", "{}", [2, 5]),
        (
            "lsps5.set_webhook",
            '{"app_name":"My App ü\\"x","webhook":"https://push.example.org/hook?l=1234567890&c=best"}',
            Registered(num_webhooks=2, max_webhooks=10, no_change=True),
        ),
        ("lsps5.list_webhooks", "{}", Listed((APP, "other"), 10)),
        ("lsps5.remove_webhook", '{"app_name":"My App ü\\"x"}', None),
    ],
)
async def test_the_client_asks_and_is_answered(
    client: Client, method: str, params: str, expected: object
) -> None:
    """To the byte: compact JSON, members in this order, an id of 32 hex digits, text as it is in UTF-8."""
    name = method.partition(".")[2]
    text, outcome = await client.ask(name, result(name))
    request_id = json.loads(text)["id"]
    assert text == f'{{"jsonrpc":"2.0","id":"{request_id}","method":"{method}","params":{params}}}'
    assert len(bytes.fromhex(request_id)) == 16
    assert outcome == expected


async def test_the_client_knows_some_error_codes(client: Client) -> None:
    """500 to 503, 1010 and LDK's own 1003 come as an event with a name, all others as UnknownError."""
    codes = {
        500: "AppNameTooLong",
        501: "UrlParse",
        502: "UnsupportedProtocol",
        503: "TooManyWebhooks",
        1010: "AppNameNotFound",
        1003: "NoPriorActivityError",
        1: "UnknownError",
        -32601: "UnknownError",
        -32602: "UnknownError",
        -32603: "UnknownError",
        -32700: "UnknownError",
    }
    for method in ("set_webhook", "remove_webhook"):
        found = {}
        for code in codes:
            _, outcome = await client.ask(method, error(code))
            assert isinstance(outcome, LspsError)
            assert outcome.sent
            found[code] = outcome.name
        assert found == codes
    assert not await client.is_ignoring()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("list_webhooks", error(-32603)),
        ("list_webhooks", error(1)),
        ("set_webhook", error(-32602, data={"unrecognized": ["x"]})),
        ("set_webhook", error(503, data={})),
        ("set_webhook", lambda _: error(-32600)({"id": None})),
        ("set_webhook", lambda _: result("set_webhook")({"id": "of nobody"})),
        ("set_webhook", lambda _: "rubbish"),
        ("set_webhook", lambda _: NOTIFICATION),
    ],
    ids=[
        "any error of list_webhooks",
        "client rejected, of list_webhooks",
        "the data that bLIP 50 wants with -32602",
        "any data that is an object",
        "an error without an id, but for -32700",
        "an answer to nothing",
        "no JSON",
        "a notification",
    ],
)
async def test_the_client_ignores_an_lsp_from_what_it_cannot_read_on(
    client: Client, method: str, answer: Callable[[Request], str]
) -> None:
    """No event; all later answers are dropped too, until the connection ends. It tells the LSP -32700."""
    _, outcome = await client.ask(method, answer)
    assert isinstance(outcome, AnswerDropped)
    assert "Ignoring peer" in str(outcome)
    assert await client.lsp.next(client.wallet.node_id) == PARSE_ERROR
    assert await client.is_ignoring()
    await client.reconnect()
    assert not await client.is_ignoring()


async def test_the_client_ignores_an_lsp_that_answers_twice(client: Client) -> None:
    """Sending an answer again, to be sure, costs all that come after it."""
    text, outcome = await client.ask("set_webhook", result("set_webhook"))
    assert isinstance(outcome, Registered)
    await client.lsp.send(client.wallet.node_id, result("set_webhook")(json.loads(text)))
    assert await client.lsp.next(client.wallet.node_id) == PARSE_ERROR
    assert await client.is_ignoring()


@pytest.mark.parametrize(
    ("method", "answer", "words"),
    [
        ("list_protocols", error(-32603), "ListProtocols error received"),
        ("set_webhook", lambda _: error(-32700)({"id": None}), "did not understand a message"),
    ],
)
async def test_the_client_writes_some_errors_to_its_log(
    client: Client, method: str, answer: Callable[[Request], str], words: str
) -> None:
    """No event comes of list_protocols' errors and of -32700 without an id; and no harm."""
    _, outcome = await client.ask(method, answer)
    assert isinstance(outcome, AnswerDropped)
    assert words in str(outcome)
    assert not await client.is_ignoring()


@pytest.mark.parametrize(
    ("app_name", "url", "refused"),
    [
        ("a" * 64, URL, None),
        ("a" * 65, URL, "AppNameTooLong"),
        ("ü" * 33, URL, "AppNameTooLong"),
        (APP, "http://push.example.org/", "UnsupportedProtocol"),
        (APP, "https://push.example.org/" + "a" * 999, None),
        (APP, "https://push.example.org/" + "a" * 1000, "WebhookUrlTooLong"),
        (APP, "https://push.example.org:65536/", "UrlParse"),
        (APP, "https://bücher.example/", "UrlParse"),
        (APP, "https://user:word@127.0.0.1:0/", None),
    ],
)
async def test_the_client_refuses_some_webhooks_before_it_asks(
    client: Client, app_name: str, url: str, refused: str | None
) -> None:
    """Far fewer than an LSP has to."""
    assert await client.registers(app_name, url) == (refused or url)


@pytest.mark.parametrize(
    ("url", "by_0_2", "by_0_3"),
    [
        ("https://push.example.org/a+b", "UrlParse", "https://push.example.org/a+b"),
        ("https://push.example.org/~a,b;c", "UrlParse", "https://push.example.org/~a,b;c"),
        ("https://[2001:db8::1]/", "UrlParse", "https://[2001:db8::1]/"),
        ("HTTPS://Push.example.org/", "HTTPS://Push.example.org/", "https://Push.example.org/"),
        # None of these is a URL (RFC 3986), and 0.3 sends them.
        ('https://push.example.org/a b"\\', "UrlParse", 'https://push.example.org/a b"\\'),
        ("https://a b/", "UrlParse", "https://a b/"),
        (" https://push.example.org/\n", "UrlParse", "https://push.example.org/"),
    ],
)
async def test_the_client_takes_more_urls_in_0_3_than_in_0_2(
    client: Client, url: str, by_0_2: str, by_0_3: str
) -> None:
    """0.2 takes less than the bLIP (no `+`, no IPv6); 0.3 all of ASCII that can be seen, and spaces."""
    assert await client.registers(APP, url) == {"0.2": by_0_2, "0.3": by_0_3}[client.wallet.version]


@pytest.mark.parametrize("lnd_version", LNDS)
@pytest.mark.parametrize(
    ("options", "told"),
    [([], False), (["--protocol.custom-init=729", "--protocol.custom-nodeann=729"], True)],
)
async def test_the_client_does_not_ask_for_feature_729(
    tmp_path: Path, lnd_version: str, options: Sequence[str], told: bool
) -> None:
    """It asks those who do not advertise LSPS as well; LND advertises it with a line in lnd.conf."""
    async with (
        LndProcess(LNDS[lnd_version], tmp_path / "lnd", extra=options) as lnd,
        as_lsp(lnd) as lsp,
    ):
        for version in VERSIONS:
            async with LdkLsps5(version, tmp_path / "wallet") as wallet:
                client = Client(wallet, lsp)
                assert (await client.connect())["lsps"] is told
                _, outcome = await client.ask("list_protocols", result("list_protocols"))
                assert outcome == [2, 5]
