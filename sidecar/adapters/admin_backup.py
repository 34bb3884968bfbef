"""The admin service for backups, and what a payer would get: `sidecar export`, `import`, `dry-run`."""

# ruff: noqa: N802, ARG002 - gRPC names the methods, and says what they are given

import asyncio
import contextlib
import errno
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

import structlog

from sidecar.adapters.admin import find_client
from sidecar.adapters.audit import Context
from sidecar.adapters.backup_check import ExportCheck
from sidecar.adapters.redis_backup import Restored
from sidecar.core import backup
from sidecar.core.backup import ExportReader, ExportWriter, Header, Record
from sidecar.core.context import Context as PathContext
from sidecar.core.dry_run import dry_run, offer_paths, stored_invoice
from sidecar.core.errors import BadExport, OperatorError, Unavailable
from sidecar.core.paths import BlindedPath
from sidecar.core.server import StaticInvoiceServer
from sidecar.ports import Store
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc

log = structlog.get_logger(__name__)

PART = 64 * 1024
"""Bytes of one message of a stream."""

READ_AT_ONCE = 64
"""Lines that are read from the disk in one go."""

Walk = Callable[[BlindedPath], Awaitable[PathContext | None]]
"""Where a path leads, as Peeler.walk tells."""


class Records(Protocol):
    """All records of the node, as RedisBackup has them."""

    def export(self) -> AsyncIterator[Record]:
        """All of them. Raises StoreUnavailable."""

    async def check_empty(self) -> None:
        """Raises StoreNotEmpty, StoreUnavailable."""

    async def restore(self, records: AsyncIterator[Record]) -> Restored:
        """Put checked records in force, all or none. Raises StoreNotEmpty, StoreUnavailable."""


