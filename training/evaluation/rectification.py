"""Measures of rectification: how upright and still digits are under several distortions, and how well boxes fit."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.data.batches import distort, distortion
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.networks.geometry import affine_points, compose, corner_points
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe

VERSIONS = 8
"""Number of distortions of each digit."""
BATCH = 500
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


def measure_uprightness(network: SpatialTransformerClassifier, recipe: Recipe, digits: Split) -> Uprightness:
    """Run ``network`` on each of ``digits`` under `VERSIONS` distortions, which are the same for every call.

    The recipe's distortion must be an affine map.
    """
    how = distortion(recipe)
    angles, input_angles, rectified, inputs, overlaps = [], [], [], [], []
    boxes = ink_boxes(digits.images)
    for version in range(VERSIONS):
        changed = distort(how, digits, seeded(Stream.UPRIGHTNESS, position=version))
        if changed.maps is None:
            raise TypeError(f"{recipe.distortion} is not an affine map")
        with torch.inference_mode():
            warps = [network(batch / 255).warps[-1] for batch in torch.split(changed.images, BATCH)]
        theta = torch.cat([warp.theta for warp in warps])
        angles.append(rotation(compose(changed.maps, theta)))
        input_angles.append(rotation(changed.maps))
        rectified.append(torch.cat([warp.rectified for warp in warps]))
        inputs.append(changed.images / 255)
        found = bounds(affine_points(theta, corner_points().expand(len(theta), -1, -1)))
        overlaps.append(intersection_over_union(found, bounds(to_canvas(boxes, changed.maps))))
    return Uprightness(
        digits=len(digits.labels),
        versions=VERSIONS,
        rotation_deg=round(float(circular_deviation(torch.stack(angles)).mean().rad2deg()), 2),
        input_rotation_deg=round(float(circular_deviation(torch.stack(input_angles)).mean().rad2deg()), 2),
        stillness=round(stillness(torch.stack(rectified)), 4),
        input_stillness=round(stillness(torch.stack(inputs)), 4),
        box_found=round(float((torch.cat(overlaps) > NEAR).float().mean()), 4),
    )


class BoxScores(BaseModel):
    """Mean intersection over union with the object's bounding box, of theta and of two simpler guesses."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    theta: float
    """Mean overlap of theta's bounding box."""
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
    found = bounds(affine_points(theta, corner_points().expand(len(theta), -1, -1)))
    return BoxScores(
        theta=round(score(found, boxes), 4),
        whole=round(score(centred(1, boxes), boxes), 4),
        centre=round(score(centred(best, boxes), boxes), 4),
        centre_side=best,
    )


def rotation(maps: Tensor) -> Tensor:
    """Return the angle of the nearest rotation: ``(N, 2, 3)`` between square frames -> ``(N,)`` radians."""
    return torch.atan2(maps[:, 1, 0] - maps[:, 0, 1], maps[:, 0, 0] + maps[:, 1, 1])


def circular_deviation(angles: Tensor) -> Tensor:
    """Return the circular standard deviation over the first axis: ``(V, N)`` -> ``(N,)`` radians (Mardia 1972)."""
    length = torch.hypot(angles.cos().mean(dim=0), angles.sin().mean(dim=0)).clamp(1e-9, 1)
    return (-2 * length.log()).sqrt()


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
    corners = [torch.stack([x, y], dim=-1) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    return torch.stack(corners, dim=1)


def ink_areas(images: Tensor) -> Tensor:
    """Return the area of each digit's box as a share of the picture: ``(N, C, H, W)`` from 0 to 255 -> ``(N,)``."""
    boxes = bounds(ink_boxes(images))
    return (boxes[:, 1] - boxes[:, 0]).prod(dim=1) / 4


def to_canvas(points: Tensor, maps: Tensor) -> Tensor:
    """Map points ``(N, M, 2)`` of the originals to the canvas, by the inverse of ``maps`` ``(N, 2, 3)``."""
    inverse = torch.linalg.inv(maps[:, :, :2])
    moved: Tensor = (points - maps[:, None, :, 2]) @ inverse.transpose(1, 2)
    return moved


def bounds(points: Tensor) -> Tensor:
    """Return the bounding box of points, clipped to the picture: ``(N, M, 2)`` -> ``(N, 2, 2)``, lowest and highest."""
    inside = points.clamp(-1, 1)
    return torch.stack([inside.amin(dim=1), inside.amax(dim=1)], dim=1)


def intersection_over_union(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union of boxes ``(N, 2, 2)``: ``(N,)`` from 0 to 1."""
    low, high = torch.maximum(one[:, 0], other[:, 0]), torch.minimum(one[:, 1], other[:, 1])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = [(box[:, 1] - box[:, 0]).prod(dim=1) for box in (one, other)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
