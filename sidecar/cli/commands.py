"""What each `sidecar` command does: ask the running server, and say what it answered.

A command returns the text that is printed. gRPC takes its time to load, and some commands do without:
it is imported where it is needed.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sidecar import options
from sidecar.adapters import permissions
from sidecar.cli.printing import as_json, fields, span, table, utc
from sidecar.config import Settings
from sidecar.core.errors import BadNodeId, ConfigError
from sidecar.core.model import Quota

if TYPE_CHECKING:
    from sidecar.adapters.admin_client import AdminClient
    from sidecar.rpc.sidecar.v1 import admin_pb2


LIMITS: Mapping[str, tuple[str, options.Option[Any]]] = {
    "slots": ("slots", options.CLIENT_SLOTS),
    "bytes": ("bytes", options.CLIENT_BYTES),
    "ttl": ("ttl_seconds", options.CLIENT_TTL),
    "rate": ("requests_per_second", options.CLIENT_RATE),
    "burst": ("requests_burst", options.CLIENT_BURST),
    "stores": ("stores_per_minute", options.STORES),
    "offer-paths": ("offer_paths_per_minute", options.OFFER_PATHS),
    "mail-letters": ("mailbox_letters", options.MAIL_LETTERS),
    "mail-bytes": ("mailbox_bytes", options.MAIL_BYTES),
}
"""What a client may have of its own: the flag without its dashes, the field of the API, and its setting."""


def _state(client: "admin_pb2.Client") -> str:
    return {1: "active", 2: "revoked", 3: "paused"}.get(client.state, "unknown")


def _limits_json(quota: "admin_pb2.Quota") -> dict[str, float]:
    return {field.name: value for field, value in quota.ListFields()}


def _client_json(client: "admin_pb2.Client") -> dict[str, Any]:
    limits = client.limits
    return {
        "client_id": client.client_id,
        "name": client.name,
        "state": _state(client),
        "generation": client.generation,
        "created_at": client.created_at,
        "quota": {"slots": limits.slots, "bytes": limits.bytes, "ttl_seconds": limits.ttl_seconds},
        "overrides": _limits_json(client.quota),
        "limits": _limits_json(limits),
        "refused": dict(sorted(client.refused.items())),
        "slots_used": client.slots_used,
        "bytes_used": client.bytes_used,
        "node_id": client.node_id or None,
        "bound_by": client.bound_by or None,
        "timestamps": client.timestamps or None,
        "mailbox": {"messages": client.mail_letters, "bytes": client.mail_bytes},
    }


def _client_text(client: "admin_pb2.Client") -> str:
    limits = client.limits
    flags = {field: flag for flag, (field, _) in LIMITS.items()}
    own = [flags[name] for name in _limits_json(client.quota)]
    refused = [f"{limit} {times}" for limit, times in sorted(client.refused.items())]
    waiting = f"{client.mail_letters} of 2x{limits.mailbox_letters} messages"
    waiting += f", {client.mail_bytes} of 2x{limits.mailbox_bytes} bytes"
    return fields(
        [
            ("name", client.name),
            ("client id", client.client_id),
            ("state", _state(client)),
            ("added", utc(client.created_at)),
            ("paths", f"generation {client.generation}"),
            ("slots", f"{client.slots_used} of {limits.slots} used"),
            ("bytes", f"{client.bytes_used} of {limits.bytes} used"),
            ("ttl", f"{options.format_duration(limits.ttl_seconds)} an invoice"),
            ("requests", f"{limits.requests_per_second:g} a second, {limits.requests_burst} at once"),
            ("stores", f"{limits.stores_per_minute} a minute"),
            ("offer paths", f"{limits.offer_paths_per_minute} a minute"),
            ("node", f"{client.node_id} ({client.bound_by})" if client.node_id else "not known yet"),
            ("mailbox", waiting),
            ("own limits", ", ".join(own) or "none: the server's settings hold"),
            ("refused", f"{', '.join(refused) or 'nothing'} since the start"),
            ("timestamps", client.timestamps or "as the server's setting says"),
        ]
    )


def _paths_text(paths: bytes) -> str:
    return f"request paths, for the wallet (ldk-node: set_paths_to_static_invoice_server):\n{paths.hex()}"


# --- commands -----------------------------------------------------------------------------------


def _quiet_grpc() -> None:
    """Before gRPC is loaded: what it would write on stderr, once a second, we say once in our own words."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def connect(settings: Settings) -> "AdminClient":
    """The running server of the data directory, or the one at admin.address."""
    _quiet_grpc()
    from sidecar.adapters.admin_client import AdminClient  # noqa: PLC0415 - after the line above
    from sidecar.adapters.admin_remote import RemoteAdminClient  # noqa: PLC0415 - likewise

    admin = settings.admin
    if admin.address and admin.tokenfile:
        return RemoteAdminClient(admin.address, admin.cafile, admin.tokenfile)
    return AdminClient(settings.datadir)


