"""Busy polling: an event loop that looks for the next request for a moment before it sleeps.

A processor that has fallen asleep takes a while to wake and to fill its caches again (`benchmarks.serving.stages`), and
a client that sends one request after the other sends the next one soon. It costs processor time while the service is
idle, so it is off by default.
"""

import asyncio
import os
from collections.abc import Callable, Sized
from time import perf_counter

give_way: Callable[[], object] = getattr(os, "sched_yield", lambda: None)
"""Lets another process have this processor; Windows has no such call."""


class BusyPoll:
    """Keeps the event loop awake after an answer. All methods are called on the event loop.

    It does so only while requests come one after the other: with several at once the processor does not fall asleep,
    and others may need it.
    """

    def __init__(self, seconds: float) -> None:
        """Poll for ``seconds`` after an answer; 0 never polls."""
        self._seconds = seconds
        self._until = 0.0
        self._in_progress: Sized = ()
        self._answers = 0
        """Answers in this turn of the event loop."""
        self._is_polling = False

    def answered(self, in_progress: Sized) -> None:
        """Note an answer, whose request is still among those ``in_progress``."""
        if self._seconds:
            self._until = perf_counter() + self._seconds
            self._in_progress = in_progress
            self._answers += 1
            if not self._is_polling:
                self._is_polling = True
                asyncio.get_running_loop().call_soon(self._poll)

    def _poll(self) -> None:
        is_alone = self._answers <= 1 and len(self._in_progress) <= 1
        self._answers = 0
        self._is_polling = is_alone and perf_counter() < self._until
        if self._is_polling:
            give_way()
            asyncio.get_running_loop().call_soon(self._poll)
