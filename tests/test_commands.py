"""What each command does and prints, against a real admin server on a Unix socket."""

import re
from dataclasses import replace

import pytest

from sidecar.adapters import lnd_calls, permissions
from sidecar.allowances import Limit
from sidecar.cli.printing import span, table, utc
from sidecar.core import keys
from sidecar.core.mailbox import MailUse
from sidecar.core.model import Quota
from tests.harness.mail_contract import PLENTY, ROOM, a_letter
from tests.harness.shell import Served, Shell
from tests.harness.store_contract import DAY, an_invoice, until

NODE = keys.public_key(b"\x01" * 32).hex()

LIMITS_JSON = {
    "slots": 10,
    "bytes": 131_072,
    "ttl_seconds": 365 * DAY,
    "requests_per_second": 50,
    "requests_burst": 50,
    "stores_per_minute": 60,
    "offer_paths_per_minute": 60,
    "mailbox_letters": 200,
    "mailbox_bytes": 4_194_304,
}

# --- clients ------------------------------------------------------------------------------------


async def test_add_prints_id_and_paths_for_scripts(served: Served) -> None:
    """`client add NAME --json` is one object; its paths are hex."""
    added = (await served.run("client", "add", "alice", "--json")).json()
    kept = await served.store.find_client("alice")
    assert added == {
        "client_id": kept.client_id.hex(),
        "name": "alice",
        "state": "active",
        "generation": 1,
        "created_at": kept.created_at,
        "quota": {"slots": 10, "bytes": 131_072, "ttl_seconds": 365 * DAY},
        "overrides": {},
        "limits": LIMITS_JSON,
        "refused": {},
        "slots_used": 0,
        "bytes_used": 0,
        "node_id": None,
        "bound_by": None,
        "timestamps": None,
        "mailbox": {"messages": 0, "bytes": 0},
        "paths": (b"\x00\x01" + kept.client_id + b"\x01").hex(),
    }


async def test_add_prints_the_paths_for_people(served: Served) -> None:
    """On a line of their own, to be copied."""
    text = (await served.run("client", "add", "alice")).text()
    kept = await served.store.find_client("alice")
    assert text.splitlines()[-1] == (b"\x00\x01" + kept.client_id + b"\x01").hex()
    assert re.search(r"^slots +0 of 10 used$", text, re.MULTILINE)
    assert re.search(r"^ttl +365d an invoice$", text, re.MULTILINE)


async def test_add_takes_a_quota(served: Served) -> None:
    """Of slots, bytes and time; what is left out is the server's default."""
    await served.run("client", "add", "alice", "--ttl", "30d", "--slots=3", "--bytes", "9000")
    assert (await served.store.find_client("alice")).quota == Quota(slots=3, bytes=9_000, ttl=30 * DAY)
    await served.run("client", "add", "bob", "--ttl", "12h")
    assert (await served.store.find_client("bob")).quota == Quota(ttl=43_200)


async def test_update_changes_a_clients_own_limits(served: Served) -> None:
    """Each by its flag; what holds is printed, and which of it is the client's own."""
    flags = {
        "--slots": ("3", "slots", 3),
        "--bytes": ("9000", "bytes", 9_000),
        "--ttl": ("30d", "ttl_seconds", 30 * DAY),
        "--rate": ("0.5", "requests_per_second", 0.5),
        "--burst": ("4", "requests_burst", 4),
        "--stores": ("5", "stores_per_minute", 5),
        "--offer-paths": ("6", "offer_paths_per_minute", 6),
        "--mail-letters": ("7", "mailbox_letters", 7),
        "--mail-bytes": ("70000", "mailbox_bytes", 70_000),
    }
    words = [word for flag, (text, _, _) in flags.items() for word in (flag, text)]
    own = {field: value for _, field, value in flags.values()}
    await served.run("client", "add", "alice")
    updated = (await served.run("client", "update", "alice", *words, "--json")).json()
    assert (updated["overrides"], updated["limits"]) == (own, own)
    assert updated["quota"] == {name: own[name] for name in ("slots", "bytes", "ttl_seconds")}
    added = (await served.run("client", "add", "bob", *words, "--json")).json()
    assert added["overrides"] == own
    resets = [f"--reset={flag.removeprefix('--')}" for flag in flags if flag != "--rate"]
    text = (await served.run("client", "update", "alice", *resets)).text()
    assert re.search(r"^requests +0.5 a second, 50 at once$", text, re.MULTILINE)
    assert re.search(r"^stores +60 a minute$", text, re.MULTILINE)
    assert re.search(r"^own limits +rate$", text, re.MULTILINE)
    assert (await served.store.find_client("alice")).quota == Quota(requests_per_second=0.5)


