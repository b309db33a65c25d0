"""Sampling of a picture through a map, with an area filter where the picture has more pixels than the result.

Coordinates are normalised as in training: -1 and 1 are the outer edges of the border pixels, in the order (x, y).
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Padding = Literal["black", "white", "edge", "transparent"]
"""The surroundings of a picture."""

NODES = 65
"""Points on each side of the grid between which a bent map is interpolated."""
SPACING = 2 / (NODES - 1)
AXIS = np.linspace(-1 - SPACING, 1 + SPACING, NODES + 2)
"""The nodes of each side, with one more at both ends, which cubic interpolation needs."""
FAR = 1e6
"""The largest distance in pixels: everything beyond is equally far outside."""
BLOCK = 2**19
"""Pixels that are sampled in one go."""
MOST = 32
"""Samples of a pixel of the result along each of its sides."""
MAX_SAMPLES = 2**26
"""Samples of one result. Where more were needed, the picture is reduced further before it is sampled."""
TOLERATED = 1.25
"""Pixels of the picture for one of the result up to which no filter is needed."""
INVERSE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
LARGEST_SIDE = 32_000
"""Longest side of a picture that OpenCV samples."""


class SamplingMap(NamedTuple):
    """A map from a result, whose edges are at -1 and 1, to the picture."""

    apply: Callable[[Floats], Floats]
    """Maps points ``(M, 2)``."""
    homography: Floats | None = None
    """The same map as ``(3, 3)``, if it is a homography without a horizon in the result."""
    is_smooth: bool = True
    """Whether the map can be interpolated between the points of a grid."""


class Density(NamedTuple):
    """How densely a picture is sampled."""

    right: tuple[float, ...]
    """Positions of the samples of a pixel of the result, in shares of its width."""
    down: tuple[float, ...]
    reduction: float
    """The factor by which the picture is reduced before."""


def apply_affine(matrix: Floats, points: Floats) -> Floats:
    """Apply an affine map ``(2, 3)`` to ``points`` ``(M, 2)``."""
    moved: Floats = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def warp(pixels: Pixels, sampling: SamplingMap, width: int, height: int, padding: Padding) -> Pixels:
    """Sample ``pixels`` ``(H, W, C)`` at the positions of the pixels of a ``width`` x ``height`` result.

    Each pixel of the result is the mean over the area that it covers in the picture. With four channels, colours are
    weighted by alpha, which is the last channel.
    """
    warper = Warper(pixels, sampling, width, height, padding)
    if warper.needs_no_blocks:
        return warper.sample_rows(0, height)
    result = np.empty((height, width, pixels.shape[2]), np.uint8)
    rows = max(1, BLOCK // width)
    for start in range(0, height, rows):
        result[start : start + rows] = warper.sample_rows(start, min(start + rows, height))
    return result


class Warper:
    """Samples the rows of a result, see `warp`, in memory for one block of rows and the reduced picture."""

    def __init__(self, pixels: Pixels, sampling: SamplingMap, width: int, height: int, padding: Padding) -> None:
        self._sampling, self._width, self._height = sampling, width, height
        side = np.array([pixels.shape[1], pixels.shape[0]], dtype=np.float64)
        nodes = sampling.apply(np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2))
        nodes = limit((nodes + 1) / 2 * side).reshape(len(AXIS), len(AXIS), 2)
        self._density = density = sampling_density(nodes[1:-1, 1:-1], side, width, height)
        start, end = sampled_region(nodes, side, density.reduction)
        self._pixels = reduce(pixels[start[1] : end[1], start[0] : end[0]], density.reduction)
        factor = (end - start) / (self._pixels.shape[1], self._pixels.shape[0])
        self._scale, self._offset = side / 2 / factor, (side / 2 - start) / factor - 0.5
        self._nodes = ((nodes - start) / factor - 0.5).astype(np.float32)
        self._matrix = None
        if sampling.homography is not None and np.abs(nodes).max() < FAR:
            to_indices = np.array(
                [[self._scale[0], 0, self._offset[0]], [0, self._scale[1], self._offset[1]], [0, 0, 1]]
            )
            self._matrix = to_indices @ sampling.homography
        level = 255 if padding == "white" else 0
        self._mode = cv2.BORDER_REPLICATE if padding == "edge" else cv2.BORDER_CONSTANT
        self._value = (level, level, level, 0 if padding == "transparent" else 255)

    @property
    def needs_no_blocks(self) -> bool:
        """Whether all rows can be sampled at once, because there are neither positions nor sums to keep."""
        return self._matrix is not None and len(self._density.right) * len(self._density.down) == 1

    def sample_rows(self, start: int, end: int) -> Pixels:
        """The rows of the result from ``start`` to before ``end``."""
        places = list(product(self._density.right, self._density.down))
        mean = self._sample(start, end, *places[0])
        if len(places) > 1:
            total = mean.astype(np.float32)
            for place in places[1:]:
                cv2.accumulate(self._sample(start, end, *place), total)
            mean = cv2.convertScaleAbs(total, alpha=1 / len(places))  # type: ignore[assignment]  # rounds
        return mean.reshape(end - start, self._width, -1)

    def _sample(self, start: int, end: int, right: float, down: float) -> Pixels:
        """Sample each pixel ``right`` and ``down`` of its corner, in shares of its sides."""
        x = (np.arange(self._width) + right) / self._width * 2 - 1
        y = (np.arange(start, end) + down) / self._height * 2 - 1
        border = {"borderMode": self._mode, "borderValue": self._value}
        if self._matrix is not None:
            to_result = np.array([[2 / self._width, 0, x[0]], [0, 2 / self._height, y[0]], [0, 0, 1]])
            size = len(x), len(y)
            found = cv2.warpPerspective(self._pixels, self._matrix @ to_result, size, flags=INVERSE, **border)  # type: ignore[call-overload]
        else:
            columns, rows = self._interpolate(x, y) if self._sampling.is_smooth else self._apply(x, y)
            np.clip(columns, -4, self._pixels.shape[1] + 4, out=columns)
            np.clip(rows, -4, self._pixels.shape[0] + 4, out=rows)
            found = cv2.remap(self._pixels, columns, rows, cv2.INTER_LINEAR, **border)  # type: ignore[call-overload]
        return np.asarray(found, dtype=np.uint8)

    def _apply(self, x: Floats, y: Floats) -> tuple[Indices, Indices]:
        """The indices in the reduced picture of the points with these columns and rows."""
        points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        found = limit(self._sampling.apply(points) * self._scale + self._offset).astype(np.float32)
        return np.ascontiguousarray(found[:, 0]).reshape(y.size, x.size), np.ascontiguousarray(found[:, 1]).reshape(
            y.size, x.size
        )

    def _interpolate(self, x: Floats, y: Floats) -> tuple[Indices, Indices]:
        """See `_apply`; between the nodes."""
        right, down = np.ascontiguousarray(cubic_weights(x).T), cubic_weights(y)
        used = np.flatnonzero(down.any(axis=0))
        near = self._nodes[used[0] : used[-1] + 1]
        down = np.ascontiguousarray(down[:, used[0] : used[-1] + 1])
        columns, rows = (multiply(down, multiply(np.ascontiguousarray(near[..., axis]), right)) for axis in (0, 1))
        return columns, rows


def multiply(left: Indices, right: Indices) -> Indices:
    """The product of two matrices, in this thread: those of NumPy's library would compete with the inference."""
    return np.asarray(cv2.gemm(left, right, 1, None, 0), dtype=np.float32)  # type: ignore[call-overload]


