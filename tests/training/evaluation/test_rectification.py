"""The measures of uprightness say 0 of what stands still, and the truth of what does not."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from training.data.batches import distortion
from training.data.distortions import similarity_maps
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.evaluation.rectification import ink_areas, ink_boxes, measure_uprightness, stillness
from training.networks.geometry import affine_points, base_grid, inverse_points
from training.networks.network import SpatialTransformerClassifier
from training.networks.samplers import sample
from training.recipes.digits import MNIST_RTS
from training.recipes.recipe import change_recipe


def test_stillness_is_zero_for_a_still_picture_and_one_for_noise() -> None:
    digits = torch.rand(1, 50, 1, 8, 8, generator=seeded(Stream.TEST))
    assert stillness(digits.expand(8, -1, -1, -1, -1)) == pytest.approx(0, abs=1e-6)
    assert stillness(torch.rand(8, 200, 1, 8, 8, generator=seeded(Stream.TEST))) == pytest.approx(7 / 8, abs=0.02)


def test_a_box_is_found_where_the_ink_is_and_follows_the_digit_onto_the_canvas() -> None:
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    images[..., 7:21, 14:28] = 200
    box = ink_boxes(images)
    torch.testing.assert_close(box, torch.tensor([[[0.0, -0.5], [1.0, -0.5], [1.0, 0.5], [0.0, 0.5]]]))
    maps = similarity_maps(torch.zeros(1), torch.ones(1), torch.tensor([[-7.0, 0.0]]), (28, 28), (56, 56))
    expected = torch.tensor([[[-0.25, -0.25], [0.25, -0.25], [0.25, 0.25], [-0.25, 0.25]]])
    torch.testing.assert_close(inverse_points(maps, box), expected)


def test_the_area_of_the_ink_is_a_share_of_the_picture() -> None:
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    images[0, :, 7:21, 14:28] = 200
    images[1] = 200
    torch.testing.assert_close(ink_areas(images), torch.tensor([0.25, 1.0]))


class Oracle(nn.Module):
    """Knows every distortion, and undoes it wholly or not at all."""

    def __init__(self, maps: list[Tensor], undoes: bool) -> None:
        super().__init__()
        self.maps = iter(maps)
        self.undoes = undoes

    def forward(self, images: Tensor) -> SimpleNamespace:
        maps = next(self.maps)
        square = torch.tensor([0.0, 0.0, 1.0]).expand(len(maps), 1, 3)
        inverse = torch.linalg.inv(torch.cat([maps, square], dim=1))[:, :2]
        theta = inverse if self.undoes else torch.eye(2, 3).expand_as(maps)
        rectified = sample(images, affine_points(theta, base_grid(28, 28)))
        return SimpleNamespace(warps=[SimpleNamespace(theta=theta, rectified=rectified)])


@pytest.fixture(scope="module")
def digits() -> Split:
    images = torch.zeros(30, 1, 28, 28, dtype=torch.uint8)
    for index in range(30):
        images[index, :, 6 + index % 5 : 20, 8 + index % 4 : 14 + index % 9] = 250
    return Split(images, torch.zeros(30, dtype=torch.int64))


@pytest.mark.parametrize("undoes", [True, False])
def test_who_undoes_the_distortion_stands_still_and_who_does_nothing_is_as_crooked_as_the_input(
    digits: Split, undoes: bool
) -> None:
    recipe = change_recipe(MNIST_RTS, {"distortion": "r", "canvas": [28, 28]})
    how = distortion(recipe)
    maps = [how.draw(30, (28, 28), seeded(Stream.UPRIGHTNESS, position=version))[0] for version in range(8)]
    found = measure_uprightness(cast(SpatialTransformerClassifier, Oracle(maps, undoes)), recipe, digits)
    assert (found.digits, found.versions) == (30, 8)
    assert 40 < found.input_rotation_deg < 60
    if undoes:
        assert found.rotation_deg < 0.1
        assert found.stillness < 0.05 < found.input_stillness
    else:
        assert found.rotation_deg == pytest.approx(found.input_rotation_deg, abs=0.05)
        assert found.stillness == pytest.approx(found.input_stillness, abs=0.01)


def test_a_distortion_that_is_no_affine_map_cannot_be_measured(digits: Split) -> None:
    recipe = change_recipe(MNIST_RTS, {"distortion": "e", "canvas": [28, 28]})
    with pytest.raises(TypeError, match="affine"):
        measure_uprightness(cast(SpatialTransformerClassifier, Oracle([], undoes=False)), recipe, digits)
