"""Corner errors are those that a ruler would measure."""

import pytest
import torch
from torch import Tensor

from training.data.splits import Corners
from training.evaluation.corners import measure_corners
from training.networks.geometry import corner_points

SQUARE = 0.5 * corner_points()


def of(points: Tensor, boxed: list[bool] | None = None, width: float = 200.0, height: float = 100.0) -> Corners:
    boxes = torch.tensor(boxed or [False] * len(points))
    return Corners(points, boxes, torch.tensor([[width, height]]).expand(len(points), -1))


def test_the_error_is_in_pixels_of_the_pictures_file() -> None:
    moved = SQUARE + torch.tensor([0.03, 0.08])  # 3 pixels across and 4 down
    scores = measure_corners(moved, of(SQUARE), None)
    assert scores is not None
    assert scores.after is not None
    assert scores.before is not None
    assert (scores.after.error_px, scores.after.error_px_90) == (5, 5)
    assert scores.after.overlap == pytest.approx(0.97 * 0.92 / (2 - 0.97 * 0.92), abs=1e-4)
    assert scores.before.error_px == pytest.approx((50**2 + 25**2) ** 0.5, abs=1e-3)
    assert scores.before.overlap == 0.25
    assert (scores.pictures, scores.labelled, scores.guess) == (1, 0, None)


def test_the_guess_is_the_mean_of_the_training_pictures() -> None:
    training = of(torch.cat([SQUARE - 0.1, SQUARE + 0.1, torch.full_like(SQUARE, torch.nan)]))
    scores = measure_corners(SQUARE, of(SQUARE), training)
    assert scores is not None
    assert scores.guess is not None
    assert (scores.guess.error_px, scores.guess.overlap, scores.labelled) == (0, 1, 2)


def test_a_turned_frame_is_as_right_as_its_box_says() -> None:
    diamond = torch.tensor([[[0.0, -0.5], [0.5, 0.0], [0.0, 0.5], [-0.5, 0.0]]])
    scores = measure_corners(diamond, of(SQUARE, [True]), None)
    assert scores is not None
    assert (scores.boxed, scores.box_overlap, scores.pictures, scores.after) == (1, 1, 0, None)


def test_without_a_known_corner_nothing_is_measured() -> None:
    assert measure_corners(SQUARE, of(torch.full_like(SQUARE, torch.nan)), None) is None
