"""The context of a request: everything that its log line, its trace and the metrics say about it.

Code that learns something about the current request records it here, whichever protocol the request came by. Outside of
a request the functions do nothing.
"""

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect

Value = TypeVar("Value")


class Timings(NamedTuple):
    """Durations of the stages of one picture, in milliseconds."""

    decode: float
    queue: float
    inference: float
    encode: float


class AnsweredPicture(NamedTuple):
    """A picture that was answered."""

    started: float
    """When its decoding began, as `time.perf_counter` gives it."""
    timings: Timings
    batch_size: int
    ended: float
    queued_s: float = 0.0
    """How long its request had waited in the server's queue before that."""


class RequestContext:
    """A request and its answer."""

    __slots__ = (
        "answered",
        "disconnected",
        "ended",
        "error",
        "id",
        "key",
        "model",
        "model_in_body",
        "pending",
        "queued_s",
        "route",
        "started",
        "status",
        "trace",
        "version",
    )

    def __init__(self, request_id: str, queued_s: float = 0.0) -> None:
        """Create the context of a request that has already waited for ``queued_s`` seconds."""
        self.id = request_id
        self.queued_s = queued_s
        self.started = perf_counter() - queued_s
        self.ended = self.started
        self.status = 0
        """0 while there is no answer."""
        self.disconnected = False
        """Whether the client has disconnected."""
        self.key: str | None = None
        """The name of the key that the request came with."""
        self.route: str | None = None
        """The documented path, where it was recorded; see `route_of`."""
        self.model: str | None = None
        self.version: int | None = None
        self.model_in_body = False
        """Whether the body names the model, so that the target does not tell it."""
        self.error: str | None = None
        """The code of the error that the request was answered with."""
        self.answered: list[AnsweredPicture] = []
        self.pending: list[asyncio.Future[Any]] = []
        """The futures that the request waits for; empty once it has ended."""
        self.trace: str | None = None

    def end(self) -> None:
        """Note that the answer was sent, or that the client no longer waits for it."""
        self.ended = perf_counter()
        self.pending.clear()  # an exception in one leads back here, and would keep whole batches in memory for long

    def disconnect(self) -> None:
        """Note that the client has disconnected, and fail everything that the request waits for."""
        self.disconnected = True
        for answer in self.pending:
            if not answer.done():
                answer.set_exception(ClientDisconnect())


def route_of(context: RequestContext, scope: Mapping[str, Any]) -> str | None:
    """The documented path of a request, recorded or found by the router; None for paths that clients invent."""
    if context.route is not None:
        return context.route
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


def path_within(scope: Mapping[str, Any]) -> str:
    """The path of a request as the application's own router matches it: without the prefix of a mounted application."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def queued_s() -> float:
    """How long the request has waited in the server's queue."""
    context = current.get()
    return 0.0 if context is None else context.queued_s


def record_key(name: str) -> None:
    """Record the name of the key that the request came with."""
    context = current.get()
    if context is not None:
        context.key = name


def record_route(path: str) -> None:
    """Record the documented path that the request is for."""
    context = current.get()
    if context is not None:
        context.route = path


def record_model(name: str, version: int) -> None:
    """Record the model that the request is for."""
    context = current.get()
    if context is not None:
        context.model = name
        context.version = version


def record_model_in_body() -> None:
    """The body of the request names its model."""
    context = current.get()
    if context is not None:
        context.model_in_body = True


def record_error(code: str) -> None:
    """Record the code of the error that the request is answered with."""
    context = current.get()
    if context is not None:
        context.error = code


def record_prediction(started: float, timings: Timings, batch_size: int, ended: float) -> None:
    """Record that one of the pictures of the request was answered."""
    context = current.get()
    if context is not None:
        context.answered.append(AnsweredPicture(started, timings, batch_size, ended, context.queued_s))


def track_future(answer: asyncio.Future[Value]) -> asyncio.Future[Value]:
    """Return ``answer`` after noting that the request waits for it; it fails if the client disconnects.

    Await the result without binding it to a name: an exception in it refers back to the waiting frame and its names.
    """
    context = current.get()
    if context is not None:
        context.pending.append(answer)
        if context.disconnected:
            context.disconnect()
    return answer
