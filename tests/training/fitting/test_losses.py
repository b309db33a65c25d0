import math

import torch
from torch import Tensor

from training.fitting.losses import area_loss, upright_loss


def turned(degrees: float, size: float = 1.0) -> Tensor:
    """A map that turns and scales: ``(1, 2, 3)``."""
    angle = math.radians(degrees)
    return size * torch.tensor([[[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]])


def test_maps_that_are_alike_cost_nothing() -> None:
    assert upright_loss(turned(30), turned(30)) == 0


def test_the_further_apart_two_rectified_images_are_turned_the_more_it_costs() -> None:
    costs = [float(upright_loss(turned(0), turned(degrees))) for degrees in (1, 10, 60, 120, 180)]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_shrinking_both_maps_does_not_lower_the_cost() -> None:
    torch.testing.assert_close(upright_loss(turned(0, 0.1), turned(40, 0.1)), upright_loss(turned(0), turned(40)))


def test_a_shift_between_two_rectified_images_costs() -> None:
    moved = turned(0).clone()
    moved[:, 0, 2] = 0.5
    assert upright_loss(turned(0), moved) > 0.01


def test_the_cost_is_the_mean_over_the_pictures() -> None:
    together = upright_loss(torch.cat([turned(0), turned(0)]), torch.cat([turned(0), turned(50)]))
    torch.testing.assert_close(together, upright_loss(turned(0), turned(50)) / 2)


def test_area_costs_nothing_at_the_undistorted_pictures_and_the_same_for_half_and_double() -> None:
    assert area_loss(turned(77)) < 1e-10
    torch.testing.assert_close(area_loss(turned(0, 0.5)), area_loss(turned(0, 2)))
    assert area_loss(turned(0, 0.5)) > area_loss(turned(0, 0.8)) > 0


def test_area_costs_nothing_where_each_picture_has_the_area_that_is_wanted_of_it() -> None:
    maps = torch.cat([turned(10, 0.5), turned(20, 2)])
    assert area_loss(maps, torch.tensor([0.25, 4.0])) < 1e-10
    assert area_loss(maps, torch.tensor([4.0, 0.25])) > 1


def test_a_map_without_area_costs_much_but_stays_a_number_with_a_gradient() -> None:
    flat = torch.zeros(1, 2, 3, requires_grad=True)
    cost = area_loss(flat + turned(0, 1e-2))
    cost.backward()  # type: ignore[no-untyped-call]
    assert cost > 10
    assert torch.isfinite(cost)
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()
    assert torch.isfinite(area_loss(torch.zeros(1, 2, 3)))
