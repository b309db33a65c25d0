import math

import pytest
import torch

from training.data.augmentation import Jittered
from training.data.random_streams import Stream, seeded
from training.networks.geometry import affine_points, base_grid
from training.networks.samplers import sample
from training.recipes.recipe import Augmentation

SIZE = (24, 36)


def drawn(limits: Augmentation, count: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps in pixels ``(N, 2, 3)``, and factors of light."""
    maps, light = Jittered(SIZE, limits).draw(count, SIZE, seeded(Stream.DISTORTION))
    half = torch.tensor([SIZE[1] / 2, SIZE[0] / 2])
    linear = maps[:, :, :2] * half[:, None] / half
    return torch.cat([linear, maps[:, :, 2:] * half[:, None]], dim=-1), light


def smooth_pictures(count: int) -> torch.Tensor:
    x = torch.linspace(0, 1, SIZE[1]).expand(count, 3, *SIZE)
    return 60 + 120 * x


def test_without_limits_nothing_changes() -> None:
    maps, light = drawn(Augmentation())
    torch.testing.assert_close(maps, torch.eye(2, 3).expand_as(maps))
    assert (light == 1).all()
    images = smooth_pictures(2)
    jittered = Jittered(SIZE, Augmentation())
    unchanged = jittered.apply(images, torch.zeros(2), jittered.draw(2, SIZE, seeded(Stream.DISTORTION)))
    torch.testing.assert_close(unchanged.images, images, atol=1e-3, rtol=0)


def test_rotation_is_one_of_pixels_and_stays_within_its_limit() -> None:
    linear = drawn(Augmentation(rotation=20))[0][:, :, :2]
    torch.testing.assert_close(linear @ linear.mT, torch.eye(2).expand_as(linear), atol=1e-5, rtol=0)
    degrees = torch.atan2(linear[:, 0, 1], linear[:, 0, 0]).rad2deg()
    assert -20 <= degrees.min() < -18
    assert 18 < degrees.max() <= 20


def test_zoom_enlarges_and_shrinks_alike() -> None:
    areas = torch.linalg.det(drawn(Augmentation(zoom=1.5))[0][:, :, :2])
    assert 1.5**-2 - 1e-4 <= areas.min() < 0.5
    assert 2 < areas.max() <= 1.5**2 + 1e-4
    assert abs(float(areas.log().mean())) < 0.05


def test_stretch_keeps_the_area() -> None:
    linear = drawn(Augmentation(stretch=2))[0][:, :, :2]
    torch.testing.assert_close(torch.linalg.det(linear), torch.ones(500), atol=1e-5, rtol=0)
    ratios = linear[:, 1, 1] / linear[:, 0, 0]
    assert ratios.min() < 0.55
    assert ratios.max() > 1.9


def test_shift_and_shear_stay_within_their_limits() -> None:
    shifts = drawn(Augmentation(shift=0.1))[0][:, :, 2]
    assert shifts.amin(dim=0).tolist() == pytest.approx([-3, -2])
    assert shifts.amax(dim=0).tolist() == pytest.approx([3, 2])
    shears = drawn(Augmentation(shear=10))[0][:, 0, 1].abs()
    assert float(shears.max()) == pytest.approx(math.tan(math.radians(10)), rel=0.05)


def test_what_is_only_moved_and_mirrored_stays_sharp() -> None:
    jittered = Jittered(SIZE, Augmentation(shift=0.1, flip=True))
    images = torch.randint(0, 256, (50, 3, *SIZE)).float()
    moved = jittered.apply(images, torch.zeros(50), jittered.draw(50, SIZE, seeded(Stream.DISTORTION))).images
    torch.testing.assert_close(moved, moved.round(), atol=1e-2, rtol=0)
    assert not torch.equal(moved.round(), images)


def test_half_of_the_pictures_are_mirrored() -> None:
    maps = drawn(Augmentation(flip=True))[0]
    assert 200 < int((maps[:, 0, 0] < 0).sum()) < 300
    assert (maps[:, 1, 1] > 0).all()


def test_the_map_says_where_each_pixel_came_from() -> None:
    limits = Augmentation(rotation=30, zoom=1.2, stretch=1.2, shear=10, shift=0.1, flip=True)
    jittered = Jittered(SIZE, limits)
    images = 255 * torch.rand(4, 3, *SIZE)
    done = jittered.apply(images, torch.zeros(4), jittered.draw(4, SIZE, seeded(Stream.DISTORTION)))
    assert done.maps is not None
    torch.testing.assert_close(done.images, sample(images, affine_points(done.maps, base_grid(*SIZE)), "border"))


def test_light_changes_contrast_about_the_middle_then_brightness() -> None:
    jittered = Jittered(SIZE, Augmentation(light=0.5))
    images = smooth_pictures(1)
    still = torch.eye(2, 3)[None]
    brighter = jittered.apply(images, torch.zeros(1), (still, torch.tensor([[1.0, 1.2]])))
    torch.testing.assert_close(brighter.images, images * 1.2, atol=1e-3, rtol=0)
    flatter = jittered.apply(images, torch.zeros(1), (still, torch.tensor([[0.5, 1.0]])))
    torch.testing.assert_close(flatter.images - 120, (images - 120) / 2, atol=1e-3, rtol=0)
    too_bright = jittered.apply(images, torch.zeros(1), (still, torch.tensor([[1.0, 9.0]])))
    assert too_bright.images.max() == 255


def test_the_same_seed_draws_the_same() -> None:
    limits = Augmentation(rotation=10, light=0.2)
    assert all(torch.equal(a, b) for a, b in zip(drawn(limits), drawn(limits), strict=True))
