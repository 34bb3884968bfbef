"""Each admin call, whoever made it: its errors become statuses, and what it changed is in the log.

One interceptor does both for all services, so that no method can forget it.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import structlog

from sidecar.adapters.admin_status import INTERNAL, code_of, status
from sidecar.core.errors import SidecarError

log = structlog.get_logger(__name__)

OURS = "/sidecar.v1."
"""What the full names of our own methods begin with."""

READS = frozenset(
    {
        "Admin.ListClients",
        "Admin.ShowClient",
        "Admin.ListMail",
        "Admin.DryRun",
        "Admin.GetStatus",
        "Admin.Diagnose",
        "Webhooks.ListWebhooks",
    }
)
"""Calls that change nothing. An export does not either, but it hands out all that is kept."""

MAX_NAME = 66
"""Characters that the log shows of a name: a node id fits."""

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs alone
Around = Callable[[Any, Context], AbstractAsyncContextManager[None]]
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


def _like(handler: Handler, behaviour: Callable[..., Any]) -> Handler:
    """A handler of the same shape that does `behaviour`: streams where the other has streams."""
    make: Callable[..., Handler] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def within(handler: Handler, around: Around) -> Handler:
    """The same handler, with `around` entered for each call."""
    behaviour: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )

    async def call(request: Any, context: Context) -> Any:
        async with around(request, context):
            return await behaviour(request, context)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with around(request, context):
            async for each in behaviour(request, context):
                yield each

    if inspect.isasyncgenfunction(behaviour):
        return _like(handler, stream)
    # What is neither is a method of the generated base class, which says UNIMPLEMENTED by itself.
    return _like(handler, call) if inspect.iscoroutinefunction(behaviour) else handler


def who(door: str, context: Context) -> dict[str, str]:
    """Where a call came from: `socket` has no more to tell, `tcp` has the peer's address."""
    if door == "socket":
        return {"by": door}
    return {"by": door, "peer": unquote(context.peer()).partition(":")[2]}


def _named(request: Any) -> dict[str, str]:
    """What a request is about. A stream of requests names nothing; URLs and limits are left out."""
    client = getattr(request, "name", "") or getattr(request, "client", "")
    found = {"client": client, "app": getattr(request, "app_name", "")}
    return {word: name[:MAX_NAME] for word, name in found.items() if name}


class AroundOurs(grpc.aio.ServerInterceptor, ABC):
    """Stands around the calls of our own services; health and reflection are as they are."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the methods of ours."""
        method = str(handler_call_details.method)
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(OURS):
            return handler
        call = method.removeprefix(OURS).replace("/", ".")
        return within(handler, lambda request, context: self.around(call, request, context))

    @abstractmethod
    def around(self, call: str, request: Any, context: Context) -> AbstractAsyncContextManager[None]:
        """What `call` (such as Admin.AddClient) is done within."""


class Audit(AroundOurs):
    """Turns the errors of calls into statuses, and logs who changed what; `door` is `socket` or `tcp`."""

    def __init__(self, door: str) -> None:
        self._door = door

    @asynccontextmanager
    async def around(self, call: str, request: Any, context: Context) -> AsyncIterator[None]:
        """One call."""
        outcome, ended = "ok", None
        try:
            yield
        except SidecarError as error:
            outcome = error.reason
            ended = status(code_of(type(error)), outcome, str(error) or outcome)
            if ended.code is grpc.StatusCode.INTERNAL:
                log.warning("admin call failed", call=call, reason=outcome, error=str(error))
        except grpc.aio.AbortError:
            outcome = "refused"
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"  # the caller has hung up, or the server stops
            raise
        except Exception:
            outcome = INTERNAL
            log.exception("admin call failed", call=call)
            ended = status(grpc.StatusCode.INTERNAL, INTERNAL, "the server failed inside; its log says why")
        finally:
            write = log.debug if call in READS else log.info
            write("audit", call=call, **_named(request), outcome=outcome, **who(self._door, context))
        if ended is not None:
            await context.abort(ended.code, ended.details, ended.trailing_metadata)
