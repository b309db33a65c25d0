"""Corners pull the whole map to the thing, through every known change of the picture."""

import pytest
import torch
from torch import Tensor

from training.data.augmentation import Jittered
from training.data.batches import distort
from training.data.placement import OnBackgrounds
from training.data.random_streams import Stream, seeded
from training.data.splits import Corners, Split
from training.fitting.corner_losses import corner_loss, corner_losses, mapped_corners, on_canvas
from training.networks.geometry import affine_points, corner_points, inverse_points
from training.networks.network import SpatialTransformerClassifier
from training.recipes.photographs import CORNERS
from training.recipes.recipe import Augmentation, Placement, Recipe, change_recipe

THING = torch.tensor([[[-0.4, -0.5], [0.3, -0.3], [0.4, 0.5], [-0.5, 0.2]]])

STILL = torch.eye(2, 3)[None]


def known(points: Tensor = THING, *, boxed: bool = False) -> Corners:
    return Corners(points, torch.tensor([boxed] * len(points)), torch.full((len(points), 2), 100.0))


def small(**changes: object) -> Recipe:
    return change_recipe(CORNERS, {"canvas": (32, 32), "rectified": (24, 24), "view": (24, 24), **changes})


def test_corners_in_their_place_cost_nothing_and_others_their_squared_distance() -> None:
    assert corner_loss(THING, known(), STILL) == 0
    torch.testing.assert_close(corner_loss(THING + torch.tensor([0.3, 0.4]), known(), STILL), torch.tensor(0.25))
    turned = THING.roll(1, dims=1)
    assert corner_loss(turned, known(), STILL) > 0.1, "each corner has its own place"


def test_a_box_says_how_far_the_thing_reaches_and_nothing_of_its_rotation() -> None:
    diamond = torch.tensor([[[0.0, -0.5], [0.5, 0.0], [0.0, 0.5], [-0.5, 0.0]]])
    box = 0.5 * corner_points()
    assert corner_loss(diamond, known(box, boxed=True), STILL) == 0
    assert corner_loss(0.5 * diamond, known(box, boxed=True), STILL) > 0.1
    assert corner_loss(diamond, known(box), STILL) > 0.1


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_frame_that_follows_a_turned_picture_fits_its_box(mirror: float) -> None:
    angle = torch.tensor(0.35)
    maps = torch.tensor([[[mirror * angle.cos(), -angle.sin(), 0.1], [mirror * angle.sin(), angle.cos(), 0.0]]])
    box = 0.5 * corner_points()
    wanted, following = on_canvas(known(box, boxed=True), maps), inverse_points(maps, box)
    assert corner_loss(following, wanted, maps) < 1e-10
    middle = following.mean(dim=1, keepdim=True)
    assert corner_loss(middle + 0.75 * (following - middle), wanted, maps) > 0.01


@pytest.mark.parametrize("flip", [False, True])
def test_corners_follow_the_picture_and_a_mirrored_one_shows_a_thing_that_is_not_mirrored(flip: bool) -> None:
    side = -0.8 if flip else 0.8
    maps = torch.tensor([[[side, 0.1, 0.2], [-0.1, 0.9, -0.1]]])
    found = on_canvas(known(), maps).points
    back = affine_points(maps, found)
    torch.testing.assert_close(back, THING[:, [1, 0, 3, 2]] if flip else THING)
    sides = found.roll(-1, dims=1) - found
    after = sides.roll(-1, dims=1)
    assert (sides[..., 0] * after[..., 1] > sides[..., 1] * after[..., 0]).all(), "clockwise on the canvas"


def test_every_step_says_where_the_thing_is_and_starts_on_the_canonical_crop() -> None:
    recipe = small(margin=1.3, crop=0.6)
    network = SpatialTransformerClassifier(recipe, 1, 3).eval()
    warps = network(torch.rand(2, 3, 32, 32)).warps
    assert len(warps) == 2
    for found in mapped_corners(warps, recipe.steps, recipe.margin):
        torch.testing.assert_close(found.expand(2, -1, -1), 0.6 * corner_points().expand(2, -1, -1))


@pytest.mark.parametrize("changes", [{}, {"transformer": "tps", "localisation": "modern"}, {"transformer": "affine"}])
def test_the_loss_takes_the_corners_of_the_whole_map_to_the_thing(changes: dict[str, object]) -> None:
    torch.manual_seed(0)
    recipe = small(**changes)
    network = SpatialTransformerClassifier(recipe, 1, 3)
    images, maps = torch.rand(4, 3, 32, 32), torch.eye(2, 3).expand(4, -1, -1)
    wanted = known(THING.expand(4, -1, -1))
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(60):
        whole, last = corner_losses(network(images).warps, maps, wanted, recipe)
        optimiser.zero_grad()
        whole.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(last))
    assert losses[-1] < 0.01 < losses[0]
    assert (losses[-1] > 0.003) == (recipe.transformer == "affine"), "no affine map fits closer"


def test_pictures_without_corners_do_not_count() -> None:
    recipe = small()
    torch.manual_seed(0)
    network = SpatialTransformerClassifier(recipe, 1, 3).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    warps = network(torch.rand(3, 3, 32, 32)).warps
    maps = torch.eye(2, 3).expand(3, -1, -1)
    some = torch.cat([THING, torch.full_like(THING, torch.nan), 0.5 * THING])
    alone = [corner_losses(warps, maps, known(points), recipe)[0] for points in (some, some[[0, 0, 2]])]
    assert torch.isfinite(alone[0])
    assert alone[0] != alone[1]
    nothing, last = corner_losses(warps, maps, known(torch.full((3, 4, 2), torch.nan)), recipe)
    assert (float(nothing.detach()), float(last)) == (0, 0)
    nothing.backward()  # type: ignore[no-untyped-call]


def test_pictures_with_corners_are_augmented_and_never_placed_on_others() -> None:
    placement = Placement(chance=1, smallest=0.3, largest=0.4, clutter=0)
    how = OnBackgrounds(Jittered((32, 32), Augmentation()), placement, 0.8, torch.zeros(2, 3, 32, 32))
    images = torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)
    corners = known(torch.cat([THING, torch.full_like(THING, torch.nan)]))
    split = Split(images, torch.zeros(2, dtype=torch.long), corners=corners)
    found = distort(how, split, seeded(Stream.DISTORTION))
    assert found.placed is not None
    assert found.maps is not None
    assert found.placed.tolist() == [False, True]
    torch.testing.assert_close(found.maps[0], torch.eye(2, 3))
    assert (found.images[0] - 200).abs().max() < 20, "but for its colour cast"
    assert found.images[1].min() < 100
