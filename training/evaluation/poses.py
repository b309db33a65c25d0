"""Measures of poses: how much of a known change theta takes out, and how the things of each class lean."""

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import scipy
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.data.augmentation import Jittered
from training.data.batches import distort, distorted, distortion
from training.data.distortions import Distortion
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.networks.geometry import compose
from training.networks.network import SpatialTransformerClassifier
from training.recipes.contradictions import AFFINE_DISTORTIONS
from training.recipes.recipe import Augmentation, Recipe

VERSIONS = 8
"""Number of changes of each picture."""
BATCH = 500
CHANGE = Augmentation(rotation=15, zoom=1.2, shift=0.1)
"""The known change of pictures that have no affine distortion of their own. It is the same for all recipes."""

SMALLEST_AREA = 1e-6
CIRCLE = {"high": math.pi, "low": -math.pi}
"""The range of angles."""


class Change(BaseModel):
    """A known change of pictures, and what is left of it after rectification, as deviations within a picture."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    given: float
    left: float
    """Equal to ``given`` if theta is the same for all pictures."""


class Pose(BaseModel):
    """How theta follows known changes of the same pictures, and how the things of each class lean."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    pictures: int
    versions: int
    turn_deg: Change
    """Circular standard deviation of the angle in degrees."""
    shift: Change
    """Standard deviation of the position as a share of the picture's sides."""
    size: Change
    """Standard deviation of the size as a factor; 1 is none."""
    class_lean_deg: Mapping[str, float]
    """For each class, the circular mean of the angle of its frames, clockwise, against the unchanged pictures."""
    between_deg: float | None
    """Circular standard deviation of the angle between the things of a class, averaged over the classes; None if no
    class has two pictures."""


class Views(NamedTuple):
    """Pictures under one known change each, and where the network samples them."""

    maps: Tensor
    """``(N, 2, 3)`` from the changed to the unchanged picture."""
    theta: Tensor
    """``(N, 2, 3)`` of the last transformer, from the rectified image to the changed picture."""
    images: Tensor
    """``(N, C, H, W)``, the changed pictures, in [0, 1]."""
    rectified: Tensor
    """``(N, C, h, w)``."""


def known_changes(recipe: Recipe, whole: Split) -> tuple[Distortion, Split]:
    """Return a known change, and the pictures of the undistorted split ``whole`` that it is applied to.

    It is the recipe's distortion if that is an affine map, and else `CHANGE` of the pictures that the network is
    tested on.
    """
    if recipe.distortion in AFFINE_DISTORTIONS:
        return distortion(recipe), whole
    return Jittered(recipe.canvas, CHANGE), distorted(recipe, whole, Stream.TEST)


def views(network: SpatialTransformerClassifier, how: Distortion, pictures: Split) -> Iterator[Views]:
    """Run ``network`` on ``pictures`` under `VERSIONS` known changes, which are the same for every call.

    Raises:
        TypeError: the change is not an affine map.
    """
    for version in range(VERSIONS):
        changed = distort(how, pictures, seeded(Stream.UPRIGHTNESS, position=version))
        if changed.maps is None:
            raise TypeError("the change of the pictures is not an affine map")
        images = changed.images / 255
        with torch.inference_mode():
            warps = [network(batch).warps[-1] for batch in torch.split(images, BATCH)]
        theta, rectified = (torch.cat([getattr(warp, name) for warp in warps]) for name in ("theta", "rectified"))
        yield Views(changed.maps, theta, images, rectified)


def measure_pose(network: SpatialTransformerClassifier, recipe: Recipe, whole: Split, classes: tuple[str, ...]) -> Pose:
    """Measure the poses of the undistorted pictures ``whole`` under known changes."""
    how, pictures = known_changes(recipe, whole)
    aspect = pictures.images.shape[-1] / pictures.images.shape[-2]
    seen = [(view.maps, compose(view.maps, view.theta)) for view in views(network, how, pictures)]
    both = [torch.stack(maps) for maps in zip(*seen, strict=True)]  # (V, N, 2, 3): as given, and as rectified
    given_turn, turn = (rotation(maps, aspect) for maps in both)
    lean = scipy.stats.circmean(turn.double().numpy(), **CIRCLE, axis=0)
    labels = pictures.labels.numpy()
    things = {name: lean[labels == number] for number, name in enumerate(classes) if (labels == number).any()}
    leans = {name: scipy.stats.circmean(angles, **CIRCLE) for name, angles in things.items()}
    between = [scipy.stats.circstd(angles, **CIRCLE) for angles in things.values() if len(angles) > 1]
    return Pose(
        pictures=len(labels),
        versions=VERSIONS,
        turn_deg=Change(given=mean_degrees(deviation(given_turn)), left=mean_degrees(deviation(turn))),
        shift=Change(given=shift_deviation(both[0]), left=shift_deviation(both[1])),
        size=Change(given=size_deviation(both[0]), left=size_deviation(both[1])),
        class_lean_deg={name: round(math.degrees(angle), 2) for name, angle in leans.items()},
        between_deg=round(math.degrees(statistics.mean(between)), 2) if between else None,
    )


def rotation(maps: Tensor, aspect: float = 1.0) -> Tensor:
    """Return the angle of the nearest rotation of maps ``(..., 2, 3)``, clockwise: ``(...)`` radians.

    ``aspect`` is the picture's width divided by its height.
    """
    (a, b), (c, d) = (maps[..., row, :2].unbind(dim=-1) for row in (0, 1))
    return torch.atan2(c / aspect - b * aspect, a + d)


def deviation(angles: Tensor) -> Tensor:
    """Return the circular standard deviation over the first axis: ``(V, N)`` -> ``(N,)`` radians."""
    return torch.from_numpy(scipy.stats.circstd(angles.double().numpy(), **CIRCLE, axis=0))


def mean_degrees(angles: Tensor) -> float:
    """Return the mean of non-negative angles ``(N,)`` in radians, in degrees."""
    return round(float(angles.mean().rad2deg()), 2)


def shift_deviation(maps: Tensor) -> float:
    """Return the standard deviation of a picture's position over its versions ``(V, N, 2, 3)``, as in `Pose`."""
    return round(float((maps[..., 2] / 2).var(dim=0, unbiased=False).sum(dim=-1).sqrt().mean()), 4)


def size_deviation(maps: Tensor) -> float:
    """Return the standard deviation of a picture's size over its versions ``(V, N, 2, 3)``, as in `Pose`."""
    size = torch.linalg.det(maps[..., :2]).abs().clamp(min=SMALLEST_AREA).log() / 2
    return round(math.exp(float(size.std(dim=0, unbiased=False).mean())), 4)


def targets(boxes: Tensor | None, crop: float, like: Tensor, share: float = 1.0) -> Tensor:
    """Return the wanted frames.

    Args:
        boxes: ``(N, 2, 2)`` of the objects, if they are known.
        crop: side of the canonical crop, which is wanted where boxes are not known.
        like: ``(N, 2, 3)``: frames of the same number, type and device.
        share: side of a wanted frame as a share of its box's.

    Returns:
        ``(N, 2, 3)``.
    """
    if boxes is None:
        return torch.tensor([[crop, 0.0, 0.0], [0.0, crop, 0.0]]).to(like).expand_as(like)
    centres, halves = boxes.to(like).mean(dim=1), share * (boxes[:, 1] - boxes[:, 0]).to(like) / 2
    return torch.cat([torch.diag_embed(halves), centres[:, :, None]], dim=2)
