"""Counts and gauges under the names that docs/operate/metrics.md describes, as families of `prometheus_client`."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from export.format.artifact import distance
from service.metrics.drift import Window
from service.metrics.multiprocess import Figures
from service.metrics.recorder import CLIENT_LEFT, SECONDS, Counts, Key
from service.metrics.rollouts import CHANGES, INFERENCE_SECONDS, PIXELS, VERSIONS

PICTURES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Upper bounds of the buckets of batch sizes."""
MODEL: Final = ("model", "version")
DRIFT: Final = (*MODEL, "transform", "quantity")
PREDICTIONS: Final = ("/predict", "/predict/batch", "/rectify", "/infer", "/stream")
"""The last parts of the prediction routes."""
REASONS: Final = {429: "REJECTED", 503: "REJECTED", 504: "REJECTED", CLIENT_LEFT: "CANCELED", 500: "BACKEND"}
"""Triton's names of the reasons for which a request failed, by status."""
TRITON_STAGES: Final = {
    "queue": ("nv_inference_queue_duration_us", "Time of pictures in the queue"),
    "decode": ("nv_inference_compute_input_duration_us", "Time of decoding pictures"),
    "inference": ("nv_inference_compute_infer_duration_us", "Time of pictures in inferences"),
    "encode": ("nv_inference_compute_output_duration_us", "Time of encoding rectified images"),
}
GAUGES: Final = {
    "info": ("stn_model_info", "Workers that have loaded a version", (*MODEL, "runtime", "device", "precision")),
    "queue": ("stn_queue_depth", "Pictures that wait for an inference", MODEL),
    "in_flight": ("stn_pictures_in_flight", "Pictures from the arrival of their bytes to their answers", MODEL),
    "limit": ("stn_pictures_limit", "Pictures that may be in flight; further ones are rejected with 429", MODEL),
    "hangs": ("stn_model_hangs", "Workers in which an inference of the model hangs", MODEL),
    "cache_bytes": ("stn_response_cache_bytes", "Memory of the answers that are kept for equal requests", ()),
    "rollout_drift": (
        "stn_rollout_drift_distance",
        "Population stability index between the new version and the default version",
        (*VERSIONS, "quantity", "worker"),
    ),
    "resident": ("stn_worker_resident_bytes", "Memory of a worker", ("worker",)),
}
COUNTERS: Final = {
    "rectified": ("stn_rectified_images", "Rectified images that were sampled from the whole picture", MODEL),
    "rectified_pixels": ("stn_rectified_pixels", "Pixels of these images", MODEL),
    "dropped_frames": ("stn_stream_dropped_frames", "Frames of streams for which a newer one was answered", MODEL),
    "cache_hits": ("stn_response_cache_hits", "Answers that came from the response cache", MODEL),
    "cache_misses": ("stn_response_cache_misses", "Answers that were looked for there in vain", MODEL),
    "views": ("stn_views", "Changed views of pictures that were inferred besides them", MODEL),
    "second_looks": ("stn_second_looks", "Second looks at pictures whose corners were not reliable", MODEL),
    "rejection": ("stn_rejections", "Rejected requests and pictures by error code", (*MODEL, "cause")),
    "rollout_pictures": ("stn_rollout_pictures", "Pictures that both versions answered", (*VERSIONS, "agrees")),
    "rollout_disagreed": (
        "stn_rollout_disagreements",
        "Those that got another class, by the class of the default version",
        (*VERSIONS, "class"),
    ),
    "rollout_dropped": ("stn_rollout_dropped", "Pictures that were not compared", (*VERSIONS, "reason")),
    "captured": ("stn_captured_pictures", "Pictures that were captured, or not", ("outcome",)),
    "cpu": ("stn_worker_cpu_seconds", "Processor time of a worker", ("worker",)),
    "log_lines_dropped": ("stn_log_lines_dropped", "Log lines that were dropped because stderr was not read", ()),
    "background": ("stn_background_failures", "Failures of a background task", ("task",)),
}
"""Name, description and labels of metrics with one number for each combination of labels."""


