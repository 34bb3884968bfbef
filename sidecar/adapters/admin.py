"""The admin service: what `sidecar client …` and `sidecar status` ask of a running server."""

# ruff: noqa: N802, ARG002 - gRPC names the methods, and says what they are given

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.adapters.admin_server import Context, answered
from sidecar.core import keys
from sidecar.core.errors import (
    BadName,
    BadNodeId,
    BadPoint,
    ClientRevoked,
    ConfigError,
    NameTaken,
    NoSuchClient,
)
from sidecar.core.mailbox import MailUse
from sidecar.core.model import (
    CLIENT_ID_HEX,
    CLIENT_ID_SIZE,
    MAX_BYTES,
    MAX_SLOTS,
    MAX_TTL,
    MIN_TTL,
    BoundBy,
    Client,
    ClientState,
    Quota,
    StoredInvoice,
    TimestampForm,
    Usage,
)
from sidecar.ports import Store
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class PathIssuer(Protocol):
    """Makes the paths over which a client asks for offer paths."""

    async def request_paths(self, client: Client) -> bytes:
        """u16 count ‖ blinded paths, for the client's present generation. Raises LndUnavailable."""


class Binder(Protocol):
    """Knows which node is which client."""

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Say which node a client is. Raises NodeTaken, NoSuchClient, StoreUnavailable."""

    def add(self, client: Client) -> None:
        """A client that was made with a node of its own."""

    def forget(self, client_id: bytes) -> None:
        """A client is not served any more."""


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """What `sidecar status` shows; `counters` count since the start, by reason."""

    version: str
    node_id: str
    lnd_version: str
    mode: str
    network: str
    redis: str
    durability: str
    stream_up: bool
    counters: Mapping[str, int] = field(default_factory=dict)


# --- rules --------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Refuse a client name that is not 1 to 64 of a-z A-Z 0-9 . _ -, or could be an id. Raises BadName."""
    if not _NAME.fullmatch(name):
        raise BadName(f"{name!r} is no name: give 1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`")
    if CLIENT_ID_HEX.fullmatch(name):
        # Else `client remove` could mean either of two clients.
        raise BadName(f"{name!r} is no name: {2 * CLIENT_ID_SIZE} hex digits are a client id")


def check_quota(quota: Quota) -> None:
    """Refuse a quota that no client should have; its ttl is in seconds. Raises ConfigError."""
    for field_name, value, low, high in (
        ("slots", quota.slots, 1, MAX_SLOTS),
        ("bytes", quota.bytes, 1, MAX_BYTES),
        ("ttl", quota.ttl, MIN_TTL, MAX_TTL),
    ):
        if not low <= value <= high:
            unit = " seconds" if field_name == "ttl" else ""
            raise ConfigError(f"{field_name}: {value} is not allowed: give {low} to {high}{unit}")


def read_node_id(text: str) -> bytes:
    """A node id as the operator types it: 66 hex digits. Raises BadNodeId."""
    try:
        return keys.check_point(bytes.fromhex(text))
    except (ValueError, BadPoint):
        raise BadNodeId(
            f"{text!r} is no node id: give the 66 hex digits of the wallet's public key"
        ) from None


def read_timestamps(text: str) -> TimestampForm | None:
    """How notifications are dated; None (empty or `default`): as the server does. Raises ConfigError."""
    try:
        return None if text in ("", "default") else TimestampForm(text)
    except ValueError:
        raise ConfigError(f"timestamps: {text!r} is not allowed: give offset, z or default") from None


# --- records to messages ------------------------------------------------------------------------

_STATES = {
    ClientState.ACTIVE: admin_pb2.CLIENT_STATE_ACTIVE,
    ClientState.REVOKED: admin_pb2.CLIENT_STATE_REVOKED,
}


