"""Counts and gauges under the names that docs/operate/metrics.md describes, as families of `prometheus_client`."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from export.format.artifact import distance
from service.metrics.drift import Window
from service.metrics.multiprocess import Figures
from service.metrics.recorder import CLIENT_LEFT, SECONDS, Counts, Key

PICTURES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Upper bounds of the buckets of batch sizes."""
MODEL: Final = ("model", "version")
DRIFT: Final = (*MODEL, "transform", "quantity")
PREDICTIONS: Final = ("/predict", "/predict/batch", "/infer")
"""The last parts of the routes that ask a model."""
REASONS: Final = {429: "REJECTED", 503: "REJECTED", 504: "REJECTED", CLIENT_LEFT: "CANCELED", 500: "BACKEND"}
"""Triton's names of the reasons for which a request failed, by status."""
TRITON_STAGES: Final = {
    "queue": ("nv_inference_queue_duration_us", "Time of pictures in the queue"),
    "decode": ("nv_inference_compute_input_duration_us", "Time of decoding pictures"),
    "inference": ("nv_inference_compute_infer_duration_us", "Time of pictures in inferences"),
    "encode": ("nv_inference_compute_output_duration_us", "Time of encoding rectified images"),
}
GAUGES: Final = {
    "queue": ("stn_queue_depth", "Pictures that wait for an inference", MODEL),
    "under_way": ("stn_pictures_in_flight", "Pictures from the arrival of their bytes to their answers", MODEL),
    "limit": ("stn_pictures_limit", "Pictures that may be in flight before 429 is answered", MODEL),
    "hangs": ("stn_model_hangs", "Workers whose model has been given up", MODEL),
    "resident": ("stn_worker_resident_bytes", "Memory of a worker", ("worker",)),
}


def families(figures: Figures, ready: Sequence[int], windows: Mapping[Key, Window], least: int) -> Iterator[Metric]:
    """All metric families.

    Args:
        figures: the figures of all processes.
        ready: for each worker, whether it answers.
        windows: the drift windows of the loaded models, by name and version; only their references are read.
        least: the number of pictures from which on drift is exposed.
    """
    yield from requests(figures.counts)
    yield from pictures(figures.counts)
    yield from gauges(figures.gauges)
    yield from workers(figures.counts, ready)
    yield from background(figures.counts)
    yield from drift(figures.gauges, windows, least)
    yield from triton(figures)


def of(counts: Counts, what: str) -> Iterator[tuple[Key, list[float]]]:
    """Labels and vector of every count of the kind ``what``."""
    return ((key[1:], vector) for key, vector in sorted(counts.items()) if key[0] == what)


def requests(counts: Counts) -> Iterator[Metric]:
    """Requests by route, model and status, their durations, and the causes of refusals."""
    total = CounterMetricFamily("stn_requests", "Requests that were answered", labels=("route", *MODEL, "status"))
    durations: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0] * (len(SECONDS) + 2))
    for labels, vector in of(counts, "request"):
        total.add_metric(labels, sum(vector[:-1]))
        durations[labels[:-1]] = [a + b for a, b in zip(durations[labels[:-1]], vector, strict=True)]
    yield total
    text = "From the arrival of a request's head to the end of its answer"
    duration = HistogramMetricFamily("stn_request_duration_seconds", text, labels=("route", *MODEL))
    for labels, vector in durations.items():
        fill(duration, labels, SECONDS, vector)
    yield duration
    rejections = CounterMetricFamily(
        "stn_rejections", "Requests and pictures that were refused, by the code of the error", labels=(*MODEL, "cause")
    )
    for labels, (number,) in of(counts, "rejection"):
        rejections.add_metric(labels, number)
    yield rejections


def pictures(counts: Counts) -> Iterator[Metric]:
    """Durations of the stages of pictures, and the sizes of their batches."""
    stage = HistogramMetricFamily(
        "stn_stage_duration_seconds", "Stages of the pictures that were answered", labels=(*MODEL, "stage")
    )
    for labels, vector in of(counts, "stage"):
        fill(stage, labels, SECONDS, vector)
    yield stage
    whole = HistogramMetricFamily(
        "stn_prediction_duration_seconds", "From a picture's bytes to its answer", labels=MODEL
    )
    for labels, vector in of(counts, "prediction"):
        fill(whole, labels, SECONDS, vector)
    yield whole
    batch = HistogramMetricFamily("stn_batch_size", "Pictures in each inference", labels=MODEL)
    for labels, vector in batch_sizes(counts).items():
        fill(batch, labels, PICTURES, vector)
    yield batch


