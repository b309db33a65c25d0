"""Heads of plain requests, understood without a parser: one that was seen before means what it meant then.

Clients send the same head again and again, but for the length of the body and, with forms, the boundary. Without these
two a head is looked up; only one that is new is taken apart. Plain is a POST of HTTP/1.1 for a picture's prediction,
whose head holds nothing out of the ordinary. All others are left to the parser.
"""

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from service.middleware.auth import Principal
from service.middleware.request_id import REQUEST_ID, given_id, headers_of
from service.responses import Header

HEAD_END = b"\r\n\r\n"
LONGEST_HEAD = 2000
LONGEST_TARGET = 300
"""Bytes of one that is remembered."""
MOST_HEADS = 256
LENGTH = b"\r\ncontent-length: "
LENGTH_AS_MOST_WRITE_IT = b"\r\nContent-Length: "
MOST_DIGITS = 9
BOUNDARY = b"boundary="
PLAIN_BOUNDARY = re.compile(rb"\"?[\w'()+,./:=?-]{1,70}\"?", re.ASCII)
PLAIN_HEAD = re.compile(rb"POST ([!\"$-~]+) HTTP/1\.1\r\n((?:[\w!#$%&'*+.^`|~-]+:[\t -~\x80-\xff]*\r\n)+)", re.ASCII)
"""Request target and headers, as RFC 9112 has them, without a fragment."""
SPECIAL = {b"transfer-encoding", b"expect", b"upgrade", b"x-timeout-ms"}
"""Headers that no plain request has."""
FLEETING = {REQUEST_ID, b"traceparent"}
"""Headers whose values never come twice."""
CONNECTION = {b"connection", b"proxy-connection"}
"""Headers that may say that it is to end; the parser knows both."""
STAY = b"keep-alive"


class Head(NamedTuple):
    """What a head says, whatever the length of the body."""

    target: bytes
    path: str
    query: bytes
    type: bytes
    """Of the body, up to where the boundary is; empty if it is not said."""
    key: str | None
    """Whose key came with it, where keys are needed."""
    id: str | None
    """What the client calls its request, if it does and that is sane."""
    personal: bool
    """Whether an answer has to regard more of it than this."""


class Arrival(NamedTuple):
    """A plain request that has come whole, or its head alone."""

    data: bytes
    """All of it, as it came."""
    head: Head
    start: int
    """Of its body in ``data``."""
    size: int
    """Bytes of its body."""
    boundary: bytes

    @property
    def is_whole(self) -> bool:
        """Whether its body has come too."""
        return len(self.data) == self.start + self.size

    @property
    def type(self) -> bytes:
        """Of its body."""
        return self.head.type + self.boundary

    @property
    def body(self) -> bytes:
        """Its body."""
        return self.data[self.start :]


class Heads:
    """Reads heads, and remembers them."""

    def __init__(
        self, paths: Collection[str], owner: Callable[[bytes], Principal | None], personal: Collection[bytes] = ()
    ) -> None:
        """Of requests for ``paths``. ``owner`` tells whose one is by its headers, if it may be answered at all.

        ``personal`` headers are those that an answer has to regard.
        """
        self._paths = paths
        self._owner = owner
        self._personal = frozenset(personal)
        self._known: dict[bytes, Head | None] = {}
        """By all of a head but length and boundary; None of those that are not plain."""

    def read(self, data: bytes) -> Arrival | None:
        """The plain request that ``data`` is, or whose head it is; None of anything else."""
        end = data.find(HEAD_END, 0, LONGEST_HEAD)
        start = data.find(LENGTH_AS_MOST_WRITE_IT, 0, end)
        if start < 0:
            start = data.find(LENGTH, 0, end)
        if start < 0 or end < 0:
            return None
        start += len(LENGTH)
        stop = data.find(b"\r\n", start)
        digits = data[start:stop]
        if not digits.isdigit() or len(digits) > MOST_DIGITS:
            return None
        begin, size = end + len(HEAD_END), int(digits)
        if begin != len(data) != begin + size:
            return None
        kept, boundary = data[:start] + data[stop : end + 2], b""
        cut = kept.find(BOUNDARY)
        if cut >= 0:
            cut += len(BOUNDARY)
            stop = kept.find(b"\r\n", cut)
            boundary, kept = kept[cut:stop], kept[:cut] + kept[stop:]
            if PLAIN_BOUNDARY.fullmatch(boundary) is None:
                return None
        head = self._known[kept] if kept in self._known else self._learn(kept)
        return None if head is None else Arrival(data, head, begin, size, boundary)

    def _learn(self, kept: bytes) -> Head | None:
        plain = PLAIN_HEAD.fullmatch(kept)
        if plain is None:
            return None
        target, lines = plain.groups()
        headers = headers_of(lines[:-2])
        head = self._understand(target, lines, headers, kept.count(BOUNDARY))
        if FLEETING.isdisjoint(name for name, _ in headers):
            if len(self._known) >= MOST_HEADS:
                del self._known[next(iter(self._known))]
            self._known[kept] = head
        return head

    def _understand(self, target: bytes, lines: bytes, headers: list[Header], cuts: int) -> Head | None:
        """The head of these ``lines``, in which boundaries are to be put in ``cuts`` places."""
        names = [name for name, _ in headers]
        types = [value for name, value in headers if name == b"content-type"]
        if names.count(b"content-length") > 1 or not SPECIAL.isdisjoint(names) or len(types) > 1 or cuts > 1:
            return None
        if cuts and not (types and types[0].endswith(BOUNDARY)):
            return None
        path, _, query = target.partition(b"?")
        owner = self._owner(b"\r\n" + lines)
        if len(target) > LONGEST_TARGET or path.decode() not in self._paths or owner is None:
            return None
        leaves = any(name in CONNECTION and value.lower() != STAY for name, value in headers)
        personal = leaves or not self._personal.isdisjoint(names)
        return Head(target, path.decode(), query, b"".join(types), owner.key, given_id(headers), personal)
