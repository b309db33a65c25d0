"""Evaluate a trained run on its test set."""

import csv
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from training.data.batches import distort, distorted, loader, training_distortion
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.errors import CollapseError, RunError
from training.evaluation.calibration import calibration, fit_temperature
from training.evaluation.confusion import Cell, confusion_cells
from training.evaluation.corners import measure_corners
from training.evaluation.intervals import accuracy_interval
from training.evaluation.metrics import Spread
from training.evaluation.overlaps import measure_boxes
from training.evaluation.poses import measure_pose
from training.evaluation.rectification import measure_uprightness
from training.evaluation.reliability import Look, measure_reliability
from training.evaluation.results import Evaluation, SequenceAccuracy
from training.evaluation.worth import DECORATION_CURE, SEQUENCE_CURE, measure_worth
from training.files import write_arrays, write_text
from training.fitting.runs import Run, advice
from training.networks.geometry import corner_points
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe

BATCH = 100
PLACED_AT_ONCE = 500
SAMPLES = 64
UPRIGHT_DIGITS = 1000
POSES = 1000
"""Largest number of pictures whose poses are measured."""
HOPELESS_LOSS = 100
"""Loss of the kept epoch, in multiples of the loss of guessing, above which training has diverged."""
HOPELESS_SPREAD = 1000
"""Spread of theta, in half pictures, above which training has diverged."""
ONE_CLASS_CURE = "train for more epochs, with a lower learning_rate, or with about as many pictures of each class"
METRICS = {"epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}
"""Columns of every ``metrics.csv``."""

log = structlog.get_logger(__name__)


def evaluate(run: Run, data_root: Path) -> Evaluation:
    """Evaluate the kept checkpoint; write ``evaluation.json`` and the network's answers.

    The temperature is fitted on the validation pictures, as they are and placed as in training, and so is the score of
    reliability; all other measures are of the test pictures.

    Raises:
        DataError: the data set cannot be read.
        RunError: the run has no usable checkpoint.
        CollapseError: training diverged.
    """
    network = run.trained_network()
    best = kept_epoch(run)
    if problem := divergence(best, len(run.info().classes)):
        raise CollapseError(f"training diverged: {problem}; {advice(run.info().recipe)}")
    try:
        evaluation = measure(run, network, best, data_root)
    except ValidationError as error:
        place = " ".join(map(str, error.errors()[0]["loc"]))
        raise CollapseError(
            f"training diverged: {place} is not a finite number; {advice(run.info().recipe)}"
        ) from error
    write_text(run.evaluation_file, evaluation.model_dump_json(indent=2) + "\n")
    answered = {cell[1] for cell in evaluation.confusions}
    if len(answered) == 1 and len(run.info().classes) > 1:
        log.warning("one_class_answered", label=run.info().classes[answered.pop()], cure=ONE_CLASS_CURE)
    elif (worth := evaluation.worth) is not None and worth.decoration:
        cure = DECORATION_CURE if evaluation.sequences is None else SEQUENCE_CURE
        log.warning("transformer_is_decoration", lost=worth.lost, cure=cure)
    return evaluation


def divergence(best: dict[str, float], classes: int) -> str | None:
    """Describe the sign that the kept epoch of a run is worth nothing; return None if there is none."""
    loss, spread, guessing = best["validation_loss"], best.get("theta_spread", 0), math.log(classes)
    if not loss <= HOPELESS_LOSS * guessing:
        return f"the epoch that it keeps has a validation loss of {loss:.3g}, guessing gives {guessing:.3g}"
    if not spread <= HOPELESS_SPREAD:
        return f"theta of the epoch that it keeps has a spread of {spread:.3g} and looks far beyond the picture"
    return None


def measure(run: Run, network: SpatialTransformerClassifier, best: dict[str, float], data_root: Path) -> Evaluation:
    """Measure ``network`` and save its answers; ``best`` is the row of its epoch in ``metrics.csv``.

    Raises:
        DataError: the data set cannot be read.
        ValidationError: a measure is not a finite number.
    """
    info = run.info()
    recipe = info.recipe
    source = run.source(data_root)
    training, held_out = source.training()
    validation = distorted(recipe, held_out, Stream.VALIDATION)
    placed = answers_when_placed(network, recipe, held_out)
    temperature, valid = judge_validation(run, network, validation, placed)
    whole = source.test()
    test = distorted(recipe, whole, Stream.TEST)
    given = answers(network, test)
    logits, labels = given.logits.flatten(0, -2), test.labels.flatten()
    theta = given.thetas[:, -1] if given.thetas is not None else None
    read = given.thetas if recipe.recurrent else theta  # those of all objects, or the one
    one_class = len(info.classes) == 1
    right, count = given.logits.argmax(dim=-1) == test.labels, len(test.labels)
    cells = confusion_cells(logits.argmax(dim=1), labels, len(info.classes))
    is_single = theta is not None and not recipe.sequence
    some = torch.arange(count)[:: -(-count // POSES)]
    evaluation = Evaluation(
        dataset=recipe.dataset,
        distortion=recipe.distortion,
        pictures=count,
        accuracy=int(right.sum()) / right.numel(),
        accuracy_interval=accuracy_interval(right, whole.groups),
        sequences=sequence_accuracy(right) if recipe.sequence else None,
        groups=None if whole.groups is None else len(set(whole.groups.tolist())),
        unknown_groups=whole.groups is None and training.groups is not None,
        calibration=calibration(logits, labels),
        temperature=temperature,
        calibration_at_temperature=calibration(logits / temperature, labels),
        class_accuracy=class_accuracy(cells, info.classes),
        confusions=tuple(cells),
        theta_spread=None if read is None else round(spread(read), 6),
        best_epoch=int(best["epoch"]),
        validation_accuracy=round(float(valid.double().mean()), 6),
        validation_interval=accuracy_interval(valid, held_out.groups),
        placed_accuracy=(
            None if placed is None else round(float((placed.logits.argmax(1) == held_out.labels).double().mean()), 6)
        ),
        worth=None if theta is None or one_class else measure_worth(network, test.images, test.labels),
        pose=measure_pose(network, recipe, whole.at(some), info.classes) if is_single else None,
        reliability=measure_reliability(look_with(network, recipe), recipe, held_out) if is_single else None,
        uprightness=(
            measure_uprightness(network, recipe, whole.at(torch.arange(count)[:UPRIGHT_DIGITS]))
            if recipe.can_stand_upright
            else None
        ),
        boxes=(
            measure_boxes(theta, whole.boxes, training.boxes)
            if theta is not None and whole.boxes is not None and training.boxes is not None and recipe.parallel == 1
            else None
        ),
        corners=(
            measure_corners(given.corners, whole.corners, training.corners)
            if given.corners is not None and whole.corners is not None
            else None
        ),
    )
    groups = {} if whole.groups is None else {"groups": whole.groups}
    write_arrays(run.answers_file, {"logits": given.logits, "labels": test.labels} | groups)
    samples = test.images[:SAMPLES].permute(0, 2, 3, 1)  # (N, H, W, C)
    write_arrays(run.samples_file, {"images": samples, "labels": test.labels[:SAMPLES]})
    return evaluation


class Answers(NamedTuple):
    """A network's answers for a split."""

    logits: Tensor
    """``(N, K)``, or ``(N, T, K)`` of sequences."""
    thetas: Tensor | None
    """``(N, T, 2, 3)`` in the order of the network's warps; None without a transformer."""
    corners: Tensor | None = None
    """``(N, 4, 2)``: where the whole map of the last warp takes the corners; None without a transformer."""


def judge_validation(
    run: Run, network: SpatialTransformerClassifier, validation: Split, placed: Answers | None
) -> tuple[float, Tensor]:
    """Run ``network`` on the validation pictures, and save its answers for export.

    ``placed`` are its answers to the same pictures placed on others, by which the temperature is fitted too.

    Returns:
        The fitted temperature, and whether each picture is right: ``(N,)``, or each object of a sequence: ``(N, T)``.
    """
    usual = answers(network, validation)
    thetas = torch.empty(len(usual.logits), 0, 2, 3) if usual.thetas is None else usual.thetas
    write_arrays(run.validation_file, {"logits": usual.logits, "thetas": thetas})
    right = usual.logits.argmax(dim=-1) == validation.labels
    logits, labels = usual.logits.flatten(0, -2), validation.labels.flatten()
    if placed is not None:  # the service is sent pictures like these too
        logits, labels = torch.cat([logits, placed.logits]), labels.repeat(2)
    return fit_temperature(logits, labels), right


def answers_when_placed(network: SpatialTransformerClassifier, recipe: Recipe, held_out: Split) -> Answers | None:
    """Run ``network`` on the validation pictures placed as in training; None if the recipe places none.

    Raises:
        DataError: the recipe's backgrounds cannot be read.
    """
    if not recipe.placement.chance:
        return None
    always = recipe.model_copy(update={"placement": recipe.placement.model_copy(update={"chance": 1.0})})
    how, parts = training_distortion(always), []
    for number, positions in enumerate(torch.split(torch.arange(len(held_out.labels)), PLACED_AT_ONCE)):
        changed = distort(
            how, held_out.at(positions)._replace(corners=None), seeded(Stream.VALIDATION, position=number)
        )
        parts.append(answers(network, Split(changed.images.round().to(torch.uint8), changed.labels)))
    thetas = [part.thetas for part in parts if part.thetas is not None]
    return Answers(torch.cat([part.logits for part in parts]), torch.cat(thetas) if thetas else None)


def answers(network: SpatialTransformerClassifier, split: Split) -> Answers:
    """Run ``network`` on ``split``."""
    logits, thetas, corners = [], [], []
    with torch.inference_mode():
        for batch in loader(split, BATCH):
            output = network(batch.images.float() / 255)
            logits.append(output.logits)
            if output.warps:
                thetas.append(torch.stack([warp.theta for warp in output.warps], dim=1))
                corners.append(output.warps[-1].map(corner_points()).expand(len(batch.labels), -1, -1))
    return Answers(torch.cat(logits), *((torch.cat(thetas), torch.cat(corners)) if thetas else (None, None)))


def look_with(network: SpatialTransformerClassifier, recipe: Recipe) -> Look:
    """Return what ``network`` sees in pictures, for measures that know nothing of networks."""
    main = recipe.steps - 1  # the last step of the first branch

    def look(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        found = answers(network, Split(images, torch.zeros(len(images), dtype=torch.int64)))
        assert found.thetas is not None  # noqa: S101 - there is a transformer
        return found.logits.argmax(dim=1).numpy(), found.thetas[:, main].double().numpy()

    return look


def sequence_accuracy(right: Tensor) -> SequenceAccuracy:
    """Return the share of sequences whose objects are all right: ``(N, T)``."""
    whole = right.all(dim=1)
    return SequenceAccuracy(
        objects=right.shape[1], accuracy=int(whole.sum()) / len(whole), interval=accuracy_interval(whole)
    )


def class_accuracy(cells: list[Cell], classes: tuple[str, ...]) -> dict[str, float]:
    """Return the accuracy of each class that has pictures."""
    right, seen = Counter[int](), Counter[int]()
    for true, predicted, count in cells:
        seen[true] += count
        right[true] += count if true == predicted else 0
    return {classes[label]: round(right[label] / seen[label], 6) for label in sorted(seen)}


def spread(theta: Tensor) -> float:
    """Return the `training.evaluation.metrics.Spread` of thetas ``(N, 2, 3)``, or ``(N, T, 2, 3)`` of sequences."""
    vectors = theta.flatten(1)
    measure = Spread(vectors.shape[1])
    measure.update(vectors)
    return float(measure.compute())


def kept_epoch(run: Run) -> dict[str, float]:
    """Return the row of ``metrics.csv`` of the epoch that the run keeps.

    Raises:
        RunError: the table or the checkpoint is missing or damaged.
    """
    rows = {int(row["epoch"]): row for row in read_epochs(run.metrics_file)}
    epoch = run.kept_epoch()
    if epoch not in rows:
        raise RunError(f"{run.metrics_file} has no epoch {epoch}; continue the run with --resume {run.folder}")
    return rows[epoch]


def read_epochs(metrics_file: Path) -> list[dict[str, float]]:
    """Read the rows of a ``metrics.csv``; there is at least one.

    Raises:
        RunError: the table is missing or damaged.
    """
    try:
        with metrics_file.open(newline="") as table:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
    except (OSError, ValueError, TypeError, csv.Error):
        rows = []
    if not rows or not rows[0].keys() >= METRICS:
        raise RunError(f"{metrics_file} has no metrics; continue the run with --resume {metrics_file.parent}")
    return rows
