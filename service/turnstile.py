"""Who is let in at the wire, who waits there, and who is refused.

A request that is worked on is dozens of objects besides its pixels. Hundreds of them do not fit into the processor's
caches: then all take longer, and a service that once fell behind never catches up. So no more are let in than make
good batches. Others wait as the bytes that came, and are let in one after the other; for whom there is no room left is
refused. Both happen before anything is parsed, since under overload what they cost is taken from the answers.

Only plain requests that come whole, or whose body is a moment behind its head, for a picture that was answered before,
are treated so. All others are let in.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from itertools import islice, takewhile
from time import perf_counter
from typing import NamedTuple, Protocol

from starlette.types import Scope

from service.access import AccessLog, Client, headers_of, new_id, request_id
from service.answers import OPEN_INFERENCE, describe_error, to_bytes, to_http
from service.errors import QueueFullError, UnknownModelError
from service.exchange import Exchange
from service.guard import Pass
from service.meters import METERS
from service.models import Models
from service.room import Room

MOST_TARGETS = 256
LONGEST_TARGET = 300
"""Bytes of one that is remembered."""
LONGEST_HEAD = 2000
"""Bytes of the head of a request that may wait."""
TICK_S = 0.02
START = b"POST "
VERSION = b" HTTP/1.1\r\n"
HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
FOLDED = (b"\r\n ", b"\r\n\t", b"\0")
SPECIAL = (b"transfer-encoding", b"expect", b"upgrade", b"x-timeout-ms")
"""What headers may not hold anywhere if their request is to wait unparsed."""
PERSONAL = (b"connection: close", b"x-request-id", b"traceparent", b"\r\norigin:")
"""What headers may not hold anywhere if their request is to be refused unparsed."""
NO_ROOM = QueueFullError("too much is waiting already; try again a little later")


class Held(NamedTuple):
    """A request that waits."""

    data: bytes
    room: Room
    size: int
    """Bytes of its body, for which it has taken room."""
    since: float
    key: str | None
    """Whose key the request has."""


class Caller(Protocol):
    """A connection."""

    held: Held | None
    """Its request, while that waits here."""
    client: Client

    def say_no(self, answer: bytes) -> None:
        """Its request is answered already."""

    def go_on(self, data: bytes, held_s: float) -> None:
        """Its request has waited for so long and is to be parsed now."""

    def await_body(self, head: bytes) -> None:
        """Its request has begun; more can be said when its body is there too, which may be a moment behind."""


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
        may_wait: Callable[[bytes], Pass | None],
        *,
        open_below: int,
        patience_s: float,
    ) -> None:
        """With less than ``open_below`` requests under way nobody waits, and nobody waits longer than ``patience_s``.

        ``may_wait`` says by its headers whose a request is, if it may take room.
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
        self._advancing = False
        self._ticking = False
        self._changes = models.changes

    def is_open(self, under_way: int) -> bool:
        """Whether everybody is let in, when so many requests are under way."""
        return under_way < self._open_below and not self._held

    def ended(self, scope: Scope, exchange: Exchange) -> None:
        """A request has ended, somehow."""
        if self._held:
            self._advance_soon()
        if exchange.status == 200 and exchange.model is not None and not scope["path"].startswith(OPEN_INFERENCE):
            target: bytes = scope["raw_path"]
            if scope["query_string"]:
                target += b"?" + scope["query_string"]
            known = self._known.get(target)
            if known is None or (known.refusal.model, known.refusal.version) != (exchange.model, exchange.version):
                self._learn(target, scope["path"], exchange)

    def admits(self, caller: Caller, data: bytes) -> bool:
        """Whether the request that ``data`` is, or begins, is to be parsed now.

        If not, it waits, or was refused, or is to be shown again with its body.
        """
        if self._changes != self._models.changes:  # targets may mean other models
            self._changes = self._models.changes
            self._known.clear()
        end = data.find(VERSION, len(START), len(START) + LONGEST_TARGET + 1)
        if end < 0 or not data.startswith(START):
            return True
        target = data[len(START) : end]
        known = self._known.get(target)
        body = data.find(HEAD_END, end, LONGEST_HEAD) + len(HEAD_END)
        if known is None or body < end:
            return True
        headers, size = data[end:body], len(data) - body
        length = plain_length(headers)
        if length is None or (owner := self._may_wait(headers)) is None:
            return True
        if size == 0 < length:
            caller.await_body(data)
            return False
        if size != length:
            return True
        try:
            room = self._models.find(known.refusal.model, known.refusal.version).room
        except UnknownModelError:  # it has gone
            del self._known[target]
            return True
        if room.fits(1, size):
            room.take(1, size)
            self._hold(caller, Held(data, room, size, perf_counter(), owner.key))
        elif is_personal(headers) or not room.could_fit(1, size):
            return True
        else:
            self._refuse(caller, target, known, owner)
        return False

    def leave(self, caller: Caller, head: bytes = b"") -> None:
        """``caller`` has gone; ``head`` is what came of a request that was neither parsed nor held, if any."""
        held, request, held_s, key = caller.held, head, 0.0, None
        if held is not None:
            self._take_out(caller, held)
            request, held_s, key = held.data, perf_counter() - held.since, held.key
        if request:
            exchange = Exchange(request_id(headers_of(request.partition(HEAD_END)[0])), held_s)
            exchange.key = key
            target = request[len(START) : request.find(VERSION)]
            known = self._known.get(target)
            if known is not None:
                refusal = known.refusal
                exchange.route, exchange.model, exchange.version = refusal.route, refusal.model, refusal.version
            self._note(caller, target, exchange)

    def let_in(self, caller: Caller) -> None:
        """Do not let the request of ``caller`` wait any longer."""
        held = caller.held
        if held is None:
            return
        self._take_out(caller, held)
        held.room.let_in += 1
        held.room.let_in_bytes += held.size
        try:
            caller.go_on(held.data, perf_counter() - held.since)
        finally:  # behind the first step of its task, if it became one
            asyncio.get_running_loop().call_soon(self._has_begun, held.room, held.size)

    def _has_begun(self, room: Room, size: int) -> None:
        """A request that was let in has taken its room, or was none."""
        room.let_in -= 1
        room.let_in_bytes -= size
        if self._held:
            self._advance_soon()

    def _learn(self, target: bytes, path: str, exchange: Exchange) -> None:
        if len(target) > LONGEST_TARGET:
            return
        if len(self._known) >= MOST_TARGETS:
            del self._known[next(iter(self._known))]
        refusal = exchange.like("")
        refusal.status, refusal.error = NO_ROOM.status, NO_ROOM.code
        self._known[target] = Known(refusal, to_bytes(describe_error(NO_ROOM, path)))

    def _refuse(self, caller: Caller, target: bytes, known: Known, owner: Pass) -> None:
        exchange = known.refusal.like(new_id())
        exchange.key = owner.key
        self._note(caller, target, exchange)
        caller.say_no(to_http(NO_ROOM, known.content, exchange.id, NO_ROOM.headers))

    def _note(self, caller: Caller, target: bytes, exchange: Exchange) -> None:
        """Log and count a request that ends unparsed."""
        exchange.end()
        self._lines.add("POST", target.partition(b"?")[0].decode("latin-1"), caller.client, exchange)
        METERS.ended(exchange, {})

    def _hold(self, caller: Caller, held: Held) -> None:
        if not self._ticking:
            self._ticking = True
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
            worked_on = room.pictures - room.held + room.let_in
            for caller in list(islice(callers, max(0, room.at_once - worked_on))):
                self.let_in(caller)

    def _tick(self) -> None:
        """Nobody waits for a model that does not answer, or because an answer could not be sent."""
        self._ticking = bool(self._held)
        if self._ticking:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        latest = perf_counter() - self._patience_s
        for callers in list(self._held.values()):
            for caller, _ in list(takewhile(lambda entry: entry[1].since <= latest, callers.items())):
                self.let_in(caller)
        self._advance()


@lru_cache(maxsize=256)
def is_personal(headers: bytes) -> bool:
    """Whether an answer to a request with ``headers`` has to regard them."""
    lowered = headers.lower()
    return any(word in lowered for word in PERSONAL)


@lru_cache(maxsize=256)
def plain_length(headers: bytes) -> int | None:
    """How many bytes follow ``headers``; None where they ask for anything out of the ordinary."""
    lowered = headers.lower()
    lines = lowered.count(b"\r\n")
    if lowered.count(b"content-length") != 1 or lines != lowered.count(b"\n") or lines != lowered.count(b"\r"):
        return None
    if any(word in lowered for word in SPECIAL + FOLDED):
        return None
    number = lowered.partition(LENGTH)[2].partition(b"\r\n")[0].strip(b" \t")
    return int(number) if number.isdigit() else None
