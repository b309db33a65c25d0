"""Background tasks that survive their failures, and blocking calls that end at a deadline.

A task that ended unnoticed would, for example, leave the models folder unwatched without a log line. Every failure is
therefore logged and counted (`stn_background_failures_total`), and the task continues after a pause that doubles with
each failure in a row.
"""

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from typing import Any, Generic, NoReturn, TypeVar

import structlog

from export.format.artifact import ArtifactError
from service.errors import NotReadyError, ServiceError

LONGEST_PAUSE_S = 60.0
LOG_INTERVAL_S = 60.0
"""Shortest time between two log lines about the same failure of a task."""
MOST_ABANDONED = 4
"""Calls of one `BlockingCalls` that may be stuck before further calls are rejected."""
EXPECTED = (OSError, ArtifactError, ServiceError)
"""Errors whose message is enough; the log shows the traceback of all others."""

Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class Failures:
    """Counts the failures of background tasks. Threads may share it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._logged: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def record(self, task: str, error: Exception, **details: object) -> None:
        """Count a failure of ``task``, and log it unless the last line of the task says the same and is recent."""
        text, now = str(error) or type(error).__name__, time.monotonic()
        with self._lock:
            self._counts[task] += 1
            last, logged = self._logged.get(task, ("", -math.inf))
            if text == last and now - logged < LOG_INTERVAL_S:
                return
            self._logged[task] = text, now
        unexpected = None if isinstance(error, EXPECTED) else error
        log.error("background_failure", task=task, error=text, **details, exc_info=unexpected)

    def counts(self) -> dict[str, int]:
        """The number of failures of each task that has failed."""
        with self._lock:
            return dict(self._counts)


def backoff_s(pause_s: float, failures: int) -> float:
    """The pause after so many ``failures`` in a row: doubled for each, up to `LONGEST_PAUSE_S`."""
    return min(pause_s * 2.0 ** min(failures, 30), max(pause_s, LONGEST_PAUSE_S))


async def repeat(task: str, step: Callable[[], Awaitable[None]], pause_s: float, failures: Failures) -> None:
    """Run ``step`` until cancelled, with ``pause_s`` after each run and a longer pause after failures."""
    failed = 0
    while True:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - a task must survive whatever its step raises
            failed += 1
            failures.record(task, error, retry_s=backoff_s(pause_s, failed))
        else:
            failed = 0
        await asyncio.sleep(backoff_s(pause_s, failed))


class BlockingCalls:
    """A thread for calls that may block for ever, such as reads of a network file system.

    A call that misses its deadline is abandoned with its thread, which Python cannot end. Its successors run in a new
    thread. While `MOST_ABANDONED` calls are stuck, further calls fail at once, so that threads do not pile up.
    """

    def __init__(self, name: str) -> None:
        """``name`` is the name of the thread."""
        self._name = name
        self._thread = self._new_thread()
        self._abandoned: set[Future[Any]] = set()
        self._closed = False

    def run(self, call: Callable[[], Value], timeout_s: float) -> Value:
        """Return the result of ``call``, from a thread without an event loop.

        Raises:
            TimeoutError: it has not ended after ``timeout_s``.
            NotReadyError: `close` was called.
        """
        thread, job = self._submit(call)
        done, _ = wait_for_futures([job], timeout_s)
        return job.result() if done else self._abandon(thread, job, timeout_s)

    async def run_async(self, call: Callable[[], Value], timeout_s: float) -> Value:
        """Return the result of ``call``, from a coroutine.

        Raises:
            TimeoutError: it has not ended after ``timeout_s``.
            NotReadyError: `close` was called.
        """
        thread, job = self._submit(call)
        done, _ = await asyncio.wait([asyncio.wrap_future(job)], timeout=timeout_s)
        return done.pop().result() if done else self._abandon(thread, job, timeout_s)

    def begin(self, call: Callable[[], Value], timeout_s: float) -> "BegunCall[Value]":
        """Begin ``call``, and do not wait for it.

        Raises:
            TimeoutError: too many earlier calls are stuck.
            NotReadyError: `close` was called.
        """
        thread, job = self._submit(call)
        return BegunCall(job, timeout_s, lambda: self._abandon(thread, job, timeout_s))

    def close(self) -> None:
        """Start no further call."""
        self._closed = True
        self._thread.shutdown(wait=False)

    def _submit(self, call: Callable[[], Value]) -> tuple[ThreadPoolExecutor, Future[Value]]:
        if self._closed:
            raise NotReadyError("the service is shutting down; send the request to another instance")
        self._abandoned = {job for job in self._abandoned if not job.done()}
        if len(self._abandoned) >= MOST_ABANDONED:
            raise TimeoutError(f"{MOST_ABANDONED} earlier calls are stuck; check the disk that holds the models")
        return self._thread, self._thread.submit(call)

    def _abandon(self, thread: ThreadPoolExecutor, job: Future[Any], timeout_s: float) -> NoReturn:
        self._abandoned.add(job)
        if thread is self._thread:  # else a call that waited in the same thread has replaced it already
            thread.shutdown(wait=False)
            self._thread = self._new_thread()
        raise TimeoutError(f"no answer within {timeout_s:g} s; check the disk that holds the models")

    def _new_thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix=self._name)


class BegunCall(Generic[Value]):
    """A call of `BlockingCalls` that runs beside its caller, who asks from time to time whether it is over."""

    def __init__(self, job: "Future[Value]", timeout_s: float, abandon: Callable[[], NoReturn]) -> None:
        """``abandon`` raises a TimeoutError. It is called if there is no result after ``timeout_s``."""
        self._job = job
        self._deadline = time.monotonic() + timeout_s
        self._abandon = abandon

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or has missed its deadline."""
        return self._job.done() or time.monotonic() >= self._deadline

    def result(self) -> Value:
        """Return its result, once it is over.

        Raises:
            TimeoutError: it has missed its deadline.
        """
        return self._job.result() if self._job.done() else self._abandon()
