"""The admin service: what `sidecar client …` and `sidecar status` ask of a running server."""

# ruff: noqa: N802, ARG002 - gRPC names the methods, and says what they are given

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.adapters.admin_records import (
    check_name,
    client_message,
    finding_message,
    letter_message,
    read_quota,
    read_reset,
    seconds_message,
    slot_message,
)
from sidecar.adapters.audit import Context
from sidecar.core import keys
from sidecar.core.diagnosis import Finding
from sidecar.core.errors import (
    BadNodeId,
    BadPoint,
    ClientRevoked,
    ConfigError,
    NameTaken,
    NoSuchClient,
)
from sidecar.core.mailbox import LetterNote, MailUse
from sidecar.core.model import (
    CLIENT_ID_SIZE,
    BoundBy,
    Client,
    ClientState,
    Limits,
    Quota,
    Role,
    StoredInvoice,
    TimestampForm,
    Usage,
)
from sidecar.ports import Store
from sidecar.problems import Problem
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from sidecar.timings import Seconds


class PathIssuer(Protocol):
    """Makes the paths over which a client asks for offer paths."""

    async def request_paths(self, client: Client) -> bytes:
        """u16 count ‖ blinded paths, for the client's present generation. Raises LndUnavailable."""


class Binder(Protocol):
    """Tells the running server what has changed."""

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Say which node a client is. Raises NodeTaken, NoSuchClient, StoreUnavailable."""

    def add(self, client: Client) -> None:
        """A client that was made."""

    def changed(self, client: Client) -> None:
        """A client with other limits, or paused, or resumed."""

    def forget(self, client_id: bytes) -> None:
        """A client is not served any more."""


class Allowed(Protocol):
    """Knows what each client may use."""

    def limits_under(self, quota: Quota) -> Limits:
        """What holds for a client with this quota."""

    def refusals(self, client_id: bytes) -> Mapping[str, int]:
        """What was refused to a client since the start, by limit."""


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """What `sidecar status` shows; `counters` count since the start, by reason, `seconds` too."""

    version: str
    node_id: str
    lnd_version: str
    mode: str
    network: str
    redis: str
    durability: str
    stream_up: bool
    counters: Mapping[str, int] = field(default_factory=dict)
    started_at_ms: int = 0
    clients: int = 0
    slots_used: int = 0
    bytes_used: int = 0
    mail_letters: int = 0
    mail_bytes: int = 0
    queued: int = 0
    seconds: Sequence[Seconds] = ()
    problems: Sequence[Problem] = ()
    """Newest first."""
    leads: bool = True
    leader: str = ""
    """Which server leads, by its name; empty while it is not known."""


# --- rules --------------------------------------------------------------------------------------


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


def _usage(invoices: Sequence[StoredInvoice]) -> Usage:
    return Usage(slots=len(invoices), bytes=sum(invoice.size for invoice in invoices))


_NOTHING = Usage(slots=0, bytes=0)


DryRun = Callable[[admin_pb2.DryRunRequest], Awaitable[admin_pb2.DryRunResponse]]
"""What a payer would get, as adapters.admin_backup.DryRunner tells."""

SelfLook = Callable[[str], Awaitable[Sequence[Finding]]]
"""What the server finds when it looks at itself; it is given the request's egress."""