def serve(args: argparse.Namespace, _settings: Settings) -> str:
    """Run the server until it is told to stop."""
    _quiet_grpc()
    from sidecar.app import serve as run_server  # noqa: PLC0415 - only here is all of it needed

    asyncio.run(run_server(args.loaded, args.loader))
    return ""


def add(args: argparse.Namespace, settings: Settings) -> str:
    """Let a client in, and print its request paths."""
    node_id = _node_id(args)
    with connect(settings) as server:
        added = server.add(args.name, _quota(args), node_id, args.timestamps or "")
    return _with_paths(args, added.client, added.paths)


def _quota(args: argparse.Namespace) -> Quota:
    """The limits that the flags give. Raises ConfigError."""
    given = {flag: vars(args).get(flag.replace("-", "_")) for flag in LIMITS}
    values = {
        LIMITS[flag][0]: LIMITS[flag][1].read(text, f"the flag --{flag}")
        for flag, text in given.items()
        if text is not None
    }
    return Quota(ttl=values.pop("ttl_seconds", None), **values)


def update(args: argparse.Namespace, settings: Settings) -> str:
    """Change a client's own limits."""
    changes, reset = _quota(args), args.reset or []
    for each in reset:
        if each not in LIMITS:
            raise ConfigError(f"--reset: {each!r} is no limit of a client: give one of {', '.join(LIMITS)}")
    if not reset and not changes.own():
        raise ConfigError(f"nothing to change: give --reset, or one of --{', --'.join(LIMITS)}")
    with connect(settings) as server:
        client = server.update(args.name, changes, [LIMITS[each][0] for each in reset]).client
    beyond = client.slots_used > client.limits.slots or client.bytes_used > client.limits.bytes
    note = "\n\nMore than that is stored: what is there stays until it is replaced, or ends."
    return _said(args, client, _client_text(client) + (note if beyond else ""))


def _said(args: argparse.Namespace, client: "admin_pb2.Client", text: str) -> str:
    """What a command that changed a client prints: the client for scripts, a text for people."""
    return as_json(_client_json(client)) if args.json else text


def pause(args: argparse.Namespace, settings: Settings) -> str:
    """Serve nothing for a client for now."""
    with connect(settings) as server:
        client = server.pause(args.name).client
    text = f"client {client.name} is paused: nothing is served for it, and all that it has stays"
    return _said(args, client, text)


def resume(args: argparse.Namespace, settings: Settings) -> str:
    """Serve a paused client again."""
    with connect(settings) as server:
        client = server.resume(args.name).client
    return _said(args, client, f"client {client.name} is served")


def mailbox(args: argparse.Namespace, settings: Settings) -> str:
    """What waits for a client."""
    with connect(settings) as server:
        letters = server.mail(args.name).letters
    if args.json:
        shown = [
            {
                "number": each.number,
                "queue": each.queue,
                "bytes": each.bytes,
                "kept_at_ms": each.kept_at_ms,
                "sender": each.sender,
            }
            for each in letters
        ]
        return as_json({"messages": shown})
    if not letters:
        return f"nothing waits for client {args.name}"
    now = int(time.time())
    rows = [
        (
            each.number,
            each.queue,
            each.bytes,
            f"{utc(each.kept_at_ms // 1000)} ({span(each.kept_at_ms // 1000 - now)})",
            each.sender,
        )
        for each in letters
    ]
    return table(("NUMBER", "QUEUE", "BYTES", "KEPT", "FROM"), rows)


