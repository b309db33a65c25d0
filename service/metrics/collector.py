"""Collects the counts and gauges of an application for a scrape."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.logging import LogWriter
from service.metrics.drift import Window
from service.metrics.exposition import families
from service.metrics.multiprocess import Figures, SharedMetrics
from service.metrics.recorder import Counts, Key, Recorder

STATM = Path("/proc/self/statm")
"""The file in which Linux shows the memory pages of a process."""


class Metrics(Collector):
    """The metrics of one application, added to those of the other workers."""

    def __init__(
        self,
        shared: SharedMetrics,
        recorder: Recorder,
        log_writer: LogWriter,
        read_gauges: Callable[[], Counts],
        read_windows: Callable[[], Mapping[Key, Window]],
        min_drift_pictures: int,
    ) -> None:
        """Collect the counts of ``recorder`` and ``log_writer``, and the gauges and drift windows of the models.

        Drift is exposed from ``min_drift_pictures`` pictures on.
        """
        self._shared = shared
        self._read_gauges = read_gauges
        self._read_windows = read_windows
        self._min_drift_pictures = min_drift_pictures
        self._recorder = recorder
        self._log_writer = log_writer
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def publish(self) -> None:
        """Share the counts with the other workers and with a later replacement. Failures are counted, not raised."""
        try:
            self._publish()
        except Exception as error:  # noqa: BLE001 - the server calls it once a second and would end
            self._shared.failures.record("publish_metrics", error)

    def _publish(self) -> None:
        counts = self._recorder.counts()
        counts["cpu", str(self._shared.number)] = [cpu_s()]
        counts["log_lines_dropped",] = [self._log_writer.dropped]
        gauges = self._read_gauges() | {
            ("last", *key, str(self._shared.number)): [s] for key, s in self._recorder.ends()
        }
        if (resident := resident_bytes()) is not None:
            gauges["resident", str(self._shared.number)] = [resident]
        self._shared.publish(Figures(counts, gauges))

    def figures(self) -> Figures:
        """The figures of all processes; those of other processes are up to a second old."""
        self._publish()
        return self._shared.total()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in a format that ``accept`` allows, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client`."""
        yield from families(self.figures(), self._shared.ready, self._read_windows(), self._min_drift_pictures)

    def describe(self) -> Iterator[Metric]:
        """Describe nothing before a scrape."""
        return iter(())


def cpu_s() -> float:
    """Processor time of this process in seconds."""
    times = os.times()
    return times.user + times.system


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system does not report it."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
