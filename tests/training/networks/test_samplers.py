"""Samplers, in the order: identity, shape, known values, gradient, independence within a batch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional

from training.networks.geometry import affine_points, base_grid
from training.networks.samplers import Padding, Reduction, Sampler, outside_share, sample, zoomed_out

PADDINGS: list[Padding] = ["zeros", "border", "reflection", 0.3, 0.0, 1.0]
SCIPY_MODES = {"zeros": "grid-constant", "border": "nearest", "reflection": "reflect"}


def random_images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(seed))


def scattered(count: int, height: int, width: int, reach: float) -> Tensor:
    """Points spread over ``reach`` times the picture, so beyond its edges too: ``(N, H, W, 2)``."""
    return (2 * torch.rand(count, height, width, 2, generator=torch.Generator().manual_seed(1)) - 1) * reach


def checkerboard(side: int) -> Tensor:
    """Black and white by single pixels: ``(1, 1, side, side)``."""
    return (torch.arange(side)[:, None] + torch.arange(side)).remainder(2).float()[None, None]


def zoomed(scale: float, sampler: Sampler) -> Tensor:
    return affine_points(scale * torch.eye(2, 3)[None], sampler.fine)


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_base_grid_gives_the_picture_back(padding: Padding) -> None:
    images = random_images(2, 9, 7)
    torch.testing.assert_close(sample(images, base_grid(9, 7).expand(2, -1, -1, -1), padding), images)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_image_has_the_size_that_was_asked_for(samples: int) -> None:
    sampler = Sampler((5, 11), samples=samples)
    assert sampler.base.shape == (1, 5, 11, 2)
    assert sampler.fine.shape == (1, 5 * samples, 11 * samples, 2)
    assert sampler(random_images(4, 20, 30), sampler.fine.expand(4, -1, -1, -1)).shape == (4, 2, 5, 11)


@pytest.mark.parametrize("reach", [1.0, 3.5])
@pytest.mark.parametrize("padding", PADDINGS)
def test_samples_are_those_of_scipy(padding: Padding, reach: float) -> None:
    images, grid = random_images(3, 13, 17), scattered(3, 8, 6, reach)
    found = sample(images, grid, padding)
    mode, level = (SCIPY_MODES[padding], 0.0) if isinstance(padding, str) else ("grid-constant", padding)
    for item in range(3):
        x = (grid[item, ..., 0].double().numpy() + 1) / 2 * 17 - 0.5
        y = (grid[item, ..., 1].double().numpy() + 1) / 2 * 13 - 0.5
        for channel in range(2):
            picture = images[item, channel].double().numpy()
            expected = map_coordinates(picture, [y, x], order=1, mode=mode, cval=level)
            np.testing.assert_allclose(found[item, channel], expected, atol=2e-5)


def test_a_grid_moved_by_one_pixel_looks_to_the_right() -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4)
    shifted = sample(image, base_grid(1, 4) + torch.tensor([2 / 4, 0.0]))
    np.testing.assert_allclose(shifted[0, 0], [[1, 2, 3, 0]], atol=1e-6)


def test_a_single_sample_aliases_a_checkerboard_and_more_turn_it_grey() -> None:
    board = checkerboard(33)  # 3 pixels of it to each pixel that is made
    single, nine = Sampler((11, 11)), Sampler((11, 11), samples=3)
    aliased, grey = single(board, single.fine), nine(board, nine.fine)
    torch.testing.assert_close(aliased, checkerboard(11), atol=1e-5, rtol=0)
    assert (grey - 0.5).abs().max() < 0.06  # 4 or 5 of 9 are white


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_a_pixel_is_the_mean_of_its_samples(samples: int) -> None:
    images = random_images(1, 12, 16)
    sampler = Sampler((3, 4), padding=0.5, samples=samples)
    grid = zoomed(1.3, sampler)
    each = sample(images, grid, 0.5).view(1, 2, 3, samples, 4, samples)
    torch.testing.assert_close(sampler(images, grid), each.mean(dim=(3, 5)))


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_samples_stay_about_the_centre_of_their_pixel(samples: int) -> None:
    ramp = base_grid(12, 16)[..., 0].unsqueeze(1)  # the grey level is x
    sampler = Sampler((6, 8), samples=samples)
    torch.testing.assert_close(sampler(ramp, zoomed(0.5, sampler))[:, 0], 0.5 * sampler.base[..., 0])


@pytest.mark.parametrize("samples", [1, 2])
def test_a_grey_picture_has_no_edge_where_outside_is_the_same_grey(samples: int) -> None:
    sampler = Sampler((8, 8), padding=0.25, samples=samples)
    found = sampler(torch.full((1, 1, 6, 6), 0.25), zoomed(3, sampler))
    torch.testing.assert_close(found, torch.full((1, 1, 8, 8), 0.25))


def test_outside_share_counts_points_beyond_the_edges_item_by_item() -> None:
    grid = base_grid(8, 16)
    grids = torch.cat([grid, grid + torch.tensor([1.0, 0.0]), 2 * grid, grid - torch.tensor([0.0, 9.0])])
    torch.testing.assert_close(outside_share(grids), torch.tensor([0.0, 0.5, 0.75, 1.0]))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_reach_the_grid_and_the_picture(padding: Padding, samples: int) -> None:
    images = random_images(2, 5, 6).double().requires_grad_()
    sampler = Sampler((2, 3), padding, samples).double()
    grid = scattered(2, 2 * samples, 3 * samples, 1.5).double().requires_grad_()
    assert torch.autograd.gradcheck(sampler, (images, grid))


@pytest.mark.parametrize("padding", PADDINGS)
def test_items_of_a_batch_do_not_touch_each_other(padding: Padding) -> None:
    images, grid = random_images(5, 10, 12), scattered(5, 4, 6, 1.5)
    sampler = Sampler((2, 3), padding, samples=2)
    together = sampler(images, grid)
    alone = torch.cat([sampler(images[i : i + 1], grid[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(("factor", "share"), [(0.5, 0.0), (1.0, 0.0), (1.5, 0.5), (2.0, 1.0), (2.4, 1.0)])
def test_a_pyramid_blends_half_size_samples_by_how_far_the_grid_zooms_out(factor: float, share: float) -> None:
    picture = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    side = 12
    grid = base_grid(side, side) * (factor * side / 48)
    full = sample(picture, grid)
    half = sample(functional.avg_pool2d(picture, 2), grid)
    found = Sampler((side, side), pyramid=True)(picture, grid)
    torch.testing.assert_close(found, full + share * (half - full), atol=1e-5, rtol=0)


def test_a_pyramid_removes_stripes_that_would_alias() -> None:
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1
    grid = base_grid(30, 30)
    assert Sampler((30, 30))(stripes, grid)[..., 2:-2, 2:-2].std() > 0.05
    assert Sampler((30, 30), pyramid=True)(stripes, grid)[..., 2:-2, 2:-2].std() < 0.02


def test_the_distance_of_sample_points_does_not_depend_on_rotation() -> None:
    angle = torch.tensor(0.7)
    turned = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    grid = base_grid(8, 8) @ turned.T * 0.5
    torch.testing.assert_close(zoomed_out(grid, 64, 64), torch.tensor([4.0]), atol=1e-3, rtol=0)


def test_a_pyramid_keeps_the_place_in_a_picture_with_odd_sides() -> None:
    ramp = torch.arange(33.0).expand(1, 1, 33, 33)
    sampler = Sampler((11, 11), "border", pyramid=True)  # three pixels apart: only the half-size copy is read
    found = sampler(ramp, sampler.base)
    torch.testing.assert_close(found[0, 0, 5, 1:-1], torch.arange(4.0, 30, 3), atol=0.01, rtol=0)


@pytest.mark.parametrize(("size", "reduced"), [((12, 8), (4, 2)), ((7, 10), (3, 4)), ((5, 5), (5, 5))])
def test_a_reduced_pixel_is_the_mean_over_its_area(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    found = Reduction(size, reduced)(images)
    if size[0] % reduced[0] == size[1] % reduced[1] == 0:
        torch.testing.assert_close(found, torch.nn.functional.adaptive_avg_pool2d(images, reduced))
    fine = images.repeat_interleave(reduced[0], dim=2).repeat_interleave(reduced[1], dim=3)
    torch.testing.assert_close(found, torch.nn.functional.avg_pool2d(fine, size))
