"""One HTTP request: its head, checked against RFC 9112, and its body as it arrives."""

import asyncio
import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import httptools
from starlette.types import Message, Scope

from service.errors import BadRequestError, RequestError
from service.request_context import RequestContext

if TYPE_CHECKING:
    from service.middleware.access_log import Client

OWS = b" \t"
"""White space that may stand around a value."""
HOST = re.compile(rb"[ \t]*(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::[0-9]*)?[ \t]*", re.ASCII)
"""``uri-host [":" port]`` of RFC 9110, section 7.2; it is empty for a target without an authority."""
CHECKED = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
"""Headers that decide how a request is read."""
VERSIONS = ("1.0", "1.1")
HIGH_WATER = 64 * 2**10
"""Bytes of a body that may wait for their reader before the connection stops reading."""
Headers = list[tuple[bytes, bytes]]


class BodySource(Protocol):
    """The connection that a body arrives on."""

    def request_body(self, request: "HTTPRequest") -> None:
        """Ask the client for more of the body of ``request``."""


class HTTPRequest:
    """A request and how far it has arrived."""

    __slots__ = (
        "_chunks",
        "_error",
        "_is_delivered",
        "_source",
        "_waiter",
        "awaits_continue",
        "buffered",
        "client",
        "content_length",
        "context",
        "has_head",
        "headers",
        "http_version",
        "is_answered",
        "is_chunked",
        "is_complete",
        "is_disconnected",
        "is_fast",
        "is_started",
        "keep_alive",
        "logged_path",
        "method",
        "path",
        "query",
        "received",
        "scheme",
        "scope",
        "target",
    )

    def __init__(self, source: BodySource) -> None:
        self.target = b""
        self.headers: Headers = []
        """Names are in lower case."""
        self.method = b""
        self.http_version = ""
        self.path = b""
        """As it was sent: percent-encoded."""
        self.query = b""
        self.client: Client = None
        self.scheme = "http"
        self.content_length: int | None = None
        self.received = 0
        """Bytes of the body that have arrived."""
        self.is_chunked = False
        self.keep_alive = False
        self.awaits_continue = False
        """Whether the client waits for ``100 Continue`` before it sends the body."""
        self.has_head = False
        self.is_complete = False
        self.is_fast = False
        """Whether the fast path answers it."""
        self.is_started = False
        """Whether the application or the fast path has been given the request."""
        self.is_answered = False
        self.is_disconnected = False
        self.context: RequestContext | None = None
        """What the fast path has learned of the request."""
        self.scope: Scope | None = None
        """What the application was told of it."""
        self.logged_path = ""
        """The path in the log, if it is not the path alone."""
        self._source = source
        self._chunks: list[bytes] = []
        self.buffered = 0
        """Bytes of the body that wait to be received."""
        self._is_delivered = False
        """Whether the end of the body has been handed on."""
        self._waiter: asyncio.Future[None] | None = None
        self._error: RequestError | None = None

    def check_head(self) -> None:
        """Check what the parser leaves to the server, and split the target.

        Raises:
            BadRequestError: RFC 9112 does not allow such a head.
        """
        if self.http_version not in VERSIONS:
            raise BadRequestError(f"HTTP/{self.http_version} is not supported; send HTTP/1.1")
        hosts = 0
        for name, value in self.headers:
            if name not in CHECKED:
                continue
            if name == b"host":
                hosts += 1
                if HOST.fullmatch(value) is None:
                    raise BadRequestError("the Host header is malformed; send host or host:port")
            elif name == b"content-length":
                self.content_length = int(value)
            elif name == b"transfer-encoding":
                if value.strip(OWS).lower() != b"chunked" or self.http_version == "1.0":
                    raise BadRequestError("only the transfer coding chunked is supported, in HTTP/1.1")
                self.is_chunked = True
            elif value.strip(OWS).lower() == b"100-continue":
                self.awaits_continue = self.http_version == "1.1"
        if hosts != 1 and (hosts or self.http_version == "1.1"):
            raise BadRequestError(f"the request has {hosts} Host headers; send exactly one")
        if self.method == b"CONNECT":
            raise BadRequestError("this server is not a proxy; CONNECT is not supported")
        self._split_target()
        if not (self.is_chunked or self.content_length):
            self.complete()

    @property
    def remaining(self) -> int:
        """Bytes of a body of known length that are still to arrive."""
        return (self.content_length or 0) - self.received

    @property
    def decoded_path(self) -> str:
        """The path without percent-encoding."""
        path = self.path.decode("ascii")
        return unquote(path) if "%" in path else path

    def feed(self, piece: bytes) -> None:
        """Add a piece of the body, unless nobody wants it any more."""
        self.received += len(piece)
        if not (self.is_answered or self.is_disconnected):
            self._chunks.append(piece)
            self.buffered += len(piece)
        if self.received == self.content_length:
            self.complete()
        elif self._waiter is not None:
            self._wake()

    def complete(self) -> None:
        """Note that the whole body has arrived."""
        self.is_complete = True
        self.awaits_continue = False
        if self._waiter is not None:
            self._wake()

    def fail(self, error: RequestError) -> None:
        """Raise ``error`` in whoever reads the body, since the rest of it will never arrive."""
        self._error = error
        self.keep_alive = False
        self._wake()

    def disconnect(self) -> None:
        """Note that the client has gone away."""
        self.is_disconnected = True
        self._end()
        context = self.context if self.scope is None else self.scope.get("request_context")
        if context is not None:
            context.disconnect()

    def finish(self) -> None:
        """Note that the answer has been sent; what is left of the body is discarded as it arrives."""
        self.is_answered = True
        self._end()

    def contains(self, pattern: re.Pattern[bytes]) -> bool:
        """Whether ``pattern`` is found in the pieces of the body that wait to be received."""
        return pattern.search(b"".join(self._chunks)) is not None

    async def receive(self) -> Message:
        """Return the next ASGI message: a piece of the body, or that the client has gone or been answered.

        Raises:
            RequestError: the rest of the body did not arrive, or is malformed.
        """
        while not (self._chunks or self.is_disconnected or self.is_answered):
            if self._error is not None:
                raise self._error
            if self.is_complete and not self._is_delivered:
                break
            if not self.is_complete:
                self._source.request_body(self)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.is_disconnected or self.is_answered:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self.take(), "more_body": not self.is_complete}

    def take(self) -> bytes:
        """Take the pieces of the body that wait to be received."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.buffered = 0
        self._is_delivered = self.is_complete
        return body

    def _end(self) -> None:
        self._chunks.clear()
        self.buffered = 0
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _split_target(self) -> None:
        target = self.target
        if b"#" in target:
            raise BadRequestError("the request target has a fragment; send the path and the query alone")
        if target.startswith(b"/"):
            self.path, _, self.query = target.partition(b"?")
        elif target == b"*":
            self.path = target
        else:
            try:
                url = httptools.parse_url(target)
            except httptools.HttpParserInvalidURLError:
                url = None
            if url is None or not url.schema or not url.host:
                raise BadRequestError("the request target is neither a path nor a URL; send /path?query")
            self.path, self.query = url.path or b"/", url.query or b""
