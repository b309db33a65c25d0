"""Makes responses as bytes, for ASGI and for the server."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from starlette.types import Send

from service.errors import RequestError
from service.request_context import record_error
from service.schemas.answers import ErrorBody, ErrorDetail

OPEN_INFERENCE = "/v2"

JSON = (b"content-type", b"application/json")
JSON_ALONE = (JSON,)
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
CLOSE = b"connection: close\r\n"

Json = dict[str, Any]
Header = tuple[bytes, bytes]


class RawResponse(NamedTuple):
    """A complete response."""

    content: bytes
    headers: tuple[Header, ...] = JSON_ALONE
    """The headers besides Content-Length and the headers of all responses."""
    status: int = 200
    error: str | None = None
    """The code of the error, if any."""


def describe_error(error: RequestError, path: str) -> Json:
    """Describe an error as a `service.schemas.answers.ErrorBody`, or under /v2 as that protocol defines."""
    return describe_problem(error.code, str(error), path)


def describe_problem(code: str, message: str, path: str) -> Json:
    """See `describe_error`."""
    if path == OPEN_INFERENCE or path.startswith(f"{OPEN_INFERENCE}/"):
        return {"error": message}
    return ErrorBody(error=ErrorDetail(code=code, message=message)).model_dump()


def to_bytes(description: Any) -> bytes:
    """Encode a description as JSON."""
    return orjson.dumps(description)


def error_response(error: RequestError, path: str) -> RawResponse:
    """Make the response for ``error``. ``path`` is the path within the application."""
    headers = ((name.encode(), value.encode()) for name, value in error.headers.items())
    return RawResponse(to_bytes(describe_error(error, path)), (JSON, *headers), error.status, error.code)


async def send_response(send: Send, response: RawResponse) -> None:
    """Send ``response`` through ASGI."""
    if response.error is not None:
        record_error(response.error)
    length = (b"content-length", b"%d" % len(response.content))
    await send({"type": "http.response.start", "status": response.status, "headers": [length, *response.headers]})
    await send({"type": "http.response.body", "body": response.content})


def to_lines(headers: Iterable[Header]) -> bytes:
    """``headers`` as lines of HTTP/1.1."""
    return b"".join([b"%s: %s\r\n" % header for header in headers])


JSON_LINE = to_lines(JSON_ALONE)


def to_http(reply: RawResponse, request_id: str, common: bytes, *, last: bool = False) -> bytes:
    """``reply`` as the bytes of HTTP/1.1, for responses that do not come from the application.

    ``common`` are the lines of the server's headers; ``last`` says that the connection ends with this response.
    """
    return b"%scontent-length: %d\r\nx-request-id: %s\r\nx-content-type-options: nosniff\r\n%s%s%s\r\n%s" % (
        STATUS_LINES[reply.status],
        len(reply.content),
        request_id.encode(),
        common,
        JSON_LINE if reply.headers is JSON_ALONE else to_lines(reply.headers),
        CLOSE if last else b"",
        reply.content,
    )
