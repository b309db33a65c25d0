"""Maps a grid of points of a rectified image into the picture, for every kind of transformer.

The four corners do not describe a thin-plate spline. The grid therefore goes through the map of the transformer, as in
training. `export.format.artifact` defines the parameters of each kind.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest
from service.inference.outputs import ModelOutput, TransformOutput

Floats = NDArray[np.float64]

HORIZON = 0.1
"""Smallest homogeneous coordinate of a visible point of a projective map."""
BEYOND = 10.0
"""The coordinate of points that are not visible."""


def sample_points(output: ModelOutput, manifest: Manifest, index: int, side: int) -> Floats:
    """Map ``side`` x ``side`` points of the rectified image of transformer ``index``, edge to edge, into the picture.

    Returns:
        ``(side * side, 2)``, row by row, (x, y) in units of the picture's width and height, as in `outputs.regions`.
    """
    transform, theta = manifest.transforms[index], np.asarray(output.transforms[index].theta)
    points = regular_grid(side)
    if transform.kind in ("projective", "tps"):
        points = compose_transforms(output, manifest, index, points)
    else:
        points = apply_affine(theta, points)
    return (points + 1) / 2


def compose_transforms(output: ModelOutput, manifest: Manifest, index: int, points: Floats) -> Floats:
    """Map ``points`` through transformer ``index`` and the earlier steps of its branch.

    A transformer of features follows the steps of the last branch. Parallel branches do not start from the full image;
    their common outer map is what remains of theta once the branch's own transforms are removed.
    """
    transforms = manifest.transforms
    on_features = transforms[index].reads == "features"
    branch = transforms[index - 1 if on_features else index].branch
    steps = [
        step
        for stated, step in zip(transforms[: index + 1], output.transforms, strict=False)
        if stated.branch == branch or stated.reads == "features"
    ]

    def chain(points: Floats) -> Floats:
        for step in reversed(steps):
            points = apply(transforms[index].kind, step, points)
        return points

    found = chain(points)
    if all(stated.branch == 1 for stated in transforms):
        return found
    size = transforms[index]
    grid = np.stack(np.meshgrid(centres(size.width), centres(size.height)), axis=-1).reshape(-1, 2)
    around = np.linalg.pinv(np.vstack([fit(chain(grid), grid), [0, 0, 1]]))
    return apply_affine(np.asarray(output.transforms[index].theta) @ around, found)


def apply(kind: str, step: TransformOutput, points: Floats) -> Floats:
    """Apply the transformer's own map to ``points`` ``(M, 2)``."""
    parameters = np.asarray(step.parameters)
    return apply_tps(parameters.reshape(-1, 2), points) if kind == "tps" else project(parameters.reshape(3, 3), points)


def apply_affine(theta: Floats, points: Floats) -> Floats:
    """Apply theta ``(2, 3)`` to ``points`` ``(M, 2)``."""
    moved: Floats = points @ theta[:, :2].T + theta[:, 2]
    return moved


def project(homography: Floats, points: Floats) -> Floats:
    """Apply a homography ``(3, 3)`` to ``points`` ``(M, 2)``. Points at or beyond the horizon map to `BEYOND`."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    depth = mapped[:, 2:]
    return np.where(depth > HORIZON, mapped[:, :2] / np.maximum(depth, HORIZON), BEYOND)


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
