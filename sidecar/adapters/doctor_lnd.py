"""What `sidecar doctor` asks of LND: nothing that changes anything, and no more than it waits for."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters import lnd_files
from sidecar.adapters.addresses import is_public
from sidecar.adapters.lnd import Lnd
from sidecar.adapters.lnd_calls import Call, Fault
from sidecar.core.diagnosis_lnd import (
    Conf,
    Line,
    MacaroonFacts,
    NodeFacts,
    PeerFacts,
    ReachFacts,
    Wallet,
    read_conf,
)
from sidecar.core.errors import LndSetupError, ModeChanged, SidecarError
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import state_pb2 as state

CHECK_MACAROON = Call(
    "/lnrpc.Lightning/CheckMacaroonPermissions", ln.CheckMacPermRequest, ln.CheckMacPermResponse
)
"""Not in the sidecar's recipe: a macaroon that allows it allows more than that."""

_MAX_CONF = 1 << 20

_PROBES = ((calls.GET_INFO, ln.GetInfoRequest()), *calls.PROBES)
# Each subscriber of LND's gets its own copy: a stream that is opened and ended takes nothing from another.
_STREAMS: tuple[tuple[Call[Any, Any], Any], ...] = (
    (calls.PEER_EVENTS, ln.PeerEventSubscription()),
    (calls.CUSTOM_MESSAGES, ln.SubscribeCustomMessagesRequest()),
)
_NATIVE_PROBE = (calls.SEND_ONION, ln.SendOnionMessageRequest())
_NATIVE_STREAM = (calls.ONION_MESSAGES, ln.SubscribeOnionMessagesRequest())

_WALLETS = {
    state.NON_EXISTING: Wallet.NONE,
    state.LOCKED: Wallet.LOCKED,
    state.SERVER_ACTIVE: Wallet.ACTIVE,
}


@dataclass(frozen=True, slots=True)
class LndFacts:
    """All that was seen of one LND; what could not be asked is None."""

    reach: ReachFacts
    macaroon: MacaroonFacts | None = None
    node: NodeFacts | None = None
    peers: PeerFacts | None = None
    conf: Conf | None = None


class _Answered(SidecarError):
    """LND answered that this very request can't be done: the call is there, and allowed."""


async def examine(host: str, tls_path: Path, macaroon_path: Path, deadline: float) -> LndFacts:
    """Look at an LND, within about twice `deadline` seconds.

    Raises SidecarError when it goes away meanwhile, TimeoutError.
    """
    conf = _conf_beside(tls_path)
    try:
        lnd = Lnd(host, tls_path, macaroon_path)
    except LndSetupError as error:
        return LndFacts(ReachFacts(host, Line.GOOD, unreadable=str(error)), conf=conf)
    try:
        reached = await _reach(lnd, host, tls_path, deadline)
        if reached.wallet is not Wallet.ACTIVE:
            return LndFacts(reached, conf=conf)
        async with asyncio.timeout(deadline):
            refused = await _refusals(lnd)
            node = None if calls.GET_INFO.uri in refused else await _node(lnd, native=_is_native(refused))
            asked = not {calls.LIST_PEERS.uri, calls.LIST_CHANNELS.uri} & refused.keys()
            return LndFacts(
                reach=reached,
                macaroon=await _macaroon(lnd, macaroon_path, refused),
                node=node,
                peers=await _peers(lnd) if asked else None,
                conf=conf,
            )
    finally:
        await lnd.aclose()


# --- the way there --------------------------------------------------------------------------------


async def _reach(lnd: Lnd, host: str, tls_path: Path, deadline: float) -> ReachFacts:
    answer, (line, ends) = await asyncio.gather(_state(lnd, deadline), _line(host, tls_path, deadline))
    if isinstance(answer, Wallet):
        # gRPC's word is what counts: Python may judge a certificate differently.
        return ReachFacts(host, Line.GOOD, answer, ends)
    if line is Line.GOOD and _fault(answer) is Fault.CERTIFICATE:
        line = Line.OTHER_CERTIFICATE
    return ReachFacts(host, line, certificate_ends=ends, why=_code(answer))


async def _state(lnd: Lnd, deadline: float) -> Wallet | SidecarError:
    try:
        answer = await lnd.call(calls.GET_STATE, state.GetStateRequest(), deadline=deadline)
    except SidecarError as error:
        return error
    return _WALLETS.get(answer.state, Wallet.STARTING)


_VERIFY = {
    10: Line.EXPIRED,  # X509_V_ERR_CERT_HAS_EXPIRED
    62: Line.OTHER_HOST,  # X509_V_ERR_HOSTNAME_MISMATCH
    64: Line.OTHER_HOST,  # X509_V_ERR_IP_ADDRESS_MISMATCH
}


async def _line(host: str, tls_path: Path, deadline: float) -> tuple[Line, int]:
    """Why a TLS connection fails, which gRPC does not tell; and when the certificate ends, or 0."""
    name, _, port = host.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        certificate = lnd_files.certificate(tls_path).decode("ascii", "backslashreplace")
        context.load_verify_locations(cadata=certificate)
        async with asyncio.timeout(deadline):
            _, writer = await asyncio.open_connection(
                name.strip("[]"), int(port), ssl=context, ssl_handshake_timeout=deadline
            )
    except ssl.SSLCertVerificationError as error:
        return _VERIFY.get(error.verify_code, Line.OTHER_CERTIFICATE), 0
    except ssl.SSLError:
        return Line.NO_TLS, 0
    except TimeoutError:
        return Line.SILENT, 0
    except ConnectionRefusedError:
        return Line.REFUSED, 0
    except ConnectionError:
        return Line.NO_TLS, 0
    except OSError:
        return Line.SILENT, 0
    shown = writer.get_extra_info("peercert") or {}
    writer.transport.abort()
    return Line.GOOD, int(ssl.cert_time_to_seconds(shown["notAfter"])) if "notAfter" in shown else 0


