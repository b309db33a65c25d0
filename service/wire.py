"""HTTP on the wire: uvicorn's, which also has no patience with clients that never finish, and speaks JSON about it."""

import asyncio
from collections.abc import Sized
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.access import AccessLog, new_id
from service.answers import describe_error, to_bytes, to_http
from service.errors import BadRequestError, HeadTooLargeError, RequestError, TooSlowError
from service.exchange import Exchange
from service.meters import METERS
from service.turnstile import Held, Turnstile

MAX_HEAD = 64 * 2**10
"""Bytes of a head that is not whole yet, besides those of one read."""
HEAD_END = b"\r\n\r\n"
MOMENT_S = 0.02
"""How far a body may be behind its head, for both to be looked at together."""


class Connection(HttpToolsProtocol):
    """A connection to a client."""

    upload_s: float
    """Seconds that a request may take to arrive whole."""
    header_s: float
    """Seconds that its head may take."""
    lines: AccessLog
    turnstile: Turnstile
    outbox: "Outbox"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience: asyncio.TimerHandle | None = None
        self._patient_with_head = True
        self._head_bytes = 0
        self._is_last = False
        self._more = b""
        """What came while its request was held."""
        self._head = b""
        """Of a request that is not parsed yet, since its body may be a moment behind."""
        self._moment: asyncio.TimerHandle | None = None
        self.url = b""
        self.held: Held | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Corked(transport, self.outbox, self.tasks))  # type: ignore[arg-type]
        self._patience = self.loop.call_later(self.header_s, self._lose_patience)

    def data_received(self, data: bytes) -> None:
        if self.held is not None:
            self._more += data
            self.flow.pause_reading()
            return
        data = self._take_head() + data
        if self._may_be_parsed(data):
            self._parse(data)

    def _may_be_parsed(self, data: bytes) -> bool:
        """Whether ``data`` has not been refused, and is not held, unparsed."""
        if self.turnstile.is_open(len(self.tasks)) or not self._is_between_requests() or self.flow.write_paused:
            return True
        if self.turnstile.admits(self, data):
            return True
        self._wait_no_more()
        if self.held is not None or self._head:
            self._unset_keepalive_if_required()
        return False

    def _parse(self, data: bytes) -> None:
        before = self.scope
        super().data_received(data)
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self._wait_no_more()
        else:
            self._wait_for_more(len(data), before)

    def _is_between_requests(self) -> bool:
        done = self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)
        return done and (self.scope is None or "method" in self.scope)

    def say_no(self, answer: bytes) -> None:
        """Answer a request that was not parsed, and wait for the next."""
        self._unset_keepalive_if_required()
        self.transport.write(answer)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def go_on(self, data: bytes, held_s: float) -> None:
        """Parse a request that has waited for so long."""
        self._parse(data)
        if self.cycle is None or self.transport.is_closing():
            return
        cast(dict[str, Any], self.cycle.scope)["held_s"] = held_s  # its task begins in the next turn of the event loop
        if self._is_last:
            self.cycle.keep_alive = False
        if self._more:
            more, self._more = self._more, b""
            self.flow.resume_reading()
            self._parse(more)

    def await_body(self, head: bytes) -> None:
        """Wait a moment for the body behind ``head``, before either is parsed."""
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
        if self.held is None:
            super().shutdown()
        self._is_last = True

    def _wait_no_more(self) -> None:
        """A request has arrived whole."""
        self._head_bytes = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _wait_for_more(self, size: int, before: Any) -> None:
        """After ``size`` bytes a request has not arrived whole; ``before`` them its scope was the same or another."""
        in_head = self.scope is None or "method" not in self.scope
        if self._patience is not None and self._patient_with_head and not in_head:
            self._wait_no_more()
        if self._patience is None:
            self._patient_with_head = in_head
            wait_s = self.header_s if in_head else self.upload_s
            self._patience = self.loop.call_later(wait_s, self._lose_patience)
        if in_head and self.scope is before:  # else they may be the end of another request's body
            self._head_bytes += size
            if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
                self._refuse(HeadTooLargeError(f"the head of the request has more than {MAX_HEAD} bytes; send less"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        exchange = self._exchange()
        if exchange is not None and not self.cycle.response_complete:
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
        never_began = self.cycle is None and not self.url
        refused_already = self.cycle is not None and self.cycle.response_complete and self.cycle.more_body
        if never_began or refused_already:
            self.transport.close()
            return
        waited_s = self.header_s if self._patient_with_head else self.upload_s
        error = TooSlowError(f"the request did not arrive whole within {waited_s:g} s; send it again")
        if self.cycle is None or self._patient_with_head:
            self._refuse(error)
            return
        self._refuse(error, self._exchange())
        self.cycle.disconnected = True  # whoever still reads its body learns that nobody is there
        self.cycle.message_event.set()

    def _exchange(self) -> Exchange | None:
        """Of the request that is under way, if the application has it already."""
        return None if self.cycle is None else cast(dict[str, Any], self.cycle.scope).get("exchange")

    def _refuse(self, error: RequestError, exchange: Exchange | None = None) -> None:
        """Answer with ``error``; what has not got as far as to have an ``exchange`` is logged here."""
        path = self.url.partition(b"?")[0].decode("latin-1")
        known = exchange is not None
        exchange = exchange or Exchange(new_id())
        exchange.status, exchange.error = error.status, error.code
        if not known:
            exchange.end()
            METERS.ended(exchange, {})
            self.lines.add("", path, self.client, exchange)
        content = to_bytes(describe_error(error, path))
        self.transport.write(to_http(error, content, exchange.id, {"connection": "close"}))
        self.transport.close()


class Outbox:
    """What is to be sent, all of a turn of the event loop together.

    Sending may wake the client, which costs more than the sending itself. A client that gets several answers in a row
    is woken for the first only.
    """

    def __init__(self) -> None:
        self._corked: list[Corked] = []

    def add(self, corked: "Corked") -> None:
        """In the next turn have it send what it holds."""
        if not self._corked:
            asyncio.get_running_loop().call_soon(self._send)
        self._corked.append(corked)

    def _send(self) -> None:
        corked, self._corked = self._corked, []
        for transport in corked:
            transport.send()


class Corked:
    """A transport that holds what is written until the next turn of the event loop: one packet, not several."""

    def __init__(self, transport: asyncio.Transport, outbox: Outbox, under_way: Sized) -> None:
        """``under_way`` are the requests that are: with one alone nobody gains by waiting longer than for a head."""
        self._transport = transport
        self.is_closing = transport.is_closing
        """Asked for with every answer; what is asked for seldom is found by `__getattr__`."""
        self._outbox = outbox
        self._under_way = under_way
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send ``data``, in the next turn at the latest."""
        if not self._written:
            self._outbox.add(self)
        self._written.append(data)
        if len(self._under_way) <= 1 and not data.endswith(HEAD_END):
            self.send()

    def close(self) -> None:
        """Send what is held, then close."""
        self.send()
        self._transport.close()

    def send(self) -> None:
        """Send what is held."""
        written, self._written = self._written, []
        if written and not self.is_closing():  # else nobody is there any more
            self._transport.write(b"".join(written))
