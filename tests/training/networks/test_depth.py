"""A classifier is taken apart into stages in the order of the data flow, and the first ones can be frozen."""

import pytest
import torch
from torch import nn

from training.errors import RecipeError
from training.networks.backbones import backbone_classifier
from training.networks.classifiers import Classifier, conv_classifier
from training.networks.depth import freeze, parts
from training.recipes.photographs import MY_IMAGES
from training.recipes.recipe import change_recipe

STAGES = {
    "torchvision:resnet18": 5,
    "torchvision:mobilenet_v2": 19,
    "torchvision:shufflenet_v2_x0_5": 5,
    "torchvision:vgg11": 10,
    "timm:test_resnet": 5,
    "timm:test_vit": 7,
}


def built(name: str) -> Classifier:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    size = (160, 160) if name == "timm:test_vit" else (64, 64)
    return backbone_classifier(name, 3, 4, size)


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_but_the_heads_belongs_to_one_stage(name: str) -> None:
    classifier = built(name)
    found = [id(p) for part in parts(classifier) for p in part.all()]
    assert len(parts(classifier)) == STAGES[name]
    assert sorted(found) == sorted(id(p) for p in classifier.stages.parameters())


def test_stages_come_in_the_order_of_the_data_flow() -> None:
    classifier = built("torchvision:resnet18")
    names = {id(p): name for name, p in classifier.named_parameters()}
    firsts = [names[id(part.all()[0])].split(".")[2] for part in parts(classifier)]
    assert firsts == ["conv1", "layer1", "layer2", "layer3", "layer4"]


def test_backbones_side_by_side_have_their_stages_in_common() -> None:
    stages = parts(backbone_classifier("torchvision:resnet18", 3, 4, (64, 64), branches=2))
    assert [len(stage.modules) for stage in stages] == [4, 2, 2, 2, 2]  # the first: a convolution and its normalisation


def test_stages_of_our_own_classifiers_are_their_stages() -> None:
    classifier = conv_classifier(1, 10, (4, 8, 8))
    assert [part.modules for part in parts(classifier)] == [(stage,) for stage in classifier.stages]


def test_frozen_stages_change_neither_weights_nor_statistics_and_pass_gradients_on() -> None:
    classifier = built("torchvision:resnet18")
    freeze(classifier, 2)
    classifier.train()
    frozen = [*(module for part in parts(classifier)[:2] for module in part.modules)]
    before = [tensor.clone() for module in frozen for tensor in module.state_dict().values()]
    images = torch.rand(4, 3, 64, 64, requires_grad=True)
    optimiser = torch.optim.SGD([p for p in classifier.parameters() if p.requires_grad], lr=0.1)
    classifier(images).square().sum().backward()
    optimiser.step()
    after = [tensor for module in frozen for tensor in module.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert images.grad is not None
    assert images.grad.abs().max() > 0, "a transformer in front of it learns"
    learning = parts(classifier)[2].modules[0]
    assert all(m.training for m in learning.modules() if isinstance(m, nn.BatchNorm2d))


def test_more_stages_than_there_are_cannot_be_frozen() -> None:
    with pytest.raises(RecipeError, match="only 5 stages"):
        freeze(built("torchvision:resnet18"), 6)


def test_stages_without_trained_weights_cannot_be_frozen() -> None:
    with pytest.raises(RecipeError, match="frozen_stages has no effect without pretrained"):
        change_recipe(MY_IMAGES, {"frozen_stages": 1})
