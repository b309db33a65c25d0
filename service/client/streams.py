"""Streams of frames to WS /stream, synchronous and asynchronous."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import JsonValue, TypeAdapter
from websockets import exceptions
from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import ClientConnection, connect

from service.client.calls import Picture, StreamOptions, as_text, read
from service.client.errors import AnswerError, RefusedError, UnreachableError
from service.schemas.answers import ErrorBody, Prediction, RegionPredictions

REFUSED = 1008
"""The code with which the service closes a stream that it does not accept."""
read_object = TypeAdapter(dict[str, JsonValue]).validate_json


@dataclass(frozen=True)
class FrameAnswer:
    """The answer to one frame of a stream."""

    frame: int
    """The number of the frame, counted from 0 in the order of sending."""
    dropped: int
    """Frames so far for which a newer one was answered."""
    answer: Prediction | RegionPredictions | ErrorBody
    """`RegionPredictions` if regions were requested."""


class Stream:
    """An open stream. One thread may send while another receives."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def send(self, picture: Picture) -> None:
        """Send a frame, which replaces one that waits for its answer."""
        content = read(picture)
        with translated():
            self._connection.send(content)

    def receive(self) -> FrameAnswer:
        """Wait for the next answer."""
        with translated():
            return read_frame(self._connection.recv())


class AsyncStream:
    """The asynchronous `Stream`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def send(self, picture: Picture) -> None:
        """Send a frame, which replaces one that waits for its answer."""
        content = read(picture)
        with translated():
            await self._connection.send(content)

    async def receive(self) -> FrameAnswer:
        """Wait for the next answer."""
        with translated():
            return read_frame(await self._connection.recv())


@contextmanager
def open_stream(url: httpx.URL, headers: httpx.Headers, timeout_s: float, options: StreamOptions) -> Iterator[Stream]:
    """Connect to the service at ``url``; see `arguments`."""
    with translated():
        connection = connect(**arguments(url, headers, timeout_s, options))
    with connection:
        yield Stream(connection)


@asynccontextmanager
async def open_async_stream(
    url: httpx.URL, headers: httpx.Headers, timeout_s: float, options: StreamOptions
) -> AsyncIterator[AsyncStream]:
    """Connect to the service at ``url``; see `arguments`."""
    with translated():
        connection = await connect_async(**arguments(url, headers, timeout_s, options))
    async with connection:
        yield AsyncStream(connection)


def arguments(url: httpx.URL, headers: httpx.Headers, timeout_s: float, options: StreamOptions) -> dict[str, Any]:
    """Make the arguments of both kinds of connections: without proxies, and with the key in ``headers``."""
    params: dict[str, Any] = dict(options)
    timeout_ms = params.pop("timeout_ms", None)
    params |= {"region": [as_text(region) for region in params.pop("regions")]} if "regions" in params else {}
    sent = {name: headers[name] for name in ("authorization", "user-agent") if name in headers}
    sent |= {} if timeout_ms is None else {"X-Timeout-Ms": str(timeout_ms)}
    scheme = "wss" if url.scheme == "https" else "ws"
    address = url.copy_with(scheme=scheme, path=f"{url.path.rstrip('/')}/stream", params=params)
    return {
        "uri": str(address),
        "additional_headers": sent,
        "user_agent_header": None,
        "open_timeout": timeout_s,
        "proxy": None,
        "compression": None,
        "max_size": None,
    }


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of connections as those of the client."""
    try:
        yield
    except exceptions.InvalidStatus as error:
        status = error.response.status_code
        raise RefusedError(status, "forbidden", "the service opens no stream; check the key, and STN_STREAM") from error
    except exceptions.ConnectionClosed as error:
        raise UnreachableError(f"the stream has ended: {error}") from error
    except (exceptions.WebSocketException, OSError) as error:
        raise UnreachableError(f"cannot open a stream: {error}; is the service running there?") from error


def read_frame(message: str | bytes) -> FrameAnswer:
    """Read a message.

    Raises:
        RefusedError: the service does not accept the stream.
        AnswerError: the message is not one of this service.
    """
    try:
        fields = read_object(message)
        frame, dropped = fields.pop("frame", None), fields.pop("dropped", None)
        kind = ErrorBody if "error" in fields else RegionPredictions if "regions" in fields else Prediction
        answer = kind.model_validate(fields)
    except ValueError as error:
        raise AnswerError("the message is not one of stn-serve; check the URL and the proxies") from error
    if isinstance(frame, int) and isinstance(dropped, int):
        return FrameAnswer(frame, dropped, answer)
    if isinstance(answer, ErrorBody):
        raise RefusedError(REFUSED, answer.error.code, answer.error.message)
    raise AnswerError("the message has no number of a frame; check the URL and the proxies")
