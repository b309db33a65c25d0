"""Geometry, in the order: identity, shape, known values, gradient, independence within a batch."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional

from training.transformers import AffineTransformer, affine_grid, affine_theta, base_grid, sample

IDENTITY = torch.zeros(1, 6)


def random_theta(count: int, seed: int = 0) -> torch.Tensor:
    return affine_theta(torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) * 0.3)


def test_a_zero_delta_is_the_identity() -> None:
    images = torch.rand(2, 3, 9, 7)
    warp = AffineTransformer((9, 7))(images, torch.zeros(2, 6))
    torch.testing.assert_close(warp.theta, torch.eye(2, 3).expand(2, 2, 3))
    torch.testing.assert_close(warp.rectified, images)


def test_the_rectified_image_has_the_size_that_was_asked_for() -> None:
    warp = AffineTransformer((5, 11))(torch.rand(4, 1, 20, 30), torch.zeros(4, 6))
    assert warp.rectified.shape == (4, 1, 5, 11)
    assert warp.theta.shape == (4, 2, 3)


def test_base_grid_holds_pixel_centres_in_x_y_order() -> None:
    grid = base_grid(2, 4)
    assert grid.shape == (2, 4, 2)
    np.testing.assert_allclose(grid[0, :, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(grid[:, 0, 1], [-0.5, 0.5])


@pytest.mark.parametrize("size", [(28, 28), (7, 12), (1, 3)])
def test_grids_are_those_of_torch(size: tuple[int, int]) -> None:
    theta = random_theta(3)
    expected = functional.affine_grid(theta, [3, 1, *size], align_corners=False)
    torch.testing.assert_close(affine_grid(theta, base_grid(*size)), expected, atol=1e-6, rtol=0)


def test_a_rotation_by_a_right_angle_turns_the_pixels() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    cosine, sine = math.cos(math.pi / 2), math.sin(math.pi / 2)
    theta = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]])
    turned = sample(image, affine_grid(theta, base_grid(3, 3)))
    # The output's x axis runs along the input's y axis: a quarter turn counter-clockwise.
    np.testing.assert_allclose(turned[0, 0], np.rot90(image[0, 0]), atol=1e-5)


def test_a_translation_looks_to_the_right() -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4)
    delta = torch.tensor([[0.0, 0, 2 / 4, 0, 0, 0]])  # one pixel of four
    shifted = AffineTransformer((1, 4))(image, delta).rectified
    np.testing.assert_allclose(shifted[0, 0], [[1, 2, 3, 0]], atol=1e-6)


def test_samples_are_those_of_scipy() -> None:
    images = torch.rand(3, 2, 13, 17, generator=torch.Generator().manual_seed(1))
    theta = random_theta(3, seed=2)
    grid = affine_grid(theta, base_grid(8, 6))
    found = sample(images, grid)
    for item in range(3):
        x = (grid[item, ..., 0].numpy() + 1) / 2 * 17 - 0.5
        y = (grid[item, ..., 1].numpy() + 1) / 2 * 13 - 0.5
        for channel in range(2):
            expected = map_coordinates(images[item, channel].numpy(), [y, x], order=1, mode="grid-constant")
            np.testing.assert_allclose(found[item, channel], expected, atol=1e-5)


def test_gradients_reach_the_parameters_and_the_picture() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(2, 1, 6, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    delta = (torch.rand(2, 6, dtype=torch.float64, generator=generator) * 0.1).requires_grad_()
    transformer = AffineTransformer((4, 4)).double()
    assert torch.autograd.gradcheck(lambda i, d: transformer(i, d).rectified, (images, delta))


def test_items_of_a_batch_do_not_touch_each_other() -> None:
    images, delta = torch.rand(5, 1, 10, 10), torch.randn(5, 6) * 0.2
    transformer = AffineTransformer((8, 8))
    together = transformer(images, delta).rectified
    alone = torch.cat([transformer(images[i : i + 1], delta[i : i + 1]).rectified for i in range(5)])
    torch.testing.assert_close(together, alone)