async def test_update_says_what_is_stored_beyond_the_new_limits(served: Served) -> None:
    """It stays until it is replaced or ends."""
    added = (await served.run("client", "add", "alice", "--json")).json()
    for slot in range(2):
        await served.store.save(bytes.fromhex(added["client_id"]), an_invoice(slot, size=700), until())
    said = "More than that is stored: what is there stays until it is replaced, or ends."
    for flag, low, enough in (("--slots", "1", "2"), ("--bytes", "1399", "1400")):
        assert said in (await served.run("client", "update", "alice", flag, low)).text()
        assert said not in (await served.run("client", "update", "alice", flag, enough)).text()
    assert len(await served.store.invoices(bytes.fromhex(added["client_id"]))) == 2


async def test_an_update_that_means_nothing_is_refused(served: Served) -> None:
    """Of nothing, of a name that is no limit's, or to what no client may have: each in one line."""
    await served.run("client", "add", "alice")
    assert "nothing to change" in (await served.run("client", "update", "alice")).refusal()
    said = (await served.run("client", "update", "alice", "--reset", "mail")).refusal()
    assert "'mail' is no limit" in said
    said = (await served.run("client", "update", "alice", "--rate", "0")).refusal()
    assert "from the flag --rate is not allowed" in said
    assert (await served.store.find_client("alice")).quota == Quota()


async def test_pause_and_resume(served: Served) -> None:
    """The state is told by both, by `show` and by `list`; a revoked client can be neither."""
    await served.run("client", "add", "alice")
    text = (await served.run("client", "pause", "alice")).text()
    assert text == "client alice is paused: nothing is served for it, and all that it has stays\n"
    assert (await served.run("client", "pause", "alice", "--json")).json()["state"] == "paused"
    assert re.search(r"^state +paused$", (await served.run("client", "show", "alice")).text(), re.MULTILINE)
    assert " paused " in (await served.run("client", "list")).text()
    assert (await served.run("client", "resume", "alice")).text() == "client alice is served\n"
    assert (await served.run("client", "resume", "alice", "--json")).json()["state"] == "active"
    await served.run("client", "revoke", "alice")
    for command in ("pause", "resume"):
        assert "alice is revoked" in (await served.run("client", command, "alice")).refusal()


async def test_show_tells_what_was_refused(served: Served) -> None:
    """By limit, since the start."""
    added = (await served.run("client", "add", "alice", "--json")).json()
    text = (await served.run("client", "show", "alice")).text()
    assert re.search(r"^refused +nothing since the start$", text, re.MULTILINE)
    assert re.search(r"^own limits +none: the server's settings hold$", text, re.MULTILINE)
    served.allowances.refuse(bytes.fromhex(added["client_id"]), Limit.STORES, 3)
    served.allowances.refuse(bytes.fromhex(added["client_id"]), Limit.OFFER_PATHS)
    text = (await served.run("client", "show", "alice")).text()
    assert re.search(r"^refused +offer-paths 1, stores 3 since the start$", text, re.MULTILINE)
    shown = (await served.run("client", "show", "alice", "--json")).json()
    assert shown["refused"] == {"offer-paths": 1, "stores": 3}