def limit(positions: Floats) -> Floats:
    """Bring positions in pixels that are infinite, no number, or far away, to at most `FAR`."""
    return np.nan_to_num(positions, nan=FAR, posinf=FAR, neginf=-FAR).clip(-FAR, FAR)


def sampling_density(nodes: Floats, side: Floats, width: int, height: int) -> Density:
    """How densely to sample a picture of ``side`` at ``nodes`` ``(N, N, 2)`` for a ``width`` x ``height`` result.

    The picture is reduced by as much as no part of the result shows a loss. The rest of the filter are several samples.
    """
    along = (nodes[:-1, 1:] - nodes[:-1, :-1]) * ((len(nodes) - 1) / width)  # pixels of the picture for one of ours
    across = (nodes[1:, :-1] - nodes[:-1, :-1]) * ((len(nodes) - 1) / height)
    inside = np.all((nodes > -side) & (nodes < 2 * side), axis=2)
    seen = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1]
    if not seen.any():
        return Density((0.5,), (0.5,), 1.0)
    (a, c), (b, d) = along[seen].T, across[seen].T
    least = np.abs(np.hypot(a + d, c - b) - np.hypot(a - d, c + b)).min() / 2  # the smallest singular value
    longest = float(np.hypot(a, c).max()), float(np.hypot(b, d).max())
    reduction = max(1.0, float(least) / 2, max(longest) / MOST)
    while True:
        reduction = reduction if reduction > TOLERATED else 1.0
        counts = [max(1, math.ceil(side / reduction - TOLERATED + 1)) for side in longest]
        if math.prod(counts) == 1 or math.prod(counts) * width * height <= MAX_SAMPLES:
            right, down = (places(count, side, reduction) for count, side in zip(counts, longest, strict=True))
            return Density(right, down, reduction)
        reduction *= TOLERATED


