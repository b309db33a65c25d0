from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.networks import small
from training.data.augmentation import Jittered
from training.data.batches import training_distortion
from training.data.distortions import Distorted
from training.data.placement import OnBackgrounds, read_backgrounds
from training.data.random_streams import Stream, seeded
from training.errors import DataError, RecipeError
from training.networks.geometry import affine_points, base_grid
from training.networks.samplers import sample
from training.recipes.recipe import Augmentation, Placement, change_recipe

CANVAS = (48, 48)
CROP = 0.8
PLAIN = Placement(chance=1, smallest=0.4, largest=0.9, clutter=0)


def pictures(count: int = 16, side: int = 48) -> Tensor:
    """Smooth random pictures, uint8."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").to(torch.uint8)


def grounds(level: int = 100) -> Tensor:
    return torch.full((5, 3, *CANVAS), level, dtype=torch.uint8)


def placed(placement: Placement, backgrounds: Tensor | None, images: Tensor | None = None, seed: int = 0) -> Distorted:
    images = pictures() if images is None else images
    how = OnBackgrounds(Jittered(CANVAS, Augmentation()), placement, CROP, backgrounds)
    parameters = how.draw(len(images), CANVAS, seeded(Stream.DISTORTION, seed))
    return how.apply(images.float(), torch.arange(len(images)), parameters)


def corners(maps: Tensor) -> Tensor:
    """The corners of the object on the canvas, ``(N, 4, 2)``."""
    points = CROP * torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    moved: Tensor = torch.linalg.solve(maps[:, :, :2], points.T[None] - maps[:, :, 2:])
    return moved.transpose(1, 2)


def test_the_known_map_leads_back_to_the_picture() -> None:
    images = pictures()
    found = placed(PLAIN, grounds(), images)
    assert found.maps is not None
    back = torch.cat([found.maps, torch.tensor([[[0.0, 0, 1]]]).expand(len(images), 1, 3)], dim=1).inverse()[:, :2]
    inner = 0.5 * base_grid(16, 16)  # inside of the mask
    original = sample(images.float(), inner.expand(len(images), -1, -1, -1))
    recovered = sample(found.images, affine_points(back, inner))
    assert (original - recovered).abs().mean() < 6


def test_the_object_is_on_top_and_the_background_around_it() -> None:
    stripes = grounds(0)
    stripes[..., ::8] = 255
    found = placed(PLAIN, stripes, torch.full((16, 3, *CANVAS), 90, dtype=torch.uint8))
    assert found.maps is not None
    distance = affine_points(found.maps, base_grid(*CANVAS)).abs().amax(dim=-1)
    inside, outside = ((near[:, None]).expand_as(found.images) for near in (distance < 0.5, distance > 1.3))
    assert found.images[inside].std() < found.images[outside].std() / 3


def test_sizes_and_places_keep_their_limits() -> None:
    found = placed(PLAIN, grounds(), pictures(400))
    assert found.maps is not None
    outline = corners(found.maps)
    side = torch.linalg.det(torch.linalg.inv(found.maps[:, :, :2])).sqrt() * CROP
    assert 0.39 < side.min() < 0.45
    assert 0.8 < side.max() < 0.92
    assert side.log().median() < torch.tensor(0.65).log()  # log-uniform: the median is the geometric mean
    centre = outline.mean(dim=1)
    assert (centre.abs().amax(dim=1) <= 1 - side * (1 - 2 * PLAIN.cut) + 0.06).all()
    lean = torch.atan2(found.maps[:, 1, 0] - found.maps[:, 0, 1], found.maps[:, 0, 0] + found.maps[:, 1, 1]).rad2deg()
    assert 20 < lean.abs().max() <= PLAIN.rotation + PLAIN.shear / 2 + 0.1


def test_only_the_stated_share_is_placed() -> None:
    found = placed(PLAIN.model_copy(update={"chance": 0.3}), grounds(), pictures(400))
    assert found.maps is not None
    untouched = (found.maps - torch.eye(2, 3)).abs().amax(dim=(1, 2)) < 1e-6
    assert 0.6 < untouched.float().mean() < 0.8


def test_without_backgrounds_the_corners_of_other_pictures_are_used() -> None:
    found = placed(PLAIN, None)
    assert torch.isfinite(found.images).all()
    assert found.images.std() > 5


@pytest.mark.parametrize("clutter", [0.0, 0.5, 1.0])
def test_pictures_keep_the_range_of_a_byte(clutter: float) -> None:
    found = placed(Placement(chance=0.7, clutter=clutter), grounds(250))
    assert found.images.min() >= 0
    assert found.images.max() <= 255
    assert torch.isfinite(found.images).all()


def test_clutter_changes_the_picture_but_not_the_map() -> None:
    clean, cluttered = (placed(PLAIN.model_copy(update={"clutter": c}), grounds()) for c in (0.0, 1.0))
    assert clean.maps is not None
    assert cluttered.maps is not None
    assert torch.equal(clean.maps, cluttered.maps)
    assert ((clean.images - cluttered.images).abs().amax(dim=(1, 2, 3)) > 5).all()


def test_weather_changes_the_picture_but_not_the_map() -> None:
    clean, weathered = (placed(PLAIN.model_copy(update={"weather": w}), grounds()) for w in (0.0, 1.0))
    assert weathered.maps is not None
    assert clean.maps is not None
    assert torch.equal(clean.maps, weathered.maps)
    assert not torch.equal(clean.images, weathered.images)


def upright_edges(images: Tensor) -> Tensor:
    """By how many degrees the edges of each picture are turned from the vertical, away from its centre."""
    grey = images.mean(dim=1)
    right, down = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]), (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1])
    return 0.5 * torch.atan2((2 * right * down).sum(dim=(1, 2)), (right**2 - down**2).sum(dim=(1, 2))).rad2deg()


WIDE = (48, 96)
ALONE = Placement(chance=1, smallest=0.05, largest=0.06, rotation=30, roll=1, stretch=1, shear=0, clutter=0, cut=0)
"""Placement of an object that hides almost nothing of its background."""


def on_waves(placement: Placement, count: int = 64) -> tuple[Tensor, Tensor]:
    """By how many degrees objects and their backgrounds are turned; these are upright waves on a wide canvas."""
    waves = (127 + 100 * torch.sin(torch.arange(WIDE[1]) * 2 * torch.pi / 32)).expand(5, 3, *WIDE).to(torch.uint8)
    how = OnBackgrounds(Jittered(WIDE, Augmentation()), placement, CROP, waves)
    parameters = how.draw(count, CANVAS, seeded(Stream.DISTORTION))
    found = how.apply(torch.full((count, 3, *CANVAS), 127.0), torch.arange(count), parameters)
    assert found.maps is not None
    linear = found.maps[:, :, :2] / torch.tensor([WIDE[1], WIDE[0]])  # in pixels
    return torch.atan2(-linear[:, 0, 1], linear[:, 0, 0]).rad2deg(), upright_edges(found.images)


def test_backgrounds_are_turned_with_the_object() -> None:
    turned, edges = on_waves(ALONE)
    assert turned.abs().max() > 20
    assert (edges + turned).abs().median() < 1


def test_only_the_stated_share_of_the_backgrounds_is_turned() -> None:
    turned, edges = on_waves(ALONE.model_copy(update={"roll": 0.5}), 400)
    with_object, level = (edges + turned).abs() < 2, edges.abs() < 2
    told_apart = turned.abs() > 8
    assert (with_object | level)[told_apart].float().mean() > 0.9
    assert 0.35 < with_object[told_apart].float().mean() < 0.65
    _, still = on_waves(ALONE.model_copy(update={"roll": 0.0}))
    assert still.abs().max() < 1


def test_half_of_the_backgrounds_are_mirrored() -> None:
    ramp = torch.linspace(0, 255, CANVAS[1]).expand(5, 3, *CANVAS).to(torch.uint8)
    found = placed(ALONE.model_copy(update={"roll": 0.0}), ramp, torch.full((200, 3, *CANVAS), 127, dtype=torch.uint8))
    left, right = found.images[..., : CANVAS[1] // 2], found.images[..., CANVAS[1] // 2 :]
    assert 0.4 < (left.mean(dim=(1, 2, 3)) > right.mean(dim=(1, 2, 3))).float().mean() < 0.6


def test_the_same_seed_places_alike_and_another_does_not() -> None:
    first, again, other = (placed(PLAIN, grounds(), seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_small_object_is_not_read_with_aliasing() -> None:
    stripes = torch.zeros(16, 3, *CANVAS, dtype=torch.uint8)
    stripes[..., ::2] = 255
    tiny = Placement(chance=1, smallest=0.2, largest=0.21, rotation=0, stretch=1, shear=0, clutter=0)
    found = placed(tiny, grounds(128), stripes)
    assert found.maps is not None
    distance = affine_points(found.maps, base_grid(*CANVAS)).abs().amax(dim=-1)
    inside = (distance < 0.6)[:, None].expand_as(found.images)
    assert found.images[inside].std() < 40  # the stripes themselves have a deviation of 127


def test_backgrounds_are_read_from_a_folder_and_below_it(tmp_path: Path) -> None:
    (tmp_path / "streets").mkdir()
    for name, level in (("a.png", 10), ("streets/b.png", 200)):
        Image.new("RGB", (20, 30), (level,) * 3).save(tmp_path / name)
    recipe = change_recipe(small(), {"placement.chance": 0.5, "backgrounds": tmp_path, "distortion": "none"})
    found = read_backgrounds(recipe)
    assert found is not None
    assert found.shape == (2, len(recipe.mean), *recipe.canvas)
    assert sorted(found.flatten(1).float().mean(dim=1).round().tolist()) == [10, 200]
    assert isinstance(training_distortion(recipe), OnBackgrounds)


def test_a_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    recipe = change_recipe(small(), {"placement.chance": 0.5, "backgrounds": tmp_path, "distortion": "none"})
    with pytest.raises(DataError, match=f"{tmp_path} has no pictures; name another folder with --set backgrounds"):
        read_backgrounds(recipe)


def test_a_folder_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    recipe = change_recipe(small(), {"placement.chance": 0.5, "backgrounds": gone, "distortion": "none"})
    with pytest.raises(DataError, match=f"{gone} is not a folder"):
        read_backgrounds(recipe)


def test_backgrounds_without_placement_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"backgrounds has no effect without placement\.chance"):
        change_recipe(small(), {"backgrounds": "pictures"})


def test_a_small_object_keeps_its_place_in_a_picture_with_odd_sides() -> None:
    ramp = (5 * torch.arange(33)).expand(16, 1, 33, 33).to(torch.uint8)
    tiny = Placement(chance=1, smallest=0.2, largest=0.21, rotation=0, stretch=1, shear=0, clutter=0)
    how = OnBackgrounds(Jittered((33, 33), Augmentation()), tiny, CROP, None)
    maps = how.draw(16, (33, 33), seeded(Stream.DISTORTION, 0))[0]
    points = affine_points(maps, base_grid(33, 33))
    inside = points.abs().amax(dim=-1) < 0.7
    wanted = 5 * ((points[..., 0] + 1) * 16.5 - 0.5)
    assert (how._read(ramp.float(), maps)[:, 0] - wanted)[inside].abs().max() < 2.5  # half a pixel
