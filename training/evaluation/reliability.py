"""How far to trust a frame whose truth is unknown: whether it follows known changes of its picture.

The picture is looked at again in views (`imaging.views`), and the frames found there are brought back. The further they
are from the first one, the less likely it is right. A logistic function of the logarithm of that deviation, fitted on
validation pictures, says how likely (Platt 1999).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from imaging.views import bring_back, corner_distance, make_views, region_side, view_maps
from training.data.batches import distort, training_distortion
from training.data.distortions import Distortion
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.evaluation.poses import VERSIONS, known_changes, targets
from training.networks.geometry import affine_fit, corner_points
from training.recipes.recipe import Recipe

Floats = NDArray[np.float64]
Look = Callable[[NDArray[np.uint8]], tuple[NDArray[np.intp], Floats]]
"""Pictures ``(N, H, W, C)`` -> the classes that a network sees there ``(N,)``, and its thetas ``(N, 2, 3)``."""

PICTURES = 1000
"""Largest number of pictures that are looked at."""
VIEWS = 8
WITHIN = 0.15
"""Distance within which corners count as right: their mean distance from the true ones, as a share of the side of the
true frame."""
SMALLEST, LARGEST = 1e-4, 100.0
"""The range of deviations, whose logarithms are finite."""
MOST_LEVELS = 2**26
"""Levels of the pictures that are changed at a time."""
STEPS = 20
"""Number of points of the curves."""


class Reliability(BaseModel):
    """The probability that corners are right, and how few answers are wrong if the less reliable ones are left out."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    pictures: int
    views: int
    """Views of each picture."""
    within: float
    """Largest distance of right corners, see `WITHIN`."""
    intercept: float
    slope: float
    """A score is the logistic function of intercept + slope * ln(deviation), with the deviation as a share of the
    side of the frame."""
    shares: tuple[float, ...]
    """Shares of the answers, those with the highest scores first."""
    corners_wrong: tuple[float, ...]
    """Share of each of these whose corners are wrong."""
    class_wrong: tuple[float, ...]
    """Share of each of these whose class is wrong."""


class Shown(NamedTuple):
    """Pictures under known changes, and what is true of them."""

    pictures: NDArray[np.uint8]
    """``(N, H, W, C)``."""
    labels: NDArray[np.intp]
    """``(N,)``."""
    maps: Floats
    """``(N, 2, 3)`` from the changed to the unchanged picture."""


