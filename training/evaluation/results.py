"""The results of an evaluation, as ``evaluation.json`` of a run folder holds them."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from training.evaluation.calibration import Calibration
from training.evaluation.confusion import Cell
from training.evaluation.corners import CornerScores
from training.evaluation.overlaps import BoxScores
from training.evaluation.poses import Pose
from training.evaluation.rectification import Uprightness
from training.evaluation.reliability import Reliability
from training.evaluation.worth import Worth


class SequenceAccuracy(BaseModel):
    """How many whole sequences are right."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    objects: int
    """Objects in each picture."""
    accuracy: float
    """Share of the pictures whose objects are all right."""
    interval: tuple[float, float]


class Evaluation(BaseModel):
    """The content of ``evaluation.json``: the kept checkpoint's results on the test set."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    dataset: str
    distortion: str
    pictures: int
    accuracy: float
    """Of sequences, that of their objects."""
    accuracy_interval: tuple[float, float]
    """95 % confidence interval of the accuracy (`training.evaluation.intervals.accuracy_interval`)."""
    sequences: SequenceAccuracy | None = None
    """Measured if a picture shows a sequence of objects."""
    groups: int | None = None
    """Number of groups of test pictures (tracks, scenes) that the interval is taken over; None: single pictures."""
    unknown_groups: bool = False
    """Whether the test pictures form groups that the data set does not tell, so that the interval is too narrow."""
    calibration: Calibration
    temperature: float
    """Divisor of the logits that calibrates the probabilities; fitted on the validation pictures."""
    calibration_at_temperature: Calibration
    class_accuracy: dict[str, float]
    """Accuracy of each class that has test pictures."""
    confusions: tuple[Cell, ...]
    """Non-zero cells of the confusion matrix: true class, predicted class, pictures."""
    theta_spread: float | None
    """Standard deviation of theta over the pictures, averaged over its entries, and over the crops of a sequence."""
    best_epoch: int
    """The epoch that the run keeps (`training.fitting.trainer.selection`)."""
    validation_accuracy: float
    validation_interval: tuple[float, float] | None = None
    """Its interval, also by groups if they are known; None in evaluations of older versions."""
    placed_accuracy: float | None = None
    """Accuracy on the validation pictures placed as in training, if the recipe places pictures."""
    worth: Worth | None = None
    """Measured if there is a transformer."""
    pose: Pose | None = None
    """Measured on some of the test pictures if there is a transformer and a single object."""
    reliability: Reliability | None = None
    """Measured on some of the validation pictures if there is a transformer and a single object."""
    uprightness: Uprightness | None = None
    """Measured on the first test digits if the distortion is an affine map."""
    boxes: BoxScores | None = None
    """Measured if the data set has bounding boxes."""
    corners: CornerScores | None = None
    """Measured if the corners, or boxes, of some test pictures are known."""

    @model_validator(mode="before")
    @classmethod
    def _read_matrix(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Read the whole matrix from evaluations of older versions."""
        if (matrix := fields.get("confusion")) is not None:
            cells = [(row, column, count) for (row, column), count in np.ndenumerate(matrix) if count]
            fields = fields | {"confusions": cells}
        return fields
