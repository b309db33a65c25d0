"""The measures of poses tell what is left of known changes, and how classes lean."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from training.data.distortions import similarity_maps
from training.data.random_streams import Stream, seeded
from training.data.splits import Split
from training.evaluation.poses import CHANGE, VERSIONS, Pose, deviation, known_changes, measure_pose, rotation
from training.networks.geometry import affine_points, base_grid, compose
from training.networks.network import SpatialTransformerClassifier
from training.networks.samplers import sample
from training.recipes.digits import MNIST_RTS
from training.recipes.recipe import Recipe, change_recipe


def test_rotation_is_the_angle_whatever_the_scale() -> None:
    angles = torch.tensor([-3.0, -1.0, 0.0, 0.5, 3.0])
    maps = similarity_maps(-angles, torch.tensor([0.5, 1, 1, 2, 1]), torch.zeros(5, 2), (28, 28), (28, 28))
    torch.testing.assert_close(rotation(maps), angles)


def test_deviation_is_the_spread_of_angles_also_across_half_a_turn() -> None:
    noise = 0.1 * torch.randn(4000, 1, generator=seeded(Stream.TEST))
    for middle in (0.0, math.pi):
        assert float(deviation(middle + noise)) == pytest.approx(0.1, rel=0.05)
    assert float(deviation(torch.full((8, 1), 3.1))) < 1e-3


def test_rotation_is_the_angle_in_pixels_of_an_oblong_picture_too() -> None:
    maps = similarity_maps(torch.tensor([-0.4]), torch.ones(1), torch.zeros(1, 2), (20, 40), (20, 40))
    assert float(rotation(maps, aspect=2.0)) == pytest.approx(0.4, abs=1e-5)
    assert float(rotation(maps)) != pytest.approx(0.4, abs=0.05)


class Follower(nn.Module):
    """Takes a share of a picture's known change out, and leans by the angle of the picture's class."""

    def __init__(self, share: float, lean_deg: tuple[float, ...]) -> None:
        super().__init__()
        self.share = share
        self.lean = torch.tensor(lean_deg).deg2rad()
        self.labels = torch.zeros(0, dtype=torch.int64)
        self.maps: Iterator[Tensor] = iter(())

    def forward(self, images: Tensor) -> SimpleNamespace:
        maps = next(self.maps)
        lean = self.lean[self.labels]
        wanted = similarity_maps(-lean, torch.ones(len(lean)), torch.zeros(len(lean), 2), (28, 28), (28, 28))
        square = torch.tensor([0.0, 0.0, 1.0]).expand(len(maps), 1, 3)
        inverse = torch.linalg.inv(torch.cat([maps, square], dim=1))[:, :2]
        still = torch.eye(2, 3).expand_as(maps)
        theta = compose(inverse if self.share else still, wanted)
        return SimpleNamespace(
            warps=[SimpleNamespace(theta=theta, rectified=sample(images, affine_points(theta, base_grid(28, 28))))]
        )


@pytest.fixture(scope="module")
def digits() -> Split:
    images = torch.rand(24, 1, 28, 28, generator=seeded(Stream.TEST)) * 255
    return Split(images.to(torch.uint8), torch.arange(24) % 3)


def measured(recipe: Recipe, digits: Split, share: float, lean_deg: tuple[float, ...]) -> Pose:
    follower = Follower(share, lean_deg)
    how, pictures = known_changes(recipe, digits)
    parameters = [how.draw(24, (28, 28), seeded(Stream.UPRIGHTNESS, position=version)) for version in range(VERSIONS)]
    follower.maps, follower.labels = iter([maps[0] for maps in parameters]), pictures.labels
    return measure_pose(cast(SpatialTransformerClassifier, follower), recipe, digits, ("a", "b", "c", "none"))


@pytest.mark.parametrize("distortion", ["r", "none"], ids=["its own distortion", "the common change"])
def test_nothing_is_left_of_known_changes_that_theta_takes_out(distortion: str, digits: Split) -> None:
    recipe = change_recipe(MNIST_RTS, {"distortion": distortion, "canvas": [28, 28]})
    found = measured(recipe, digits, share=1, lean_deg=(0, 0, 0))
    assert found.turn_deg.left < 0.1 < 5 < found.turn_deg.given
    assert found.shift.left < 1e-3
    assert found.size.left == pytest.approx(1, abs=1e-3)
    if distortion == "none":
        assert found.turn_deg.given == pytest.approx(CHANGE.rotation / 3**0.5, rel=0.15)
        assert found.shift.given == pytest.approx(CHANGE.shift * (2 / 3) ** 0.5, rel=0.2)
        assert found.size.given == pytest.approx(CHANGE.zoom ** (3**-0.5), abs=0.02)


def test_all_is_left_of_known_changes_if_theta_is_the_same_for_all_pictures(digits: Split) -> None:
    recipe = change_recipe(MNIST_RTS, {"distortion": "none", "canvas": [28, 28]})
    found = measured(recipe, digits, share=0, lean_deg=(0, 0, 0))
    for change in (found.turn_deg, found.shift, found.size):
        assert change.left == change.given


def test_each_class_has_its_mean_lean_and_classes_without_pictures_have_none(digits: Split) -> None:
    recipe = change_recipe(MNIST_RTS, {"distortion": "r", "canvas": [28, 28]})
    found = measured(recipe, digits, share=1, lean_deg=(10, -20, 175))
    assert found.class_lean_deg == pytest.approx({"a": 10, "b": -20, "c": 175}, abs=0.05)
    assert found.between_deg == pytest.approx(0, abs=0.1)


def test_things_of_a_class_that_lean_differently_have_a_spread_across_half_a_turn(digits: Split) -> None:
    recipe = change_recipe(MNIST_RTS, {"distortion": "r", "canvas": [28, 28]})
    whole = digits._replace(labels=torch.arange(24) % 2)
    follower = Follower(1, (170, -170))
    how, _ = known_changes(recipe, whole)
    follower.maps = iter([how.draw(24, (28, 28), seeded(Stream.UPRIGHTNESS, position=v))[0] for v in range(VERSIONS)])
    follower.labels = whole.labels
    together = whole._replace(labels=torch.zeros(24, dtype=torch.int64))
    found = measure_pose(cast(SpatialTransformerClassifier, follower), recipe, together, ("all",))
    assert abs(found.class_lean_deg["all"]) == pytest.approx(180, abs=0.1)
    assert found.between_deg == pytest.approx(10, rel=0.02)
