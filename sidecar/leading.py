"""A sidecar's turns: it stands by and holds what LND streams, then it leads, until another one does."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace

from sidecar.core.errors import NotLeading, StoreUnavailable
from sidecar.lease import Lease
from sidecar.mailroom import Mailroom
from sidecar.ports import LeaseStore, Received
from sidecar.standby import Standby, mark

REFRESH_SECONDS = 1.0
"""For reading the clients before the first answer; of very many the rest is read beside the answers."""

LETTERS_SECONDS = 5.0
"""For what is in memory alone, when another one leads."""

DRAIN_SECONDS = 2.0
"""For what is in hand when the server is told to stop: then whoever stands by takes over."""

Lsps = tuple[bytes, bytes]
"""A peer, and the payload of its LSPS message."""


class Leading:
    """The lease, and the streams that are held until this sidecar has it."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        name: str,
        seconds: int,
        hears: Callable[[], bool],
        refresh: Callable[[], Awaitable[None]],
        dropped: Callable[[str], None],
    ) -> None:
        """`name`, `seconds` and `hears` as a Lease has them; `refresh` reads all clients.

        `dropped` is told of each message that could not be held.
        """
        self.holder = os.urandom(16).hex()
        self._refresh = refresh
        self._seconds = seconds
        self._dropped = dropped
        self._streams: tuple[Standby[Received], Standby[Lsps]] | None = None
        self._stopping = False
        self.lease = Lease(
            store,
            holder=self.holder,
            name=name,
            seconds=seconds,
            # What is in hand when the server stops is finished with the stream closed.
            hears=lambda: self._stopping or hears(),
            done=lambda: {stream.name: stream.marks() for stream in self._streams or ()},
            told=self._trim,
        )

    def streams(
        self, onions: Callable[[], AsyncIterator[Received]], lsps: Callable[[], AsyncIterator[Lsps]]
    ) -> tuple[Standby[Received], Standby[Lsps]]:
        """LND's streams, to be read in their stead: nothing comes before this sidecar leads."""
        self._streams = (
            Standby(
                "onions",
                onions,
                seconds=self._seconds,
                leads=lambda: self.lease.leads,
                # The packet ends with its HMAC, which covers all of it.
                mark_of=lambda received: mark(received.path_key, received.onion[-32:]),
                size_of=lambda received: len(received.onion),
                as_held=lambda received, ms, again: replace(received, heard_ms=ms, again=again),
                dropped=self._dropped,
            ),
            Standby(
                "lsps",
                lsps,
                seconds=self._seconds,
                leads=lambda: self.lease.leads,
                mark_of=lambda message: mark(*message),
                size_of=lambda message: len(message[1]),
                as_held=lambda message, _, __: message,
                dropped=self._dropped,
            ),
        )
        return self._streams

    async def run(self, up: asyncio.Event, mailroom: Mailroom, ready: Callable[[], None]) -> None:
        """Stand by, then lead. `up`: LND streams; `ready` is called when this one leads.

        Raises NotLeading when another one does.
        """
        await up.wait()
        self.lease.hurry()
        await self.lease.until_leading()
        if self.lease.after:
            # It may have bound a wallet just now, whose letters nobody else keeps.
            refreshing = asyncio.create_task(self._read_clients())
            await asyncio.wait([refreshing], timeout=REFRESH_SECONDS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mailroom.run())
            tasks.create_task(self._until_lost(mailroom))
            for stream in self._streams or ():
                stream.open(clean=self.lease.clean)
            ready()

    async def release(self, service: asyncio.Task[None] | None) -> None:
        """Let another one lead soon: it answers what `service` has not done by then."""
        self._stopping = drained = True
        if service is not None:
            drained = bool((await asyncio.wait([service], timeout=DRAIN_SECONDS))[0])
        await self.lease.release(drained=drained)

    async def _read_clients(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._refresh()

    async def _until_lost(self, mailroom: Mailroom) -> None:
        await self.lease.until_lost()
        # Nobody else has them: whoever leads finds them in the mailbox.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LETTERS_SECONDS):
                await mailroom.until_stored()
        raise NotLeading(f"{self.lease.leader} leads")

    def _trim(self, done: Mapping[str, bytes]) -> None:
        for stream in self._streams or ():
            stream.trim(done.get(stream.name, b""))
