"""Sends pictures to the process that shadows, and brings back what it found.

The event loop only puts a picture into a bounded queue, or drops it. A thread does the rest. If the process hangs, it
is killed, and if it dies, it is started again after a pause; live pictures notice neither.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from service.background import backoff_s
from service.rollout.messages import Job, Outcome, Shown
from service.rollout.process import work

SPAWN = multiprocessing.get_context("spawn")  # threads of ONNX Runtime do not survive a fork
MOST_WAITING = 64
"""Pictures in the queue."""
MOST_BYTES = 32 * 2**20
"""Bytes of the pictures in the queue."""
TOGETHER = 8
"""Pictures that are sent at a time."""
STEP_S = 0.1
"""Interval between looks at what the process does while its answer is awaited."""
PATIENCE = 20
"""How many seconds of waiting for a processor count as one second of work."""
PAUSE_S = 1.0
"""Pause before a process that failed is started again, which doubles with each failure in a row."""

log = structlog.get_logger(__name__)


class Limits(NamedTuple):
    """Longest times in seconds."""

    load_s: float
    """For the start of the process and the loading of both versions."""
    compare_s: float
    """For the pictures that are sent at a time."""


class Offer(NamedTuple):
    """A picture in the queue."""

    shown: Shown
    file: bytes
    """Stays here, and is given back with the outcome."""

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.shown.size + len(self.file)


class Shadow:
    """Compares the versions of ``job``. `offer` and `close` are called on the event loop, and so are the callbacks."""

    def __init__(
        self,
        job: Job,
        limits: Limits,
        is_busy: Callable[[], bool],
        on_outcomes: Callable[[list[tuple[Outcome, bytes]]], None],
        on_dropped: Callable[[str, int], None],
    ) -> None:
        """Start a thread; the process starts with the first picture.

        Args:
            job: what to compare.
            limits: longest times.
            is_busy: whether a live picture waits. The thread calls it too.
            on_outcomes: is given what was found for pictures, each with its file.
            on_dropped: is told the reason and the number of pictures that were not compared.
        """
        self._job = job
        self._limits = limits
        self._is_busy = is_busy
        self._on_outcomes = on_outcomes
        self._on_dropped = on_dropped
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Offer] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._running: tuple[Connection, BaseProcess] | None = None
        self.trouble = ""
        """Why the process failed, if it did when it was last used."""
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def offer(self, offer: Offer) -> None:
        """Compare a picture if there is room and no live picture waits; otherwise drop it."""
        if self._is_busy():
            self._on_dropped("busy", 1)
            return
        with self._changed:
            if len(self._waiting) < MOST_WAITING and self._bytes + offer.size <= MOST_BYTES:
                self._waiting.append(offer)
                self._bytes += offer.size
                self._changed.notify()
                return
        self._on_dropped("full", 1)

    def close(self) -> None:
        """Kill the process, and compare nothing more."""
        self._closed.set()
        with self._changed:
            self._changed.notify()
            if self._running is not None:
                self._running[1].kill()

    def _run(self) -> None:
        failures = 0
        while offers := self._take():
            try:
                outcomes = self._ask([offer.shown for offer in offers])
            except Exception as error:  # noqa: BLE001 - the process may fail in any way
                reason = "hung" if isinstance(error, TimeoutError) else "crashed"
                self._stop()
                if self._closed.is_set():
                    return
                failures += 1
                pause_s = backoff_s(PAUSE_S, failures - 1)
                self.trouble = str(error) or type(error).__name__
                log.error(  # noqa: TRY400 - the message is enough
                    "shadow_failed",
                    model=self._job.name,
                    version=self._job.version,
                    reason=reason,
                    error=self.trouble,
                    retry_s=pause_s,
                )
                self._report(self._on_dropped, reason, len(offers))
                self._closed.wait(pause_s)
                self._report(self._on_dropped, reason, self._clear())  # they may be like the one that did it
            else:
                failures, self.trouble = 0, ""
                files = [offer.file for offer in offers]
                self._report(self._on_outcomes, list(zip(outcomes, files, strict=True)))
        self._stop()

    def _take(self) -> list[Offer]:
        """Wait for pictures and return the next few; none when closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
                if self._closed.is_set():
                    return []
                taken = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
                self._bytes -= sum(offer.size for offer in taken)
            if not self._is_busy():
                return taken
            self._report(self._on_dropped, "busy", len(taken))

    def _clear(self) -> int:
        """Drop the pictures that wait, and return how many there were."""
        with self._changed:
            dropped = len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        return dropped

    def _ask(self, pictures: list[Shown]) -> Sequence[Outcome]:
        """Return what the process finds, which is started if there is none.

        Raises:
            TimeoutError: it hangs.
            OSError: it has died.
            RuntimeError: it cannot load a version.
        """
        pipe, process = self._running or self._start()
        pipe.send(pictures)
        outcomes: Sequence[Outcome] = receive(pipe, process, self._limits.compare_s)
        return outcomes

    def _start(self) -> tuple[Connection, BaseProcess]:
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=work, args=(theirs, self._job), name="shadow", daemon=True)
        resource_tracker.ensure_running()  # which would unblock the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the process inherits until it ignores it
        try:
            process.start()
        finally:
            theirs.close()
        with self._changed:
            self._running = ours, process
        if self._closed.is_set():  # it was closed while the process started
            raise ConnectionAbortedError
        reason = receive(ours, process, self._limits.load_s)
        if reason is not None:
            raise RuntimeError(reason)
        return ours, process

    def _stop(self) -> None:
        with self._changed:
            running, self._running = self._running, None
        if running is not None:
            pipe, process = running
            pipe.close()
            process.kill()
            process.join()
            process.close()

    def _report(self, callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(callback, *arguments)


def receive(pipe: Connection, process: BaseProcess, timeout_s: float) -> Any:
    """Return the next message of ``process``. Its waits for a processor count little towards ``timeout_s``.

    Raises:
        TimeoutError: there is none in time.
        ConnectionError: the process has died.
    """
    left_s = timeout_s
    _, before_s = activity(process)
    while not pipe.poll(min(STEP_S, timeout_s)):
        is_runnable, ran_s = activity(process)
        left_s -= max(ran_s - before_s, STEP_S / PATIENCE) if is_runnable else STEP_S
        before_s = ran_s
        if left_s <= 0:
            raise TimeoutError(f"the process did not answer within {timeout_s:g} s")
    try:
        return pipe.recv()
    except EOFError:
        raise ConnectionResetError("the process has died") from None


def activity(process: BaseProcess) -> tuple[bool, float]:
    """Return whether a process runs or could run, and its processor time in seconds; (False, 0) if nobody knows."""
    try:
        state, *fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False, 0.0
    return state == "R", (int(fields[10]) + int(fields[11])) / os.sysconf("SC_CLK_TCK")
