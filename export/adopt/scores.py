"""The meaning of a classifier's scores: raw logits, log-softmax or softmax. It is asked for, or found by checking."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from export.format.errors import ArtifactError

ROUNDING = 1e-4


class Scores(StrEnum):
    """Values of ``--scores``."""

    auto = "auto"
    logits = "logits"
    log_softmax = "log-softmax"
    softmax = "softmax"


def are_probabilities(values: NDArray[np.float32]) -> bool:
    """Whether every row of ``values`` ``(N, K)`` is a distribution."""
    return is_between(values) and bool(np.abs(values.sum(axis=1) - 1).max() < ROUNDING)


def is_between(values: NDArray[np.float32]) -> bool:
    """Whether all ``values`` are in [0, 1]."""
    return bool(values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING)


def needs_softmax(values: NDArray[np.float32], stated: Scores) -> bool:
    """Return whether a softmax converts the scores to probabilities; it leaves log-softmax as it is.

    Args:
        values: scores of several pictures, ``(N, K)``.
        stated: what the user says they are.

    Raises:
        ArtifactError: they are something else, or cannot be told apart.
    """
    distribution = are_probabilities(values)
    logs = bool(values.max() < ROUNDING) and are_probabilities(np.exp(values))
    if stated is Scores.softmax and not distribution:
        raise ArtifactError("the scores are not a softmax: rows do not add up to 1; leave --scores out to find out")
    if stated is Scores.log_softmax and not logs:
        raise ArtifactError("the scores are not a log-softmax: their exponentials do not add up to 1 in each row")
    if stated is Scores.logits and distribution:
        raise ArtifactError("the scores are not raw logits: each row adds up to 1; use --scores softmax")
    if stated is Scores.auto and is_between(values) and not distribution:
        raise ArtifactError(
            "the scores are all in [0, 1] without adding up to 1, as those of a sigmoid: each class is independent, "
            "and a softmax would change them; say --scores logits if they are raw logits, or use --task features"
        )
    return not distribution


def check_classes(shape: Sequence[int], classes: Sequence[str]) -> None:
    """Raise `ArtifactError` unless an output of this shape, without the batch axis, has a score for each class."""
    if len(shape) != 1:
        raise ArtifactError(
            f"the network is not a classifier: its output for a picture is {tuple(shape)}, and not one score for each "
            "class; with --task features, theta, rectified image and raw output are served through /v2"
        )
    if shape[0] == 1:
        raise ArtifactError(
            "the network gives a single score; add a second one in a function around it: "
            "torch.cat([-score, score], dim=1) / 2 as logits"
        )
    if shape[0] != len(classes):
        raise ArtifactError(f"the network has {shape[0]} classes, and --classes names {len(classes)}; list each once")