def _client(client: Client, usage: Usage, mail: MailUse | None = None) -> admin_pb2.Client:
    quota = client.quota
    return admin_pb2.Client(
        client_id=client.client_id.hex(),
        name=client.name,
        state=_STATES[client.state],
        generation=client.generation,
        created_at=client.created_at,
        quota=admin_pb2.Quota(slots=quota.slots, bytes=quota.bytes, ttl_seconds=quota.ttl),
        slots_used=usage.slots,
        bytes_used=usage.bytes,
        node_id=client.node_id.hex() if client.node_id else "",
        bound_by=client.bound_by.value if client.bound_by else "",
        timestamps=client.timestamps.value if client.timestamps else "",
        mail_letters=mail.letters if mail else 0,
        mail_bytes=mail.bytes if mail else 0,
    )


def _slot(invoice: StoredInvoice) -> admin_pb2.Slot:
    return admin_pb2.Slot(
        slot=invoice.slot,
        expires_at=invoice.expires_at,
        invoice_created_at=invoice.created_at,
        stored_at=invoice.stored_at,
        bytes=invoice.size,
        family=invoice.family.value,
    )


def _usage(invoices: Sequence[StoredInvoice]) -> Usage:
    return Usage(slots=len(invoices), bytes=sum(invoice.size for invoice in invoices))


