"""Learning rates: of each part of the network, and over the steps of a run."""

import math
from typing import Any

from torch import nn

from training.networks.depth import parts
from training.networks.network import SpatialTransformerClassifier
from training.recipes.recipe import Recipe


def parameter_groups(network: SpatialTransformerClassifier, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the trained parameters grouped by learning rate and weight decay; only weight matrices decay."""
    localisation = {id(p): p for module in network.localisation_networks() for p in module.parameters()}
    factors = depth_factors(network, recipe.depth_decay)
    members: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for parameter in [*localisation.values(), *(p for p in network.parameters() if id(p) not in localisation)]:
        if not parameter.requires_grad:
            continue
        is_localisation = id(parameter) in localisation
        factor = recipe.localisation_rate if is_localisation else factors.get(id(parameter), 1.0)
        decay = recipe.weight_decay if parameter.dim() > 1 else 0.0
        members.setdefault((is_localisation, recipe.learning_rate * factor, decay), []).append(parameter)
    return [
        {"params": found, "lr": rate, "weight_decay": decay, "localisation": is_localisation}
        for (is_localisation, rate, decay), found in members.items()
    ]


def depth_factors(network: SpatialTransformerClassifier, decay: float) -> dict[int, float]:
    """Return the factor on the learning rate of each of the classifier's parameters but the head's, by their ids.

    The last stage has the factor ``decay``, and each stage before it ``decay`` times that of the next one.
    """
    stages = parts(network.classifier)
    return {
        id(parameter): decay ** (len(stages) - depth) for depth, stage in enumerate(stages) for parameter in stage.all()
    }


def rate_factor(recipe: Recipe, done: float) -> float:
    """Return the factor on the learning rate after the share ``done`` of all steps: a rising, then a falling cosine."""
    if done < recipe.warmup:
        return (1 - math.cos(math.pi * (done + 1e-3) / (recipe.warmup + 1e-3))) / 2
    if recipe.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (done - recipe.warmup) / (1 - recipe.warmup))) / 2
