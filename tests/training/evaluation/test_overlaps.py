"""Overlaps of regions with boxes are those that a ruler would measure."""

import math

import pytest
import torch
from torch import Tensor

from training.evaluation.overlaps import (
    bounds,
    box_corners,
    ellipse_bounds,
    frames,
    intersection_over_union,
    measure_boxes,
    quadrilateral_overlap,
)

SIDE = 0.4


def turned(degrees: float, size: float = SIDE, x: float = 0.0, y: float = 0.0) -> Tensor:
    """A square frame: theta ``(1, 2, 3)``."""
    angle = math.radians(degrees)
    cosine, sine = size * math.cos(angle), size * math.sin(angle)
    return torch.tensor([[[cosine, -sine, x], [sine, cosine, y]]])


def test_intersection_over_union_of_known_boxes() -> None:
    unit = torch.tensor([[[0.0, 0.0], [0.4, 0.4]]])
    others = (([[0.0, 0.0], [0.4, 0.4]], 1), ([[0.2, 0.0], [0.6, 0.4]], 1 / 3), ([[0.5, 0], [0.9, 1]], 0))
    for other, expected in others:
        assert float(intersection_over_union(unit, torch.tensor([other]))) == pytest.approx(expected)


def test_a_box_ends_where_the_picture_does() -> None:
    points = torch.tensor([[[-3.0, 0.0], [0.5, -0.5], [0.0, 2.0]]])
    torch.testing.assert_close(bounds(points), torch.tensor([[[-1.0, -0.5], [0.5, 1.0]]]))


def test_a_turned_quadrilateral_that_is_met_exactly_overlaps_wholly_and_its_box_does_not_meet_the_squares() -> None:
    exact = frames(turned(15))
    assert float(quadrilateral_overlap(exact, exact)) == pytest.approx(1)
    upright = torch.tensor([[[-SIDE, -SIDE], [SIDE, SIDE]]])
    assert float(intersection_over_union(bounds(exact), upright)) == pytest.approx(0.67, abs=0.01)


def test_quadrilaterals_overlap_as_rulers_say() -> None:
    square, shifted = frames(turned(0)), frames(turned(0, x=SIDE))
    assert float(quadrilateral_overlap(square, shifted)) == pytest.approx(1 / 3)
    eighth = 2 * (math.sqrt(2) - 1)  # the regular octagon that two squares share, as a share of one
    assert float(quadrilateral_overlap(square, frames(turned(45)))) == pytest.approx(eighth / (2 - eighth))
    assert float(quadrilateral_overlap(square, frames(turned(0, x=2.5)))) == 0


def test_a_mirrored_or_flat_or_endless_quadrilateral_has_a_finite_overlap() -> None:
    mirrored = turned(0) * torch.tensor([[[-1.0], [1.0]]])
    flat, endless = torch.zeros(1, 2, 3), torch.full((1, 2, 3), float("nan"))
    found = quadrilateral_overlap(frames(torch.cat([mirrored, flat, endless])), frames(turned(0)).expand(3, -1, -1))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))


def test_regions_end_where_the_picture_does() -> None:
    beyond = frames(turned(0, size=1.5))
    assert float(quadrilateral_overlap(beyond, frames(turned(0, size=1)))) == pytest.approx(1)


def test_the_box_of_the_inscribed_ellipse_does_not_grow_when_a_square_frame_is_turned() -> None:
    wanted = torch.tensor([[[-0.3, -0.4], [0.5, 0.4]]])
    for degrees in (0, 15, 45, 100):
        torch.testing.assert_close(ellipse_bounds(turned(degrees, x=0.1)), wanted)
    torch.testing.assert_close(bounds(frames(turned(0, x=0.1))), wanted)


def test_the_corners_of_a_box_run_around_it() -> None:
    box = torch.tensor([[[-0.5, -0.25], [0.5, 0.75]]])
    torch.testing.assert_close(
        box_corners(box), torch.tensor([[[-0.5, -0.25], [0.5, -0.25], [0.5, 0.75], [-0.5, 0.75]]])
    )


def test_a_frame_turned_about_a_round_object_is_scored_as_exact_by_its_ellipse_alone() -> None:
    boxes = torch.tensor([[[-SIDE, -SIDE], [SIDE, SIDE]]])
    found = measure_boxes(turned(15), boxes, boxes)
    assert found.theta == pytest.approx(0.67, abs=0.01)
    assert found.ellipse == pytest.approx(1)
    assert found.quadrilateral is not None
    assert found.theta < found.quadrilateral < 1
