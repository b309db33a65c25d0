"""Cuts the bytes of a connection into HTTP messages, whose heads and chunked bodies the parser httptools reads.

A parser is given one head or one chunked body and nothing behind it, so that no request is parsed before the one before
it is answered: a head ends at its first empty line, a body of known length is counted, and a chunked body can end only
at an empty line. Bytes are never changed.
"""

from types import SimpleNamespace
from typing import Any

import httptools

from service.errors import BadRequestError, HeadTooLargeError
from service.server.http_request import BodySource, Headers, HTTPRequest

MAX_HEAD = 64 * 2**10
"""Bytes of a head, or of the lines behind a body's last chunk."""
LINE_ENDS = b"\r\n"
EMPTY_LINE = b"\r\n\r\n"
CUT_EMPTY_LINES = (b"\r\n\r", b"\r\n", b"\r")
"""What may become `EMPTY_LINE` when more arrives."""
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class MessageReader:
    """The bytes of a connection that have arrived and are not used yet, and the request that they belong to."""

    def __init__(self, source: BodySource) -> None:
        """``source`` is the connection, which requests ask for their bodies."""
        self.request: HTTPRequest | None = None
        """The request that is arriving."""
        self._source: BodySource | None = source
        self._parser: Any = None
        """The parser of the head or the chunked body that is arriving."""
        self._buffer = b""
        """What has arrived; used up to `_position`."""
        self._position = 0
        self._headers: Headers = []
        """The headers of the request that is arriving."""
        self._line_bytes = 0
        """Bytes of a head, or of the lines of a chunked body since its last piece."""

    def add(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer = self._buffer[self._position :] + data if self._position < len(self._buffer) else data
        self._position = 0

    @property
    def unread(self) -> int:
        """Bytes that are not used yet."""
        return len(self._buffer) - self._position

    def read(self) -> HTTPRequest | None:
        """Read on, to the end of a message at most; None if more has to arrive before there is something to do.

        Returns the request that the bytes belong to, of which the head is complete.

        Raises:
            BadRequestError: it is not HTTP/1.1.
            HeadTooLargeError: a head does not end.
        """
        request, start = self.request, self._position
        if request is None or not request.has_head:
            request = self._read_head()
            if request is None or request.is_complete or request.is_chunked:
                return request
        elif start == len(self._buffer):
            return None
        if request.is_chunked:
            self._read_chunks(request)
        else:
            piece = self._buffer[self._position : self._position + request.remaining]
            self._position += len(piece)
            request.feed(piece)
        return request if self._position > start else None

    def finish(self) -> None:
        """Go on to the next request."""
        self.request = self._parser = None
        if self._position == len(self._buffer):
            self._buffer, self._position = b"", 0

    def close(self) -> None:
        """Let go of everything: the parser refers back to here, and the connection to both."""
        self.request = self._parser = self._source = None
        self._buffer = b""
        self._position = 0

    def _read_head(self) -> HTTPRequest | None:
        """Read the next head as far as it has arrived, and return its request if it is complete."""
        if self.request is None:
            while self._position < len(self._buffer) and self._buffer[self._position] in LINE_ENDS:  # RFC 9112, 2.2
                self._position += 1
            if self._position == len(self._buffer) or self._source is None:
                return None
            self.request = HTTPRequest(self._source)
            self._parser = httptools.HttpRequestParser(self)
            self._headers = self.request.headers
            self._line_bytes = 0
        request = self.request
        is_end = self._parse_lines()
        if self._line_bytes > MAX_HEAD:
            raise HeadTooLargeError(f"the head of the request has more than {MAX_HEAD} bytes; send less")
        if not request.has_head:
            if is_end:
                raise BadRequestError("this is no head of a request; send HTTP/1.1 as RFC 9112 has it")
            return None
        request.check_head()
        if request.is_chunked:
            self._parser = httptools.HttpRequestParser(
                SimpleNamespace(on_body=request.feed, on_message_complete=request.complete)
            )
            self._parser.feed_data(CHUNKED_HEAD)
            self._line_bytes = 0
        return request

    def _read_chunks(self, request: HTTPRequest) -> None:
        """Read a chunked body as far as it has arrived."""
        before = request.received
        self._parse_lines()
        if request.received > before or request.is_complete:
            self._line_bytes = 0
        elif self._line_bytes > MAX_HEAD:
            raise HeadTooLargeError(f"the lines of the body have more than {MAX_HEAD} bytes; send less")

    def _parse_lines(self) -> bool:
        """Have the next lines parsed, up to an empty one at most; whether that has come.

        The last bytes stay unused if they may be the beginning of an empty line.
        """
        buffer, start = self._buffer, self._position
        end = buffer.find(EMPTY_LINE, start)
        is_end = end >= 0
        if is_end:
            end += len(EMPTY_LINE)
        else:
            end = len(buffer) - next((len(cut) for cut in CUT_EMPTY_LINES if buffer.endswith(cut, start)), 0)
        self._position = end
        self._line_bytes += end - start
        try:
            self._parser.feed_data(buffer[start:end])
        except httptools.HttpParserUpgrade:
            pass  # a server may ignore the wish for another protocol (RFC 9110, 7.8)
        except httptools.HttpParserError as error:
            raise BadRequestError(f"{str(error).rstrip('.')}; send HTTP/1.1 as RFC 9112 has it") from None
        return is_end

    # The parser of a head calls these.

    def on_url(self, piece: bytes) -> None:
        """Take a piece of the request target."""
        if self.request is not None:
            self.request.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take what only the parser knows of a head."""
        request, parser = self.request, self._parser
        if request is not None:
            request.method = parser.get_method()
            request.http_version = parser.get_http_version()
            request.keep_alive = request.http_version != "1.0" and parser.should_keep_alive()
            request.has_head = True
