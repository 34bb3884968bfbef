"""The admin service for webhooks over a Unix socket: its answers, its refusals, and what it never says."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from sidecar.adapters.admin_client import socket_target
from sidecar.adapters.admin_status import reason_in
from sidecar.core import keys, webhooks
from sidecar.core.webhooks import Delivery, WebhookState
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.shell import Served
from tests.harness.store_contract import a_bound_client, a_client

ALICE, BOB = keys.public_key(b"\x01" * 32), keys.public_key(b"\x02" * 32)
PATH, QUERY = "/v1/tok-5ecret", "key=hu4ter2"
URL = f"https://push.example{PATH}?{QUERY}"


class Hooks:
    """The service of a running server, and the client alice, who is node ALICE."""

    def __init__(self, served: Served, channel: grpc.aio.Channel) -> None:
        self.served = served
        self.stub = admin_pb2_grpc.WebhooksStub(channel)
        self.alice = a_bound_client("alice", ALICE)

    async def add(self, client: str = "alice", app: str = "app", url: str = URL) -> Any:
        """Register a webhook."""
        request = admin_pb2.AddWebhookRequest(client=client, app_name=app, url=url)
        return await self.stub.AddWebhook(request)

    async def list(self, client: str = "alice") -> Any:
        """All webhooks and deliveries."""
        return await self.stub.ListWebhooks(admin_pb2.ListWebhooksRequest(client=client))

    async def test(self, client: str = "alice", app: str = "") -> Any:
        """Notify now."""
        return await self.stub.TestWebhooks(admin_pb2.TestWebhooksRequest(client=client, app_name=app))

    async def pause(self, client: str = "alice", app: str = "app", *, paused: bool = True) -> Any:
        """Pause, or resume."""
        request = admin_pb2.PauseWebhookRequest(client=client, app_name=app, paused=paused)
        return await self.stub.PauseWebhook(request)

    async def remove(self, client: str = "alice", app: str = "app") -> Any:
        """Forget a webhook."""
        return await self.stub.RemoveWebhook(admin_pb2.RemoveWebhookRequest(client=client, app_name=app))

    @property
    def each(self) -> dict[str, Callable[..., Any]]:
        """Every call, by its name; the client's name is the first argument."""
        return {
            "add": self.add,
            "list": self.list,
            "test": self.test,
            "pause": self.pause,
            "remove": self.remove,
        }


@pytest.fixture
async def hooks(served: Served) -> AsyncIterator[Hooks]:
    """Over a socket of its own."""
    async with grpc.aio.insecure_channel(socket_target(served.path)) as channel:
        hooks = Hooks(served, channel)
        await served.store.add_client(hooks.alice)
        yield hooks


