"""Who is let in at the wire, who waits there, and who is refused.

A request that is worked on is dozens of objects besides its pixels. Hundreds of them do not fit into the processor's
caches: then all take longer, and a service that once fell behind never catches up. So no more are let in than make
good batches. Others wait as the bytes that came, and are let in one after the other; for whom there is no room left is
refused. Both happen before anything is parsed, since under overload what they cost is taken from the answers.

Only plain requests (`heads.py`) like one that was answered before are treated so. All others are let in.
"""

import asyncio
from itertools import islice, takewhile
from time import perf_counter
from typing import NamedTuple, Protocol

from service.errors import ModelNotFoundError, QueueFullError
from service.inference.admission import CapacityLimiter
from service.inference.registry import Models
from service.middleware.access_log import AccessLog, Client, record_end
from service.middleware.request_id import headers_of, new_id, request_id
from service.request_context import RequestContext
from service.responses import OPEN_INFERENCE, RawResponse, error_response
from service.server.fast_path.heads import HEAD_END, LONGEST_TARGET, Arrival, Head

MOST_TARGETS = 256
TICK_S = 0.02
NO_ROOM = QueueFullError("too much is waiting already; try again a little later")


class QueuedRequest(NamedTuple):
    """A request that waits."""

    arrival: Arrival
    room: CapacityLimiter
    """Of which it has taken as much as its body has bytes."""
    since: float


class Caller(Protocol):
    """A connection."""

    held: QueuedRequest | None
    """Its request, while that waits here."""
    client: Client

    def reply(self, reply: RawResponse, request_id: str) -> None:
        """Its request is answered."""

    def go_on(self, arrival: Arrival, held_s: float) -> None:
        """Its request has waited for so long and is to be worked on now."""


class Known(NamedTuple):
    """What was answered once."""

    ending: RequestContext
    """Of a request for the same that is refused."""
    reply: RawResponse


class AdmissionQueue:
    """Lets requests in. All methods are called on the event loop."""

    def __init__(self, models: Models, lines: AccessLog, *, open_below: int, patience_s: float) -> None:
        """With fewer than ``open_below`` requests under way nobody waits; nobody waits longer than ``patience_s``."""
        self._models = models
        self._lines = lines
        self._open_below = open_below
        self._patience_s = patience_s
        self._known: dict[bytes, Known] = {}
        """By target, as it stands in a request."""
        self._held: dict[CapacityLimiter, dict[Caller, QueuedRequest]] = {}
        """By model, in the order in which they came."""
        self._advancing = False
        self._ticking = False
        self._changes = models.changes

    def is_open(self, under_way: int) -> bool:
        """Whether everybody is let in, when so many requests are under way."""
        return under_way < self._open_below and not self._held

    def ended(self, path: str, target: bytes, exchange: RequestContext) -> None:
        """A request for ``target`` has ended, somehow."""
        if self._held:
            self._advance_soon()
        tells_model = exchange.model is not None and not exchange.model_in_body
        if exchange.status == 200 and tells_model and not path.startswith(OPEN_INFERENCE):
            known = self._known.get(target)
            if known is None or (known.ending.model, known.ending.version) != (exchange.model, exchange.version):
                self._learn(target, path, exchange)

    def admits(self, caller: Caller, arrival: Arrival) -> bool:
        """Whether a request that has come whole is let in now. If not, it waits or was refused."""
        if self._changes != self._models.changes:  # targets may mean other models
            self._changes = self._models.changes
            self._known.clear()
        head, size = arrival.head, arrival.size
        known = self._known.get(head.target)
        if known is None:
            return True
        try:
            room = self._models.find(known.ending.model, known.ending.version).room
        except ModelNotFoundError:  # it has gone
            del self._known[head.target]
            return True
        if room.fits(1, size):
            room.take(1, size)
            self._hold(caller, QueuedRequest(arrival, room, perf_counter()))
        elif head.personal or not room.could_fit(1, size):
            return True
        else:
            self._refuse(caller, head, known)
        return False

    def leave(self, caller: Caller, head: bytes = b"") -> None:
        """``caller`` has gone; ``head`` is what came of a request that was neither worked on nor held, if any."""
        held, request, held_s, key = caller.held, head, 0.0, None
        if held is not None:
            self._take_out(caller, held)
            request, key = held.arrival.data, held.arrival.head.key
            held_s = perf_counter() - held.since
        if request:
            exchange = RequestContext(request_id(headers_of(request.partition(HEAD_END)[0])), held_s)
            exchange.key = key
            target = request.split(b" ", 2)[1]
            known = self._known.get(target)
            if known is not None:
                ending = known.ending
                exchange.route, exchange.model, exchange.version = ending.route, ending.model, ending.version
            self._note(caller, target, exchange)

    def let_in(self, caller: Caller) -> None:
        """Do not let the request of ``caller`` wait any longer."""
        held = caller.held
        if held is None:
            return
        self._take_out(caller, held)
        held.room.let_in += 1
        held.room.let_in_bytes += held.arrival.size
        try:
            caller.go_on(held.arrival, perf_counter() - held.since)
        finally:  # behind the first step of its task, if it became one
            asyncio.get_running_loop().call_soon(self._has_begun, held.room, held.arrival.size)

    def _has_begun(self, room: CapacityLimiter, size: int) -> None:
        """A request that was let in has taken its room, or was none."""
        room.let_in -= 1
        room.let_in_bytes -= size
        if self._held:
            self._advance_soon()

    def _learn(self, target: bytes, path: str, exchange: RequestContext) -> None:
        if len(target) > LONGEST_TARGET:
            return
        if len(self._known) >= MOST_TARGETS:
            del self._known[next(iter(self._known))]
        ending = exchange.like("")
        ending.status, ending.error = NO_ROOM.status, NO_ROOM.code
        self._known[target] = Known(ending, error_response(NO_ROOM, path))

    def _refuse(self, caller: Caller, head: Head, known: Known) -> None:
        exchange = known.ending.like(head.id or new_id())
        exchange.key = head.key
        self._note(caller, head.target, exchange)
        caller.reply(known.reply, exchange.id)

    def _note(self, caller: Caller, target: bytes, exchange: RequestContext) -> None:
        """Log and count a request that ends unparsed."""
        record_end(exchange, self._lines, "POST", target.partition(b"?")[0].decode("latin-1"), caller.client)

    def _hold(self, caller: Caller, held: QueuedRequest) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        caller.held = held
        held.room.held += 1
        self._held.setdefault(held.room, {})[caller] = held
        self._advance_soon()

    def _take_out(self, caller: Caller, held: QueuedRequest) -> None:
        caller.held = None
        held.room.held -= 1
        held.room.give_back(1, held.arrival.size)
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