def measure_reliability(look: Look, recipe: Recipe, whole: Split) -> Reliability:
    """Measure how reliable ``look`` is on some of the undistorted validation pictures ``whole``.

    Raises:
        DataError: the recipe's backgrounds cannot be read.
    """
    count = len(whole.labels)
    how, pictures = changes(recipe, whole.at(torch.arange(count)[:: -(-count // PICTURES)]))
    shown = show(how, pictures, 0)
    found, thetas = look(shown.pictures)
    distance = error(thetas, true_thetas(look, recipe, how, pictures, shown.maps), shown.pictures)
    off = deviation(look, shown.pictures, thetas)
    right = distance < WITHIN
    intercept, slope = fit_logistic(np.log(off), right)
    order = np.argsort(off, kind="stable")
    counts = np.unique(np.ceil(np.arange(1, STEPS + 1) / STEPS * len(order)).astype(np.intp))

    def curve(wrong: NDArray[np.bool_]) -> tuple[float, ...]:
        return tuple((wrong[order].cumsum()[counts - 1] / counts).round(6).tolist())

    return Reliability(
        pictures=len(order),
        views=VIEWS,
        within=WITHIN,
        intercept=intercept,
        slope=slope,
        shares=tuple((counts / len(order)).round(6).tolist()),
        corners_wrong=curve(~right),
        class_wrong=curve(found != shown.labels),
    )


def changes(recipe: Recipe, whole: Split) -> tuple[Distortion, Split]:
    """Return the known change under which pictures are looked at: placed as in training, or as poses are measured.

    Raises:
        DataError: the recipe's backgrounds cannot be read.
    """
    if not recipe.placement.chance:
        return known_changes(recipe, whole)
    always = recipe.placement.model_copy(update={"chance": 1.0})
    return training_distortion(recipe.model_copy(update={"placement": always})), whole


def show(how: Distortion, pictures: Split, version: int) -> Shown:
    """Change ``pictures`` by a ``version`` of the known change ``how``.

    Raises:
        TypeError: the change is not an affine map.
    """
    at_once = max(1, MOST_LEVELS // pictures.images[0].numel())
    parts = []
    for number, some in enumerate(torch.split(torch.arange(len(pictures.labels)), at_once)):
        stream = seeded(Stream.VALIDATION, position=version + number * (VERSIONS + 1))
        changed = distort(how, pictures.at(some), stream)
        if changed.maps is None:
            raise TypeError("the change of the pictures is not an affine map")
        images = changed.images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        parts.append((images.contiguous().numpy(), changed.labels.numpy(), as_floats(changed.maps)))
    return Shown(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def true_thetas(look: Look, recipe: Recipe, how: Distortion, pictures: Split, maps: Floats) -> Floats:
    """Return the thetas that are right for pictures changed by ``maps`` ``(N, 2, 3)``: ``(N, 2, 3)``.

    They are what the network was told, if it was told where objects lie. Otherwise it has chosen for each picture what
    is upright, and its median choice under other changes of the same picture counts.
    """
    if recipe.pose and (pictures.boxes is not None or recipe.placement.chance):
        like = torch.zeros(len(maps), 2, 3)
        frames = as_floats(targets(pictures.boxes, recipe.crop, like, recipe.box))
    else:
        others = (show(how, pictures, version) for version in range(1, VERSIONS + 1))
        frames = np.median([bring_back(other.maps, look(other.pictures)[1]) for other in others], axis=0)
    if recipe.corners and pictures.corners is not None:
        told = (pictures.corners.known & ~pictures.corners.boxed).numpy()
        square = (-1, 2, 2, 2)
        fits = affine_fit(pictures.corners.points.view(square), corner_points().view(square))
        frames = np.where(told[:, None, None], as_floats(fits), frames)
    inverse = np.linalg.inv(maps[:, :, :2])
    return bring_back(np.concatenate([inverse, -inverse @ maps[:, :, 2:]], axis=2), frames)


def error(thetas: Floats, true: Floats, pictures: NDArray[np.uint8]) -> Floats:
    """Return the distances of corners, see `WITHIN`: ``(N, 2, 3)`` each -> ``(N,)``."""
    height, width = pictures.shape[1:3]
    found: Floats = corner_distance(thetas, true, width, height) / region_side(true, width, height)
    return found


def deviation(look: Look, pictures: NDArray[np.uint8], thetas: Floats) -> Floats:
    """Return how far thetas ``(N, 2, 3)`` are from those of the views, in shares of their side: ``(N,)``."""
    height, width = pictures.shape[1:3]
    total = np.zeros(len(pictures))
    for back in thetas_of_views(look, pictures):
        total += corner_distance(back, thetas, width, height)
    side = np.maximum(region_side(thetas, width, height), SMALLEST)
    found: Floats = (total / VIEWS / side).clip(SMALLEST, LARGEST)
    return found


def thetas_of_views(look: Look, pictures: NDArray[np.uint8]) -> Iterator[Floats]:
    """Yield the thetas of each view, brought back to the pictures: ``(N, 2, 3)``."""
    maps = view_maps(VIEWS, pictures.shape[2] / pictures.shape[1])
    for number in range(VIEWS):
        one = maps[number : number + 1]
        views = np.concatenate([make_views(picture, one) for picture in pictures])
        yield bring_back(one, look(views)[1])


def fit_logistic(values: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Return intercept and slope of the logistic function of ``values`` ``(N,)`` that fits ``right`` best.

    The targets are Platt's, which keep it finite where all are right. The slope is at most 0.
    """
    hits = int(right.sum())
    wanted = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        score = parameters[0] + parameters[1] * values
        gap = expit(score) - wanted
        return float((np.logaddexp(0, score) - wanted * score).mean()), np.array([gap.mean(), (gap * values).mean()])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-100, 100), (-50, 0)])
    return round(float(found.x[0]), 6), round(float(found.x[1]), 6)


def as_floats(values: Tensor) -> Floats:
    """Return a tensor as an array of float64."""
    found: Floats = values.double().numpy()
    return found