def families(
    figures: Figures, ready: Sequence[int], windows: Mapping[Key, Window], min_pictures: int
) -> Iterator[Metric]:
    """All metric families.

    Args:
        figures: the figures of all processes.
        ready: for each worker, whether it answers.
        windows: the drift windows of the loaded models, by name and version; only their references are read.
        min_pictures: the number of pictures from which on drift is exposed.
    """
    yield from requests(figures.counts)
    yield from pictures(figures.counts)
    yield from rollouts(figures.counts)
    yield from simple(GaugeMetricFamily, GAUGES, figures.gauges)
    yield from simple(CounterMetricFamily, COUNTERS, figures.counts)
    yield workers(ready)
    yield from drift(figures.gauges, windows, min_pictures)
    yield from triton(figures)


def of(counts: Counts, kind: str) -> Iterator[tuple[Key, list[float]]]:
    """Return labels and vector of every count of a kind."""
    return ((key[1:], vector) for key, vector in sorted(counts.items()) if key[0] == kind)


def simple(
    family: type[CounterMetricFamily | GaugeMetricFamily], table: Mapping[str, tuple[str, str, Key]], found: Counts
) -> Iterator[Metric]:
    """Metrics of a `GAUGES` or `COUNTERS` table."""
    for kind, (name, text, names) in table.items():
        metric = family(name, text, labels=names)
        for labels, (number,) in of(found, kind):
            metric.add_metric(labels, number)
        yield metric


def requests(counts: Counts) -> Iterator[Metric]:
    """Requests by route, model and status, and their durations."""
    total = CounterMetricFamily("stn_requests", "Answered requests", labels=("route", *MODEL, "status"))
    durations: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0] * (len(SECONDS) + 2))
    for labels, vector in of(counts, "request"):
        total.add_metric(labels, sum(vector[:-1]))
        durations[labels[:-1]] = [a + b for a, b in zip(durations[labels[:-1]], vector, strict=True)]
    yield total
    text = "From the arrival of the request head to the end of the response"
    yield histogram("stn_request_duration_seconds", text, ("route", *MODEL), SECONDS, durations.items())


def pictures(counts: Counts) -> Iterator[Metric]:
    """Durations of the stages of pictures, and the sizes of their batches."""
    text = "Duration of the stages of answered pictures"
    yield histogram("stn_stage_duration_seconds", text, (*MODEL, "stage"), SECONDS, of(counts, "stage"))
    text = "From the bytes of a picture to its prediction"
    yield histogram("stn_prediction_duration_seconds", text, MODEL, SECONDS, of(counts, "prediction"))
    text = "Pictures in each inference"
    yield histogram("stn_batch_size", text, MODEL, PICTURES, batch_sizes(counts).items())


def rollouts(counts: Counts) -> Iterator[Metric]:
    """What the comparison of new versions with the default versions has shown."""
    text = "Absolute change of the probability of the default version's class"
    yield histogram("stn_rollout_probability_change", text, VERSIONS, CHANGES, of(counts, "rollout_changes"))
    text = "Mean distance of the corners of a picture, in pixels of the upload"
    yield histogram("stn_rollout_corner_distance_pixels", text, VERSIONS, PIXELS, of(counts, "rollout_pixels"))
    text = "Processor time of an inference of one picture alone, by the default version and the new version"
    name = "stn_rollout_inference_seconds"
    yield histogram(name, text, (*VERSIONS, "by"), INFERENCE_SECONDS, of(counts, "rollout_seconds"))


def batch_sizes(counts: Counts) -> dict[Key, list[float]]:
    """For each model, the number of inferences in each bucket of `PICTURES`; then their pictures."""
    found = {labels: [0.0] * (len(PICTURES) + 2) for labels, _ in of(counts, "inferred")}
    for (*labels, size), (inferences, _) in of(counts, "batch"):
        vector = found[tuple(labels)]
        vector[bisect_left(PICTURES, int(size))] += inferences
        vector[-1] += int(size) * inferences
    return found


