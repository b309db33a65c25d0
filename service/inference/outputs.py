"""What a model's outputs say of each picture. Numpy is asked once a batch: its calls cost more than its sums."""

from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest, Outputs
from service.inference.geometry import Points, regions


class TransformOutput(NamedTuple):
    """What one transformer did to a picture."""

    theta: Points
    """Two rows of three."""
    parameters: list[float]
    region: Points
    """See `service.inference.geometry.regions`."""
    rectified: NDArray[np.uint8]
    """``(h, w, C)``."""


class ModelOutput(NamedTuple):
    """What a model says of one picture."""

    is_finite: bool
    """Whether all its numbers are finite."""
    ranking: NDArray[np.intp]
    """``(K,)``: classes, the most probable first, the first of equals first."""
    probabilities: NDArray[np.float32]
    """``(K,)`` in that order."""
    looks: tuple[TransformOutput, ...]
    """One for each transformer of the manifest."""
    outputs: Outputs
    """Of the whole batch that the picture was part of, as the model gave them."""
    row: int
    """Its own in them."""


def read(outputs: Outputs, manifest: Manifest) -> list[ModelOutput]:
    """One reading for each picture of a batch."""
    probabilities: NDArray[np.float32] = outputs[manifest.probabilities]
    ranking = (-probabilities).argsort(axis=1, kind="stable")
    ranked = probabilities[np.arange(len(ranking))[:, None], ranking]
    looks = []
    for transform in manifest.transforms:
        theta: NDArray[np.float32] = outputs[transform.theta]
        parameters = outputs[transform.parameters].reshape(len(theta), -1)
        columns = (theta.tolist(), parameters.tolist(), regions(theta).tolist(), outputs[transform.rectified])
        looks.append([TransformOutput(*row) for row in zip(*columns, strict=True)])
    batch = len(ranking)
    shares = (ranking, ranked, zip(*looks, strict=True), repeat(outputs, batch), range(batch))
    return [ModelOutput(*share) for share in zip(is_finite(outputs).tolist(), *shares, strict=True)]


def is_finite(outputs: Outputs) -> NDArray[np.bool_]:
    """For each picture of a batch, whether all numbers that belong to it are finite."""
    batch = len(next(iter(outputs.values())))
    answer = np.ones(batch, np.bool_)
    for output in outputs.values():
        if output.dtype.kind == "f":
            finite = np.isfinite(output)
            if not finite.all():
                answer &= finite.reshape(batch, -1).all(axis=1)
    return answer