async def refusal(code: grpc.StatusCode, reason: str, call: Any) -> str:
    """The text of a call that is refused with this status and this reason."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), reason_in(caught.value)) == (code, reason)
    return caught.value.details() or ""


CALLS = pytest.mark.parametrize("call", ["add", "list", "test", "pause", "remove"])


# --- what it does --------------------------------------------------------------------------------


async def test_an_added_webhook_is_kept_and_announced(hooks: Hooks) -> None:
    """As if the wallet had registered it: whole on disk, and webhook_registered goes to it alone."""
    added = await hooks.add()
    assert (added.count, added.no_change) == (1, False)
    (kept,) = await hooks.served.hooks.webhooks(ALICE)
    assert (kept.app_name, kept.url, kept.state) == ("app", URL, WebhookState())
    assert hooks.served.notifier.announced == [(ALICE, "app")]
    second = await hooks.add(app="other")
    assert (second.count, second.no_change) == (2, False)
    assert hooks.served.notifier.announced == [(ALICE, "app"), (ALICE, "other")]


async def test_the_same_webhook_again_is_no_change(hooks: Hooks) -> None:
    """And no second webhook_registered; another URL is a change."""
    await hooks.add()
    again = await hooks.add()
    assert (again.count, again.no_change) == (1, True)
    assert len(hooks.served.notifier.announced) == 1
    other = await hooks.add(url="https://push.example/other")
    assert (other.count, other.no_change) == (1, False)
    assert len(hooks.served.notifier.announced) == 2


async def test_list_tells_how_each_webhook_fares(hooks: Hooks) -> None:
    """By name, field by field, with the last deliveries, newest first; of the URL its host alone."""
    store = hooks.served.hooks
    await hooks.add(app="b", url="https://PUSH.example:443/x")
    await hooks.add(app="a")
    first, second = await store.webhooks(ALICE)
    await store.note_state(ALICE, first, WebhookState(announced=True, failures=3, paused_until=1_900_000_000))
    await store.pause_webhook(ALICE, "b", paused=True)
    for number in range(2):
        await store.log_delivery(ALICE, Delivery(number, "a", "lsps5.onion_message_incoming", "timeout", 3))
    listed = await hooks.list()
    assert listed == admin_pb2.ListWebhooksResponse(
        node_id=ALICE.hex(),
        webhooks=[
            admin_pb2.Webhook(
                app_name="a",
                host="push.example",
                registered_at=first.registered_at,
                announced=True,
                failures=3,
                paused_until=1_900_000_000,
            ),
            admin_pb2.Webhook(
                app_name="b", host="push.example:443", registered_at=second.registered_at, paused=True
            ),
        ],
        deliveries=[
            admin_pb2.Delivery(
                at_ms=number, app_name="a", method="lsps5.onion_message_incoming", outcome="timeout", tries=3
            )
            for number in (1, 0)
        ],
    )


async def test_the_list_of_a_client_without_webhooks_is_empty(hooks: Hooks) -> None:
    """And no error; its node is told."""
    assert await hooks.list() == admin_pb2.ListWebhooksResponse(node_id=ALICE.hex())


async def test_testing_notifies_one_or_all(hooks: Hooks) -> None:
    """And the answer says what came of it."""
    await hooks.add()
    done = await hooks.test(app="app")
    assert list(done.deliveries) == [
        admin_pb2.Delivery(
            at_ms=1_000, app_name="app", method="lsps5.onion_message_incoming", outcome="ok", tries=1
        )
    ]
    await hooks.test()
    assert hooks.served.notifier.tested == [(ALICE, "app"), (ALICE, None)]


async def test_a_paused_webhook_stays_until_it_is_resumed(hooks: Hooks) -> None:
    """And resuming forgets its failures."""
    store = hooks.served.hooks
    await hooks.add()
    (webhook,) = await store.webhooks(ALICE)
    await store.note_state(ALICE, webhook, WebhookState(announced=True, failures=9, paused_until=1 << 40))
    await hooks.pause()
    assert (await store.webhooks(ALICE))[0].state.paused
    await hooks.pause(paused=False)
    assert (await store.webhooks(ALICE))[0].state == WebhookState(announced=True)


async def test_a_removed_webhook_is_gone_alone(hooks: Hooks) -> None:
    """Others of the node stay, and so do those of other nodes."""
    for client, app in (("alice", "app"), ("alice", "b"), (BOB.hex(), "app")):
        await hooks.add(client, app)
    await hooks.remove()
    assert [each.app_name for each in (await hooks.list()).webhooks] == ["b"]
    assert [each.app_name for each in (await hooks.list(BOB.hex())).webhooks] == ["app"]


async def test_a_client_is_named_by_name_id_or_node(hooks: Hooks) -> None:
    """Each leads to the same webhooks, in small letters or in large ones."""
    client_id = hooks.alice.client_id.hex()
    for name in ("alice", client_id, client_id.upper(), ALICE.hex(), ALICE.hex().upper()):
        await hooks.add(name)
        assert [each.app_name for each in (await hooks.list(name)).webhooks] == ["app"]
        assert len((await hooks.test(name)).deliveries) == 1
        await hooks.pause(name)
        await hooks.pause(name, paused=False)
        await hooks.remove(name)
        assert not (await hooks.list()).webhooks


async def test_a_node_that_is_no_clients_may_have_webhooks(hooks: Hooks) -> None:
    """The operator says so: a peer with a channel could register them itself."""
    assert (await hooks.add(BOB.hex())).count == 1
    assert not await hooks.served.hooks.webhooks(ALICE)
    assert len(await hooks.served.hooks.webhooks(BOB)) == 1


# --- whom it does not find -----------------------------------------------------------------------


@CALLS
async def test_a_client_that_is_not_there_is_not_found(hooks: Hooks, call: str) -> None:
    """With the way to those that are."""
    text = await refusal(grpc.StatusCode.NOT_FOUND, "no-such-client", hooks.each[call]("bob"))
    assert text == "there is no client 'bob': `sidecar client list` shows all"


@CALLS
async def test_a_client_whose_node_is_not_known_can_not_be_woken(hooks: Hooks, call: str) -> None:
    """The text says how its node becomes known."""
    await hooks.served.store.add_client(a_client("bob"))
    text = await refusal(grpc.StatusCode.FAILED_PRECONDITION, "node-unknown", hooks.each[call]("bob"))
    assert text.startswith("the node of client bob is not known yet: it is learnt when its wallet leaves an")
    assert text.endswith("`sidecar client rebind bob --node-id ID`")


@CALLS
async def test_a_revoked_client_names_no_node(hooks: Hooks, call: str) -> None:
    """Its node may be another client's by now; by its own id the node can still be named."""
    await hooks.served.store.revoke_client(hooks.alice.client_id)
    await refusal(grpc.StatusCode.FAILED_PRECONDITION, "client-revoked", hooks.each[call]("alice"))
    await hooks.list(ALICE.hex())


