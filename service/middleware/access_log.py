"""The outermost part of the application: gives every request an id, every answer its headers, and the log a line."""

import asyncio
import itertools
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics.recorder import CLIENT_LEFT, RECORDER
from service.request_context import Answered, RequestContext, current
from service.settings import Settings

REQUEST_ID = b"x-request-id"
SANE_ID = re.compile(rb"[\w.~+/=:@-]{1,128}", re.ASCII)
LEAST_LOGGED = {"all": 0, "refused": 400, "none": 1000}
STAMPS = {"event", "level", "logger", "timestamp"}
"""What structlog adds to a line itself."""
LONGEST_PATH = 200
"""Characters of a path that are logged."""
WRITE_EVERY_S = 0.02
ATOMIC = 4096
"""Bytes that a pipe takes in one piece, so that lines of several processes do not mix."""

LINE = (
    '{"event":"request","level":"info","logger":"service.middleware.access_log","timestamp":"%s.%06dZ","request_id":"%s",'
    '"method":"%s","path":%s,"status":%d%s,"total_ms":%.3f}\n'
)
ANSWERED = ',"pictures":%d,"batch_size":%d,"decode_ms":%.3f,"queue_ms":%.3f,"inference_ms":%.3f,"encode_ms":%.3f'

NO_SNIFFING = (b"x-content-type-options", b"nosniff")
PROTECTION = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cache-control": b"no-store",
}
"""Headers of every answer but those to POST, unless it has its own."""
DOCUMENTATION = {
    b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' "
    b"'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
}
"""What Swagger UI needs; nothing that a client sent is ever on that page."""

Client = tuple[str, int] | None
"""Address and port, where they are known."""
Ended = tuple[str, str, Client, RequestContext]
"""Method, path and client of a request that has ended, and what was learned of it."""

log = structlog.get_logger("service.middleware.access_log")


class Access:
    """``app``, with request ids, protective headers and a line in the log for every request."""

    def __init__(self, app: ASGIApp, lines: "AccessLog", ended: Callable[[str, bytes, RequestContext], None]) -> None:
        """``ended`` is told path and target of POST requests that have ended."""
        self._app = app
        self._lines = lines
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = RequestContext(request_id(scope["headers"]), scope.get("held_s", 0.0))
        current.set(exchange)
        scope["exchange"] = exchange
        is_post = scope["method"] == "POST"

        def send_on(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = [*message["headers"], (REQUEST_ID, exchange.id.encode()), NO_SNIFFING]
                message["headers"] = headers if is_post else protected(scope["path"], headers)
            return send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            exchange.end()
            self._lines.add(scope["method"], scope["path"], scope["client"], exchange)
            RECORDER.ended(exchange, scope)
            if is_post:
                self._ended(scope["path"], target_of(scope), exchange)


def target_of(scope: Scope) -> bytes:
    """What a request asked for, as it came."""
    path: bytes = scope["raw_path"]
    return path + b"?" + scope["query_string"] if scope["query_string"] else path


def record_end(exchange: RequestContext, lines: "AccessLog", method: str, path: str, client: Client) -> None:
    """Log and count a request that has ended without the application."""
    exchange.end()
    lines.add(method, path, client, exchange)
    RECORDER.ended(exchange, {})


def protected(path: str, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``headers`` and those of `PROTECTION` that are not among them."""
    wanted = PROTECTION | DOCUMENTATION if path == "/docs" else PROTECTION
    there = {name.lower() for name, _ in headers}
    if b"etag" in there:  # a file, which may be kept
        there.add(b"cache-control")
    return headers + [(name, value) for name, value in wanted.items() if name not in there]


def make_ids() -> Callable[[], str]:
    """Gives ids that no other process gives: a random beginning and a count."""
    beginning = secrets.token_hex(8)
    counted = itertools.count(1)
    return lambda: f"{beginning}-{next(counted):x}"


new_id = make_ids()


def headers_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """Names in lower case and values, of the lines of ``head`` as they came."""
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    return [(name.strip().lower(), value.strip()) for name, _, value in lines]


def given_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What the client calls its request, if it does and that is sane."""
    for name, value in headers:
        if name == REQUEST_ID and SANE_ID.fullmatch(value):
            return value.decode()
    return None


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What the client calls its request, else a new id."""
    return given_id(headers) or new_id()


class AccessLog:
    """Writes a line for each request that the settings want one for: those of `WRITE_EVERY_S` together.

    A line takes half the time in a row with others, when what it needs is in the processor's caches. Through structlog,
    as text for people goes, each would take longer than all else that is added to a request.
    """

    def __init__(self, settings: Settings) -> None:
        quiet = settings.log_level in ("warning", "error")
        self._least = LEAST_LOGGED["none" if quiet else settings.access_log]
        self._json = settings.log_format == "json"
        self._ended: list[Ended] = []

    def add(self, method: str, path: str, client: Client, exchange: RequestContext) -> None:
        """Log a request that has ended."""
        if (exchange.status or CLIENT_LEFT) < self._least:
            return
        if not self._json:
            line = orjson.loads(describe(method, path, client, exchange))
            log.info("request", **{name: value for name, value in line.items() if name not in STAMPS})
            return
        if not self._ended:
            asyncio.get_running_loop().call_later(WRITE_EVERY_S, self.flush)
        self._ended.append((method, path, client, exchange))

    def flush(self) -> None:
        """Write what is waiting."""
        ended, self._ended = self._ended, []
        for piece in pieces([describe(*request) for request in ended]):
            sys.stderr.buffer.write(piece)
            sys.stderr.buffer.flush()


def describe(method: str, path: str, client: Client, exchange: RequestContext) -> str:
    """The line of a request, as JSON. Written by hand: from a dictionary it takes three times as long."""
    since_ns = int((time.perf_counter() - exchange.ended) * 1e9)
    seconds, fraction = divmod(time.time_ns() - since_ns, 10**9)
    known = f',"client":"{client[0]}"' if client is not None else ""
    if exchange.key is not None:
        known += f',"key":"{exchange.key}"'
    if exchange.model is not None:
        known += f',"model":{quoted(exchange.model)},"version":{exchange.version}'
    if exchange.error is not None:
        known += f',"error":"{exchange.error}"'
    if exchange.trace is not None:
        known += f',"trace_id":"{exchange.trace}"'
    if exchange.answered:
        known += ANSWERED % (len(exchange.answered), *longest(exchange.answered))
    return LINE % (
        to_the_second(seconds),
        fraction // 1000,
        exchange.id,
        method,
        quoted(path[:LONGEST_PATH]),
        exchange.status or CLIENT_LEFT,
        known,
        (exchange.ended - exchange.started) * 1000,
    )


def longest(answered: Sequence[Answered]) -> tuple[float, ...]:
    """The largest batch that a picture was in, and the longest of each of the times."""
    if len(answered) == 1:
        return answered[0].batch_size, *answered[0].timings
    batch_size = max(picture.batch_size for picture in answered)
    return batch_size, *map(max, zip(*(picture.timings for picture in answered), strict=True))


@lru_cache(maxsize=1024)
def quoted(text: str) -> str:
    """``text`` as JSON."""
    return orjson.dumps(text).decode()


@lru_cache(maxsize=2)
def to_the_second(moment: int) -> str:
    """A time as structlog writes it, but for its fraction."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Whole lines put together, to no more than `ATOMIC` bytes where one alone is not longer."""
    piece = bytearray()
    for line in lines:
        encoded = line.encode()
        if piece and len(piece) + len(encoded) > ATOMIC:
            yield bytes(piece)
            piece.clear()
        piece += encoded
    if piece:
        yield bytes(piece)
