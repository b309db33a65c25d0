"""What the connections of a server have in common."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from service.middleware.access_log import AccessLog
from service.redaction import Redactor
from service.responses import Header, to_lines
from service.server.fast_path.busy_poll import BusyPoll
from service.server.fast_path.write_buffer import WriteBuffer
from service.server.http_request import HTTPRequest
from service.server.proxy_headers import TrustedProxies

if TYPE_CHECKING:
    from service.server.protocol import HTTPProtocol


class FastPath(Protocol):
    """Answers some requests without ASGI."""

    def takes(self, request: HTTPRequest) -> bool:
        """Whether it answers ``request``, of which the head has arrived."""

    def begin(self, connection: "HTTPProtocol", request: HTTPRequest) -> None:
        """Answer ``request`` at once or later."""

    def leave(self, request: HTTPRequest) -> None:
        """Forget ``request``: its client has gone away, whether it was begun or not."""

    def task_ended(self) -> None:
        """Note that a request has ended, on this path or through the application."""


class CommonHeaders:
    """The headers of all answers that do not come from the application, as lines of HTTP/1.1."""

    def __init__(self, headers: tuple[Header, ...] = ()) -> None:
        """``headers`` are added to those of uvicorn."""
        self._headers = headers
        self._of: Sequence[Header] | None = None
        self._lines = b""

    def lines(self, default_headers: Sequence[Header]) -> bytes:
        """Return the lines of uvicorn's ``default_headers``, a new sequence for each date, and of the others."""
        if default_headers is not self._of:
            self._of = default_headers
            self._lines = to_lines((*default_headers, *self._headers))
        return self._lines


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """Settings and shared objects of all connections."""

    access_log: AccessLog
    redactor: Redactor
    """Recognises request ids that are keys."""
    header_timeout_s: float = 10.0
    """Time for a head, and for the first request of a connection to begin."""
    request_timeout_s: float = 60.0
    """Time for a body to arrive, and for a client to go on reading."""
    keep_alive_s: float = 75.0
    """Time that a connection may be idle between two requests."""
    headers: CommonHeaders = field(default_factory=CommonHeaders)
    fast_path: FastPath | None = None
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(""))
    in_progress: set[asyncio.Task[None]] = field(default_factory=set)
    """The requests that are being answered, without the WebSockets, which may be idle for long."""
    websocket_paths: frozenset[bytes] = frozenset()
    """Paths at which a connection may become a WebSocket; other upgrades are ignored."""
    write_buffer: WriteBuffer = field(default_factory=WriteBuffer)
    busy_poll: BusyPoll = field(default_factory=lambda: BusyPoll(0.0))
