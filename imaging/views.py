"""Views of a picture: the same picture turned, scaled and shifted by known amounts.

Whoever finds something in the picture must find it at the same place in each view, once that is brought back to the
picture. How far it is off says how far to trust what was found, without knowing what is true. Coordinates are those of
`imaging.warping`, and the map of a view leads from the view to the picture.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

MOST_VIEWS = 16
TURN_DEG = 25.0
"""Largest angle of a view. The smallest is half of it, so that each view tells whether the angle follows."""
ZOOM = 1.15
"""Largest factor of a view's size, and one divided by the smallest."""
SHIFT = 0.08
"""Shift of a view, as a share of the picture's sides."""
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
PLASTIC_RATIO = 0.7548776662466927
"""The real root of x^3 + x^2 = 1, whose multiples with those of `GOLDEN_RATIO` fill a square evenly."""
CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)


def view_maps(count: int, aspect: float = 1.0) -> Floats:
    """Return the maps of the first ``count`` views of a picture, at most `MOST_VIEWS`: ``(count, 2, 3)``.

    They are always the same, and turn to both sides by turns. ``aspect`` is the picture's width divided by its height,
    in which it is turned.
    """
    number = np.arange(1, count + 1)
    first, second = number * GOLDEN_RATIO % 1, number * PLASTIC_RATIO % 1
    turn = np.radians(TURN_DEG * (1 + first) / 2) * np.where(number % 2, 1, -1)
    size = ZOOM ** (2 * second - 1)
    direction = 2 * math.pi * (first + second)
    shift = 2 * SHIFT * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    cosine, sine = np.cos(turn) / size, np.sin(turn) / size
    linear = np.stack([cosine, sine / aspect, -sine * aspect, cosine], axis=1).reshape(-1, 2, 2)
    return np.concatenate([linear, -linear @ shift[:, :, None]], axis=2)


def make_views(pixels: Pixels, maps: Floats) -> Pixels:
    """Sample a picture ``(H, W, C)`` through ``maps``: ``(count, H, W, C)``. Its border goes on outside of it."""
    height, width, _ = pixels.shape
    half = np.array([width / 2, height / 2])
    linear = maps[:, :, :2] * half[:, None] / half
    centre = half - 0.5
    offset = maps[:, :, 2] * half + centre - linear @ centre
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    views = np.empty((len(maps), *pixels.shape), np.uint8)
    for view, matrix in zip(views, np.concatenate([linear, offset[:, :, None]], axis=2), strict=True):
        view[:] = cv2.warpAffine(pixels, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE).reshape(
            pixels.shape
        )
    return views


def bring_back(maps: Floats, thetas: Floats) -> Floats:
    """Compose ``maps`` ``(..., 2, 3)`` of views with thetas ``(..., 2, 3)`` of the views: thetas of the picture."""
    linear = maps[..., :2] @ thetas[..., :2]
    offset = maps[..., :2] @ thetas[..., 2:] + maps[..., 2:]
    return np.concatenate([linear, offset], axis=-1)


def corner_distance(thetas: Floats, others: Floats, width: float, height: float) -> Floats:
    """Return the mean distance of the corners of two thetas ``(..., 2, 3)``, in pixels of the picture: ``(...)``."""
    gap = thetas - others
    corners = CORNERS @ gap[..., :2].swapaxes(-1, -2) + gap[..., None, :, 2]
    found: Floats = np.hypot(corners[..., 0] * width / 2, corners[..., 1] * height / 2).mean(axis=-1)
    return found


def region_side(thetas: Floats, width: float, height: float) -> Floats:
    """Return the side of a square as large as the region of each theta ``(..., 2, 3)``, in pixels: ``(...)``."""
    area: Floats = np.abs(np.linalg.det(thetas[..., :2])) * width * height
    return np.sqrt(area)
