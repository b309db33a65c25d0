"""Who is let in at the wire, who waits there, and who is refused.

A request that is worked on is dozens of objects besides its pixels. Hundreds of them do not fit into the processor's
caches: then all take longer, and a service that once fell behind never catches up. So no more are let in than make
good batches. Others wait as the bytes that came, and are let in one after the other; for whom there is no room left is
refused. Both happen before anything is parsed, since under overload what they cost is taken from the answers.

Only plain requests that came whole, for what was answered before, are treated so. All others are let in.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from time import perf_counter
from typing import NamedTuple, Protocol

from starlette.types import Scope

from service.access import AccessLog, new_id
from service.access import Client as Address
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
TICK_S = 0.02
START = b"POST "
VERSION = b" HTTP/1.1\r\n"
HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
SPECIAL = (b"transfer-encoding", b"expect", b"upgrade", b"x-timeout-ms")
"""What headers may not hold anywhere if their request is to wait unparsed."""
PERSONAL = (b"connection: close", b"x-request-id", b"traceparent")
"""What headers may not hold anywhere if their request is to be refused unparsed."""
NO_ROOM = QueueFullError("too much is waiting already; try again a little later")


class Held(NamedTuple):
    """A request that waits."""

    data: bytes
    room: Room
    size: int
    """Bytes of its body, for which it has taken room."""
    since: float


class Caller(Protocol):
    """A connection."""

    held: Held | None
    """Its request, while that waits here."""
    client: Address

    def say_no(self, answer: bytes) -> None:
        """Its request is answered already."""

    def go_on(self, data: bytes, held_s: float) -> None:
        """Its request has waited for so long and is to be parsed now."""


class Known(NamedTuple):
    """What was answered once."""

    refusal: Exchange
    """Of a request for the same that is refused."""
    content: bytes


class Turnstile:
    """Lets requests in. All methods are called on the event loop."""

    def __init__(
        self,
        models: Models,
        lines: AccessLog,
        may_wait: Callable[[bytes], bool],
        *,
        open_below: int,
        patience_s: float,
    ) -> None:
        """With less than ``open_below`` requests under way nobody waits, and nobody waits longer than ``patience_s``.

        ``may_wait`` says by its headers whether a request may take room.
        """
        self._models = models
        self._lines = lines
        self._may_wait = may_wait
        self._open_below = open_below
        self._patience_s = patience_s
        self._known: dict[bytes, Known] = {}
        """By target, as it stands in a request."""
        self._held: dict[Room, dict[Caller, Held]] = {}
        """By model, in the order in which they came."""
        self._let_in: Counter[Room] = Counter()
        """In this turn of the event loop: they have not taken room for themselves yet."""
        self._advancing = False

    def is_open(self, under_way: int) -> bool:
        """Whether everybody is let in, when so many requests are under way."""
        return under_way < self._open_below and not self._held

    def ended(self, scope: Scope, exchange: Exchange) -> None:
        """A request has ended, somehow."""
        if self._held:
            self._advance_soon()
        if exchange.status == 200 and exchange.model is not None:
            target: bytes = scope["raw_path"]
            if scope["query_string"]:
                target += b"?" + scope["query_string"]
            if target not in self._known and len(target) <= LONGEST:
                self._learn(target, scope["path"], exchange)

    def admits(self, caller: Caller, data: bytes) -> bool:
        """Whether the request that ``data`` is, or begins, is to be parsed now. If not, it waits or was refused."""
        end = data.find(VERSION, len(START), len(START) + LONGEST + 1)
        if end < 0 or not data.startswith(START):
            return True
        target = data[len(START) : end]
        known = self._known.get(target)
        body = data.find(HEAD_END, end, LONGEST_HEAD) + len(HEAD_END)
        if known is None or body < end:
            return True
        headers, size = data[end:body], len(data) - body
        if plain_length(headers) != size or not self._may_wait(headers):
            return True
        try:
            room = self._models.find(known.refusal.model, known.refusal.version).room
        except UnknownModelError:  # it has gone
            del self._known[target]
            return True
        if room.fits(1 + self._let_in[room], size):
            room.take(1, size)
            self._hold(caller, Held(data, room, size, perf_counter()))
        elif is_personal(headers):
            return True
        else:
            self._refuse(caller, target, known)
        return False

    def leave(self, caller: Caller) -> None:
        """``caller`` has gone."""
        if caller.held is not None:
            self._take_out(caller, caller.held)

    def let_in(self, caller: Caller) -> None:
        """Do not let the request of ``caller`` wait any longer."""
        held = caller.held
        if held is not None:
            self._take_out(caller, held)
            caller.go_on(held.data, perf_counter() - held.since)

    def _learn(self, target: bytes, path: str, exchange: Exchange) -> None:
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        refusal = exchange.like("")
        refusal.status, refusal.error = NO_ROOM.status, NO_ROOM.code
        self._known[target] = Known(refusal, to_bytes(describe_error(NO_ROOM, path)))

    def _refuse(self, caller: Caller, target: bytes, known: Known) -> None:
        exchange = known.refusal.like(new_id())
        exchange.end()
        self._lines.add("POST", target.partition(b"?")[0].decode("latin-1"), caller.client, exchange)
        METERS.ended(exchange, {})
        caller.say_no(to_http(NO_ROOM, known.content, exchange.id, NO_ROOM.headers))

    def _hold(self, caller: Caller, held: Held) -> None:
        if not self._held:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        caller.held = held
        held.room.held += 1
        self._held.setdefault(held.room, {})[caller] = held
        self._advance_soon()

    def _take_out(self, caller: Caller, held: Held) -> None:
        caller.held = None
        held.room.held -= 1
        held.room.give_back(1, held.size)
        callers = self._held[held.room]
        del callers[caller]
        if not callers:
            del self._held[held.room]

    def _advance_soon(self) -> None:
        """In the next turn of the event loop, when those who came in this one have taken their room."""
        if not self._advancing:
            self._advancing = True
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        """Let in as many as can be worked on."""
        self._advancing = False
        for room, callers in list(self._held.items()):
            worked_on = room.pictures - room.held + self._let_in[room]
            for caller in list(islice(callers, max(0, room.at_once - worked_on))):
                self.let_in(caller)
                self._let_in[room] += 1
        if self._let_in:
            asyncio.get_running_loop().call_soon(self._let_in.clear)

    def _tick(self) -> None:
        """Nobody waits for a model that does not answer."""
        latest = perf_counter() - self._patience_s
        for callers in list(self._held.values()):
            for caller, held in list(callers.items()):
                if held.since > latest:
                    break
                self.let_in(caller)
        if self._held:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)


@lru_cache(maxsize=256)
def is_personal(headers: bytes) -> bool:
    """Whether an answer to a request with ``headers`` has to regard them."""
    lowered = headers.lower()
    return any(word in lowered for word in PERSONAL)


@lru_cache(maxsize=256)
def plain_length(headers: bytes) -> int | None:
    """How many bytes follow ``headers``; None where they ask for anything out of the ordinary."""
    lowered = headers.lower()
    _, _, after = lowered.partition(LENGTH)
    if LENGTH in after or any(word in lowered for word in SPECIAL):
        return None
    number = after.partition(b"\r\n")[0].strip()
    return int(number) if number.isdigit() else None