def batch_sizes(counts: Counts) -> dict[Key, list[float]]:
    """For each model, the number of inferences in each bucket of `PICTURES`; then their pictures."""
    found = {labels: [0.0] * (len(PICTURES) + 2) for labels, _ in of(counts, "inferred")}
    for (*labels, size), (inferences, _) in of(counts, "batch"):
        vector = found[tuple(labels)]
        vector[bisect_left(PICTURES, int(size))] += inferences
        vector[-1] += int(size) * inferences
    return found


def fill(family: HistogramMetricFamily, labels: Key, bounds: Sequence[float], vector: Sequence[float]) -> None:
    """Add a histogram: the number of values in each bucket, and their sum."""
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    family.add_metric(labels, list(zip(names, accumulate(vector[:-1]), strict=True)), vector[-1])


def gauges(found: Counts) -> Iterator[Metric]:
    """Loaded models, and pictures in flight."""
    labels = (*MODEL, "runtime", "device", "precision")
    info = GaugeMetricFamily("stn_model_info", "Workers that have a version loaded", labels=labels)
    for values, (number,) in of(found, "info"):
        info.add_metric(values, number)
    yield info
    for what, (name, text, names) in GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=names)
        for values, (number,) in of(found, what):
            gauge.add_metric(values, number)
        yield gauge


def workers(counts: Counts, ready: Sequence[int]) -> Iterator[Metric]:
    """Workers, their processor time, and dropped log lines."""
    answers = GaugeMetricFamily("stn_worker_ready", "Whether a worker answers", labels=("worker",))
    for index, is_ready in enumerate(ready):
        answers.add_metric((str(index),), is_ready)
    yield answers
    spent = CounterMetricFamily("stn_worker_cpu_seconds", "Processor time of a worker", labels=("worker",))
    for labels, (seconds,) in of(counts, "cpu"):
        spent.add_metric(labels, seconds)
    yield spent
    lines = CounterMetricFamily("stn_log_lines_dropped", "Log lines that were dropped because nobody read stderr")
    for _, (number,) in of(counts, "log_lines_dropped"):
        lines.add_metric((), number)
    yield lines


def background(counts: Counts) -> Iterator[Metric]:
    """Failures of the tasks that run beside the requests."""
    failures = CounterMetricFamily("stn_background_failures", "Failures of a background task", labels=("task",))
    for labels, (number,) in of(counts, "background"):
        failures.add_metric(labels, number)
    yield failures


def drift(found: Counts, windows: Mapping[Key, Window], least: int) -> Iterator[Metric]:
    """The distances between the last pictures and the references."""
    text = "Population stability index between the last pictures and the reference"
    gap = GaugeMetricFamily("stn_drift_distance", text, labels=DRIFT)
    mean = GaugeMetricFamily("stn_drift_mean", "Mean over the last pictures", labels=DRIFT)
    usual = GaugeMetricFamily("stn_drift_reference_mean", "Mean in the reference", labels=DRIFT)
    seen = GaugeMetricFamily("stn_drift_pictures", "Pictures that drift is computed from", labels=MODEL)
    for model, window in windows.items():
        count = 0.0
        for position, distribution in enumerate(window.distributions):
            labels = (*model, distribution.transform, distribution.quantity)
            *counts, total = found.get(("drift", *model, str(position)), [0.0])
            count = sum(counts)
            if distribution.quantity != "classes":
                usual.add_metric(labels, distribution.mean)
            if count >= least and len(counts) == len(distribution.shares):
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
    yield untyped("nv_inference_request_success", "Requests to a prediction route that were answered", success)
    yield untyped("nv_inference_request_failure", "Those that were not", failure, (*MODEL, "reason"))
    yield untyped("nv_inference_count", "Pictures that went through an inference", inferred)
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
