"""What a network is made of, layer by layer."""

from typing import NamedTuple

import torch
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from torch import nn

from training.fitting.trainer import Training
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe


class Layer(NamedTuple):
    """A layer without parts of its own."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of what it makes of one picture, without the batch axis."""
    parameters: int
    operations: int
    """Multiplications and additions for one picture, counted apart."""


class Summary(NamedTuple):
    """A network, in figures."""

    layers: tuple[Layer, ...]
    parameters: int
    operations: int


def summarise(recipe: Recipe, classes: int) -> Summary:
    """The network of ``recipe`` for so many classes; it is made, and shown one picture."""
    channels = len(recipe.mean)
    training = Training(SpatialTransformerClassifier(recipe, classes, channels), recipe, 0, classes)
    training.example_input_array = torch.zeros(1, channels, *recipe.canvas)
    found = ModelSummary(training, max_depth=-1)
    layers = tuple(
        Layer(name.removeprefix("network."), kind, tuple(size[1:]), parameters, sum(found.flop_counts[name].values()))
        for name, kind, size, parameters in zip(
            found.layer_names, found.layer_types, found.out_sizes, found.param_nums, strict=True
        )
        if is_leaf(training.get_submodule(name)) and isinstance(size, list)
    )
    return Summary(layers, found.total_parameters, found.total_flops)


def is_leaf(module: nn.Module) -> bool:
    """Whether ``module`` has no parts."""
    return not any(True for _ in module.children())
