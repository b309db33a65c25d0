"""Run an ASGI application for one request, and send its answer."""

import asyncio
import re
from http import HTTPStatus
from typing import Any, Protocol

import structlog
from starlette.types import ASGIApp, Message, Scope

from service.errors import STOPPED, InternalError, RequestError
from service.middleware.security_headers import NO_SNIFFING
from service.responses import CLOSE, STATUS_LINES, Header, error_response
from service.server.http_request import HTTPRequest

BAD_NAME = re.compile(rb'[\x00-\x20\x7f()<>@,;:\\"/\[\]?={}]')
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
LAST_CHUNK = b"0\r\n\r\n"
WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

log = structlog.get_logger(__name__)


class Connection(Protocol):
    """The connection that the request came on."""

    def default_headers(self) -> list[Header]:
        """Return the headers that the server adds to each answer."""

    def keeps_alive(self, request: HTTPRequest) -> bool:
        """Whether another request may follow ``request``."""

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""

    def write(self, data: bytes) -> None:
        """Send ``data``."""

    def answered(self, request: HTTPRequest) -> None:
        """Go on: the answer to ``request`` has been written."""

    def abort(self) -> None:
        """Break the connection, so that a half-sent answer is not taken for a whole one."""


class ASGICycle:
    """One call of an application."""

    def __init__(self, connection: Connection, request: HTTPRequest, scope: Scope) -> None:
        self._connection = connection
        self._request = request
        self._scope = scope
        self._head: bytes | None = None
        """The head of the answer, which is held until the first piece of the body, as ASGI demands."""
        self._status = 0
        self._is_chunked = False
        self._remaining = 0
        """Bytes that the application has still to send, if it named a length."""
        self._has_begun = False
        self._is_complete = False

    async def run(self, app: ASGIApp) -> None:
        """Call ``app``; if it does not answer, answer in its place, unless its answer has begun already."""
        try:
            await app(self._scope, self._request.receive, self._send)
        except RequestError as error:
            await self._fail(error)
        except asyncio.CancelledError:
            await self._fail(STOPPED)
        except Exception:
            log.exception("application_failed")
            await self._fail(InternalError())
        else:
            if not self._is_complete and not self._request.is_disconnected:
                log.error("application_sent_no_answer", path=self._scope["path"])
                await self._fail(InternalError())

    async def _fail(self, error: RequestError) -> None:
        if self._is_complete or self._request.is_disconnected:
            return
        if self._has_begun:
            self._connection.abort()
            return
        self._status = 0
        self._request.keep_alive = False
        answer = error_response(error, self._scope["path"])
        headers = [(b"content-length", b"%d" % len(answer.content)), NO_SNIFFING, *answer.headers]
        if (context := self._scope.get("request_context")) is not None:
            headers.append((b"x-request-id", context.id.encode()))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.content})

    async def _send(self, message: Message) -> None:
        if self._request.is_disconnected:
            return
        if not self._status:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"expected http.response.start, not {message['type']}")
            self._start(message)
        elif message["type"] != "http.response.body" or self._is_complete:
            raise RuntimeError(f"unexpected ASGI message {message['type']}")
        else:
            await self._connection.drain()
            if not self._request.is_disconnected:
                self._send_body(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, message: dict[str, Any] | Message) -> None:
        status: int = message["status"]
        length: int | None = None
        is_chunked = closes = False
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in (*self._connection.default_headers(), *message.get("headers", ())):
            if BAD_NAME.search(name) or BAD_VALUE.search(value):
                raise RuntimeError("invalid HTTP header")
            lowered = name.lower()
            if lowered == b"content-length" and length is None:
                length = int(value)
            elif lowered == b"transfer-encoding":
                is_chunked = value.lower() == b"chunked"
            elif lowered == b"connection" and b"close" in value.lower():
                closes = True
                self._request.keep_alive = False
            lines.append(b"%s: %s\r\n" % (lowered, value))
        has_body = self._scope["method"] != "HEAD" and status not in WITHOUT_BODY
        if has_body and length is None and not is_chunked:
            if self._request.http_version == "1.0":  # which knows no chunks: the end of the connection ends the body
                self._request.keep_alive = False
            else:
                is_chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if not closes and not self._connection.keeps_alive(self._request):
            self._request.keep_alive = False
            lines.append(CLOSE)
        self._status = status
        self._is_chunked = is_chunked and has_body
        self._remaining = -1 if length is None or is_chunked else length if has_body else 0
        self._head = b"".join(lines) + b"\r\n"

    def _send_body(self, body: bytes, *, more: bool) -> None:
        head, self._head = self._head or b"", None
        if self._scope["method"] == "HEAD" or self._status in WITHOUT_BODY:
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + (b"" if more else LAST_CHUNK)
        elif self._remaining >= 0:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                self._head = head or None
                raise RuntimeError("the answer has another length than its Content-Length")
        self._has_begun = True
        if data := head + body if head else body:
            self._connection.write(data)
        if not more:
            self._is_complete = True
            self._connection.answered(self._request)
