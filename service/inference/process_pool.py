"""Processes for work that may have to be killed."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

import pebble
import structlog

from service.errors import InvalidImageError, NotReadyError
from service.inference.rectified.memory import return_free_memory

SPAWN = multiprocessing.get_context("spawn")  # threads of ONNX Runtime do not survive a fork
NICE = 5
"""Added to the niceness of the processes, so that inference has priority where processors are scarce."""
SPARE_BYTES = 256 * 2**20
"""Address space of a process besides that of its work, for shared libraries and stacks of threads."""
IDLE_S = 60.0
"""Time without work after which the processes end, since the threads that watch them wake twenty times a second."""
ATTEMPTS = 2
"""A pool is broken if an idle process was killed from outside; the second attempt creates another pool."""

Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class ProcessPool:
    """Processes that start at their first use. Work is killed at its deadline or when it is cancelled.

    The processes and the threads that watch them end after a minute without work.
    """

    def __init__(self, processes: int, max_bytes: int, idle_s: float = IDLE_S) -> None:
        """Each process may take ``max_bytes`` for its work."""
        self._processes = processes
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._free = asyncio.Semaphore(processes)  # work that waits here can be cancelled, unlike in the pool
        self._lock = threading.Lock()
        self._pool: pebble.ProcessPool | None = None
        self._users = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[..., Value], *arguments: object, deadline: float) -> Value:
        """Run ``work``, a function of a module, with ``arguments`` in a process.

        Raises:
            TimeoutError: the ``deadline`` has passed, and the process was killed.
            InvalidImageError: the process died.
            NotReadyError: no process can be started.
        """
        self._begin_use()
        try:
            async with self._free:
                return await self._run(work, arguments, deadline)
        finally:
            self._end_use()

    async def _run(self, work: Callable[..., Value], arguments: tuple[object, ...], deadline: float) -> Value:
        for _ in range(ATTEMPTS):
            try:
                pool = await asyncio.to_thread(self._start)
                left = deadline - time.perf_counter()
                if left <= 0:
                    raise TimeoutError
                future = pool.schedule(run_and_tidy, (work, *arguments), timeout=left)
                return await asyncio.wrap_future(future)
            except pebble.ProcessExpired as error:
                log.warning("decoder_died", exit=error.exitcode)
                raise InvalidImageError(
                    "the decoder of this picture failed without a message; save the picture again as PNG"
                ) from error
            except BrokenProcessPool as error:
                log.warning("decoders_restarted", error=repr(error))
        raise NotReadyError("no process could be started to decode the picture; try again later")

    def _start(self) -> pebble.ProcessPool:
        with self._lock:
            if self._pool is None or not self._pool.active:
                self._pool = pebble.ProcessPool(
                    self._processes, initializer=begin, initargs=(self._max_bytes,), context=SPAWN
                )
                if not self._pool.active:  # which starts its processes
                    raise BrokenProcessPool
            return self._pool

    def _begin_use(self) -> None:
        self._users += 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _end_use(self) -> None:
        self._users -= 1
        if not self._users and self._pool is not None:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._stop_idle)

    def _stop_idle(self) -> None:
        stopping = asyncio.ensure_future(self._stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def _stop(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(pool.join)

    async def close(self) -> None:
        """Kill all processes."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        await asyncio.gather(self._stop(), *self._stopping)


def begin(max_bytes: int) -> None:
    """Prepare a process: it ends with its parent or on SIGTERM, has a low priority and a memory limit."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler would run only when the decoder returns
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    with suppress(AttributeError, OSError):
        os.nice(NICE)
    limit_memory(max_bytes)


def end_with_parent() -> None:
    """End at once when the parent ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)


def limit_memory(max_bytes: int) -> None:
    """Limit this process to ``max_bytes`` more than its present address space, on Linux."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = now + max_bytes + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def run_and_tidy(work: Callable[..., Value], *arguments: object) -> Value:
    """Run ``work``, then return free memory to the system."""
    try:
        return work(*arguments)
    finally:
        return_free_memory()
