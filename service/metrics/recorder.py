"""Collects events in lists, which numpy turns into histograms by the hundred.

The multiprocess counters of `prometheus_client` cost microseconds each; here a prediction costs a few appends. Each
application has one `Recorder`. `service.metrics.multiprocess` sums the counts of several processes, and
`service.metrics.exposition` names them.
"""

from collections import defaultdict
from collections.abc import Iterator
from http import HTTPStatus
from time import time
from typing import Final

import numpy as np
from numpy.typing import NDArray
from starlette.types import Scope

from service.metrics.rollouts import RolloutMetrics
from service.request_context import AnsweredPicture, RequestContext, route_of

SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets of durations."""
MAX_PENDING: Final = 512
"""Number of values that are collected before numpy counts them."""
STAGES: Final = ("decode", "queue", "inference", "encode")
REFUSED: Final = 400
"""The lowest status of a rejection or failure."""
CLIENT_LEFT: Final = 499
"""The status of a request whose client disconnected before the answer, as in nginx."""
OTHER: Final = "other"
"""The route label of paths that clients invent."""

Key = tuple[str, ...]
Counts = dict[Key, list[float]]
"""Vectors by kind and labels."""
ModelKey = tuple[str | None, int | None]
"""Name and version; None where a request names no model that is served."""


class Histogram:
    """A histogram of durations with the bounds `SECONDS`."""

    def __init__(self) -> None:
        self.pending: list[float] = []
        """Durations in seconds that are not counted yet."""
        self._vector = np.zeros(len(SECONDS) + 2)

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Count durations."""
        self._vector[:-1] += np.bincount(np.searchsorted(SECONDS, seconds), minlength=len(SECONDS) + 1)
        self._vector[-1] += seconds.sum()

    def flush(self) -> None:
        """Count the pending values."""
        if self.pending:
            self.add(np.array(self.pending))
            self.pending.clear()

    def vector(self) -> list[float]:
        """Return the number of durations in each bucket, the last of which is unbounded, and then their sum."""
        self.flush()
        found: list[float] = self._vector.tolist()
        return found


class ModelMetrics:
    """Counts of one version of a model over all of its loads."""

    def __init__(self, labels: Key) -> None:
        self.labels = labels
        self.pending: list[AnsweredPicture] = []
        """Answered pictures that are not counted yet."""
        self._stages = {stage: Histogram() for stage in (*STAGES, "prediction")}
        self._batches: dict[int, list[float]] = {}
        """The number of inferences and their seconds, by batch size."""
        self._queue_s = 0.0
        self._failures = 0
        self._rectified = [0.0, 0.0]
        """The number of images that were sampled from whole pictures, and their pixels."""
        self._cached = [0.0, 0.0]
        """Answers that were not and that were found in the response cache."""
        self._views = 0.0
        """The number of changed views of pictures that were inferred."""
        self._second_looks = 0.0
        """The number of second looks."""
        self._dropped_frames = 0.0
        self.last_s = 0.0
        """When the last inference ended, in seconds since the epoch; 0 before the first."""

    def inferred(self, pictures: int, queue_s: float, inference_s: float) -> None:
        """Count an inference of ``pictures`` pictures, which waited ``queue_s`` seconds in total."""
        batches = self._batches.get(pictures)
        if batches is None:
            batches = self._batches[pictures] = [0.0, 0.0]
        batches[0] += 1
        batches[1] += inference_s
        self._queue_s += queue_s
        self.last_s = time()

    def failed(self, pictures: int) -> None:
        """Count the pictures of an inference that raised an error."""
        self._failures += pictures

    def rectified(self, pixels: int) -> None:
        """Count a rectified image that is sampled from the whole picture."""
        self._rectified[0] += 1
        self._rectified[1] += pixels

    def cached(self, *, hit: bool) -> None:
        """Count an answer that was looked for in the response cache."""
        self._cached[hit] += 1

    def viewed(self, views: int) -> None:
        """Count views of a picture that are inferred besides it."""
        self._views += views

    def looked_again(self) -> None:
        """Count a second look at a picture."""
        self._second_looks += 1

    def dropped_frame(self) -> None:
        """Count a frame of a stream that was not answered, because a newer one arrived."""
        self._dropped_frames += 1

    def flush(self) -> None:
        """Count the pending values."""
        if self.pending:
            rows = [(*each.timings, (each.ended - each.started + each.queued_s) * 1000) for each in self.pending]
            self.pending.clear()
            for histogram, milliseconds in zip(self._stages.values(), np.array(rows).T, strict=True):
                histogram.add(milliseconds / 1000)

    def counts(self) -> Counts:
        """All counts."""
        self.flush()
        found: Counts = {("stage", *self.labels, stage): self._stages[stage].vector() for stage in STAGES}
        found["prediction", *self.labels] = self._stages["prediction"].vector()
        found["inferred", *self.labels] = [self._queue_s, self._failures]
        for kind, number in zip(("rectified", "rectified_pixels"), self._rectified, strict=True):
            found[kind, *self.labels] = [number]
        found["dropped_frames", *self.labels] = [self._dropped_frames]
        for kind, number in zip(("cache_misses", "cache_hits"), self._cached, strict=True):
            found[kind, *self.labels] = [number]
        found["views", *self.labels] = [self._views]
        found["second_looks", *self.labels] = [self._second_looks]
        found |= {("batch", *self.labels, str(size)): list(batches) for size, batches in self._batches.items()}
        return found