def rotate(args: argparse.Namespace, settings: Settings) -> str:
    """Make new request paths for a client, and print them."""
    with connect(settings) as server:
        rotated = server.rotate(args.name)
    return _with_paths(args, rotated.client, rotated.paths)


def _with_paths(args: argparse.Namespace, client: "admin_pb2.Client", paths: bytes) -> str:
    if args.json:
        return as_json(_client_json(client) | {"paths": paths.hex()})
    return f"{_client_text(client)}\n\n{_paths_text(paths)}"


def _node_id(args: argparse.Namespace) -> str:
    """What --node-id says; nothing when it was not given."""
    if args.node_id == "":
        # A script whose variable is not set means no "learn it anew".
        raise BadNodeId("--node-id is empty: give the 66 hex digits of the wallet's public key")
    return args.node_id or ""


def rebind(args: argparse.Namespace, settings: Settings) -> str:
    """Say which node a client is."""
    node_id = _node_id(args)
    with connect(settings) as server:
        client = server.rebind(args.name, node_id).client
    text = f"client {client.name}: its node is learnt anew, when its wallet leaves its next invoice"
    if client.node_id:
        text = f"client {client.name} is node {client.node_id}"
    return _said(args, client, text)


def timestamps(args: argparse.Namespace, settings: Settings) -> str:
    """Choose how a client's notifications are dated."""
    with connect(settings) as server:
        client = server.set_timestamps(args.name, args.form).client
    text = f"client {client.name}: timestamps {client.timestamps or 'as the server says'}"
    return _said(args, client, text)


def list_clients(args: argparse.Namespace, settings: Settings) -> str:
    """All clients with what they use."""
    with connect(settings) as server:
        clients = server.clients().clients
    if args.json:
        return as_json({"clients": [_client_json(client) for client in clients]})
    if not clients:
        return "no clients yet: `sidecar client add NAME` lets one in"
    rows = [
        (
            each.name,
            each.client_id,
            _state(each),
            f"{each.slots_used}/{each.limits.slots}",
            f"{each.bytes_used}/{each.limits.bytes}",
            utc(each.created_at),
        )
        for each in clients
    ]
    return table(("NAME", "CLIENT ID", "STATE", "SLOTS", "BYTES", "ADDED"), rows)


def show(args: argparse.Namespace, settings: Settings) -> str:
    """One client: its slots, its use, its request paths."""
    with connect(settings) as server:
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
        return as_json(_client_json(shown.client) | {"paths": shown.paths.hex(), "slots": slots})
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
    with connect(settings) as server:
        client = server.revoke(args.name).client
    text = f"client {client.name} is revoked: its invoices are gone, and nothing is served for it"
    return _said(args, client, text)


def remove(args: argparse.Namespace, settings: Settings) -> str:
    """Forget a client."""
    with connect(settings) as server:
        server.remove(args.name)
    if args.json:
        return as_json({"removed": args.name})
    return f"client {args.name} is removed"


def macaroon_permissions(args: argparse.Namespace, settings: Settings) -> str:
    """How to bake the macaroon, for each kind of LND."""
    kinds = {
        "native": ("0.21", "LND 0.21 and later", permissions.NATIVE),
        "custom": ("0.20", "LND 0.20 and earlier", permissions.CUSTOM),
    }
    wanted = vars(args)["lnd.version"]
    chosen = {kind: rest for kind, (version, *rest) in kinds.items() if wanted in (None, version)}
    if args.json:
        return as_json({kind: permissions.permissions(uris) for kind, (_, uris) in chosen.items()})
    recipes = [
        f"# {title}\n{permissions.bake_command(uris, settings.network)}" for title, uris in chosen.values()
    ]
    return "\n\n".join([*recipes, f"# {permissions.WARNING}"])
