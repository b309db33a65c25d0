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

from training.calibration import calibration, fit_temperature
from training.data import Split, distorted, loader
from training.errors import RunError
from training.files import write_bytes, write_text
from training.metrics import Spread
from training.network import SpatialTransformerClassifier
from training.rectification import measure_boxes, measure_uprightness
from training.runs import Evaluation, Run
from training.streams import Stream

BATCH = 500
SAMPLES = 64
UPRIGHT_DIGITS = 1000
CERTAINTY = 0.95


def evaluate(run: Run, data_root: Path) -> Evaluation:
    """Measure the best checkpoint; write ``evaluation.json``, ``answers.npz`` and ``samples.npz``.

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
    temperature = fit_temperature(answers(network, validation).logits, validation.labels)
    whole = source.test()
    test = distorted(recipe, whole, Stream.TEST)
    given = answers(network, test)
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
        theta_spread=None if given.theta is None else round(spread(given.theta), 6),
        best_epoch=int(best["epoch"]),
        validation_accuracy=best["validation_accuracy"],
        uprightness=(
            measure_uprightness(network, recipe, whole.at(torch.arange(count)[:UPRIGHT_DIGITS]))
            if recipe.can_stand_upright
            else None
        ),
        boxes=(
            measure_boxes(given.theta, whole.boxes, training.boxes)
            if given.theta is not None and whole.boxes is not None and training.boxes is not None
            else None
        ),
    )
    write_arrays(run.answers_file, {"logits": given.logits, "labels": test.labels})
    samples = test.images[:SAMPLES].permute(0, 2, 3, 1)  # (N, H, W, C)
    write_arrays(run.samples_file, {"images": samples, "labels": test.labels[:SAMPLES]})
    write_text(run.evaluation_file, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


class Answers(NamedTuple):
    """What a network says about a split."""

    logits: Tensor
    """``(N, K)``."""
    theta: Tensor | None
    """``(N, 2, 3)`` of the last transformer; None without one."""


def answers(network: SpatialTransformerClassifier, split: Split) -> Answers:
    """Run ``network`` over ``split``."""
    logits, thetas = [], []
    with torch.inference_mode():
        for images, _ in loader(split, BATCH):
            output = network(images.float() / 255)
            logits.append(output.logits)
            thetas += [output.warps[-1].theta] if output.warps else []
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
    """See `training.metrics.Spread`: of ``(N, 2, 3)``."""
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
    try:
        with run.metrics_file.open(newline="") as table:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
        return max(rows, key=lambda row: row["validation_accuracy"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{run.metrics_file} has no metrics; continue the run with --resume {run.folder}") from error
