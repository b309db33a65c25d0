"""What several processes counted, added up. Each writes down what it counted; whoever is asked adds all of it up.

A worker that dies leaves its file behind, and the one that takes its place goes on from there: no count ever goes down.
Before a worker answers a scrape it writes down its own counts, so that what was once said is never taken back. A worker
that is killed takes with it only what it counted after it last wrote, and nobody was told of.
"""

from collections.abc import Iterable, MutableSequence, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
import structlog

from service.metrics.recorder import Counts

log = structlog.get_logger(__name__)


class Figures(NamedTuple):
    """What there is to say of one process, or of all."""

    counts: Counts
    """Only grow."""
    gauges: Counts
    """As they are now."""


class WorkerSlot(NamedTuple):
    """Where the workers of one service write, and which of them this one is."""

    folder: Path
    number: int
    ready: MutableSequence[int]
    """For each worker, whether it answers; seen by all of them."""
    beats: MutableSequence[int]
    """For each worker, how often its event loop has turned; seen by who started it."""


class SharedMetrics:
    """Of one process, alone or among others."""

    def __init__(self, place: WorkerSlot | None = None) -> None:
        self._place = place
        self._own = Figures({}, {})
        self._inherited = read(file_of(place, place.number)).counts if place else {}
        self._troubled = False

    @property
    def ready(self) -> Sequence[int]:
        """For each worker, whether it answers."""
        return self._place.ready if self._place else (1,)

    @property
    def number(self) -> int:
        """Which of the workers this one is."""
        return self._place.number if self._place else 0

    def publish(self, figures: Figures) -> None:
        """Note this process's ``figures``, for itself and for the others."""
        self._own = Figures(sum_counts([self._inherited, figures.counts]), figures.gauges)
        if self._place is None:
            return
        file = file_of(self._place, self._place.number)
        aside = file.with_suffix(".new")
        try:
            aside.write_bytes(orjson.dumps([list(each.items()) for each in self._own]))
            aside.replace(file)
        except OSError as error:
            if not self._troubled:  # once, not every second
                log.warning("metrics_not_shared", file=str(file), error=error.strerror)
            self._troubled = True

    def total(self) -> Figures:
        """Of all processes: counts of all that ever lived, gauges of those that answer."""
        if self._place is None:
            return self._own
        found = {index: read(file_of(self._place, index)) for index in range(len(self._place.ready))}
        found[self._place.number] = self._own
        answering = [figures.gauges for index, figures in found.items() if self._place.ready[index]]
        return Figures(sum_counts([figures.counts for figures in found.values()]), sum_counts(answering))


def file_of(place: WorkerSlot, index: int) -> Path:
    """Where a worker writes."""
    return place.folder / f"{index}.json"


def read(file: Path) -> Figures:
    """What a worker wrote last; nothing if it never did."""
    try:
        counts, gauges = ({tuple(key): vector for key, vector in each} for each in orjson.loads(file.read_bytes()))
    except FileNotFoundError:
        return Figures({}, {})
    return Figures(counts, gauges)


def sum_counts(all_counts: Iterable[Counts]) -> Counts:
    """Their sums, element by element."""
    sums: Counts = {}
    for counts in all_counts:
        for key, vector in counts.items():
            before = sums.get(key)
            sums[key] = vector if before is None else [a + b for a, b in zip(before, vector, strict=False)]
    return sums