class AdminService(admin_pb2_grpc.AdminServicer):
    """Clients and status over a store, and what else the running server knows.

    `mail_use` tells how much waits for a client, `letters` what; `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        issuer: PathIssuer,
        binder: Binder,
        status: Callable[[], Awaitable[StatusSnapshot]],
        allowed: Allowed,
        *,
        letters: Callable[[bytes], Awaitable[Sequence[LetterNote]]],
        mail_use: Callable[[bytes], MailUse | None],
        dry_run: DryRun,
        look: SelfLook,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._binder = binder
        self._status = status
        self._allowed = allowed
        self._letters = letters
        self._mail_use = mail_use
        self._dry_run = dry_run
        self._look = look
        self._now = now

    async def AddClient(
        self, request: admin_pb2.AddClientRequest, context: Context
    ) -> admin_pb2.AddClientResponse:
        """Let a client in: ALREADY_EXISTS for a taken name, INVALID_ARGUMENT for a bad name or quota."""
        check_name(request.name)
        node_id = read_node_id(request.node_id) if request.node_id else None
        client = Client(
            client_id=secrets.token_bytes(CLIENT_ID_SIZE),
            name=request.name,
            state=ClientState.ACTIVE,
            generation=1,
            quota=read_quota(request.quota),
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
        return admin_pb2.AddClientResponse(client=self._message(client, _NOTHING), paths=paths)

    async def ListClients(
        self, request: admin_pb2.ListClientsRequest, context: Context
    ) -> admin_pb2.ListClientsResponse:
        """All clients by name."""
        clients = await self._store.list_clients()
        return admin_pb2.ListClientsResponse(
            clients=[self._message(client, usage) for client, usage in clients]
        )

    async def ShowClient(
        self, request: admin_pb2.ShowClientRequest, context: Context
    ) -> admin_pb2.ShowClientResponse:
        """One client with its slots and request paths; NOT_FOUND when there is none."""
        client = await self._find(request.name)
        invoices = await self._store.invoices(client.client_id)
        revoked = client.state is ClientState.REVOKED
        return admin_pb2.ShowClientResponse(
            client=self._message(client, _usage(invoices)),
            slots=[slot_message(invoice) for invoice in invoices],
            # A revoked client's paths are met with silence: showing them would only mislead.
            paths=b"" if revoked else await self._issuer.request_paths(client),
        )

    async def RotateClient(
        self, request: admin_pb2.RotateClientRequest, context: Context
    ) -> admin_pb2.RotateClientResponse:
        """New request paths for a client; FAILED_PRECONDITION when it is revoked."""
        found = await self._find_served(request.name)
        client = await self._store.rotate_client(found.client_id)
        return admin_pb2.RotateClientResponse(
            client=await self._used(client), paths=await self._issuer.request_paths(client)
        )

    async def UpdateClient(
        self, request: admin_pb2.UpdateClientRequest, context: Context
    ) -> admin_pb2.UpdateClientResponse:
        """Change a client's own limits; what it has beyond them stays. FAILED_PRECONDITION when revoked."""
        changes = read_quota(request.quota)
        reset = read_reset(request.reset, changes)
        found = await self._find_served(request.name)
        client = await self._store.update_quota(found.client_id, changes, reset)
        self._binder.changed(client)
        return admin_pb2.UpdateClientResponse(client=await self._used(client))

    async def PauseClient(
        self, request: admin_pb2.PauseClientRequest, context: Context
    ) -> admin_pb2.PauseClientResponse:
        """Serve a client no more for now, and keep all that it has; FAILED_PRECONDITION when revoked."""
        return admin_pb2.PauseClientResponse(client=await self._pause(request.name, paused=True))

    async def ResumeClient(
        self, request: admin_pb2.ResumeClientRequest, context: Context
    ) -> admin_pb2.ResumeClientResponse:
        """Serve a paused client again; FAILED_PRECONDITION when it is revoked."""
        return admin_pb2.ResumeClientResponse(client=await self._pause(request.name, paused=False))

    async def _pause(self, name: str, *, paused: bool) -> admin_pb2.Client:
        found = await self._find_served(name)
        client = await self._store.pause_client(found.client_id, paused=paused)
        self._binder.changed(client)
        return await self._used(client)

    async def ListMail(
        self, request: admin_pb2.ListMailRequest, context: Context
    ) -> admin_pb2.ListMailResponse:
        """What waits for a client, oldest first, without what it says."""
        client = await self._find(request.name)
        letters = await self._letters(client.client_id)
        return admin_pb2.ListMailResponse(letters=[letter_message(each) for each in letters])

    async def RevokeClient(
        self, request: admin_pb2.RevokeClientRequest, context: Context
    ) -> admin_pb2.RevokeClientResponse:
        """Serve a client no more; its record and name stay."""
        client = await self._store.revoke_client((await self._find(request.name)).client_id)
        self._binder.forget(client.client_id)
        return admin_pb2.RevokeClientResponse(client=self._message(client, _NOTHING))

    async def RemoveClient(
        self, request: admin_pb2.RemoveClientRequest, context: Context
    ) -> admin_pb2.RemoveClientResponse:
        """Forget a client."""
        client = await self._find(request.name)
        await self._store.remove_client(client.client_id)
        self._binder.forget(client.client_id)
        return admin_pb2.RemoveClientResponse()

    async def RebindClient(
        self, request: admin_pb2.RebindClientRequest, context: Context
    ) -> admin_pb2.RebindClientResponse:
        """Say which node a client is, or let it be learnt anew; FAILED_PRECONDITION when it is revoked."""
        found = await self._find(request.name)
        if found.state is ClientState.REVOKED:
            raise ClientRevoked(f"client {found.name} is revoked: nothing is kept for it")
        node_id = read_node_id(request.node_id) if request.node_id else None
        client = await self._binder.bind(found.client_id, node_id, BoundBy.OPERATOR)
        return admin_pb2.RebindClientResponse(client=await self._used(client))

    async def SetTimestamps(
        self, request: admin_pb2.SetTimestampsRequest, context: Context
    ) -> admin_pb2.SetTimestampsResponse:
        """Choose how a client's notifications are dated."""
        form = read_timestamps(request.timestamps)
        client = await self._store.set_timestamps((await self._find(request.name)).client_id, form)
        return admin_pb2.SetTimestampsResponse(client=await self._used(client))

    async def _used(self, client: Client) -> admin_pb2.Client:
        """A client with what it uses."""
        return self._message(client, _usage(await self._store.invoices(client.client_id)))

    def _message(self, client: Client, usage: Usage) -> admin_pb2.Client:
        client_id, allowed = client.client_id, self._allowed
        mail, limits = self._mail_use(client_id), allowed.limits_under(client.quota)
        return client_message(client, usage, mail, limits, allowed.refusals(client_id))

    async def DryRun(self, request: admin_pb2.DryRunRequest, context: Context) -> admin_pb2.DryRunResponse:
        """What a payer of one of the client's offers would get now; NOT_FOUND for an empty slot."""
        return await self._dry_run(request)

    async def Diagnose(
        self, request: admin_pb2.DiagnoseRequest, context: Context
    ) -> admin_pb2.DiagnoseResponse:
        """What a doctor finds here; INVALID_ARGUMENT for an egress that is no host."""
        findings = await self._look(request.egress)
        return admin_pb2.DiagnoseResponse(findings=[finding_message(each) for each in findings])

    async def GetStatus(
        self, request: admin_pb2.GetStatusRequest, context: Context
    ) -> admin_pb2.GetStatusResponse:
        """What the server runs on, and what it did."""
        snapshot = await self._status()
        return admin_pb2.GetStatusResponse(
            version=snapshot.version,
            node_id=snapshot.node_id,
            lnd_version=snapshot.lnd_version,
            mode=snapshot.mode,
            network=snapshot.network,
            redis=snapshot.redis,
            durability=snapshot.durability,
            stream_up=snapshot.stream_up,
            role=(Role.LEADS if snapshot.leads else Role.STANDS_BY).value,
            leader=snapshot.leader,
            counters=snapshot.counters,
            started_at_ms=snapshot.started_at_ms,
            clients=snapshot.clients,
            slots_used=snapshot.slots_used,
            bytes_used=snapshot.bytes_used,
            mail_letters=snapshot.mail_letters,
            mail_bytes=snapshot.mail_bytes,
            queued=snapshot.queued,
            seconds=[seconds_message(each) for each in snapshot.seconds],
            problems=[
                admin_pb2.Problem(at_ms=each.at_ms, reason=each.reason, text=each.text)
                for each in snapshot.problems
            ],
        )

    async def _find(self, name: str) -> Client:
        return await find_client(self._store, name)

    async def _find_served(self, name: str) -> Client:
        """A client that is not revoked. Raises ClientRevoked."""
        client = await self._find(name)
        if client.state is ClientState.REVOKED:
            raise ClientRevoked(
                f"client {client.name} is revoked: remove it with `sidecar client remove {client.name}` "
                "and add it again"
            )
        return client


async def find_client(store: Store, name: str) -> Client:
    """The client of that name or id. Raises NoSuchClient, StoreUnavailable."""
    try:
        return await store.find_client(name)
    except NoSuchClient:
        raise NoSuchClient(f"there is no client {name!r}: `sidecar client list` shows all") from None
