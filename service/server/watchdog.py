"""Ends a process that does not end by itself, so that another one can take its place."""

import asyncio
import faulthandler
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import structlog

from service.metrics.multiprocess import WorkerSlot

BEAT_S = 0.1
LOOK_S = 1.0
"""Seconds between two checks of whether the event loop has run."""
HANGS = 70
"""Exit status of a process that ends because it hangs; EX_SOFTWARE of sysexits.h."""

log = structlog.get_logger(__name__)


class Watchdog:
    """Ends the process when its event loop is blocked for too long, or when it should have ended but has not.

    Before it does so, it writes the stack of every thread to stderr: they show what blocks the process.
    """

    def __init__(self, limit_s: float, end: Callable[[int], NoReturn], place: WorkerSlot | None = None) -> None:
        """The event loop may be blocked for ``limit_s``; ``end`` ends the process with a status.

        ``place`` is where a worker shows its supervisor that its event loop runs.
        """
        self._limit_s = limit_s
        self._end = end
        self._place = place
        self._beats = 0
        self._latest = math.inf

    def start(self) -> None:
        """Begin to watch the running event loop."""
        loop = asyncio.get_running_loop()
        self._beat(loop)
        threading.Thread(target=self._watch, args=(loop,), name="watchdog", daemon=True).start()

    def end_within(self, seconds: float) -> None:
        """End the process if it has not ended by then."""
        self._latest = min(self._latest, time.monotonic() + seconds)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beats += 1
        if self._place is not None:
            self._place.beats[self._place.number] = self._beats
        loop.call_later(BEAT_S, self._beat, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        seen, missed_s = self._beats, 0.0
        while missed_s < self._limit_s:
            time.sleep(LOOK_S)  # while the whole process is suspended, nothing is missed
            missed_s = missed_s + LOOK_S if self._beats == seen and loop.is_running() else 0.0
            seen = self._beats
            if time.monotonic() > self._latest:
                log.warning("stop_overdue")
                write_stacks()
                self._end(0)
        log.critical("event_loop_hangs", seconds=missed_s)
        write_stacks()
        self._end(HANGS)


def write_stacks() -> None:
    """Write the stacks of all threads to stderr, without the help of any of them."""
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
