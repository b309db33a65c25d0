"""Transformers in steps and in tiles: identity, shape, known values, gradient, independence within a batch."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.networks.geometry import affine_fit, affine_points, base_grid, compose, corner_points
from training.networks.samplers import Sampler, sample
from training.networks.spatial import SpatialTransformer, Warp, centre, chain, tiles
from training.networks.transformers import (
    AffineTransformer,
    AttentionTransformer,
    ProjectiveTransformer,
    RotationTransformer,
    SimilarityTransformer,
    ThinPlateTransformer,
    Transformer,
)

CANVAS, RECTIFIED = (16, 24), (8, 10)
KINDS: dict[str, Callable[[], Transformer]] = {
    "affine": AffineTransformer,
    "similarity": lambda: SimilarityTransformer(1.5),
    "attention": AttentionTransformer,
    "rotation": lambda: RotationTransformer(1.5),
    "projective": ProjectiveTransformer,
    "tps": ThinPlateTransformer,
}


class Constant(nn.Module):
    """A localisation network that gives one answer to every picture, and remembers what it was shown."""

    def __init__(self, delta: Tensor) -> None:
        super().__init__()
        self.delta = nn.Parameter(delta)
        self.shown: list[Tensor] = []

    def forward(self, view: Tensor) -> Tensor:
        self.shown.append(view)
        return self.delta.expand(len(view), -1)


class Brightness(nn.Module):
    """A localisation network whose answer depends on the picture."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(-0.2, 0.3, parameters))

    def forward(self, view: Tensor) -> Tensor:
        return self.scale * (view[:, :, 2:9, 3:11].mean(dim=(1, 2, 3)) * 4 - 1)[:, None]


def random_deltas(transformer: Transformer, steps: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.4 * torch.rand(transformer.parameter_count, generator=generator) - 0.2 for _ in range(steps)]


def in_steps(
    transformer: Transformer, localisations: list[nn.Module], start: Tensor | None = None, samples: int = 1
) -> SpatialTransformer:
    between = [Sampler(CANVAS) for _ in localisations[1:]]
    return SpatialTransformer(transformer, localisations, [*between, Sampler(RECTIFIED, samples=samples)], start)


def unchanged(view: Tensor) -> Tensor:
    return view


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 2, *CANVAS, generator=torch.Generator().manual_seed(7))


def run(kind: str, steps: int, start: Tensor | None = None, samples: int = 1) -> tuple[list[Tensor], tuple[Warp, ...]]:
    """The deltas of random steps, and what they did."""
    transformer = KINDS[kind]()
    deltas = random_deltas(transformer, steps)
    spatial = in_steps(transformer, [Constant(delta) for delta in deltas], start, samples)
    return deltas, spatial(pictures(), unchanged)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_deltas_look_at_the_whole_picture_in_every_step(kind: str) -> None:
    transformer = KINDS[kind]()
    nothing: list[nn.Module] = [Constant(torch.zeros(transformer.parameter_count)) for _ in range(3)]
    warps = in_steps(transformer, nothing)(pictures(), unchanged)
    for warp in warps:
        torch.testing.assert_close(warp.theta, torch.eye(2, 3).expand(3, 2, 3), atol=1e-5, rtol=0)
    for warp in warps[:-1]:
        torch.testing.assert_close(warp.rectified, pictures(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 2])
def test_steps_see_the_canvas_and_the_last_one_makes_the_rectified_image(kind: str, samples: int) -> None:
    _, warps = run(kind, 3, samples=samples)
    assert [warp.rectified.shape for warp in warps] == [(3, 2, *CANVAS), (3, 2, *CANVAS), (3, 2, *RECTIFIED)]
    assert [warp.grid.shape for warp in warps] == [(3, *CANVAS, 2), (3, *CANVAS, 2), (3, *RECTIFIED, 2)]
    count = KINDS[kind]().parameter_count
    assert {warp.delta.shape for warp in warps} == {(3, count)}
    assert {warp.theta.shape for warp in warps} == {(3, 2, 3)}


