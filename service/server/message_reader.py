"""Cuts the bytes of a connection into HTTP messages, and reads them with the parser httptools.

The parser is given exactly one message at a time, so that nothing behind it is parsed before it is answered: a head
ends at its first empty line, a body of known length is counted, and a chunked body can end only at an empty line. Bytes
are never changed.
"""

from typing import Any

import httptools

from service.errors import BadRequestError, HeadTooLargeError
from service.server.http_request import BodySource, HTTPRequest

MAX_HEAD = 64 * 2**10
"""Bytes of a head, or of the lines behind a body's last chunk."""
HEAD_END = b"\r\n\r\n"
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""Headers that say where a body ends."""


class MessageReader:
    """The bytes of a connection that have arrived and are not used yet, and the request that they belong to."""

    def __init__(self, source: BodySource) -> None:
        """``source`` is the connection, which requests ask for their bodies."""
        self.request: HTTPRequest | None = None
        """The request that is arriving."""
        self._source: BodySource | None = source
        self._parser: Any = httptools.HttpRequestParser(self)
        self._buffer = b""
        """What has arrived; used up to `_position`."""
        self._position = 0
        self._tail = b""
        """The last bytes of a line that was cut off, in which the end of the head may have begun."""
        self._line_bytes = 0
        """Bytes of lines since the last head, piece of a body or message was complete."""
        self._has_progress = False
        """Whether one of them was completed by the last piece."""

    def add(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer = self._buffer[self._position :] + data if self._position < len(self._buffer) else data
        self._position = 0

    @property
    def unread(self) -> int:
        """Bytes that are not used yet."""
        return len(self._buffer) - self._position

    def read(self) -> bool:
        """Read the next piece, which ends where a message does or sooner; whether a head was complete with it.

        Raises:
            BadRequestError: it is not HTTP/1.1.
            HeadTooLargeError: a head does not end.
        """
        start, request = self._position, self.request
        had_head = request is not None and request.has_head
        is_counted = request is not None and request.remaining > 0
        if request is not None and is_counted:
            end = min(len(self._buffer), start + request.remaining)
            request.remaining -= end - start
        else:
            end = self._end_of_lines(start)
        self._position = end
        self._feed(start, end)
        if not is_counted:
            self._line_bytes += end - start
            if self._line_bytes > MAX_HEAD and not (self._has_progress and had_head):
                raise HeadTooLargeError(f"the head of the request has more than {MAX_HEAD} bytes; send less")
            if self._has_progress:
                self._line_bytes = 0
        request = self.request
        if request is None or not request.has_head or had_head:
            return False
        request.check_head()
        if request.wants_upgrade:
            self._ignore_upgrade(request)
        return True

    def finish(self) -> None:
        """Go on to the next request."""
        self.request = None
        if self._position == len(self._buffer):
            self._buffer, self._position = b"", 0

    def close(self) -> None:
        """Let go of everything: the parser refers back to here, and the connection to both."""
        self.request = self._parser = self._source = None
        self._buffer = b""
        self._position = 0

    def _feed(self, start: int, end: int) -> None:
        is_all = start == 0 and end == len(self._buffer)
        self._has_progress = False
        try:
            self._parser.feed_data(self._buffer if is_all else memoryview(self._buffer)[start:end])
        except httptools.HttpParserUpgrade:
            pass  # `read` goes on with another parser
        except httptools.HttpParserError as error:
            raise BadRequestError(f"{str(error).rstrip('.')}; send HTTP/1.1 as RFC 9112 has it") from None

    def _end_of_lines(self, start: int) -> int:
        """Where the next empty line ends, or where the buffer does."""
        buffer = self._buffer
        if self._tail:
            straddling = (self._tail + buffer[start : start + 3]).find(HEAD_END)
            if straddling >= 0:
                end = start + straddling + len(HEAD_END) - len(self._tail)
                self._tail = b""
                return end
        end = buffer.find(HEAD_END, start)
        if end >= 0:
            self._tail = b""
            return end + len(HEAD_END)
        self._tail = (self._tail + buffer[max(start, len(buffer) - 3) :])[-3:]
        return len(buffer)

    def _ignore_upgrade(self, request: HTTPRequest) -> None:
        """Read on as if ``request`` had not asked for another protocol, which a server may ignore (RFC 9110, 7.8).

        The parser has ended the message at its head. Another one, which is told only how long the body is, reads that.
        """
        request.wants_upgrade = False
        self._parser = httptools.HttpRequestParser(self)
        framing = b"".join([b"%s: %s\r\n" % header for header in request.headers if header[0] in FRAMING])
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % framing)
        self.request = request
        if not request.has_body:
            request.complete()

    # The parser calls these.

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._source is not None:
            self.request = HTTPRequest(self._source)

    def on_url(self, piece: bytes) -> None:
        """Take a piece of the request target."""
        if self.request is not None:
            self.request.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a body are ignored."""
        if self.request is not None and not self.request.has_head:
            self.request.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take what only the parser knows of a head."""
        self._has_progress = True
        request, parser = self.request, self._parser
        if request is not None:
            request.method = parser.get_method()
            request.http_version = parser.get_http_version()
            request.keep_alive = request.http_version != "1.0" and parser.should_keep_alive()
            request.wants_upgrade = parser.should_upgrade()
            request.has_head = True

    def on_body(self, piece: bytes) -> None:
        """Take a piece of a body."""
        self._has_progress = True
        if self.request is not None:
            self.request.feed(piece)

    def on_message_complete(self) -> None:
        """Note the end of a message; a parser that wants to upgrade sees one at the end of the head already."""
        self._has_progress = True
        if self.request is not None and not self.request.wants_upgrade:
            self.request.complete()