def places(count: int, size: float, reduction: float) -> tuple[float, ...]:
    """Where to sample a pixel of the result ``count`` times in a row, of ``size`` pixels of the picture.

    Reduction and interpolation blur as well. The samples are closer together by as much, so that the variance of the
    whole filter is that of a box of ``size``.
    """
    box = size**2 / 12
    blurred = (reduction**2 - 1) / 6 + (reduction**2 / 12 if reduction > 1 else 0)
    spread = math.sqrt(min(1.0, max(0.25, (box - blurred) / (box * (1 - count**-2))))) if count > 1 else 0
    return tuple(0.5 + spread * ((index + 0.5) / count - 0.5) for index in range(count))


def sampled_region(nodes: Floats, side: Floats, reduction: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The upper left and lower right corner of the part of a picture of ``side`` around all ``nodes``.

    It has at least one pixel.
    """
    low, high = nodes.min(axis=(0, 1)), nodes.max(axis=(0, 1))
    spare = 4 + 2 * reduction + (high - low) * SPACING
    start = np.floor(low - spare).clip(0, side - 1)
    end = np.ceil(high + spare).clip(start + 1, side)
    return start.astype(np.intp), end.astype(np.intp)


def reduce(pixels: Pixels, factor: float) -> Pixels:
    """Reduce ``pixels`` by ``factor`` and to sides that OpenCV samples: each result is the mean over its area."""
    height, width = pixels.shape[:2]
    target = [min(LARGEST_SIDE, max(1, round(side / factor))) for side in (width, height)]
    if target == [width, height]:
        return pixels
    return np.asarray(cv2.resize(pixels, target, interpolation=cv2.INTER_AREA), dtype=np.uint8).reshape(
        target[1], target[0], -1
    )


def cubic_weights(positions: Floats) -> Indices:
    """Weights ``(M, NODES + 2)`` of the nodes for positions from -1 to 1, by cubic convolution (Keys 1981)."""
    place = (positions - AXIS[0]) / SPACING
    first = np.clip(np.floor(place).astype(np.intp) - 1, 0, len(AXIS) - 4)
    t = place - first - 1
    weights = [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
    found = np.zeros((len(positions), len(AXIS)), np.float32)
    found[np.arange(len(positions))[:, None], first[:, None] + np.arange(4)] = np.stack(weights, axis=1)
    return found
