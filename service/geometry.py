"""Where in the uploaded picture a transformer looked. The convention is that of `export.artifact`."""

import numpy as np
from numpy.typing import NDArray

CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], dtype=np.float64)
"""The rectified image's corners in its own homogeneous coordinates, clockwise from top left."""


def corners(theta: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """Where in a ``width`` x ``height`` picture the region lies that theta ``(2, 3)`` cuts out: ``(4, 2)``.

    Pixels (x, y), clockwise from top left; the picture spans 0 to ``width`` and 0 to ``height``, so that the centre of
    its first pixel is at (0.5, 0.5). Corners may lie outside.
    """
    normalised = CORNERS @ theta.T.astype(np.float64)  # (4, 2)
    scaled: NDArray[np.float64] = (normalised + 1) / 2 * (width, height)
    return scaled
