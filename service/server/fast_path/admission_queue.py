"""Requests that wait before anything is done for them.

A request that is being answered is dozens of objects besides its pixels. Hundreds of them do not fit into the caches of
the processor: then each takes longer, and a service that has fallen behind never catches up. So only as many are
admitted as make good batches. The others wait as the bytes that arrived and are admitted one after the other.
"""

import asyncio
from collections.abc import Callable
from itertools import islice, takewhile
from time import perf_counter
from typing import NamedTuple

from service.inference.admission import CapacityLimiter
from service.server.http_request import HTTPRequest

TICK_S = 0.02


class QueuedRequest(NamedTuple):
    """What is known of a request that waits."""

    limiter: CapacityLimiter
    size: int
    """Bytes of its body, which count against the limiter."""
    since: float
    start: Callable[[float], None]
    """Has the request answered; it is told how many seconds it has waited."""


class AdmissionQueue:
    """Admits requests, first come, first served for each model. All methods are called on the event loop."""

    def __init__(self, *, open_below: int, patience_s: float) -> None:
        """With fewer than ``open_below`` requests in progress nobody waits, and nobody longer than ``patience_s``."""
        self._open_below = open_below
        self._patience_s = patience_s
        self._queues: dict[CapacityLimiter, dict[HTTPRequest, QueuedRequest]] = {}
        """By model, in the order in which the requests came."""
        self._is_advancing = False
        self._is_ticking = False

    def is_open(self, in_progress: int) -> bool:
        """Whether everybody is admitted at once while so many requests are in progress."""
        return in_progress < self._open_below and not self._queues

    def add(self, request: HTTPRequest, limiter: CapacityLimiter, size: int, start: Callable[[float], None]) -> None:
        """Let ``request`` wait; the caller knows that it fits."""
        limiter.take(1, size)
        limiter.queued += 1
        self._queues.setdefault(limiter, {})[request] = QueuedRequest(limiter, size, perf_counter(), start)
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._advance_soon()

    def remove(self, request: HTTPRequest) -> QueuedRequest | None:
        """Take ``request`` out; None if it does not wait."""
        for limiter, requests in self._queues.items():
            queued = requests.pop(request, None)
            if queued is not None:
                limiter.queued -= 1
                limiter.give_back(1, queued.size)
                if not requests:
                    del self._queues[limiter]
                return queued
        return None

    def advance(self) -> None:
        """Note that a request has ended: another one may be admitted."""
        if self._queues:
            self._advance_soon()

    def _admit(self, request: HTTPRequest) -> None:
        queued = self.remove(request)
        if queued is None:
            return
        limiter, size = queued.limiter, queued.size
        limiter.admitted += 1
        limiter.admitted_bytes += size
        try:
            queued.start(perf_counter() - queued.since)
        finally:  # after the first step of its task, in which it takes its room again
            asyncio.get_running_loop().call_soon(self._has_begun, limiter, size)

    def _has_begun(self, limiter: CapacityLimiter, size: int) -> None:
        limiter.admitted -= 1
        limiter.admitted_bytes -= size
        self.advance()

    def _advance_soon(self) -> None:
        """In the next turn of the event loop, when those that came in this one have taken their room."""
        if not self._is_advancing:
            self._is_advancing = True
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        """Admit as many as can be worked on."""
        self._is_advancing = False
        for limiter, requests in list(self._queues.items()):
            working = limiter.pictures - limiter.queued + limiter.admitted
            for request in list(islice(requests, max(0, limiter.concurrency - working))):
                self._admit(request)

    def _tick(self) -> None:
        """Admit those that have waited long enough: their model may not answer, or an answer could not be sent."""
        self._is_ticking = bool(self._queues)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        latest = perf_counter() - self._patience_s
        for requests in list(self._queues.values()):
            for request, _ in list(takewhile(lambda entry: entry[1].since <= latest, requests.items())):
                self._admit(request)
        self._advance()
