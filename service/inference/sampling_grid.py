"""Maps points of a rectified image into the picture, for every kind of transformer.

The four corners do not describe a thin-plate spline. The grid therefore goes through the map of the transformer, as in
training. `export.format.artifact` defines the parameters of each kind.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest
from imaging.warping import SamplingMap, apply_affine
from service.inference.outputs import CORNERS, ModelOutput, TransformOutput

Floats = NDArray[np.float64]

BENT = ("projective", "tps")
"""Kinds of transformers that theta describes only in part."""

HORIZON = 0.1
"""Smallest homogeneous coordinate of a visible point of a projective map."""
BEYOND = 10.0
"""The coordinate of points that are not visible."""


def sample_points(
    output: ModelOutput, manifest: Manifest, index: int, side: int, placed: Floats | None = None
) -> Floats:
    """Map ``side`` x ``side`` points of the rectified image of transformer ``index``, edge to edge, into the picture.

    ``placed`` is `Shown.to_picture` of what the model was shown, unless it was the whole picture.

    Returns:
        ``(side * side, 2)``, row by row, (x, y) in units of the picture's width and height, as in `outputs.regions`.
    """
    points = sampling_map(output, manifest, index).apply(regular_grid(side))
    return ((points if placed is None else apply_affine(placed[:2], points)) + 1) / 2


def sampling_map(output: ModelOutput, manifest: Manifest, index: int, frame: float = 1.0) -> SamplingMap:
    """The whole map of transformer ``index``: from its rectified image to the picture.

    ``frame`` is the size of what is sampled relative to the rectified image, about the same centre.
    """
    transform, theta = manifest.transforms[index], np.asarray(output.transforms[index].theta)
    if transform.kind not in BENT:
        return SamplingMap(partial(apply_affine, theta * (frame, frame, 1)), to_square(theta) * (frame, frame, 1))
    steps = steps_of(output, manifest, index)
    around = surrounding_map(output, manifest, index, steps)

    def compose(points: Floats) -> Floats:
        return apply_affine(around, chain(transform.kind, steps, points * frame))

    if transform.kind == "tps":
        return SamplingMap(compose, None)
    homographies = [np.asarray(step.parameters).reshape(3, 3) for step in steps]
    if (horizon_distance(homographies, frame) <= HORIZON).any():
        return SamplingMap(compose, None, is_smooth=False)
    whole = to_square(around)
    for homography in homographies:
        whole = whole @ homography
    return SamplingMap(compose, whole * (frame, frame, 1))


def within(sampling: SamplingMap, placed: Floats) -> SamplingMap:
    """The map into a whole picture, of which ``sampling`` leads into what was shown; ``placed`` is `Shown.to_picture`.

    Points beyond the horizon stay far outside.
    """

    def apply(points: Floats) -> Floats:
        mapped = sampling.apply(points)
        if not sampling.is_smooth:
            hidden = (np.abs(mapped) >= BEYOND).any(axis=1)
            mapped[hidden] /= np.linalg.svd(placed[:2, :2], compute_uv=False).min()
        return apply_affine(placed[:2], mapped)

    homography = None if sampling.homography is None else placed @ sampling.homography
    return SamplingMap(apply, homography, sampling.is_smooth)


def steps_of(output: ModelOutput, manifest: Manifest, index: int) -> list[TransformOutput]:
    """The outputs of the earlier steps of the branch of transformer ``index``, and its own.

    A transformer of features follows the steps of the last branch.
    """
    transforms = manifest.transforms
    on_features = transforms[index].reads == "features"
    branch = transforms[index - 1 if on_features else index].branch
    return [
        step
        for stated, step in zip(transforms[: index + 1], output.transforms, strict=False)
        if stated.branch == branch or stated.reads == "features"
    ]


def surrounding_map(output: ModelOutput, manifest: Manifest, index: int, steps: Sequence[TransformOutput]) -> Floats:
    """The affine map ``(2, 3)`` that is applied after all ``steps``.

    Parallel branches do not start from the full image; their common outer map is what remains of theta once the
    branch's own transforms are removed.
    """
    if all(stated.branch == 1 for stated in manifest.transforms):
        return np.eye(2, 3)
    size = manifest.transforms[index]
    grid = np.stack(np.meshgrid(centres(size.width), centres(size.height)), axis=-1).reshape(-1, 2)
    own = to_square(fit(chain(size.kind, steps, grid), grid))
    outer: Floats = np.asarray(output.transforms[index].theta) @ np.linalg.pinv(own)
    return outer


def chain(kind: str, steps: Sequence[TransformOutput], points: Floats) -> Floats:
    """Map ``points`` through ``steps``, the last one first."""
    for step in reversed(steps):
        points = apply(kind, step, points)
    return points


def horizon_distance(homographies: Sequence[Floats], frame: float) -> Floats:
    """The homogeneous coordinates of the corners of the rectified image, times ``frame``, in each step.

    They are smallest there, unless one of them is not positive.
    """
    points = CORNERS * (frame, frame, 1)
    depths = []
    for homography in reversed(homographies):
        mapped = points @ homography.T
        depths.append(mapped[:, 2])
        points = mapped / np.maximum(mapped[:, 2:], HORIZON)
    return np.concatenate(depths)


def to_square(matrix: Floats) -> Floats:
    """An affine map ``(2, 3)`` as ``(3, 3)``."""
    return np.vstack([matrix, [0, 0, 1]])


def apply(kind: str, step: TransformOutput, points: Floats) -> Floats:
    """Apply the transformer's own map to ``points`` ``(M, 2)``."""
    parameters = np.asarray(step.parameters)
    return apply_tps(parameters.reshape(-1, 2), points) if kind == "tps" else project(parameters.reshape(3, 3), points)


