"""Summaries of networks, layer by layer."""

from typing import NamedTuple

import torch
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from torch import nn

from training.fitting.trainer import Training
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe


class Layer(NamedTuple):
    """A layer without submodules."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Output shape without the batch axis."""
    parameters: int
    operations: int
    """Multiplications plus additions for one picture."""


class Summary(NamedTuple):
    """All layers of a network, and the totals."""

    layers: tuple[Layer, ...]
    parameters: int
    operations: int


def summarise(recipe: Recipe, classes: int) -> Summary:
    """Build the network of ``recipe`` for so many classes, run it on one picture, and summarise it."""
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
    """Return whether ``module`` has no submodules."""
    return not any(True for _ in module.children())
