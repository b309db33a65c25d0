"""What surrounds every call: its id, key, rate, log line and counts, and the status of its error."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
import structlog

from service.errors import InternalError, NotReadyError, RequestError
from service.middleware.access_log import Client
from service.middleware.auth import Access
from service.middleware.request_id import REQUEST_ID, request_id
from service.request_context import RequestContext, current
from service.state import ServiceState

SERVICE = "inference.GRPCInferenceService"
OPEN = frozenset({"ServerLive", "ServerReady"})
"""Methods that need no key."""
METHODS = OPEN | {"ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelStreamInfer"}
RETRY_AFTER = "Retry-After"
OK = 200
"""Status of a call that succeeded, in the log and in metrics; they have the statuses of HTTP."""
CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""gRPC's codes of errors by their status. All others are INVALID_ARGUMENT."""

Headers = list[tuple[bytes, bytes]]
Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class KeyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # it has no types
    """Refuses calls without the key that they need before their message is read."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._calls = Calls(state)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the handler of the call, or one that refuses it."""
        service, _, method = details.method[1:].partition("/")
        if service == SERVICE and method not in OPEN:
            try:
                self._state.policy.authorize(Access.USER, headers_of(details.invocation_metadata))
            except RequestError:
                # A handler of streams, since those of single messages read the message first.
                return grpc.stream_stream_rpc_method_handler(partial(self._refuse, method))
        return await continuation(details)

    async def _refuse(self, method: str, _: object, context: Any) -> None:
        """End the call with the error of its key, as `Calls` finds it."""

        async def nothing() -> None:
            return None

        known = method if method in METHODS else "unknown"
        await self._calls.unary(known, nothing, context)


class Caller(NamedTuple):
    """The client of a call."""

    headers: Headers
    """The metadata."""
    client: Client


class Calls:
    """Answers the calls of one application."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state

    async def unary(self, method: str, work: Callable[[], Awaitable[Answer]], context: Any) -> Answer | None:
        """Answer a call with the result of ``work``, or end it with the code of its error."""
        given, answer, error = await self.outcome(method, work, caller_of(context))
        metadata = ((REQUEST_ID.decode(), given.id),)
        if error is not None:
            await abort(context, error, metadata)
        context.set_trailing_metadata(metadata)
        return answer

    async def outcome(
        self, method: str, work: Callable[[], Awaitable[Answer]], caller: Caller
    ) -> tuple[RequestContext, Answer | None, RequestError | None]:
        """Authorise, do, log and count a call; return its context, and its answer or error."""
        state = self._state
        context = RequestContext(request_id(caller.headers, state.redactor))
        context.route = f"/{SERVICE}/{method}"
        current.set(context)
        error: RequestError | None = None
        answer: Answer | None = None
        try:
            principal = state.policy.authorize(Access.OPEN if method in OPEN else Access.USER, caller.headers)
            if state.rate_limiter is not None:
                state.rate_limiter.admit(principal, caller.client[0] if caller.client else "")
            answer = await work()
            context.status = OK
        except RequestError as failure:
            error = failure
        except asyncio.CancelledError:  # by the client, or by a server that stops
            if not state.engine.ready:
                context.status, context.error = NotReadyError.status, NotReadyError.code
            raise
        except Exception:
            log.exception("unhandled_exception")
            error = InternalError()
        finally:
            if error is not None:
                context.status, context.error = error.status, error.code
            state.access_log.end("POST", context.route, caller.client, context)
        return context, answer, error


async def abort(context: Any, error: RequestError, metadata: tuple[tuple[str, str], ...] = ()) -> NoReturn:
    """End a call with the code of ``error``."""
    if RETRY_AFTER in error.headers:
        metadata += ((RETRY_AFTER.lower(), error.headers[RETRY_AFTER]),)
    await context.abort(CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error), metadata)
    raise error  # never: the line above raises


def caller_of(context: Any) -> Caller:
    """Return the client of a call, from its `grpc.aio.ServicerContext`."""
    kind, _, address = unquote(context.peer()).partition(":")
    host, _, port = address.rpartition(":")
    is_ip = kind in ("ipv4", "ipv6") and port.isdigit()
    return Caller(headers_of(context.invocation_metadata()), (host.strip("[]"), int(port)) if is_ip else None)


def headers_of(metadata: Any) -> Headers:
    """Return the metadata of a call as headers are elsewhere."""
    pairs = metadata or ()
    return [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]