def _conf_beside(tls_path: Path) -> Conf | None:
    """The protocol options of the lnd.conf in LND's directory, if that is on this machine."""
    try:
        with (tls_path.parent / "lnd.conf").open(encoding="utf-8", errors="replace") as file:
            return read_conf(file.read(_MAX_CONF))
    except OSError:
        return None


def _cause(error: BaseException) -> grpc.aio.AioRpcError | None:
    return error.__cause__ if isinstance(error.__cause__, grpc.aio.AioRpcError) else None


def _fault(error: BaseException) -> Fault | None:
    cause = _cause(error)
    return None if cause is None else calls.fault_of(cause.code(), cause.details() or "")


def _code(error: BaseException) -> str:
    cause = _cause(error)
    return "" if cause is None else cause.code().name


# --- what the macaroon allows ---------------------------------------------------------------------


async def _refusals(lnd: Lnd) -> dict[str, Fault]:
    """Each call that LND would not do for the macaroon, by its URI, and why. Raises SidecarError."""
    probes = (*_PROBES, _NATIVE_PROBE)
    streams = (*_STREAMS, _NATIVE_STREAM)
    found = await asyncio.gather(
        *(_refusal(_once(lnd, call, request)) for call, request in probes),
        *(_refusal(_opened(lnd, call, request)) for call, request in streams),
    )
    uris = [call.uri for call, _ in (*probes, *streams)]
    return {uri: fault for uri, fault in zip(uris, found, strict=True) if fault is not None}


async def _once(lnd: Lnd, call: Call[Any, Any], request: Any) -> None:
    with contextlib.suppress(_Answered):
        await lnd.call(call, request, failed=_Answered)


async def _opened(lnd: Lnd, call: Call[Any, Any], request: Any) -> None:
    async with lnd.subscribe(call, request):
        pass


async def _refusal(trial: Any) -> Fault | None:
    try:
        await trial
    except SidecarError as error:
        if (fault := _fault(error)) in (Fault.PERMISSION, Fault.MACAROON, Fault.MISSING):
            return fault
        raise
    return None


def _is_native(refused: dict[str, Fault]) -> bool:
    return refused.get(calls.SEND_ONION.uri) is not Fault.MISSING


async def _macaroon(lnd: Lnd, path: Path, refused: dict[str, Fault]) -> MacaroonFacts:
    tried = len(_PROBES) + len(_STREAMS) + (2 if _is_native(refused) else 0)
    return MacaroonFacts(
        path=str(path),
        rejected=Fault.MACAROON in refused.values(),
        lacking=sorted(uri for uri, fault in refused.items() if fault is Fault.PERMISSION),
        tried=tried,
        spends=await _spends(lnd, path),
        no_signer=refused.get(calls.DERIVE_SHARED_KEY.uri) is Fault.MISSING,
    )


async def _spends(lnd: Lnd, path: Path) -> bool:
    """Whether the macaroon allows payments, as admin.macaroon does; False where it can't be told."""
    try:
        return (await lnd.call(CHECK_MACAROON, _may_pay(path), failed=_Answered)).valid
    except (_Answered, ModeChanged):
        return False
    except SidecarError as error:
        if _fault(error) in (Fault.PERMISSION, Fault.MACAROON):
            return False
        raise


def _may_pay(path: Path) -> ln.CheckMacPermRequest:
    payments = ln.MacaroonPermission(entity="offchain", action="write")
    return ln.CheckMacPermRequest(macaroon=lnd_files.macaroon(path), permissions=[payments])


# --- what it is -----------------------------------------------------------------------------------


async def _node(lnd: Lnd, *, native: bool) -> NodeFacts:
    info = await lnd.call(calls.GET_INFO, ln.GetInfoRequest())
    hosts = [uri.rpartition("@")[2].rpartition(":")[0].strip("[]").lower() for uri in info.uris]
    return NodeFacts(
        version=info.version.partition(" ")[0],
        native=native,
        network=info.chains[0].network if info.chains else "",
        node_id=info.identity_pubkey,
        synced_to_chain=info.synced_to_chain,
        synced_to_graph=info.synced_to_graph,
        best_block=info.best_header_timestamp,
        features=frozenset(info.features),
        addresses=len(hosts),
        public=sum(map(_reachable, hosts)),
        hidden=sum(host.endswith(".onion") for host in hosts),
    )


def _reachable(host: str) -> bool:
    try:
        return is_public(ipaddress.ip_address(host))
    except ValueError:
        return not host.endswith((".onion", ".local", ".internal", "localhost"))


async def _peers(lnd: Lnd) -> PeerFacts:
    channels = (await lnd.call(calls.LIST_CHANNELS, ln.ListChannelsRequest())).channels
    connected = (await lnd.call(calls.LIST_PEERS, ln.ListPeersRequest())).peers
    return PeerFacts(
        channels=len(channels),
        active=sum(channel.active for channel in channels),
        peers=len(connected),
        speakers=_speakers(connected, {channel.remote_pubkey for channel in channels}),
    )


def _speakers(connected: Iterable[ln.Peer], with_channel: set[str]) -> int:
    return sum(
        peer.pub_key in with_channel and calls.speaks_onion_messages(peer.features) for peer in connected
    )