class Recorder:
    """Counts of all requests and models of one application."""

    def __init__(self) -> None:
        self._models: dict[ModelKey, ModelMetrics] = {}
        self._requests: defaultdict[tuple[str, ModelKey, int], Histogram] = defaultdict(Histogram)
        self._rejections: defaultdict[tuple[ModelKey, str], float] = defaultdict(float)
        self._rollouts: dict[Key, RolloutMetrics] = {}
        self._captured: defaultdict[str, float] = defaultdict(float)

    def of_model(self, model: ModelKey) -> ModelMetrics:
        """Return the counts of a version. The thread that loads it calls this too."""
        metrics = self._models.get(model)
        if metrics is None:
            metrics = self._models[model] = ModelMetrics(labels(model))
        return metrics

    def of_rollout(self, name: str, version: int, default: int) -> RolloutMetrics:
        """Return the counts of comparisons of a version with the default version."""
        key = name, str(version), str(default)
        if key not in self._rollouts:
            self._rollouts[key] = RolloutMetrics(key)
        return self._rollouts[key]

    def captured(self, outcome: str) -> None:
        """Count a picture that qualified to be captured, by what became of it."""
        self._captured[outcome] += 1

    def ended(self, context: RequestContext, scope: Scope) -> None:
        """Count a request that has ended."""
        model = context.model, context.version
        status = context.status or CLIENT_LEFT
        histogram = self._requests[route_of(context, scope) or OTHER, model, status]
        histogram.pending.append(context.ended - context.started)
        if len(histogram.pending) >= MAX_PENDING:
            histogram.flush()
        if context.answered:
            metrics = self.of_model(model)
            metrics.pending += context.answered
            if len(metrics.pending) >= MAX_PENDING:
                metrics.flush()
        if status >= REFUSED and status != CLIENT_LEFT:
            self.rejected(context.error or HTTPStatus(status).phrase.lower().replace(" ", "_"), model)

    def rejected(self, cause: str, model: ModelKey) -> None:
        """Count a rejected request or picture of a batch by its error code, ``cause``."""
        self._rejections[model, cause] += 1

    def ends(self) -> Iterator[tuple[Key, float]]:
        """Labels of each model and the time at which its last inference ended; see `ModelMetrics.last_s`."""
        return ((metrics.labels, metrics.last_s) for metrics in tuple(self._models.values()))

    def counts(self) -> Counts:
        """All counts."""
        found: Counts = {}
        for metrics in tuple(self._models.values()):  # a thread that loads a model may add to them
            found |= metrics.counts()
        for rollout in self._rollouts.values():
            found |= rollout.counts()
        for outcome, number in self._captured.items():
            found["captured", outcome] = [number]
        for (route, model, status), histogram in self._requests.items():
            found["request", route, *labels(model), str(status)] = histogram.vector()
        for (model, cause), number in self._rejections.items():
            found["rejection", *labels(model), cause] = [number]
        return found


def labels(model: ModelKey) -> Key:
    """Return name and version as text; empty without a model."""
    name, version = model
    return name or "", "" if version is None else str(version)
