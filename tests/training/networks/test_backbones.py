"""Backbones of timm and torchvision classify the rectified image; nothing is downloaded here."""

from pathlib import Path

import pytest
import torch
from torch import nn

from training.errors import RecipeError
from training.networks.backbones import Parallel, backbone_classifier, load_pretrained
from training.networks.classifiers import Classifier
from training.networks.network import SpatialTransformerClassifier
from training.recipes.photographs import MY_IMAGES
from training.recipes.recipe import Recipe, change_recipe

SMALL = {
    "torchvision": "torchvision:resnet18",
    "timm": "timm:test_resnet",
}
IN_PARALLEL = {
    "parallel": 2,
    "localisation": "modern",
    "crop": 1.0,
    "upright": 0.0,
    "pose": 0.0,
    "canonical": 0.0,
    "corners": 0.0,
}


def recipe(classifier: str, **changes: object) -> Recipe:
    return change_recipe(MY_IMAGES, {"classifier": classifier, "rectified": (32, 32), **changes})


def backbones(classifier: Classifier) -> nn.ModuleList:
    (stage,) = classifier.stages
    assert isinstance(stage, Parallel)
    return stage.backbones


def need(library: str) -> None:
    if library == "timm":
        pytest.importorskip("timm")


@pytest.mark.parametrize("library", SMALL)
def test_a_backbone_reads_the_rectified_image_and_its_gradient_reaches_the_transformer(library: str) -> None:
    need(library)
    network = SpatialTransformerClassifier(recipe(SMALL[library]), 5, 3)
    with torch.no_grad():
        for localisation in network.localisation_networks():
            for parameter in localisation.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape))
    output = network(torch.rand(2, 3, 64, 64))
    assert output.logits.shape == (2, 5)
    output.logits.square().sum().backward()
    gradients = [p.grad for n in network.localisation_networks() for p in n.parameters() if p.grad is not None]
    assert any(gradient.abs().max() > 0 for gradient in gradients)


def test_building_a_backbone_leaves_it_in_training_and_untrained() -> None:
    built = [backbone_classifier(SMALL["torchvision"], 3, 4, (32, 32)) for _ in range(2)]
    assert all(module.training for module in built[0].modules())
    first, second = (next(each.parameters()) for each in built)
    assert not torch.equal(first, second)


def test_a_backbone_of_timm_reads_grey_images() -> None:
    need("timm")
    assert backbone_classifier(SMALL["timm"], 1, 4, (32, 32))(torch.rand(2, 1, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize("library", SMALL)
def test_each_of_several_branches_has_a_backbone_of_its_own(library: str) -> None:
    need(library)
    both = recipe(SMALL[library], **IN_PARALLEL)
    classifier = SpatialTransformerClassifier(both, 4, 3).classifier.eval()
    first, second = torch.rand(2, 2, 3, 32, 32)
    one, other = backbones(classifier)
    expected = torch.cat([one(first), other(second)], dim=1)
    torch.testing.assert_close(classifier.stages[0](torch.cat([first, second], dim=1)), expected)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert classifier(torch.cat([first, second], dim=1)).shape == (2, 4)


def test_all_branches_start_with_the_same_trained_weights(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    save(backbone_classifier(SMALL["torchvision"], 3, 4, (32, 32)).stages[0].state_dict(), tmp_path / "w.safetensors")
    chosen = recipe(SMALL["torchvision"], **IN_PARALLEL, pretrained=str(tmp_path / "w.safetensors"))
    classifier = SpatialTransformerClassifier(chosen, 4, 3).classifier
    load_pretrained(classifier, chosen, 3)
    one, other = (dict(backbone.named_parameters()) for backbone in backbones(classifier))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("classifier", "channels", "message"),
    [
        ("torchvision:resnet19", 3, "torchvision has no usable classifier 'resnet19'; it has, for example, resnet"),
        ("torchvision:inception_v3", 3, "no usable classifier 'inception_v3'"),
        ("torchvision:resnet18", 1, "reads 3 channels, but gets 1; choose a backbone of timm"),
        ("timm:levit_128s", 3, "does not take images of 32x32 pixels .*; change rectified"),
        ("timm:resnet_19", 3, "timm has no model 'resnet_19'; it has, for example, resn"),
    ],
)
def test_a_backbone_that_cannot_be_used_is_refused_with_the_cure(classifier: str, channels: int, message: str) -> None:
    need(classifier.partition(":")[0])
    with pytest.raises(RecipeError, match=message):
        backbone_classifier(classifier, channels, 4, (32, 32))


def test_a_recipe_names_only_backbones_that_it_can_name() -> None:
    for wrong in ("resnet18", "timm:", "keras:resnet", "timm:../weights"):
        with pytest.raises(RecipeError, match="classifier"):
            recipe(wrong)
    with pytest.raises(RecipeError, match="pretrained has no effect without classifier=timm:NAME"):
        recipe("conv", pretrained=True)


def test_trained_weights_are_read_from_a_file_and_their_head_is_left_out(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    built = backbone_classifier(SMALL["torchvision"], 3, 4, (32, 32))
    kept = {name: value.clone() for name, value in built.stages[0].state_dict().items()}
    save(kept | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "whole.safetensors")
    other = backbone_classifier(SMALL["torchvision"], 3, 4, (32, 32))
    chosen = recipe(SMALL["torchvision"], pretrained=str(tmp_path / "whole.safetensors"))
    load_pretrained(other, chosen, 3)
    assert all(torch.equal(value, kept[name]) for name, value in other.stages[0].state_dict().items())


def test_weights_that_are_missing_damaged_or_of_another_network_are_refused(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    built = backbone_classifier(SMALL["torchvision"], 3, 4, (32, 32))
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    save(nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    save({"conv1.weight": torch.zeros(1)}, tmp_path / "shape.safetensors")
    for name, message in (
        ("missing", "No such file.*set pretrained=FILE.safetensors"),
        ("damaged", "damaged or not a file of safetensors"),
        ("other", "lacks 100 weights of torchvision:resnet18, for example conv1.weight"),
        ("shape", "do not fit torchvision:resnet18"),
    ):
        chosen = recipe(SMALL["torchvision"], pretrained=str(tmp_path / f"{name}.safetensors"))
        with pytest.raises(RecipeError, match=message):
            load_pretrained(built, chosen, 3)
