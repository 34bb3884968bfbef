"""What each `sidecar` command does: ask the running server, and say what it answered.

A command returns the text that is printed. gRPC takes its time to load, and some commands do without:
it is imported where it is needed.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar import config
from sidecar.adapters import permissions
from sidecar.config import Settings
from sidecar.core.model import Quota

if TYPE_CHECKING:
    from sidecar.adapters.admin_client import AdminClient
    from sidecar.rpc.sidecar.v1 import admin_pb2

Row = Sequence[object]

# --- output -------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Plain text in aligned columns: numbers to the right, all else to the left."""
    body = [list(row) for row in rows]
    cells = [list(head), *([str(cell) for cell in row] for row in body)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [bool(body) and all(isinstance(row[i], int) for row in body) for i in range(len(head))]
    lines = (
        "  ".join(
            cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """One `name  value` a line, the values below each other."""
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in pairs)


def utc(seconds: int) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: int) -> str:
    """A time from now in the unit that a person would use: `in 12 days`, `3 hours ago`."""
    for unit, size in (("day", config.DAY), ("hour", config.HOUR), ("minute", config.MINUTE), ("second", 1)):
        count = abs(seconds) // size
        if count >= (1 if unit == "second" else 2):
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"in {words}" if seconds > 0 else f"{words} ago"
    return "now"


def _json(value: object) -> str:
    return json.dumps(value, indent=2)


def _state(client: "admin_pb2.Client") -> str:
    return {1: "active", 2: "revoked"}.get(client.state, "unknown")


def _client_json(client: "admin_pb2.Client") -> dict[str, Any]:
    quota = client.quota
    return {
        "client_id": client.client_id,
        "name": client.name,
        "state": _state(client),
        "generation": client.generation,
        "created_at": client.created_at,
        "quota": {"slots": quota.slots, "bytes": quota.bytes, "ttl_seconds": quota.ttl_seconds},
        "slots_used": client.slots_used,
        "bytes_used": client.bytes_used,
    }


def _client_text(client: "admin_pb2.Client") -> str:
    quota = client.quota
    return fields(
        [
            ("name", client.name),
            ("client id", client.client_id),
            ("state", _state(client)),
            ("added", utc(client.created_at)),
            ("paths", f"generation {client.generation}"),
            ("slots", f"{client.slots_used} of {quota.slots} used"),
            ("bytes", f"{client.bytes_used} of {quota.bytes} used"),
            ("ttl", f"{config.format_duration(quota.ttl_seconds)} an invoice"),
        ]
    )


def _paths_text(paths: bytes) -> str:
    return f"request paths, for the wallet (ldk-node: set_paths_to_static_invoice_server):\n{paths.hex()}"


# --- commands -----------------------------------------------------------------------------------


def _quiet_grpc() -> None:
    """Before gRPC is loaded: what it would write on stderr, once a second, we say once in our own words."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _connect(settings: Settings) -> "AdminClient":
    _quiet_grpc()
    from sidecar.adapters.admin_client import AdminClient  # noqa: PLC0415 - after the line above

    return AdminClient(settings.datadir)


def serve(_args: argparse.Namespace, settings: Settings) -> str:
    """Run the server until it is told to stop."""
    _quiet_grpc()
    from sidecar.app import serve as run_server  # noqa: PLC0415 - only here is all of it needed

    asyncio.run(run_server(settings))
    return ""


def add(args: argparse.Namespace, settings: Settings) -> str:
    """Let a client in, and print its request paths."""

    def limit(option: config.Option[int], text: str | None, flag: str) -> int:
        return 0 if text is None else option.read(text, f"the flag {flag}")

    quota = Quota(
        slots=limit(config.CLIENT_SLOTS, args.slots, "--slots"),
        bytes=limit(config.CLIENT_BYTES, args.bytes, "--bytes"),
        ttl=limit(config.CLIENT_TTL, args.ttl, "--ttl"),
    )
    with _connect(settings) as server:
        added = server.add(args.name, quota)
    return _with_paths(args, added.client, added.paths)


def rotate(args: argparse.Namespace, settings: Settings) -> str:
    """Make new request paths for a client, and print them."""
    with _connect(settings) as server:
        rotated = server.rotate(args.name)
    return _with_paths(args, rotated.client, rotated.paths)


def _with_paths(args: argparse.Namespace, client: "admin_pb2.Client", paths: bytes) -> str:
    if args.json:
        return _json(_client_json(client) | {"paths": paths.hex()})
    return f"{_client_text(client)}\n\n{_paths_text(paths)}"


def list_clients(args: argparse.Namespace, settings: Settings) -> str:
    """All clients with what they use."""
    with _connect(settings) as server:
        clients = server.clients().clients
    if args.json:
        return _json({"clients": [_client_json(client) for client in clients]})
    if not clients:
        return "no clients yet: `sidecar client add NAME` lets one in"
    rows = [
        (
            each.name,
            each.client_id,
            _state(each),
            f"{each.slots_used}/{each.quota.slots}",
            f"{each.bytes_used}/{each.quota.bytes}",
            utc(each.created_at),
        )
        for each in clients
    ]
    return table(("NAME", "CLIENT ID", "STATE", "SLOTS", "BYTES", "ADDED"), rows)


def show(args: argparse.Namespace, settings: Settings) -> str:
    """One client: its slots, its use, its request paths."""
    with _connect(settings) as server:
        shown = server.show(args.name)
    if args.json:
        slots = [
            {
                "slot": each.slot,
                "expires_at": each.expires_at,
                "invoice_created_at": each.invoice_created_at,
                "stored_at": each.stored_at,
                "bytes": each.bytes,
                "family": each.family,
            }
            for each in shown.slots
        ]
        return _json(_client_json(shown.client) | {"paths": shown.paths.hex(), "slots": slots})
    now = int(time.time())
    rows = [
        (
            each.slot,
            f"{utc(each.expires_at)} ({span(each.expires_at - now)})",
            f"{utc(each.stored_at)} ({span(each.stored_at - now)})",
            each.bytes,
            each.family,
        )
        for each in shown.slots
    ]
    slots_text = (
        table(("SLOT", "ENDS", "STORED", "BYTES", "FAMILY"), rows) if rows else "no invoice is stored"
    )
    paths_text = _paths_text(shown.paths) if shown.paths else "no request paths: the client is revoked"
    return f"{_client_text(shown.client)}\n\n{slots_text}\n\n{paths_text}"


def revoke(args: argparse.Namespace, settings: Settings) -> str:
    """Serve nothing for a client any more."""
    with _connect(settings) as server:
        client = server.revoke(args.name).client
    if args.json:
        return _json(_client_json(client))
    return f"client {client.name} is revoked: its invoices are gone, and nothing is served for it"


def remove(args: argparse.Namespace, settings: Settings) -> str:
    """Forget a client."""
    with _connect(settings) as server:
        server.remove(args.name)
    if args.json:
        return _json({"removed": args.name})
    return f"client {args.name} is removed"


def status(args: argparse.Namespace, settings: Settings) -> str:
    """What the running server stands on, and what it did."""
    with _connect(settings) as server:
        answer = server.status()
    pairs: list[tuple[str, object]] = [
        (name, getattr(answer, name))
        for name in (
            "version",
            "node_id",
            "lnd_version",
            "mode",
            "network",
            "redis",
            "durability",
            "stream_up",
        )
    ]
    counters = dict(sorted(answer.counters.items()))
    if args.json:
        return _json(dict(pairs) | {"counters": counters})
    pairs[-1] = ("onion messages", "arriving" if answer.stream_up else "not arriving: LND is away")
    text = fields((name.replace("_", " "), value) for name, value in pairs)
    return f"{text}\n\n{table(('COUNTER', 'COUNT'), counters.items())}" if counters else text


def macaroon_permissions(args: argparse.Namespace, settings: Settings) -> str:
    """How to bake the macaroon, for each kind of LND."""
    kinds = {
        "native": ("0.21", "LND 0.21 and later", permissions.NATIVE),
        "custom": ("0.20", "LND 0.20 and earlier", permissions.CUSTOM),
    }
    wanted = vars(args)["lnd.version"]
    chosen = {kind: rest for kind, (version, *rest) in kinds.items() if wanted in (None, version)}
    if args.json:
        return _json({kind: permissions.permissions(uris) for kind, (_, uris) in chosen.items()})
    recipes = [
        f"# {title}\n{permissions.bake_command(uris, settings.network)}" for title, uris in chosen.values()
    ]
    return "\n\n".join([*recipes, f"# {permissions.WARNING}"])
