"""The outputs of a batch, split into one record for each picture.

Numpy works on whole batches: a call costs more than the arithmetic in it. Coordinates follow `export.format.artifact`.
"""

import math
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest, Outputs
from service.errors import InferenceFailedError

CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], dtype=np.float64)
"""The corners of the rectified image in its own homogeneous coordinates, clockwise from top left."""

MOST_SEQUENCES = 100
"""Sequences that an answer can name."""

Points = list[list[float]]


class TransformOutput(NamedTuple):
    """The output of one transformer for a picture."""

    theta: Points
    """Two rows of three."""
    parameters: list[float]
    region: Points
    """See `regions`."""
    rectified: NDArray[np.uint8]
    """``(h, w, C)``."""


class ModelOutput(NamedTuple):
    """The output of a model for one picture."""

    is_finite: bool
    """Whether all numbers are finite."""
    ranking: NDArray[np.intp]
    """``(K,)``: classes by falling probability; equal ones by index. Empty if the model is not a classifier. Of a model
    that reads sequences, the most probable sequences ``(S,)``; `Manifest.label` names them. See `answers`."""
    probabilities: NDArray[np.float32]
    """The probability of each, in that order."""
    transforms: tuple[TransformOutput, ...]
    """One for each transformer of the manifest."""
    outputs: Outputs
    """The raw outputs of the whole batch that the picture was part of."""
    row: int
    """The row of the picture in ``outputs``."""


def read(outputs: Outputs, manifest: Manifest) -> list[ModelOutput]:
    """Split the outputs of a batch into one `ModelOutput` for each picture."""
    ranking, ranked = rank(class_probabilities(outputs, manifest))
    transforms = []
    for transform in manifest.transforms:
        theta: NDArray[np.float32] = outputs[transform.theta]
        parameters = outputs[transform.parameters].reshape(len(theta), -1)
        columns = (theta.tolist(), parameters.tolist(), regions(theta).tolist(), outputs[transform.rectified])
        transforms.append([TransformOutput(*row) for row in zip(*columns, strict=True)])
    batch = len(ranking)
    shares = (ranking, ranked, zip(*transforms, strict=True), repeat(outputs, batch), range(batch))
    return [ModelOutput(*share) for share in zip(is_finite(outputs).tolist(), *shares, strict=True)]


def rank(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Sort classes by falling probability, and equal ones by index.

    Of sequences, the `MOST_SEQUENCES` most probable ones are sorted, and equal ones are in no particular order. The
    objects are independent, given the picture.

    Args:
        probabilities: ``(N, K)``, or ``(N, T, K)`` of sequences.

    Returns:
        The classes, or the indices of the sequences as `Manifest.label` takes them, and their probabilities.
    """
    rows = np.arange(len(probabilities))[:, None]
    if probabilities.ndim == 2:
        ranking = (-probabilities).argsort(axis=1, kind="stable")
        return ranking, probabilities[rows, ranking]
    objects, classes = probabilities.shape[1:]
    found, chances = np.zeros((len(rows), 1), np.intp), np.ones((len(rows), 1), np.float32)
    for position in range(objects):  # the best sequences begin with the best shorter ones
        following, ranked = (each[:, :MOST_SEQUENCES] for each in rank(probabilities[:, position]))
        # The i-th of the one and the j-th of the other make one of the best i * j pairs at most.
        places = np.multiply.outer(np.arange(1, found.shape[1] + 1), np.arange(1, following.shape[1] + 1))
        first, then = np.nonzero(places <= MOST_SEQUENCES)
        products = chances[:, first] * ranked[:, then]
        best = (-products).argsort(axis=1, kind="stable")[:, :MOST_SEQUENCES]
        found, chances = (found[:, first] * classes + following[:, then])[rows, best], products[rows, best]
    return found, chances


def answers(manifest: Manifest) -> int:
    """Return how many classes, or sequences, `rank` sorts."""
    classes = len(manifest.classes)
    return classes if manifest.sequence is None else min(MOST_SEQUENCES, classes**manifest.sequence)


def class_probabilities(outputs: Outputs, manifest: Manifest) -> NDArray[np.float32]:
    """Return the probabilities ``(N, K)`` in ``outputs``, of no classes if the model is not a classifier.

    Those of sequences are ``(N, T, K)``.
    """
    if not manifest.probabilities:
        return np.empty((len(outputs[manifest.outputs[0]]), 0), np.float32)
    found: NDArray[np.float32] = outputs[manifest.probabilities]
    return found


def is_finite(outputs: Outputs) -> NDArray[np.bool_]:
    """Return for each picture of a batch whether all of its numbers are finite."""
    batch = len(next(iter(outputs.values())))
    answer = np.ones(batch, np.bool_)
    for output in outputs.values():
        if output.dtype.kind == "f":
            finite = np.isfinite(output)
            if not finite.all():
                answer &= finite.reshape(batch, -1).all(axis=1)
    return answer


def regions(theta: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the regions that thetas ``(N, 2, 3)`` sample: ``(N, 4, 2)``, in units of the picture's width and height.

    Points are (x, y), clockwise from the top left of the rectified image. They may lie outside of the picture, which
    spans 0 to 1.
    """
    normalised = CORNERS @ theta.swapaxes(1, 2).astype(np.float64)  # (N, 4, 2)
    return np.asarray((normalised + 1) / 2)


def corners(region: Points, width: int, height: int) -> Points:
    """Scale a region to pixels of a ``width`` x ``height`` picture. The centre of the first pixel is at (0.5, 0.5)."""
    return [[x * width, y * height] for x, y in region]


def within_picture(output: ModelOutput, manifest: Manifest, placed: NDArray[np.float64]) -> ModelOutput:
    """Return ``output`` with thetas and regions of the picture; ``placed`` is `Shown.to_picture` of what was shown."""
    rows = {name: values[output.row : output.row + 1] for name, values in output.outputs.items()}
    transforms = []
    for stated, found in zip(manifest.transforms, output.transforms, strict=True):
        theta = placed[:2] @ np.vstack([found.theta, [0, 0, 1]])
        transforms.append(found._replace(theta=theta.tolist(), region=regions(theta[None])[0].tolist()))
        rows[stated.theta] = theta[None].astype(np.float32)
    return output._replace(transforms=tuple(transforms), outputs=rows, row=0)


def angle(theta: Points, width: float, height: float) -> float:
    """Return by how many degrees the region is turned clockwise in a ``width`` x ``height`` picture.

    It is the angle of the rotation that is nearest to theta in pixels, after a mirror from left to right if there is
    one.
    """
    (a, b, _), (c, d, _) = theta
    b, c = b * width / height, c * height / width
    radians = math.atan2(-c - b, d - a) if a * d < b * c else math.atan2(c - b, a + d)
    return math.degrees(radians)


def finite_output(output: ModelOutput) -> ModelOutput:
    """Return ``output`` if all of its numbers are finite.

    Raises:
        InferenceFailedError: a number is not finite.
    """
    if not output.is_finite:
        raise InferenceFailedError("the model returned values that are not finite for this picture")
    return output
