"""What every ports.MailStore keeps to: one set of tests, run over each one there is.

A subclass called Test… gives the fixtures `store` (a ports.Store that is empty) and `mailbox` (the
ports.MailStore of its clients).
"""

import asyncio
import random
import secrets
import time
from collections import Counter

import pytest

from sidecar.core.errors import ClientPaused, ClientRevoked, MailboxFull, UnknownClient
from sidecar.core.mailbox import SENDER_OVERHEAD, Kept, Letter, LetterNote, MailLimits, MailUse, Queue
from sidecar.core.model import CLIENT_ID_SIZE, BoundBy, Quota
from sidecar.ports import MailStore, Store
from tests.harness.memory_store import MemoryStore
from tests.harness.store_contract import DAY, a_client, a_node, passed

PLENTY = MailLimits(letters=100, bytes=1 << 20, ttl=7 * DAY)
ROOM = 1 << 30
SMALL = 1_366 + SENDER_OVERHEAD
"""What a letter with the smaller of the usual onions counts."""

ALICE, BOB, CAROL = (bytes([2, number]) + bytes(31) for number in range(3))


def a_letter(
    sender: bytes = ALICE,
    *,
    queue: Queue = Queue.MESSAGES,
    key: bytes | None = None,
    size: int = SMALL,
    age_ms: int = 0,
) -> Letter:
    """A letter that counts `size` bytes and was kept `age_ms` ago, with a key of its own if none is given."""
    return Letter(
        queue=queue,
        to=b"\x03" + secrets.token_bytes(32),
        path_key=b"\x02" + secrets.token_bytes(32),
        onion=secrets.token_bytes(size - SENDER_OVERHEAD),
        sender=sender,
        key=secrets.token_bytes(16) if key is None else key,
        kept_at_ms=int(time.time() * 1000) - age_ms,
    )


async def a_client_of(store: Store, name: str = "alice") -> bytes:
    """The id of a new client."""
    client = a_client(name)
    await store.add_client(client)
    return client.client_id


async def letters_of(mailbox: MailStore, client_id: bytes) -> list[Letter]:
    """A client's letters in their order."""
    return [letter for _, letter in await mailbox.mail(client_id)]


def use_of(*letters: Letter) -> MailUse:
    """What a mailbox with these letters holds."""
    newest = max((letter.kept_at_ms for letter in letters), default=0)
    return MailUse(len(letters), sum(letter.size for letter in letters), newest)