class AdminService(admin_pb2_grpc.AdminServicer):
    """Clients and status over a store, and what else the running server knows.

    `defaults` fills the quota fields that a request leaves at 0; `mail_use` tells what waits for a
    client; `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        issuer: PathIssuer,
        binder: Binder,
        status: Callable[[], StatusSnapshot],
        defaults: Quota,
        *,
        mail_use: Callable[[bytes], MailUse | None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._binder = binder
        self._status = status
        self._defaults = defaults
        self._mail_use = mail_use
        self._now = now

    @answered
    async def AddClient(
        self, request: admin_pb2.AddClientRequest, context: Context
    ) -> admin_pb2.AddClientResponse:
        """Let a client in: ALREADY_EXISTS for a taken name, INVALID_ARGUMENT for a bad name or quota."""
        check_name(request.name)
        quota = Quota(
            slots=request.quota.slots or self._defaults.slots,
            bytes=request.quota.bytes or self._defaults.bytes,
            ttl=request.quota.ttl_seconds or self._defaults.ttl,
        )
        check_quota(quota)
        node_id = read_node_id(request.node_id) if request.node_id else None
        client = Client(
            client_id=secrets.token_bytes(CLIENT_ID_SIZE),
            name=request.name,
            state=ClientState.ACTIVE,
            generation=1,
            quota=quota,
            created_at=int(self._now()),
            node_id=node_id,
            bound_by=None if node_id is None else BoundBy.OPERATOR,
            timestamps=read_timestamps(request.timestamps),
        )
        # Paths first: a client whose paths nobody could be shown would only block its name.
        paths = await self._issuer.request_paths(client)
        try:
            await self._store.add_client(client)
        except NameTaken:
            raise NameTaken(
                f"there is a client {client.name} already: choose another name, or see it with "
                f"`sidecar client show {client.name}`"
            ) from None
        self._binder.add(client)
        log.info("client %s added: %s", client.name, client.client_id.hex())
        return admin_pb2.AddClientResponse(client=_client(client, Usage(slots=0, bytes=0)), paths=paths)

    @answered
    async def ListClients(
        self, request: admin_pb2.ListClientsRequest, context: Context
    ) -> admin_pb2.ListClientsResponse:
        """All clients by name."""
        clients = await self._store.list_clients()
        return admin_pb2.ListClientsResponse(
            clients=[_client(client, usage, self._mail_use(client.client_id)) for client, usage in clients]
        )

    @answered
    async def ShowClient(
        self, request: admin_pb2.ShowClientRequest, context: Context
    ) -> admin_pb2.ShowClientResponse:
        """One client with its slots and request paths; NOT_FOUND when there is none."""
        client = await self._find(request.name)
        invoices = await self._store.invoices(client.client_id)
        active = client.state is ClientState.ACTIVE
        return admin_pb2.ShowClientResponse(
            client=_client(client, _usage(invoices), self._mail_use(client.client_id)),
            slots=[_slot(invoice) for invoice in invoices],
            # A revoked client's paths are met with silence: showing them would only mislead.
            paths=await self._issuer.request_paths(client) if active else b"",
        )

    @answered
    async def RotateClient(
        self, request: admin_pb2.RotateClientRequest, context: Context
    ) -> admin_pb2.RotateClientResponse:
        """New request paths for a client; FAILED_PRECONDITION when it is revoked."""
        found = await self._find(request.name)
        if found.state is ClientState.REVOKED:
            raise ClientRevoked(
                f"client {found.name} is revoked: remove it with `sidecar client remove {found.name}` "
                "and add it again"
            )
        client = await self._store.rotate_client(found.client_id)
        log.info("client %s rotated: generation %d", client.name, client.generation)
        return admin_pb2.RotateClientResponse(
            client=await self._used(client), paths=await self._issuer.request_paths(client)
        )

    @answered
    async def RevokeClient(
        self, request: admin_pb2.RevokeClientRequest, context: Context
    ) -> admin_pb2.RevokeClientResponse:
        """Serve a client no more; its record and name stay."""
        client = await self._store.revoke_client((await self._find(request.name)).client_id)
        self._binder.forget(client.client_id)
        log.info("client %s revoked", client.name)
        return admin_pb2.RevokeClientResponse(client=_client(client, Usage(slots=0, bytes=0)))

    @answered
    async def RemoveClient(
        self, request: admin_pb2.RemoveClientRequest, context: Context
    ) -> admin_pb2.RemoveClientResponse:
        """Forget a client."""
        client = await self._find(request.name)
        await self._store.remove_client(client.client_id)
        self._binder.forget(client.client_id)
        log.info("client %s removed", client.name)
        return admin_pb2.RemoveClientResponse()

    @answered
    async def RebindClient(
        self, request: admin_pb2.RebindClientRequest, context: Context
    ) -> admin_pb2.RebindClientResponse:
        """Say which node a client is, or let it be learnt anew; FAILED_PRECONDITION when it is revoked."""
        found = await self._find(request.name)
        if found.state is ClientState.REVOKED:
            raise ClientRevoked(f"client {found.name} is revoked: nothing is kept for it")
        node_id = read_node_id(request.node_id) if request.node_id else None
        client = await self._binder.bind(found.client_id, node_id, BoundBy.OPERATOR)
        if node_id is None:
            log.info("client %s: its node is learnt anew", client.name)
        return admin_pb2.RebindClientResponse(client=await self._used(client))

    @answered
    async def SetTimestamps(
        self, request: admin_pb2.SetTimestampsRequest, context: Context
    ) -> admin_pb2.SetTimestampsResponse:
        """Choose how a client's notifications are dated."""
        form = read_timestamps(request.timestamps)
        client = await self._store.set_timestamps((await self._find(request.name)).client_id, form)
        return admin_pb2.SetTimestampsResponse(client=await self._used(client))

    async def _used(self, client: Client) -> admin_pb2.Client:
        """A client with what it uses."""
        usage = _usage(await self._store.invoices(client.client_id))
        return _client(client, usage, self._mail_use(client.client_id))

    @answered
    async def GetStatus(
        self, request: admin_pb2.GetStatusRequest, context: Context
    ) -> admin_pb2.GetStatusResponse:
        """What the server runs on, and what it did."""
        snapshot = self._status()
        return admin_pb2.GetStatusResponse(
            version=snapshot.version,
            node_id=snapshot.node_id,
            lnd_version=snapshot.lnd_version,
            mode=snapshot.mode,
            network=snapshot.network,
            redis=snapshot.redis,
            durability=snapshot.durability,
            stream_up=snapshot.stream_up,
            counters=snapshot.counters,
        )

    async def _find(self, name: str) -> Client:
        return await find_client(self._store, name)


async def find_client(store: Store, name: str) -> Client:
    """The client of that name or id. Raises NoSuchClient, StoreUnavailable."""
    try:
        return await store.find_client(name)
    except NoSuchClient:
        raise NoSuchClient(f"there is no client {name!r}: `sidecar client list` shows all") from None
