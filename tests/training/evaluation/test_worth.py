"""The worth of theta is nothing for a transformer that does not look, and much for one that must."""

from typing import NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn

from tests.networks import build, randomised, small
from training.evaluation.worth import measure_worth
from training.networks.network import SpatialTransformerClassifier
from training.networks.samplers import Sampler
from training.networks.spatial import SpatialTransformer
from training.networks.transformers import AffineTransformer


class Answer(NamedTuple):
    logits: Tensor


class Finder(nn.Module):
    """A localisation network that points to the quadrant with the light, or to a fixed one."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.looks = looks

    def forward(self, images: Tensor) -> Tensor:
        light = images.sum(dim=1)
        x = light[:, :, 8:].sum(dim=(1, 2)) - light[:, :, :8].sum(dim=(1, 2))
        y = light[:, 8:].sum(dim=(1, 2)) - light[:, :8].sum(dim=(1, 2))
        sides = torch.stack([x, y], dim=1).sign() if self.looks else torch.ones(len(images), 2)
        half = torch.eye(2).expand(len(images), 2, 2) / 2
        theta = torch.cat([half, sides[:, :, None] / 2], dim=2)
        return (theta - torch.eye(2, 3)).flatten(1)


class Reader(nn.Module):
    """Tells whether the left or the right half of the rectified image is lighter."""

    def __init__(self, *, looks: bool) -> None:
        super().__init__()
        self.transform = SpatialTransformer(AffineTransformer(), [Finder(looks)], [Sampler((8, 8))])

    def forward(self, images: Tensor) -> Answer:
        view = self.transform(images, lambda view: view)[-1].rectified
        return Answer(torch.stack([view[..., :4].sum(dim=(1, 2, 3)), view[..., 4:].sum(dim=(1, 2, 3))], dim=1))


def quadrants(*, moving: bool) -> tuple[Tensor, Tensor]:
    """Pictures of a quadrant whose left or right half is light, and which half that is."""
    images = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
    labels = torch.arange(64) // 4 % 2
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(index % 4, 2) if moving else (1, 1)
        left = 8 * column + 4 * label
        images[index, :, 8 * row : 8 * row + 8, left : left + 4] = 200
    return images, labels


def test_a_transformer_that_must_find_the_thing_is_worth_nearly_all() -> None:
    reader = cast(SpatialTransformerClassifier, Reader(looks=True))
    found = measure_worth(reader, *quadrants(moving=True))
    assert found.accuracy == 1
    assert max(found.mean_theta, found.identity) <= 0.75
    assert found.lost == pytest.approx(1 - max(found.mean_theta, found.identity))
    assert found.p_value < 0.001
    assert not found.decoration


@pytest.mark.parametrize("looks", [True, False])
def test_a_transformer_that_gives_one_theta_for_all_pictures_is_decoration(looks: bool) -> None:
    found = measure_worth(cast(SpatialTransformerClassifier, Reader(looks=looks)), *quadrants(moving=False))
    assert (found.accuracy, found.mean_theta, found.lost) == (1, 1, 0)
    assert found.decoration


def test_a_network_is_as_it_was_after_the_measurement() -> None:
    reader = Reader(looks=True)
    images, labels = quadrants(moving=True)
    before = reader(images.float() / 255).logits
    measure_worth(cast(SpatialTransformerClassifier, reader), images, labels)
    assert torch.equal(reader(images.float() / 255).logits, before)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 2, "samples": 2},
        {"parallel": 2},
        {"transformer": "tps", "feature_stage": 1},
        {"shared_stage": True, "normalise": "before"},
    ],
    ids=str,
)
def test_every_composition_is_read_at_the_whole_picture_with_the_identity(changes: dict[str, object]) -> None:
    recipe = small(**changes)
    network = randomised(build(recipe), reach=1.0)
    images = (torch.rand(40, 1, *recipe.canvas, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    with torch.inference_mode():
        wanted = network(images.float() / 255).logits.argmax(dim=1)
    found = measure_worth(network, images, wanted)
    assert found.accuracy == 1
    still = build(recipe)
    still.load_state_dict(network.state_dict())
    for transform in still.modules():
        if isinstance(transform, SpatialTransformer):
            transform.moved = False
            for localisation in transform.localisations:
                localisation.register_forward_hook(lambda module, inputs, delta: torch.zeros_like(delta))
    with torch.inference_mode():
        answers = still.eval()(images.float() / 255).logits.argmax(dim=1)
    assert found.identity == pytest.approx(float((answers == wanted).double().mean()), abs=1e-6)
