"""HTTP/1.1 for uvicorn: limits, time-outs, keep-alive, pipelining and flow control of a connection.

A connection answers one request after the other. What has arrived behind the current request stays as bytes until that
is answered, and reading stops when there are many of them.
"""

import asyncio
from collections.abc import Coroutine, Sized
from typing import Any, cast

import structlog
import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.server import ServerState

from service.errors import RequestError, RequestTimeoutError
from service.middleware.request_id import new_id, request_id
from service.request_context import RequestContext
from service.responses import Header, RawResponse, error_response, to_http
from service.server.asgi_cycle import ASGICycle
from service.server.deadline import Deadline, Phase
from service.server.fast_path.write_buffer import CorkedTransport
from service.server.http_request import HIGH_WATER, HTTPRequest
from service.server.message_reader import MessageReader
from service.server.options import ProtocolOptions
from service.server.proxy_headers import Address, address_of
from service.server.websocket import hand_over, wants_websocket

MAX_KEPT = 64 * 2**10
"""Bytes behind the current request that are kept before reading stops, besides those of one read."""
SMALL_BODY = 64 * 2**10
"""Bytes of a body that the fast path waits for before it takes a request; it begins to read a larger one at once."""
MESSAGES_A_TURN = 16
"""Requests of one connection that are handled in a turn of the event loop."""
CLOSE_HEADER = (b"Connection", b"close")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = structlog.get_logger(__name__)


