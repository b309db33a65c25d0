"""Where in the uploaded picture a transformer looked. The convention is that of `export.format.artifact`."""

import numpy as np
from numpy.typing import NDArray

CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], dtype=np.float64)
"""The rectified image's corners in its own homogeneous coordinates, clockwise from top left."""

Points = list[list[float]]


def regions(theta: NDArray[np.float32]) -> NDArray[np.float64]:
    """The regions that thetas ``(N, 2, 3)`` cut out: ``(N, 4, 2)``, in units of the picture's width and height.

    Points (x, y), clockwise from what becomes top left; the picture spans 0 to 1. They may lie outside.
    """
    normalised = CORNERS @ theta.swapaxes(1, 2).astype(np.float64)  # (N, 4, 2)
    return np.asarray((normalised + 1) / 2)


def corners(region: Points, width: int, height: int) -> Points:
    """A region in pixels of a ``width`` x ``height`` picture, the centre of whose first pixel is at (0.5, 0.5)."""
    return [[x * width, y * height] for x, y in region]
