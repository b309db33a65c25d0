import math

import pytest
import torch
from torch import Tensor

from training.fitting.losses import area_loss, class_loss, upright_loss
from training.networks.geometry import undistorted


def test_the_objects_of_sequences_all_count_the_same() -> None:
    logits, labels = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12).view(4, 3) % 5
    each = [class_loss(logits[:, position], labels[:, position], 0.1) for position in range(3)]
    torch.testing.assert_close(class_loss(logits, labels, 0.1), torch.stack(each).mean())


def linear(*entries: float) -> Tensor:
    """A map without translation, from the entries of its matrix row by row: ``(1, 2, 3)``."""
    return torch.tensor([[[*entries[:2], 0.0], [*entries[2:], 0.0]]])


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


def test_the_same_gap_costs_the_same_everywhere_in_the_picture() -> None:
    here, aside = turned(0), turned(0).clone()
    aside[:, 0, 2] = 0.2
    far = torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, -1.0]]])
    torch.testing.assert_close(upright_loss(here + far, aside + far), upright_loss(here, aside))
    assert float(upright_loss(here, aside)) == pytest.approx(0.02)


def test_a_region_that_is_only_turned_and_scaled_costs_by_its_area_alone() -> None:
    for degrees, size in ((0, 0.5), (33, 0.8), (-120, 1.7)):
        expected = math.log(size**2) ** 2
        assert float(area_loss(turned(degrees, size))) == pytest.approx(expected, rel=1e-4)


def test_a_mirror_image_costs_more_than_half_the_size_and_can_be_left() -> None:
    mirrored = linear(-1, 0, 0, 1).requires_grad_()
    cost = area_loss(mirrored)
    assert cost > area_loss(turned(0, 0.5))
    skewed = linear(-1, 0.1, 0, 1.2).requires_grad_()
    area_loss(skewed).backward()  # type: ignore[no-untyped-call]
    assert skewed.grad is not None
    assert skewed.grad[0, 0, 0] < 0  # a step downhill makes the map less of a mirror image


@pytest.mark.parametrize(
    "unlike",
    [linear(1.5, 0, 0, 1 / 1.5), linear(1, 0.6, 0, 1), linear(1, 0, -0.6, 1)],
    ids=["stretch", "shear", "kite"],
)
def test_a_stretch_or_shear_of_the_same_area_costs(unlike: Tensor) -> None:
    assert float(torch.linalg.det(unlike[:, :, :2])) == pytest.approx(1)
    assert area_loss(unlike) > 0.1
    half = torch.lerp(turned(0), unlike, 0.5)
    assert area_loss(half) < area_loss(unlike)


def test_a_turn_of_an_oblong_picture_is_no_shear() -> None:
    angle, aspect = math.radians(30), 2.0
    in_picture = linear(math.cos(angle), -math.sin(angle) / aspect, math.sin(angle) * aspect, math.cos(angle))
    assert area_loss(in_picture, aspect=aspect) < 1e-6
    assert area_loss(in_picture) > 0.1


def test_a_mirrored_picture_may_be_rectified_to_a_mirror_image_but_no_other() -> None:
    flip = linear(-1, 0, 0, 1)
    torch.testing.assert_close(undistorted(flip, turned(-20, 0.7)), undistorted(turned(0), turned(20, 0.7)))
    assert area_loss(undistorted(flip, turned(-20))) < 1e-6
    assert area_loss(undistorted(turned(0), flip)) > 3
    assert area_loss(undistorted(flip, flip)) > 3
