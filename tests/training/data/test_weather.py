import pytest
import torch
from torch import Tensor

from training.data.weather import DRAWS, Weather, dappled, faded, tinted


def pictures(count: int = 8) -> Tensor:
    return 255 * torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def numbers(columns: int, count: int = 8) -> Tensor:
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(1))


def saturation(images: Tensor) -> Tensor:
    return (images.amax(dim=1) - images.amin(dim=1)).mean()


def test_without_a_chance_nothing_changes() -> None:
    weather, images = Weather(0.0), pictures()
    assert torch.equal(weather.shine(weather.fade(images, numbers(DRAWS)), numbers(DRAWS)), images)


def test_only_the_stated_share_changes_and_the_rest_is_as_it_was() -> None:
    images = pictures(1000)
    changed = (Weather(0.3).fade(images, numbers(DRAWS, 1000)) != images).any(dim=3).any(dim=2).any(dim=1)
    assert 0.25 < changed.float().mean() < 0.35


@pytest.mark.parametrize("value", [0.0, 255.0])
def test_pictures_keep_the_range_of_a_byte(value: float) -> None:
    weather = Weather(1.0)
    for images in (pictures(), torch.full((8, 3, 24, 32), value)):
        found = weather.shine(weather.fade(images, numbers(DRAWS)), numbers(DRAWS))
        assert found.isfinite().all()
        assert (found >= 0).all()
        assert (found <= 255).all()


def test_colours_fade_and_grey_stays() -> None:
    images, uniform = pictures(), numbers(3)
    assert saturation(faded(images, uniform)) < 0.6 * saturation(images)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(faded(grey, uniform), grey)


def test_leaves_darken_parts_and_brighten_none() -> None:
    found = dappled(torch.full((8, 3, 24, 32), 200.0), numbers(8))
    assert (found <= 200).all()
    assert (found.amin(dim=(1, 2, 3)) < 170).all()
    assert (found.amax(dim=(1, 2, 3)) > 190).all()


def test_coloured_light_multiplies_each_channel_evenly() -> None:
    images = 100 + pictures() / 10
    factors = tinted(images, numbers(3)) / images
    assert factors.std(dim=(2, 3)).max() < 1e-5
    assert factors.std(dim=1).min() > 0.001
    assert (factors > 0.77).all()
    assert (factors < 1.29).all()


def test_pictures_without_colour_get_through_too() -> None:
    weather = Weather(1.0)
    grey = pictures()[:, :1]
    assert weather.shine(weather.fade(grey, numbers(DRAWS)), numbers(DRAWS)).shape == grey.shape
