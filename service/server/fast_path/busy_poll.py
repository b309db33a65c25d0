"""An event loop that stays awake for a moment after an answer.

A processor that has fallen asleep takes a while to wake and to fill its caches again (`benchmarks.stages`); and
who asks for one picture after the other asks again soon.
"""

import asyncio
import os
from collections.abc import Callable, Sized
from time import perf_counter

give_way: Callable[[], object] = getattr(os, "sched_yield", lambda: None)
"""To whoever else wants this processor; Windows has no such call."""


class BusyPoll:
    """Looks for the next request instead of sleeping. All methods are called on the event loop.

    Only where requests come one after the other: answers that leave together have given the processor much to do, and
    may have kept others from it.
    """

    def __init__(self, seconds: float) -> None:
        """For ``seconds`` after an answer."""
        self._seconds = seconds
        self._until = 0.0
        self._under_way: Sized = ()
        self._answers = 0
        """In this turn."""
        self._looks = False

    def answered(self, under_way: Sized) -> None:
        """A request has been answered, still one of those ``under_way``; if there are more, they keep it awake."""
        if self._seconds:
            self._until = perf_counter() + self._seconds
            self._under_way = under_way
            self._answers += 1
            if not self._looks:
                self._looks = True
                asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        alone = self._answers <= 1 and len(self._under_way) <= 1
        self._answers = 0
        self._looks = alone and perf_counter() < self._until
        if self._looks:
            give_way()
            asyncio.get_running_loop().call_soon(self._look)
