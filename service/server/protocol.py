"""HTTP on the wire: uvicorn's, which also has no patience with clients that never finish, and speaks JSON about it.

A connection's requests are answered one after the other. What comes while one is answered is kept as it came, and
reading goes on, so that a client that leaves is noticed; only what came in the same packet is parsed ahead.
"""

import asyncio
import re
from typing import Any, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import BadRequestError, HeadTooLargeError, RequestError, RequestTimeoutError
from service.middleware.access_log import AccessLog, record_end
from service.middleware.request_id import new_id
from service.request_context import RequestContext
from service.responses import Header, RawResponse, error_response, to_http
from service.server.fast_path.admission_queue import AdmissionQueue, QueuedRequest
from service.server.fast_path.busy_poll import BusyPoll
from service.server.fast_path.handler import FastPathHandler
from service.server.fast_path.heads import HEAD_END, Arrival, Heads
from service.server.fast_path.write_buffer import CorkedTransport, WriteBuffer

MAX_HEAD = 64 * 2**10
"""Bytes of a head, or behind a body's last chunk, that is not whole yet, besides those of one read."""
MAX_KEPT = 64 * 2**10
"""Bytes that are kept while a request is answered, besides those of one read."""
MOMENT_S = 0.02
"""How far a body may be behind its head, for both to be looked at together."""
UPGRADE = re.compile(rb"\r\nupgrade", re.IGNORECASE)
IGNORED = b"\r\nx-grade"

log = structlog.get_logger(__name__)