def project(homography: Floats, points: Floats) -> Floats:
    """Apply a homography ``(3, 3)`` to ``points`` ``(M, 2)``. Points at or beyond the horizon map to `BEYOND`."""
    x, y = points.T
    across, down, depth = ((a * x + b * y + c) for a, b, c in homography.tolist())  # without threads, unlike @
    seen, depth = depth > HORIZON, np.maximum(depth, HORIZON)
    return np.stack([np.where(seen, across / depth, BEYOND), np.where(seen, down / depth, BEYOND)], axis=1)


def apply_tps(targets: Floats, points: Floats) -> Floats:
    """Apply the thin-plate spline (Bookstein 1989) from `regular_grid` to ``targets`` ``(K * K, 2)`` to ``points``."""
    side = round(len(targets) ** 0.5)
    control = regular_grid(side)
    terms = np.hstack([kernel(points, control), np.ones((len(points), 1)), points])
    mapped: Floats = terms @ (spline(side) @ targets)
    return mapped


@lru_cache(maxsize=16)
def spline(side: int) -> Floats:
    """The matrix from targets of ``side`` x ``side`` control points to coefficients: ``(side**2 + 3, side**2)``."""
    control = regular_grid(side)
    count = len(control)
    affine = np.hstack([np.ones((count, 1)), control])
    system = np.block([[kernel(control, control), affine], [affine.T, np.zeros((3, 3))]])
    solved: Floats = np.linalg.inv(system)[:, :count]
    return solved


def kernel(points: Floats, control: Floats) -> Floats:
    """``r^2 log r^2`` of each point to each control point: ``(M, K)``."""
    squared: Any = np.square(points[:, None] - control).sum(axis=2)
    radial: Floats = squared * np.log(np.maximum(squared, np.finfo(np.float64).tiny))
    return radial


def fit(points: Floats, grid: Floats) -> Floats:
    """Fit the affine map ``(2, 3)`` from ``grid`` to ``points``, both ``(M, 2)``, by least squares."""
    solution, *_ = np.linalg.lstsq(np.hstack([grid, np.ones((len(grid), 1))]), points)
    return np.asarray(solution.T, dtype=np.float64)


def centres(count: int) -> Floats:
    """Return the normalised centres of ``count`` pixels."""
    return np.asarray((2 * np.arange(count) + 1) / count - 1, dtype=np.float64)


@lru_cache(maxsize=64)
def regular_grid(side: int) -> Floats:
    """Return ``side`` x ``side`` evenly spaced points from edge to edge: ``(side * side, 2)``, row by row."""
    axis = np.linspace(-1, 1, side)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
