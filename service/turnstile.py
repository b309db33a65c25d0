"""Says no at the wire.

Under overload most requests are refused, and what refusing them costs is taken from those that could be answered. So
what was refused for want of room is refused again, as long as there is none, before it is parsed.
"""

import asyncio
from functools import lru_cache

from starlette.types import Scope

from service.access import AccessLog, new_id
from service.answers import describe_error, to_bytes, to_http
from service.errors import QueueFullError, UnknownModelError
from service.exchange import Exchange
from service.meters import METERS
from service.models import Models
from service.room import Room

MOST = 256
"""Targets that are remembered."""
LONGEST = 300
"""Bytes of a target."""
LONGEST_HEAD = 2000
START = b"POST "
VERSION = b" HTTP/1.1\r\n"
HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
SPECIAL = (b"transfer-encoding", b"expect", b"upgrade", b"connection: close", b"x-request-id", b"traceparent")
"""What headers may not hold anywhere to be understood without a parser."""
NO_ROOM = QueueFullError("too much is waiting already; try again a little later")


class Refused:
    """What is known of requests for one target that found no room."""

    def __init__(self, room: Room, exchange: Exchange, content: bytes) -> None:
        self.room = room
        self.exchange = exchange
        self.content = content
        self._let_through = 0
        """Requests that were read in this turn of the event loop and have not taken their room yet."""

    def lets_through(self) -> bool:
        """Whether there is room for one more, which then counts."""
        if self._let_through >= self.room.left:
            return False
        if not self._let_through:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._let_through += 1
        return True

    def _next_turn(self) -> None:
        self._let_through = 0


class Turnstile:
    """Lets no more through than there is room for. All methods are called on the event loop."""

    def __init__(self, models: Models, lines: AccessLog) -> None:
        self._models = models
        self._lines = lines
        self.refused: dict[bytes, Refused] = {}
        """By target, as it stands in a request; a target is forgotten when its model's room is half empty again."""

    def remember(self, scope: Scope, exchange: Exchange) -> None:
        """A request has found no room."""
        try:
            room = self._models.find(exchange.model, exchange.version).room
        except UnknownModelError:  # it has just gone
            return
        target: bytes = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        known = self.refused.get(target)
        if known is not None and known.room is room:
            return
        if scope["method"] == "POST" and len(target) <= LONGEST and len(self.refused) < MOST:
            self.refused[target] = Refused(room, exchange, to_bytes(describe_error(NO_ROOM, scope["path"])))

    def refuse(self, data: bytes, client: tuple[str, int] | None) -> bytes | None:
        """The answer to the one whole request that ``data`` is; None if it is no such thing, or has room."""
        end = data.find(VERSION, len(START), len(START) + LONGEST + 1)
        if end < 0 or not data.startswith(START):
            return None
        target = data[len(START) : end]
        refused = self.refused.get(target)
        if refused is None:
            return None
        if refused.room.calm:
            del self.refused[target]
            return None
        body = data.find(HEAD_END, end, LONGEST_HEAD) + len(HEAD_END)
        if body < end or plain_length(data[end:body]) != len(data) - body or refused.lets_through():
            return None
        exchange = refused.exchange.like(new_id())
        exchange.end()
        self._lines.add("POST", target.partition(b"?")[0].decode("latin-1"), client, exchange)
        METERS.ended(exchange, {})
        return to_http(NO_ROOM, refused.content, exchange.id, NO_ROOM.headers)


@lru_cache(maxsize=256)
def plain_length(headers: bytes) -> int | None:
    """How many bytes follow ``headers``; None where they ask for anything out of the ordinary."""
    lowered = headers.lower()
    _, _, after = lowered.partition(LENGTH)
    if LENGTH in after or any(word in lowered for word in SPECIAL):
        return None
    number = after.partition(b"\r\n")[0].strip()
    return int(number) if number.isdigit() else None