def histogram(
    name: str, text: str, labels: Key, bounds: Sequence[float], vectors: Iterable[tuple[Key, list[float]]]
) -> Metric:
    """A histogram of vectors with the number of values in each bucket and their sum."""
    family = HistogramMetricFamily(name, text, labels=labels)
    buckets = [*(str(float(bound)) for bound in bounds), "+Inf"]
    for values, vector in vectors:
        family.add_metric(values, list(zip(buckets, accumulate(vector[:-1]), strict=True)), vector[-1])
    return family


def workers(ready: Sequence[int]) -> Metric:
    """For each worker, whether it answers requests."""
    family = GaugeMetricFamily("stn_worker_ready", "Whether a worker answers requests", labels=("worker",))
    for index, is_ready in enumerate(ready):
        family.add_metric((str(index),), is_ready)
    return family


def drift(found: Counts, windows: Mapping[Key, Window], min_pictures: int) -> Iterator[Metric]:
    """The distances between the last pictures and the references."""
    text = "Population stability index between the last pictures and the reference"
    gap = GaugeMetricFamily("stn_drift_distance", text, labels=DRIFT)
    mean = GaugeMetricFamily("stn_drift_mean", "Mean of the last pictures", labels=DRIFT)
    usual = GaugeMetricFamily("stn_drift_reference_mean", "Mean in the reference", labels=DRIFT)
    seen = GaugeMetricFamily("stn_drift_pictures", "Pictures from which drift is computed", labels=MODEL)
    for model, window in windows.items():
        count = 0.0
        for position, distribution in enumerate(window.distributions):
            labels = (*model, distribution.transform, distribution.quantity)
            *counts, total = found.get(("drift", *model, str(position)), [0.0])
            count = sum(counts)
            if distribution.quantity != "classes":
                usual.add_metric(labels, distribution.mean)
            if count >= min_pictures and len(counts) == len(distribution.shares):
                gap.add_metric(labels, distance(counts, distribution, window.pictures))
                if distribution.quantity != "classes":
                    mean.add_metric(labels, total / count)
        seen.add_metric(model, count)
    yield from (gap, mean, usual, seen)


def triton(figures: Figures) -> Iterator[Metric]:
    """The same counts under Triton's names, which do not end with ``_total``."""
    counts = figures.counts
    batches = batch_sizes(counts)
    success = dict.fromkeys(batches, 0.0)
    failure = {(*labels, reason): 0.0 for labels in success for reason in (*dict.fromkeys(REASONS.values()), "OTHER")}
    took = dict(success)
    for (route, name, version, status), vector in of(counts, "request"):
        if route.endswith(PREDICTIONS) and (name, version) in success:
            took[name, version] += vector[-1]
            if status == "200":
                success[name, version] += sum(vector[:-1])
            else:
                failure[name, version, REASONS.get(int(status), "OTHER")] += sum(vector[:-1])
    executions = {labels: sum(vector[:-1]) for labels, vector in batches.items()}
    inferred = {labels: vector[-1] for labels, vector in batches.items()}
    pending = {labels: number for labels, (number,) in of(figures.gauges, "queue")}
    micro = {labels: 1e6 * seconds for labels, seconds in took.items()}
    yield untyped("nv_inference_request_success", "Successful requests to a prediction route", success)
    yield untyped("nv_inference_request_failure", "Failed requests to a prediction route", failure, (*MODEL, "reason"))
    yield untyped("nv_inference_count", "Inferred pictures", inferred)
    yield untyped("nv_inference_exec_count", "Inferences", executions)
    yield untyped("nv_inference_pending_request_count", "Pictures that wait for an inference", pending)
    yield untyped("nv_inference_request_duration_us", "Time of the requests to a prediction route", micro)
    for stage, (name, text) in TRITON_STAGES.items():
        sums = {labels[:-1]: 1e6 * vector[-1] for labels, vector in of(counts, "stage") if labels[-1] == stage}
        yield untyped(name, text, sums)


def untyped(name: str, text: str, numbers: Mapping[Key, float], labels: Sequence[str] = MODEL) -> Metric:
    """A metric whose name gets no suffix."""
    metric = Metric(name, text, "unknown")
    for values, number in numbers.items():
        metric.add_sample(name, dict(zip(labels, values, strict=True)), number)
    return metric
