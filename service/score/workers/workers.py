"""What all kinds of workers have in common."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import pyarrow as pa
import structlog

from service.score.rows import Row

LEAD = 4
"""Chunks for each worker that are read before their answers are taken."""


class Scored(NamedTuple):
    """The answers to a chunk of rows."""

    batch: pa.RecordBatch
    next_row: int
    """Number of the row after its last one."""


class Workers(Protocol):
    """Processes that score chunks."""

    def score(self, chunks: Iterable[list[Row]]) -> Iterator[Scored]:
        """Yield the answers to ``chunks`` in their order. Only a few chunks are read ahead of the answers.

        Raises:
            ServiceError: the model cannot be loaded or hangs, or a rectified picture cannot be written.
            ScoreError: a process has died, and the work cannot go on without it.
        """


def log_errors_only() -> None:
    """Write errors of the engine and of libraries to stderr, and nothing else beside the progress bar."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.captureWarnings(True)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
