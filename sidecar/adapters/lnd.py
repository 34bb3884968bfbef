"""LND over gRPC: waiting for it, calling it, streaming from it, and its key as a signer."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import grpc
import grpc.aio
import structlog
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.lnd_calls import A, Call, Fault, Q
from sidecar.adapters.lnd_channel import Connector, Line
from sidecar.core import keys
from sidecar.core.diagnosis_lnd import CUSTOM_LINES
from sidecar.core.errors import LndDenied, LndSetupError, LndUnavailable, ModeChanged, SidecarError
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import signer_pb2 as signer
from sidecar.rpc import state_pb2 as state
from sidecar.timings import Timed, Timings

log = structlog.get_logger(__name__)

Mode = Literal["native", "custom"]

CALL_DEADLINE = 10.0
"""Seconds that a call may take, where nothing else is said."""

# Seconds within which LND refuses a stream that it will not serve.
_REFUSAL_WINDOW = 0.05


_NODE_KEY = signer.KeyDescriptor(key_loc=signer.KeyLocator(key_family=6, key_index=0))

_NOT_READY = {
    state.NON_EXISTING: (logging.WARNING, "LND has no wallet yet: create one"),
    state.LOCKED: (logging.WARNING, "LND is locked: unlock its wallet"),
}
_STARTING = (logging.INFO, "LND is starting")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """Which LND this is. `network` is LND's name of it: mainnet, testnet, signet or regtest."""

    node_id: bytes
    version: str
    network: str
    mode: Mode


class _Answered(SidecarError):
    """A probe was answered with an error about the probe itself: the method is there, and allowed."""


def backoff() -> wait_random_exponential:
    """Seconds between tries: random, up to 0.25 s first, up to 3 s in the end.

    A try costs next to nothing, and payers wait for nobody.
    """
    return wait_random_exponential(multiplier=0.25, max=3)


