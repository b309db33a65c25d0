"""Metrics of several processes, and their sums.

Each worker writes its counts to its own file, once a second and before it answers a scrape. The worker that answers a
scrape sums the files of all workers. A replacement continues from the file of its predecessor, so that no count
decreases. A killed worker loses only the counts since its last write, which were never exposed.

A damaged file is logged, counted and ignored: the counts of that worker start from zero.
"""

import math
import os
import zlib
from collections.abc import Iterable, MutableSequence, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import structlog

from export.format.artifact import ArtifactError, read_bytes
from service.background import Failures
from service.metrics.recorder import Counts

HEADER: Final = b"stn-serve-metrics 1 %08x\n"
"""First line of a file: the version of the format and the CRC-32 of the rest."""
LARGEST_FILE: Final = 64 * 2**20

log = structlog.get_logger(__name__)


class Figures(NamedTuple):
    """The metrics of one process, or their sums over all processes."""

    counts: Counts
    """Values that never decrease."""
    gauges: Counts
    """Present values."""


class WorkerSlot(NamedTuple):
    """The number of a worker and the memory that it shares with the other workers."""

    folder: Path
    """Holds the metrics file of each worker."""
    number: int
    ready: MutableSequence[int]
    """For each worker, whether it answers requests. Every process reads it."""
    beats: MutableSequence[int]
    """For each worker, the heartbeats of its event loop. The supervisor reads them."""
    supervisor: MutableSequence[int]
    """Two counts of the supervisor: failures of its background tasks, and log lines that it dropped."""


class SharedMetrics:
    """The metrics of this process, alone or as one of several workers."""

    def __init__(self, slot: WorkerSlot | None = None, failures: Failures | None = None) -> None:
        self.failures = failures or Failures()
        """Failures of the background tasks of this process."""
        self._slot = slot
        self._own = Figures({}, {})
        self._unwritable = False
        self._damaged: set[int] = set()
        self._inherited = self._read(slot, slot.number).counts if slot else {}

    @property
    def ready(self) -> Sequence[int]:
        """For each worker, whether it answers requests."""
        return self._slot.ready if self._slot else (1,)

    @property
    def number(self) -> int:
        """The number of this worker."""
        return self._slot.number if self._slot else 0

    def publish(self, figures: Figures) -> None:
        """Record the ``figures`` of this process, for itself and for the other workers."""
        failures: Counts = {("background", task): [count] for task, count in self.failures.counts().items()}
        self._own = Figures(sum_counts([self._inherited, figures.counts, failures]), figures.gauges)
        if self._slot is None:
            return
        file = metrics_file(self._slot, self._slot.number)
        aside = file.with_suffix(".new")
        try:
            aside.unlink(missing_ok=True)
            aside.write_bytes(serialise(self._own))
            aside.replace(file)
        except OSError as error:
            if not self._unwritable:  # once, not every second
                log.warning("metrics_not_shared", file=str(file), error=error.strerror)
            self._unwritable = True
        else:
            self._unwritable = False

    def total(self) -> Figures:
        """Sum the counts of all workers that ever ran and the gauges of those that answer requests."""
        if self._slot is None:
            return self._own
        found = {index: self._read(self._slot, index) for index in range(len(self._slot.ready))}
        found[self._slot.number] = self._own
        answering = [figures.gauges for index, figures in found.items() if self._slot.ready[index]]
        counts = [figures.counts for figures in found.values()]
        failures, dropped = self._slot.supervisor
        if dropped:
            counts.append({("log_lines_dropped",): [dropped]})
        if failures:
            counts.append({("background", "supervisor"): [failures]})
        return Figures(sum_counts(counts), sum_counts(answering))

    def _read(self, slot: WorkerSlot, index: int) -> Figures:
        """Read the last figures of a worker; empty if its file is missing or damaged."""
        file = metrics_file(slot, index)
        try:
            if not os.path.lexists(file):
                return Figures({}, {})
            figures = deserialise(read_bytes(file, LARGEST_FILE))
        except (ArtifactError, OSError, ValueError) as error:
            if index not in self._damaged:  # once, not at every scrape
                self.failures.record("share_metrics", error, file=str(file))
            self._damaged.add(index)
            return Figures({}, {})
        self._damaged.discard(index)
        return figures


def metrics_file(slot: WorkerSlot, index: int) -> Path:
    """The metrics file of a worker."""
    return slot.folder / f"{index}.json"


def serialise(figures: Figures) -> bytes:
    """Encode the content of a metrics file."""
    content = orjson.dumps([list(counts.items()) for counts in figures])
    return HEADER % zlib.crc32(content) + content


def deserialise(data: bytes) -> Figures:
    """Decode the content of a metrics file.

    Raises:
        ValueError: the file is damaged, or of another version.
    """
    header, _, content = data.partition(b"\n")
    if header + b"\n" != HEADER % zlib.crc32(content):
        raise ValueError("the file is damaged or of another version; its counts start from zero")
    counts, gauges = (
        {tuple(key): [math.nan if value is None else value for value in vector] for key, vector in each}
        for each in orjson.loads(content)
    )
    return Figures(counts, gauges)


def sum_counts(all_counts: Iterable[Counts]) -> Counts:
    """Add ``all_counts`` element by element."""
    sums: Counts = {}
    for counts in all_counts:
        for key, vector in counts.items():
            before = sums.get(key)
            sums[key] = vector if before is None else [a + b for a, b in zip(before, vector, strict=False)]
    return sums
