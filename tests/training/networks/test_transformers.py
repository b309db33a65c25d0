"""Every kind of transformer, in the order: identity, shape, known values, gradient, independence within a batch.

How they are exported: tests/export/test_kinds.py.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from torch import Tensor
from torch.nn import functional

from training.networks.geometry import affine_points, affine_residual, base_grid, corner_points, regular_grid
from training.networks.samplers import sample
from training.networks.transformers import (
    AffineTransformer,
    AttentionTransformer,
    ProjectiveTransformer,
    RotationTransformer,
    SimilarityTransformer,
    ThinPlateTransformer,
    Transformer,
    TranslationTransformer,
    rotation_theta,
    similarity_theta,
)

HEIGHT, WIDTH = 6, 10
ASPECT = WIDTH / HEIGHT
KINDS: dict[str, Callable[[], Transformer]] = {
    "affine": AffineTransformer,
    "similarity": lambda: SimilarityTransformer(ASPECT),
    "attention": AttentionTransformer,
    "translation": TranslationTransformer,
    "rotation": lambda: RotationTransformer(ASPECT),
    "projective": ProjectiveTransformer,
    "tps": ThinPlateTransformer,
    "tps of 2x2": lambda: ThinPlateTransformer(2),
    "tps of 5x5": lambda: ThinPlateTransformer(5),
}
PARAMETERS = {
    "affine": (6, (2, 3)),
    "similarity": (4, (2, 3)),
    "attention": (3, (2, 3)),
    "translation": (2, (2, 3)),
    "rotation": (2, (2, 3)),
    "projective": (8, (3, 3)),
    "tps": (38, (16, 2)),
    "tps of 2x2": (14, (4, 2)),
    "tps of 5x5": (56, (25, 2)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind: str) -> Transformer:
    """In double precision."""
    return KINDS[kind]().double()


def random_delta(transformer: Transformer, count: int, seed: int = 0) -> Tensor:
    """Far from the identity; perspective stays within the horizon."""
    generator = torch.Generator().manual_seed(seed)
    return 0.6 * torch.rand(count, transformer.parameter_count, dtype=torch.float64, generator=generator) - 0.3


def grid(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return base_grid(height, width).double()


def in_pixels(theta: Tensor) -> NDArray[np.float64]:
    """The linear part of each map where a unit is a pixel along both axes: ``(N, 2, 2)``."""
    unit = np.diag([WIDTH / 2, HEIGHT / 2])
    matrices: NDArray[np.float64] = unit @ theta[:, :, :2].numpy() @ np.linalg.inv(unit)
    return matrices


def turned(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices: ``(N,)`` radians -> ``(N, 2, 2)``."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """As close as the spline's buffers allow, which are computed in double precision but kept in single."""
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)


@every_kind
def test_a_zero_delta_is_the_identity(kind: str) -> None:
    transformer = made(kind)
    parameters = transformer.solve(torch.zeros(2, transformer.parameter_count, dtype=torch.float64))
    two = torch.ones(2, 1, 1, dtype=torch.float64)
    assert_near(transformer.points(parameters, grid()), grid() * two[..., None])
    assert_near(transformer.theta(parameters, grid()), torch.eye(2, 3).double() * two)
    assert_near(transformer.corners(parameters), corner_points().double() * two)


@every_kind
@pytest.mark.parametrize("count", [1, 3])
def test_parameters_and_points_have_the_stated_shapes(kind: str, count: int) -> None:
    transformer = made(kind)
    predicted, shape = PARAMETERS[kind]
    assert transformer.parameter_count == predicted
    parameters = transformer.solve(random_delta(transformer, count))
    assert parameters.shape == (count, *shape)
    assert transformer.points(parameters, grid(5, 11)).shape == (count, 5, 11, 2)
    assert transformer.points(parameters, grid(5, 11).expand(count, -1, -1, -1)).shape == (count, 5, 11, 2)
    assert transformer.points(parameters, corner_points().double()).shape == (count, 4, 2)
    assert transformer.corners(parameters).shape == (count, 4, 2)
    assert transformer.theta(parameters, grid(5, 11)).shape == (count, 2, 3)


@every_kind
def test_corners_are_where_the_outer_edges_of_the_border_pixels_go(kind: str) -> None:
    transformer = made(kind)
    parameters = transformer.solve(random_delta(transformer, 3))
    border = transformer.points(parameters, grid(2001, 2001)[:, ::2000, ::2000])  # centres of the corner pixels
    expected = torch.stack([border[:, 0, 0], border[:, 0, 1], border[:, 1, 1], border[:, 1, 0]], dim=1)
    torch.testing.assert_close(transformer.corners(parameters), expected, atol=1e-2, rtol=0)