class BackupService(admin_pb2_grpc.BackupServicer):
    """Exports and imports, while the server runs."""

    def __init__(
        self,
        records: Records,
        *,
        node_id: bytes,
        network: str,
        version: str,
        directory: Path,
        imported: Callable[[], Awaitable[None]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`node_id`: LND's, whose records these are, on `network`; `version`: the sidecar's.

        `directory`: where an import lies until it is checked. `imported`: lets the running server know
        what it has now. `now` gives seconds since the epoch.
        """
        self._records = records
        self._node_id = node_id
        self._network = network
        self._version = version
        self._directory = directory
        self._imported = imported
        self._now = now
        self._importing = asyncio.Lock()

    async def Export(
        self, request: admin_pb2.ExportRequest, context: Context
    ) -> AsyncIterator[admin_pb2.ExportResponse]:
        """All that is kept, in parts of up to 64 kB; what ends without a last line is not whole."""
        writer = ExportWriter()
        header = Header(self._node_id, self._network, self._version, int(self._now()))
        pending = bytearray(writer.header(header))
        async for record in self._records.export():
            for line in writer.record(record):
                pending += line
                while len(pending) >= PART:
                    yield admin_pb2.ExportResponse(part=bytes(pending[:PART]))
                    del pending[:PART]
        pending += writer.end()
        for start in range(0, len(pending), PART):
            yield admin_pb2.ExportResponse(part=bytes(pending[start : start + PART]))

    async def Import(
        self, request_iterator: AsyncIterator[admin_pb2.ImportRequest], context: Context
    ) -> admin_pb2.ImportResponse:
        """Take an export into an empty store: all of it, or nothing."""
        if self._importing.locked():
            raise OperatorError("an import is at work already: wait for its end")
        async with self._importing:
            await self._records.check_empty()
            with self._spool() as spool:
                async for request in request_iterator:
                    await asyncio.to_thread(_write, spool, request.part)
                await asyncio.to_thread(self._check, spool)
                restored = await self._records.restore(_records(spool))
        try:
            await self._imported()
        except Unavailable as error:
            # It is all there, and is read again within half a minute.
            log.warning("what was imported is not known to the server yet", error=str(error))
        log.info("imported", clients=restored.clients, invoices=restored.invoices)
        return admin_pb2.ImportResponse(
            clients=restored.clients,
            invoices=restored.invoices,
            letters=restored.letters,
            webhooks=restored.webhooks,
        )

    @contextlib.contextmanager
    def _spool(self) -> Iterator[IO[bytes]]:
        """A file without a name: it goes with this process, whatever ends it."""
        try:
            file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed below
        except OSError as error:
            raise _no_room(error) from None
        try:
            yield file
        finally:
            # What found no room is tried once more here, and its error would hide the first one.
            with contextlib.suppress(OSError):
                file.close()

    def _check(self, spool: IO[bytes]) -> None:
        """Read all of it, and find no fault. Raises BadExport."""
        reader, check = ExportReader(), ExportCheck()
        spool.seek(0)
        while line := spool.readline(backup.MAX_LINE):
            record = reader.line(line)
            if record is not None:
                check.record(record)
            elif reader.header is not None:
                self._check_header(reader.header)
        reader.finish()
        check.finish()

    def _check_header(self, header: Header) -> None:
        if header.node_id != self._node_id:
            raise BadExport(
                f"the export is of LND node {_short(header.node_id)}, and this LND is "
                f"{_short(self._node_id)}: all paths and offers hang on LND's key, so an export is of use "
                "only beside an LND of the same seed"
            )
        if header.network != self._network:
            raise BadExport(f"the export is of {header.network}, and this LND is on {self._network}")


async def _records(spool: IO[bytes]) -> AsyncIterator[Record]:
    """The records of a file that was checked."""
    reader = ExportReader()
    spool.seek(0)

    def some() -> list[Record | None]:
        lines = iter(lambda: spool.readline(backup.MAX_LINE), b"")
        return [reader.line(line) for line in itertools.islice(lines, READ_AT_ONCE)]

    while read := await asyncio.to_thread(some):
        for record in read:
            if record is not None:
                yield record


def _write(spool: IO[bytes], part: bytes) -> None:
    try:
        spool.write(part)
        spool.flush()
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> OperatorError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "make room there" if full else "the server must be able to write there"
    return OperatorError(
        f"the export can't be kept in the data directory until it is checked: {error.strerror}: {hint}"
    )


def _short(node_id: bytes) -> str:
    """Enough of a node id to tell two apart."""
    return f"{node_id.hex()[:16]}…"


class DryRunner:
    """Answers Admin.DryRun; `now_ms` gives milliseconds since the epoch."""

    def __init__(
        self,
        store: Store,
        server: StaticInvoiceServer,
        chain: bytes,
        walk: Walk,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._server = server
        self._chain = chain
        self._walk = walk
        self._now_ms = now_ms

    async def __call__(self, request: admin_pb2.DryRunRequest) -> admin_pb2.DryRunResponse:
        """What a payer would get. Raises NoSuchClient, NoSuchInvoice, LndUnavailable, StoreUnavailable."""
        client = await find_client(self._store, request.name)
        loaded = await self._store.load(client.client_id, request.slot)
        stored = stored_invoice(loaded, f"slot {request.slot} of client {client.name}")
        paths = offer_paths(stored)
        opened = await self._walk(paths[0]) if paths else None
        run = dry_run(
            self._server,
            self._chain,
            loaded=loaded,
            stored=stored,
            opened=opened,
            now_ms=self._now_ms(),
            entropy=os.urandom,
        )
        offer = run.offer
        return admin_pb2.DryRunResponse(
            outcome=run.outcome,
            reason=run.reason,
            explanation=run.explanation,
            invoice=stored.invoice,
            invoice_created_at=stored.created_at,
            invoice_expires_at=run.invoice.expires_at if run.invoice else 0,
            expires_at=stored.expires_at,
            offer=run.offer_string,
            description=run.description,
            # In a currency of its own it is no amount in msat: the offer itself tells.
            amount_msat=(offer.amount or 0) if offer and offer.currency is None else 0,
            forwarded_to_wallet=run.forwarded,
        )
