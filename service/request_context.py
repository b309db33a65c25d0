"""What is learned about a request on its way through the service: for its line in the log, for its trace, for others.

Whoever learns something notes it here, whichever protocol the request came by. Outside of requests nothing is noted.
"""

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect

Value = TypeVar("Value")


class Timings(NamedTuple):
    """Of one picture, in milliseconds."""

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
    """How long its request had waited at the wire before that."""


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
        """Of one that has waited for ``held_s`` already."""
        self.id = request_id
        self.held_s = held_s
        self.started = perf_counter() - held_s
        self.ended = self.started
        self.status = 0
        """0 while there is no answer."""
        self.left = False
        """Whether its client has gone away."""
        self.key: str | None = None
        """Whose key the request came with."""
        self.route: str | None = None
        """The path as documented, where it was noted; see `route_of`."""
        self.model: str | None = None
        self.version: int | None = None
        self.model_in_body = False
        """Whether the body names the model, so that the target does not tell it."""
        self.error: str | None = None
        """The code of the error that it was refused with."""
        self.answered: list[Answered] = []
        self.awaited: list[asyncio.Future[Any]] = []
        """What it waits for; nothing any more once it has ended."""
        self.trace: str | None = None

    def end(self) -> None:
        """Its answer was sent, or nobody waits for it any more."""
        self.ended = perf_counter()
        self.awaited.clear()  # an exception in one leads back here, and would keep whole batches in memory for long

    def leave(self) -> None:
        """Its client has gone away."""
        self.left = True
        for answer in self.awaited:
            if not answer.done():
                answer.set_exception(ClientDisconnect())

    def like(self, request_id: str) -> "RequestContext":
        """Of another request that begins now and ends in the same way."""
        other = RequestContext(request_id)
        other.status, other.error = self.status, self.error
        other.route, other.model, other.version = self.route, self.model, self.version
        return other


def route_of(exchange: RequestContext, scope: Mapping[str, Any]) -> str | None:
    """The documented path that a request was for, noted or found by the router; None of what clients make up."""
    if exchange.route is not None:
        return exchange.route
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


current: ContextVar[RequestContext | None] = ContextVar("exchange", default=None)


def held_s() -> float:
    """How long the request has waited at the wire."""
    exchange = current.get()
    return 0.0 if exchange is None else exchange.held_s


def record_key(name: str) -> None:
    """Whose key the request has."""
    exchange = current.get()
    if exchange is not None:
        exchange.key = name


def record_route(path: str) -> None:
    """The documented path that the request is for."""
    exchange = current.get()
    if exchange is not None:
        exchange.route = path


def record_model(name: str, version: int) -> None:
    """The model that the request is for."""
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
    """Why the request is refused."""
    exchange = current.get()
    if exchange is not None:
        exchange.error = code


def record_prediction(started: float, timings: Timings, batch_size: int, ended: float) -> None:
    """One of the pictures of the request was answered."""
    exchange = current.get()
    if exchange is not None:
        exchange.answered.append(Answered(started, timings, batch_size, ended, exchange.held_s))


def track_future(answer: asyncio.Future[Value]) -> asyncio.Future[Value]:
    """The request waits for ``answer``, which is returned, and fails if its client goes away.

    Who waits for it should give it no name: an exception in it leads back to whoever waits, and so to the name.
    """
    exchange = current.get()
    if exchange is not None:
        exchange.awaited.append(answer)
        if exchange.left:
            exchange.leave()
    return answer
