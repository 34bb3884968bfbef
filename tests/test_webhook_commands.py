"""What each `sidecar webhook` command does and prints, against a real admin server on a Unix socket."""

import json
import logging
import re
import time

import pytest

from sidecar.cli import webhook_commands
from sidecar.cli.printing import utc
from sidecar.core import keys
from sidecar.core.webhooks import Delivery, Webhook, WebhookState
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.harness.shell import Served, Shell
from tests.harness.store_contract import a_bound_client, a_client

NODE = keys.public_key(b"\x01" * 32)
SECRETS = ("/v1/tok-5ecret", "key=hu4ter2")
URL = f"https://push.example{SECRETS[0]}?{SECRETS[1]}"
INCOMING = "lsps5.onion_message_incoming"
EVIL = "\x1b]0;owned\x07\x1b[2J\r\n\u202eppa"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\r\n\u202eppa"


@pytest.fixture
async def alice(served: Served) -> Served:
    """A shell with a server that has a client alice, whose node is known."""
    await served.store.add_client(a_bound_client("alice", NODE))
    return served


async def kept(served: Served) -> list[Webhook]:
    """Alice's webhooks."""
    return list(await served.hooks.webhooks(NODE))


# --- add ----------------------------------------------------------------------------------------


async def test_add_registers_a_webhook(alice: Served) -> None:
    """Said for people: new, there already, and new again with another URL."""
    new = "webhook app of alice is registered: lsps5.webhook_registered goes to it\n"
    assert (await alice.run("webhook", "add", "alice", "app", URL)).text() == new
    again = (await alice.run("webhook", "add", "alice", "app", URL)).text()
    assert again == "webhook app of alice was registered already\n"
    assert (await alice.run("webhook", "add", "alice", "app", URL + "2")).text() == new
    assert [(each.app_name, each.url) for each in await kept(alice)] == [("app", URL + "2")]
    assert alice.notifier.announced == [(NODE, "app")] * 2


async def test_add_for_scripts(alice: Served) -> None:
    """How many there are now, and whether this one was there already, in bLIP 55's words."""
    for app, no_change in (("app", False), ("app", True)):
        result = await alice.run("webhook", "add", NODE.hex(), app, URL, "--json")
        assert result.json() == {"num_webhooks": 1, "no_change": no_change}


@pytest.mark.parametrize("ending", [b"\n", b"", b"\r\n", b"\nsecond line\xff\n"])
async def test_the_url_can_come_from_standard_input(alice: Served, ending: bytes) -> None:
    """Where no list of processes shows it: one line, with whatever ends it."""
    await alice.run("webhook", "add", "alice", "app", "-", stdin=URL.encode() + ending)
    assert [each.url for each in await kept(alice)] == [URL]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (b"", "the webhook is no URL: it does not start with https://"),
        (URL.encode() + b"\xff\n", "the webhook is no text in UTF-8"),
        (URL.encode() + b"a" * 2_000_000, "the webhook has more than 1024 characters"),
    ],
    ids=["nothing", "no text", "endless"],
)
async def test_a_bad_url_from_standard_input(alice: Served, typed: bytes, said: str) -> None:
    """One line, that does not repeat it."""
    assert (await alice.run("webhook", "add", "alice", "app", "-", stdin=typed)).refusal() == said
    assert await kept(alice) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (URL.replace("https", "http"), "the webhook is not https"),
        (URL.removeprefix("https://"), "the webhook is no URL: it does not start with https://"),
        (URL + "#here", "the webhook is no URL by RFC 1738 (for https: no user, no fragment, ASCII only)"),
        (
            URL.replace("example", "example:8443"),
            "the webhook's port 8443 is not allowed here; allowed: 443",
        ),
        (URL.encode() + b"\xff", "the webhook is no text in UTF-8"),
    ],
)
async def test_a_bad_url_is_refused_and_not_repeated(alice: Served, url: str | bytes, said: str) -> None:
    """The line says what is wrong with it; the token in it stays where it was typed."""
    assert (await alice.run("webhook", "add", "alice", "app", url)).refusal() == said
    assert await kept(alice) == []


