"""A second look, at what was found and its surroundings, where the corners are not reliable.

What is found there is brought back: corners, thetas and rectified images are those of the second look, classes those of
the first.
"""

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest
from imaging.views import region_side
from service.inference.outputs import ModelOutput, within_picture
from service.inference.sampling_grid import BENT, to_square
from service.inference.views.reliability import Reliability

Floats = NDArray[np.float64]

LOW = 0.75
"""A second look is taken where the score is lower than this, or the angle cannot be told."""
WIDTH = 2.0
"""The width of the second look, in those of the region that it is taken at."""
LEAST_SIDE = 1e-3
"""Smallest region that is looked at again, as a share of the picture's side."""


def second_frame(manifest: Manifest, first: ModelOutput, told: Reliability) -> Floats | None:
    """The map ``(2, 3)`` from the second look to the first, of which the reliability was ``told``; None if none is due.

    None is due if the model was not calibrated, or theta tells too little of its regions.
    """
    if manifest.reliability is None or (told.score is not None and told.score >= LOW):
        return None
    theta = np.asarray(first.transforms[manifest.main].theta)
    if any(stated.kind in BENT for stated in manifest.transforms) or region_side(theta, 1, 1) < LEAST_SIDE:
        return None
    frame: Floats = theta * (WIDTH, WIDTH, 1)
    return frame


def combine(manifest: Manifest, first: ModelOutput, second: ModelOutput, frame: Floats) -> ModelOutput:
    """Return the classes of the ``first`` look with all else of the ``second``, brought back through ``frame``."""
    back = within_picture(second, manifest, to_square(frame))
    classes = first.outputs[manifest.probabilities][first.row : first.row + 1]
    outputs = back.outputs | {manifest.probabilities: classes}
    return back._replace(ranking=first.ranking, probabilities=first.probabilities, outputs=outputs)
