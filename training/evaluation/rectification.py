"""Measures of rectification: how upright and still digits are under several distortions."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.data.batches import distortion
from training.data.splits import Split
from training.evaluation.overlaps import bounds, box_corners, frames, intersection_over_union, quadrilateral_overlap
from training.evaluation.poses import VERSIONS, deviation, mean_degrees, rotation, views
from training.networks.geometry import compose, inverse_points
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe

INK = 0.2
"""Grey level, of 1, above which a pixel belongs to the digit."""
NEAR = 0.5
"""Intersection over union above which a digit counts as found."""


class Uprightness(BaseModel):
    """Measures of how upright and still digits are in the rectified images, and in the inputs for comparison."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    digits: int
    versions: int
    rotation_deg: float
    """Circular standard deviation of a digit's angle over its distortions, averaged over the digits."""
    input_rotation_deg: float
    stillness: float
    """Variance of a pixel over a digit's distortions, divided by its variance over all pictures; 0 is still."""
    input_stillness: float
    box_found: float
    """Share of the pictures in which theta's bounding box and the digit's bounding box overlap by more than half
    (intersection over union)."""
    quadrilateral: float | None = None
    """Mean overlap of theta's quadrilateral and the digit's bounding box, which is turned with the digit; None in
    evaluations of older versions."""


def measure_uprightness(network: SpatialTransformerClassifier, recipe: Recipe, digits: Split) -> Uprightness:
    """Measure ``digits`` under the recipe's distortion, which must be an affine map."""
    angles, input_angles, rectified, inputs, boxes_met, quadrilaterals = [], [], [], [], [], []
    boxes = ink_boxes(digits.images)
    for view in views(network, distortion(recipe), digits):
        angles.append(rotation(compose(view.maps, view.theta)))
        input_angles.append(rotation(view.maps))
        rectified.append(view.rectified)
        inputs.append(view.images)
        found, wanted = frames(view.theta), inverse_points(view.maps, boxes)
        boxes_met.append(intersection_over_union(bounds(found), bounds(wanted)) > NEAR)
        quadrilaterals.append(quadrilateral_overlap(found, wanted))
    return Uprightness(
        digits=len(digits.labels),
        versions=VERSIONS,
        rotation_deg=mean_degrees(deviation(torch.stack(angles))),
        input_rotation_deg=mean_degrees(deviation(torch.stack(input_angles))),
        stillness=round(stillness(torch.stack(rectified)), 4),
        input_stillness=round(stillness(torch.stack(inputs)), 4),
        box_found=round(float(torch.cat(boxes_met).float().mean()), 4),
        quadrilateral=round(float(torch.cat(quadrilaterals).mean()), 4),
    )


def stillness(images: Tensor) -> float:
    """Return a pixel's variance within a digit divided by that over all pictures: ``(V, N, C, H, W)`` -> 0 to 1."""
    within = images.var(dim=0, unbiased=False).mean()
    overall = images.flatten(0, 1).var(dim=0, unbiased=False).mean()
    return float(within / overall)


def ink_boxes(images: Tensor) -> Tensor:
    """Return the normalised corners of each digit's bounding box: ``(N, C, H, W)`` from 0 to 255 -> ``(N, 4, 2)``."""
    ink = images.float().amax(dim=1) > 255 * INK  # (N, H, W)
    sides = []
    for axis in (1, 2):  # across rows: columns; across columns: rows
        line = ink.any(dim=axis).float()  # (N, W) or (N, H)
        size = line.shape[1]
        first = line.argmax(dim=1)
        last = size - line.flip(1).argmax(dim=1)
        sides.append((2 * first / size - 1, 2 * last / size - 1))
    (left, right), (top, bottom) = sides
    return box_corners(torch.stack([torch.stack([left, top], dim=1), torch.stack([right, bottom], dim=1)], dim=1))


def ink_areas(images: Tensor) -> Tensor:
    """Return the area of each digit's box as a share of the picture: ``(N, C, H, W)`` from 0 to 255 -> ``(N,)``."""
    boxes = bounds(ink_boxes(images))
    return (boxes[:, 1] - boxes[:, 0]).prod(dim=1) / 4