async def test_mailbox_lists_what_waits(served: Served) -> None:
    """A line a letter, or JSON; never what it says."""
    added = (await served.run("client", "add", "alice", "--json")).json()
    assert (await served.run("client", "mailbox", "alice")).text() == "nothing waits for client alice\n"
    assert (await served.run("client", "mailbox", "alice", "--json")).json() == {"messages": []}
    letter = a_letter(age_ms=2 * 3_600_000 + 60_000)
    kept = await served.store.keep(bytes.fromhex(added["client_id"]), letter, PLENTY, ROOM)
    head, line = (await served.run("client", "mailbox", "alice")).text().splitlines()
    assert head.split() == ["NUMBER", "QUEUE", "BYTES", "KEPT", "FROM"]
    when = f"{utc(letter.kept_at_ms // 1000)} (2 hours ago)"
    assert line.split() == [
        str(kept.number),
        "messages",
        str(letter.size),
        *when.split(),
        letter.sender.hex(),
    ]
    assert (await served.run("client", "mailbox", "alice", "--json")).json() == {
        "messages": [
            {
                "number": kept.number,
                "queue": "messages",
                "bytes": letter.size,
                "kept_at_ms": letter.kept_at_ms,
                "sender": letter.sender.hex(),
            }
        ]
    }
    assert "no client 'bob'" in (await served.run("client", "mailbox", "bob")).refusal()


async def test_list_is_a_table_or_json(served: Served) -> None:
    """One line a client, columns below each other."""
    assert "sidecar client add NAME" in (await served.run("client", "list")).text()
    assert (await served.run("client", "list", "--json")).json() == {"clients": []}
    for name in ("bob", "a-long-name"):
        await served.run("client", "add", name)
    await served.run("client", "revoke", "bob")
    head, first, second = (await served.run("client", "list")).text().splitlines()
    assert head.split() == ["NAME", "CLIENT", "ID", "STATE", "SLOTS", "BYTES", "ADDED"]
    assert [first.index("active"), second.index("revoked")] == [head.index("STATE")] * 2
    listed = (await served.run("client", "list", "--json")).json()["clients"]
    assert [(each["name"], each["state"]) for each in listed] == [
        ("a-long-name", "active"),
        ("bob", "revoked"),
    ]


async def test_show_prints_when_each_slot_ends_and_what_is_used(served: Served) -> None:
    """As UTC and from now; by name or by id; with the paths once more."""
    added = (await served.run("client", "add", "alice", "--json")).json()
    client_id = bytes.fromhex(added["client_id"])
    assert "no invoice is stored" in (await served.run("client", "show", "alice")).text()
    first = an_invoice(0, size=700)
    first = replace(first, expires_at=first.stored_at + 12 * DAY + 600)
    await served.store.save(client_id, first, until())
    await served.store.save(client_id, an_invoice(7, size=1_500), until())
    text = (await served.run("client", "show", "alice")).text()
    assert f" 0  {utc(first.expires_at)} (in 12 days)  {utc(first.stored_at)} (" in text
    assert re.search(r"^slots +2 of 10 used$", text, re.MULTILINE)
    assert re.search(r"^bytes +2200 of 131072 used$", text, re.MULTILINE)
    assert text.splitlines()[-1] == added["paths"]
    shown = (await served.run("client", "show", added["client_id"], "--json")).json()
    assert (shown["slots_used"], shown["bytes_used"], shown["paths"]) == (2, 2_200, added["paths"])
    assert shown["slots"][0] == {
        "slot": 0,
        "expires_at": first.expires_at,
        "invoice_created_at": first.created_at,
        "stored_at": first.stored_at,
        "bytes": 700,
        "family": "ldk",
    }


async def test_rotate_prints_new_paths(served: Served) -> None:
    """They differ from the old ones, and `show` prints them from then on."""
    added = (await served.run("client", "add", "alice", "--json")).json()
    rotated = (await served.run("client", "rotate", "alice", "--json")).json()
    assert rotated["generation"] == 2
    assert rotated["paths"] != added["paths"]
    assert (await served.run("client", "show", "alice", "--json")).json()["paths"] == rotated["paths"]