class HTTPProtocol(asyncio.Protocol):
    """A connection to a client."""

    options: ProtocolOptions

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Uvicorn calls this for each connection."""
        self._config = config
        self._app: ASGIApp = config.loaded_app
        self._asgi_version = config.asgi_version
        self._root_path = config.root_path
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._reader = MessageReader(self)
        self._deadline = Deadline(self._loop, self._expired)
        self._raw: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._transport: CorkedTransport = None  # type: ignore[assignment]
        self._peer: Address | None = None
        self._trusts_peer = False
        """Whether the peer may say whom it speaks for."""
        self._server: Address | None = None
        self._scheme = "http"
        self._active: HTTPRequest | None = None
        """The request that is to be answered next."""
        self._is_advancing = False
        self._ignores_input = False
        """Whether something came that cannot be read: nothing behind it counts."""
        self._is_last = False
        """Whether the server stops: the connection closes with the next answer."""
        self._answers = 0
        self._is_reading = True
        self._drained: asyncio.Future[None] | None = None
        """Done when the client has read enough; None while there is no need to wait."""
        self._unsent = 0
        """Bytes that the client had still to read when that was last looked at."""

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._raw = cast(asyncio.Transport, transport)
        self._transport = CorkedTransport(self._raw, self.options.write_buffer, self.options.in_progress)
        self._peer = address_of(transport, "peername")
        self._trusts_peer = self._peer is not None and self.options.proxies.trusts(self._peer[0])
        self._server = address_of(transport, "sockname")
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn only calls `shutdown`
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._ignores_input:
            return
        self._reader.add(data)
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """Have nobody work for a client that has gone, and let go of everything that refers back to here."""
        self._state.connections.discard(self)
        self._ignores_input = True
        self._deadline.stop()
        request, self._active = self._active or self._reader.request, None
        if request is not None:
            request.disconnect()
            if request.is_fast and self.options.fast_path is not None:
                self.options.fast_path.leave(request)
        if self._drained is not None:
            self._drained.set_result(None)
        self._reader.close()

    def eof_received(self) -> None:
        """Close: a client that sends nothing more is taken to have left, as most that do so have."""

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        if self._drained is None:
            self._drained = self._loop.create_future()
            self._unsent = self._raw.get_write_buffer_size()
            self._set_deadline()

    def resume_writing(self) -> None:
        """Go on writing."""
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set_result(None)
            self._advance()

    # Uvicorn calls this.

    def shutdown(self) -> None:
        """Answer the request that has begun to arrive, then close."""
        self._is_last = True
        request = self._reader.request
        if request is not None and request.has_head and not request.is_started and not request.is_answered:
            self._begin(request)  # uvicorn waits for its task, and cancels it in the end
        elif self._active is None:
            self._close()

    # The request, the application and the fast path call these.

    def request_body(self, request: HTTPRequest) -> None:
        """Ask the client for more of the body of ``request``."""
        if request.awaits_continue:
            request.awaits_continue = False
            self.write(CONTINUE)
        self._resume_reading()

    def default_headers(self) -> list[Header]:
        """Return the headers that the server adds to each answer: the date."""
        return self._state.default_headers

    def keeps_alive(self, request: HTTPRequest) -> bool:
        """Whether another request may follow ``request``: not if its client still waits to send the body."""
        return request.keep_alive and not self._is_last and not request.awaits_continue

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        self._transport.write(data)

    def respond(self, request: HTTPRequest, response: RawResponse, request_id: str) -> None:
        """Answer ``request`` without ASGI."""
        if request.is_disconnected:
            return
        closes = response.error is not None and CLOSE_HEADER in response.headers
        request.keep_alive = self.keeps_alive(request) and not closes
        common = self.options.headers.lines(self._state.default_headers)
        self.write(to_http(response, request_id, common, last=not (request.keep_alive or closes)))
        self.answered(request)

    def answered(self, request: HTTPRequest) -> None:
        """Go on: the answer to ``request`` has been written."""
        self._state.total_requests += 1
        self.options.busy_poll.answered(self.options.in_progress)
        request.finish()
        self._active = None
        self._answers += 1
        if not request.keep_alive or self._ignores_input:
            self._close()
        elif self._reader.unread or not self._is_reading:
            self._advance()
        elif not self._is_advancing:
            self._set_deadline()

    def abort(self) -> None:
        """Break the connection."""
        self._raw.abort()

    def start(self, request: HTTPRequest, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine ``work``, which answers ``request``."""
        request.is_started = True
        task = self._loop.create_task(work)
        self._state.tasks.add(task)
        self.options.in_progress.add(task)
        task.add_done_callback(self._task_ended)

    @property
    def in_progress(self) -> Sized:
        """The requests of all connections that are being answered."""
        return self.options.in_progress

    # The rest is what happens in between.

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._state.tasks.discard(task)
        self.options.in_progress.discard(task)
        if self.options.fast_path is not None:
            self.options.fast_path.task_ended()
        if task.cancelled():  # before it began
            self.abort()
        elif (error := task.exception()) is not None:
            log.error("unhandled_exception", error=repr(error))
            self.abort()

    def _advance(self) -> None:
        """Read what has arrived, as far as it can be used now."""
        if self._is_advancing or self._raw.is_closing():
            return
        self._is_advancing = True
        reader, messages = self._reader, 0
        while not self._must_wait():
            if messages == MESSAGES_A_TURN:
                self._loop.call_soon(self._advance)
                break
            try:
                request = reader.read()
            except RequestError as error:
                self._refuse(error)
                break
            if request is None:
                break
            if request is not self._active and not request.is_answered:
                self._take_head(request)
            if request.is_complete:
                messages += 1
                reader.finish()
                if not (request.is_started or request.is_answered):
                    self._begin(request)
            elif request.buffered > HIGH_WATER:
                self._pause_reading()
        self._is_advancing = False
        if reader.unread > MAX_KEPT:
            self._pause_reading()
        elif reader.request is None or reader.request.is_answered:
            self._resume_reading()  # also to notice a client that leaves
        self._set_deadline()

    def _must_wait(self) -> bool:
        """Whether what has arrived has to wait for an answer, or for the client to read one."""
        if self._reader.request is None:
            return self._active is not None or self._drained is not None or self._ignores_input
        return self._ignores_input

    def _take_head(self, request: HTTPRequest) -> None:
        """Decide who answers ``request``, of which the head has arrived."""
        request.client, request.scheme = self._peer, self._scheme
        if self._trusts_peer:
            request.client, request.scheme = self.options.proxies.resolve(self._peer, self._scheme, request.headers)
        if request.path in self.options.websocket_paths and wants_websocket(request) and not self._is_last:
            self._upgrade(request)
            return
        self._active = request
        fast_path = self.options.fast_path
        request.is_fast = fast_path is not None and fast_path.takes(request)
        if request.is_complete:
            return  # it is begun as the next thing
        is_small = request.content_length is not None and request.content_length <= SMALL_BODY
        if not (request.is_fast and is_small) or request.awaits_continue:
            self._begin(request)

    def _begin(self, request: HTTPRequest) -> None:
        """Have ``request`` answered."""
        if request.is_fast and self.options.fast_path is not None:
            request.is_started = True
            if self._root_path:
                request.logged_path = self._root_path + request.decoded_path
            self.options.fast_path.begin(self, request)
        else:
            request.scope = scope = self._scope(request)
            self.start(request, ASGICycle(self, request, scope).run(self._app))

    def _upgrade(self, request: HTTPRequest) -> None:
        """Go on as a WebSocket as soon as all earlier answers are written."""
        request.is_answered = self._ignores_input = True
        self._raw.pause_reading()
        self._loop.call_soon(self._hand_over, request)

    def _hand_over(self, request: HTTPRequest) -> None:
        if not self._raw.is_closing():
            self._deadline.stop()
            self._state.connections.discard(self)
            hand_over(request, self._raw, self._config, self._state, self._app_state)
            self._raw.resume_reading()

    def _scope(self, request: HTTPRequest) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": self._asgi_version, "spec_version": "2.3"},
            "http_version": request.http_version,
            "server": self._server,
            "client": request.client,
            "scheme": request.scheme,
            "method": request.method.decode("ascii"),
            "root_path": self._root_path,
            "path": self._root_path + request.decoded_path,
            "raw_path": self._root_path.encode() + request.path,
            "query_string": request.query,
            "headers": request.headers,
            "state": self._app_state.copy(),
        }

    def _refuse(self, error: RequestError) -> None:
        """Answer what is arriving with ``error``, and close; an answer that has begun is never followed by another."""
        self._ignores_input = True
        request = self._reader.request
        self._reader.finish()
        if request is not None and request.is_started:
            request.fail(error)
            if request.is_answered:
                self._close()
            return
        self._active = None
        path = "" if request is None else request.target.partition(b"?")[0].decode("latin-1")
        context = RequestContext(new_id() if request is None else request_id(request.headers, self.options.redactor))
        context.status, context.error = error.status, error.code
        method, client = "", self._peer
        if request is not None and request.has_head:
            method, client = request.method.decode("ascii"), request.client or self._peer
            context.route = path if request.is_fast else None
        self.options.access_log.end(method, path, client, context)
        common = self.options.headers.lines(self._state.default_headers)
        response = error_response(error, path)
        self.write(to_http(response, context.id, common, last=CLOSE_HEADER not in response.headers))
        self._close()

    def _close(self) -> None:
        """Close when everything has been sent."""
        self._ignores_input = True
        self._transport.close()
        self._unsent = self._raw.get_write_buffer_size()
        self._set_deadline()

    def _pause_reading(self) -> None:
        if self._is_reading and not self._raw.is_closing():
            self._is_reading = False
            self._raw.pause_reading()

    def _resume_reading(self) -> None:
        if not self._is_reading and not self._raw.is_closing():
            self._is_reading = True
            self._raw.resume_reading()

    def _set_deadline(self) -> None:
        """Give what the connection waits for its time."""
        request, options = self._reader.request, self.options
        if self._drained is not None or self._raw.is_closing():
            self._deadline.enter(Phase.READER, options.request_timeout_s)
        elif request is not None and not request.has_head:
            self._deadline.enter(Phase.HEAD, options.header_timeout_s, request)
        elif request is not None:
            self._deadline.enter(Phase.BODY, options.request_timeout_s, request)
        elif self._active is not None:
            self._deadline.enter(Phase.ANSWER, None)
        else:
            limit_s = options.keep_alive_s if self._answers else options.header_timeout_s
            self._deadline.enter(Phase.REQUEST, limit_s, self._answers)

    def _expired(self, phase: Phase) -> None:
        """End what has taken too long."""
        if phase is Phase.READER:
            before, self._unsent = self._unsent, self._raw.get_write_buffer_size()
            if self._unsent < before:
                self._deadline.renew()
            else:
                self.abort()
        elif phase in (Phase.HEAD, Phase.BODY):
            is_head = phase is Phase.HEAD
            limit_s = self.options.header_timeout_s if is_head else self.options.request_timeout_s
            self._refuse(RequestTimeoutError(f"the request did not arrive whole within {limit_s:g} s; send it again"))
        else:
            self._close()


def protocol_class(options: ProtocolOptions) -> type[HTTPProtocol]:
    """The class of connections with ``options``, for `uvicorn.Config`."""
    return type("ConfiguredHTTPProtocol", (HTTPProtocol,), {"options": options})