class Lnd:
    """One LND, that may go away, come back, be locked, or be given new credentials at any time."""

    def __init__(
        self, host: str, tls_path: Path, macaroon_path: Path, timings: Timings | None = None
    ) -> None:
        """`host` is `name:port`. Raises LndSetupError for a file that is missing or unreadable."""
        self.host = host
        self._timings = timings or Timings()
        self._connector = Connector(host, tls_path, macaroon_path)
        self._said: str | None = None
        self._was_ready = False
        self._waiting = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connector.aclose()

    # --- waiting ---------------------------------------------------------------------------

    async def wait_ready(self) -> None:
        """Wait until LND serves (SERVER_ACTIVE), for as long as it takes; log each change once.

        Raises LndDenied when LND was never ready yet and its certificate is not the file's.
        """
        # One waiter watches LND for all: each on its own would tell of every change again.
        async with self._waiting:
            async for attempt in AsyncRetrying(retry=retry_if_exception(self._passes), wait=backoff()):
                with attempt:
                    await self._until_active()
            self._was_ready = True
            if self._said is not None:
                self._say(logging.INFO, "LND is back")
                self._said = None

    async def _until_active(self) -> None:
        line = self._connector.line()
        stream = line.stream(calls.STATES, state.SubscribeStateRequest())
        try:
            async with aclosing(self._updates(stream, calls.STATES, line)) as updates:
                async for update in updates:
                    if update.state == state.SERVER_ACTIVE:
                        return
                    self._say(*_NOT_READY.get(update.state, _STARTING))
        except LndUnavailable:
            self._say(logging.WARNING, "LND is not reachable", host=self.host)
            raise
        except LndDenied as error:
            self._say(logging.ERROR, str(error))
            raise
        finally:
            stream.cancel()

    def _passes(self, error: BaseException) -> bool:
        # At start a wrong certificate is the operator's error; later, whoever renewed LND's
        # certificate may just not have brought us the file yet.
        return isinstance(error, LndUnavailable) or (isinstance(error, LndDenied) and self._was_ready)

    def _say(self, level: int, text: str, **about: str) -> None:
        if text != self._said:
            self._said = text
            log.log(level, text, **about)

    # --- calls -----------------------------------------------------------------------------

    async def call(
        self,
        call: Call[Q, A],
        request: Q,
        *,
        deadline: float = CALL_DEADLINE,
        failed: type[SidecarError] = LndUnavailable,
    ) -> A:
        """Make one call, within `deadline` seconds; once more when a replaced file was the reason.

        Raises LndUnavailable, LndDenied, LndSetupError, ModeChanged, and `failed` when LND
        answers that this very request can't be done.
        """
        line = self._connector.line()
        try:
            return await self._unary(line, call, request, deadline)
        except grpc.aio.AioRpcError as error:
            fault = _fault(error)
            if not self._connector.renew(fault, line):
                self._refuse(fault, call, error, failed)
        try:
            return await self._unary(self._connector.line(), call, request, deadline)
        except grpc.aio.AioRpcError as error:
            self._refuse(_fault(error), call, error, failed)

    async def _unary(self, line: Line, call: Call[Q, A], request: Q, deadline: float) -> A:
        try:
            with self._timings.measure(Timed.LND, call.name):
                return await line.unary(call, request, deadline)
        except asyncio.CancelledError:
            # gRPC cancels what runs on a channel that is closed; that is no cancellation of our task.
            if _is_cancelled():
                raise
            raise LndUnavailable("the connection to LND was replaced") from None

    @asynccontextmanager
    async def subscribe(self, call: Call[Q, A], request: Q) -> AsyncIterator[AsyncIterator[A]]:
        """A stream that LND has taken, to be read inside; it never ends without an error.

        Raises what `call` does, on entering and while it is read; never `failed`.
        """
        line = self._connector.line()
        stream = line.stream(call, request)
        ended = asyncio.Event()
        stream.add_done_callback(lambda _: ended.set())
        try:
            async with aclosing(self._updates(stream, call, line)) as updates:
                # LND sends nothing on a new stream until there is something to tell. The sign that
                # it was taken is an answer to a call made behind it, and no refusal soon after.
                await self.call(calls.GET_STATE, state.GetStateRequest())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), _REFUSAL_WINDOW)
                    await anext(updates)
                yield updates
        finally:
            stream.cancel()

    async def _updates(
        self, stream: grpc.aio.UnaryStreamCall[Q, A], call: Call[Q, A], line: Line
    ) -> AsyncGenerator[A, None]:
        while True:
            try:
                update: Any = await stream.read()
            except grpc.aio.AioRpcError as error:
                fault = _fault(error)
                if self._connector.renew(fault, line):
                    raise LndUnavailable("LND's credentials were replaced; they are read again") from None
                self._refuse(fault, call, error, LndUnavailable)
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                raise LndUnavailable("the connection to LND was replaced") from None
            if update is grpc.aio.EOF:
                raise LndUnavailable(f"LND ended {call.name}")
            yield update

    def _refuse(
        self, fault: Fault, call: Call[Any, Any], error: grpc.aio.AioRpcError, failed: type[SidecarError]
    ) -> NoReturn:
        text = f"{call.name}: {error.details() or error.code().name}"
        if fault is Fault.AWAY:
            raise LndUnavailable(text) from error
        if fault is Fault.REJECTED:
            raise failed(text) from error
        raise self._operators(fault, call, text) from error

    def _operators(self, fault: Fault, call: Call[Any, Any], text: str) -> SidecarError:
        if fault is Fault.CERTIFICATE:
            path = self._connector.tls_path
            return LndDenied(
                f"LND at {self.host} does not show the certificate in {path}: "
                f"set --lnd.tlspath to its tls.cert, and --lnd.host to a name or address that is in it"
            )
        if fault is Fault.MACAROON:
            path = self._connector.macaroon_path
            return LndDenied(
                f"LND does not accept the macaroon in {path} ({text}): "
                f"set --lnd.macaroonpath to one that this LND baked"
            )
        if fault is Fault.PERMISSION:
            return _missing_permissions(self._connector.macaroon_path, [call.uri])
        if fault is Fault.NOT_CUSTOM:
            return _custom_mode_setup("LND refuses to send onion messages for us")
        if call is calls.DERIVE_SHARED_KEY:
            return LndSetupError("this LND was built without its signer: build it with the tag `signrpc`")
        return ModeChanged(f"this LND has no {call.name}")

    # --- what LND it is --------------------------------------------------------------------

    async def describe(self) -> NodeInfo:
        """Find out which LND this is, and whether it is set up for us.

        Raises LndSetupError when it does not announce onion messages (feature bit 39),
        LndDenied when the macaroon is wrong or may not send onion messages, LndUnavailable.
        """
        info = await self.call(calls.GET_INFO, ln.GetInfoRequest())
        mode = await self._find_mode()
        if not calls.speaks_onion_messages(info.features):
            what = "LND does not announce onion messages (feature bit 39)"
            if mode == "custom":
                raise _custom_mode_setup(what)
            raise LndSetupError(f"{what}: take protocol.no-onion-messages out of lnd.conf and restart LND")
        return NodeInfo(
            node_id=bytes.fromhex(info.identity_pubkey),
            version=info.version.partition(" ")[0],
            network=info.chains[0].network if info.chains else "",
            mode=mode,
        )

    async def _find_mode(self) -> Mode:
        """The kind of LND, found by sending nothing to nobody: LND ≤ 0.20 has no SendOnionMessage."""
        try:
            await self.call(calls.SEND_ONION, ln.SendOnionMessageRequest(), failed=_Answered)
        except _Answered:
            return "native"
        except ModeChanged:
            if await self._is_allowed(calls.SEND_CUSTOM, ln.SendCustomMessageRequest()):
                return "custom"
            raise _missing_permissions(self._connector.macaroon_path, [calls.SEND_CUSTOM.uri]) from None
        raise LndUnavailable("LND sent an onion message that is none")

    async def check_permissions(self) -> None:
        """Try every call with a request that does nothing, so that a lacking permission shows now.

        Streams are not tried: they say so themselves when they are opened.
        Raises LndDenied naming each URI that the macaroon lacks; LndUnavailable.
        """
        lacking = [call.uri for call, request in calls.PROBES if not await self._is_allowed(call, request)]
        if lacking:
            raise _missing_permissions(self._connector.macaroon_path, lacking)

    async def _is_allowed(self, call: Call[Q, A], request: Q) -> bool:
        line = self._connector.line()
        try:
            await self._unary(line, call, request, CALL_DEADLINE)
        except grpc.aio.AioRpcError as error:
            fault = _fault(error)
            if self._connector.renew(fault, line):
                return await self._is_allowed(call, request)
            if fault is Fault.PERMISSION:
                return False
            if fault is not Fault.REJECTED:
                self._refuse(fault, call, error, LndUnavailable)
        return True


