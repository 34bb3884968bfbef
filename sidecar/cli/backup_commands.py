"""`sidecar export`, `import` and `dry-run`: all that is kept in one file, and what a payer would get."""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sidecar.cli.commands import connect
from sidecar.cli.printing import as_json, fields, span, utc
from sidecar.config import Settings
from sidecar.core.backup import ExportReader
from sidecar.core.errors import BadExport, BadOffer, OperatorError
from sidecar.core.webhooks import printable

if TYPE_CHECKING:
    from sidecar.rpc.sidecar.v1 import admin_pb2

STREAM = "-"
"""Stands for standard output, or input."""

PART = 64 * 1024
"""Bytes that go to the server at once."""

MOST_SLOTS = 1 << 16


def register(top: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands to those of the command line; `command` makes one of a group."""
    made = command(top, "export", export, "write all that is kept to a file, while the server runs")
    made.add_argument("file", metavar="FILE", help="- is standard output")
    made.add_argument("--force", action="store_true", help="replace a file that is there")
    made = command(top, "import", import_, "bring an export into a server that keeps nothing yet")
    made.add_argument("file", metavar="FILE", help="- is standard input")
    made = command(top, "dry-run", dry_run, "what a payer of one of a client's offers would get now")
    made.add_argument("client", metavar="CLIENT", help="a name or a client id")
    made.add_argument("slot", metavar="SLOT", type=_slot, help="the offer's invoice slot, from 0")


def _slot(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) < MOST_SLOTS):
        raise argparse.ArgumentTypeError(f"{text!r} is no slot: give 0 to {MOST_SLOTS - 1}")
    return int(text)


# --- export -----------------------------------------------------------------------------------------


def export(args: argparse.Namespace, settings: Settings) -> str:
    """Write all that is kept to a file that only its owner may read: webhooks and invoices are in it."""
    if args.file == STREAM:
        try:
            with connect(settings) as server:
                _write_checked(server.export(), sys.stdout.buffer)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OperatorError(f"the output can't be written: {error.strerror or error}") from None
        return ""
    path = Path(args.file)
    if not args.force and os.path.lexists(path):
        raise _in_the_way(path)
    with connect(settings) as server, _whole(path, force=args.force) as file:
        records = _write_checked(server.export(), file)
        size = file.tell()
    if args.json:
        return as_json({"file": str(path), "records": records, "bytes": size})
    return (
        f"{path} holds all that is kept: {records} records, {size} bytes. Keep it as safe as Redis itself: "
        "webhooks and invoices are in it"
    )


def _write_checked(parts: Iterable[bytes], file: IO[bytes]) -> int:
    """Write an export while reading it as an import would; how many records. Raises BadExport."""
    reader, rest = ExportReader(), b""
    for part in parts:
        file.write(part)
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            reader.line(line + b"\n")
    if rest:
        reader.line(rest)
    reader.finish()
    file.flush()
    return reader.records


def _in_the_way(path: Path) -> OperatorError:
    return OperatorError(f"{path} is there already: name another file, or give --force to replace it")


@contextlib.contextmanager
def _whole(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file that has its name only once all of it is on disk; mode 0600. Raises OperatorError."""
    try:
        # Made by mkstemp: no other user may read it, from the first byte.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                yield file
                os.fsync(file.fileno())
                if force:
                    Path(file.name).replace(path)
                else:
                    # Unlike a rename, a link replaces nothing that has come meanwhile.
                    path.hardlink_to(file.name)
            finally:
                Path(file.name).unlink(missing_ok=True)
    except FileExistsError:
        raise _in_the_way(path) from None
    except OSError as error:
        raise OperatorError(f"{path} can't be written: {error.strerror or error}") from None


# --- import -----------------------------------------------------------------------------------------


def import_(args: argparse.Namespace, settings: Settings) -> str:
    """Bring an export into a server that keeps nothing yet."""
    try:
        with contextlib.ExitStack() as stack:
            if args.file == STREAM:
                file: IO[bytes] = sys.stdin.buffer
            else:
                file = stack.enter_context(Path(args.file).open("rb"))
            file.read(0)
            with connect(settings) as server:
                done = server.import_(iter(lambda: file.read(PART), b""))
    except OSError as error:
        raise BadExport(f"{args.file} can't be read: {error.strerror or error}") from None
    names = ("clients", "invoices", "letters", "webhooks")
    counts = {name: getattr(done, name) for name in names}
    if args.json:
        return as_json(counts)
    return (
        f"imported {done.clients} clients with {done.invoices} invoices, {done.letters} messages in their "
        f"mailboxes, and {done.webhooks} webhooks; what had expired was left out"
    )


# --- dry-run ----------------------------------------------------------------------------------------

_MEANINGS = {
    "static_invoice": "a payer gets the invoice",
    "invoice_error": "a payer is told that it is not served",
    "silence": "a payer gets no answer",
}


def dry_run(args: argparse.Namespace, settings: Settings) -> str:
    """What a payer of the offer in a slot would get now."""
    with connect(settings) as server:
        run = server.dry_run(args.client, args.slot)
    if args.json:
        names = ("outcome", "reason", "explanation", "offer", "description", "amount_msat")
        times = ("invoice_created_at", "invoice_expires_at", "expires_at")
        found = {name: getattr(run, name) for name in (*names, *times, "forwarded_to_wallet")}
        return as_json(found | {"invoice_bytes": len(run.invoice)})
    meaning = _MEANINGS.get(run.outcome, run.outcome)
    if run.outcome == "static_invoice" and run.reason:
        meaning = "a payer gets the invoice, and refuses it"
    now = int(time.time())
    return fields(
        [
            ("outcome", meaning),
            ("why", f"{run.explanation} ({run.reason})" if run.reason else run.explanation),
            ("wallet", "gets the request too" if run.forwarded_to_wallet else "does not hear of it"),
            ("offer", run.offer or "can't be read"),
            ("description", printable(run.description) or "none"),
            ("amount", _amount(run)),
            ("invoice", f"{len(run.invoice)} bytes"),
            ("made", _when(run.invoice_created_at, now)),
            ("expires", _when(run.invoice_expires_at, now)),
            ("kept until", _when(run.expires_at, now)),
        ]
    )


def _when(seconds: int, now: int) -> str:
    try:
        return f"{utc(seconds)} ({span(seconds - now)})" if seconds else "not known"
    except (ValueError, OverflowError, OSError):
        return "never"  # its wallet chose a time that no calendar has


def _amount(run: "admin_pb2.DryRunResponse") -> str:
    if run.amount_msat:
        return f"{run.amount_msat} msat"
    from sidecar.core import offers  # noqa: PLC0415 - most commands do without its cryptography

    with contextlib.suppress(BadOffer):
        offer = offers.decode_offer(run.offer)
        if offer.currency is not None:
            return f"{offer.amount} in the smallest unit of {offer.currency}"
    return "the payer chooses"
