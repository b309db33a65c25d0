"""The time-outs of a connection, with one timer however many requests come."""

import asyncio
from collections.abc import Callable
from enum import Enum


class Phase(Enum):
    """What a connection waits for."""

    REQUEST = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "an answer of ours"
    READER = "the client to read"


class Deadline:
    """Says when a phase has lasted too long.

    A new deadline moves the timer only if it is to fire earlier; a timer that fires early is set again. So a connection
    that is kept busy never touches it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[Phase], None]) -> None:
        """``expired`` is called once for a phase."""
        self._loop = loop
        self._expired: Callable[[Phase], None] | None = expired
        self._phase: Phase | None = None
        self._of: object = None
        self._limit_s = 0.0
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def enter(self, phase: Phase, limit_s: float | None, of: object = None) -> None:
        """Begin ``phase``, unless it is already that of the same thing; without a limit it may last for ever."""
        if phase is self._phase and of == self._of:
            return
        self._phase, self._of = phase, of
        if limit_s is None:
            self._at = None
        else:
            self._limit_s = limit_s
            self.renew()

    def renew(self) -> None:
        """Give the phase its time once more."""
        self._at = at = self._loop.time() + self._limit_s
        if self._timer is None or at < self._timer_at:
            self._set(at)

    def stop(self) -> None:
        """Forget everything, also whom to tell: the connection refers to here."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._of = self._at = self._phase = self._expired = None

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._fire)
        self._timer_at = at

    def _fire(self) -> None:
        self._timer = None
        if self._at is None or self._phase is None or self._expired is None:
            return
        if self._loop.time() < self._at:
            self._set(self._at)
            return
        self._at = None
        self._expired(self._phase)
