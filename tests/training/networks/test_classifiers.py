import pytest
import torch
from torch import Tensor, nn

from training.networks.classifiers import (
    Classifier,
    ResidualBlock,
    conv_classifier,
    residual_classifier,
    tutorial_classifier,
)
from training.networks.dropout import Dropout

SMALLEST = {"conv": 4, "residual": 1, "tutorial": 16}
every_classifier = pytest.mark.parametrize("kind", SMALLEST)


def classifier(kind: str, size: tuple[int, int] = (28, 28), channels: int = 2) -> Classifier:
    torch.manual_seed(0)
    if kind == "tutorial":
        return tutorial_classifier(channels, 7, size)
    if kind == "residual":
        return residual_classifier(channels, 7, 4, (1, 2, 1))
    return conv_classifier(channels, 7, (4, 8, 16))


def pictures(size: tuple[int, int] = (28, 28), count: int = 3) -> Tensor:
    return torch.rand(count, 2, *size, generator=torch.Generator().manual_seed(1))


@every_classifier
def test_every_class_gets_a_logit_at_any_size_from_the_smallest_on(kind: str) -> None:
    smallest = SMALLEST[kind]
    for size in ((smallest, smallest), (smallest, smallest + 7), (smallest + 9, smallest), (28, 28), (42, 60)):
        assert classifier(kind, size)(pictures(size)).shape == (3, 7)


@every_classifier
def test_stages_keep_the_shape_of_a_picture_and_have_the_stated_widths(kind: str) -> None:
    network = classifier(kind)
    features = pictures()
    for stage, width in zip(network.stages, network.widths, strict=True):
        features = stage(features)
        assert features.shape[:2] == (3, width)
        assert features.dim() == 4


@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_each_stage_halves_the_picture_and_doubles_the_width(kind: str) -> None:
    network = classifier(kind)
    features, shapes = pictures((28, 20)), []
    for stage in network.stages:
        features = stage(features)
        shapes.append(tuple(features.shape[1:]))
    assert shapes == [(4, 28, 20), (8, 14, 10), (16, 7, 5)]


def test_a_residual_block_that_adds_nothing_lets_features_through() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, stride=1).eval()
    features = torch.rand(2, 4, 5, 6)
    assert not torch.equal(block(features), features)
    last = block.body[-1]
    assert isinstance(last, nn.BatchNorm2d)
    nn.init.zeros_(last.weight)
    torch.testing.assert_close(block(features), features)


def test_the_residual_classifier_has_the_stated_number_of_blocks_in_each_stage() -> None:
    blocks = [
        sum(isinstance(layer, ResidualBlock) for layer in stage.children()) for stage in classifier("residual").stages
    ]
    assert blocks == [1, 2, 1]


@every_classifier
def test_the_head_reads_what_the_last_stage_makes(kind: str) -> None:
    network = classifier(kind).eval()
    torch.testing.assert_close(network(pictures()), network.head(nn.Sequential(*network.stages)(pictures())))


@every_classifier
def test_the_loss_reaches_the_picture_and_every_layer(kind: str) -> None:
    network, images = classifier(kind), pictures().requires_grad_()
    network(images).square().sum().backward()
    for name, tensor in [*network.named_parameters(), ("images", images)]:
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 0, name


def test_only_the_tutorial_classifier_drops_units_and_only_in_training() -> None:
    network = classifier("tutorial")
    assert [m.channels for m in network.modules() if isinstance(m, Dropout)] == [True, False]
    assert not torch.equal(network(pictures()), network(pictures()))
    network.eval()
    assert torch.equal(network(pictures()), network(pictures()))
    conv = classifier("conv")
    assert torch.equal(conv(pictures()), conv(pictures()))


@every_classifier
def test_items_of_a_batch_do_not_touch_each_other_in_evaluation(kind: str) -> None:
    network, images = classifier(kind), pictures(count=5)
    for _ in range(30):
        network(pictures(count=16))  # so that running means are those of the pictures
    network.eval()
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-5)
    assert alone.std(dim=0).max() > 1e-3
