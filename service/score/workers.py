"""Processes that score rows, each with an engine of its own."""

import logging
import multiprocessing
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self

import pyarrow as pa
import structlog

from service.errors import ScoreError
from service.inference.process_pool import end_with_parent
from service.score.rows import Row
from service.score.scorer import ScoreOptions, Scorer

SPAWN = multiprocessing.get_context("spawn")  # threads of ONNX Runtime do not survive a fork
LEAD = 4
"""Chunks for each process that are read before their answers are taken."""


class Scored(NamedTuple):
    """The answers to a chunk of rows."""

    batch: pa.RecordBatch
    next_row: int
    """Number of the row after its last one."""


class Workers:
    """Processes that score chunks. Leaving the context ends them."""

    def __init__(self, options: ScoreOptions, count: int) -> None:
        self._options = options
        self._most = count * LEAD
        self._pool = ProcessPoolExecutor(count, SPAWN, begin)

    def score(self, chunks: Iterable[list[Row]]) -> Iterator[Scored]:
        """Yield the answers to ``chunks`` in their order. Only a few chunks are read ahead of the answers.

        Raises:
            ServiceError: the model cannot be loaded or hangs, or a rectified picture cannot be written.
            ScoreError: a process has died.
        """
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


def log_errors_only() -> None:
    """Write errors of the engine and of libraries to stderr, and nothing else beside the progress bar."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.captureWarnings(True)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def score_chunk(options: ScoreOptions, rows: list[Row]) -> pa.RecordBatch:
    """Score ``rows`` in a process of the pool."""
    return scorer(options).score(rows)


@lru_cache(maxsize=1)
def scorer(options: ScoreOptions) -> Scorer:
    """Return the engine of this process, which its first chunk creates."""
    return Scorer(options)