@pytest.mark.parametrize("kind", ["affine", "similarity", "attention", "rotation"])
def test_composed_steps_are_one_affine_map(kind: str) -> None:
    deltas, warps = run(kind, 3)
    transformer = KINDS[kind]()
    expected = transformer.solve(deltas[0][None])
    for warp, delta in zip(warps[1:], deltas[1:], strict=True):
        expected = compose(expected, transformer.solve(delta[None]))
        torch.testing.assert_close(warp.theta, expected.expand(3, 2, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(warp.parameters, transformer.solve(delta[None]).expand(3, 2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_points_go_through_the_last_step_first(kind: str) -> None:
    deltas, warps = run(kind, 2)
    transformer = KINDS[kind]()
    first, second = (partial(transformer.points, transformer.solve(delta[None])) for delta in deltas)
    expected = first(second(base_grid(*RECTIFIED))).expand(3, -1, -1, -1)
    torch.testing.assert_close(warps[1].grid, expected)
    corners = corner_points()
    torch.testing.assert_close(warps[1].map(corners), first(second(corners)).expand(3, -1, -1))
    torch.testing.assert_close(warps[0].grid, first(base_grid(*CANVAS)).expand(3, -1, -1, -1))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_theta_is_the_affine_map_that_fits_the_grid_best_after_any_number_of_steps(kind: str, steps: int) -> None:
    _, warps = run(kind, steps)
    torch.testing.assert_close(warps[-1].theta, affine_fit(warps[-1].grid, base_grid(*RECTIFIED)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 2])
def test_every_step_samples_the_original_once_through_all_maps(kind: str, samples: int) -> None:
    _, warps = run(kind, 3, samples=samples)
    for warp, size in zip(warps, (CANVAS, CANVAS, RECTIFIED), strict=True):
        sampler = Sampler(size, samples=samples if size == RECTIFIED else 1)
        torch.testing.assert_close(warp.rectified, sampler(pictures(), warp.map(sampler.fine)), atol=1e-5, rtol=0)
        torch.testing.assert_close(warp.grid, warp.map(sampler.base).expand(3, -1, -1, -1))


def test_steps_do_not_blur_twice() -> None:
    picture = torch.zeros(1, 1, *CANVAS)
    picture[..., 8, 12] = 1
    half_a_pixel = torch.tensor([0.0, 0, 1 / CANVAS[1], 0, 0, 0])
    spatial = SpatialTransformer(
        AffineTransformer(), [Constant(half_a_pixel), Constant(half_a_pixel)], [Sampler(CANVAS), Sampler(CANVAS)]
    )
    once, twice = spatial(picture, unchanged)
    assert once.rectified.max().item() == pytest.approx(0.5, abs=1e-4)
    expected = torch.zeros_like(picture)
    expected[..., 8, 11] = 1  # two halves are one whole pixel, and as sharp as it was
    torch.testing.assert_close(twice.rectified, expected, atol=1e-4, rtol=0)


def test_each_step_is_shown_the_normalised_view_of_the_one_before() -> None:
    transformer = AffineTransformer()
    networks = [Constant(delta) for delta in random_deltas(transformer, 3)]
    warps = in_steps(transformer, list(networks))(pictures(), lambda view: 10 * view - 3)
    views = [pictures(), warps[0].rectified, warps[1].rectified]
    for network, view in zip(networks, views, strict=True):
        (shown,) = network.shown
        torch.testing.assert_close(shown, 10 * view - 3)


def test_one_network_may_take_several_steps_and_holds_its_parameters_once() -> None:
    transformer = AffineTransformer()
    shared = Constant(random_deltas(transformer, 1)[0])
    spatial = in_steps(transformer, [shared, shared])
    warps = spatial(pictures(), unchanged)
    assert len(shared.shown) == 2
    assert sum(parameter.numel() for parameter in spatial.parameters()) == 6
    theta = transformer.solve(shared.delta[None])
    torch.testing.assert_close(warps[1].theta, compose(theta, theta).expand(3, 2, 3))


def test_a_single_tile_lies_in_the_centre() -> None:
    (theta,) = tiles(1, 0.5)
    torch.testing.assert_close(theta, torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]))


@pytest.mark.parametrize(("count", "side"), [(4, 2), (9, 3)])
def test_a_square_number_of_tiles_covers_the_picture_row_by_row(count: int, side: int) -> None:
    parts = sample(torch.arange(36.0).view(1, 1, 6, 6).expand(count, 1, 6, 6), tiled(count, 1 / side, 6 // side))
    expected = np.arange(36.0).reshape(6, 6)
    for number, part in enumerate(parts):
        row, column = divmod(number, side)
        step = 6 // side
        block = expected[row * step : (row + 1) * step, column * step : (column + 1) * step]
        np.testing.assert_allclose(part[0], block, atol=1e-4)


def tiled(count: int, share: float, side: int) -> Tensor:
    return affine_points(torch.stack(tiles(count, share)), base_grid(side, side))


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", range(1, 10))
def test_tiles_lie_within_the_picture_each_in_its_own_place(count: int, share: float) -> None:
    thetas = torch.stack(tiles(count, share))
    corners = affine_points(thetas, corner_points())
    assert corners.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(thetas[:, 0, 0], torch.full((count,), share))
    torch.testing.assert_close(thetas[:, 1, 1], torch.full((count,), share))
    centres = {tuple(theta[:, 2].tolist()) for theta in thetas}
    assert len(centres) == (count if share < 1 else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_transformer_with_a_start_looks_at_its_tile_before_it_is_trained(kind: str) -> None:
    transformer = KINDS[kind]()
    nothing = Constant(torch.zeros(transformer.parameter_count))
    (warp,) = SpatialTransformer(transformer, [nothing], [Sampler((8, 12))], tiles(4, 0.5)[1])(pictures(), unchanged)
    torch.testing.assert_close(warp.theta, tiles(4, 0.5)[1].expand(3, 2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(warp.rectified, pictures()[:, :, :8, 12:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_start_comes_before_all_steps(steps: int) -> None:
    start = torch.tensor([[0.5, 0.1, 0.2], [0.0, 0.6, -0.3]])
    deltas, warps = run("affine", steps, start)
    expected = start[None]
    for delta in deltas:
        expected = compose(expected, AffineTransformer().solve(delta[None]))
    torch.testing.assert_close(warps[-1].theta, expected.expand(3, 2, 3), atol=1e-5, rtol=0)
    assert torch.equal(warps[0].parameters[0], AffineTransformer().solve(deltas[0][None])[0])


@pytest.mark.parametrize("outer", ["affine", "projective", "tps"])
@pytest.mark.parametrize("inner", ["similarity", "rotation", "projective", "tps"])
def test_gradients_reach_the_deltas_through_chained_maps(outer: str, inner: str) -> None:
    transformers = [KINDS[outer]().double(), KINDS[inner]().double()]
    deltas = [random_deltas(t, 1)[0].double()[None].requires_grad_() for t in transformers]
    grid = base_grid(2, 3).double()

    def mapped(*deltas: Tensor) -> Tensor:
        first, second = (partial(t.points, t.solve(d)) for t, d in zip(transformers, deltas, strict=True))
        return chain(first, second)(grid)

    assert torch.autograd.gradcheck(mapped, deltas)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_rectified_image_reach_every_step_and_the_picture(kind: str) -> None:
    transformer, images = KINDS[kind](), pictures().requires_grad_()
    networks = [Constant(delta) for delta in random_deltas(transformer, 3)]
    warps = in_steps(transformer, list(networks), tiles(4)[0])(images, unchanged)
    warps[-1].rectified.square().sum().backward()
    for tensor in (images, *(network.delta for network in networks)):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_a_batch_do_not_touch_each_other(kind: str) -> None:
    transformer, images = KINDS[kind](), pictures(4)
    networks: list[nn.Module] = [Brightness(transformer.parameter_count) for _ in range(2)]
    spatial = in_steps(transformer, networks, samples=2)
    together = spatial(images, unchanged)[-1]
    assert together.theta.std(dim=0).max() > 1e-3
    for item in range(4):
        alone = spatial(images[item : item + 1], unchanged)[-1]
        torch.testing.assert_close(alone.theta[0], together.theta[item], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.rectified[0], together.rectified[item], atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [1, 2])
def test_what_reads_the_image_trains_theta_only_if_training_is_joint(samples: int) -> None:
    transformer, images = AffineTransformer(), pictures()
    networks = [Constant(torch.full((6,), 0.1)) for _ in range(2)]
    spatial = in_steps(transformer, [*networks], samples=samples)
    spatial.joint = False
    warps = spatial(images.requires_grad_(), unchanged)
    warps[-1].rectified.square().sum().backward(retain_graph=True)
    assert all(network.delta.grad is None for network in networks)
    assert images.grad is not None
    warps[-1].theta.square().sum().backward()
    assert all(network.delta.grad is not None and network.delta.grad.abs().max() > 0 for network in networks)


def test_steps_before_the_last_see_a_margin_around_their_region() -> None:
    transformer = AffineTransformer()
    first, second = random_deltas(transformer, 2)
    spatial = SpatialTransformer(
        transformer, [Constant(first), Constant(second)], [Sampler((8, 8)), Sampler((6, 6))], centre(0.5), margin=1.5
    )
    wide, last = spatial(pictures(), unchanged)
    step_one, step_two = (transformer.solve(delta[None]) for delta in (first, second))
    torch.testing.assert_close(wide.theta, compose(centre(0.75)[None], step_one).expand(3, 2, 3), atol=1e-5, rtol=0)
    narrowed = compose(centre(0.75)[None], compose(step_one, centre(1 / 1.5)[None]))
    torch.testing.assert_close(last.theta, compose(narrowed, step_two).expand(3, 2, 3), atol=1e-5, rtol=0)


def test_a_single_step_has_no_margin() -> None:
    spatial = SpatialTransformer(AffineTransformer(), [Constant(torch.zeros(6))], [Sampler((6, 6))], margin=1.5)
    (warp,) = spatial(pictures(), unchanged)
    torch.testing.assert_close(warp.theta, torch.eye(2, 3).expand(3, 2, 3), atol=1e-6, rtol=0)
