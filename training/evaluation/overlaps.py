"""How well the sampled region covers an object, as intersections over unions with the object's bounding box."""

import numpy as np
import shapely
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.networks.geometry import affine_points, corner_points


class BoxScores(BaseModel):
    """Mean intersection over union with the object's bounding box, of theta and of two simpler guesses.

    All regions are clipped to the picture.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    theta: float
    """Mean overlap of the bounding box of theta's quadrilateral. It is below 1 for a turned frame, however exact."""
    quadrilateral: float | None = None
    """Mean overlap of the quadrilateral itself; None in evaluations of older versions."""
    ellipse: float | None = None
    """Mean overlap of the bounding box of the ellipse inscribed in the quadrilateral, which a rotation of the frame
    about a round object leaves alone; None in evaluations of older versions."""
    whole: float
    """Mean overlap of the whole picture."""
    centre: float
    """Mean overlap of the centre crop that fits the training pictures best."""
    centre_side: float
    """Side of that crop as a share of the picture's."""


def measure_boxes(theta: Tensor, boxes: Tensor, training_boxes: Tensor) -> BoxScores:
    """Compare ``theta`` ``(N, 2, 3)`` with the objects' ``boxes`` ``(N, 2, 2)``; see `BoxScores`."""

    def centred(side: float, like: Tensor) -> Tensor:
        return torch.tensor([[-side, -side], [side, side]]).expand(like.shape)

    def score(found: Tensor, wanted: Tensor) -> float:
        return float(intersection_over_union(found, wanted).mean())

    sides = [percent / 100 for percent in range(1, 101)]
    best = max(sides, key=lambda side: score(centred(side, training_boxes), training_boxes))
    found = frames(theta)
    return BoxScores(
        theta=round(score(bounds(found), boxes), 4),
        quadrilateral=round(float(quadrilateral_overlap(found, box_corners(boxes)).mean()), 4),
        ellipse=round(score(ellipse_bounds(theta), boxes), 4),
        whole=round(score(centred(1, boxes), boxes), 4),
        centre=round(score(centred(best, boxes), boxes), 4),
        centre_side=best,
    )


def frames(theta: Tensor) -> Tensor:
    """Return the corners of the sampled regions: theta ``(N, 2, 3)`` -> ``(N, 4, 2)``."""
    return affine_points(theta, corner_points().expand(len(theta), -1, -1))


def bounds(points: Tensor) -> Tensor:
    """Return the bounding box of points, clipped to the picture: ``(N, M, 2)`` -> ``(N, 2, 2)``, lowest and highest."""
    inside = points.clamp(-1, 1)
    return torch.stack([inside.amin(dim=1), inside.amax(dim=1)], dim=1)


def ellipse_box(theta: Tensor) -> Tensor:
    """Return the bounding box of the ellipse inscribed in theta's quadrilateral: ``(N, 2, 3)`` -> ``(N, 2, 2)``."""
    middle, reach = theta[:, :, 2], theta[:, :, :2].norm(dim=2)
    return torch.stack([middle - reach, middle + reach], dim=1)


def ellipse_bounds(theta: Tensor) -> Tensor:
    """Return `ellipse_box`, clipped to the picture."""
    return ellipse_box(theta).clamp(-1, 1)


def box_corners(boxes: Tensor) -> Tensor:
    """Return the corners of boxes: ``(N, 2, 2)``, lowest and highest -> ``(N, 4, 2)``."""
    (left, top), (right, bottom) = (boxes[:, side].unbind(dim=1) for side in (0, 1))
    corners = [torch.stack([x, y], dim=-1) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    return torch.stack(corners, dim=1)


def intersection_over_union(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union of boxes ``(N, 2, 2)``: ``(N,)`` from 0 to 1."""
    low, high = torch.maximum(one[:, 0], other[:, 0]), torch.minimum(one[:, 1], other[:, 1])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = [(box[:, 1] - box[:, 0]).prod(dim=1) for box in (one, other)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)


def quadrilateral_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union of convex quadrilaterals, clipped to the picture: ``(N, 4, 2)`` -> ``(N,)``.

    Coordinates that are not finite count as no region.
    """
    picture = shapely.box(-1, -1, 1, 1)
    clipped = [shapely.intersection(regions(corners), picture) for corners in (one, other)]
    shared = shapely.area(shapely.intersection(*clipped))
    union = shapely.area(clipped[0]) + shapely.area(clipped[1]) - shared
    return torch.from_numpy(np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0))


def regions(corners: Tensor) -> np.ndarray:  # of shapely's geometries
    """Return each quadrilateral ``(N, 4, 2)`` as a geometry, in any direction of its corners."""
    points = corners.double().numpy()
    finite = np.isfinite(points).all(axis=(1, 2), keepdims=True)
    return np.atleast_1d(shapely.convex_hull(shapely.polygons(np.where(finite, points, 0.0))))