async def test_revoke_then_remove(served: Served) -> None:
    """Revoked: the record stays, without paths. Removed: it is gone."""
    await served.run("client", "add", "alice")
    assert "alice is revoked" in (await served.run("client", "revoke", "alice")).text()
    assert (await served.run("client", "revoke", "alice", "--json")).json()["state"] == "revoked"
    assert "no request paths: the client is revoked" in (await served.run("client", "show", "alice")).text()
    assert "sidecar client remove alice" in (await served.run("client", "rotate", "alice")).refusal()
    assert (await served.run("client", "remove", "alice", "--json")).json() == {"removed": "alice"}
    assert "no client 'alice'" in (await served.run("client", "show", "alice")).refusal()


async def test_a_clients_node_timestamps_and_mail_are_shown(served: Served) -> None:
    """For people and for scripts; what is not known, or not set, is said so."""
    text = (await served.run("client", "add", "alice")).text()
    assert re.search(r"^node +not known yet$", text, re.MULTILINE)
    assert re.search(r"^timestamps +as the server's setting says$", text, re.MULTILINE)
    assert re.search(r"^mailbox +0 of 2x200 messages, 0 of 2x4194304 bytes$", text, re.MULTILINE)
    added = (
        await served.run("client", "add", "bob", "--node-id", NODE, "--timestamps", "z", "--json")
    ).json()
    served.mail[bytes.fromhex(added["client_id"])] = MailUse(letters=2, bytes=3_000, newest_ms=1)
    text = (await served.run("client", "show", "bob")).text()
    assert re.search(rf"^node +{NODE} \(operator\)$", text, re.MULTILINE)
    assert re.search(r"^timestamps +z$", text, re.MULTILINE)
    assert re.search(r"^mailbox +2 of 2x200 messages, 3000 of 2x4194304 bytes$", text, re.MULTILINE)
    alice, bob = (await served.run("client", "list", "--json")).json()["clients"]
    expected = {
        "node_id": NODE,
        "bound_by": "operator",
        "timestamps": "z",
        "mailbox": {"messages": 2, "bytes": 3_000},
    }
    assert {name: bob[name] for name in expected} == expected
    assert (alice["node_id"], alice["mailbox"]) == (None, {"messages": 0, "bytes": 0})
    shown = (await served.run("client", "show", "bob", "--json")).json()
    assert {name: shown[name] for name in expected} == expected


async def test_rebind_says_which_node_a_client_is(served: Served) -> None:
    """Or that it is learnt anew; a revoked client has none."""
    await served.run("client", "add", "alice")
    bound = (await served.run("client", "rebind", "alice", "--node-id", NODE.upper())).text()
    assert bound == f"client alice is node {NODE}\n"
    forgotten = (await served.run("client", "rebind", "alice")).text()
    assert forgotten == ("client alice: its node is learnt anew, when its wallet leaves its next invoice\n")
    client = (await served.run("client", "rebind", "alice", "--node-id", NODE, "--json")).json()
    assert (client["node_id"], client["bound_by"]) == (NODE, "operator")
    client = (await served.run("client", "rebind", "alice", "--json")).json()
    assert (client["node_id"], client["bound_by"]) == (None, None)
    await served.run("client", "revoke", "alice")
    said = (await served.run("client", "rebind", "alice", "--node-id", NODE)).refusal()
    assert said == "client alice is revoked: nothing is kept for it"


async def test_timestamps_are_chosen_for_a_client(served: Served) -> None:
    """And given back to the server's setting."""
    await served.run("client", "add", "alice", "--timestamps", "offset")
    assert (await served.run("client", "timestamps", "alice", "z")).text() == "client alice: timestamps z\n"
    default = (await served.run("client", "timestamps", "alice", "default")).text()
    assert default == "client alice: timestamps as the server says\n"
    assert (await served.run("client", "timestamps", "alice", "z", "--json")).json()["timestamps"] == "z"


