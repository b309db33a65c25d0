"""Points and maps, in the order: identity, shape, known values, gradient, independence within a batch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from torch import Tensor
from torch.nn import functional

from training.networks.geometry import (
    affine_fit,
    affine_points,
    affine_residual,
    base_grid,
    compose,
    corner_points,
    projective_points,
    regular_grid,
    thin_plate_kernel,
    thin_plate_points,
    thin_plate_solver,
)

Numbers = NDArray[np.float64]
CONTROL = regular_grid(4).double()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def near_identity(count: int, rows: int, seed: int = 0) -> Tensor:
    return torch.eye(rows, 3, dtype=torch.float64) + 0.3 * random(count, rows, 3, seed=seed)


def homographies(count: int, seed: int = 0) -> Tensor:
    """Far from the identity, but with the horizon outside of the picture."""
    maps = near_identity(count, 3, seed)
    maps[:, 2] = maps[:, 2].clamp(-0.4, 0.4)
    maps[:, 2, 2] = 1
    return maps


def grid(height: int, width: int) -> Tensor:
    return base_grid(height, width).double()


def homogeneous(points: Tensor) -> Numbers:
    """``(..., 2)`` -> ``(..., 3)`` with a 1."""
    return np.concatenate([points.numpy(), np.ones((*points.shape[:-1], 1))], axis=-1)


def test_the_identity_leaves_points_where_they_are() -> None:
    points = grid(5, 7)
    torch.testing.assert_close(affine_points(torch.eye(2, 3).double()[None], points), points, atol=0, rtol=0)
    torch.testing.assert_close(projective_points(torch.eye(3).double()[None], points), points, atol=0, rtol=0)
    straight = thin_plate_solver(CONTROL) @ CONTROL[None]
    torch.testing.assert_close(thin_plate_points(straight, CONTROL, points), points, atol=1e-12, rtol=0)


def test_a_map_composed_with_the_identity_is_itself() -> None:
    theta, identity = near_identity(3, 2), torch.eye(2, 3).double().expand(3, 2, 3)
    torch.testing.assert_close(compose(theta, identity), theta)
    torch.testing.assert_close(compose(identity, theta), theta)


@pytest.mark.parametrize("shape", [(4, 2), (3, 5, 2), (1, 2)])
@pytest.mark.parametrize("count", [1, 3])
def test_points_of_any_shape_are_mapped_for_each_item(shape: tuple[int, ...], count: int) -> None:
    points = random(1, *shape)
    for mapped in (
        affine_points(near_identity(count, 2), points),
        projective_points(homographies(count), points),
        thin_plate_points(random(count, 19, 2), CONTROL, points),
    ):
        assert mapped.shape == (count, *shape)


def test_the_base_grid_holds_pixel_centres_in_x_y_order() -> None:
    found = base_grid(2, 4)
    assert found.shape == (1, 2, 4, 2)
    np.testing.assert_allclose(found[0, 0, :, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(found[0, :, 0, 1], [-0.5, 0.5])


def test_corners_go_clockwise_from_top_left() -> None:
    assert corner_points().tolist() == [[[-1, -1], [1, -1], [1, 1], [-1, 1]]]


@pytest.mark.parametrize("size", [(28, 28), (7, 12), (1, 3)])
def test_affine_grids_are_those_of_torch(size: tuple[int, int]) -> None:
    theta = near_identity(3, 2)
    expected = functional.affine_grid(theta, [3, 1, *size], align_corners=False)
    torch.testing.assert_close(affine_points(theta, grid(*size)), expected, atol=1e-6, rtol=0)


def test_homographies_are_those_of_numpy() -> None:
    maps, points = homographies(4), grid(5, 8)
    product = np.einsum("nij,hwj->nhwi", maps.numpy(), homogeneous(points[0]))
    expected = product[..., :2] / product[..., 2:]
    np.testing.assert_allclose(projective_points(maps, points), expected, atol=1e-12)


def test_what_lies_beyond_the_horizon_is_sent_out_of_the_picture() -> None:
    tilted = torch.eye(3)[None].clone()
    tilted[0, 2, 0] = -2  # the horizon is the line x = 1/2
    beyond = projective_points(tilted, torch.tensor([[[0.6, 0.3], [1.0, -1.0]]]))
    assert torch.isfinite(beyond).all()
    assert (beyond[..., 0] > 2).all()
    before = projective_points(tilted, torch.tensor([[[0.25, 0.25]]]))
    torch.testing.assert_close(before, torch.tensor([[[0.5, 0.5]]]))


def test_affine_fit_finds_an_affine_map_again() -> None:
    theta, points = near_identity(3, 2), grid(6, 9)
    torch.testing.assert_close(affine_fit(affine_points(theta, points), points), theta)


def test_affine_fit_is_the_least_squares_solution_of_numpy() -> None:
    points, targets = grid(6, 9), random(3, 6, 9, 2)
    found = affine_fit(targets, points)
    for item in range(3):
        expected = np.linalg.lstsq(homogeneous(points[0]).reshape(-1, 3), targets[item].reshape(-1, 2).numpy())[0]
        np.testing.assert_allclose(found[item], expected.T, atol=1e-12)


def test_composed_maps_apply_the_inner_one_first() -> None:
    outer, inner, points = near_identity(3, 2, seed=1), near_identity(3, 2, seed=2), grid(4, 5)
    in_turn = affine_points(outer, affine_points(inner, points))
    torch.testing.assert_close(affine_points(compose(outer, inner), points), in_turn)
    swapped = affine_points(inner, affine_points(outer, points))
    assert (swapped - in_turn).abs().max() > 0.01


def test_the_regular_grid_runs_row_by_row_from_edge_to_edge() -> None:
    assert regular_grid(2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert regular_grid(3)[:4].tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0]]


def test_the_thin_plate_kernel_is_r_squared_log_r_squared_and_0_on_control_points() -> None:
    points = random(5, 2)
    squared = ((points.numpy()[:, None] - CONTROL.numpy()) ** 2).sum(axis=-1)
    np.testing.assert_allclose(thin_plate_kernel(points, CONTROL), squared * np.log(squared), atol=1e-12)
    assert thin_plate_kernel(CONTROL.float(), CONTROL.float()).diag().abs().max() == 0


@pytest.mark.parametrize("side", [2, 3, 4, 8])
def test_thin_plate_splines_are_those_of_scipy(side: int) -> None:
    control = regular_grid(side).double()
    targets = control + 0.3 * random(2, side * side, 2)
    points = 1.5 * grid(6, 9)  # beyond the control points too
    found = thin_plate_points(thin_plate_solver(control) @ targets, control, points)
    for item in range(2):
        spline = RBFInterpolator(control.numpy(), targets[item].numpy(), kernel="thin_plate_spline", degree=1)
        np.testing.assert_allclose(found[item].reshape(-1, 2), spline(points.reshape(-1, 2).numpy()), atol=1e-9)


def test_single_precision_is_enough_for_thin_plate_splines() -> None:
    targets, points = CONTROL + 0.3 * random(2, 16, 2), grid(28, 28)
    exact = thin_plate_points(thin_plate_solver(CONTROL) @ targets, CONTROL, points)
    single = thin_plate_points(
        thin_plate_solver(CONTROL.float()) @ targets.float(), CONTROL.float(), base_grid(28, 28)
    )  # as the network computes them
    torch.testing.assert_close(single.double(), exact, atol=1e-5, rtol=0)


def test_the_affine_residual_takes_out_what_an_affine_map_does_and_nothing_else() -> None:
    projection = affine_residual(CONTROL)
    affine = affine_points(near_identity(3, 2), CONTROL[None])
    torch.testing.assert_close(projection @ affine, torch.zeros_like(affine), atol=1e-12, rtol=0)
    bend = projection @ random(3, 16, 2)
    assert bend.abs().max() > 0.1
    torch.testing.assert_close(projection @ bend, bend)
    fitted = np.linalg.lstsq(homogeneous(CONTROL), bend[0].numpy())[0]
    np.testing.assert_allclose(fitted, 0, atol=1e-12)


GRADIENTS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "affine_points": (affine_points, (near_identity(2, 2), random(2, 3, 2))),
    "projective_points": (projective_points, (homographies(2), 0.5 * random(2, 3, 2))),
    "affine_fit": (lambda points: affine_fit(points, grid(3, 4)), (random(2, 3, 4, 2),)),
    "compose": (compose, (near_identity(2, 2), near_identity(2, 2, seed=1))),
    "thin_plate_points": (lambda c, p: thin_plate_points(c, CONTROL, p), (random(2, 19, 2), random(2, 3, 2))),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    function, arguments = GRADIENTS[name]
    assert torch.autograd.gradcheck(function, [argument.clone().requires_grad_() for argument in arguments])


def test_the_gradient_of_a_spline_is_finite_on_its_control_points() -> None:
    points = CONTROL.float()[None].requires_grad_()
    thin_plate_points(random(1, 19, 2).float(), CONTROL.float(), points).sum().backward()  # type: ignore[no-untyped-call]
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()


@pytest.mark.parametrize("name", GRADIENTS)
def test_items_of_a_batch_do_not_touch_each_other(name: str) -> None:
    function, arguments = GRADIENTS[name]
    together = function(*arguments)
    for item in range(2):
        torch.testing.assert_close(function(*(a[item : item + 1] for a in arguments))[0], together[item])
