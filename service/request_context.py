"""The context of a request: the facts for its log line, its trace and the metrics.

Every protocol records facts about the current request here. Outside of a request, the functions have no effect.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sized
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
    """A picture with a prediction."""

    started: float
    """When its decoding began, a time of `time.perf_counter`."""
    timings: Timings
    batch_size: int
    ended: float
    queued_s: float = 0.0
    """Time that its request had waited in the admission queue before that."""


class RequestContext:
    """A request and its answer."""

    __slots__ = (
        "answered",
        "cached",
        "counted_for",
        "disconnected",
        "ended",
        "error",
        "id",
        "in_progress",
        "key",
        "model",
        "pending",
        "queued_s",
        "route",
        "started",
        "status",
        "trace",
        "version",
    )

    def __init__(self, request_id: str, queued_s: float = 0.0) -> None:
        """Create the context of a request that has waited in the admission queue for ``queued_s`` seconds."""
        self.id = request_id
        self.queued_s = queued_s
        self.started = perf_counter() - queued_s
        self.ended = self.started
        self.status = 0
        """0 while there is no answer."""
        self.disconnected = False
        """Whether the client has disconnected."""
        self.key: str | None = None
        """The name of the API key of the request."""
        self.counted_for: str | None = None
        """Whose requests the rate limit counts this one to; None without a limit."""
        self.route: str | None = None
        """The documented path, if it was recorded; see `route_of`."""
        self.model: str | None = None
        self.version: int | None = None
        self.error: str | None = None
        """The code of the error in the response."""
        self.answered: list[AnsweredPicture] = []
        self.cached = 0
        """Pictures whose answers came from the response cache."""
        self.pending: list[asyncio.Future[Any]] = []
        """The futures that the request waits for; empty after its end."""
        self.trace: str | None = None
        self.in_progress: Sized = ()
        """The requests that the server is answering, this one among them; empty where they are not known."""

    def end(self) -> None:
        """Record that the response was sent, or that the client has disconnected."""
        self.ended = perf_counter()
        self.pending.clear()  # an exception in one refers to this object, and would keep whole batches in memory

    def disconnect(self) -> None:
        """Record that the client has disconnected, and fail all pending futures."""
        self.disconnected = True
        for answer in self.pending:
            if not answer.done():
                answer.set_exception(ClientDisconnect())


def route_of(context: RequestContext, scope: Mapping[str, Any]) -> str | None:
    """Return the documented path of a request, recorded or found by the router; None for unknown paths."""
    if context.route is not None:
        return context.route
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


def path_within(scope: Mapping[str, Any]) -> str:
    """Return the path of a request without the prefix at which the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def present() -> RequestContext:
    """Return the context of the current request; outside of a request, one that is discarded."""
    return current.get() or RequestContext("")


def queued_s() -> float:
    """Return the time that the request has waited in the admission queue."""
    return present().queued_s


def is_alone() -> bool:
    """Return whether the server is answering no other request."""
    return len(present().in_progress) == 1


def record_key(name: str) -> None:
    """Record the name of the API key of the request."""
    present().key = name


def record_counted_for(client: str | None) -> None:
    """Record whose requests the rate limit counts the request to."""
    present().counted_for = client


def counted_for() -> str | None:
    """Return what `record_counted_for` recorded."""
    return present().counted_for


def record_route(path: str) -> None:
    """Record the documented path of the request."""
    present().route = path


def record_model(name: str, version: int) -> None:
    """Record the model of the request."""
    context = present()
    context.model, context.version = name, version


def record_error(code: str) -> None:
    """Record the code of the error in the response."""
    present().error = code


def record_prediction(started: float, timings: Timings, batch_size: int, ended: float) -> None:
    """Record the prediction of one of the pictures of the request."""
    context = present()
    context.answered.append(AnsweredPicture(started, timings, batch_size, ended, context.queued_s))


def record_cached() -> None:
    """Record that the answer for one of the pictures of the request came from the response cache."""
    present().cached += 1


def track_future(answer: asyncio.Future[Value]) -> asyncio.Future[Value]:
    """Have ``answer`` fail if the client disconnects, and return it.

    Await the result without binding it to a name: an exception in it refers to the waiting frame and its names.
    """
    context = present()
    context.pending.append(answer)
    if context.disconnected:
        context.disconnect()
    return answer


async def gather_all(work: Iterable[Coroutine[Any, Any, Value]]) -> list[Value]:
    """The results of all ``work``. If some of it fails, the rest is cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