async def test_status_shows_the_server_and_its_counters(served: Served) -> None:
    """For people and for scripts."""
    text = (await served.run("status")).text()
    assert re.search(r"^lnd version +0\.21\.2-beta$", text, re.MULTILINE)
    assert re.search(r"^onion messages +arriving$", text, re.MULTILINE)
    assert re.search(r"^sent +3$", text, re.MULTILINE)
    status = (await served.run("status", "--json")).json()
    assert (status["mode"], status["stream_up"], status["counters"]) == ("native", True, {"sent": 3})


# --- macaroons ----------------------------------------------------------------------------------


async def test_permissions_are_printed_for_both_kinds_of_lnd(shell: Shell) -> None:
    """A ready lncli line each, and what the macaroon is worth."""
    text = (await shell.run("macaroon-permissions", "--network", "regtest")).text()
    native, custom = (line for line in text.splitlines() if line.startswith("lncli "))
    bake = "lncli --network=regtest bakemacaroon --save_to=sidecar.macaroon --root_key_id=66"
    start = f"{bake} uri:/lnrpc.Lightning/GetInfo "
    assert native.startswith(start)
    assert custom.startswith(start)
    assert native.endswith("/SubscribeOnionMessages uri:/lnrpc.Lightning/SendOnionMessage")
    assert "SubscribeOnionMessages" not in custom
    assert "SendOnionMessage" not in custom
    for recipe in (native, custom):
        for name in ("SignMessage", "SendCustomMessage", "SubscribeCustomMessages", "SubscribePeerEvents"):
            assert f" uri:/lnrpc.Lightning/{name} " in recipe
    assert "Guard it as you guard admin.macaroon." in text
    assert all(line.startswith(("#", "lncli")) for line in text.splitlines() if line)


async def test_permissions_for_scripts(shell: Shell) -> None:
    """As lncli takes them, by kind; one kind when its version is named."""
    both = (await shell.run("macaroon-permissions", "--json")).json()
    assert both == {
        "native": [f"uri:{uri}" for uri in permissions.NATIVE],
        "custom": [f"uri:{uri}" for uri in permissions.CUSTOM],
    }
    for version, kind in (("0.21", "native"), ("0.20", "custom")):
        one = (await shell.run("macaroon-permissions", "--json", "--lnd.version", version)).json()
        assert one == {kind: both[kind]}


def test_each_recipe_asks_for_nothing_twice() -> None:
    """And both for what every LND has."""
    for recipe in (permissions.NATIVE, permissions.CUSTOM):
        assert len(set(recipe)) == len(recipe)
        assert set(permissions.COMMON) <= set(recipe)


def test_the_recipes_are_the_calls_that_are_made() -> None:
    """Each call of the code is asked for, none is that it does not make; LND ≤ 0.20 lacks two."""
    made = {each.uri for each in vars(lnd_calls).values() if isinstance(each, lnd_calls.Call)}
    free = {lnd_calls.GET_STATE.uri, lnd_calls.STATES.uri}  # LND asks for no macaroon there
    assert set(permissions.NATIVE) == made - free
    assert set(permissions.NATIVE) - set(permissions.CUSTOM) == {
        lnd_calls.ONION_MESSAGES.uri,
        lnd_calls.SEND_ONION.uri,
    }


# --- plain text ---------------------------------------------------------------------------------


def test_a_tables_numbers_stand_to_the_right() -> None:
    """And nothing trails."""
    assert table(("N", "NAME"), [(1, "a"), (100, "long")]) == "  N  NAME\n  1  a\n100  long"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (12 * DAY + 600, "in 12 days"),
        (DAY, "in 24 hours"),
        (7_199, "in 119 minutes"),
        (60, "in 60 seconds"),
        (1, "in 1 second"),
        (0, "now"),
        (-7_200, "2 hours ago"),
    ],
)
def test_a_span_is_said_in_one_unit(seconds: int, words: str) -> None:
    """The largest that there are two of."""
    assert span(seconds) == words
