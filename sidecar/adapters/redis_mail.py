"""Mailboxes in Redis: ports.MailStore."""

from collections.abc import Iterator, Mapping, Sequence

from sidecar.adapters.redis_link import BATCH, RedisLink, Script
from sidecar.adapters.redis_masters import Argument
from sidecar.adapters.redis_records import (
    Keys,
    LetterEntry,
    packed_letter,
    to_client_id,
    to_letter,
    to_letter_entries,
    to_mail_use,
)
from sidecar.core.mailbox import Kept, Letter, LetterNote, MailLimits, MailUse

KEEP_MAIL = Script("keep_mail")
DROP_MAIL = Script("drop_mail")
NOTE_MAIL = Script("note_mail")


BATCH_BYTES = 1 << 20
"""Bytes of letters in one answer; one letter is always read, whatever its size."""


class RedisMail:
    """ports.MailStore over one Redis, or a Cluster.

    A letter ends `ttl` seconds after its `kept_at_ms`, by Redis's clock. What a mailbox holds is
    counted anew by each change of it, in one step with the change. The list of uses does not see
    letters expire. In a Cluster it is in another slot, and is written right after: there it may be
    one change of a mailbox behind.
    """

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def keep(self, client_id: bytes, letter: Letter, limits: MailLimits, room: int) -> Kept:
        """Put a letter last in its queue; return once it is on disk.

        While the queue is past its limits the oldest letter of the heaviest sender in it goes: of
        the one with the most bytes where there are too many bytes, with the most letters where
        there are too many letters. `room` below 0 counts as 0: no mailbox need shrink.

        Also one that leads no more may keep what it has in hand: a letter that is kept twice harms nobody,
        one that is not kept is lost.

        Raises UnknownClient, ClientRevoked, ClientPaused, MailboxFull (with nothing changed),
        StoreUnavailable.
        """
        reply = await self._link.change(
            KEEP_MAIL,
            self._mailbox(client_id),
            [
                *(letter.queue.value, letter.sender.hex(), letter.size, letter.kept_at_ms),
                *(letter.kept_at_ms + limits.ttl * 1_000, letter.key.hex(), packed_letter(letter)),
                *(limits.letters, limits.bytes, room, client_id.hex()),
            ],
            f"client {client_id.hex()}",
        )
        number, letters, size, newest_ms, change, dropped = map(int, reply)
        use = MailUse(letters=letters, bytes=size, newest_ms=newest_ms, change=change)
        if self._link.clustered:
            await self._note(client_id, use)
        return Kept(number=number, use=use, dropped=dropped)

    async def mail_list(self, client_id: bytes) -> Sequence[LetterNote]:
        """What waits for a client, in that order; the letters themselves are not read."""
        return [entry.note() for entry in await self._entries(client_id)]

    async def _entries(self, client_id: bytes) -> list[LetterEntry]:
        now, record = await self._link.read(("TIME",), ("HGETALL", self._keys.mail_index(client_id)))
        now_ms = int(now[0]) * 1_000 + int(now[1]) // 1_000
        return [entry for entry in to_letter_entries(record) if entry.ends_ms > now_ms]

    async def mail(self, client_id: bytes) -> Sequence[tuple[int, Letter]]:
        """All letters of a client with their numbers, in the order in which they were kept."""
        entries = await self._entries(client_id)
        found: list[tuple[int, Letter]] = []
        for batch in _batches(entries):
            numbers = [entry.number for entry in batch]
            (letters,) = await self._link.read(("HMGET", self._keys.mail(client_id), *numbers))
            # None: dropped since the index was read.
            found += [
                (entry.number, to_letter(entry, packed))
                for entry, packed in zip(batch, letters, strict=True)
                if packed is not None
            ]
        return found

    async def drop_mail(self, client_id: bytes, numbers: Sequence[int]) -> MailUse:
        """Forget letters that arrived, and those that have expired. Raises StoreUnavailable, NotLeading.

        Not durable: after a crash of Redis a letter may arrive a second time.
        """
        await self._link.fence()
        what = f"client {client_id.hex()}"
        args: list[Argument] = [client_id.hex(), *numbers]
        reply = await self._link.change(DROP_MAIL, self._mailbox(client_id), args, what, durable=False)
        letters, size, newest_ms, change = map(int, reply)
        use = MailUse(letters=letters, bytes=size, newest_ms=newest_ms, change=change)
        if self._link.clustered:
            await self._note(client_id, use)
        return use

    async def mail_uses(self) -> Mapping[bytes, MailUse]:
        """What each client's mailbox held when it was last touched: approximate."""
        found: dict[bytes, MailUse] = {}
        async for part in self._link.scan(self._keys.mail_uses):
            for client_id, entry in part.items():
                with self._link.passing_over(client_id):
                    found[to_client_id(client_id)] = to_mail_use(entry)
        return found

    async def forget(self, client_id: bytes) -> None:
        """Drop the mailbox of a client that is revoked: nothing can come into it any more."""
        keys = self._keys
        await self._link.change_command("DEL", keys.mail(client_id), keys.mail_index(client_id))
        await self._link.change_command("HDEL", keys.mail_uses, client_id.hex(), durable=False)

    def _mailbox(self, client_id: bytes) -> list[str]:
        keys = self._keys
        own = [keys.client(client_id), keys.mail(client_id), keys.mail_index(client_id)]
        return own if self._link.clustered else [*own, keys.mail_uses]

    async def _note(self, client_id: bytes, use: MailUse) -> None:
        """Write down what a mailbox holds, unless a later change of it was noted already."""
        args: list[Argument] = [client_id.hex(), use.letters, use.bytes, use.newest_ms, use.change]
        await self._link.change(
            NOTE_MAIL, [self._keys.mail_uses], args, f"client {client_id.hex()}", durable=False
        )


def _batches(entries: Sequence[LetterEntry]) -> Iterator[list[LetterEntry]]:
    """Letters that are read together: BATCH of them, and about BATCH_BYTES bytes."""
    batch: list[LetterEntry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == BATCH or size + entry.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch
