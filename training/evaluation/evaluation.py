"""Measure a trained run on its test set: once, and so that the figures can be believed."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from training.data.batches import Split, distorted, loader
from training.data.random_streams import Stream
from training.errors import RunError
from training.evaluation.calibration import calibration, fit_temperature
from training.evaluation.metrics import Spread
from training.evaluation.rectification import measure_boxes, measure_uprightness
from training.files import write_bytes, write_text
from training.fitting.runs import Evaluation, Run
from training.networks.network import SpatialTransformerClassifier

BATCH = 500
SAMPLES = 64
UPRIGHT_DIGITS = 1000
CERTAINTY = 0.95
METRICS = {"epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}
"""Columns that every ``metrics.csv`` has."""


def evaluate(run: Run, data_root: Path) -> Evaluation:
    """Measure the best checkpoint; write ``evaluation.json`` and what the network answered.

    The temperature is fitted on the validation pictures; everything else is measured on the test pictures.

    Raises:
        DataError: the data set cannot be read.
        RunError: the run has no usable checkpoint.
    """
    info = run.info()
    recipe = info.recipe
    network = run.trained_network()
    best = best_epoch(run)
    source = run.source(data_root)
    training, held_out = source.training()
    validation = distorted(recipe, held_out, Stream.VALIDATION)
    usual = answers(network, validation)
    temperature = fit_temperature(usual.logits, validation.labels)
    whole = source.test()
    test = distorted(recipe, whole, Stream.TEST)
    given = answers(network, test)
    theta = given.thetas[:, -1] if given.thetas is not None else None
    confusion = multiclass_confusion_matrix(given.logits, test.labels, num_classes=len(info.classes))
    right, count = int(confusion.trace()), len(test.labels)
    interval = binomtest(right, count).proportion_ci(CERTAINTY, method="wilson")
    evaluation = Evaluation(
        dataset=recipe.dataset,
        distortion=recipe.distortion,
        pictures=count,
        accuracy=right / count,
        accuracy_interval=(round(interval.low, 6), round(interval.high, 6)),
        calibration=calibration(given.logits, test.labels),
        temperature=temperature,
        calibration_at_temperature=calibration(given.logits / temperature, test.labels),
        class_accuracy=class_accuracy(confusion, info.classes),
        confusion=confusion.tolist(),
        theta_spread=None if theta is None else round(spread(theta), 6),
        best_epoch=int(best["epoch"]),
        validation_accuracy=best["validation_accuracy"],
        uprightness=(
            measure_uprightness(network, recipe, whole.at(torch.arange(count)[:UPRIGHT_DIGITS]))
            if recipe.can_stand_upright
            else None
        ),
        boxes=(
            measure_boxes(theta, whole.boxes, training.boxes)
            if theta is not None and whole.boxes is not None and training.boxes is not None
            else None
        ),
    )
    write_arrays(run.answers_file, {"logits": given.logits, "labels": test.labels})
    if usual.thetas is not None:
        write_arrays(run.validation_file, {"logits": usual.logits, "thetas": usual.thetas})
    samples = test.images[:SAMPLES].permute(0, 2, 3, 1)  # (N, H, W, C)
    write_arrays(run.samples_file, {"images": samples, "labels": test.labels[:SAMPLES]})
    write_text(run.evaluation_file, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


class Answers(NamedTuple):
    """What a network says about a split."""

    logits: Tensor
    """``(N, K)``."""
    thetas: Tensor | None
    """``(N, T, 2, 3)``, in the order of the network's warps; None without a transformer."""


def answers(network: SpatialTransformerClassifier, split: Split) -> Answers:
    """Run ``network`` over ``split``."""
    logits, thetas = [], []
    with torch.inference_mode():
        for images, _ in loader(split, BATCH):
            output = network(images.float() / 255)
            logits.append(output.logits)
            thetas += [torch.stack([warp.theta for warp in output.warps], dim=1)] if output.warps else []
    return Answers(torch.cat(logits), torch.cat(thetas) if thetas else None)


def class_accuracy(confusion: Tensor, classes: tuple[str, ...]) -> dict[str, float]:
    """The share of each class that is answered right, for the classes that ``confusion`` ``(K, K)`` has pictures of."""
    seen = confusion.sum(dim=1)
    return {
        name: round(int(right) / int(count), 6)
        for name, right, count in zip(classes, confusion.diag(), seen, strict=True)
        if count
    }


def spread(theta: Tensor) -> float:
    """See `training.evaluation.metrics.Spread`: of ``(N, 2, 3)``."""
    measure = Spread(6)
    measure.update(theta.flatten(1))
    return float(measure.compute())


def write_arrays(file: Path, arrays: dict[str, Tensor]) -> None:
    """As a compressed ``.npz``, in one step."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **{name: array.numpy() for name, array in arrays.items()})
    write_bytes(file, content.getvalue())


def best_epoch(run: Run) -> dict[str, float]:
    """The row of ``metrics.csv`` with the highest validation accuracy, the first of equals.

    Raises:
        RunError: there is no such table.
    """
    return max(read_epochs(run.metrics_file), key=lambda row: row["validation_accuracy"])


def read_epochs(metrics_file: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``, one at least.

    Raises:
        RunError: there is no such table.
    """
    try:
        with metrics_file.open(newline="") as table:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
    except (OSError, ValueError, TypeError, csv.Error):
        rows = []
    if not rows or not rows[0].keys() >= METRICS:
        raise RunError(f"{metrics_file} has no metrics; continue the run with --resume {metrics_file.parent}")
    return rows
