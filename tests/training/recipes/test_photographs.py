"""The recipes for photographs of 224x224 pixels look at a small copy and cut from the whole picture."""

import numpy as np
import pytest
import torch

from export.graph import ServedNetwork, folded
from export.onnx import OnnxRuntime
from export.parity import compare, trained
from tests.export.test_kinds import interface
from training.errors import RecipeError
from training.networks.network import SpatialTransformerClassifier
from training.networks.samplers import Sampler
from training.recipes.catalogue import find_recipe
from training.recipes.photographs import PHOTOGRAPHS_224, PHOTOGRAPHS_224_CNN
from training.recipes.recipe import change_recipe


def test_localisation_sees_a_small_copy_and_the_sampler_the_whole_picture() -> None:
    network = SpatialTransformerClassifier(PHOTOGRAPHS_224, 5, 3).eval()
    seen: list[tuple[int, ...]] = []
    sampled: list[tuple[int, ...]] = []
    (localisation,) = network.localisation_networks()
    localisation.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    (sampler,) = (module for module in network.modules() if isinstance(module, Sampler))
    sampler.register_forward_pre_hook(lambda _, inputs: sampled.append(tuple(inputs[0].shape)))
    with torch.inference_mode():
        output = network(torch.rand(2, 3, 224, 224))
    assert seen == [(2, 3, 64, 64)]
    assert sampled == [(2, 3, 224, 224)]
    assert output.warps[0].rectified.shape == (2, 3, 128, 128)
    assert output.logits.shape == (2, 5)


def test_the_plain_twin_reads_the_whole_picture_with_the_same_backbone() -> None:
    assert PHOTOGRAPHS_224_CNN.read_size == (224, 224)
    assert PHOTOGRAPHS_224_CNN.classifier == PHOTOGRAPHS_224.classifier
    assert find_recipe("photographs-224-cnn").augmentation == PHOTOGRAPHS_224.augmentation


def test_what_only_the_first_step_sees_small_is_exported_as_it_was_trained() -> None:
    recipe = change_recipe(
        PHOTOGRAPHS_224,
        {"canvas": (50, 70), "localisation_size": (16, 24), "rectified": (20, 28), "classifier": "conv"},
    )
    network = SpatialTransformerClassifier(recipe, 10, 3)
    for one in network.localisation_networks():
        torch.nn.init.uniform_(one[-1].weight, -0.05, 0.05)  # type: ignore[index]
    served, stated = ServedNetwork(network).eval(), interface(recipe)
    outputs, runtime = tuple(stated.outputs), OnnxRuntime()
    images = np.random.default_rng(0).integers(0, 256, (4, 50, 70, 3), dtype=np.uint8)
    content = runtime.serialise(folded(served), torch.from_numpy(images[:2]), outputs)
    compare(trained(served, outputs), runtime.load(content, outputs), stated, images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"localisation_size": (230, 64)}, "localisation_size is larger than canvas"),
        ({"localisation_size": (4, 4)}, "needs a localisation_size of at least 8x8"),
    ],
)
def test_a_copy_that_is_too_large_or_too_small_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        change_recipe(PHOTOGRAPHS_224, changes)
    with pytest.raises(RecipeError, match="localisation_size has no effect without a transformer"):
        change_recipe(PHOTOGRAPHS_224_CNN, {"localisation_size": (64, 64)})