def test_an_affine_delta_is_added_to_the_identity_row_by_row() -> None:
    delta = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    expected = torch.tensor([[[1.1, 0.2, 0.3], [0.4, 1.5, 0.6]]])
    torch.testing.assert_close(AffineTransformer().solve(delta), expected)


def test_affine_grids_are_those_of_torch() -> None:
    transformer = made("affine")
    theta = transformer.solve(random_delta(transformer, 3))
    expected = functional.affine_grid(theta, [3, 1, HEIGHT, WIDTH], align_corners=False)
    torch.testing.assert_close(transformer.points(theta, grid()), expected, atol=1e-6, rtol=0)


def test_a_similarity_is_a_rotation_and_one_scale_in_the_pixels_of_an_oblong_picture() -> None:
    delta = 2 * random_delta(SimilarityTransformer(ASPECT), 20)
    a, b, x, y = delta.numpy().T
    theta = SimilarityTransformer(ASPECT).solve(delta)
    expected = np.hypot(1 + a, b)[:, None, None] * turned(np.arctan2(b, 1 + a))
    np.testing.assert_allclose(in_pixels(theta), expected, atol=1e-12)
    np.testing.assert_allclose(theta[:, :, 2], np.stack([x, y], -1))


def test_a_similarity_finds_every_angle_and_scale() -> None:
    angle, scale = np.linspace(-np.pi, np.pi, 9), 0.4
    direction = scale * np.stack([np.cos(angle), np.sin(angle)])
    delta = torch.from_numpy(np.stack([direction[0] - 1, direction[1], 0 * angle, 0 * angle], -1))
    np.testing.assert_allclose(in_pixels(similarity_theta(delta, ASPECT)), scale * turned(angle), atol=1e-12)


def test_attention_scales_both_axes_alike_and_shifts() -> None:
    theta = AttentionTransformer().solve(torch.tensor([[-0.5, 0.2, -0.3]]))
    torch.testing.assert_close(theta, torch.tensor([[[0.5, 0.0, 0.2], [0.0, 0.5, -0.3]]]))


def test_a_translation_only_shifts() -> None:
    theta = TranslationTransformer().solve(torch.tensor([[0.2, -0.3]]))
    torch.testing.assert_close(theta, torch.tensor([[[1.0, 0.0, 0.2], [0.0, 1.0, -0.3]]]))


def test_a_rotation_neither_scales_nor_shifts_in_the_pixels_of_an_oblong_picture() -> None:
    delta = 10 * random_delta(RotationTransformer(ASPECT), 20)
    theta = RotationTransformer(ASPECT).solve(delta)
    a, b = delta.numpy().T
    np.testing.assert_allclose(in_pixels(theta), turned(np.arctan2(b, 1 + a)), atol=1e-12)
    assert theta[:, :, 2].abs().max() == 0


def test_a_rotation_without_direction_is_still_finite() -> None:
    delta = torch.tensor([[-1.0, 0.0]], requires_grad=True)
    theta = rotation_theta(delta)
    theta.sum().backward()  # type: ignore[no-untyped-call]
    assert delta.grad is not None
    assert torch.isfinite(theta).all()
    assert torch.isfinite(delta.grad).all()


@pytest.mark.parametrize("transformer", [SimilarityTransformer(), RotationTransformer()], ids=lambda t: t.kind)
def test_a_rotation_by_a_right_angle_turns_the_pixels(transformer: Transformer) -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    delta = torch.zeros(1, transformer.parameter_count)
    delta[0, :2] = torch.tensor([-1.0, 1.0])
    looked = sample(image, transformer.points(transformer.solve(delta), base_grid(3, 3)))
    # The output's x axis runs along the input's y axis: a quarter turn counter-clockwise.
    np.testing.assert_allclose(looked[0, 0], np.rot90(image[0, 0]), atol=1e-5)


def test_projective_points_are_those_of_a_homography_in_numpy() -> None:
    transformer = made("projective")
    delta = random_delta(transformer, 3)
    found = transformer.points(transformer.solve(delta), grid())
    points = np.concatenate([grid()[0].numpy(), np.ones((HEIGHT, WIDTH, 1))], axis=-1)
    for item in range(3):
        matrix = np.eye(3) + np.append(delta[item].numpy(), 0).reshape(3, 3)
        product = points @ matrix.T
        np.testing.assert_allclose(found[item], product[..., :2] / product[..., 2:], atol=1e-12)


