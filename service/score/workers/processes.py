"""Processes of this machine that score rows, each with an engine of its own."""

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from types import TracebackType
from typing import Self

import pyarrow as pa

from service.errors import ScoreError
from service.inference.process_pool import end_with_parent
from service.score.rows import Row
from service.score.scorer import ScoreOptions, Scorer
from service.score.workers.workers import LEAD, Scored, log_errors_only

SPAWN = multiprocessing.get_context("spawn")  # threads of ONNX Runtime do not survive a fork


class Processes:
    """Processes that score chunks. Leaving the context ends them."""

    def __init__(self, options: ScoreOptions, count: int) -> None:
        self._options = options
        self._most = count * LEAD
        self._pool = ProcessPoolExecutor(count, SPAWN, begin)

    def score(self, chunks: Iterable[list[Row]]) -> Iterator[Scored]:
        """See `service.score.workers.workers.Workers`. A process that dies ends the run."""
        pending: deque[tuple[Future[pa.RecordBatch], int]] = deque()
        try:
            for chunk in chunks:
                pending.append((self._pool.submit(score_chunk, self._options, chunk), chunk[-1].number + 1))
                if len(pending) >= self._most:
                    yield take(pending)
            while pending:
                yield take(pending)
        except BrokenProcessPool as error:
            raise ScoreError(
                "a process that scores has ended, perhaps for want of memory; the same command goes on from there, if "
                "need be with fewer --workers"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


def take(pending: deque[tuple[Future[pa.RecordBatch], int]]) -> Scored:
    """Wait for the oldest chunk."""
    future, next_row = pending.popleft()
    return Scored(future.result(), next_row)


def begin() -> None:
    """Prepare a process: it ends with its parent, which alone is interrupted from the keyboard."""
    log_errors_only()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()


def score_chunk(options: ScoreOptions, rows: list[Row]) -> pa.RecordBatch:
    """Score ``rows`` in a process of the pool."""
    return scorer(options).score(rows)


@lru_cache(maxsize=1)
def scorer(options: ScoreOptions) -> Scorer:
    """Return the engine of this process, which its first chunk creates."""
    return Scorer(options)