class LndNodeKey:
    """LND's own key, behind its signer. Fulfils ports.NodeKey."""

    def __init__(self, lnd: Lnd) -> None:
        self._lnd = lnd

    async def ecdh(self, point: bytes) -> bytes:
        """BOLT 4's ECDH of LND's node key and a point from the network (33 bytes → 32).

        Raises BadPoint, ForbiddenPoint, LndUnavailable, LndDenied.
        """
        # Whoever learned the root point's ECDH would have all keys of the sidecar's own.
        keys.refuse_nums(keys.check_point(point))
        return await self._derive(point)

    async def root(self) -> bytes:
        """The secret that all keys of the sidecar's own come from (keys.SidecarKeys.derive).

        Raises LndUnavailable, LndDenied.
        """
        return await self._derive(keys.NUMS_POINT)

    async def _derive(self, point: bytes) -> bytes:
        request = signer.SharedKeyRequest(ephemeral_pubkey=point, key_desc=_NODE_KEY)
        return (await self._lnd.call(calls.DERIVE_SHARED_KEY, request)).shared_key


class LndSigner:
    """LND's signature over texts, with its node key. Fulfils ports.MessageSigner."""

    def __init__(self, lnd: Lnd) -> None:
        self._lnd = lnd

    async def sign_message(self, text: bytes) -> str:
        """In zbase32 (bLIP 50, LSPS0.ln_signature). Raises LndUnavailable, LndDenied."""
        return (await self._lnd.call(calls.SIGN_MESSAGE, ln.SignMessageRequest(msg=text))).signature


def _fault(error: grpc.aio.AioRpcError) -> Fault:
    return calls.fault_of(error.code(), error.details() or "")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _missing_permissions(path: Path, uris: list[str]) -> LndDenied:
    return LndDenied(
        f"the macaroon in {path} lacks {', '.join(uris)}: "
        "`sidecar macaroon-permissions` prints how to bake one"
    )


def _custom_mode_setup(what: str) -> LndSetupError:
    lines = ", ".join(CUSTOM_LINES)
    return LndSetupError(f"{what}: put {lines} into lnd.conf (LND 0.20 or earlier) and restart LND")