def test_a_projective_map_without_perspective_is_affine() -> None:
    projective, delta = made("projective"), random_delta(AffineTransformer(), 3)
    parameters = projective.solve(torch.cat([delta, torch.zeros(3, 2).double()], dim=1))
    theta = AffineTransformer().solve(delta)
    torch.testing.assert_close(projective.points(parameters, grid()), affine_points(theta, grid()))
    torch.testing.assert_close(projective.theta(parameters, grid()), theta)


@pytest.mark.parametrize("kind", ["projective", "tps"])
def test_theta_is_the_affine_map_that_fits_best(kind: str) -> None:
    transformer = made(kind)
    parameters = transformer.solve(random_delta(transformer, 3))
    looked = transformer.points(parameters, grid())
    table = np.concatenate([grid().reshape(-1, 2).numpy(), np.ones((HEIGHT * WIDTH, 1))], axis=-1)
    for item in range(3):
        expected = np.linalg.lstsq(table, looked[item].reshape(-1, 2).numpy())[0].T
        np.testing.assert_allclose(transformer.theta(parameters, grid())[item], expected, atol=1e-6)


@pytest.mark.parametrize("side", [2, 4, 5])
def test_a_spline_brings_control_points_to_their_targets_as_scipy_does(side: int) -> None:
    transformer = ThinPlateTransformer(side).double()
    targets = transformer.solve(random_delta(transformer, 3))
    assert_near(transformer.points(targets, transformer.control[None]), targets)
    found = transformer.points(targets, grid())
    for item in range(3):
        control, values = regular_grid(side).double().numpy(), targets[item].numpy()
        spline = RBFInterpolator(control, values, kernel="thin_plate_spline", degree=1)
        np.testing.assert_allclose(found[item].reshape(-1, 2), spline(grid().reshape(-1, 2).numpy()), atol=5e-6)


def test_a_spline_without_bend_is_its_affine_part() -> None:
    transformer = made("tps")
    delta = random_delta(transformer, 3)
    delta[:, 6:] = 0
    expected = AffineTransformer().solve(delta[:, :6])
    assert_near(transformer.theta(transformer.solve(delta), grid()), expected)
    assert_near(transformer.points(transformer.solve(delta), grid()), affine_points(expected, grid()))


def test_the_bend_of_a_spline_does_nothing_that_an_affine_map_could() -> None:
    transformer = made("tps")
    assert isinstance(transformer, ThinPlateTransformer)
    delta = random_delta(transformer, 3)
    moved = affine_points(0.5 * torch.randn(3, 2, 3).double(), transformer.control[None])
    pushed = torch.cat([delta[:, :6], delta[:, 6:] + moved.flatten(1)], dim=1)
    torch.testing.assert_close(transformer.solve(pushed), transformer.solve(delta))


def test_the_bend_moves_each_control_point_by_what_no_affine_map_could_do() -> None:
    transformer = made("tps")
    bend = random_delta(transformer, 1)
    bend[:, :6] = 0
    expected = regular_grid(4).double() + affine_residual(regular_grid(4).double()) @ bend[:, 6:].view(1, 16, 2)
    torch.testing.assert_close(transformer.solve(bend), expected)
    assert (transformer.points(transformer.solve(bend), grid()) - grid()).abs().max() > 0.05


@every_kind
@pytest.mark.parametrize("share", [0.0, 1.0], ids=["at the identity", "far from it"])
def test_gradients_reach_delta_through_points_theta_and_corners(kind: str, share: float) -> None:
    transformer = made(kind)
    delta = (share * random_delta(transformer, 2)).requires_grad_()
    small = grid(2, 3)

    def everything(delta: Tensor) -> tuple[Tensor, ...]:
        parameters = transformer.solve(delta)
        return (
            transformer.points(parameters, small),
            transformer.theta(parameters, small),
            transformer.corners(parameters),
        )

    assert torch.autograd.gradcheck(everything, (delta,))


@every_kind
def test_every_predicted_number_moves_points(kind: str) -> None:
    transformer = made(kind)
    delta = random_delta(transformer, 1)
    jacobian = torch.func.jacrev(lambda d: transformer.points(transformer.solve(d), grid()))(delta)
    assert (jacobian.flatten(0, 3).abs().amax(dim=0) > 1e-3).all()


@every_kind
def test_items_of_a_batch_do_not_touch_each_other(kind: str) -> None:
    transformer = made(kind)
    delta = random_delta(transformer, 5)
    together = transformer.solve(delta)
    for item in range(5):
        alone = transformer.solve(delta[item : item + 1])
        torch.testing.assert_close(alone[0], together[item])
        for answer in (transformer.points, transformer.theta):
            torch.testing.assert_close(answer(alone, grid())[0], answer(together, grid())[item])
        torch.testing.assert_close(transformer.corners(alone)[0], transformer.corners(together)[item])
