"""Reliability is measured against known changes, and its score is a calibrated probability."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit

from training.data.splits import Split
from training.evaluation.reliability import WITHIN, Look, fit_logistic, measure_reliability
from training.recipes.catalogue import find_recipe

Floats = NDArray[np.float64]
SIDE = 28
RECIPE = find_recipe("mnist-rts-affine")


def bars(count: int) -> Split:
    """Wedges, whose position, direction and size can be read from their moments."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    wedge = ((y - SIDE / 2).abs() < (x - 6) / 3) & (x > 6) & (x < 22)
    images = torch.where(wedge, 255, 0).to(torch.uint8).expand(count, 1, SIDE, SIDE).clone()
    return Split(images, torch.arange(count) % 2)


def frames_by_moments(pictures: NDArray[np.uint8]) -> Floats:
    """The frames of wedges: ``(N, 2, 3)``."""
    height, width = pictures.shape[1:3]
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = 2 * x / width - 1, 2 * y / height - 1
    ink = pictures[..., 0].astype(float) + 1e-9
    mass = ink.sum(axis=(1, 2))
    cx, cy = ((ink * axis).sum(axis=(1, 2)) / mass for axis in (x, y))
    dx, dy = x - cx[:, None, None], y - cy[:, None, None]
    xx, xy, yy = ((ink * product).sum(axis=(1, 2)) / mass for product in (dx * dx, dx * dy, dy * dy))
    turn = np.arctan2(2 * xy, xx - yy) / 2
    along = np.cos(turn)[:, None, None] * dx + np.sin(turn)[:, None, None] * dy
    turn = np.where((ink * along**3).sum(axis=(1, 2)) < 0, turn, turn + np.pi)
    size = 2 * np.sqrt(xx + yy)
    cosine, sine = size * np.cos(turn), size * np.sin(turn)
    return np.stack([cosine, -sine, cx, sine, cosine, cy], axis=1).reshape(-1, 2, 3)


def finder(*, spoiled: float) -> Look:
    """Finds wedges; in this share of the pictures it errs, by more or less."""
    generator = np.random.default_rng(0)

    def look(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.intp], Floats]:
        thetas = frames_by_moments(pictures)
        wrong = generator.random(len(thetas)) < spoiled
        thetas[wrong, :, 2] += generator.normal(0, 0.6, (int(wrong.sum()), 2))
        return np.arange(len(pictures)) % 2, thetas

    return look


def test_corners_that_follow_every_change_are_right() -> None:
    found = measure_reliability(finder(spoiled=0), RECIPE, bars(100))
    assert found.within == WITHIN
    assert found.pictures == 100
    assert found.shares[-1] == 1
    assert max(found.corners_wrong) == 0
    assert max(found.class_wrong) == 0
    assert expit(found.intercept + found.slope * np.log(0.05)) > 0.95


def test_a_network_that_looks_nowhere_is_not_reliable() -> None:
    def look(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.intp], Floats]:
        return np.zeros(len(pictures), np.intp), np.tile(np.eye(2, 3) / 2, (len(pictures), 1, 1))

    found = measure_reliability(look, RECIPE, bars(100))
    assert found.corners_wrong[-1] > 0.8
    assert found.class_wrong[-1] == pytest.approx(0.5)


def test_the_curve_falls_where_errors_show_in_the_views() -> None:
    generator = np.random.default_rng(1)
    blind: dict[int, bool] = {}

    def look(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.intp], Floats]:
        thetas = frames_by_moments(pictures)
        for number in range(len(pictures)):
            if blind.setdefault(number, bool(generator.random() < 0.3)):
                thetas[number, :, 2] += generator.normal(0, 0.5, 2)
        return np.arange(len(pictures)) % 2, thetas

    found = measure_reliability(look, RECIPE, bars(200))
    assert 0.1 < found.corners_wrong[-1] < 0.4
    assert found.corners_wrong[len(found.shares) // 2] < found.corners_wrong[-1] / 3
    assert found.slope < -1


def test_scores_are_the_probabilities_that_made_them() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(-2, 1, 4000)
    right = generator.random(4000) < expit(-1 - 2 * values)
    assert fit_logistic(values, right) == pytest.approx((-1, -2), abs=0.2)


@pytest.mark.parametrize("share", [0, 1])
def test_scores_stay_finite_where_all_are_right_or_wrong(share: int) -> None:
    values = np.linspace(-4, 0, 50)
    intercept, slope = fit_logistic(values, np.full(50, bool(share)))
    scores = expit(intercept + slope * values)
    assert slope <= 0
    assert np.abs(scores - share).max() < 0.1
    assert ((scores > 0) & (scores < 1)).all()
