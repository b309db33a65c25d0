"""Reliability: whether class and corners of a picture follow known changes of it, see `imaging.views`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest
from imaging.views import bring_back, corner_distance, region_side
from service.inference.outputs import ModelOutput, angle, rank

Floats = NDArray[np.float64]

FOLLOWS = 0.75
"""The angle follows the views if its deviation is less than this share of the angles by which they are turned."""
UPRIGHT = ("attention", "translation")
"""Kinds of transformers whose frames never turn."""
LEAST_PX = 1e-9
"""Smallest side of a region."""


class Reliability(NamedTuple):
    """How far to trust the answer to a picture."""

    views: int
    label_agreement: float
    """Share of the views in which the answered class is the most probable one."""
    corner_deviation_px: float
    """Mean distance of the corners from those in the views, in pixels of the picture."""
    angle_deviation_deg: float
    """Mean difference of the angle from those in the views."""
    angle_follows: bool
    """False for what has no up, as far as the model can tell."""
    score: float | None
    """Probability that the corners are right, within `within_px`; None if the model was not calibrated, or its angle
    does not follow, so that it cannot tell where the corners belong."""
    within_px: float | None
    second_look: bool = False
    """Whether the corners of the answer are those of a second look. All else but `within_px` is told of the first."""


def measure_reliability(
    manifest: Manifest, output: ModelOutput, seen: Sequence[ModelOutput], maps: Floats, width: float, height: float
) -> Reliability:
    """Compare the ``output`` for a ``width`` x ``height`` picture with what was ``seen`` in views of these ``maps``."""
    theta = np.asarray(output.transforms[manifest.main].theta)
    back = bring_back(maps, np.asarray([view.transforms[manifest.main].theta for view in seen]))
    deviation_px = float(corner_distance(back, theta, width, height).mean())
    side_px = max(float(region_side(theta, width, height)), LEAST_PX)
    turned = angle_differences(bring_back(maps, theta), theta, width, height)
    off = angle_differences(back, theta, width, height)
    follows = bool(off.mean() < FOLLOWS * turned.mean())
    can_tell = follows or manifest.transforms[manifest.main].kind in UPRIGHT
    calibration = manifest.reliability
    return Reliability(
        views=len(seen),
        label_agreement=float(np.mean([view.ranking[0] == output.ranking[0] for view in seen])),
        corner_deviation_px=deviation_px,
        angle_deviation_deg=float(off.mean()),
        angle_follows=follows,
        score=None if calibration is None or not can_tell else calibration.score(deviation_px / side_px),
        within_px=None if calibration is None else calibration.within * side_px,
    )


def after_second_look(
    manifest: Manifest, output: ModelOutput, first: Reliability, width: float, height: float
) -> Reliability:
    """Return what was told of the ``first`` look for the ``output`` of a second one at the same picture."""
    assert manifest.reliability is not None  # noqa: S101 - else there is no second look
    side_px = float(region_side(np.asarray(output.transforms[manifest.main].theta), width, height))
    return first._replace(within_px=manifest.reliability.within * side_px, second_look=True)


def angle_differences(thetas: Floats, theta: Floats, width: float, height: float) -> Floats:
    """Return the degrees, 0 to 180, by which the angles of thetas ``(N, 2, 3)`` differ from ``theta``'s: ``(N,)``."""
    angles = np.array([angle(each, width, height) for each in thetas.tolist()])
    found: Floats = np.abs((angles - angle(theta.tolist(), width, height) + 180) % 360 - 180)
    return found


def average(manifest: Manifest, output: ModelOutput, seen: Sequence[ModelOutput]) -> ModelOutput:
    """Return the ``output`` for a picture with its probabilities averaged over it and what was ``seen`` in views."""
    rows = [each.outputs[manifest.probabilities][each.row] for each in (output, *seen)]
    mean: NDArray[np.float32] = np.asarray(np.mean(rows, axis=0, dtype=np.float64), dtype=np.float32)
    ranking, ranked = rank(mean[None])
    outputs = {name: values[output.row : output.row + 1] for name, values in output.outputs.items()}
    outputs[manifest.probabilities] = mean[None]
    return output._replace(ranking=ranking[0], probabilities=ranked[0], outputs=outputs, row=0)