@CALLS
@pytest.mark.parametrize("node_id", ["04" + "11" * 32, "02" + "ff" * 32, "00" * 33])
async def test_66_digits_that_are_no_point_are_no_node(hooks: Hooks, call: str, node_id: str) -> None:
    """Nobody could ever connect as that one."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    text = await refusal(code, "bad-node-id", hooks.each[call](node_id))
    assert text == f"'{node_id}' is no node id: give the 66 hex digits of the wallet's public key"


@pytest.mark.parametrize("name", [ALICE.hex()[:-1], ALICE.hex() + "0", ALICE.hex()[:-1] + "g", "", "\x1b[2J"])
async def test_what_is_neither_name_nor_id_nor_node_is_nobody(hooks: Hooks, name: str) -> None:
    """And what a terminal would obey is shown escaped."""
    text = await refusal(grpc.StatusCode.NOT_FOUND, "no-such-client", hooks.list(name))
    assert text.isprintable()


@pytest.mark.parametrize("call", ["test", "pause", "remove"])
@pytest.mark.parametrize("app", ["other", "APP", "\x1b[2J"])
async def test_a_webhook_that_is_not_there_is_not_found(hooks: Hooks, call: str, app: str) -> None:
    """Names are compared to the letter; the text says where all are shown."""
    await hooks.add()
    text = await refusal(grpc.StatusCode.NOT_FOUND, "no-such-webhook", hooks.each[call]("alice", app))
    assert text == "alice has no such webhook: `sidecar webhook list alice` shows all"
    assert hooks.served.notifier.tested == []


async def test_there_is_nothing_to_test_without_a_webhook(hooks: Hooks) -> None:
    """All of none is a mistake of whoever asks."""
    await refusal(grpc.StatusCode.NOT_FOUND, "no-such-webhook", hooks.test())


# --- what it does not take -----------------------------------------------------------------------

BAD = [
    ("push.example" + PATH, "bad-url", "does not start with https://"),
    ("", "bad-url", "does not start with https://"),
    ("http://push.example" + PATH, "unsupported-protocol", "the webhook is not https"),
    ("ftp://push.example" + PATH, "unsupported-protocol", "the webhook is not https"),
    (f"https://me:hu4ter2@push.example{PATH}", "bad-url", "no user"),
    (f"https://push.example{PATH}#{QUERY}", "bad-url", "no fragment"),
    (f"https://push.example{PATH}\r\nHost: other", "bad-url", "by RFC 1738"),
    (f"https://push.example{PATH} ", "bad-url", "by RFC 1738"),
    (f"https://püsh.example{PATH}", "bad-url", "ASCII only"),
    (f"https:///{PATH}", "bad-url", "by RFC 1738"),
    (f"https://2130706433{PATH}", "bad-url", "by RFC 1738"),
    (f"https://{'a' * 60}.{'.'.join(['b' * 60] * 4)}.example{PATH}", "bad-url", "longer than a name can be"),
    (f"https://[::1::]{PATH}", "bad-url", "no address of IPv6"),
    (f"https://push.example:0{PATH}", "bad-url", "not within 1 to 65535"),
    (f"https://push.example:65536{PATH}", "bad-url", "not within 1 to 65535"),
    (
        f"https://push.example:8443{PATH}",
        "unsupported-protocol",
        "port 8443 is not allowed here; allowed: 443",
    ),
    (URL + "a" * 1_024, "webhook-too-long", "more than 1024 characters"),
]


@pytest.mark.parametrize(("url", "reason", "said"), BAD)
async def test_a_bad_url_is_refused_and_not_repeated(
    hooks: Hooks, caplog: pytest.LogCaptureFixture, url: str, reason: str, said: str
) -> None:
    """One clear line for each kind; no path and no query of it in error or log."""
    caplog.set_level(logging.DEBUG)
    text = await refusal(grpc.StatusCode.INVALID_ARGUMENT, reason, hooks.add(url=url))
    assert said in text
    assert text.isprintable()
    for secret in (PATH, QUERY, "hu4ter2", "5ecret"):
        assert secret not in text + caplog.text
    assert await hooks.served.hooks.webhooks(ALICE) == []
    assert hooks.served.notifier.announced == []


@pytest.mark.parametrize(
    ("app", "fits"),
    [("", True), ("a" * 64, True), ("a" * 65, False), ("ä" * 32, True), ("ä" * 33, False), ("\x1b[2J", True)],
)
async def test_app_names_are_counted_in_bytes(hooks: Hooks, app: str, fits: bool) -> None:
    """At most 64 as JSON has them; any letters, and none, are a name."""
    if fits:
        await hooks.add(app=app)
        assert [each.app_name for each in (await hooks.list()).webhooks] == [app]
    else:
        code = grpc.StatusCode.INVALID_ARGUMENT
        text = await refusal(code, "webhook-too-long", hooks.add(app=app))
        assert text == "the app_name has more than 64 bytes"


async def test_the_longest_url_is_taken(hooks: Hooks) -> None:
    """1,024 characters."""
    await hooks.add(url=URL + "a" * (1_024 - len(URL)))


async def test_the_eleventh_webhook_is_refused(hooks: Hooks) -> None:
    """With the ways out; the ten stay, and one of them can still be replaced."""
    for number in range(10):
        await hooks.add(app=f"app{number}")
    code = grpc.StatusCode.FAILED_PRECONDITION
    text = await refusal(code, "too-many-webhooks", hooks.add(app="one more"))
    assert text == (
        "alice has as many webhooks as it may have: remove one with `sidecar webhook remove`, "
        "or raise lsps5.max_webhooks"
    )
    assert len((await hooks.list()).webhooks) == 10
    assert (await hooks.add(app="app3", url="https://push.example/new")).count == 10
    await hooks.remove(app="app3")
    await hooks.add(app="one more")


@CALLS
@pytest.mark.parametrize("away", ["store", "hooks"])
async def test_a_store_that_is_away_is_unavailable(hooks: Hooks, call: str, away: str) -> None:
    """Which passes; a webhook that could not be kept is not announced."""
    getattr(hooks.served, away).away = True
    await refusal(grpc.StatusCode.UNAVAILABLE, "store-unavailable", hooks.each[call]())
    assert hooks.served.notifier.announced == []
    getattr(hooks.served, away).away = False
    await hooks.add()


async def test_no_log_holds_more_of_a_url_than_its_host(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """URLs hold tokens; nor does a name in a log act on a terminal."""
    caplog.set_level(logging.DEBUG)
    await hooks.add(app="\x1b[2J\n")
    await hooks.test()
    await hooks.pause(app="\x1b[2J\n")
    await hooks.remove(app="\x1b[2J\n")
    said = [record.msg for record in caplog.records if record.name == "sidecar.lsps"]
    assert [each["event"] for each in said] == ["webhook registered", "webhook removed"]  # type: ignore[index]
    assert said[0]["host"] == "push.example"  # type: ignore[index]
    assert all(str(value).isprintable() for each in said for value in each.values())  # type: ignore[union-attr]
    assert not any(secret in caplog.text for secret in (PATH, QUERY))
    assert URL not in repr(webhooks.Webhook("app", URL, 1))
