"""Where the points of a rectified image lie in the picture, for every kind of transformer.

A thin-plate spline bends: its four corners say too little. Here a grid of points goes through the transformer's map, as
in training; `export.format.artifact` says what the parameters of each kind are.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.format.artifact import Manifest
from service.inference.outputs import ModelOutput, TransformOutput

Floats = NDArray[np.float64]

HORIZON = 0.1
"""Smallest homogeneous coordinate of what a projective map can see."""
BEYOND = 10.0
"""Where what it cannot see is sent."""


def sample_points(reading: ModelOutput, manifest: Manifest, index: int, side: int) -> Floats:
    """Where transformer ``index`` took ``side`` x ``side`` points of its rectified image from, edge to edge.

    Returns:
        ``(side * side, 2)``, row by row, (x, y) in units of the picture's width and height, as `geometry.regions`.
    """
    transform, look = manifest.transforms[index], reading.looks[index]
    points = regular_grid(side)
    if transform.kind in ("projective", "tps"):
        points = compose_transforms(reading, manifest, index, points)
    else:
        points = apply_affine(np.asarray(look.theta), points)
    return (points + 1) / 2


def compose_transforms(reading: ModelOutput, manifest: Manifest, index: int, points: Floats) -> Floats:
    """Through the map of transformer ``index`` and those of the steps before it in its branch.

    Features come out of what the last branch has looked at. Branches side by side start elsewhere than at the whole
    picture: an affine map around all others, and what theta, which tells of all, has more than they do.
    """
    transforms = manifest.transforms
    on_features = transforms[index].reads == "features"
    branch = transforms[index - 1 if on_features else index].branch
    steps = [
        look
        for place, look in zip(transforms[: index + 1], reading.looks, strict=False)
        if place.branch == branch or place.reads == "features"
    ]

    def chain(points: Floats) -> Floats:
        for look in reversed(steps):
            points = apply(transforms[index].kind, look, points)
        return points

    found = chain(points)
    if all(place.branch == 1 for place in transforms):
        return found
    size = transforms[index]
    grid = np.stack(np.meshgrid(centres(size.width), centres(size.height)), axis=-1).reshape(-1, 2)
    around = np.linalg.pinv(np.vstack([fit(chain(grid), grid), [0, 0, 1]]))
    return apply_affine(np.asarray(reading.looks[index].theta) @ around, found)


def apply(kind: str, look: TransformOutput, points: Floats) -> Floats:
    """A transformer's own map of ``points`` ``(M, 2)``."""
    parameters = np.asarray(look.parameters)
    return apply_tps(parameters.reshape(-1, 2), points) if kind == "tps" else project(parameters.reshape(3, 3), points)


def apply_affine(theta: Floats, points: Floats) -> Floats:
    """Theta ``(2, 3)`` on ``points`` ``(M, 2)``."""
    moved: Floats = points @ theta[:, :2].T + theta[:, 2]
    return moved


def project(homography: Floats, points: Floats) -> Floats:
    """A homography ``(3, 3)`` on ``points`` ``(M, 2)``; what lies at or beyond the horizon is sent to `BEYOND`."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    depth = mapped[:, 2:]
    return np.where(depth > HORIZON, mapped[:, :2] / np.maximum(depth, HORIZON), BEYOND)


def apply_tps(targets: Floats, points: Floats) -> Floats:
    """The thin-plate spline (Bookstein 1989) that takes `regular_grid` to ``targets`` ``(K * K, 2)``, on ``points``."""
    side = round(len(targets) ** 0.5)
    control = regular_grid(side)
    terms = np.hstack([kernel(points, control), np.ones((len(points), 1)), points])
    bent: Floats = terms @ (spline(side) @ targets)
    return bent


@lru_cache(maxsize=16)
def spline(side: int) -> Floats:
    """What turns targets of ``side`` x ``side`` control points into coefficients: ``(side**2 + 3, side**2)``."""
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
    """The affine map ``(2, 3)`` that comes nearest to ``grid`` -> ``points``, both ``(M, 2)``."""
    solution, *_ = np.linalg.lstsq(np.hstack([grid, np.ones((len(grid), 1))]), points)
    return np.asarray(solution.T, dtype=np.float64)


def centres(count: int) -> Floats:
    """The normalised centres of ``count`` pixels."""
    return np.asarray((2 * np.arange(count) + 1) / count - 1, dtype=np.float64)


@lru_cache(maxsize=64)
def regular_grid(side: int) -> Floats:
    """``side`` x ``side`` points, spread evenly from edge to edge: ``(side * side, 2)``, row by row."""
    places = np.linspace(-1, 1, side)
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