class Connection(HttpToolsProtocol):
    """A connection to a client."""

    request_timeout_s: float
    """Seconds that a request may take to arrive whole, and an answer to be read on."""
    header_timeout_s: float
    """Seconds that its head may take."""
    lines: AccessLog
    heads: Heads
    turnstile: AdmissionQueue
    direct: FastPathHandler | None
    """Answers what needs no parser; None where all is to pass through the application."""
    common: tuple[Header, ...]
    """Headers of all answers that do not come from the application."""
    outbox: WriteBuffer
    vigil: BusyPoll

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.held: QueuedRequest | None = None
        self.url = b""
        self._answered: RequestResponseCycle | None = None
        """The request that the application answers."""
        self._answered_directly: RequestContext | None = None
        """The request that is being answered without it."""
        self._is_whole = True
        """Whether the request whose head came last has arrived whole."""
        self._got_on = False
        """Whether a head, a piece of a body or a request ended in what was parsed last."""
        self._head_bytes = 0
        """Since then."""
        self._patience: asyncio.TimerHandle | None = None
        self._patient_with_head = True
        self._is_last = False
        self._is_deaf = False
        """Whether something came that cannot be read; nothing behind it counts."""
        self._more = b""
        """What came while a request was held or answered."""
        self._head = b""
        """Of a request that is not parsed yet, since its body may be a moment behind."""
        self._moment: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(CorkedTransport(transport, self.outbox, self.tasks))  # type: ignore[arg-type]
        self._patience = self.loop.call_later(self.header_timeout_s, self._lose_patience)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._is_busy():
            self._more += data
            if len(self._more) > MAX_KEPT:
                self.flow.pause_reading()
            return
        if self._head:
            data = self._take_head() + data
        arrival = None if self._in_message else self.heads.read(data)
        if arrival is None:
            self._parse(without_upgrade(data) if self._is_whole else data)
        elif not arrival.is_whole:
            self.await_body(data)
        elif self.turnstile.is_open(len(self.tasks)) or self.turnstile.admits(self, arrival):
            self.go_on(arrival, 0.0)
        elif self.held is not None:
            self._wait_no_more()
            self._unset_keepalive_if_required()

    @property
    def _in_head(self) -> bool:
        """Whether a request has begun to arrive, and its head is not whole."""
        return self.scope is not None and "method" not in self.scope

    @property
    def _in_message(self) -> bool:
        """Whether a request has begun to arrive, and is not whole."""
        return not self._is_whole or self._in_head

    def _is_busy(self) -> bool:
        """Whether what comes now has to wait until a request is answered, or its answer read."""
        if self.held is not None or self._answered_directly is not None or self.flow.write_paused or self._is_deaf:
            return True
        return self._answered is not None and (bool(self.pipeline) or not self._in_message)

    def go_on(self, arrival: Arrival, held_s: float) -> None:
        """Have a request answered that has come whole, and has waited for so long."""
        if self.direct is None or arrival.head.personal:
            self._parse(arrival.data)
            if self.cycle is not None and not self.transport.is_closing():
                cast(dict[str, Any], self.cycle.scope)["held_s"] = held_s  # before the first step of its task
                self.cycle.keep_alive = self.cycle.keep_alive and not self._is_last
            return
        self._wait_no_more()
        self._unset_keepalive_if_required()
        self._answered_directly = exchange = RequestContext(arrival.head.id or new_id(), held_s)
        task = self.loop.create_task(self.direct.answer(self, arrival, exchange))
        task.add_done_callback(self._ended)
        self.tasks.add(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What was to answer a request has ended; if not as it should, nobody is left waiting."""
        self.tasks.discard(task)
        if task.cancelled():  # before it began
            self.transport.abort()
        elif (error := task.exception()) is not None:
            log.error("unhandled_exception", error=repr(error))
            self.transport.abort()

    def _parse(self, data: bytes) -> None:
        self._got_on = False
        super().data_received(data)
        self._head_bytes = 0 if self._got_on else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HeadTooLargeError(f"the head of the request has more than {MAX_HEAD} bytes; send less"))
        if self._is_busy():
            self.flow.resume_reading()  # to notice who leaves
            self._wait_no_more()
        else:
            self._mind_the_time()

    def on_headers_complete(self) -> None:
        self._is_whole = False
        self._got_on = True
        super().on_headers_complete()
        self.headers = []  # those behind the body are nobody's
        if not self.pipeline:
            self._answered = self.cycle

    def on_body(self, body: bytes) -> None:
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_whole = True
        self._got_on = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._answered = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        self.vigil.answered(self.tasks)
        if self._more or self._in_message:
            self._go_on()

    def _unsupported_upgrade_warning(self) -> None:
        """The parser has ended a request at its head, since it asks for another protocol in more than one piece."""
        if self.scope["method"] != "CONNECT":
            self.cycle.more_body = True  # whatever the parser says
            self.send_400_response("only HTTP/1.1 is spoken here, leave out the header Upgrade")

    def _go_on(self) -> None:
        """With what came meanwhile."""
        if self.transport.is_closing():
            return
        if self._more and not self._is_busy():
            more, self._more = self._more, b""
            self.flow.resume_reading()
            self.data_received(more)
        else:
            self._mind_the_time()

    def reply(self, reply: RawResponse, request_id: str) -> None:
        """Answer a request that was not parsed, and go on with what comes next."""
        self._answered_directly = None
        self._unset_keepalive_if_required()
        self.vigil.answered(self.tasks)
        self._write(reply, request_id, last=self._is_last)
        if self._is_last:
            self.transport.close()
        else:
            self._go_on()

    def _write(self, reply: RawResponse, request_id: str, *, last: bool) -> None:
        common = (*self.server_state.default_headers, *self.common)  # the server's has the date
        self.transport.write(to_http(reply, request_id, common, last=last))

    def await_body(self, head: bytes) -> None:
        """Wait a moment for the body behind ``head``: both together may need no parser, and be held or refused."""
        self._wait_no_more()
        self._unset_keepalive_if_required()
        self._head = head
        self._moment = self.loop.call_later(MOMENT_S, self._await_no_longer)

    def _await_no_longer(self) -> None:
        if self._head:
            self._parse(self._take_head())

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
        return head

    def shutdown(self) -> None:
        """Answer what has come, then close."""
        self._await_no_longer()
        if self.held is None and self._answered_directly is None:
            super().shutdown()
        self._is_last = True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
        self._go_on()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if not self.flow.write_paused and (size := self.transport.get_write_buffer_size()):
            self._watch_reader(size)

    def _watch_reader(self, size: int) -> None:
        """Let a client go that reads nothing of the ``size`` bytes that wait for it."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left < size:
                self._watch_reader(left)
            else:
                self.transport.abort()

        self._unread = self.loop.call_later(self.request_timeout_s, look)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _mind_the_time(self) -> None:
        """Give what is to arrive now its time: the rest of a head, the rest of a body, another request."""
        if self._is_busy() or not self._in_message:
            self._wait_no_more()
            under_way = self._answered or self._answered_directly or self.held or self._more
            if not under_way and self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        elif self._patience is None or self._patient_with_head != self._in_head:
            self._wait_no_more()
            self._patient_with_head = self._in_head
            wait_s = self.header_timeout_s if self._in_head else self.request_timeout_s
            self._patience = self.loop.call_later(wait_s, self._lose_patience)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._patience, self._unread):
            if timer is not None:
                timer.cancel()
        if self._answered is not None:
            disconnect(self._answered)
        exchange = self._answered_directly or context_of(self._answered)
        if exchange is not None:
            exchange.leave()
        self.turnstile.leave(self, self._take_head())
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(BadRequestError(f"{msg.rstrip('.')}; send HTTP/1.1 as RFC 9112 has it"))

    def _lose_patience(self) -> None:
        """Refuse a request that does not arrive; one that never began is let go without a word."""
        if self.transport.is_closing():
            return
        refused_already = not self._in_head and self._answered is None
        if not self._in_message or refused_already:
            self.transport.close()
            return
        waited_s = self.header_timeout_s if self._in_head else self.request_timeout_s
        self._refuse(RequestTimeoutError(f"the request did not arrive whole within {waited_s:g} s; send it again"))

    def _refuse(self, error: RequestError) -> None:
        """Answer what arrives with ``error`` and close; not before what came ahead of it is answered."""
        under_way = self._answered
        if under_way is not None and not under_way.more_body:
            self._answer_no_more(under_way)
            return
        path = self.url.partition(b"?")[0].decode("latin-1")
        known = context_of(under_way)
        exchange = known or RequestContext(new_id())
        exchange.status, exchange.error = error.status, error.code
        if known is None:
            record_end(exchange, self.lines, "", path, self.client)
        self._write(error_response(error, path), exchange.id, last=True)
        self.transport.close()
        if under_way is not None:
            disconnect(under_way)

    def _answer_no_more(self, under_way: RequestResponseCycle) -> None:
        """Than what has arrived whole, up to a request that cannot be read."""
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else under_way
        last.keep_alive = False
        self._is_deaf = True


def disconnect(cycle: RequestResponseCycle) -> None:
    """Whoever still reads its body, or has an answer to it, learns that nobody is there."""
    cycle.disconnected = True
    cycle.message_event.set()


def context_of(cycle: RequestResponseCycle | None) -> RequestContext | None:
    """Of a request, if there is one and the application has it already."""
    exchange: RequestContext | None = None if cycle is None else cast(dict[str, Any], cycle.scope).get("exchange")
    return exchange


def without_upgrade(data: bytes) -> bytes:
    """``data``, in whose head another protocol is not asked for: a server may ignore that (RFC 9110, section 7.8)."""
    end = data.find(HEAD_END)
    head = data[:end]
    if b"\r\nupgrade" not in head.lower():  # most ask for none, and patterns take longer
        return data
    return UPGRADE.sub(IGNORED, head) + data[end:]