class MailContract:
    """The rules; each test gets an empty `store`, and the `mailbox` beside it."""

    # --- what is kept -----------------------------------------------------------------------------

    async def test_letters_come_back_to_the_byte_in_their_order(
        self, store: Store, mailbox: MailStore
    ) -> None:
        """Both queues share one order, that of keeping; the use counts both."""
        client = await a_client_of(store)
        queues = [Queue.MESSAGES, Queue.REQUESTS] * 6
        letters = [a_letter(queue=queue, size=SMALL + 7 * i) for i, queue in enumerate(queues)]
        kept = [await mailbox.keep(client, letter, PLENTY, ROOM) for letter in letters]
        assert await mailbox.mail(client) == [
            (each.number, letter) for each, letter in zip(kept, letters, strict=True)
        ]
        assert [each.number for each in kept] == sorted({each.number for each in kept})
        assert [each.use for each in kept] == [use_of(*letters[: i + 1]) for i in range(len(letters))]
        assert await mailbox.mail_uses() == {client: use_of(*letters)}

    async def test_mailboxes_are_apart(self, store: Store, mailbox: MailStore) -> None:
        """What is kept for a client neither shows nor counts at another."""
        first, second = await a_client_of(store), await a_client_of(store, "bob")
        theirs, ours = a_letter(), a_letter()
        await mailbox.keep(first, theirs, PLENTY, ROOM)
        assert (await mailbox.keep(second, ours, PLENTY, ROOM)).use == use_of(ours)
        assert await letters_of(mailbox, first) == [theirs]
        assert await mailbox.mail_uses() == {first: use_of(theirs), second: use_of(ours)}

    async def test_nobody_else_has_mail(self, store: Store, mailbox: MailStore) -> None:
        """An unknown client and an empty mailbox: nothing to read, nothing to drop, nothing kept."""
        unknown, client = secrets.token_bytes(CLIENT_ID_SIZE), await a_client_of(store)
        for each in (unknown, client):
            assert list(await mailbox.mail(each)) == []
            assert await mailbox.drop_mail(each, [1, 2]) == use_of()
        assert await mailbox.mail_uses() == {}
        with pytest.raises(UnknownClient):
            await mailbox.keep(unknown, a_letter(), PLENTY, ROOM)
        assert list(await mailbox.mail(unknown)) == []

    async def test_a_letter_of_the_same_key_is_replaced_and_goes_last(
        self, store: Store, mailbox: MailStore
    ) -> None:
        """One entry a message: the newest copy of it, which nothing makes room for twice."""
        client = await a_client_of(store)
        old, other, new = a_letter(key=b"same"), a_letter(), a_letter(BOB, key=b"same", size=SMALL + 1)
        replaced = await mailbox.keep(client, old, PLENTY, ROOM)
        await mailbox.keep(client, other, PLENTY, ROOM)
        kept = await mailbox.keep(client, new, PLENTY, ROOM)
        assert kept == Kept(kept.number, use_of(other, new), dropped=0)
        assert kept.number > replaced.number
        assert await letters_of(mailbox, client) == [other, new]
        # The old number is nobody's: who still holds it drops nothing.
        assert await mailbox.drop_mail(client, [replaced.number]) == use_of(other, new)

    async def test_a_key_counts_within_its_queue(self, store: Store, mailbox: MailStore) -> None:
        """A request and a message of the same key are two letters."""
        client = await a_client_of(store)
        letters = [a_letter(key=b"", queue=queue) for queue in Queue]
        for letter in letters:
            await mailbox.keep(client, letter, PLENTY, ROOM)
        assert await letters_of(mailbox, client) == letters

    async def test_what_arrived_is_dropped(self, store: Store, mailbox: MailStore) -> None:
        """By number; those that are not there are let be, and the rest keeps its order."""
        client = await a_client_of(store)
        letters = [a_letter() for _ in range(5)]
        numbers = [(await mailbox.keep(client, letter, PLENTY, ROOM)).number for letter in letters]
        left = use_of(letters[0], letters[2], letters[4])
        for _ in range(2):
            assert await mailbox.drop_mail(client, [numbers[3], numbers[1], 10**15]) == left
        assert await letters_of(mailbox, client) == letters[::2]
        assert await mailbox.mail_uses() == {client: left}
        assert await mailbox.drop_mail(client, numbers) == use_of()
        assert await mailbox.mail_uses() == {}

    async def test_numbers_are_never_used_again(self, store: Store, mailbox: MailStore) -> None:
        """Who read an old letter's number can't drop a new letter with it, though the box was empty since."""
        client = await a_client_of(store)
        seen = []
        for _ in range(3):
            kept = await mailbox.keep(client, a_letter(), PLENTY, ROOM)
            seen.append(kept.number)
            await mailbox.drop_mail(client, [kept.number])
        assert len(set(seen)) == 3
        letter = a_letter()
        await mailbox.keep(client, letter, PLENTY, ROOM)
        await mailbox.drop_mail(client, seen)
        assert await letters_of(mailbox, client) == [letter]

    # --- whose letters make room ------------------------------------------------------------------

    async def test_a_thousand_letters_do_not_push_out_one(self, store: Store, mailbox: MailStore) -> None:
        """The heaviest sender makes room for its own: the payer's held_htlc_available stays."""
        client, letters = await a_client_of(store), 20
        limits = MailLimits(letters=letters, bytes=1 << 20, ttl=DAY)
        payers = a_letter(BOB)
        for _ in range(letters):
            await mailbox.keep(client, a_letter(ALICE), limits, ROOM)
        assert (await mailbox.keep(client, payers, limits, ROOM)).dropped == 1
        kept = await asyncio.gather(
            *(mailbox.keep(client, a_letter(ALICE), limits, ROOM) for _ in range(1_000))
        )
        assert {each.dropped for each in kept} == {1}
        found = await letters_of(mailbox, client)
        assert found[0] == payers
        assert Counter(letter.sender for letter in found) == {BOB: 1, ALICE: letters - 1}

    async def test_small_letters_do_not_push_out_a_large_one(self, store: Store, mailbox: MailStore) -> None:
        """Where there are too many letters, who has most letters is heaviest, whatever their bytes."""
        client = await a_client_of(store)
        limits = MailLimits(letters=6, bytes=1 << 20, ttl=DAY)
        large = a_letter(BOB, size=32_834 + SENDER_OVERHEAD)
        await mailbox.keep(client, large, limits, ROOM)
        for _ in range(20):
            await mailbox.keep(client, a_letter(ALICE), limits, ROOM)
        found = await letters_of(mailbox, client)
        assert found[0] == large
        assert Counter(letter.sender for letter in found) == {BOB: 1, ALICE: 5}

    async def test_large_letters_do_not_push_out_small_ones(self, store: Store, mailbox: MailStore) -> None:
        """Where there are too many bytes, who has most bytes is heaviest, with fewer letters too."""
        client = await a_client_of(store)
        limits = MailLimits(letters=100, bytes=40_000, ttl=DAY)
        small = [a_letter(BOB, size=1_000) for _ in range(10)]
        for letter in small:
            await mailbox.keep(client, letter, limits, ROOM)
        for _ in range(4):
            large = a_letter(ALICE, size=25_000)
            await mailbox.keep(client, large, limits, ROOM)
            assert await letters_of(mailbox, client) == [*small, large]

    async def test_the_oldest_of_the_heaviest_go_first(self, store: Store, mailbox: MailStore) -> None:
        """As many as it takes, and no more; the sender that is heaviest may change on the way."""
        client = await a_client_of(store)
        limits = MailLimits(letters=100, bytes=10_000, ttl=DAY)
        of_alice = [a_letter(ALICE, size=1_200) for _ in range(4)]
        of_bob = [a_letter(BOB, size=1_000) for _ in range(4)]
        for pair in zip(of_alice, of_bob, strict=True):
            for letter in pair:
                await mailbox.keep(client, letter, limits, ROOM)
        # 8,800 bytes are there. 3,200 more are 2,000 too many: Alice has 4,800 and loses one, then
        # Bob has 4,000 and loses one.
        carols = a_letter(CAROL, size=3_200)
        kept = await mailbox.keep(client, carols, limits, ROOM)
        expected = [of_alice[1], of_bob[1], of_alice[2], of_bob[2], of_alice[3], of_bob[3], carols]
        assert await letters_of(mailbox, client) == expected
        assert (kept.dropped, kept.use) == (2, use_of(*expected))

    async def test_a_newcomer_among_equals_is_refused(self, store: Store, mailbox: MailStore) -> None:
        """Nobody who is no heavier than it makes room for a letter; nothing is changed then."""
        client = await a_client_of(store)
        limits = MailLimits(letters=2, bytes=1 << 20, ttl=DAY)
        there = [a_letter(ALICE), a_letter(BOB)]
        for letter in there:
            await mailbox.keep(client, letter, limits, ROOM)
        with pytest.raises(MailboxFull):
            await mailbox.keep(client, a_letter(CAROL), limits, ROOM)
        assert await letters_of(mailbox, client) == there
        # Who is there already makes room for itself.
        again = a_letter(ALICE)
        assert (await mailbox.keep(client, again, limits, ROOM)).dropped == 1
        assert await letters_of(mailbox, client) == [there[1], again]

    async def test_a_letter_too_large_for_its_queue_changes_nothing(
        self, store: Store, mailbox: MailStore
    ) -> None:
        """Not even letters that are dropped on the way, and not the one that it would replace."""
        client = await a_client_of(store)
        limits = MailLimits(letters=100, bytes=5_000, ttl=DAY)
        there = [a_letter(ALICE, size=2_000, key=b"same"), a_letter(ALICE, size=2_000)]
        for letter in there:
            await mailbox.keep(client, letter, limits, ROOM)
        for sender in (ALICE, BOB):
            with pytest.raises(MailboxFull):
                await mailbox.keep(client, a_letter(sender, size=5_001, key=b"same"), limits, ROOM)
        assert await letters_of(mailbox, client) == there
        assert await mailbox.mail_uses() == {client: use_of(*there)}
        exact = a_letter(ALICE, size=5_000, key=b"same")
        assert (await mailbox.keep(client, exact, limits, ROOM)).dropped == 1
        assert await letters_of(mailbox, client) == [exact]

    async def test_queues_take_no_room_from_each_other(self, store: Store, mailbox: MailStore) -> None:
        """Each has the limits to itself."""
        client = await a_client_of(store)
        limits = MailLimits(letters=3, bytes=3 * SMALL, ttl=DAY)
        for letter in [a_letter(queue=queue) for _ in range(5) for queue in Queue]:
            await mailbox.keep(client, letter, limits, ROOM)
        found = Counter(letter.queue for letter in await letters_of(mailbox, client))
        assert found == {Queue.MESSAGES: 3, Queue.REQUESTS: 3}

    async def test_a_mailbox_grows_by_no_more_than_there_is_room(
        self, store: Store, mailbox: MailStore
    ) -> None:
        """Past the room for all mailboxes, the letter's own queue makes room, and no other."""
        client = await a_client_of(store)
        request, old, new = a_letter(queue=Queue.REQUESTS), a_letter(), a_letter()
        await mailbox.keep(client, request, PLENTY, SMALL)
        for room in (0, -SMALL, SMALL - 1):
            with pytest.raises(MailboxFull):
                await mailbox.keep(client, old, PLENTY, room)
        await mailbox.keep(client, old, PLENTY, SMALL)
        # A room below 0 is none: other mailboxes are too large, this one need not shrink for them.
        for room in (0, -10 * SMALL):
            new = a_letter()
            assert (await mailbox.keep(client, new, PLENTY, room)).dropped == 1
            assert await letters_of(mailbox, client) == [request, new]

    async def test_what_is_replaced_makes_room(self, store: Store, mailbox: MailStore) -> None:
        """A full queue and no room at all still take the newer copy of a letter."""
        client = await a_client_of(store)
        limits = MailLimits(letters=2, bytes=2 * SMALL, ttl=DAY)
        old, other, new = a_letter(key=b"same"), a_letter(BOB), a_letter(key=b"same")
        for letter in (old, other):
            await mailbox.keep(client, letter, limits, ROOM)
        assert (await mailbox.keep(client, new, limits, 0)).dropped == 0
        assert await letters_of(mailbox, client) == [other, new]

    async def test_letters_kept_at_once_never_pass_the_limits(self, store: Store, mailbox: MailStore) -> None:
        """Choosing and dropping is one step."""
        client = await a_client_of(store)
        limits = MailLimits(letters=10, bytes=10 * SMALL, ttl=DAY)
        kept = await asyncio.gather(*(mailbox.keep(client, a_letter(), limits, ROOM) for _ in range(40)))
        assert sum(each.dropped for each in kept) == 30
        assert len({each.number for each in kept}) == 40
        assert (await mailbox.mail_uses())[client].letters == len(await mailbox.mail(client)) == 10

    @pytest.mark.parametrize("seed", range(4))
    async def test_any_mix_is_as_in_memory(self, seed: int, store: Store, mailbox: MailStore) -> None:
        """Random letters, limits and drops leave the same letters as the plain code of the tests' own."""
        choice = random.Random(seed)
        plain, client = MemoryStore(), a_client()
        await store.add_client(client)
        await plain.add_client(client)
        limits = MailLimits(letters=choice.choice((3, 8)), bytes=choice.choice((4_000, 9_000)), ttl=DAY)
        for _ in range(120):
            letter = a_letter(
                choice.choice((ALICE, ALICE, BOB, CAROL)),
                queue=choice.choice(tuple(Queue)),
                key=choice.choice((b"1", b"2", None)),
                size=choice.choice((100, 500, 501, 1_500, 3_900)),
                age_ms=choice.randrange(1_000),
            )
            room = choice.choice((ROOM, 1_000, 0, -1))
            outcomes: list[Kept | None] = []
            for each in (mailbox, plain):
                try:
                    outcomes.append(await each.keep(client.client_id, letter, limits, room))
                except MailboxFull:
                    outcomes.append(None)
            ours, expected = outcomes
            assert (ours and (ours.use, ours.dropped)) == (expected and (expected.use, expected.dropped))
            assert await letters_of(mailbox, client.client_id) == await letters_of(plain, client.client_id)
            if choice.random() < 0.1:
                place = choice.randrange(10)
                for each in (mailbox, plain):
                    there = await each.mail(client.client_id)
                    await each.drop_mail(client.client_id, [number for number, _ in there[place:]])

    # --- ends -------------------------------------------------------------------------------------

    async def test_letters_leave_at_the_end_of_their_time(self, store: Store, mailbox: MailStore) -> None:
        """Counted from when each was kept; what is gone counts no more, and makes room first."""
        client, other = await a_client_of(store), await a_client_of(store, "bob")
        limits = MailLimits(letters=2, bytes=1 << 20, ttl=10)
        old, fresh, new = a_letter(BOB, age_ms=8_500), a_letter(), a_letter()
        for each in (client, other):
            await mailbox.keep(each, old, limits, ROOM)
            await mailbox.keep(each, fresh, limits, ROOM)
            assert await letters_of(mailbox, each) == [old, fresh]
        await passed(old.kept_at_ms // 1_000 + 11)
        assert await letters_of(mailbox, client) == [fresh]
        # A look at the mailbox is enough to count anew.
        assert await mailbox.drop_mail(client, []) == use_of(fresh)
        assert (await mailbox.mail_uses())[client] == use_of(fresh)
        kept = await mailbox.keep(other, new, limits, ROOM)
        assert (kept.use, kept.dropped) == (use_of(fresh, new), 0)

    async def test_a_letter_that_is_too_old_is_not_kept(self, store: Store, mailbox: MailStore) -> None:
        """As it may be that waited in memory for long: nothing is refused, and nothing counts."""
        client = await a_client_of(store)
        limits = MailLimits(letters=2, bytes=1 << 20, ttl=10)
        assert (await mailbox.keep(client, a_letter(age_ms=10_001), limits, ROOM)).use == use_of()
        assert list(await mailbox.mail(client)) == []
        assert await mailbox.mail_uses() == {}

    # --- limits of its own, and pauses --------------------------------------------------------------

    @pytest.mark.parametrize("own", [Quota(mailbox_letters=2), Quota(mailbox_bytes=2 * SMALL)], ids=str)
    async def test_a_clients_own_limits_go_before_the_given_ones(
        self, store: Store, mailbox: MailStore, own: Quota
    ) -> None:
        """Each of the two; where it has none, what is given holds."""
        client = await a_client_of(store)
        tight = MailLimits(letters=1, bytes=SMALL, ttl=DAY)
        generous = own.own() | {"mailbox_letters": 2, "mailbox_bytes": 2 * SMALL}
        await store.update_quota(client, Quota(**generous))  # type: ignore[arg-type]
        first, second, third = (a_letter() for _ in range(3))
        for letter in (first, second):
            assert (await mailbox.keep(client, letter, tight, ROOM)).dropped == 0
        await store.update_quota(client, own, [name for name in generous if name not in own.own()])
        assert (await mailbox.keep(client, third, PLENTY, ROOM)).dropped == 1
        assert await letters_of(mailbox, client) == [second, third]

    async def test_a_paused_client_keeps_its_mail_and_gets_no_more(
        self, store: Store, mailbox: MailStore
    ) -> None:
        """What waits stays and can still be dropped when it has arrived; what comes is refused."""
        client = await a_client_of(store)
        letters = [a_letter(), a_letter()]
        first, _ = [await mailbox.keep(client, letter, PLENTY, ROOM) for letter in letters]
        await store.pause_client(client, paused=True)
        with pytest.raises(ClientPaused):
            await mailbox.keep(client, a_letter(), PLENTY, ROOM)
        assert await letters_of(mailbox, client) == letters
        assert await mailbox.drop_mail(client, [first.number]) == use_of(letters[1])
        await store.pause_client(client, paused=False)
        new = a_letter()
        await mailbox.keep(client, new, PLENTY, ROOM)
        assert await letters_of(mailbox, client) == [letters[1], new]

    async def test_what_waits_is_listed_without_what_it_says(self, store: Store, mailbox: MailStore) -> None:
        """In the order in which it was kept; what has expired is not there."""
        client = await a_client_of(store)
        assert list(await mailbox.mail_list(client)) == []
        letters = [a_letter(BOB, queue=Queue.REQUESTS, size=3_000), a_letter(age_ms=60_000)]
        numbers = [(await mailbox.keep(client, letter, PLENTY, ROOM)).number for letter in letters]
        await mailbox.keep(client, a_letter(age_ms=11_000), MailLimits(9, 1 << 20, ttl=10), ROOM)
        assert list(await mailbox.mail_list(client)) == [
            LetterNote(number, letter.queue, letter.sender, letter.size, letter.kept_at_ms)
            for number, letter in zip(numbers, letters, strict=True)
        ]

    # --- clients that go ----------------------------------------------------------------------------

    async def test_a_revoked_client_has_no_mail(self, store: Store, mailbox: MailStore) -> None:
        """Revoking drops it, and nothing is kept from then on."""
        client = await a_client_of(store)
        await mailbox.keep(client, a_letter(), PLENTY, ROOM)
        await store.revoke_client(client)
        assert list(await mailbox.mail(client)) == []
        assert await mailbox.mail_uses() == {}
        with pytest.raises(ClientRevoked):
            await mailbox.keep(client, a_letter(), PLENTY, ROOM)
        assert await mailbox.drop_mail(client, [1]) == use_of()

    async def test_a_removed_client_has_no_mail(self, store: Store, mailbox: MailStore) -> None:
        """Removing forgets the mailbox with all else."""
        client = await a_client_of(store)
        kept = await mailbox.keep(client, a_letter(), PLENTY, ROOM)
        await store.remove_client(client)
        assert list(await mailbox.mail(client)) == []
        assert await mailbox.mail_uses() == {}
        with pytest.raises(UnknownClient):
            await mailbox.keep(client, a_letter(), PLENTY, ROOM)
        assert await mailbox.drop_mail(client, [kept.number]) == use_of()

    async def test_mail_outlives_a_new_binding(self, store: Store, mailbox: MailStore) -> None:
        """Letters are the client's, and say to which node each goes."""
        client = await a_client_of(store)
        letter = a_letter()
        await mailbox.keep(client, letter, PLENTY, ROOM)
        await store.rotate_client(client)
        await store.bind(client, a_node(), BoundBy.OPERATOR)
        assert await letters_of(mailbox, client) == [letter]