async def test_no_run_prints_more_of_a_url_than_its_host(
    alice: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is asked for, in either form, with all that can be logged."""
    caplog.set_level(logging.DEBUG)
    printed = ""
    for args in (
        ("add", "alice", "app", URL),
        ("list", "alice"),
        ("list", "alice", "--json"),
        ("test", "alice"),
        ("pause", "alice", "app"),
        ("resume", "alice", "app"),
        ("add", "alice", "app", URL, "--json"),
        ("remove", "alice", "app"),
    ):
        result = await alice.run("webhook", *args, SIDECAR_LOGLEVEL="debug")
        assert result.code == 0
        printed += result.out + result.err
    assert "push.example" in printed
    assert not any(secret in printed + caplog.text for secret in SECRETS)


# --- list ---------------------------------------------------------------------------------------


async def test_list_is_two_tables(alice: Served) -> None:
    """The webhooks by name with how they fare, and the last notifications, newest first."""
    for app in ("good", "hushed"):
        await alice.run("webhook", "add", "alice", app, URL)
    first = (await kept(alice))[0]
    await alice.hooks.note_state(NODE, first, WebhookState(announced=True))
    await alice.hooks.pause_webhook(NODE, "hushed", paused=True)
    await alice.hooks.log_delivery(NODE, Delivery(1_700_000_000_999, "hushed", INCOMING, "status-500", 3))
    await alice.hooks.log_delivery(NODE, Delivery(1_700_000_001_000, "good", INCOMING, "ok", 1))
    since = utc(first.registered_at)
    assert (await alice.run("webhook", "list", "alice")).text().splitlines() == [
        f"node {NODE.hex()}",
        "",
        "APP     HOST          REGISTERED            STATE",
        f"good    push.example  {since}  good",
        f"hushed  push.example  {since}  paused",
        "",
        "TIME                  APP     METHOD                        OUTCOME     TRIES",
        f"2023-11-14T22:13:21Z  good    {INCOMING}  ok              1",
        f"2023-11-14T22:13:20Z  hushed  {INCOMING}  status-500      3",
    ]


async def test_list_for_scripts(alice: Served) -> None:
    """Every field of every webhook and delivery."""
    await alice.run("webhook", "add", "alice", "app", URL)
    await alice.hooks.log_delivery(NODE, Delivery(1_700_000_000_999, "app", INCOMING, "timeout", 3))
    (webhook,) = await kept(alice)
    assert (await alice.run("webhook", "list", "alice", "--json")).json() == {
        "node_id": NODE.hex(),
        "webhooks": [
            {
                "app_name": "app",
                "host": "push.example",
                "registered_at": webhook.registered_at,
                "announced": False,
                "failures": 0,
                "paused_until": 0,
                "paused": False,
            }
        ],
        "deliveries": [
            {
                "at_ms": 1_700_000_000_999,
                "app_name": "app",
                "method": INCOMING,
                "outcome": "timeout",
                "tries": 3,
            }
        ],
    }


async def test_list_of_nothing_says_how_webhooks_come_to_be(alice: Served) -> None:
    """What was sent to webhooks that are gone is shown all the same."""
    nothing = "alice has no webhook: its wallet registers one by LSPS5, or `sidecar webhook add` does\n"
    assert (await alice.run("webhook", "list", "alice")).text() == nothing
    await alice.hooks.log_delivery(NODE, Delivery(1_700_000_000_999, "gone", INCOMING, "ok", 1))
    text = (await alice.run("webhook", "list", "alice")).text()
    assert text.startswith(nothing + "\nTIME ")
    assert text.splitlines()[-1].split() == ["2023-11-14T22:13:20Z", "gone", INCOMING, "ok", "1"]


NOW = 1_700_000_000


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "not reached yet"),
        ({"announced": True}, "good"),
        ({"announced": True, "failures": 2}, "failures in a row: 2"),
        ({"failures": 2}, "failures in a row: 2"),
        ({"failures": 9, "paused_until": NOW + 7_200}, "keeps failing, tried again in 2 hours"),
        ({"failures": 9, "paused_until": NOW}, "failures in a row: 9"),
        ({"announced": True, "failures": 9, "paused_until": NOW + 60, "paused": True}, "paused"),
    ],
)
def test_a_webhooks_state_is_what_matters_most_about_it(state: dict[str, int], words: str) -> None:
    """The operator's own pause before one for failing, and that before failures."""
    assert webhook_commands._state(admin_pb2.Webhook(**state), NOW) == words  # type: ignore[arg-type]


# --- test, pause, resume, remove ----------------------------------------------------------------


async def test_test_tells_what_came_of_it(alice: Served) -> None:
    """Of one webhook or of all, as a table or as JSON."""
    await alice.run("webhook", "add", "alice", "app", URL)
    head, row = (await alice.run("webhook", "test", "alice", "app")).text().splitlines()
    assert head.split() == ["TIME", "APP", "METHOD", "OUTCOME", "TRIES"]
    assert row.split() == ["1970-01-01T00:00:01Z", "app", INCOMING, "ok", "1"]
    assert (await alice.run("webhook", "test", "alice", "--json")).json() == {
        "deliveries": [{"at_ms": 1_000, "app_name": "all", "method": INCOMING, "outcome": "ok", "tries": 1}]
    }
    assert alice.notifier.tested == [(NODE, "app"), (NODE, None)]


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_a_test_that_did_not_arrive_ends_with_1(alice: Served, form: tuple[str, ...]) -> None:
    """What came of it is printed all the same, of those that arrived as well."""
    await alice.run("webhook", "add", "alice", "app", URL)
    alice.notifier.outcomes = ["ok", "signer-away"]
    result = await alice.run("webhook", "test", "alice", *form)
    assert (result.code, result.err) == (1, "")
    assert result.out.index("ok") < result.out.index("signer-away")
    if form:
        assert [each["outcome"] for each in json.loads(result.out)["deliveries"]] == ["ok", "signer-away"]


async def test_pause_and_resume(alice: Served) -> None:
    """In words and in JSON; what is listed follows."""
    await alice.run("webhook", "add", "alice", "app", URL)
    assert (await alice.run("webhook", "pause", "alice", "app")).text() == (
        "webhook app of alice is paused\n"
    )
    assert [each.state.paused for each in await kept(alice)] == [True]
    assert (await alice.run("webhook", "resume", "alice", "app")).text() == (
        "webhook app of alice is in use again\n"
    )
    assert [each.state.paused for each in await kept(alice)] == [False]
    for command, paused in (("pause", True), ("resume", False)):
        result = await alice.run("webhook", command, "alice", "app", "--json")
        assert result.json() == {"app_name": "app", "paused": paused}


async def test_remove(alice: Served) -> None:
    """In words and in JSON; the second time there is nothing to remove."""
    for app in ("app", "other"):
        await alice.run("webhook", "add", "alice", app, URL)
    assert (await alice.run("webhook", "remove", "alice", "app")).text() == (
        "webhook app of alice is removed\n"
    )
    assert (await alice.run("webhook", "remove", "alice", "other", "--json")).json() == {"removed": "other"}
    assert await kept(alice) == []
    assert (await alice.run("webhook", "remove", "alice", "app")).refusal() == (
        "alice has no such webhook: `sidecar webhook list alice` shows all"
    )


# --- what can go wrong --------------------------------------------------------------------------


async def test_a_client_whose_node_is_not_known(served: Served) -> None:
    """The line says how it becomes known."""
    await served.store.add_client(a_client("bob"))
    said = (await served.run("webhook", "add", "bob", "app", URL)).refusal()
    assert said == (
        "the node of client bob is not known yet: it is learnt when its wallet leaves an invoice, "
        "or give it with `sidecar client rebind bob --node-id ID`"
    )


async def test_the_eleventh_webhook(alice: Served) -> None:
    """The line says what can be done."""
    for number in range(10):
        await alice.hooks.set_webhook(NODE, Webhook(f"app{number}", URL, int(time.time())), 10)
    assert (await alice.run("webhook", "add", "alice", "app", URL)).refusal() == (
        "alice has as many webhooks as it may have: remove one with `sidecar webhook remove`, "
        "or raise lsps5.max_webhooks"
    )


async def test_a_store_that_is_away(alice: Served) -> None:
    """One line; nothing was promised to anybody."""
    alice.hooks.away = True
    assert (await alice.run("webhook", "add", "alice", "app", URL)).refusal() == "the store is away"
    assert alice.notifier.announced == []


async def test_without_a_server_nothing_of_the_url_is_said(shell: Shell) -> None:
    """The line is that of every command."""
    said = (await shell.run("webhook", "add", "alice", "app", URL)).refusal()
    assert said.startswith("no server is running on ")


# --- names that act on a terminal ---------------------------------------------------------------


async def test_an_app_name_never_acts_on_the_terminal(alice: Served) -> None:
    """A wallet chooses it, and bLIP 55 allows any: what would not be seen as a letter is escaped."""
    await alice.hooks.set_webhook(NODE, Webhook(EVIL, URL, 1_700_000_000), 10)
    await alice.hooks.log_delivery(NODE, Delivery(1_700_000_000_999, EVIL, INCOMING, "ok", 1))
    runs = (
        ("list", "alice"),
        ("test", "alice", EVIL),
        ("pause", "alice", EVIL),
        ("resume", "alice", EVIL),
        ("add", "alice", EVIL, URL),
        ("add", "alice", EVIL, URL + "2"),
        ("remove", "alice", EVIL),
    )
    printed = [(await alice.run("webhook", *args)).text() for args in runs]
    assert [text.count(SHOWN) for text in printed] == [2, 1, 1, 1, 1, 1, 1]
    assert all(line.isprintable() for text in printed for line in text.split("\n"))
    assert "ppa" not in (await alice.run("webhook", "pause", "alice", EVIL)).refusal()


async def test_an_app_name_that_the_terminal_has_no_letters_for_is_shown(alice: Served) -> None:
    """Escaped, with all the rest: a wallet must not be able to keep the operator from seeing the list."""
    await alice.hooks.set_webhook(NODE, Webhook("日本", URL, 1_700_000_000), 10)
    for encoding, shown in (("utf-8", "日本"), ("latin-1", r"\u65e5\u672c")):
        text = (await alice.run("webhook", "list", "alice", PYTHONIOENCODING=encoding)).text()
        assert f"\n{shown} " in text


async def test_json_names_it_whole_and_harmless(alice: Served) -> None:
    """A script reads the very name; the bytes of the output are plain ASCII."""
    await alice.hooks.set_webhook(NODE, Webhook(EVIL, URL, 1_700_000_000), 10)
    listed = await alice.run("webhook", "list", "alice", "--json")
    assert [each["app_name"] for each in listed.json()["webhooks"]] == [EVIL]
    paused = await alice.run("webhook", "pause", "alice", EVIL, "--json")
    assert paused.json() == {"app_name": EVIL, "paused": True}
    for text in (listed.out, paused.out):
        assert text.isascii()
        assert re.sub(r"\n", "", text).isprintable()
