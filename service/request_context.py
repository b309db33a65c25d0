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


class Answered(NamedTuple):
    """A picture that was answered."""

    started: float
    """When its decoding began, as `time.perf_counter` gives it."""
    timings: Timings
    batch_size: int
    ended: float
    held_s: float = 0.0
    """How long its request had waited in the server's queue before that."""


class RequestContext:
    """A request and its answer."""

    __slots__ = (
        "answered",
        "awaited",
        "ended",
        "error",
        "held_s",
        "id",
        "key",
        "left",
        "model",
        "model_in_body",
        "route",
        "started",
        "status",
        "trace",
        "version",
    )

    def __init__(self, request_id: str, held_s: float = 0.0) -> None:
        """Create the context of a request that has already waited for ``held_s`` seconds."""
        self.id = request_id
        self.held_s = held_s
        self.started = perf_counter() - held_s
        self.ended = self.started
        self.status = 0
        """0 while there is no answer."""
        self.left = False
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
        self.answered: list[Answered] = []
        self.awaited: list[asyncio.Future[Any]] = []
        """The futures that the request waits for; empty once it has ended."""
        self.trace: str | None = None

    def end(self) -> None:
        """Note that the answer was sent, or that the client no longer waits for it."""
        self.ended = perf_counter()
        self.awaited.clear()  # an exception in one leads back here, and would keep whole batches in memory for long

    def leave(self) -> None:
        """Note that the client has disconnected, and fail everything that the request waits for."""
        self.left = True
        for answer in self.awaited:
            if not answer.done():
                answer.set_exception(ClientDisconnect())


def route_of(exchange: RequestContext, scope: Mapping[str, Any]) -> str | None:
    """The documented path of a request, recorded or found by the router; None for paths that clients invent."""
    if exchange.route is not None:
        return exchange.route
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


def path_within(scope: Mapping[str, Any]) -> str:
    """The path of a request as the application's own router matches it: without the prefix of a mounted application."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


current: ContextVar[RequestContext | None] = ContextVar("exchange", default=None)


def held_s() -> float:
    """How long the request has waited in the server's queue."""
    exchange = current.get()
    return 0.0 if exchange is None else exchange.held_s


def record_key(name: str) -> None:
    """Record the name of the key that the request came with."""
    exchange = current.get()
    if exchange is not None:
        exchange.key = name


def record_route(path: str) -> None:
    """Record the documented path that the request is for."""
    exchange = current.get()
    if exchange is not None:
        exchange.route = path


def record_model(name: str, version: int) -> None:
    """Record the model that the request is for."""
    exchange = current.get()
    if exchange is not None:
        exchange.model = name
        exchange.version = version


def record_model_in_body() -> None:
    """The body of the request names its model."""
    exchange = current.get()
    if exchange is not None:
        exchange.model_in_body = True


def record_error(code: str) -> None:
    """Record the code of the error that the request is answered with."""
    exchange = current.get()
    if exchange is not None:
        exchange.error = code


def record_prediction(started: float, timings: Timings, batch_size: int, ended: float) -> None:
    """Record that one of the pictures of the request was answered."""
    exchange = current.get()
    if exchange is not None:
        exchange.answered.append(Answered(started, timings, batch_size, ended, exchange.held_s))


def track_future(answer: asyncio.Future[Value]) -> asyncio.Future[Value]:
    """Return ``answer`` after noting that the request waits for it; it fails if the client disconnects.

    Await the result without binding it to a name: an exception in it refers back to the waiting frame and its names.
    """
    exchange = current.get()
    if exchange is not None:
        exchange.awaited.append(answer)
        if exchange.left:
            exchange.leave()
    return answer
